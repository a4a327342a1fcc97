//! SentencePiece with byte-pair merges (`llama`): neighbours merge when their text together is a token, the token with
//! the highest score first. Characters that the vocabulary lacks become byte tokens.

use super::merge::{LONGEST_SYMBOL_BYTES, Merger, NO_SYMBOL, Rules};
use super::seams::Seams;
use super::unicode;
use super::vocab::{Vocab, escape_spaces};

#[derive(Debug)]
pub(super) struct Spm {
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
        let longest = (0..vocab.len()).map(|id| vocab.text(id).len()).max().unwrap_or(0);
        let mut seams = Seams::of_characters();
        (0..vocab.len()).for_each(|id| seams.add_text(vocab.text(id)));
        Spm {
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
        vocab: &Vocab,
        text: &[u8],
        space_before: bool,
        unknown: Option<u32>,
        merger: &mut Merger,
        ids: &mut Vec<u32>,
    ) {
        let mut escaped = Vec::new();
        if space_before {
            escape_spaces(b" ", &mut escaped);
        }
        escape_spaces(text, &mut escaped);
        merger.encode(&SpmRules { spm: self, vocab, unknown }, &escaped, ids);
    }
}

/// The token of a byte: `<0x0A>`, or else the byte itself as a text.
pub(super) fn byte_fallback(vocab: &Vocab, byte: u8) -> Option<u32> {
    vocab.byte_token(byte).or_else(|| vocab.id([byte]))
}

struct SpmRules<'a> {
    spm: &'a Spm,
    vocab: &'a Vocab,
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
        (self.vocab.id(&text[..bytes]).unwrap_or(NO_SYMBOL), bytes)
    }

    /// Only the joined text counts here: even two characters that are no tokens may be one together.
    fn merge(&self, _: u32, _: u32, joined: &[u8]) -> Option<u32> {
        if joined.len() <= self.spm.longest_token_bytes { self.vocab.id(joined) } else { None }
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
            NO_SYMBOL => ids.extend(text.iter().filter_map(|&b| self.spm.bytes[usize::from(b)].or(self.unknown))),
            token => ids.push(token),
        }
    }
}
