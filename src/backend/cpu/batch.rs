//! Tokens to run, and the frame around running them: checks, pages, and what happens when something fails.

use super::memory::PageMemory;
use crate::Result;
use crate::cache::{LayerPlace, Sequence};
use crate::error::Error;
use crate::program::{KeyValuesId, Program, Rows, Slot};

/// Tokens to run, which follow those of the sequence.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Ids.
    pub tokens: &'a [u32],
    /// The tokens, as indices, whose logits are wanted, in ascending order.
    pub outputs: &'a [usize],
}

impl Batch<'_> {
    /// How many numbers a slot holds while this runs.
    pub(super) fn numbers(&self, slot: &Slot) -> usize {
        let rows = match slot.rows {
            Rows::Tokens => self.tokens.len(),
            Rows::Outputs => self.outputs.len(),
        };
        rows * slot.width
    }

    fn check(&self, program: &Program) -> Result<()> {
        let wrong = |subject: &str, found: String, expected: String| {
            Err(Error::Model { subject: subject.into(), found, expected })
        };
        let vocabulary = program.vocabulary;
        if let Some(token) = self.tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return wrong("token", token.to_string(), format!("an id below {vocabulary}"));
        }
        match self.outputs.iter().find(|&&output| output >= self.tokens.len()) {
            Some(output) => wrong("output", output.to_string(), format!("an index below {}", self.tokens.len())),
            None => Ok(()),
        }
    }

    /// Calls `steps` when the sequence has pages for the batch, and lets it grow by the batch if that goes well. If it
    /// does not, the sequence is what it was before.
    pub(super) fn run(
        &self,
        program: &Program,
        sequence: &mut Sequence,
        memory: &mut PageMemory,
        steps: impl FnOnce(&Sequence, &mut PageMemory) -> Result<Vec<f32>>,
    ) -> Result<Vec<f32>> {
        self.check(program)?;
        let before = sequence.len();
        let tokens = u32::try_from(self.tokens.len()).unwrap_or(u32::MAX);
        for copy in sequence.reserve(tokens)? {
            memory.copy(&copy);
        }
        let logits = steps(sequence, memory);
        match &logits {
            Ok(_) => sequence.commit(tokens)?,
            Err(_) => sequence.truncate(before)?,
        }
        logits
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

/// Stores the keys and values of a batch's tokens.
pub(super) fn store(
    (place, sequence): (LayerPlace, &Sequence),
    memory: &mut PageMemory,
    keys: std::slice::Chunks<f32>,
    values: std::slice::Chunks<f32>,
) -> Result<()> {
    for (position, (keys, values)) in (sequence.len()..).zip(keys.zip(values)) {
        let slot = sequence.slot_of(place.group, position).ok_or_else(|| missing_page(position as usize))?;
        memory.store(place, slot, keys, values)?;
    }
    Ok(())
}
