//! Structured output: replies that conform to a JSON schema, a regular expression or a grammar.
//!
//! A [`Grammar`] says what a text may be. Before each token is chosen, a [`Matcher`] tells which tokens of the vocabulary
//! lead on to such a text, and only those are chosen from: what the model would rather have said does not count. Most
//! applications only ask for it, with [`Generate::json_schema`](crate::Generate::json_schema) and its like:
//!
//! ```
//! use kiln::{Generate, Model};
//! use serde_json::{Value, json};
//!
//! let model = Model::open("examples/model-in-the-box/box.gguf")?;
//! let schema = json!({
//!     "type": "object",
//!     "properties": { "city": { "enum": ["Paris", "Rome"] }, "stars": { "type": "integer", "minimum": 1, "maximum": 5 } },
//!     "required": ["city", "stars"],
//!     "additionalProperties": false
//! });
//! let mut session = model.session();
//! let text = session.generate_with("My favourite city: ", Generate::new().json_schema(&schema))?.text()?;
//! let answer: Value = serde_json::from_str(&text).expect("what the schema describes");
//! assert!(["Paris", "Rome"].contains(&answer["city"].as_str().unwrap_or_default()));
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! Those who choose tokens by themselves use the parts: a [`Vocabulary`], made once of a tokenizer, and a [`Matcher`] for
//! each text.
//!
//! # What can be relied on
//!
//! - A text that was generated to its end conforms. One that was cut short, by a limit of tokens, a stop text, or
//!   cancelling, is the beginning of one that does.
//! - The grammar is matched with the bytes that tokens print as, all of them: with a SentencePiece vocabulary too there is
//!   no space in front that would be taken away later.
//! - Control tokens are no text. They are never chosen, unless a Lark grammar names them, as `<|tool|>` without quotes.
//! - What cannot be honoured is an error that says what, from the start; it is not ignored.
//!
//! The engine is llguidance: a lexer of derivatives under an Earley parser, that walk the vocabulary as a trie.

mod engine;
mod matcher;
mod schema;
mod vocabulary;

pub use matcher::{Mask, Matcher};
pub use vocabulary::Vocabulary;

use crate::Result;
use serde_json::Value;

/// What a text may be. Two are equal if they were written the same way.
#[derive(Debug, Clone, PartialEq)]
pub struct Grammar {
    source: Source,
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    JsonSchema(Value),
    Regex(String),
    Lark(String),
}

impl Grammar {
    /// Any JSON value.
    pub fn json() -> Self {
        Self::unchecked(Source::JsonSchema(Value::Bool(true)))
    }

    /// A JSON value that a schema describes.
    ///
    /// Draft 2020-12, or an older one that `$schema` names. White space is left to the model, but only a bounded stretch
    /// of it; properties come in the order of the schema; characters are written as such, not as `\u` escapes. Keywords
    /// that no draft knows are taken for remarks, as the standard says. These are not supported: `not`, `if`, `contains`,
    /// `uniqueItems`, `propertyNames`, `dependencies`, `unevaluated…`; `oneOf` where the options cannot be told apart;
    /// `$ref` to other documents. A number without bounds may, as in JSON, be larger than a float holds.
    ///
    /// # Errors
    /// [`Error::Grammar`](crate::Error::Grammar) for a schema that is broken, that nothing conforms to, or that asks for
    /// what is not supported.
    pub fn json_schema(schema: &Value) -> Result<Self> {
        Self::unchecked_json_schema(schema).checked()
    }

    /// A text that a regular expression matches from its beginning to its end. The syntax is that of the crate `regex`,
    /// without look-around, and with anchors only at the ends, where they say nothing new.
    ///
    /// # Errors
    /// [`Error::Grammar`](crate::Error::Grammar) if the expression is broken or too large.
    pub fn regex(expression: &str) -> Result<Self> {
        Self::unchecked_regex(expression).checked()
    }

    /// A text of a context-free grammar in the syntax of Lark, as llguidance extends it. The rule `start` is the text.
    ///
    /// ```
    /// use kiln::grammar::Grammar;
    ///
    /// let sums = Grammar::lark(r#"
    ///     start: NUMBER (("+" | "-") NUMBER)*
    ///     NUMBER: /[0-9]+/
    /// "#)?;
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Grammar`](crate::Error::Grammar) with the line, if the grammar is broken. Whether the control tokens that
    /// it names exist shows only with a vocabulary.
    pub fn lark(grammar: &str) -> Result<Self> {
        Self::unchecked_lark(grammar).checked()
    }

    pub(crate) fn unchecked_json_schema(schema: &Value) -> Self {
        Self::unchecked(Source::JsonSchema(schema.clone()))
    }

    pub(crate) fn unchecked_regex(expression: &str) -> Self {
        Self::unchecked(Source::Regex(expression.to_owned()))
    }

    pub(crate) fn unchecked_lark(grammar: &str) -> Self {
        Self::unchecked(Source::Lark(grammar.to_owned()))
    }

    fn unchecked(source: Source) -> Self {
        Grammar { source }
    }

    fn checked(self) -> Result<Self> {
        engine::check(&self).map(|()| self)
    }

    /// What errors call it.
    fn subject(&self) -> &'static str {
        match self.source {
            Source::JsonSchema(_) => "JSON schema",
            Source::Regex(_) => "regular expression",
            Source::Lark(_) => "Lark grammar",
        }
    }
}
