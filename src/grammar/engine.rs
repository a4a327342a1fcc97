//! llguidance, as it is used here: from a [`Grammar`] to its input, and from its errors to ours.
//!
//! All that runs it goes through [`run`], which turns panics in it into errors.

use super::{Grammar, Source, schema};
use crate::Result;
use crate::error::Error;
use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::{Logger, panic_utils};
use std::fmt::Display;
use std::panic::AssertUnwindSafe;

/// What the engine may spend. Its errors are to be short: whole grammars and stacks are no help in them.
pub(super) fn limits() -> ParserLimits {
    ParserLimits { verbose_errors: false, ..ParserLimits::default() }
}

/// Checks what can be checked without a vocabulary.
pub(super) fn check(grammar: &Grammar) -> Result<()> {
    let init = GrammarInit::Serialized(input(grammar)?);
    let compiled = run(grammar.subject(), || {
        let compiled = init.to_cgrammar(None, &mut Logger::new(0, 0), limits(), vec![]);
        Ok(compiled.map(drop).map_err(|error| error.to_string()))
    })?;
    compiled.map_err(|reason| refused(grammar, &reason))
}

/// The grammar as the engine reads it.
pub(super) fn input(grammar: &Grammar) -> Result<TopLevelGrammar> {
    let wrong = |reason: &str| refused(grammar, reason);
    match &grammar.source {
        Source::JsonSchema(schema) => {
            let schema = schema::prepare(schema).map_err(|reason| wrong(&reason))?;
            Ok(TopLevelGrammar::from_json_schema(schema))
        }
        Source::Regex(expression) => {
            // A lone backslash at the end would be dropped on the way.
            let backslashes = expression.bytes().rev().take_while(|&byte| byte == b'\\').count();
            if backslashes % 2 == 1 {
                return Err(wrong("it ends in a backslash that escapes nothing"));
            }
            match &expression[..] {
                // Two slashes with nothing between them would begin a comment.
                "" => Ok(TopLevelGrammar::from_lark("start: \"\"".into())),
                expression => Ok(TopLevelGrammar::from_regex(expression)),
            }
        }
        // Bytes that no text has would reach the control tokens; and replies are texts.
        Source::Lark(text) if text.contains("allow_invalid_utf8") => {
            Err(wrong("`allow_invalid_utf8` is not supported"))
        }
        Source::Lark(text) => Ok(TopLevelGrammar::from_lark(text.clone())),
    }
}

/// Runs the engine on something: what panics in it is an error, of which nothing is printed.
pub(super) fn run<T>(subject: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let outcome = panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(work())));
    outcome.unwrap_or_else(|error| {
        let reason = format!("the engine failed: {}", first_part(&error.to_string()));
        Err(Error::Grammar { subject: subject.into(), reason })
    })
}

/// The error for a grammar that the engine does not take.
pub(super) fn refused(grammar: &Grammar, error: &(impl Display + ?Sized)) -> Error {
    Error::Grammar { subject: grammar.subject().into(), reason: reason(grammar, &error.to_string()) }
}

/// The engine's words, or ours where those would not help.
fn reason(grammar: &Grammar, words: &str) -> String {
    let words = first_part(words);
    // Where in a Lark grammar an expression stands, is of interest only if there is one.
    if let (Source::Regex(_), Some((_, words))) = (&grammar.source, words.split_once("(in regex): ")) {
        return words.split("\n   1 | start:").next().unwrap_or(words).to_owned();
    }
    if let Some(keys) = words.strip_prefix("Unimplemented keys: ") {
        let keys = keys.trim_matches(['[', ']']).replace('"', "`");
        return format!("keywords that are not supported: {keys}");
    }
    if words.starts_with("oneOf constraints are not supported") {
        return "`oneOf` with options that cannot be told apart by type or constant is not supported; `anyOf` is"
            .into();
    }
    words.replace(" without 'referencing' feature", "")
}

/// Without what is appended for those who debug the engine.
fn first_part(words: &str) -> &str {
    let cut = ["\n<state>", "\n<non-verbose/>", "\n<backtrace>"].iter().filter_map(|mark| words.find(mark)).min();
    words[..cut.unwrap_or(words.len())].trim()
}
