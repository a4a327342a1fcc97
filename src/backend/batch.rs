//! Tokens to run, and the frame around running them: checks, pages, and what happens when something fails.

use crate::Result;
use crate::cache::{LayerPlace, PageCopy, Sequence};
use crate::error::Error;
use crate::program::{KeyValuesId, Program, Purpose, Rows, Slot};
use std::ops::Range;

/// Tokens to run, which follow those of the sequence.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Ids.
    pub tokens: &'a [u32],
    /// The tokens, as indices, whose logits are wanted, in ascending order.
    pub outputs: &'a [usize],
    /// The lengths of the texts that the tokens are, one behind the other; none if they are a single one. Only programs
    /// that keep nothing take several.
    pub texts: &'a [usize],
}

impl<'a> Batch<'a> {
    /// The tokens of each text.
    pub(super) fn text_ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let whole = [self.tokens.len()];
        let lengths = if self.texts.is_empty() { whole.to_vec() } else { self.texts.to_vec() };
        lengths.into_iter().scan(0, |end, length| {
            let start = *end;
            *end += length;
            Some(start..*end)
        })
    }

    /// The position of each token, in a sequence that has `start` positions before the batch.
    pub(super) fn positions(&self, start: usize) -> impl Iterator<Item = usize> {
        self.text_ranges().flat_map(move |text| start..start + text.len())
    }

    /// How many rows there are of a kind.
    pub(super) fn rows(&self, kind: Rows) -> usize {
        match kind {
            Rows::Tokens => self.tokens.len(),
            Rows::Outputs => self.outputs.len(),
        }
    }

    /// How many numbers a slot holds while this runs.
    pub(super) fn numbers(&self, slot: &Slot) -> usize {
        self.rows(slot.rows) * slot.width
    }

    /// The batch in pieces of at most so many tokens and outputs each: tokens, and the outputs among them.
    pub fn chunks(self, most_tokens: usize, most_outputs: usize) -> impl Iterator<Item = (&'a [u32], Vec<usize>)> {
        let mut rest = self.tokens;
        std::iter::from_fn(move || {
            let first = self.tokens.len() - rest.len();
            let mut count = rest.len().min(most_tokens);
            let outputs = self.outputs.iter().filter_map(|output| output.checked_sub(first));
            let mut outputs: Vec<usize> = outputs.take_while(|output| *output < count).collect();
            if let Some(output) = outputs.get(most_outputs) {
                count = *output;
                outputs.truncate(most_outputs);
            }
            let (tokens, later) = rest.split_at(count);
            rest = later;
            (count > 0).then_some((tokens, outputs))
        })
    }

    /// Takes a sequence back to where it was before a batch of which a part has failed, or farther, if there are no states
    /// behind that any more: see [`Sequence::truncate`]. Returns the error, in terms of the whole batch.
    pub fn undo(&self, sequence: &mut Sequence, before: u32, error: Error) -> Error {
        if let Err(error) = sequence.truncate(before) {
            return error;
        }
        match error {
            Error::ContextFull { limit_tokens, .. } => {
                Error::ContextFull { used_tokens: before, asked_tokens: self.len_tokens(), limit_tokens }
            }
            error => error,
        }
    }

    /// Refuses tokens that there are not, and outputs that are out of place.
    pub fn check(&self, program: &Program) -> Result<()> {
        let wrong = |subject: &str, found: String, expected: String| {
            Err(Error::Model { subject: subject.into(), found, expected })
        };
        if self.tokens.is_empty() {
            return wrong("batch", "no tokens".into(), "at least one".into());
        }
        let vocabulary = program.vocabulary;
        if let Some(token) = self.tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return wrong("token", token.to_string(), format!("an id below {vocabulary}"));
        }
        if !self.outputs.is_sorted_by(|output, next| output < next) {
            return wrong("outputs", format!("{:?}", self.outputs), "indices in ascending order".into());
        }
        if let Some(output) = self.outputs.iter().find(|&&output| output >= self.tokens.len()) {
            return wrong("output", output.to_string(), format!("an index below {}", self.tokens.len()));
        }
        self.check_texts(program)
    }

    /// Refuses texts that the tokens are not, or are too long, and several where one follows the other.
    fn check_texts(&self, program: &Program) -> Result<()> {
        let wrong = |found: String, expected: String| Err(Error::Model { subject: "texts".into(), found, expected });
        let tokens: usize = self.texts.iter().sum();
        if !self.texts.is_empty() && (tokens != self.tokens.len() || self.texts.contains(&0)) {
            return wrong(format!("{:?} tokens", self.texts), format!("{} in all, some in each", self.tokens.len()));
        }
        if program.purpose != Purpose::Embed {
            let expected = "one: the program keeps what it has read".into();
            return if self.texts.len() > 1 { wrong(self.texts.len().to_string(), expected) } else { Ok(()) };
        }
        let most = program.most_positions();
        match self.text_ranges().find(|text| text.len() > most) {
            Some(text) => wrong(format!("one of {} tokens", text.len()), format!("at most {most} in each")),
            None => Ok(()),
        }
    }

    /// Finds pages for the batch, where something is kept. Returns the copies that must be made before anything is stored.
    pub fn begin(&self, program: &Program, sequence: &mut Sequence) -> Result<Vec<PageCopy>> {
        self.check(program)?;
        if program.purpose == Purpose::Embed {
            return Ok(vec![]);
        }
        sequence.reserve(self.len_tokens())
    }

    /// Lets the sequence grow by the batch if all went well. If it did not, the sequence is what it was before.
    pub fn end<T>(&self, program: &Program, sequence: &mut Sequence, result: Result<T>) -> Result<T> {
        match &result {
            _ if program.purpose == Purpose::Embed => {}
            Ok(_) => sequence.commit(self.len_tokens())?,
            Err(_) => sequence.truncate(sequence.len())?,
        }
        result
    }

    fn len_tokens(&self) -> u32 {
        u32::try_from(self.tokens.len()).unwrap_or(u32::MAX)
    }
}

/// The positions that a batch is written to.
#[derive(Debug, Clone, Copy)]
pub struct Positions<'a> {
    /// Has pages for them.
    pub sequence: &'a Sequence,
    /// The first: behind those that are committed, and perhaps behind others that are written as well.
    pub start: u32,
}

impl<'a> Positions<'a> {
    /// Those behind what is committed.
    pub fn next(sequence: &'a Sequence) -> Self {
        Positions { sequence, start: sequence.len() }
    }
}

/// Where the books keep the keys and values of an attention.
pub(super) fn place_of(program: &Program, id: KeyValuesId, sequence: &Sequence) -> Result<LayerPlace> {
    let layer = program.key_values[id.0].layer;
    sequence.cache().place_of(layer as u32).ok_or_else(|| Error::Model {
        subject: "sequence".into(),
        found: format!("a cache without layer {layer}"),
        expected: "a sequence of this model's cache".into(),
    })
}

/// The error of a position that should have a page.
pub(super) fn missing_page(position: usize) -> Error {
    Error::Model {
        subject: "sequence".into(),
        found: format!("no page for position {position}"),
        expected: "a page for every position that is written or seen".into(),
    }
}
