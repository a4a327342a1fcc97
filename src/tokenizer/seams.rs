//! Places that no merge can cross, so that a long text falls apart into short pieces.
//!
//! SentencePiece merges a whole text at once. But two neighbouring characters can end up in one token only if some token
//! has them side by side, and in natural text most words begin with a space mark that no token has after a letter.
//! Cutting there changes no result, since merges on the two sides never meet; it makes pieces short and repetitive.

use super::unicode;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// Which characters stand side by side in some token.
#[derive(Debug)]
pub(super) struct Seams {
    /// One bit for each (last byte of the left character, first byte of the right one). Exact for ASCII.
    bytes: Box<[u64; 1024]>,
    pairs: HashSet<u64, BuildHasherDefault<PairHasher>>,
}

impl Seams {
    pub(super) fn new() -> Self {
        Seams { bytes: Box::new([0; 1024]), pairs: HashSet::default() }
    }

    /// Takes in every pair of neighbours of a token's text.
    pub(super) fn add_text(&mut self, text: &[u8]) {
        let mut at = 0;
        let mut previous: &[u8] = &[];
        while at < text.len() {
            let character = &text[at..at + unicode::character_bytes(&text[at..])];
            if !previous.is_empty() {
                self.add_pair(previous, character);
            }
            at += character.len();
            previous = character;
        }
    }

    /// Takes in the pair of the last character of `left` and the first of `right`.
    pub(super) fn add_joint(&mut self, left: &[u8], right: &[u8]) {
        let first = &right[..unicode::character_bytes(right)];
        let mut start = left.len();
        while start > 0 {
            start -= 1;
            if left[start] & 0xC0 != 0x80 {
                break;
            }
        }
        if start < left.len() && !first.is_empty() {
            self.add_pair(&left[start..], first);
        }
    }

    fn add_pair(&mut self, left: &[u8], right: &[u8]) {
        if let Some((word, bit)) = byte_bit(left, right) {
            self.bytes[word] |= bit;
            self.pairs.insert(key(left, right));
        }
    }

    fn may_merge(&self, left: &[u8], right: &[u8]) -> bool {
        let Some((word, bit)) = byte_bit(left, right) else { return true };
        self.bytes[word] & bit != 0 && (left.len() + right.len() == 2 || self.pairs.contains(&key(left, right)))
    }

    /// Calls `piece` with the parts of the text between seams, in order.
    pub(super) fn cut<'t>(&self, text: &'t [u8], mut piece: impl FnMut(&'t [u8])) {
        let (mut start, mut at) = (0, 0);
        let mut previous: &[u8] = &[];
        while at < text.len() {
            let character = &text[at..at + unicode::character_bytes(&text[at..])];
            if !previous.is_empty() && !self.may_merge(previous, character) {
                piece(&text[start..at]);
                start = at;
            }
            at += character.len();
            previous = character;
        }
        if start < text.len() {
            piece(&text[start..]);
        }
    }
}

#[inline]
fn byte_bit(left: &[u8], right: &[u8]) -> Option<(usize, u64)> {
    let index = usize::from(*left.last()?) << 8 | usize::from(*right.first()?);
    Some((index / 64, 1 << (index % 64)))
}

/// Two characters of up to four bytes each in one word.
fn key(left: &[u8], right: &[u8]) -> u64 {
    left.iter().chain([&0]).chain(right).fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// The keys are nearly random already; one multiplication spreads them.
#[derive(Default)]
struct PairHasher(u64);

impl Hasher for PairHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = super::interner::mix(self.0, word);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}
