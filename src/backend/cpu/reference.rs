//! Runs a program by the book: each step with the functions of [`ops`], weights decoded row by row.
//!
//! Slow, and exact: this is what "dequantize, then multiply in f32" gives, and what faster ways are compared with.

use super::memory::{self, PageMemory, convolved_before, slots_of, store};
use super::ops::{self, Fade, Fading};
use crate::Result;
use crate::backend::batch::{Batch, Positions, missing_page, place_of};
use crate::backend::weights::{Experts, Weights};
use crate::cache::{LayerPlace, PAGE_POSITIONS, Sequence, StateSlots};
use crate::gguf::Gguf;
use crate::program::{KeyValues, Op, Product, Program, RowOf, Scan, SlotId, WeightId, slope};
use std::ops::Range;
use std::sync::Arc;

/// A program and the file with its weights.
#[derive(Debug)]
pub struct Reference {
    weights: Weights,
}

impl Reference {
    /// Gets ready to run a program on the weights of a file.
    pub fn new(file: Arc<Gguf>, program: Program) -> Result<Self> {
        Ok(Reference { weights: Weights::new(file, program, None)? })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.weights.program
    }

    /// Runs a batch: the sequence grows by it. Returns the logits of the outputs, one row after the other.
    ///
    /// If this fails, the sequence is what it was before.
    pub fn run(&self, batch: Batch, sequence: &mut Sequence, memory: &mut PageMemory) -> Result<Vec<f32>> {
        let program = self.program();
        memory::run(batch, program, sequence, memory, |sequence, memory| {
            let mut slots: Vec<Vec<f32>> = program.slots.iter().map(|slot| vec![0.0; batch.numbers(slot)]).collect();
            for step in &program.steps {
                self.step(&step.op, batch, &mut slots, sequence, memory)?;
            }
            Ok(program.output.map(|output| std::mem::take(&mut slots[output.0])).unwrap_or_default())
        })
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
                    self.weights.decode_row(*table, *token as usize, row)?;
                }
            }
            Op::AddRow { table, row, to } => {
                let mut added = vec![0.0; self.width(*to)];
                for (to, position) in slots[to.0].chunks_mut(self.width(*to)).zip(batch.positions(start)) {
                    let index = if *row == RowOf::Position { position } else { 0 };
                    self.weights.decode_row(*table, index, &mut added)?;
                    to.iter_mut().zip(&added).for_each(|(to, added)| *to += added);
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
                let (weight, bias) = (weight.map(|id| self.weights.vector(id)), bias.map(|id| self.weights.vector(id)));
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
                let (angles, rope) = (&self.weights.angles[rope.0], &self.program().ropes[rope.0]);
                for (row, position) in slots[slot.0].chunks_mut(self.width(*slot)).zip(batch.positions(start)) {
                    ops::rotate(row, *head_size, rope.style, angles, rope.magnitude, position);
                }
            }
            Op::Store { keys, values, to } => {
                let place = place_of(self.program(), *to, sequence)?;
                let values = values.map(|values| slots[values.0].chunks(self.width(values)));
                let positions = Positions::next(sequence);
                store((place, positions), memory, slots[keys.0].chunks(self.width(*keys)), values)?;
            }
            Op::Attend { .. } => self.attend(op, batch, slots, sequence, memory)?,
            Op::AttendTexts { .. } => self.attend_texts(op, batch, slots),
            Op::Gate { activation, gate, up, out } => {
                let gate = slots[gate.0].clone();
                let gated = gate.iter().zip(&slots[up.0]).map(|(&gate, &up)| ops::gate(*activation, gate, up));
                slots[out.0] = gated.collect();
            }
            Op::Route { logits, routing, out } => {
                let vectors = [routing.bias, routing.scales].map(|id| Some(self.weights.vector(id?)));
                let rows = slots[out.0].len() / self.width(*out);
                for row in 0..rows {
                    let logits = slots[logits.0][row * self.width(*logits)..][..self.width(*logits)].to_vec();
                    ops::route(
                        &logits,
                        routing,
                        vectors,
                        &mut slots[out.0][row * self.width(*out)..][..self.width(*out)],
                    );
                }
            }
            Op::Experts { input, routes, experts, products } => {
                for product in products {
                    let mut out = std::mem::take(&mut slots[product.out.0]);
                    let experts = self.weights.experts(*experts, *routes, product);
                    let chosen = experts.chosen(routes.map(|routes| &slots[routes.0][..]), out.len() / experts.rows);
                    self.multiply_experts(&experts, product, &chosen, &slots[input.0], &mut out)?;
                    slots[product.out.0] = out;
                }
            }
            Op::Mix { parts, routes, out } => {
                let (width, used) = (self.width(*out), self.width(*routes) / 2);
                let mut sums = std::mem::take(&mut slots[out.0]);
                let parts = slots[parts.0].chunks(width * used).zip(slots[routes.0].chunks(2 * used));
                for (sum, (parts, routes)) in sums.chunks_mut(width).zip(parts) {
                    ops::mix(parts, &routes[used..], sum);
                }
                slots[out.0] = sums;
            }
            Op::Convolve { input, over, weight, bias, out } => {
                let (width, state) = (self.width(*input), &self.program().states[over.0]);
                let earlier = convolved_before(state, Positions::next(sequence), &slots[input.0], memory)?;
                let rows: Vec<&[f32]> = earlier.chunks(width).chain(slots[input.0].chunks(width)).collect();
                let mut sums = vec![0.0; slots[input.0].len()];
                let first = earlier.len() / width.max(1);
                for (token, sums) in sums.chunks_mut(width).enumerate() {
                    ops::convolve(rows[..=first + token].iter().copied(), self.weights.vector(*weight), sums);
                    let bias = bias.map(|bias| self.weights.vector(bias)).unwrap_or_default();
                    sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
                }
                slots[out.0] = sums;
            }
            Op::Scan(scan) => self.scan(scan, slots, sequence, memory)?,
            Op::Copy { parts, out } => {
                let mut to = std::mem::take(&mut slots[out.0]);
                for part in parts {
                    let from = slots[part.from.0].chunks(self.width(part.from));
                    to.chunks_mut(self.width(*out)).zip(from).for_each(|(to, from)| ops::copy(part, from, to));
                }
                slots[out.0] = to;
            }
            Op::Activate { activation, slot } => {
                slots[slot.0].iter_mut().for_each(|x| *x = ops::activate(*activation, *x));
            }
            Op::Temper { slot, slope, interval, offset } => {
                for (row, position) in slots[slot.0].chunks_mut(self.width(*slot)).zip(batch.positions(start)) {
                    let factor = ops::temper(position, *slope, *interval, *offset);
                    row.iter_mut().for_each(|x| *x *= factor);
                }
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
        let Op::Attend { queries, over, heads, scale, softcap, sinks, out } = op else { return Ok(()) };
        let (shape, place) = (self.program().key_values[over.0], place_of(self.program(), *over, sequence)?);
        let (query_width, sum_width) = (self.width(*queries), self.width(*out));
        let start = sequence.len() as usize;
        // What the first token of the batch sees first; later ones see less far back.
        let from = shape.reach.first_seen(start);
        let mut sums = std::mem::take(&mut slots[out.0]);
        for head in 0..*heads {
            let kv_head = head / (heads / shape.heads);
            let (keys, values) = load(memory, sequence, place, (shape, kv_head), from..start + batch.tokens.len())?;
            let rows = slots[queries.0].chunks(query_width).zip(sums.chunks_mut(sum_width));
            for (position, (query, sum)) in (start..).zip(rows) {
                let first = shape.reach.first_seen(position);
                let (skipped, seen) = (first - from, position + 1 - first);
                ops::attend(
                    &query[head * shape.key_size..][..shape.key_size],
                    keys.chunks(shape.key_size).skip(skipped).take(seen),
                    values.chunks(shape.value_size).skip(skipped).take(seen),
                    *scale,
                    *softcap,
                    sinks.map(|sinks| self.weights.vector(sinks)[head]),
                    &mut sum[head * shape.value_size..][..shape.value_size],
                );
            }
        }
        slots[out.0] = sums;
        Ok(())
    }

    fn attend_texts(&self, op: &Op, batch: Batch, slots: &mut [Vec<f32>]) {
        let &Op::AttendTexts { queries, keys, values, heads, sees, scale, softcap, most_bias, out } = op else {
            return;
        };
        let [query_width, key_width, value_width, sum_width] = [queries, keys, values, out].map(|id| self.width(id));
        let (key_size, value_size) = (query_width / heads, sum_width / heads);
        let mut sums = std::mem::take(&mut slots[out.0]);
        for text in batch.text_ranges() {
            for (token, head) in (0..text.len()).flat_map(|token| (0..heads).map(move |head| (token, head))) {
                let seen = sees.range(token, text.len());
                let kv_head = head * key_width / query_width;
                let rows = |slot: &'_ [f32], width: usize, size: usize| -> Vec<Vec<f32>> {
                    let tokens = text.start + seen.start..text.start + seen.end;
                    tokens.map(|token| slot[token * width + kv_head * size..][..size].to_vec()).collect()
                };
                let (keys, values) =
                    (rows(&slots[keys.0], key_width, key_size), rows(&slots[values.0], value_width, value_size));
                let fading = most_bias.map(|most| Fading { slope: slope(head, heads, most), own: token - seen.start });
                ops::attend_fading(
                    &slots[queries.0][(text.start + token) * query_width + head * key_size..][..key_size],
                    keys.iter().map(|key| &key[..]),
                    values.iter().map(|value| &value[..]),
                    (scale, softcap, None),
                    fading,
                    &mut sums[(text.start + token) * sum_width + head * value_size..][..value_size],
                );
            }
        }
        slots[out.0] = sums;
    }

    fn scan(&self, scan: &Scan, slots: &mut [Vec<f32>], sequence: &Sequence, memory: &mut PageMemory) -> Result<()> {
        let state = &self.program().states[scan.over.0];
        let (layer, StateSlots { from, to }) = (state.layer as u32, slots_of(Positions::next(sequence))?);
        let vector = |id: WeightId, head: usize| self.weights.vector(id)[head];
        let mut sums = std::mem::take(&mut slots[scan.out.0]);
        let mut heads = vec![];
        for head in 0..state.heads {
            let earlier = memory.heads(layer, from).get(head).cloned();
            let mut matrix = earlier.map_or(vec![0.0; state.head_numbers()], Arc::unwrap_or_clone);
            for (token, sums) in sums.chunks_mut(self.width(scan.out)).enumerate() {
                let step = slots[scan.steps.0][token * state.heads + head] + vector(scan.step_bias, head);
                let write = scan.writes.map(|writes| slots[writes.0][token * state.heads + head]);
                let fade = Fade::new(step, vector(scan.decay, head), write, scan.skip.map(|skip| vector(skip, head)));
                let row = &slots[scan.input.0][token * self.width(scan.input)..][..self.width(scan.input)];
                let out = &mut sums[head * state.value_size..][..state.value_size];
                ops::scan(scan, state, head, row, fade, &mut matrix, out);
            }
            heads.push(Arc::new(matrix));
        }
        memory.put_heads(layer, to, heads);
        slots[scan.out.0] = sums;
        Ok(())
    }

    fn multiply(&self, product: &Product, input: &[f32], out: &mut [f32]) -> Result<()> {
        let (columns, rows) = (self.program().weights[product.weight.0].columns, self.width(product.out));
        let bias = product.bias.map(|id| &self.weights.vector(id)[product.first_row..]);
        let mut weights = vec![0.0; columns];
        for row in 0..rows {
            self.weights.decode_row(product.weight, product.first_row + row, &mut weights)?;
            for (input, out) in input.chunks(columns).zip(out.chunks_mut(rows)) {
                out[row] = ops::dot(&weights, input) + bias.map_or(0.0, |bias| bias[row]);
            }
        }
        Ok(())
    }

    /// Multiplies each input by the matrix of the expert that is chosen for it.
    fn multiply_experts(
        &self,
        experts: &Experts,
        product: &Product,
        chosen: &[Option<usize>],
        input: &[f32],
        out: &mut [f32],
    ) -> Result<()> {
        let Experts { columns, rows, .. } = *experts;
        let sharing = (chosen.len() * columns / input.len().max(1)).max(1);
        let mut weights = vec![0.0; columns];
        for expert in 0..experts.count {
            let pairs: Vec<usize> = (0..chosen.len()).filter(|&pair| chosen[pair] == Some(expert)).collect();
            for row in 0..if pairs.is_empty() { 0 } else { rows } {
                self.weights.decode_row(product.weight, experts.row(expert, row), &mut weights)?;
                let bias = product.bias.map_or(0.0, |bias| self.weights.vector(bias)[experts.row(expert, row)]);
                for pair in &pairs {
                    let input = &input[pair / sharing * columns..][..columns];
                    out[pair * rows + row] = ops::dot(&weights, input) + bias;
                }
            }
        }
        Ok(())
    }

    fn width(&self, slot: SlotId) -> usize {
        self.program().slots[slot.0].width
    }
}

