//! Byte-pair encoding (`gpt2`, `gemma4`): words are merged by a ranked list of pairs.
//!
//! Byte-level vocabularies write each byte of a text as one printable character. That spelling is undone at load, so
//! that merging works on the bytes themselves. `gemma4` and its kin merge characters instead, spaces as U+2581, and fall
//! back to byte tokens.

use super::interner::{FREE, Interner, mix, slots_for, tag};
use super::merge::{LONGEST_SYMBOL_BYTES, Merger, NO_MERGE, NO_SYMBOL, Rules};
use super::seams::Seams;
use super::split::Family;
use super::unicode;
use super::vocab::{Vocab, marks_to_spaces, missing, spaced_token, spaces_to_marks};
use crate::Result;
use crate::gguf::Metadata;

const MERGES: &str = "tokenizer.ggml.merges";

#[derive(Debug)]
pub(super) struct Bpe {
    pub(super) family: &'static Family,
    /// The real bytes of every token, under the token's id, and after them of every other merge result.
    symbols: Interner,
    token_count: u32,
    longest_token_bytes: usize,
    pairs: Pairs,
    /// The merges of two single bytes, at first byte * 256 + second: where merging starts, there are no others.
    byte_pairs: Vec<u32>,
    /// What each merge of the file's list makes.
    merged: Vec<u32>,
    /// The symbol of each single byte.
    bytes: Box<[u32; 256]>,
    seams: Seams,
    whitespace: Whitespace,
}

/// What becomes of white space before words are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whitespace {
    Kept,
    /// It only separates words, as for the `whitespace` model; letters may be made small as well.
    Dropped {
        lowercase: bool,
    },
}

