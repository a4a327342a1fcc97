//! What a tokenizer needs to know of a code point: its category, whether it is white space or an ideograph, its
//! lowercase, and the first code point of its canonical decomposition.
//!
//! Everything is Unicode 15.1, the version llama.cpp's tables hold: token ids depend on where words are cut, and words
//! are cut by category, so a newer table would be a different tokenizer. Invariant: for every code point the answers
//! equal the reference's; the tests compare hashes over all of them.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::unicode_tables::{CATEGORY_RUNS, LOWER_RUNS, NFD_LISTS, NFD_RUNS};

/// The first letter of a general category, as in the regex class `\p{N}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Not assigned (`Cn`).
    Undefined,
    /// `\p{N}`: digits, and other numbers such as ½ and Ⅷ.
    Number,
    /// `\p{L}`.
    Letter,
    /// `\p{Z}`: spaces, line and paragraph separators.
    Separator,
    /// `\p{M}`: what combines with the character before it.
    Mark,
    /// `\p{P}`.
    Punctuation,
    /// `\p{S}`: mathematical signs, currencies, emoji.
    Symbol,
    /// `\p{C}` without the unassigned: control, format, private use, surrogates.
    Control,
}

/// One byte of facts about a code point: a [`Category`] in the low three bits, flags above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts(u8);

impl Facts {
    const CATEGORY: u8 = 7;
    const WHITESPACE: u8 = 8;
    const HAN: u8 = 16;
    /// One more than the largest value: the length of a table indexed by facts.
    pub(super) const COUNT: usize = 32;

    /// The `index`th of all [`COUNT`](Self::COUNT) combinations.
    pub(super) const fn from_index(index: usize) -> Self {
        Facts(index as u8)
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    pub(super) const fn category(self) -> Category {
        match self.0 & Self::CATEGORY {
            0 => Category::Undefined,
            1 => Category::Number,
            2 => Category::Letter,
            3 => Category::Separator,
            4 => Category::Mark,
            5 => Category::Punctuation,
            6 => Category::Symbol,
            _ => Category::Control,
        }
    }

    pub(super) const fn is_whitespace(self) -> bool {
        self.0 & Self::WHITESPACE != 0
    }

    pub(super) const fn is_han(self) -> bool {
        self.0 & Self::HAN != 0
    }
}

const CODE_POINTS: usize = 0x11_0000;

/// Code points of the Unicode property `White_Space`.
const WHITESPACE: [(u32, u32); 10] = [
    (0x09, 0x0d),
    (0x20, 0x20),
    (0x85, 0x85),
    (0xa0, 0xa0),
    (0x1680, 0x1680),
    (0x2000, 0x200a),
    (0x2028, 0x2029),
    (0x202f, 0x202f),
    (0x205f, 0x205f),
    (0x3000, 0x3000),
];

/// Blocks of Chinese ideographs, whole: they hold a few unassigned code points.
const HAN: [(u32, u32); 9] = [
    (0x3400, 0x4dbf),
    (0x4e00, 0x9fff),
    (0xf900, 0xfaff),
    (0x20000, 0x2a6df),
    (0x2a700, 0x2b73f),
    (0x2b740, 0x2b81f),
    (0x2b820, 0x2ceaf),
    (0x2ceb0, 0x2ebef),
    (0x2f800, 0x2fa1f),
];

/// The [`Facts`] of every code point. One megabyte of address space; what is not assigned is zero and never written.
static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut table = vec![0; CODE_POINTS];
    for (i, run) in CATEGORY_RUNS.iter().enumerate() {
        let end = CATEGORY_RUNS.get(i + 1).map_or(CODE_POINTS, |next| (next >> 4) as usize);
        if run & 15 != Category::Undefined as u32 {
            table[(run >> 4) as usize..end].fill((run & 15) as u8);
        }
    }
    for (ranges, flag) in [(&WHITESPACE[..], Facts::WHITESPACE), (&HAN[..], Facts::HAN)] {
        for &(first, last) in ranges {
            table[first as usize..=last as usize].iter_mut().for_each(|facts| *facts |= flag);
        }
    }
    table
});

/// The same for ASCII, known when the crate is compiled.
const ASCII: [Facts; 128] = {
    let mut facts = [Facts(0); 128];
    let (mut cpt, mut run) = (0, 0);
    while cpt < 128 {
        if CATEGORY_RUNS[run + 1] >> 4 == cpt as u32 {
            run += 1;
        }
        let blank = if matches!(cpt as u8, b'\t'..=b'\r' | b' ') { Facts::WHITESPACE } else { 0 };
        facts[cpt] = Facts((CATEGORY_RUNS[run] & 15) as u8 | blank);
        cpt += 1;
    }
    facts
};

