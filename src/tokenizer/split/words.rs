//! The alternation at the heart of almost every pre-tokenizer, with the options that tell them apart.
//!
//! Seen as a regular expression it tries, at each place and in this order: a contraction, a run of ideographs, a sign
//! with ASCII letters, letters, numbers, signs, white space. Characters that nothing matches stay together as a piece.
//! Each character is looked at a bounded number of times: what a failed alternative has learnt about a run is either
//! used by the next one or bounded by the length of the piece that comes out.

use super::chars::{BREAK, LOWER, MARK, NUMBER, PUNCT, SPACE, SYMBOL, Set, Text, UPPER, WHITE};

/// Options of the alternation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    pub contractions: Contractions,
    /// Cut out as runs of their own, before all but contractions.
    pub ideographs: Set,
    /// Whether an ASCII sign takes the ASCII letters after it along.
    pub coupled: bool,
    /// What may stand once before the letters of a word.
    pub prefix: Set,
    pub letters: Set,
    pub shape: Shape,
    /// At most so many numbers make a piece; with zero, numbers match nothing.
    pub numbers_max: usize,
    /// Whether a space goes with the numbers after it.
    pub spaced_numbers: bool,
    pub signs: Set,
    /// What a run of signs takes along behind it, and at most how many.
    pub tail: (&'static [u8], usize),
    pub breaks: Breaks,
    pub blanks: Blanks,
}

/// `'s 't 're 've 'm 'll 'd`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contractions {
    /// Nothing special.
    None,
    /// Pieces of their own, in lowercase only.
    Lowercase,
    /// Pieces of their own, in any case.
    AnyCase,
    /// Part of the word before, in any case.
    Suffix,
}

/// What the letters of a word look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A run.
    Run,
    /// Capitals, then small letters; a letter that is not ASCII counts as both.
    Cased,
    /// Runs with single spaces between them; a letter starts each, marks may follow.
    Joined,
}

/// Where white space is cut at line breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breaks {
    /// Nowhere.
    Ignored,
    /// After the last of a run of white space.
    AfterLast,
    /// Around each that starts a run of white space.
    Single,
}

/// How white space without line breaks is cut. The last before a word is always left to the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blanks {
    /// As one piece.
    Whole,
    /// In pieces of 512, 256, … 2, 1: the largest that fits first.
    Halving,
}

/// A run of white space, measured once for all the pieces that are cut from it.
#[derive(Default)]
struct White {
    end: usize,
    /// Where its last character starts.
    last: usize,
    /// The end of its last line break, if it has one.
    break_end: usize,
}

impl Words {
    /// Cuts `text` into pieces, in order; together they are `text`.
    pub(super) fn split<'a>(&self, text: &'a [u8], piece: &mut dyn FnMut(&'a [u8])) {
        let mut white = White::default();
        let (mut start, mut pos) = (0, 0); // of what no alternative matched so far; of the character at hand
        while pos < text.len() {
            match self.word_end(Text(text), pos, &mut white) {
                Some(end) => {
                    if start < pos {
                        piece(&text[start..pos]);
                    }
                    piece(&text[pos..end]);
                    (start, pos) = (end, end);
                }
                None => pos += Text(text).at(pos).1,
            }
        }
        if start < pos {
            piece(&text[start..]);
        }
    }

    /// The end of what the first alternative to match matches at `pos`.
    #[inline]
    fn word_end(&self, text: Text, pos: usize, white: &mut White) -> Option<usize> {
        let (kind, len_bytes) = text.at(pos);
        let next = pos + len_bytes;
        if kind & PUNCT != 0 && matches!(self.contractions, Contractions::Lowercase | Contractions::AnyCase) {
            let len_bytes = contraction_len(text, pos, self.contractions != Contractions::Lowercase);
            if len_bytes > 0 {
                return Some(pos + len_bytes);
            }
        }
        if kind & self.ideographs != 0 {
            return Some(text.run(pos, self.ideographs));
        }
        if self.coupled && kind & (PUNCT | SYMBOL) != 0 && len_bytes == 1 && text.at(next).0 & (LOWER | UPPER) != 0 {
            return Some(text.run(next, LOWER | UPPER));
        }
        if kind & (self.letters | self.prefix) != 0
            && let Some(end) = self.letters_end(text, pos, kind, next)
        {
            let suffix = self.contractions == Contractions::Suffix;
            return Some(if suffix { end + contraction_len(text, end, true) } else { end });
        }
        if self.numbers_max > 0
            && (kind == NUMBER || (self.spaced_numbers && kind == SPACE && text.at(next).0 == NUMBER))
        {
            return Some(self.numbers_end(text, next));
        }
        let sign = if kind == SPACE { text.at(next).0 } else { kind };
        if sign & self.signs != 0 {
            return Some(self.signs_end(text, next));
        }
        (kind & WHITE != 0).then(|| self.white_end(text, pos, white))
    }

