//! Runs a program by the book: each step with the functions of [`ops`](super::ops), weights decoded row by row.
//!
//! Slow, and exact: this is what "dequantize, then multiply in f32" gives, and what faster ways are compared with.

use super::memory::PageMemory;
use super::ops;
use crate::Result;
use crate::cache::{LayerPlace, PAGE_POSITIONS, Sequence};
use crate::error::Error;
use crate::gguf::{Gguf, TensorInfo};
use crate::program::{KeyValuesId, Op, Product, Program, Rows, SlotId, WeightId};
use crate::quant::Format;
use std::ops::Range;
use std::sync::Arc;

/// A program and the file with its weights.
#[derive(Debug)]
pub struct Reference {
    file: Arc<Gguf>,
    program: Program,
    /// The weights' tensors, as indices into the file's.
    tensors: Vec<usize>,
    /// Vectors: norms, biases, rotation factors; empty for matrices.
    vectors: Vec<Vec<f32>>,
    /// The angles of each rope.
    angles: Vec<Vec<f32>>,
}

/// Tokens to run, which follow those of the sequence.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Ids.
    pub tokens: &'a [u32],
    /// The tokens, as indices, whose logits are wanted, in ascending order.
    pub outputs: &'a [usize],
}

impl Reference {
    /// Gets ready to run a program on the weights of a file.
    pub fn new(file: Arc<Gguf>, program: Program) -> Result<Self> {
        let tensor = |name: &str| {
            let found = file.tensors().iter().position(|tensor| tensor.name() == name);
            let missing = || Error::Model {
                subject: format!("tensor `{name}`"),
                found: "nothing".into(),
                expected: "the file that the program was made from".into(),
            };
            found.ok_or_else(missing)
        };
        let tensors = program.weights.iter().map(|weight| tensor(&weight.name)).collect::<Result<_>>()?;
        let mut reference = Reference { file, program, tensors, vectors: vec![], angles: vec![] };
        for (id, weight) in reference.program.weights.iter().enumerate() {
            let mut vector = vec![0.0; if weight.rows == 1 { weight.columns } else { 0 }];
            if !vector.is_empty() {
                reference.decode_row(WeightId(id), 0, &mut vector)?;
            }
            reference.vectors.push(vector);
        }
        let factors = |id: WeightId| &reference.vectors[id.0][..];
        reference.angles = reference.program.ropes.iter().map(|rope| rope.angles(rope.factors.map(factors))).collect();
        Ok(reference)
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Runs a batch: the sequence grows by it. Returns the logits of the outputs, one row after the other.
    ///
    /// If this fails, the sequence is what it was before.
    pub fn run(&self, batch: Batch, sequence: &mut Sequence, memory: &mut PageMemory) -> Result<Vec<f32>> {
        self.check(batch)?;
        let before = sequence.len();
        let tokens = u32::try_from(batch.tokens.len()).unwrap_or(u32::MAX);
        for copy in sequence.reserve(tokens)? {
            memory.copy(&copy);
        }
        let logits = self.steps(batch, sequence, memory);
        match &logits {
            Ok(_) => sequence.commit(tokens)?,
            Err(_) => sequence.truncate(before)?,
        }
        logits
    }

    fn steps(&self, batch: Batch, sequence: &Sequence, memory: &mut PageMemory) -> Result<Vec<f32>> {
        let mut slots: Vec<Vec<f32>> = vec![];
        for slot in &self.program.slots {
            let rows = match slot.rows {
                Rows::Tokens => batch.tokens.len(),
                Rows::Outputs => batch.outputs.len(),
            };
            slots.push(vec![0.0; rows * slot.width]);
        }
        for step in &self.program.steps {
            self.step(&step.op, batch, &mut slots, sequence, memory)?;
        }
        Ok(self.program.output.map(|output| std::mem::take(&mut slots[output.0])).unwrap_or_default())
    }

    fn check(&self, batch: Batch) -> Result<()> {
        let model = |subject: &str, found: String, expected: String| {
            Err(Error::Model { subject: subject.into(), found, expected })
        };
        let vocabulary = self.program.vocabulary;
        if let Some(token) = batch.tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return model("token", token.to_string(), format!("an id below {vocabulary}"));
        }
        match batch.outputs.iter().find(|&&output| output >= batch.tokens.len()) {
            Some(output) => model("output", output.to_string(), format!("an index below {}", batch.tokens.len())),
            None => Ok(()),
        }
    }