/// Everything the table says about `c`.
pub(super) fn facts(c: char) -> Facts {
    match ASCII.get(c as usize) {
        Some(&facts) => facts,
        None => TABLE.get(c as usize).map_or(Facts(0), |&facts| Facts(facts)),
    }
}

/// The facts of an ASCII code point, at compile time too.
pub(super) const fn ascii_facts(byte: u8) -> Facts {
    ASCII[(byte & 127) as usize]
}

/// The general category of `c`.
pub fn category(c: char) -> Category {
    facts(c).category()
}

/// Whether `c` has the Unicode property `White_Space`.
pub fn is_whitespace(c: char) -> bool {
    facts(c).is_whitespace()
}

/// The simple lowercase mapping: always one code point.
pub fn to_lower(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    let cpt = c as u32;
    let run = LOWER_RUNS.partition_point(|run| run[0] <= cpt).checked_sub(1).and_then(|i| LOWER_RUNS.get(i));
    match run {
        Some(&[first, count, stride, target])
            if (cpt - first).is_multiple_of(stride) && (cpt - first) / stride < count =>
        {
            char::from_u32(target + (cpt - first)).unwrap_or(c)
        }
        _ => c,
    }
}

/// The first code point of the canonical decomposition (NFD) of `c`, which is `c` itself where there is none.
pub fn nfd_first(c: char) -> char {
    let cpt = c as u32;
    let run = NFD_RUNS.partition_point(|run| run[0] <= cpt).checked_sub(1).and_then(|i| NFD_RUNS.get(i));
    if let Some(&[_, last, target]) = run
        && cpt <= last
    {
        return char::from_u32(target).unwrap_or(c);
    }
    let list = NFD_LISTS.partition_point(|list| list.0 <= cpt).checked_sub(1).and_then(|i| NFD_LISTS.get(i));
    let target = list.and_then(|(first, targets)| targets.get((cpt - first) as usize));
    target.and_then(|&target| char::from_u32(target)).unwrap_or(c)
}

/// The code points of bytes that may not be UTF-8.
///
/// A byte that starts no complete sequence is one U+FFFD, and the next byte is looked at afresh: this is how llama.cpp
/// reads text, and it differs from `String::from_utf8_lossy`, which replaces a truncated sequence once. Sequences are
/// judged by their shape alone, so an overlong form is the code point that it spells. What cannot be a `char` is one
/// U+FFFD for the whole sequence: surrogates (which the reference passes on as three raw bytes) and values past
/// U+10FFFF (which it refuses with an exception).
pub fn decode(bytes: &[u8]) -> impl Iterator<Item = char> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (c, len_bytes) = first_char(rest)?;
        rest = rest.get(len_bytes..)?;
        Some(c)
    })
}

/// `bytes` as text, by the rules of [`decode`]; borrowed where they already are UTF-8.
pub fn to_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(String::from_utf8_lossy(&repair(bytes)).into_owned()),
    }
}

/// The bytes of [`to_text`]: well-formed UTF-8.
pub(super) fn repaired(bytes: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Cow::Borrowed(bytes),
        Err(_) => Cow::Owned(repair(bytes)),
    }
}

/// Where bytes are random nothing foretells the next one. So the common cases, ASCII and what is replaced, are told
/// apart by arithmetic: the same four bytes are written for both, of which one or three count.
fn repair(bytes: &[u8]) -> Vec<u8> {
    const REPLACEMENT: u32 = u32::from_le_bytes([0xef, 0xbf, 0xbd, 0]);
    let mut text = Vec::with_capacity(2 * bytes.len());
    let mut block = [0; 4096];
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut end = 0;
        while let Some((&lead, tail)) = rest.split_first()
            && let Some(place) = block.get_mut(end..).and_then(|free| free.first_chunk_mut::<4>())
        {
            if begins_sequence(lead, tail) {
                let (c, len_bytes) = char_of(lead, tail);
                end += c.encode_utf8(place).len();
                rest = &rest[len_bytes..];
                continue;
            }
            let is_replaced = lead >> 7;
            let either = (u32::from(is_replaced) * REPLACEMENT) | (u32::from(1 - is_replaced) * u32::from(lead));
            *place = either.to_le_bytes();
            end += 1 + 2 * usize::from(is_replaced);
            rest = tail;
        }
        text.extend_from_slice(&block[..end]);
    }
    text
}

/// The first code point of `bytes`, and how many bytes it takes.
fn first_char(bytes: &[u8]) -> Option<(char, usize)> {
    bytes.split_first().map(|(&lead, tail)| char_of(lead, tail))
}

