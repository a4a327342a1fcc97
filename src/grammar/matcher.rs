//! A grammar on its way along a text, token by token.

use super::{Grammar, Vocabulary, engine};
use crate::Result;
use crate::error::Error;
use llguidance::TokenParser;
use llguidance::api::StopReason;
use llguidance::toktrie::SimpleVob;
use std::fmt;
use std::sync::Arc;

/// Follows a text of a grammar: tells which tokens may come next, and takes the one that was chosen.
///
/// ```
/// use kiln::gguf::Gguf;
/// use kiln::grammar::{Grammar, Matcher, Vocabulary};
/// use kiln::tokenizer::Tokenizer;
/// use std::sync::Arc;
///
/// let tokenizer = Tokenizer::load(Gguf::open("tests/golden/models/llama.gguf")?.metadata())?;
/// let vocabulary = Arc::new(Vocabulary::new(&tokenizer)?);
/// let mut matcher = Matcher::new(&Grammar::regex("a|bc")?, &vocabulary)?;
/// while let Some(mask) = matcher.mask()? {
///     let token = mask.iter().next().expect("masks are never empty"); // where a model would choose
///     matcher.accept(token)?;
/// }
/// # Ok::<(), kiln::Error>(())
/// ```
///
/// After an error it is of no more use.
pub struct Matcher {
    parser: TokenParser,
    vocabulary: Arc<Vocabulary>,
    subject: &'static str,
    accepted: usize,
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher")
            .field("grammar", &self.subject)
            .field("accepted", &self.accepted)
            .finish_non_exhaustive()
    }
}

impl Clone for Matcher {
    /// Another one that goes its own way from here.
    fn clone(&self) -> Self {
        let Matcher { parser, vocabulary, subject, accepted } = self;
        Matcher { parser: parser.deep_clone(), vocabulary: vocabulary.clone(), subject, accepted: *accepted }
    }
}

impl Matcher {
    /// At the beginning of a text.
    ///
    /// # Errors
    /// [`Error::Grammar`] as the constructors of [`Grammar`] have it, and if a control token is not in the vocabulary.
    pub fn new(grammar: &Grammar, vocabulary: &Arc<Vocabulary>) -> Result<Self> {
        let input = engine::input(grammar)?;
        let created = engine::run(grammar.subject(), || Ok(vocabulary.factory.create_parser(input)))?;
        let mut parser = created.map_err(|error| engine::refused(grammar, &error))?;
        let warnings = parser.grammar_warnings();
        warnings.iter().for_each(|warning| log::warn!("{}: {warning}", grammar.subject()));
        let mut matcher = Matcher { parser, vocabulary: vocabulary.clone(), subject: grammar.subject(), accepted: 0 };
        matcher.run(|parser| {
            parser.start_without_prompt();
            // A grammar of nothing but the empty text is at its end.
            parser.check_stop().map(drop).map_err(|error| error.to_string())
        })?;
        Ok(matcher)
    }

    /// The tokens that may come next: those that end the text among them, where it may end. `None` if nothing may come.
    ///
    /// # Errors
    /// [`Error::Grammar`] if no token of the vocabulary goes on although the text is not complete, and if the grammar is
    /// too ambiguous to be followed.
    pub fn mask(&mut self) -> Result<Option<Mask>> {
        if self.must_end() {
            return Ok(None);
        }
        let may_end = self.may_end()?;
        self.run(|parser| match parser.compute_mask() {
            Ok(mask) => Ok(Some(Mask(mask))),
            // The grammar would go on, but there is no token for it.
            Err(_) if parser.stop_reason() == StopReason::NoExtensionBias && may_end => Ok(None),
            Err(_) if parser.stop_reason() == StopReason::NoExtensionBias => {
                Err("no token of the vocabulary goes on, and the text is not complete".into())
            }
            Err(error) => Err(error.to_string()),
        })
    }

    /// Takes the token that comes next.
    ///
    /// # Errors
    /// [`Error::Grammar`] if it may not come here.
    pub fn accept(&mut self, token: u32) -> Result<()> {
        let is_end = self.vocabulary.ends().contains(&token);
        let tokens = self.vocabulary.tokens();
        self.run(|parser| {
            let wrong = |found: &dyn fmt::Display| format!("token {token} may not come here: {found}");
            if token as usize >= tokens {
                return Err(wrong(&format_args!("the vocabulary has {tokens}")));
            }
            let fits =
                if is_end { parser.is_accepting() } else { parser.validate_token(token).map_err(|e| wrong(&e))? };
            if parser.stopped() || !fits {
                return Err(wrong(&"the grammar has no place for it"));
            }
            parser.consume_token(token).map_err(|error| wrong(&error))?;
            parser.check_stop().map(drop).map_err(|error| wrong(&error))
        })?;
        self.accepted += 1;
        Ok(())
    }

    /// Whether the text may end here: it conforms.
    ///
    /// # Errors
    /// [`Error::Grammar`] if the grammar is too ambiguous to be followed.
    pub fn may_end(&mut self) -> Result<bool> {
        Ok(self.must_end() || self.run(|parser| Ok(parser.is_accepting()))?)
    }

    /// Whether the text ends here: it conforms, and nothing may follow.
    pub fn must_end(&self) -> bool {
        self.parser.stopped() && self.parser.stop_reason().is_ok()
    }

    /// The vocabulary that it goes by.
    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    fn run<T>(&mut self, work: impl FnOnce(&mut TokenParser) -> Result<T, String>) -> Result<T> {
        let parser = &mut self.parser;
        let outcome = engine::run(self.subject, || Ok(work(parser)))?;
        outcome.map_err(|reason| {
            let subject = format!("{}, after {} tokens", self.subject, self.accepted);
            Error::Grammar { subject, reason }
        })
    }
}

/// A set of tokens: those that may come next.
#[derive(Clone)]
pub struct Mask(SimpleVob);

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask of {} tokens", self.0.num_set())
    }
}

impl Mask {
    /// Whether a token is in it.
    pub fn allows(&self, token: u32) -> bool {
        (token as usize) < self.0.len() && self.0.is_allowed(token)
    }

    /// The tokens, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter()
    }

    /// Takes out the tokens that end a text. Returns whether any token is left.
    pub fn without_ends(&mut self, vocabulary: &Vocabulary) -> bool {
        for &token in vocabulary.ends() {
            if self.allows(token) {
                self.0.disallow_token(token);
            }
        }
        !self.0.is_zero()
    }

    /// Sets the logits of all other tokens to negative infinity, so that they cannot be chosen.
    ///
    /// # Errors
    /// [`Error::Grammar`] if no logit above negative infinity is left.
    pub fn restrict(&self, logits: &mut [f32]) -> Result<()> {
        const WORD_TOKENS: usize = u32::BITS as usize;
        let mut any = false;
        let words = self.0.as_slice().iter().copied().chain(std::iter::repeat(0));
        for (chunk, word) in logits.chunks_mut(WORD_TOKENS).zip(words) {
            if word == 0 {
                chunk.fill(f32::NEG_INFINITY);
                continue;
            }
            for (place, logit) in chunk.iter_mut().enumerate() {
                if word & (1 << place) == 0 {
                    *logit = f32::NEG_INFINITY;
                }
                any |= *logit > f32::NEG_INFINITY;
            }
        }
        if any {
            return Ok(());
        }
        let reason = format!("all {} tokens that may come have been ruled out otherwise", self.0.num_set());
        Err(Error::Grammar { subject: "mask".into(), reason })
    }
}
