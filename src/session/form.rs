//! What a reply has to conform to: the feature `grammar` in sessions. Without it, and without a grammar, anything goes.

use super::{Generate, Model};
use crate::Result;

#[cfg(feature = "grammar")]
pub(super) use with_grammar::{Cached, Form};

/// Nothing.
#[cfg(not(feature = "grammar"))]
#[derive(Debug)]
pub(super) struct Form;

#[cfg(not(feature = "grammar"))]
impl Form {
    pub fn new(_: &Generate, _: &Model) -> Result<Self> {
        Ok(Form)
    }

    pub fn is_free(&self) -> bool {
        true
    }

    pub fn prepare(&mut self) -> Result<bool> {
        Ok(true)
    }

    pub fn restrict(&self, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    pub fn accept(&mut self, _: u32) -> Result<()> {
        Ok(())
    }
}

#[cfg(feature = "grammar")]
mod with_grammar {
    use super::super::lock;
    use super::{Generate, Model, Result};
    use crate::grammar::{Grammar, Mask, Matcher, Vocabulary};
    use serde_json::Value;
    use std::sync::{Arc, Mutex};

    /// The vocabulary as grammars see it, once a reply has needed it.
    pub type Cached = Mutex<Option<Arc<Vocabulary>>>;

    /// Where a reply stands in its grammar, if it has one.
    #[derive(Debug)]
    pub struct Form(Option<Place>);

    #[derive(Debug)]
    struct Place {
        matcher: Matcher,
        /// What may come next.
        mask: Option<Mask>,
        ignore_end: bool,
    }

    impl Form {
        /// The beginning of a reply.
        pub fn new(how: &Generate, model: &Model) -> Result<Self> {
            let Some(grammar) = &how.grammar else { return Ok(Form(None)) };
            let matcher = Matcher::new(grammar, &model.vocabulary()?)?;
            Ok(Form(Some(Place { matcher, mask: None, ignore_end: how.ignore_end })))
        }

        /// Whether there is no grammar.
        pub fn is_free(&self) -> bool {
            self.0.is_none()
        }

        /// Finds out what may come next. Returns whether anything may: otherwise the text is complete.
        pub fn prepare(&mut self) -> Result<bool> {
            let Some(Place { matcher, mask, ignore_end }) = &mut self.0 else { return Ok(true) };
            *mask = matcher.mask()?;
            let any_left = |mask: &mut Mask| !*ignore_end || mask.without_ends(matcher.vocabulary());
            Ok(mask.as_mut().is_some_and(any_left))
        }

        /// Rules out the tokens that may not come next, as last [prepared](Self::prepare).
        pub fn restrict(&self, logits: &mut [f32]) -> Result<()> {
            let mask = self.0.as_ref().and_then(|place| place.mask.as_ref());
            mask.map_or(Ok(()), |mask| mask.restrict(logits))
        }

        /// Goes on by a token.
        pub fn accept(&mut self, token: u32) -> Result<()> {
            self.0.as_mut().map_or(Ok(()), |place| place.matcher.accept(token))
        }
    }

    impl Model {
        /// The vocabulary as grammars see it: made when it is first asked for, and kept.
        pub(super) fn vocabulary(&self) -> Result<Arc<Vocabulary>> {
            let mut cached = lock(&self.shared.vocabulary);
            if let Some(vocabulary) = &*cached {
                return Ok(vocabulary.clone());
            }
            let vocabulary = Arc::new(Vocabulary::new(self.tokenizer())?);
            *cached = Some(vocabulary.clone());
            Ok(vocabulary)
        }
    }

    /// Structured output, with the feature `grammar`. A reply has one grammar: the last that is set.
    ///
    /// What is wrong with a grammar that is given as text, the start of the reply tells.
    impl Generate {
        /// The reply is JSON that this schema describes; see [`Grammar::json_schema`] for what schemas may ask for.
        #[must_use]
        pub fn json_schema(self, schema: &Value) -> Self {
            self.grammar(Grammar::unchecked_json_schema(schema))
        }

        /// This regular expression matches the whole reply; see [`Grammar::regex`].
        #[must_use]
        pub fn regex(self, expression: &str) -> Self {
            self.grammar(Grammar::unchecked_regex(expression))
        }

        /// The reply is a text of this grammar; see [`Grammar::lark`].
        #[must_use]
        pub fn lark(self, grammar: &str) -> Self {
            self.grammar(Grammar::unchecked_lark(grammar))
        }

        /// Sets [`Generate::grammar`].
        #[must_use]
        pub fn grammar(mut self, grammar: Grammar) -> Self {
            self.grammar = Some(grammar);
            self
        }
    }
}