impl Bpe {
    /// The `whitespace` model.
    pub(super) fn load_whitespace(metadata: &Metadata, vocab: &Vocab, family: &'static Family) -> Result<Self> {
        let lowercase = metadata.bool("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(family.lowercase);
        Ok(Bpe { whitespace: Whitespace::Dropped { lowercase }, ..Self::load(metadata, vocab, family)? })
    }

    pub(super) fn load(metadata: &Metadata, vocab: &Vocab, family: &'static Family) -> Result<Self> {
        let mut symbols = Interner::with_capacity(vocab.len() as usize + 256, vocab.len() as usize * 8);
        let mut buffer = Vec::new();
        for id in 0..vocab.len() {
            let text = vocab.text(id);
            buffer.clear();
            if family.escape_whitespace {
                match spaced_token(text) {
                    Some(text) => symbols.push(&text),
                    None => symbols.push_hidden(text),
                };
            } else if !family.byte_level {
                symbols.push(text);
            } else if unspell(text, &mut buffer) {
                symbols.push(&buffer);
            } else {
                symbols.push_hidden(text);
            }
        }
        let bytes = Box::new(std::array::from_fn(|byte| match family.byte_level {
            true => symbols.intern(&[byte as u8]),
            false => vocab.byte_token(byte as u8).unwrap_or(NO_SYMBOL),
        }));
        let mut bpe = Bpe {
            family,
            longest_token_bytes: (0..vocab.len()).map(|id| symbols.text(id).len()).max().unwrap_or(0),
            symbols,
            token_count: vocab.len(),
            pairs: Pairs::default(),
            byte_pairs: vec![],
            merged: vec![],
            bytes,
            seams: if family.byte_level { Seams::of_bytes() } else { Seams::of_characters() },
            whitespace: Whitespace::Kept,
        };
        bpe.load_merges(metadata)?;
        if family.byte_level {
            let pairs = bpe.bytes.iter().flat_map(|&left| bpe.bytes.iter().map(move |&right| (left, right)));
            bpe.byte_pairs = pairs.map(|(left, right)| bpe.pairs.get(left, right).unwrap_or(NO_MERGE)).collect();
        }
        if family.ignore_merges || family.gemma4 {
            // Words that are taken whole must not be cut before they are recognised.
            (0..vocab.len()).for_each(|id| bpe.seams.add_text(bpe.symbols.text(id)));
        }
        Ok(bpe)
    }

    fn load_merges(&mut self, metadata: &Metadata) -> Result<()> {
        let Some(merges) = metadata.strings(MERGES)? else {
            // Kimi-K2 files may come without: every word is a token or falls apart into bytes.
            return match self.family.merges_optional {
                true => Ok(()),
                false => Err(missing(MERGES, "an array of merges, each two texts with a space between")),
            };
        };
        self.pairs = Pairs::with_capacity(merges.len());
        self.merged = vec![NO_SYMBOL; merges.len()];
        let mut joined = Vec::new();
        for (merge, rank) in merges.zip(0..) {
            // The first part may begin with a space.
            let Some(space) = merge.iter().skip(1).position(|&b| b == b' ').map(|at| at + 1) else { continue };
            let (left, right) = (&merge[..space], &merge[space + 1..]);
            joined.clear();
            let left_bytes = if self.family.byte_level {
                let known = unspell(left, &mut joined);
                let left_bytes = joined.len();
                if !known || !unspell(right, &mut joined) {
                    continue;
                }
                left_bytes
            } else {
                let spaced = |text| if self.family.escape_whitespace { marks_to_spaces(text) } else { text.into() };
                joined.extend_from_slice(&spaced(left));
                let left_bytes = joined.len();
                joined.extend_from_slice(&spaced(right));
                left_bytes
            };
            let (left, right) = joined.split_at(left_bytes);
            if left.is_empty() || right.is_empty() || joined.len() > LONGEST_SYMBOL_BYTES {
                continue;
            }
            self.seams.add_joint(left, right);
            let (left, right) = (self.symbols.intern(left), self.symbols.intern(right));
            self.merged[rank as usize] = self.symbols.intern(&joined);
            self.pairs.insert(left, right, rank);
        }
        Ok(())
    }

    /// The bytes that a token stands for, if it can come out of merging.
    pub(super) fn token_bytes(&self, id: u32) -> &[u8] {
        self.symbols.text(id)
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, text: &[u8], merger: &mut Merger, ids: &mut Vec<u32>) {
        let text = unicode::repaired(text);
        let spaced;
        let text = if self.family.escape_whitespace {
            spaced = marks_to_spaces(&text);
            &spaced
        } else {
            &text
        };
        let Whitespace::Dropped { lowercase } = self.whitespace else {
            return self.encode_words(text, merger, ids);
        };
        // A space that stands for a mark is none.
        let separates = |c| unicode::is_whitespace(c) && !(c == ' ' && self.family.escape_whitespace);
        for segment in unicode::to_text(text).split(separates).filter(|segment| !segment.is_empty()) {
            match lowercase {
                true => {
                    let small = segment.chars().map(unicode::to_lower).collect::<String>();
                    self.encode_words(small.as_bytes(), merger, ids);
                }
                false => self.encode_words(segment.as_bytes(), merger, ids),
            }
        }
    }

    /// The same for well-formed UTF-8 of which nothing else is to be changed.
    fn encode_words(&self, text: &[u8], merger: &mut Merger, ids: &mut Vec<u32>) {
        let mut rest = text;
        self.family.splitter.split_utf8(text, &mut |word: &[u8]| {
            merger.encode(self, rest, word.len(), ids);
            rest = &rest[word.len()..];
        });
    }

    /// The token that stands for exactly these bytes.
    fn token(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > self.longest_token_bytes {
            return None;
        }
        self.symbols.get(bytes).filter(|&symbol| symbol < self.token_count)
    }
}

impl Rules for Bpe {
    fn rank_count(&self) -> usize {
        self.merged.len()
    }

    #[inline]
    fn first_symbol(&self, text: &[u8]) -> (u32, usize) {
        if self.family.byte_level {
            return (self.bytes[usize::from(text[0])], 1);
        }
        let bytes = unicode::character_bytes(text);
        (self.symbols.get(&text[..bytes]).unwrap_or(NO_SYMBOL), bytes)
    }

    fn seams(&self) -> &Seams {
        &self.seams
    }

    fn whole(&self, word: &[u8]) -> Option<u32> {
        let newlines = || self.family.gemma4 && word.iter().all(|&byte| byte == b'\n');
        if self.family.ignore_merges || newlines() { self.token(word) } else { None }
    }

    #[inline]
    fn merged_bytes(&self, first: u8, second: u8) -> Option<u32> {
        let merge = *self.byte_pairs.get(usize::from(first) << 8 | usize::from(second))?;
        (merge != NO_MERGE).then(|| self.merged(merge))
    }

    #[inline]
    fn merge(&self, left: u32, right: u32, joined: &[u8]) -> Option<u32> {
        if let &[first, second] = joined
            && let Some(&merge) = self.byte_pairs.get(usize::from(first) << 8 | usize::from(second))
        {
            return (merge != NO_MERGE).then_some(merge);
        }
        self.pairs.get(left, right)
    }