/// The code point that begins with `lead`, before `tail`, and how many bytes it takes.
fn char_of(lead: u8, tail: &[u8]) -> (char, usize) {
    let (tail_bytes, lead_bits) = match lead {
        0..=0x7f => return (lead as char, 1),
        0xc0..=0xdf => (1, 0x1f),
        0xe0..=0xef => (2, 0x0f),
        0xf0..=0xf7 => (3, 0x07),
        _ => return (char::REPLACEMENT_CHARACTER, 1),
    };
    match tail.get(..tail_bytes) {
        Some(tail) if tail.iter().all(|&byte| continues(byte)) => {
            let cpt = tail.iter().fold((lead & lead_bits) as u32, |cpt, byte| cpt << 6 | (byte & 0x3f) as u32);
            (char::from_u32(cpt).unwrap_or(char::REPLACEMENT_CHARACTER), 1 + tail_bytes)
        }
        _ => (char::REPLACEMENT_CHARACTER, 1),
    }
}

/// Whether `lead` and the byte after it look like the beginning of a longer sequence: one question about both.
fn begins_sequence(lead: u8, tail: &[u8]) -> bool {
    u16::from_be_bytes([lead, tail.first().copied().unwrap_or(0)]) & 0xc0c0 == 0xc080
}

/// Whether a byte is one of those behind the first of a sequence.
fn continues(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// How many bytes the character that `bytes` begin with claims to have, by its first byte alone; at most all of them.
///
/// This is how SentencePiece steps through a text, whether or not it is UTF-8.
#[inline]
pub(super) fn character_bytes(bytes: &[u8]) -> usize {
    let claimed = match bytes.first() {
        None => 0,
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xff) => 4,
        Some(_) => 1,
    };
    claimed.min(bytes.len())
}

/// How many bytes the code point that `bytes` begin with takes, `None` where [`decode`] would replace a byte.
pub(super) fn sequence_bytes(bytes: &[u8]) -> Option<usize> {
    let (c, len_bytes) = first_char(bytes)?;
    (c != char::REPLACEMENT_CHARACTER || len_bytes > 1).then_some(len_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a over 32-bit values.
    fn fnv(values: impl Iterator<Item = u32>) -> u64 {
        values
            .flat_map(u32::to_le_bytes)
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3))
    }

    fn chars() -> impl Iterator<Item = char> {
        '\0'..=char::MAX
    }

    // The expected hashes were computed from a dump of the reference's own answers for each code point.

    #[test]
    fn categories_equal_the_reference() {
        assert_eq!(fnv(TABLE.iter().map(|&facts| Facts(facts).category() as u32)), 0x1f95_8698_90c9_2d86);
    }

    #[test]
    fn whitespace_equals_the_reference() {
        assert_eq!(fnv(chars().map(|c| is_whitespace(c) as u32)), 0x445e_4d19_9030_04c4);
    }

    #[test]
    fn lowercase_equals_the_reference() {
        assert_eq!(fnv(chars().map(|c| to_lower(c) as u32)), 0x7687_652b_e5ca_dec6);
    }

    #[test]
    fn decompositions_equal_the_reference() {
        assert_eq!(fnv(chars().map(|c| nfd_first(c) as u32)), 0x096c_6426_bf10_a113);
    }

    #[test]
    fn ideographs_equal_the_reference() {
        assert_eq!(fnv(chars().map(|c| facts(c).is_han() as u32)), 0x63cc_412a_176f_b9a5);
    }

    #[test]
    fn ascii_agrees_with_the_full_table() {
        for byte in 0..128u8 {
            assert_eq!(ascii_facts(byte), Facts(TABLE[byte as usize]), "{byte:#x}");
        }
    }

    #[test]
    fn decodes_what_is_not_utf8_one_byte_at_a_time() {
        let cases: [(&[u8], &str); 8] = [
            (b"a\xffb", "a\u{fffd}b"),
            (b"\xe4\xbd", "\u{fffd}\u{fffd}"),
            (b"\xe4\xbdx", "\u{fffd}\u{fffd}x"),
            (b"\xc0\xaf", "/"),
            (b"\xe0\x80\x8a", "\n"),
            (b"\xed\xa0\x80!", "\u{fffd}!"),
            (b"\xf4\x90\x80\x80!", "\u{fffd}!"),
            (b"\xf8\x88\x80\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        ];
        for (bytes, text) in cases {
            assert_eq!(decode(bytes).collect::<String>(), text, "{bytes:x?}");
            assert_eq!(to_text(bytes), text, "{bytes:x?}");
            assert_eq!(repaired(bytes), text.as_bytes(), "{bytes:x?}");
        }
    }

    #[test]
    fn valid_text_is_borrowed() {
        assert!(matches!(to_text("naïve 日本".as_bytes()), Cow::Borrowed("naïve 日本")));
    }
}
