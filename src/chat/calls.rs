//! How models write down that they call a tool, and what it means.

use super::message::ToolCall;
use serde_json::{Map, Value};

/// The ways to write calls that are understood. Which one a model uses is told by its template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallFormat {
    /// `<tool_call>{"name": .., "arguments": {..}}</tool_call>`, or `<function=..><parameter=..>` in the same tags.
    Tagged,
    /// `{"name": .., "parameters": {..}}` as the whole message, perhaps behind `<|python_tag|>`, more of them behind `;`.
    Bare,
    /// `[TOOL_CALLS][{"name": .., "arguments": {..}, "id": ..}, ..]`, or `[TOOL_CALLS]name[ARGS]{..}`.
    Mistral,
    /// A message on the channel `commentary` to `functions.NAME`, whose body is the arguments.
    Harmony,
}

impl CallFormat {
    /// The format that a template writes earlier calls in.
    pub fn of_template(template: &str) -> Option<Self> {
        let formats = [
            (CallFormat::Harmony, &["<|channel|>"][..]),
            (CallFormat::Mistral, &["[TOOL_CALLS]"]),
            (CallFormat::Tagged, &["<tool_call>"]),
            (CallFormat::Bare, &["<|python_tag|>", "ipython", r#"{"name": function name, "parameters":"#]),
        ];
        let known = |(_, marks): &&(Self, &[&str])| marks.iter().any(|mark| template.contains(mark));
        formats.iter().find(known).map(|(format, _)| *format)
    }

    /// What a call begins with, wherever it stands in a text.
    pub fn opens(self) -> &'static str {
        match self {
            CallFormat::Tagged => "<tool_call>",
            CallFormat::Bare => "<|python_tag|>",
            CallFormat::Mistral => "[TOOL_CALLS]",
            CallFormat::Harmony => "<|channel|>",
        }
    }

    /// Tokens that have to be seen to read calls, though they steer the model.
    pub fn marks(self) -> &'static [&'static str] {
        match self {
            CallFormat::Tagged => &["<tool_call>", "</tool_call>"],
            CallFormat::Bare => &["<|python_tag|>"],
            CallFormat::Mistral => &["[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"],
            CallFormat::Harmony => &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>", "<|end|>"],
        }
    }
}

/// Where a JSON object or list ends, found as its text comes in.
#[derive(Debug, Default, Clone)]
pub(super) struct JsonEnd {
    at: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl JsonEnd {
    /// Looks at a text that begins with the value and has grown since the last time. Returns its length once it is whole.
    pub fn find(&mut self, text: &str) -> Option<usize> {
        for &byte in text.as_bytes().get(self.at..)? {
            self.at += 1;
            if self.in_string {
                (self.in_string, self.escaped) = (byte != b'"' || self.escaped, byte == b'\\' && !self.escaped);
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.at);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// The calls in a text of JSON: an object, or a list of some. Otherwise what is wrong with it.
pub(super) fn from_json(text: &str) -> Result<Vec<ToolCall>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("{error}, expected JSON"))?;
    match value {
        Value::Array(values) if !values.is_empty() => values.into_iter().map(from_value).collect(),
        value => from_value(value).map(|call| vec![call]),
    }
}

fn from_value(value: Value) -> Result<ToolCall, String> {
    let Value::Object(mut object) = value else { return Err(format!("found {value}, expected an object")) };
    // Some models nest the call as it is written in lists of tools.
    if let Some(Value::Object(function)) = object.get("function") {
        let id = object.get("id").cloned();
        object = function.clone();
        object.extend(id.map(|id| ("id".to_owned(), id)));
    }
    let name = ["name", "function"].iter().find_map(|key| object.get(*key)?.as_str().map(str::to_owned));
    let name = name.ok_or("found no name, expected the name of a tool")?;
    let arguments = ["arguments", "parameters"].iter().find_map(|key| object.remove(*key));
    let id = object.get("id").and_then(Value::as_str).unwrap_or_default();
    Ok(ToolCall::new(id, name, arguments_of(arguments.unwrap_or(Value::Null))?))
}

/// Arguments are an object, or a string of one, or nothing.
fn arguments_of(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(arguments) => Ok(arguments),
        Value::Null => Ok(Map::new()),
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(Value::Object(arguments)) => Ok(arguments),
            _ => Err(format!("found the arguments {text:?}, expected an object")),
        },
        other => Err(format!("found the arguments {other}, expected an object")),
    }
}

/// A call whose name stands apart from its arguments.
pub(super) fn named(name: &str, id: &str, arguments: &str) -> Result<ToolCall, String> {
    let name = name.trim();
    if name.is_empty() {
        return Err("found no name, expected the name of a tool".into());
    }
    let value = match arguments.trim() {
        "" => Value::Null,
        text => serde_json::from_str(text).map_err(|error| format!("{error}, expected the arguments as JSON"))?,
    };
    Ok(ToolCall::new(id.trim(), name, arguments_of(value)?))
}

/// A call as `<function=NAME><parameter=KEY>VALUE</parameter>..</function>`. Values that are JSON are taken as such, others
/// as strings.
pub(super) fn from_tags(text: &str) -> Result<ToolCall, String> {
    let expected = "expected <function=NAME>, parameters and </function>";
    let text = text.trim();
    let inner = text.strip_prefix("<function=").and_then(|rest| rest.split_once('>'));
    let (name, mut rest) = inner.ok_or_else(|| format!("found {text:?}, {expected}"))?;
    let mut arguments = Map::new();
    loop {
        rest = rest.trim_start();
        if let Some(behind) = rest.strip_prefix("</function>") {
            if !behind.trim().is_empty() {
                return Err(format!("found {behind:?} behind the call, expected nothing"));
            }
            return match name.trim() {
                "" => Err("found no name, expected the name of a tool".into()),
                name => Ok(ToolCall::new("", name, arguments)),
            };
        }
        let parameter = rest.strip_prefix("<parameter=").and_then(|rest| rest.split_once('>'));
        let whole = parameter.and_then(|(key, rest)| Some((key, rest.split_once("</parameter>")?)));
        let (key, (value, behind)) = whole.ok_or_else(|| format!("found {rest:?}, {expected}"))?;
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        arguments.insert(key.trim().into(), serde_json::from_str(value).unwrap_or_else(|_| value.into()));
        rest = behind;
    }
}
