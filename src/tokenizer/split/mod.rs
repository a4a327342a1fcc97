//! Cutting text into words before byte pairs are merged: the pre-tokenizers of `tokenizer.ggml.pre`.
//!
//! A pre-tokenizer is published as a list of regular expressions, each of which cuts the pieces that the one before
//! left: what matches is a piece, and so is what lies between matches. Here a list is a slice of stages, written by
//! hand. The file `words` has the large alternation that nearly all share, with options; `stages` has the small ones;
//! `families` is the table of names. Lookaheads see no further than the piece at hand.
//!
//! Invariants: the pieces of a text, in order, are the text; no piece is empty; the time is linear in the length of any
//! text; the cuts are exactly those of llama.cpp, including where it departs from the published expressions.
//!
//! ```
//! use kiln::tokenizer::split::Splitter;
//!
//! let family = Splitter::by_name("llama-bpe").ok_or("unknown")?;
//! let mut words = Vec::new();
//! family.splitter.split("It's 12345 o'clock", &mut |word| words.push(word));
//! assert_eq!(words, ["It", "'s", " ", "123", "45", " o", "'clock"]);
//! # Ok::<(), &str>(())
//! ```

mod chars;
mod classes;
mod families;
mod stages;
mod words;

use stages::{Runs, Thirds};
use words::Words;

pub use families::{Family, names};

/// How a text is cut into words before merging.
#[derive(Debug, Clone, Copy)]
pub struct Splitter {
    stages: &'static [Stage],
}

/// One cut; see [`words`] and [`stages`].
#[derive(Debug, Clone, Copy)]
enum Stage {
    Words(Words),
    Runs(Runs),
    Thirds(Thirds),
    TrailingWhite,
    Matches(fn(&[u8]) -> usize),
}

impl Splitter {
    /// The family of a name in `tokenizer.ggml.pre`, `None` when it is unknown.
    pub fn by_name(pre: &str) -> Option<&'static Family> {
        families::FAMILIES.iter().find(|family| family.names.contains(&pre))
    }

    /// Calls `word` with each piece of `text`, in order.
    pub fn split<'a>(&self, text: &'a str, word: &mut dyn FnMut(&'a str)) {
        let mut rest = text;
        self.split_utf8(text.as_bytes(), &mut |piece| {
            let (piece, after) = rest.split_at(piece.len());
            rest = after;
            word(piece);
        });
    }

    /// The same for bytes that are well-formed UTF-8: nobody has to check that again.
    pub(super) fn split_utf8<'a>(&self, text: &'a [u8], word: &mut dyn FnMut(&'a [u8])) {
        run(self.stages, text, word);
    }
}

/// Passes `text` through the stages, each piece of one on to the next; a single byte is as small as pieces get.
fn run<'a>(stages: &[Stage], text: &'a [u8], word: &mut dyn FnMut(&'a [u8])) {
    match stages {
        [] => word(text),
        [last] => last.split(text, word),
        [first, rest @ ..] => first.split(text, &mut |piece| match piece.len() {
            1 => word(piece),
            _ => run(rest, piece, word),
        }),
    }
}

impl Stage {
    fn split<'a>(&self, text: &'a [u8], piece: &mut dyn FnMut(&'a [u8])) {
        match self {
            Stage::Words(words) => words.split(text, piece),
            Stage::Runs(runs) => runs.split(text, piece),
            Stage::Thirds(thirds) => thirds.split(text, piece),
            Stage::TrailingWhite => stages::split_trailing_white(text, piece),
            Stage::Matches(match_len) => stages::split_matches(text, *match_len, piece),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::chars::looks;
    use super::*;

    /// What invites a splitter to look at a run again and again.
    const HOSTILE: [&str; 24] = [
        "a",
        "A",
        "é",
        "\u{301}",
        "\u{301}A",
        "Aé",
        "中",
        "\u{fa6e}",
        "7",
        "٣",
        "7a",
        "'",
        "'r",
        "!",
        "! ",
        " ",
        "\t ",
        "\u{3000}",
        "\n",
        " \n",
        "  \n\n",
        "\0",
        "<sentinel:1",
        "IMGIMGA",
    ];

    /// Looks per character. The largest family has six stages, and one stage looks a few times at each character.
    fn looks_per_char(family: &Family, unit: &str, count: usize) -> f64 {
        let text = unit.repeat(count);
        looks::take();
        family.splitter.split(&text, &mut |_| ());
        looks::take() as f64 / text.chars().count() as f64
    }

    #[test]
    fn work_is_linear_in_the_length() {
        let mut worst: f64 = 0.0;
        for family in families::FAMILIES {
            for unit in HOSTILE {
                let (short, long) = (looks_per_char(family, unit, 500), looks_per_char(family, unit, 50_000));
                assert!(long < short * 1.1 + 0.1, "{:?} on {unit:?}: {short} then {long}", family.names);
                worst = worst.max(long);
            }
        }
        assert!(worst < 40.0, "{worst} looks per character");
    }

    #[test]
    fn names_are_known_once() {
        let mut all: Vec<_> = names().collect();
        assert!(all.iter().all(|name| Splitter::by_name(name).is_some_and(|family| family.names.contains(name))));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), names().count());
        assert!(Splitter::by_name("no-such-name").is_none());
    }

    #[test]
    fn an_empty_text_has_no_words() {
        for family in families::FAMILIES {
            family.splitter.split("", &mut |word| panic!("{:?} made {word:?}", family.names));
        }
    }
}
