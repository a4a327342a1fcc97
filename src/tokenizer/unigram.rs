//! SentencePiece's unigram model (`t5`): of all ways to cut the text into tokens, the one with the highest total score.
//!
//! The text is normalised first, by a table that the file carries. Space marks are matched as spaces.

use super::trie::Trie;
use super::unicode;
use super::vocab::{Attributes, Vocab, marks_to_spaces, spaced_token};
use crate::Result;
use crate::error::Error;
use crate::gguf::Metadata;
use std::borrow::Cow;

/// How much worse than the worst token an unknown character is.
const UNKNOWN_PENALTY: f32 = 10.0;

#[derive(Debug)]
pub(super) struct Unigram {
    tokens: Trie,
    /// Texts that are taken as they are, without normalisation.
    user_defined: Trie,
    charsmap: CharsMap,
    unknown_score: f32,
    add_space_prefix: bool,
    remove_extra_whitespace: bool,
}

impl Unigram {
    pub(super) fn load(metadata: &Metadata, vocab: &Vocab) -> Result<Self> {
        let with = |bits: Attributes| {
            let ids = (0..vocab.len()).filter(move |&id| vocab.attributes(id).has(bits));
            ids.map(|id| (vocab.text(id), id))
        };
        let matched = Attributes::NORMAL.with(Attributes::USER_DEFINED).with(Attributes::UNUSED);
        let lowest = with(Attributes::NORMAL)
            .map(|(_, id)| vocab.scores[id as usize])
            .fold(f32::MAX, |low, score| low.min(score));
        let tokens: Vec<_> = with(matched).filter_map(|(text, id)| Some((spaced_token(text)?, id))).collect();
        Ok(Unigram {
            tokens: Trie::new(tokens.iter().map(|(text, id)| (&text[..], *id))),
            user_defined: Trie::new(with(Attributes::USER_DEFINED)),
            charsmap: CharsMap::load(metadata)?,
            unknown_score: lowest - UNKNOWN_PENALTY,
            add_space_prefix: metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(false),
            remove_extra_whitespace: metadata.bool("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false),
        })
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, vocab: &Vocab, unknown_token: Option<u32>, text: &[u8], ids: &mut Vec<u32>) {
        let text = self.normalise(text);
        // Where there is no unknown token, such characters are left out.
        let unknown = unknown_token.unwrap_or(u32::MAX);
        let best = self.search(vocab, unknown, &text);
        let before = ids.len();
        let mut end = text.len();
        let mut after_unknown = false;
        while end > 0 {
            let Best { token, start, .. } = best[end];
            let is_unknown = token == unknown;
            if !(is_unknown && (after_unknown || unknown_token.is_none())) {
                ids.push(token);
            }
            after_unknown = is_unknown;
            end = start as usize;
        }
        ids[before..].reverse();
    }

    /// For each end of a prefix of the text, the last token of the best cut of that prefix.
    fn search(&self, vocab: &Vocab, unknown: u32, text: &[u8]) -> Vec<Best> {
        let mut best = vec![Best { token: unknown, start: 0, score: f64::MIN }; text.len() + 1];
        best[0].score = 0.0;
        let mut start = 0;
        while start < text.len() {
            let character_bytes = unicode::character_bytes(&text[start..]);
            let base = best[start].score;
            let mut challenge = |end: usize, token: u32, score: f64| {
                let score = base + score;
                if score > best[end].score {
                    best[end] = Best { token, start: start as u32, score };
                }
            };
            let mut node = Trie::ROOT;
            let mut character_is_token = false;
            for (end, &byte) in (start + 1..).zip(&text[start..]) {
                let Some(child) = self.tokens.step(node, byte) else { break };
                node = child;
                let Some(token) = self.tokens.value(node) else { continue };
                character_is_token |= end - start == character_bytes;
                let user_defined = vocab.attributes(token).has(Attributes::USER_DEFINED);
                challenge(end, token, if user_defined { 0.0 } else { f64::from(vocab.scores[token as usize]) });
            }
            if !character_is_token {
                challenge(start + character_bytes, unknown, f64::from(self.unknown_score));
            }
            start += character_bytes;
        }
        best
    }

    fn normalise(&self, text: &[u8]) -> Vec<u8> {
        let mut normal = Vec::with_capacity(text.len() * 3 / 2);
        let (mut space_prepended, mut in_word) = (false, false);
        let mut rest = text;
        while !rest.is_empty() {
            let (replacement, consumed) = self.normalise_start(rest);
            for &byte in replacement {
                if byte == b' ' {
                    in_word = false;
                    if !self.remove_extra_whitespace {
                        normal.push(b' ');
                    }
                    continue;
                }
                if !in_word {
                    in_word = true;
                    if (self.add_space_prefix && !space_prepended) || self.remove_extra_whitespace {
                        normal.push(b' ');
                        space_prepended = true;
                    }
                }
                normal.push(byte);
            }
            rest = &rest[consumed..];
        }
        // Marks in the text itself are no white space until here.
        match marks_to_spaces(&normal) {
            Cow::Borrowed(_) => normal,
            Cow::Owned(spaced) => spaced,
        }
    }

    /// What the beginning of the text is replaced by, and how many bytes that takes.
    fn normalise_start<'a>(&'a self, text: &'a [u8]) -> (&'a [u8], usize) {
        // The reference takes any beginning of a user-defined token for one; so it is here.
        let user_defined = self.user_defined.followed(text);
        if user_defined > 0 {
            return (&text[..user_defined], user_defined);
        }
        if let Some(replaced) = self.charsmap.longest(text) {
            return replaced;
        }
        match unicode::sequence_bytes(text) {
            Some(bytes) => (&text[..bytes], bytes),
            None => ("\u{FFFD}".as_bytes(), 1),
        }
    }
}

