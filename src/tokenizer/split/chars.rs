//! Kinds of characters, as the splitters see them, and walking a text by kind.
//!
//! Every character is of exactly one kind, a bit; sets of kinds are sums of bits, so a test of membership is one `&`.
//! ASCII is looked up in a table made at compile time, everything else in the Unicode tables.

use crate::tokenizer::unicode::{self, Category, Facts};

/// Kinds of characters, one bit each.
pub(super) type Set = u16;

/// `a` to `z`.
pub(super) const LOWER: Set = 1;
/// `A` to `Z`.
pub(super) const UPPER: Set = 1 << 1;
/// Chinese ideographs.
pub(super) const HAN: Set = 1 << 2;
/// All other letters, of either case.
pub(super) const LETTER: Set = 1 << 3;
/// Combining marks.
pub(super) const MARK: Set = 1 << 4;
/// Numbers of any script.
pub(super) const NUMBER: Set = 1 << 5;
/// Punctuation.
pub(super) const PUNCT: Set = 1 << 6;
/// Symbols.
pub(super) const SYMBOL: Set = 1 << 7;
/// The space, U+0020.
pub(super) const SPACE: Set = 1 << 8;
/// Carriage return and line feed.
pub(super) const BREAK: Set = 1 << 9;
/// All other white space.
pub(super) const BLANK: Set = 1 << 10;
/// Controls and code points that are private or not assigned.
pub(super) const OTHER: Set = 1 << 11;
/// Code points not assigned inside a block of ideographs.
pub(super) const HAN_GAP: Set = 1 << 12;

/// `\p{L}`
pub(super) const LETTERS: Set = LOWER | UPPER | HAN | LETTER;
/// `\s`
pub(super) const WHITE: Set = SPACE | BREAK | BLANK;
/// `[^\s\p{L}\p{N}]`
pub(super) const SIGNS: Set = MARK | PUNCT | SYMBOL | OTHER | HAN_GAP;

const fn kind_of(facts: Facts) -> Set {
    match facts.category() {
        _ if facts.is_whitespace() => BLANK,
        Category::Letter if facts.is_han() => HAN,
        Category::Undefined if facts.is_han() => HAN_GAP,
        Category::Letter => LETTER,
        Category::Mark => MARK,
        Category::Number => NUMBER,
        Category::Punctuation => PUNCT,
        Category::Symbol => SYMBOL,
        Category::Control | Category::Undefined | Category::Separator => OTHER,
    }
}

/// Kinds of ASCII characters.
const ASCII: [Set; 128] = {
    let mut kinds = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        kinds[byte] = match byte as u8 {
            b'a'..=b'z' => LOWER,
            b'A'..=b'Z' => UPPER,
            b' ' => SPACE,
            b'\r' | b'\n' => BREAK,
            byte => kind_of(unicode::ascii_facts(byte)),
        };
        byte += 1;
    }
    kinds
};

/// Kinds of all other characters, by [`Facts`].
const KINDS: [Set; Facts::COUNT] = {
    let mut kinds = [0; Facts::COUNT];
    let mut index = 0;
    while index < Facts::COUNT {
        kinds[index] = kind_of(Facts::from_index(index));
        index += 1;
    }
    kinds
};

/// The kind of `c`.
pub(super) fn kind(c: char) -> Set {
    match ASCII.get(c as usize) {
        Some(&kind) => kind,
        None => KINDS[unicode::facts(c).index()],
    }
}

/// The character at `pos` of well-formed UTF-8, for what is not ASCII.
fn char_at(text: &[u8], pos: usize) -> Option<char> {
    let &lead = text.get(pos)?;
    let bits = |i: usize| u32::from(text.get(pos + i).copied().unwrap_or_default() & 0x3f);
    let lead_bits = |mask: u8| u32::from(lead & mask);
    char::from_u32(match lead {
        0..0x80 => u32::from(lead),
        0x80..0xe0 => lead_bits(0x1f) << 6 | bits(1),
        0xe0..0xf0 => lead_bits(0x0f) << 12 | bits(1) << 6 | bits(2),
        0xf0.. => lead_bits(0x07) << 18 | bits(1) << 12 | bits(2) << 6 | bits(3),
    })
}

