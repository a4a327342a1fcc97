//! What is said: messages, and the tools that a model may call. Both have the JSON form that chat programs share.

use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::fmt;

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Whoever made the application.
    System,
    /// Whoever uses it.
    User,
    /// The model.
    Assistant,
    /// A tool that the model has called.
    Tool,
}

impl Role {
    const ALL: [Role; 4] = [Role::System, Role::User, Role::Assistant, Role::Tool];

    fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said; of a tool, what it found.
    pub text: String,
    /// What the model thought before.
    pub thought: String,
    /// What the model calls.
    pub calls: Vec<ToolCall>,
    /// Which call a tool answers.
    pub answers: Option<String>,
}

impl Message {
    /// A message that is only text.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Message { role, text: text.into(), thought: String::new(), calls: vec![], answers: None }
    }

    /// What the application says.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, text)
    }

    /// What a person says.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, text)
    }

    /// What the model says.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, text)
    }

    /// What came of a call.
    pub fn tool(call: &ToolCall, result: impl Into<String>) -> Self {
        Message { answers: Some(call.id.clone()), ..Self::new(Role::Tool, result) }
    }

    /// The form that other programs read: `role`, `content`, and where there are some `reasoning_content`, `tool_calls`
    /// and `tool_call_id`.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("role".into(), self.role.name().into());
        object.insert("content".into(), self.text[..].into());
        if !self.thought.is_empty() {
            object.insert("reasoning_content".into(), self.thought[..].into());
        }
        if !self.calls.is_empty() {
            object.insert("tool_calls".into(), self.calls.iter().map(ToolCall::to_json).collect());
        }
        if let Some(id) = &self.answers {
            object.insert("tool_call_id".into(), id[..].into());
        }
        Value::Object(object)
    }

    /// Reads that form. The content may be missing, or a list of parts that are all text; the arguments of a call may be a
    /// string of JSON.
    ///
    /// # Errors
    /// [`Error::Chat`] if it is no such message.
    pub fn from_json(value: &Value) -> Result<Self> {
        let name = value["role"].as_str().unwrap_or_default();
        let role = match name {
            "developer" => Some(Role::System),
            "ipython" | "tool_results" => Some(Role::Tool),
            _ => Role::ALL.into_iter().find(|role| role.name() == name),
        };
        let role = role.ok_or_else(|| wrong("role", &value["role"], "system, user, assistant or tool"))?;
        let mut message = Message::new(role, content(&value["content"])?);
        for key in ["reasoning_content", "thinking"] {
            message.thought.push_str(value[key].as_str().unwrap_or_default());
        }
        message.answers = value["tool_call_id"].as_str().map(str::to_owned);
        match &value["tool_calls"] {
            Value::Null => {}
            Value::Array(calls) => message.calls = calls.iter().map(ToolCall::from_json).collect::<Result<_>>()?,
            other => return Err(wrong("tool calls", other, "a list")),
        }
        Ok(message)
    }
}

/// The text of a message's content.
fn content(value: &Value) -> Result<String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let text = |part: &Value| match part {
                Value::String(text) => Ok(text.clone()),
                _ => part["text"].as_str().map(str::to_owned).ok_or_else(|| wrong("content", part, "parts of text")),
            };
            parts.iter().map(text).collect()
        }
        other => Err(wrong("content", other, "a text, or a list of them")),
    }
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ToolCall {
    /// What tells it from other calls, so that a result can say what it belongs to.
    pub id: String,
    /// The tool.
    pub name: String,
    /// What it is called with: an object.
    pub arguments: Map<String, Value>,
}

impl ToolCall {
    /// A call. The id should be nine letters and digits long: some templates ask for that.
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: Map<String, Value>) -> Self {
        ToolCall { id: id.into(), name: name.into(), arguments }
    }

    /// The form that other programs read.
    pub fn to_json(&self) -> Value {
        let function = json!({ "name": self.name, "arguments": self.arguments });
        json!({ "id": self.id, "type": "function", "function": function })
    }

    fn from_json(value: &Value) -> Result<Self> {
        let function = value.get("function").unwrap_or(value);
        let name = function["name"].as_str().ok_or_else(|| wrong("tool call", value, "a function with a name"))?;
        let parsed: Option<Value> = function["arguments"].as_str().and_then(|text| serde_json::from_str(text).ok());
        match parsed.unwrap_or_else(|| function["arguments"].clone()) {
            Value::Object(arguments) => Ok(ToolCall::new(value["id"].as_str().unwrap_or_default(), name, arguments)),
            other => Err(wrong("arguments of a tool call", &other, "an object")),
        }
    }
}

/// What a model may call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does, for the model to read.
    pub description: String,
    /// The JSON schema of its arguments.
    pub parameters: Value,
}

impl Tool {
    /// A tool.
    ///
    /// ```
    /// use kiln::chat::Tool;
    /// use serde_json::json;
    ///
    /// let place = json!({ "type": "string", "description": "A city" });
    /// let schema = json!({ "type": "object", "properties": { "place": place }, "required": ["place"] });
    /// let weather = Tool::new("weather", "Tells the weather of a place.", schema);
    /// assert_eq!(weather.to_json()["function"]["name"], "weather");
    /// ```
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: Value) -> Self {
        Tool { name: name.into(), description: description.into(), parameters }
    }

    /// The form that other programs read.
    pub fn to_json(&self) -> Value {
        let Tool { name, description, parameters } = self;
        let function = json!({ "name": name, "description": description, "parameters": parameters });
        json!({ "type": "function", "function": function })
    }
}

fn wrong(subject: &str, found: &Value, expected: &str) -> Error {
    Error::Chat { subject: subject.into(), found: found.to_string(), expected: expected.into() }
}
