//! SentencePiece with byte-pair merges (`llama`): neighbours merge when their text together is a token, the token with
//! the highest score first. Characters that the vocabulary lacks become byte tokens. Space marks are matched as spaces.

use super::interner::Interner;
use super::merge::{LONGEST_SYMBOL_BYTES, Merger, NO_SYMBOL, Rules};
use super::seams::Seams;
use super::unicode;
use super::vocab::{SPACE_MARK, Vocab, marks_to_spaces, spaced_token, spaces_to_marks};
use std::borrow::Cow;

#[derive(Debug)]
pub(super) struct Spm {
    /// The tokens with spaces for space marks.
    texts: Interner,
    /// Per token, how many distinct scores are higher than its own.
    ranks: Vec<u32>,
    rank_count: usize,
    longest_token_bytes: usize,
    seams: Seams,
    /// The token of each byte, for what is no token otherwise.
    bytes: Box<[Option<u32>; 256]>,
}

impl Spm {
    pub(super) fn new(vocab: &Vocab) -> Self {
        // Adding zero turns -0 into +0: the two are one score.
        let scores: Vec<f32> = vocab.scores.iter().map(|score| score + 0.0).collect();
        let mut distinct = scores.clone();
        distinct.sort_unstable_by(|a, b| b.total_cmp(a));
        distinct.dedup_by(|a, b| a.total_cmp(b).is_eq());
        let rank = |score: &f32| distinct.partition_point(|other| other.total_cmp(score).is_gt()) as u32;
        let mut texts = Interner::with_capacity(vocab.len() as usize, vocab.len() as usize * 8);
        let (mut seams, mut longest) = (Seams::of_characters(), 0);
        for id in 0..vocab.len() {
            match spaced_token(vocab.text(id)) {
                None => _ = texts.push_hidden(b""),
                Some(text) => {
                    texts.push(&text);
                    seams.add_text(&text);
                    longest = longest.max(text.len());
                }
            }
        }
        Spm {
            texts,
            ranks: scores.iter().map(rank).collect(),
            rank_count: distinct.len(),
            longest_token_bytes: longest.min(LONGEST_SYMBOL_BYTES),
            seams,
            bytes: Box::new(std::array::from_fn(|byte| byte_fallback(vocab, byte as u8))),
        }
    }

    /// Appends the ids of a text without special tokens. `space_before` puts a space in front.
    pub(super) fn encode(
        &self,
        text: &[u8],
        space_before: bool,
        unknown: Option<u32>,
        merger: &mut Merger,
        ids: &mut Vec<u32>,
    ) {
        let mut text = spaced_text(text);
        if space_before {
            text.to_mut().insert(0, b' ');
        }
        merger.encode(&SpmRules { spm: self, unknown }, &text, text.len(), ids);
    }
}

/// The text with spaces for space marks. In bytes that are not UTF-8, a stray first byte of a character swallows what
/// follows, also the first bytes of a mark; marks that are hurt so stay as they are.
fn spaced_text(text: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(text).is_ok() {
        return marks_to_spaces(text);
    }
    let marked: Vec<u8> = spaces_to_marks(text).collect();
    let (mut spaced, mut rest) = (Vec::with_capacity(text.len()), &marked[..]);
    while !rest.is_empty() {
        let character;
        (character, rest) = rest.split_at(unicode::character_bytes(rest));
        spaced.extend_from_slice(if character == SPACE_MARK { b" " } else { character });
    }
    Cow::Owned(spaced)
}

/// The token of a byte: `<0x0A>`, or else the byte itself as a text.
pub(super) fn byte_fallback(vocab: &Vocab, byte: u8) -> Option<u32> {
    vocab.byte_token(byte).or_else(|| vocab.id([byte]))
}

struct SpmRules<'a> {
    spm: &'a Spm,
    unknown: Option<u32>,
}

impl Rules for SpmRules<'_> {
    fn rank_count(&self) -> usize {
        self.spm.rank_count
    }

    fn seams(&self) -> &Seams {
        &self.spm.seams
    }

    fn first_symbol(&self, text: &[u8]) -> (u32, usize) {
        let bytes = unicode::character_bytes(text);
        (self.spm.texts.get(&text[..bytes]).unwrap_or(NO_SYMBOL), bytes)
    }

    /// Only the joined text counts here: even two characters that are no tokens may be one together.
    fn merge(&self, _: u32, _: u32, joined: &[u8]) -> Option<u32> {
        if joined.len() <= self.spm.longest_token_bytes { self.spm.texts.get(joined) } else { None }
    }

    #[inline]
    fn rank(&self, token: u32) -> u32 {
        self.spm.ranks[token as usize]
    }

    #[inline]
    fn merged(&self, token: u32) -> u32 {
        token
    }

    fn emit(&self, symbol: u32, text: &[u8], ids: &mut Vec<u32>) {
        match symbol {
            NO_SYMBOL => {
                ids.extend(spaces_to_marks(text).filter_map(|b| self.spm.bytes[usize::from(b)].or(self.unknown)));
            }
            token => ids.push(token),
        }
    }
}
