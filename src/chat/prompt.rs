//! From a conversation to the tokens that a model sees: the template renders it, and what a user wrote stays text.

use super::calls::CallFormat;
use super::message::{Message, Role, Tool};
use super::reader::{Style, THOUGHT_MARKS};
use crate::gguf::Metadata;
use crate::template::{Now, Template};
use crate::tokenizer::{Guard, Tokenizer, unused_mark};
use crate::{Error, Result};
use serde_json::{Map, Value};

const KEY: &str = "tokenizer.chat_template";

/// A template together with the vocabulary that it writes for.
#[derive(Debug)]
pub struct Prompter {
    template: Template,
    source: String,
    /// For what users and tools wrote.
    guard: Guard,
    /// For what the model wrote.
    control_guard: Guard,
    bos: Option<u32>,
    bos_text: String,
    eos_text: String,
}

/// A conversation as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The text, in which tokens that users wrote have the mark in them.
    text: String,
    mark: char,
}

impl Prompt {
    /// The text without marks: what the template has rendered.
    pub fn text(&self) -> String {
        self.text.replace(self.mark, "")
    }

    /// The text that a session has to hold to hold this.
    pub(super) fn marked(&self) -> &str {
        &self.text
    }

    /// Adds what the model is taken to have written.
    pub(super) fn push(&mut self, guarded: &str) {
        self.text.push_str(guarded);
    }
}

impl Prompter {
    /// Whether a model file has a template.
    pub(super) fn is_in(metadata: &Metadata) -> bool {
        metadata.get(KEY).is_some()
    }

    /// The template of a model file; the one for tools if there is one and `with_tools`.
    ///
    /// # Errors
    /// [`Error::Metadata`] if there is none, [`Error::Template`] if it is no template.
    pub fn of_file(metadata: &Metadata, tokenizer: &Tokenizer, with_tools: bool) -> Result<Self> {
        let for_tools = if with_tools { metadata.str(&format!("{KEY}.tool_use"))? } else { None };
        let source = match for_tools {
            Some(source) => Some(source),
            None => metadata.str(KEY)?,
        };
        let expected = "a chat template; `ChatBuilder::template` takes it from elsewhere";
        Self::new(source.ok_or_else(|| Error::metadata(KEY, "nothing", expected))?, tokenizer)
    }

    /// A template of any source.
    ///
    /// # Errors
    /// [`Error::Template`] if it is no template.
    pub fn new(source: &str, tokenizer: &Tokenizer) -> Result<Self> {
        let special = tokenizer.special();
        let text = |token: Option<u32>| {
            token.map(|token| String::from_utf8_lossy(tokenizer.piece(token)).into_owned()).unwrap_or_default()
        };
        Ok(Prompter {
            template: Template::new(source)?,
            source: source.into(),
            guard: tokenizer.guard(source),
            control_guard: tokenizer.control_guard(),
            bos: special.bos.filter(|_| special.add_bos),
            bos_text: text(special.bos),
            eos_text: text(special.eos),
        })
    }

    /// Renders a context: the object that the template sees. Of `messages`, `tools` and `documents` all texts but the
    /// names of roles are taken to be a user's. `bos_token` and `eos_token` are the vocabulary's if the context has none.
    ///
    /// # Errors
    /// [`Error::Template`] if the template refuses the conversation, or goes wrong.
    pub fn render(&self, context: &Value, now: Now) -> Result<Prompt> {
        let mut texts = vec![&self.source[..]];
        collect_texts(context, &mut texts);
        let mark = unused_mark(texts.into_iter()).ok_or_else(|| Error::Chat {
            subject: "text".into(),
            found: "each of the 32 characters from U+FDD0 on".into(),
            expected: "one of them unused: they are no characters of texts".into(),
        })?;
        let mut context = context.clone();
        for key in ["tools", "documents"] {
            if let Some(value) = context.get_mut(key) {
                mark_texts(value, &self.guard, mark);
            }
        }
        let messages = context.get_mut("messages").and_then(Value::as_array_mut);
        for message in messages.into_iter().flatten() {
            let is_models = message["role"] == "assistant";
            mark_texts(message, if is_models { &self.control_guard } else { &self.guard }, mark);
        }
        if let Some(object) = context.as_object_mut() {
            object.entry("bos_token").or_insert_with(|| self.bos_text[..].into());
            object.entry("eos_token").or_insert_with(|| self.eos_text[..].into());
        }
        let text = self.template.render(&context, now)?;
        // Where a template writes JSON in ASCII, the mark is an escape.
        let text = text.replace(&format!("\\u{:04x}", u32::from(mark)), mark.encode_utf8(&mut [0; 4]));
        Ok(Prompt { text, mark })
    }

    /// The tokens of a prompt.
    pub fn tokens(&self, prompt: &Prompt, tokenizer: &Tokenizer) -> Vec<u32> {
        self.tokens_from(prompt, 0, tokenizer)
    }

