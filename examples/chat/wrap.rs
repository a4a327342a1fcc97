//! Text on a terminal as it comes, broken between words.
//!
//! Letters are printed at once. Where a word turns out not to fit, what has been printed of it is taken back and begins
//! the next line.

use std::io::{self, Write};
use unicode_width::UnicodeWidthChar;

/// Breaks lines at a width.
#[derive(Debug, Default)]
pub struct Wrap {
    /// Columns that are used of the line.
    column: usize,
    /// What has been printed of the word at hand, and how wide it is.
    word: String,
    word_width: usize,
}

impl Wrap {
    /// Prints text on a terminal that is so wide.
    pub fn print(&mut self, out: &mut impl Write, text: &str, width: usize) -> io::Result<()> {
        // Behind the last column terminals differ.
        let most = width.saturating_sub(1).max(1);
        for c in text.chars() {
            match c {
                '\n' => self.break_line(out)?,
                // Others steer the terminal, which is not the model's to do.
                c if c.is_control() && c != '\t' => {}
                c if c.is_whitespace() => {
                    let c = if c == '\t' { ' ' } else { c };
                    self.end_word();
                    if self.column + 1 > most {
                        self.break_line(out)?;
                    } else {
                        write!(out, "{c}")?;
                        self.column += c.width().unwrap_or(0);
                    }
                }
                c => self.letter(out, c, most)?,
            }
        }
        out.flush()
    }

    fn letter(&mut self, out: &mut impl Write, c: char, most: usize) -> io::Result<()> {
        let width = c.width().unwrap_or(0);
        if self.column + width > most {
            let (word, word_width) = (std::mem::take(&mut self.word), self.word_width);
            // A word that fills the line is broken where it is.
            let moves = word_width > 0 && word_width < self.column;
            if moves {
                write!(out, "\x1b[{word_width}D\x1b[K")?;
            }
            self.break_line(out)?;
            if moves {
                write!(out, "{word}")?;
                (self.word, self.word_width, self.column) = (word, word_width, word_width);
            }
        }
        write!(out, "{c}")?;
        self.word.push(c);
        self.word_width += width;
        self.column += width;
        Ok(())
    }

    fn break_line(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.end_word();
        self.column = 0;
        writeln!(out)
    }

    fn end_word(&mut self) {
        self.word.clear();
        self.word_width = 0;
    }

    /// Ends the line, if one has begun.
    pub fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.column > 0 {
            self.break_line(out)?;
        }
        out.flush()
    }
}