    fn step(
        &self,
        op: &Op,
        batch: Batch,
        slots: &mut [Vec<f32>],
        sequence: &Sequence,
        memory: &mut PageMemory,
    ) -> Result<()> {
        let start = sequence.len() as usize;
        match op {
            Op::Embed { table, out } => {
                for (token, row) in batch.tokens.iter().zip(slots[out.0].chunks_mut(self.width(*out))) {
                    self.decode_row(*table, *token as usize, row)?;
                }
            }
            Op::Select { input, out } => {
                let (width, input) = (self.width(*input), std::mem::take(&mut slots[input.0]));
                for (&token, row) in batch.outputs.iter().zip(slots[out.0].chunks_mut(width)) {
                    row.copy_from_slice(&input[token * width..][..width]);
                }
            }
            Op::Norm { kind, input, group, epsilon, weight, bias, out } => {
                if input != out {
                    slots[out.0] = slots[input.0].clone();
                }
                let (weight, bias) = (weight.map(|id| self.vector(id)), bias.map(|id| self.vector(id)));
                for row in slots[out.0].chunks_mut(self.width(*out)) {
                    ops::norm(*kind, row, *group, *epsilon, weight, bias);
                }
            }
            Op::Linear { input, products } => {
                for product in products {
                    let mut out = std::mem::take(&mut slots[product.out.0]);
                    self.multiply(product, &slots[input.0], &mut out)?;
                    slots[product.out.0] = out;
                }
            }
            Op::Rotate { slot, head_size, rope } => {
                let (angles, rope) = (&self.angles[rope.0], &self.program.ropes[rope.0]);
                for (row, position) in slots[slot.0].chunks_mut(self.width(*slot)).zip(start..) {
                    ops::rotate(row, *head_size, rope.style, angles, rope.magnitude, position);
                }
            }
            Op::Store { keys, values, to } => {
                let rows = slots[keys.0].chunks(self.width(*keys)).zip(slots[values.0].chunks(self.width(*values)));
                let place = self.place(*to, sequence)?;
                for ((keys, values), position) in rows.zip(sequence.len()..) {
                    let slot = sequence.slot_of(place.group, position).ok_or_else(|| missing_page(position))?;
                    memory.store(place, slot, keys, values)?;
                }
            }
            Op::Attend { .. } => self.attend(op, batch, slots, sequence, memory)?,
            Op::Gate { activation, gate, up, out } => {
                let gate = slots[gate.0].clone();
                let gated = gate.iter().zip(&slots[up.0]).map(|(&gate, up)| ops::activate(*activation, gate) * up);
                slots[out.0] = gated.collect();
            }
            Op::Add { from, to } => {
                let from = slots[from.0].clone();
                slots[to.0].iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
            Op::Scale { slot, factor } => slots[slot.0].iter_mut().for_each(|x| *x *= factor),
            Op::Softcap { slot, cap } => slots[slot.0].iter_mut().for_each(|x| *x = ops::softcap(*x, *cap)),
        }
        Ok(())
    }

    fn attend(
        &self,
        op: &Op,
        batch: Batch,
        slots: &mut [Vec<f32>],
        sequence: &Sequence,
        memory: &PageMemory,
    ) -> Result<()> {
        let Op::Attend { queries, over, heads, scale, softcap, out } = op else { return Ok(()) };
        let (shape, place) = (self.program.key_values[over.0], self.place(*over, sequence)?);
        let (query_width, sum_width) = (self.width(*queries), self.width(*out));
        let start = sequence.len() as usize;
        // What the first token of the batch sees first; later ones see less far back.
        let first_seen = |position: usize| shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let from = first_seen(start);
        let mut sums = std::mem::take(&mut slots[out.0]);
        for head in 0..*heads {
            let kv_head = head / (heads / shape.heads);
            let (keys, values) = load(memory, sequence, place, kv_head, from..start + batch.tokens.len())?;
            let rows = slots[queries.0].chunks(query_width).zip(sums.chunks_mut(sum_width));
            for (position, (query, sum)) in (start..).zip(rows) {
                let first = first_seen(position);
                let (skipped, seen) = (first - from, position + 1 - first);
                ops::attend(
                    &query[head * shape.key_size..][..shape.key_size],
                    keys.chunks(shape.key_size).skip(skipped).take(seen),
                    values.chunks(shape.value_size).skip(skipped).take(seen),
                    *scale,
                    *softcap,
                    &mut sum[head * shape.value_size..][..shape.value_size],
                );
            }
        }
        slots[out.0] = sums;
        Ok(())
    }

    /// Where the books keep the keys and values of an attention.
    fn place(&self, id: KeyValuesId, sequence: &Sequence) -> Result<LayerPlace> {
        let layer = self.program.key_values[id.0].layer;
        sequence.cache().place_of(layer as u32).ok_or_else(|| Error::Model {
            subject: "sequence".into(),
            found: format!("a cache without layer {layer}"),
            expected: "a sequence of this model's cache".into(),
        })
    }

    fn multiply(&self, product: &Product, input: &[f32], out: &mut [f32]) -> Result<()> {
        let (columns, rows) = (self.program.weights[product.weight.0].columns, self.width(product.out));
        let bias = product.bias.map(|id| &self.vector(id)[product.first_row..]);
        let mut weights = vec![0.0; columns];
        for row in 0..rows {
            self.decode_row(product.weight, product.first_row + row, &mut weights)?;
            for (input, out) in input.chunks(columns).zip(out.chunks_mut(rows)) {
                out[row] = ops::dot(&weights, input) + bias.map_or(0.0, |bias| bias[row]);
            }
        }
        Ok(())
    }

    fn decode_row(&self, id: WeightId, row: usize, values: &mut [f32]) -> Result<()> {
        let tensor: &TensorInfo = &self.file.tensors()[self.tensors[id.0]];
        let format = Format::of(tensor.tensor_type())?;
        let row_bytes = format.bytes_for(values.len())?;
        let data = self.file.data(tensor)?;
        format.decode(&data[row * row_bytes..][..row_bytes], values)
    }

    fn vector(&self, id: WeightId) -> &[f32] {
        &self.vectors[id.0]
    }

    fn width(&self, slot: SlotId) -> usize {
        self.program.slots[slot.0].width
    }
}

/// One head's keys and values at some positions, page by page.
fn load(
    memory: &PageMemory,
    sequence: &Sequence,
    place: LayerPlace,
    head: usize,
    positions: Range<usize>,
) -> Result<(Vec<f32>, Vec<f32>)> {
    const PAGE: usize = PAGE_POSITIONS as usize;
    let (mut keys, mut values) = (vec![], vec![]);
    let mut position = positions.start;
    while position < positions.end {
        let end = positions.end.min((position / PAGE + 1) * PAGE);
        let page = sequence.table(place.group).get(position / PAGE).copied().flatten();
        let page = page.ok_or_else(|| missing_page(position as u32))?;
        let within = position % PAGE..position % PAGE + (end - position);
        memory.load(place, page, head, within, &mut keys, &mut values)?;
        position = end;
    }
    Ok((keys, values))
}

fn missing_page(position: u32) -> Error {
    Error::Model {
        subject: "sequence".into(),
        found: format!("no page for position {position}"),
        expected: "a page for every position that is written or seen".into(),
    }
}