    /// The end of the letters of a word that starts at `pos`, with or without a prefix.
    fn letters_end(&self, text: Text, pos: usize, kind: Set, next: usize) -> Option<usize> {
        match self.shape {
            Shape::Run => {
                let first = text.at(next).0;
                (kind & self.letters != 0 || first & self.letters != 0).then(|| text.run(next, self.letters))
            }
            Shape::Joined => {
                let starts = self.letters & !MARK;
                if kind & starts == 0 && text.at(next).0 & starts == 0 {
                    return None;
                }
                let mut end = text.run(next, self.letters);
                while text.at(end).0 == SPACE && text.at(end + 1).0 & starts != 0 {
                    end = text.run(end + 1, self.letters);
                }
                Some(end)
            }
            Shape::Cased => {
                // A mark can be a prefix as well as a letter: small letters after the prefix come first, then the mark
                // as a letter, then capitals after the prefix.
                let prefixed = kind & self.prefix != 0 && text.at(next).0 & self.letters != 0;
                let after = prefixed.then(|| self.cased_end(text, next));
                if let Some((Some(end), _)) = after {
                    return Some(end);
                }
                if kind & self.letters != 0 {
                    let (end, capitals_end) = self.cased_end(text, pos);
                    return Some(end.unwrap_or(capitals_end));
                }
                after.map(|(_, capitals_end)| capitals_end)
            }
        }
    }

    /// From `pos`, the end of capitals that small letters follow, and the end of capitals alone.
    ///
    /// Without small letters, the last letter that counts as both is the small one, and what follows it stays behind.
    fn cased_end(&self, text: Text, pos: usize) -> (Option<usize>, usize) {
        let (mut end, mut small_end) = (pos, None);
        loop {
            let (kind, len_bytes) = text.at(end);
            if kind & self.letters & !LOWER == 0 {
                break;
            }
            end += len_bytes;
            if kind != UPPER {
                small_end = Some(end);
            }
        }
        if text.at(end).0 & self.letters != 0 {
            small_end = Some(text.run(end, self.letters & !UPPER));
        }
        (small_end, end)
    }

    /// The end of a piece of numbers, whose first character, a number or a space, ends at `next`.
    fn numbers_end(&self, text: Text, next: usize) -> usize {
        let mut end = next;
        for _ in 1..self.numbers_max {
            let (kind, len_bytes) = text.at(end);
            if kind != NUMBER {
                break;
            }
            end += len_bytes;
        }
        end
    }

    /// The end of a piece of signs, whose first character, a sign or a space, ends at `next`.
    fn signs_end(&self, text: Text, next: usize) -> usize {
        let mut end = text.run(next, self.signs);
        let (bytes, max) = self.tail;
        for _ in 0..max {
            if !bytes.contains(&text.byte(end)) {
                break;
            }
            end += 1;
        }
        end
    }

    /// The end of a piece of white space that starts at `pos`.
    fn white_end(&self, text: Text, pos: usize, white: &mut White) -> usize {
        if self.breaks == Breaks::Single && text.at(pos).0 == BREAK {
            return pos + 1;
        }
        if pos >= white.end {
            *white = White::measure(text, pos);
        }
        if self.breaks == Breaks::AfterLast && white.break_end > pos {
            return white.break_end;
        }
        let at_end = white.end == text.0.len();
        match self.blanks {
            Blanks::Whole if at_end || white.last == pos => white.end,
            Blanks::Whole => white.last,
            Blanks::Halving => {
                let (mut end, mut best) = (pos, pos + text.at(pos).1);
                for count in 1..=512usize {
                    end += text.at(end).1;
                    if end > white.last && !(at_end && end == white.end) {
                        break;
                    }
                    if count.is_power_of_two() {
                        best = end;
                    }
                    if end == white.end {
                        break;
                    }
                }
                best
            }
        }
    }
}

impl White {
    fn measure(text: Text, pos: usize) -> Self {
        let mut white = White { end: pos, last: pos, break_end: 0 };
        loop {
            let (kind, len_bytes) = text.at(white.end);
            if kind & WHITE == 0 {
                return white;
            }
            white.last = white.end;
            white.end += len_bytes;
            if kind == BREAK {
                white.break_end = white.end;
            }
        }
    }
}

/// The length of the contraction at `pos`, apostrophe included; zero where there is none.
fn contraction_len(text: Text, pos: usize, any_case: bool) -> usize {
    if text.byte(pos) != b'\'' {
        return 0;
    }
    let letter = |pos| if any_case { text.byte(pos).to_ascii_lowercase() } else { text.byte(pos) };
    match (letter(pos + 1), letter(pos + 2)) {
        (b's' | b't' | b'm' | b'd', _) => 2,
        (b'r', b'e') | (b'v', b'e') | (b'l', b'l') => 3,
        _ => 0,
    }
}