/// One head's keys and values at some positions, page by page.
fn load(
    memory: &PageMemory,
    sequence: &Sequence,
    place: LayerPlace,
    (shape, head): (KeyValues, usize),
    positions: Range<usize>,
) -> Result<(Vec<f32>, Vec<f32>)> {
    const PAGE: usize = PAGE_POSITIONS as usize;
    let (mut keys, mut values) = (vec![], vec![]);
    let (mut page_keys, mut page_values) = (vec![0.0; PAGE * shape.key_size], vec![0.0; PAGE * shape.value_size]);
    let mut position = positions.start;
    while position < positions.end {
        let end = positions.end.min((position / PAGE + 1) * PAGE);
        let page = sequence.table(place.group).get(position / PAGE).copied().flatten();
        let page = page.ok_or_else(|| missing_page(position))?;
        let within = position % PAGE..position % PAGE + (end - position);
        memory.load(place, page, head, within.clone(), &mut page_keys, &mut page_values)?;
        keys.extend_from_slice(&page_keys[within.start * shape.key_size..within.end * shape.key_size]);
        let within = if shape.values_in_keys { 0..0 } else { within };
        values.extend_from_slice(&page_values[within.start * shape.value_size..within.end * shape.value_size]);
        position = end;
    }
    if shape.values_in_keys {
        values = keys.chunks(shape.key_size).flat_map(|key| &key[..shape.value_size]).copied().collect();
    }
    Ok((keys, values))
}