    /// The tokens of a prompt behind its first bytes, which a session holds.
    pub(super) fn tokens_from(&self, prompt: &Prompt, start_bytes: usize, tokenizer: &Tokenizer) -> Vec<u32> {
        let text = prompt.text.get(start_bytes..).unwrap_or_default();
        let mut tokens = tokenizer.encode_marked(text, prompt.mark, start_bytes == 0);
        if let Some(bos) = self.bos.filter(|bos| start_bytes == 0 && tokens.first() != Some(bos)) {
            tokens.insert(0, bos);
        }
        tokens
    }

    /// What the model wrote, as it would stand in a prompt.
    pub(super) fn guarded(&self, text: &str, prompt: &Prompt) -> String {
        self.control_guard.mark(text, prompt.mark).into_owned()
    }

    /// How the model writes, by what the template knows.
    pub(super) fn style(&self, with_tools: bool) -> Style {
        let calls = CallFormat::of_template(&self.source);
        let thoughts = THOUGHT_MARKS.into_iter().find(|(_, close)| self.source.contains(close));
        Style { thoughts, calls: calls.filter(|calls| with_tools || *calls == CallFormat::Harmony) }
    }

    /// Control tokens that have to be seen to read what the model writes.
    pub(super) fn shown(&self, style: &Style, tokenizer: &Tokenizer) -> Vec<u32> {
        let thoughts = style.thoughts.map_or(vec![], |(open, close)| vec![open, close]);
        let calls = style.calls.map_or(&[][..], CallFormat::marks);
        thoughts.iter().chain(calls).filter_map(|text| tokenizer.token(text)).collect()
    }

    /// A conversation as templates see it.
    pub(super) fn context(&self, messages: &[Message], tools: &[Tool], variables: &Map<String, Value>) -> Value {
        let mut context = variables.clone();
        context.insert("messages".into(), messages.iter().map(|message| self.message(message)).collect());
        if !tools.is_empty() {
            context.insert("tools".into(), tools.iter().map(Tool::to_json).collect());
        }
        context.insert("add_generation_prompt".into(), true.into());
        Value::Object(context)
    }

    /// A message in the words of the template.
    fn message(&self, message: &Message) -> Value {
        let mut value = message.to_json();
        let Some(object) = value.as_object_mut() else { return value };
        if let Some(thought) = object.remove("reasoning_content") {
            if self.source.contains("reasoning_content") {
                object.insert("reasoning_content".into(), thought);
            } else if self.source.contains("message.thinking") && message.text.is_empty() {
                // Together with a text it is refused, or left out.
                object.insert("thinking".into(), thought);
            }
        }
        value
    }

    /// Whether the template takes a message of the system. Some refuse it, some leave it out.
    pub(super) fn takes_system(&self, tools: &[Tool], variables: &Map<String, Value>, now: Now) -> bool {
        const PROBE: &str = "kiln-probe";
        let messages = [Message::new(Role::System, PROBE), Message::user("a")];
        let prompt = self.render(&self.context(&messages, tools, variables), now);
        prompt.is_ok_and(|prompt| prompt.text.contains(PROBE))
    }
}

/// All texts in a value, keys included.
fn collect_texts<'v>(value: &'v Value, texts: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(values) => values.iter().for_each(|value| collect_texts(value, texts)),
        Value::Object(object) => object.iter().for_each(|(key, value)| {
            texts.push(key);
            collect_texts(value, texts);
        }),
        _ => {}
    }
}

/// Marks all texts in a value, but for the names that templates go by.
fn mark_texts(value: &mut Value, guard: &Guard, mark: char) {
    match value {
        Value::String(text) => *text = guard.mark(text, mark).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(|value| mark_texts(value, guard, mark)),
        Value::Object(object) => {
            for (key, mut value) in std::mem::take(object) {
                let is_name = matches!(&key[..], "role" | "type") && value.as_str().is_some_and(is_plain);
                if !is_name {
                    mark_texts(&mut value, guard, mark);
                }
                object.insert(guard.mark(&key, mark).into_owned(), value);
            }
        }
        _ => {}
    }
}

/// Whether a text can be nothing but a name.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The context that tells the same in one message less: the system's words become the beginning of the first user's.
pub(super) fn without_system(messages: &[Message]) -> Vec<Message> {
    let mut folded: Vec<Message> = messages.iter().filter(|message| message.role != Role::System).cloned().collect();
    let said = messages.iter().filter(|message| message.role == Role::System).map(|message| &message.text[..]);
    let said: Vec<&str> = said.collect();
    if let Some(first) = folded.iter_mut().find(|message| message.role == Role::User) {
        first.text = format!("{}\n\n{}", said.join("\n\n"), first.text);
    }
    folded
}