    #[inline]
    fn rank(&self, merge: u32) -> u32 {
        merge
    }

    #[inline]
    fn merged(&self, merge: u32) -> u32 {
        self.merged[merge as usize]
    }

    /// A symbol that is no token falls apart into byte tokens, as far as the vocabulary has them. In byte-level
    /// vocabularies the reference finds only those bytes whose spelling is one byte long, and so does this.
    fn emit(&self, symbol: u32, text: &[u8], ids: &mut Vec<u32>) {
        if symbol < self.token_count {
            return ids.push(symbol);
        }
        let mut push = |byte: u8| ids.extend(Some(self.bytes[usize::from(byte)]).filter(|&id| id < self.token_count));
        match (self.family.byte_level, self.family.escape_whitespace) {
            (true, _) => text.iter().copied().filter(u8::is_ascii_graphic).for_each(push),
            (false, true) => spaces_to_marks(text).for_each(push),
            (false, false) => text.iter().copied().for_each(&mut push),
        }
    }
}

/// The places in the merge list of each pair of symbols.
#[derive(Debug, Default)]
struct Pairs {
    /// As in [`Interner`]: most pairs do not merge, and the tags alone tell so.
    tags: Vec<u8>,
    /// Left symbol, right symbol, merge.
    slots: Vec<(u32, u32, u32)>,
}

impl Pairs {
    fn with_capacity(count: usize) -> Self {
        Pairs { tags: vec![FREE; slots_for(count)], slots: vec![(0, 0, 0); slots_for(count)] }
    }

    /// Of two merges of one pair the first counts.
    fn insert(&mut self, left: u32, right: u32, merge: u32) {
        let hash = mix(u64::from(left), u64::from(right));
        if let Some(at) = self.find(left, right, hash).filter(|&at| self.tags[at] == FREE) {
            (self.tags[at], self.slots[at]) = (tag(hash), (left, right, merge));
        }
    }

    #[inline]
    fn get(&self, left: u32, right: u32) -> Option<u32> {
        let at = self.find(left, right, mix(u64::from(left), u64::from(right)))?;
        (self.tags[at] != FREE).then(|| self.slots[at].2)
    }

    /// Where the pair stands, or the free slot where it would.
    #[inline]
    fn find(&self, left: u32, right: u32, hash: u64) -> Option<usize> {
        let mask = self.tags.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let found = self.tags[at];
            if found == FREE || (found == tag(hash) && (self.slots[at].0, self.slots[at].1) == (left, right)) {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }
}

/// Undoes the spelling of bytes as printable characters: appends the bytes, or says false if `text` is not so spelt.
pub(super) fn unspell(text: &[u8], into: &mut Vec<u8>) -> bool {
    let mut bytes = text.iter();
    while let Some(&first) = bytes.next() {
        // No character in use is longer than two bytes.
        let code = match first {
            0..0x80 => u32::from(first),
            0xC2..=0xC5 => match bytes.next() {
                Some(&second @ 0x80..0xC0) => u32::from(first & 0x1F) << 6 | u32::from(second & 0x3F),
                _ => return false,
            },
            _ => return false,
        };
        match code {
            0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => into.push(code as u8),
            // The bytes that are not printable follow in their own order from U+0100 on.
            0x100..=0x120 => into.push((code - 0x100) as u8),
            0x121..=0x142 => into.push((code - 0x121 + 0x7F) as u8),
            0x143 => into.push(0xAD),
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_spelling() {
        let mut spelt = Vec::new();
        for c in (0..0x200).filter_map(char::from_u32) {
            let mut bytes = Vec::new();
            if unspell(c.to_string().as_bytes(), &mut bytes) {
                assert_eq!(bytes.len(), 1);
                spelt.push((bytes[0], c));
            }
        }
        spelt.sort_unstable();
        assert_eq!(spelt.iter().map(|&(byte, _)| byte).collect::<Vec<_>>(), (0..=255).collect::<Vec<u8>>());
        for (byte, spelling) in [(b' ', 'Ġ'), (b'\n', 'Ċ'), (0x7F, 'ġ'), (0xA0, 'ł'), (0xAD, 'Ń'), (b'a', 'a')] {
            assert!(spelt.contains(&(byte, spelling)), "{byte:#x}");
        }
    }
}