/// Kind and place of the last character before `pos`; no kind at the start.
pub(super) fn before(text: &[u8], pos: usize) -> (Set, usize) {
    if let Some(&byte) = text.get(..pos).and_then(<[u8]>::last)
        && let Some(&kind) = ASCII.get(usize::from(byte))
    {
        return (kind, pos - 1);
    }
    let is_start = |&at: &usize| text.get(at).is_some_and(|byte| byte & 0xc0 != 0x80);
    match (0..pos).rev().find(is_start) {
        Some(at) => (Text(text).at(at).0, at),
        None => (0, pos),
    }
}

/// What stands for each byte that was not UTF-8: in such a text it is everywhere, so that it is known without decoding.
const REPLACEMENT: (&[u8], Set) = ("\u{fffd}".as_bytes(), SYMBOL);

/// Whether the character at `pos` is U+FFFD.
#[inline]
fn is_replacement(text: &[u8], pos: usize) -> bool {
    text.get(pos..).is_some_and(|rest| rest.starts_with(REPLACEMENT.0))
}

/// A text, which is well-formed UTF-8, read by kind. Positions are byte offsets of characters, or the end.
#[derive(Clone, Copy)]
pub(super) struct Text<'a>(pub &'a [u8]);

impl<'a> Text<'a> {
    /// The byte at `pos`; zero at the end.
    pub(super) fn byte(self, pos: usize) -> u8 {
        self.0.get(pos).copied().unwrap_or(0)
    }

    /// Kind and length in bytes of the character at `pos`; no kind and no length at the end.
    #[inline]
    pub(super) fn at(self, pos: usize) -> (Set, usize) {
        #[cfg(test)]
        looks::count();
        match self.0.get(pos) {
            Some(&byte) => match ASCII.get(byte as usize) {
                Some(&kind) => (kind, 1),
                None if is_replacement(self.0, pos) => (REPLACEMENT.1, REPLACEMENT.0.len()),
                None => char_at(self.0, pos).map_or((0, 0), |c| (kind(c), c.len_utf8())),
            },
            None => (0, 0),
        }
    }

    /// Where the run of characters in `set` that starts at `pos` ends.
    #[inline]
    pub(super) fn run(self, mut pos: usize, set: Set) -> usize {
        loop {
            let (kind, len_bytes) = self.at(pos);
            if kind & set == 0 {
                return pos;
            }
            pos += len_bytes;
        }
    }
}

/// A class of characters, as in a regex bracket.
///
/// White space past ASCII is in no class, whatever the ranges say: the reference turns it into a vertical tab first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chars {
    /// By the first byte of a character.
    sides: [Side; 256],
    /// Whether U+FFFD is in the class.
    replacement: bool,
    /// Whether any character past ASCII is.
    wide: bool,
    kinds: Set,
    ranges: &'static [(char, char)],
    negated: bool,
}

impl Chars {
    /// Characters of these kinds, or in these ranges, which ascend.
    pub(super) const fn new(kinds: Set, ranges: &'static [(char, char)]) -> Self {
        let mut sides = [Side::Open; 256];
        let mut byte = 0;
        while byte < 128 {
            sides[byte] = if ASCII[byte] & kinds != 0 { Side::In } else { Side::Out };
            byte += 1;
        }
        let mut replacement = REPLACEMENT.1 & kinds != 0;
        let mut wide = kinds & !(LOWER | UPPER | SPACE | BREAK) != 0;
        let mut i = 0;
        while i < ranges.len() {
            wide |= !ranges[i].1.is_ascii();
            replacement |= ranges[i].0 <= char::REPLACEMENT_CHARACTER && char::REPLACEMENT_CHARACTER <= ranges[i].1;
            let mut cpt = ranges[i].0 as usize;
            while cpt <= ranges[i].1 as usize && cpt < 128 {
                sides[cpt] = Side::In;
                cpt += 1;
            }
            i += 1;
        }
        Chars { sides, replacement, wide, kinds, ranges, negated: false }
    }

