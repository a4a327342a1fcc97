//! Cutting text into words before byte pairs are merged: the pre-tokenizers of `tokenizer.ggml.pre`.
//!
//! A pre-tokenizer is published as a list of regular expressions, each of which cuts the pieces that the one before
//! left: what matches is a piece, and so is what lies between matches. Here a list is a slice of stages, written by
//! hand: [`words`] is the large alternation that nearly all share, with options; [`stages`] are the small ones;
//! [`families`] is the table of names. Lookaheads see no further than the piece at hand.
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
        run(self.stages, text, word);
    }
}

/// Passes `text` through the stages, each piece of one on to the next.
fn run<'a>(stages: &[Stage], text: &'a str, word: &mut dyn FnMut(&'a str)) {
    match stages {
        [] => word(text),
        [last] => last.split(text, word),
        [first, rest @ ..] => first.split(text, &mut |piece| run(rest, piece, word)),
    }
}

impl Stage {
    fn split<'a>(&self, text: &'a str, piece: &mut dyn FnMut(&'a str)) {
        match self {
            Stage::Words(words) => words.split(text, piece),
            Stage::Runs(runs) => runs.split(text, piece),
            Stage::Thirds(thirds) => thirds.split(text, piece),
            Stage::TrailingWhite => stages::split_trailing_white(text, piece),
            Stage::Matches(match_len) => stages::split_matches(text, *match_len, piece),
        }
    }
}
