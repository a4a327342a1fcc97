//! Places that no merge can cross, so that a long text falls apart into short pieces.
//!
//! Two neighbours can end up in one token only if some merge joins a text that ends in the one with a text that begins
//! with the other. SentencePiece merges a whole text at once, but most words begin with a space mark that no token has
//! after a letter; random bytes have hardly a neighbour in common with any token. Cutting at such places changes no
//! result, since merges on the two sides never meet; it makes pieces short, and equal ones frequent.

use super::unicode;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// Which neighbours some merge joins.
#[derive(Debug)]
pub(super) struct Seams {
    /// One bit for each (last byte of the left neighbour, first byte of the right one).
    bytes: Box<[u64; 1024]>,
    /// The pairs of characters, where symbols are characters: bytes alone would join too much that is not ASCII.
    characters: Option<HashSet<u64, BuildHasherDefault<PairHasher>>>,
}

impl Seams {
    /// For a vocabulary whose symbols are bytes.
    pub(super) fn of_bytes() -> Self {
        Seams { bytes: Box::new([0; 1024]), characters: None }
    }

    /// For a vocabulary whose symbols are characters.
    pub(super) fn of_characters() -> Self {
        Seams { bytes: Box::new([0; 1024]), characters: Some(HashSet::default()) }
    }

    /// Takes in every pair of neighbours of a token's text.
    pub(super) fn add_text(&mut self, text: &[u8]) {
        let mut at = 0;
        while at < text.len() {
            let next = at + self.symbol_bytes(&text[at..]);
            self.add(&text[at..next], &text[next..]);
            at = next;
        }
    }

    /// Takes in the joint of two texts that merge.
    pub(super) fn add_joint(&mut self, left: &[u8], right: &[u8]) {
        let mut start = left.len().saturating_sub(1);
        while self.characters.is_some() && start > 0 && left[start] & 0xC0 == 0x80 {
            start -= 1;
        }
        self.add(&left[start..], right);
    }

    /// `left` is one symbol; `right` begins with one.
    fn add(&mut self, left: &[u8], right: &[u8]) {
        let Some((word, bit)) = byte_bit(left, right) else { return };
        self.bytes[word] |= bit;
        let right = &right[..self.symbol_bytes(right)];
        if let Some(characters) = &mut self.characters {
            characters.insert(key(left, right));
        }
    }

    /// How many bytes the first symbol has.
    #[inline]
    fn symbol_bytes(&self, text: &[u8]) -> usize {
        if self.characters.is_some() { unicode::character_bytes(text) } else { 1 }
    }

    /// Where the first piece of a text that is not empty ends: at the first seam or at the text's end.
    #[inline]
    pub(super) fn first_piece_bytes(&self, text: &[u8]) -> usize {
        let (mut at, mut joined) = (0, 0);
        loop {
            let next = at + self.symbol_bytes(&text[at..]);
            let Some((word, bit)) = byte_bit(&text[at..next], &text[next..]) else { return text.len() };
            if self.bytes[word] & bit == 0 {
                return next;
            }
            if let Some(characters) = &self.characters {
                let right = &text[next..next + self.symbol_bytes(&text[next..])];
                // For two ASCII characters the bit has said it all; repeated characters are looked up once.
                if next - at + right.len() > 2 {
                    let key = key(&text[at..next], right);
                    if key != joined && !characters.contains(&key) {
                        return next;
                    }
                    joined = key;
                }
            }
            at = next;
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