    /// All other characters.
    pub(super) const fn not(mut self) -> Self {
        let mut byte = 0;
        while byte < 128 {
            self.sides[byte] = if matches!(self.sides[byte], Side::In) { Side::Out } else { Side::In };
            byte += 1;
        }
        self.replacement = !self.replacement;
        self.wide = true;
        self.negated = !self.negated;
        self
    }

    fn contains(&self, c: char) -> bool {
        let kind = kind(c);
        let ranged = || {
            let next = self.ranges.partition_point(|range| range.0 <= c);
            next.checked_sub(1).and_then(|i| self.ranges.get(i)).is_some_and(|range| c <= range.1)
        };
        kind & WHITE == 0 && (kind & self.kinds != 0 || ranged()) != self.negated
    }

    /// Where the first character of the class from `pos` on is, or the end.
    #[inline]
    pub(super) fn find(&self, text: &[u8], pos: usize) -> usize {
        if self.wide {
            return self.side(text, pos, false, usize::MAX).0;
        }
        let is_member = |&byte: &u8| {
            #[cfg(test)]
            looks::count();
            self.sides[usize::from(byte)] == Side::In
        };
        let rest = text.get(pos..).unwrap_or_default();
        pos + rest.iter().position(is_member).unwrap_or(rest.len())
    }

    /// Where the characters of the class that start at `pos` end, after `max` at the latest; and how many they are.
    #[inline]
    pub(super) fn run(&self, text: &[u8], pos: usize, max: usize) -> (usize, usize) {
        self.side(text, pos, true, max)
    }

    /// The same for what is in the class or, with `member` false, for what is not.
    #[inline]
    fn side(&self, text: &[u8], pos: usize, member: bool, max: usize) -> (usize, usize) {
        let wanted = if member { Side::In } else { Side::Out };
        let (mut end, mut count) = (pos, 0);
        let mut known = None; // the last character past ASCII that was found to be on the wanted side
        while count < max
            && let Some(&byte) = text.get(end)
        {
            #[cfg(test)]
            looks::count();
            end += match self.sides[usize::from(byte)] {
                side if side == wanted => 1,
                Side::Open => match self.past_ascii(text, end, member, &mut known) {
                    0 => break,
                    len_bytes => len_bytes,
                },
                _ => break,
            };
            count += 1;
        }
        (end, count)
    }

    /// The length of the character at `pos`, which is past ASCII; zero if it is on the wrong side. Never inlined, so that
    /// the loop over ASCII stays small.
    #[inline(never)]
    fn past_ascii(&self, text: &[u8], pos: usize, member: bool, known: &mut Option<char>) -> usize {
        if is_replacement(text, pos) {
            return if self.replacement == member { REPLACEMENT.0.len() } else { 0 };
        }
        match char_at(text, pos) {
            Some(c) if *known == Some(c) || self.contains(c) == member => {
                *known = Some(c);
                c.len_utf8()
            }
            _ => 0,
        }
    }
}

/// What a first byte says of its character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    In,
    Out,
    /// It is past ASCII: the byte alone does not tell.
    Open,
}

/// How often a character was looked at, so that tests can hold the work to the length of the text.
#[cfg(test)]
pub(super) mod looks {
    use std::cell::Cell;

    thread_local!(static LOOKS: Cell<u64> = const { Cell::new(0) });

    /// Counts one look.
    pub(in crate::tokenizer::split) fn count() {
        LOOKS.set(LOOKS.get() + 1);
    }

    /// The looks since the last call, on this thread.
    pub(in crate::tokenizer::split) fn take() -> u64 {
        LOOKS.replace(0)
    }
}
