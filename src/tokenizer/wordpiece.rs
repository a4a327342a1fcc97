//! WordPiece (`bert`): words are normalised, then eaten from the left, the longest token first.
//!
//! A word that cannot be eaten whole becomes the unknown token. Tokens that begin a word start with U+2581 in the file.

use super::trie::Trie;
use super::unicode::{self, Category};
use super::vocab::{SPACE_MARK, Vocab};
use crate::Result;
use crate::gguf::Metadata;

#[derive(Debug)]
pub(super) struct WordPiece {
    tokens: Trie,
    lowercase: bool,
    strip_accents: bool,
}

impl WordPiece {
    pub(super) fn load(metadata: &Metadata, vocab: &Vocab) -> Result<Self> {
        let lowercase = metadata.bool("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
        let strip_accents = metadata.bool("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lowercase);
        let tokens = Trie::new((0..vocab.len()).map(|id| (vocab.text(id), id)));
        Ok(WordPiece { tokens, lowercase, strip_accents })
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, text: &[u8], unknown: Option<u32>, ids: &mut Vec<u32>) {
        let mut word = SPACE_MARK.to_vec();
        let mut finish = |word: &mut Vec<u8>| {
            if word.len() > SPACE_MARK.len() {
                self.eat(word, unknown, ids);
                word.truncate(SPACE_MARK.len());
            }
        };
        for c in unicode::to_text(text).chars() {
            let c = if self.strip_accents { unicode::nfd_first(c) } else { c };
            let category = unicode::category(c);
            if unicode::is_whitespace(c) {
                finish(&mut word);
                continue;
            }
            let dropped = matches!(c, '\0' | char::REPLACEMENT_CHARACTER) || category == Category::Control;
            if dropped || (self.strip_accents && category == Category::Mark) {
                continue;
            }
            let small = if self.lowercase { unicode::to_lower(c) } else { c };
            let alone =
                category == Category::Punctuation || (c < '\x7F' && category == Category::Symbol) || is_ideograph(c);
            if alone {
                finish(&mut word);
            }
            word.extend_from_slice(small.encode_utf8(&mut [0; 4]).as_bytes());
            if alone {
                finish(&mut word);
            }
        }
        finish(&mut word);
    }

    fn eat(&self, word: &[u8], unknown: Option<u32>, ids: &mut Vec<u32>) {
        let before = ids.len();
        let mut rest = word;
        while !rest.is_empty() {
            let Some((token, bytes)) = self.tokens.longest(rest) else {
                ids.truncate(before);
                ids.extend(unknown);
                return;
            };
            ids.push(token);
            rest = &rest[bytes..];
        }
    }
}

/// CJK ideographs, each a word of its own. The gap before U+2B920 is in the models' own tokenizer.
fn is_ideograph(c: char) -> bool {
    matches!(c,
        '\u{4E00}'..='\u{9FFF}' | '\u{3400}'..='\u{4DBF}' | '\u{20000}'..='\u{2A6DF}' | '\u{2A700}'..='\u{2B73F}'
        | '\u{2B740}'..='\u{2B81F}' | '\u{2B920}'..='\u{2CEAF}' | '\u{F900}'..='\u{FAFF}'
        | '\u{2F800}'..='\u{2FA1F}')
}