#[derive(Clone, Copy)]
struct Best {
    token: u32,
    start: u32,
    score: f64,
}

/// Replacements of beginnings of a text: a compact double-array trie of 32-bit words, and the replacements behind it.
///
/// A word's bits 10.. are the base (shifted by 8 more if bit 9 is set), bit 8 says that a replacement hangs on the node,
/// the lowest byte is the letter that leads here, and bit 31 marks the node that holds the replacement's place.
#[derive(Debug, Default)]
struct CharsMap {
    words: Vec<u32>,
    replacements: Vec<u8>,
}

const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

impl CharsMap {
    fn load(metadata: &Metadata) -> Result<Self> {
        let Some(bytes) = metadata.u8s(CHARSMAP)? else { return Ok(CharsMap::default()) };
        let broken = || {
            let expected = "the size of a table and, behind the table, replacements that end in 0";
            Error::metadata(CHARSMAP, format!("{} bytes", bytes.len()), expected)
        };
        let (size, rest) = bytes.split_first_chunk().ok_or_else(broken)?;
        let table_bytes = u32::from_le_bytes(*size) as usize;
        if table_bytes >= rest.len() {
            return Err(broken());
        }
        let (table, replacements) = rest.split_at(table_bytes);
        if replacements.last() != Some(&0) {
            return Err(broken());
        }
        let words = table.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        Ok(CharsMap { words, replacements: replacements.to_vec() })
    }

    /// The replacement of the longest beginning of `text` that has one, and that beginning's length.
    fn longest(&self, text: &[u8]) -> Option<(&[u8], usize)> {
        let base = |word: u32| (word >> 10) << ((word & 1 << 9) >> 6);
        let mut place = base(*self.words.first()?);
        let mut found = None;
        for (length, &byte) in (1..).zip(text) {
            if byte == 0 {
                break;
            }
            place ^= u32::from(byte);
            let Some(&word) = self.words.get(place as usize) else { break };
            if word & (1 << 31 | 0xFF) != u32::from(byte) {
                break;
            }
            place ^= base(word);
            if word & 1 << 8 != 0 {
                let value = self.words.get(place as usize).map(|leaf| leaf & !(1 << 31));
                found = value.map(|start| (start as usize, length)).or(found);
            }
        }
        let (start, length) = found?;
        let replacement = self.replacements.get(start..)?;
        let end = replacement.iter().position(|&b| b == 0)?;
        Some((&replacement[..end], length))
    }
}
