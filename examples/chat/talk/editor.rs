//! The line that the user types: edited, remembered, completed.

use super::commands::NAMES;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Helper};

/// What came of asking.
pub enum Input {
    Line(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D.
    End,
}

/// Reads lines from a terminal.
pub struct Editor(rustyline::Editor<Lines, DefaultHistory>);

impl Editor {
    pub fn new() -> rustyline::Result<Self> {
        let mut editor = rustyline::Editor::with_config(Config::builder().build())?;
        editor.set_helper(Some(Lines { files: FilenameCompleter::new() }));
        Ok(Editor(editor))
    }

    /// Asks for a line, with a prompt that is given twice: plain, and painted.
    pub fn read(&mut self, prompt: (&str, String)) -> rustyline::Result<Input> {
        match self.0.readline(&prompt) {
            Ok(line) => {
                self.0.add_history_entry(&line[..])?;
                Ok(Input::Line(line.replace("\\\n", "\n")))
            }
            Err(ReadlineError::Interrupted) => Ok(Input::Interrupted),
            Err(ReadlineError::Eof) => Ok(Input::End),
            Err(error) => Err(error),
        }
    }

    /// How wide the terminal is now.
    pub fn columns(&mut self) -> usize {
        self.0.dimensions().map_or(80, |(columns, _)| usize::from(columns)).max(2)
    }
}

/// Knows commands and files, and lines that go on.
struct Lines {
    files: FilenameCompleter,
}

impl Completer for Lines {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, context: &Context) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = line.get(..at).unwrap_or_default();
        if ["/save ", "/load ", "/model "].iter().any(|command| before.starts_with(command)) {
            return self.files.complete(line, at, context);
        }
        let pair = |name: &&str| Pair { display: name.to_string(), replacement: format!("{name} ") };
        let fitting = NAMES.iter().filter(|name| !before.is_empty() && name.starts_with(before));
        Ok((0, fitting.map(pair).collect()))
    }
}

impl Validator for Lines {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        let goes_on = context.input().ends_with('\\');
        Ok(if goes_on { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Hinter for Lines {
    type Hint = String;
}

impl Highlighter for Lines {}
impl Helper for Lines {}
