//! The vocabulary of a model, as the trie of bytes that grammars are matched along.

use super::engine;
use crate::Result;
use crate::error::Error;
use crate::tokenizer::Tokenizer;
use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{
    ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId,
};
use std::fmt;
use std::sync::Arc;

/// Longer tokens do not fit in the trie, and are never chosen.
const MOST_TOKEN_BYTES: usize = 1000;

/// More tokens do not fit in the trie.
const MOST_TOKENS: u32 = 1 << 20;

/// What every grammar needs to know of a model's tokens. Made once of its tokenizer: that takes some tenths of a second
/// for large vocabularies.
pub struct Vocabulary {
    pub(super) factory: ParserFactory,
    tokens: usize,
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Vocabulary {
    /// The vocabulary of a tokenizer.
    ///
    /// # Errors
    /// [`Error::Grammar`] if it is too large for a trie.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let count = tokenizer.token_count();
        if count == 0 || count > MOST_TOKENS {
            let reason = format!("{count} tokens, expected 1 to {MOST_TOKENS}");
            return Err(Error::Grammar { subject: "vocabulary".into(), reason });
        }
        let pieces: Vec<Vec<u8>> = (0..count).map(|token| piece(tokenizer, token)).collect();
        let ends = &tokenizer.special().end_of_generation[..];
        engine::run("vocabulary", || {
            let trie = TokTrie::from(&TokRxInfo::new(count, INVALID_TOKEN), &pieces);
            let trie = if ends.is_empty() { trie } else { trie.with_eos_tokens(ends) };
            let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            let capabilities = InferenceCapabilities::default();
            let factory = ParserFactory::new(&tokens, capabilities, &SlicedBiasComputer::general_slices());
            let mut factory =
                factory.map_err(|error| Error::Grammar { subject: "vocabulary".into(), reason: error.to_string() })?;
            factory.quiet();
            *factory.limits_mut() = engine::limits();
            Ok(Vocabulary { factory, tokens: count as usize })
        })
    }

    /// How many tokens there are.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The tokens that end a text.
    pub(super) fn ends(&self) -> &[TokenId] {
        let ends = self.factory.tok_env().tok_trie().eos_tokens();
        if ends == [INVALID_TOKEN] { &[] } else { ends }
    }
}

/// A token's bytes in the trie; none if it is never to be chosen.
///
/// A marker that no UTF-8 has keeps control tokens apart from text, so they match only where a grammar names them. What
/// ends a generation counts as such even where the file says that it is text: choosing it would end the text.
fn piece(tokenizer: &Tokenizer, token: u32) -> Vec<u8> {
    const MARKER: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
    let piece = tokenizer.piece(token);
    if piece.len() > MOST_TOKEN_BYTES {
        vec![]
    } else if tokenizer.is_control(token) || tokenizer.special().ends_generation(token) {
        [&[MARKER], piece].concat()
    } else {
        piece.to_vec()
    }
}
