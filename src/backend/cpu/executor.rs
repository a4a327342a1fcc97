//! Runs programs fast.
//!
//! Matrices are packed when the executor is made; a linear step quantizes its input once for all of its matrices, and
//! they are multiplied as one job. Attention goes over pages. Slots keep their memory from batch to batch; a step's job
//! holds on to those that it reads, and owns, while it lasts, those that it writes.

mod profile;

use super::activations::Activations;
use super::attention::Attention;
use super::experts::{Sorted, multiply_experts};
use super::matmul::{Finish, forms, matmul_then};
use super::matrix::{Matrix, MatrixOptions, Stack};
use super::memory::{self, PageMemory, convolved_before, slots_of, store};
use super::ops;
use super::pool::Pool;
use super::scan::Recurrence;
use super::simd::rows::{Activate, Add, Gate, Norm, Rotate, Softcap, Turn};
use super::simd::{Level, on};
use super::texts::TextAttention;
use crate::Result;
use crate::backend::batch::{Batch, Positions, place_of};
use crate::backend::profile::Profile;
use crate::backend::weights::{Loading, Weights};
use crate::cache::{Sequence, StateSlots};
use crate::error::Error;
use crate::gguf::Gguf;
use crate::program::{Activation, Op, Product, Program, Routing, RowOf, Segment, SlotId, WeightId};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Numbers that a worker takes at once where each is computed by itself.
const CHUNK_NUMBERS: usize = 4096;

/// How an executor computes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExecutorOptions {
    /// Threads, the caller's among them.
    pub threads: usize,
    /// How weights are kept and multiplied.
    pub matrices: MatrixOptions,
    /// Counts the weights that are ready.
    pub loading: Option<Arc<Loading>>,
}

impl Default for ExecutorOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        ExecutorOptions { threads, matrices: MatrixOptions::default(), loading: None }
    }
}

/// A program with its weights made ready.
#[derive(Debug)]
pub struct Executor {
    weights: Arc<Weights>,
    pool: Pool,
    level: Level,
    segments: Vec<Segment>,
    /// The matrices of each step; none for steps that have none, or are not in the segments.
    matrices: Vec<Arc<[Matrix]>>,
    scratch: Mutex<Scratch>,
}

/// Memory that is kept from batch to batch.
#[derive(Debug, Default)]
struct Scratch {
    slots: Vec<Arc<Vec<f32>>>,
    activations: Arc<Activations>,
    /// One for each rope, for the positions of the batch.
    turns: Vec<Arc<Turns>>,
}

/// How far a rope turns at some positions: all its layers share it.
#[derive(Debug, Clone, Default)]
struct Turns {
    pairs: usize,
    cos: Vec<f32>, // [tokens, pairs]
    sin: Vec<f32>, // [tokens, pairs]
}

impl Turns {
    fn set(&mut self, angles: &[f32], magnitude: f32, positions: impl Iterator<Item = usize>) {
        self.pairs = angles.len();
        self.cos.clear();
        self.sin.clear();
        for position in positions {
            for angle in angles {
                let (sin, cos) = (position as f32 * angle).sin_cos();
                self.cos.push(cos * magnitude);
                self.sin.push(sin * magnitude);
            }
        }
    }

    fn of(&self, token: usize) -> Turn<'_> {
        let pairs = token * self.pairs..(token + 1) * self.pairs;
        Turn { cos: &self.cos[pairs.clone()], sin: &self.sin[pairs] }
    }
}

impl Scratch {
    /// Makes room for a batch, and finds out how far its positions turn.
    fn begin(&mut self, weights: &Weights, batch: Batch, start: usize) {
        let program = &weights.program;
        self.slots.resize_with(program.slots.len(), Arc::default);
        for (numbers, slot) in self.slots.iter_mut().zip(&program.slots) {
            Arc::make_mut(numbers).resize(batch.numbers(slot), 0.0);
        }
        self.turns.resize_with(program.ropes.len(), Arc::default);
        for ((turns, rope), angles) in self.turns.iter_mut().zip(&program.ropes).zip(&weights.angles) {
            Arc::make_mut(turns).set(angles, rope.magnitude, batch.positions(start));
        }
    }
}

/// As many numbers as are whole rows, and enough for a worker at once.
fn rows_of(width: usize) -> usize {
    width * (CHUNK_NUMBERS / width.max(1)).max(1)
}

/// What a step works on.
struct Run<'a, 'm> {
    batch: Batch<'a>,
    positions: Positions<'a>,
    memory: &'m mut PageMemory,
}

impl Executor {
    /// Packs the weights of a program.
    pub fn new(file: Arc<Gguf>, program: Program, options: ExecutorOptions) -> Result<Self> {
        let segments = program.whole();
        Self::of_segments(file, program, segments, options)
    }

    /// Packs the weights of some segments of a program.
    pub fn of_segments(
        file: Arc<Gguf>,
        program: Program,
        segments: Vec<Segment>,
        options: ExecutorOptions,
    ) -> Result<Self> {
        let weights = Arc::new(Weights::new(file, program, options.loading)?);
        let pool = Pool::new(options.threads);
        let matrix = |product: &Product| {
            let weight = &weights.program.weights[product.weight.0];
            let rows = product.first_row..product.first_row + weights.program.slots[product.out.0].width;
            let bytes = weights.rows(product.weight, rows.clone())?;
            Matrix::new(weight.tensor_type, rows.len(), weight.columns, bytes, options.matrices, &pool)
        };
        let stack = |count: usize, routes: Option<SlotId>, product: &Product| {
            let weight = &weights.program.weights[product.weight.0];
            let experts = weights.experts(count, routes, product);
            let stack = Stack { members: count, stride_rows: experts.stride, first_row: experts.first_row };
            let bytes = weights.rows(product.weight, 0..weight.rows)?;
            let (kind, columns) = (weight.tensor_type, weight.columns);
            Matrix::stacked(kind, stack, experts.rows, columns, bytes, options.matrices, &pool)
        };
        let is_here = |at| segments.iter().any(|segment| segment.steps.contains(&at));
        let matrices = weights.program.steps.iter().enumerate().map(|(at, step)| match &step.op {
            Op::Linear { products, .. } if is_here(at) => products.iter().map(matrix).collect(),
            Op::Experts { routes, experts, products, .. } if is_here(at) => {
                products.iter().map(|product| stack(*experts, *routes, product)).collect()
            }
            _ => Ok(Arc::default()),
        });
        let matrices = matrices.collect::<Result<_>>()?;
        Ok(Executor { weights, pool, level: options.matrices.level, segments, matrices, scratch: Mutex::default() })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.weights.program
    }

    /// Threads that work, the caller among them.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Bytes of packed weights: memory beyond the file's.
    pub fn packed_bytes(&self) -> u64 {
        self.matrices.iter().flat_map(|matrices| matrices.iter()).map(|matrix| matrix.packed_bytes() as u64).sum()
    }

    /// Runs a batch: the sequence grows by it. Returns the logits of the outputs, one row after the other. Only if all of
    /// the program is here.
    ///
    /// If this fails, the sequence is what it was before.
    pub fn run(&self, batch: Batch, sequence: &mut Sequence, memory: &mut PageMemory) -> Result<Vec<f32>> {
        memory::run(batch, self.program(), sequence, memory, |sequence, memory| {
            let wanted = self.run_segment(0, batch, Positions::next(sequence), memory, (true, &[]))?;
            Ok(wanted.into_iter().next().map_or(vec![], |logits| logits.to_vec()))
        })
    }

    /// Runs one of the segments, for a batch that the sequence has pages for. `given` is whether the batch, or its
    /// positions, are not those of the segment that ran before, and rows of the slots that are given to the segment; the
    /// result are rows of those that are wanted.
    pub fn run_segment(
        &self,
        index: usize,
        batch: Batch,
        positions: Positions,
        memory: &mut PageMemory,
        given: (bool, &[Arc<Vec<f32>>]),
    ) -> Result<Vec<Arc<Vec<f32>>>> {
        self.run_steps(index, batch, positions, memory, given, None)
    }

    /// The same, and adds what each step was and took to a profile, if there is one.
    fn run_steps(
        &self,
        index: usize,
        batch: Batch,
        positions: Positions,
        memory: &mut PageMemory,
        (begins, given): (bool, &[Arc<Vec<f32>>]),
        mut profile: Option<&mut Profile>,
    ) -> Result<Vec<Arc<Vec<f32>>>> {
        let (program, segment) = (self.program(), &self.segments[index]);
        let scratch = &mut *self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if begins {
            scratch.begin(&self.weights, batch, positions.start as usize);
        }
        for (slot, values) in segment.given.iter().zip(given) {
            scratch.slots[slot.0] = values.clone();
        }
        let mut run = Run { batch, positions, memory };
        let steps = program.steps.get(segment.steps.clone()).unwrap_or_default();
        let mut steps =
            steps.iter().map(|step| &step.op).zip(self.matrices.iter().skip(segment.steps.start)).peekable();
        while let Some((op, matrices)) = steps.next() {
            // A curve behind a product is taken along while the results are near.
            let activation = steps.peek().and_then(|(next, _)| curve_of(op, next));
            if activation.is_some() {
                steps.next();
            }
            let start = profile.is_some().then(Instant::now);
            self.step((op, activation), matrices, &mut run, scratch)?;
            if let (Some(profile), Some(start)) = (&mut profile, start) {
                profile.add(self.timing((op, matrices), batch, scratch, start.elapsed())?);
            }
        }
        Ok(segment.wanted.iter().map(|slot| scratch.slots[slot.0].clone()).collect())
    }

    fn step(
        &self,
        (op, activation): (&Op, Option<Activation>),
        matrices: &Arc<[Matrix]>,
        run: &mut Run,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Scratch { slots, turns, .. } = scratch;
        match op {
            Op::Embed { table, out } => {
                for (token, row) in run.batch.tokens.iter().zip(to_write(slots, *out).chunks_mut(self.width(*out))) {
                    self.weights.decode_row(*table, *token as usize, row)?;
                }
            }
            Op::AddRow { table, row, to } => self.add_rows((*table, *row), *to, run, slots)?,
            Op::Select { input, out } => {
                let (width, [input, out]) = (self.width(*input), two(slots, *input, *out)?);
                for (&token, row) in run.batch.outputs.iter().zip(out.chunks_mut(width)) {
                    row.copy_from_slice(&input[token * width..][..width]);
                }
            }
            Op::Norm { kind, input, group, epsilon, weight, bias, out } => {
                let from = (input != out).then(|| slots[input.0].clone());
                let (level, weights, width) = (self.level, self.weights.clone(), self.width(*out));
                let (kind, group, epsilon, weight, bias) = (*kind, *group, *epsilon, *weight, *bias);
                self.pool.change(to_write(slots, *out), rows_of(width), move |index, rows| {
                    if let Some(from) = from.as_ref().and_then(|from| from.get(index * rows_of(width)..)) {
                        rows.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                    }
                    let (weight, bias) = (weight.map(|id| weights.vector(id)), bias.map(|id| weights.vector(id)));
                    on(level, Norm { kind, rows, width, group, epsilon, weight, bias });
                });
            }
            Op::Linear { input, products } => {
                self.multiply(*input, products, (matrices, activation), scratch)?;
            }
            Op::Rotate { slot, head_size, rope } => {
                let (turns, style) = (turns[rope.0].clone(), self.program().ropes[rope.0].style);
                let (level, head_size, width) = (self.level, *head_size, self.width(*slot));
                self.pool.change(to_write(slots, *slot), rows_of(width), move |index, rows| {
                    let first = index * rows_of(width) / width;
                    for (token, row) in (first..).zip(rows.chunks_mut(width)) {
                        on(level, Rotate { row, head_size, style, turn: turns.of(token) });
                    }
                });
            }
            Op::Store { keys, values, to } => {
                let place = place_of(self.program(), *to, run.positions.sequence)?;
                let values = values.map(|values| slots[values.0].chunks(self.width(values)));
                store((place, run.positions), run.memory, slots[keys.0].chunks(self.width(*keys)), values)?;
            }
            Op::Attend { queries, over, heads, scale, softcap, sinks, out } => {
                let place = place_of(self.program(), *over, run.positions.sequence)?;
                let attention = Attention {
                    level: self.level,
                    shape: self.program().key_values[over.0],
                    heads: *heads,
                    scale: *scale,
                    softcap: *softcap,
                    sinks: sinks.map_or(vec![], |sinks| self.weights.vector(sinks).to_vec()),
                    place,
                    start: run.positions.start as usize,
                    pages: run.positions.sequence.table(place.group).to_vec(),
                    memory: run.memory.clone(),
                    queries: slots[queries.0].clone(),
                };
                attention.run(to_write(slots, *out), &self.pool)?;
            }
            &Op::AttendTexts { queries, keys, values, heads, sees, scale, softcap, most_bias, out } => {
                let (key_size, value_size) = (self.width(queries) / heads, self.width(out) / heads);
                let attention = TextAttention {
                    level: self.level,
                    heads,
                    kv_heads: self.width(keys) / key_size,
                    key_size,
                    value_size,
                    sees,
                    scale,
                    softcap,
                    most_bias,
                    texts: run.batch.text_ranges().collect(),
                    queries: slots[queries.0].clone(),
                    keys: slots[keys.0].clone(),
                    values: slots[values.0].clone(),
                };
                attention.run(to_write(slots, out), &self.pool);
            }
            Op::Gate { activation, gate, up, out } => {
                if gate != out {
                    let [gate, out] = two(slots, *gate, *out)?;
                    out.copy_from_slice(gate);
                }
                let (level, activation) = (self.level, *activation);
                self.combine(slots, *up, *out, move |gate, up| on(level, Gate { activation, gate, up }));
            }
            Op::Route { logits, routing, out } => self.route(*logits, *routing, *out, slots),
            Op::Experts { input, routes, experts, products } => {
                self.experts(*input, (*routes, *experts), products, matrices, scratch)?;
            }
            Op::Mix { parts, routes, out } => {
                let (width, used) = (self.width(*out), self.width(*routes) / 2);
                let (parts, routes) = (slots[parts.0].clone(), slots[routes.0].clone());
                self.pool.change(to_write(slots, *out), rows_of(width), move |index, sums| {
                    let first = index * rows_of(width) / width;
                    let rows = parts.chunks(width * used).zip(routes.chunks(2 * used)).skip(first);
                    for (sum, (parts, routes)) in sums.chunks_mut(width).zip(rows) {
                        ops::mix(parts, &routes[used..], sum);
                    }
                });
            }
            Op::Convolve { input, over, weight, bias, out } => {
                let (width, weights, weight, bias) = (self.width(*input), self.weights.clone(), *weight, *bias);
                let state = &self.program().states[over.0];
                let earlier = convolved_before(state, run.positions, &slots[input.0], run.memory)?;
                let (level, input, first) = (self.level, slots[input.0].clone(), earlier.len() / width.max(1));
                self.pool.change(to_write(slots, *out), rows_of(width), move |index, sums| {
                    for (token, sums) in (index * rows_of(width) / width..).zip(sums.chunks_mut(width)) {
                        let weight = weights.vector(weight);
                        let (end, kernel) = (first + token + 1, weight.len() / width);
                        let start = end.saturating_sub(kernel);
                        let rows = (start..end).map(|row| match row.checked_sub(first) {
                            None => &earlier[row * width..][..width],
                            Some(row) => &input[row * width..][..width],
                        });
                        ops::convolve(rows, weight, sums);
                        on(level, Add { to: sums, from: bias.map(|bias| weights.vector(bias)).unwrap_or_default() });
                    }
                });
            }
            Op::Scan(scan) => {
                let state = self.program().states[scan.over.0];
                let (layer, StateSlots { from, to }) = (state.layer as u32, slots_of(run.positions)?);
                let job = Recurrence {
                    level: self.level,
                    scan: *scan,
                    state,
                    weights: self.weights.clone(),
                    earlier: run.memory.heads(layer, from).to_vec(),
                    input: slots[scan.input.0].clone(),
                    steps: slots[scan.steps.0].clone(),
                    writes: scan.writes.map(|writes| slots[writes.0].clone()),
                };
                let spare = run.memory.take_heads(layer, to);
                let heads = job.run(spare, to_write(slots, scan.out), &self.pool);
                run.memory.put_heads(layer, to, heads);
            }
            Op::Copy { parts, out } => {
                for part in parts {
                    let (from_width, to_width) = (self.width(part.from), self.width(*out));
                    let [from, to] = two(slots, part.from, *out)?;
                    let rows = from.chunks(from_width).zip(to.chunks_mut(to_width));
                    rows.for_each(|(from, to)| ops::copy(part, from, to));
                }
            }
            Op::Activate { activation, slot } => {
                let (level, activation) = (self.level, *activation);
                self.pool.change(to_write(slots, *slot), CHUNK_NUMBERS, move |_, values| {
                    on(level, Activate { activation, values });
                });
            }
            Op::Temper { slot, slope, interval, offset } => {
                let (width, start) = (self.width(*slot), run.positions.start as usize);
                for (row, position) in to_write(slots, *slot).chunks_mut(width).zip(run.batch.positions(start)) {
                    let factor = ops::temper(position, *slope, *interval, *offset);
                    row.iter_mut().for_each(|x| *x *= factor);
                }
            }
            Op::Add { from, to } => {
                let level = self.level;
                self.combine(slots, *from, *to, move |to, from| on(level, Add { to, from }));
            }
            Op::Scale { slot, factor } => to_write(slots, *slot).iter_mut().for_each(|x| *x *= factor),
            Op::Softcap { slot, cap } => {
                let (level, cap) = (self.level, *cap);
                self.pool.change(to_write(slots, *slot), CHUNK_NUMBERS, move |_, values| {
                    on(level, Softcap { values, cap });
                })
            }
        }
        Ok(())
    }

    fn multiply(
        &self,
        input: SlotId,
        products: &[Product],
        (matrices, activation): (&Arc<[Matrix]>, Option<Activation>),
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Scratch { slots, activations, .. } = scratch;
        let width = self.width(input);
        let tokens = slots[input.0].len() / width;
        Arc::make_mut(activations).quantize(&slots[input.0], tokens, width, forms(matrices), &self.pool);
        let outs = products.iter().map(|product| std::mem::take(to_write(slots, product.out))).collect();
        let finish = products.iter().map(|product| {
            let rows = product.first_row..product.first_row + self.width(product.out);
            let bias = product.bias.and_then(|bias| self.weights.vector(bias).get(rows));
            Finish { bias: bias.unwrap_or_default().to_vec(), activation }
        });
        let outs = matmul_then(matrices, activations, outs, finish.collect(), &self.pool);
        Arc::make_mut(activations).release();
        for (product, out) in products.iter().zip(outs?) {
            *to_write(slots, product.out) = out;
        }
        Ok(())
    }

    fn route(&self, logits: SlotId, routing: Routing, out: SlotId, slots: &mut [Arc<Vec<f32>>]) {
        let (width, out_width, weights) = (self.width(logits), self.width(out), self.weights.clone());
        let (logits, chunk) = (slots[logits.0].clone(), rows_of(width) / width);
        self.pool.change(to_write(slots, out), chunk * out_width, move |index, routes| {
            let vectors = [routing.bias, routing.scales].map(|id| Some(weights.vector(id?)));
            for (logits, routes) in logits.chunks(width).skip(index * chunk).zip(routes.chunks_mut(out_width)) {
                ops::route(logits, &routing, vectors, routes);
            }
        });
    }

    fn experts(
        &self,
        input: SlotId,
        (routes, count): (Option<SlotId>, usize),
        products: &[Product],
        matrices: &Arc<[Matrix]>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Scratch { slots, activations, .. } = scratch;
        let Some(first) = products.first() else { return Ok(()) };
        let experts = self.weights.experts(count, routes, first);
        let chosen = experts.chosen(routes.map(|slot| &slots[slot.0][..]), slots[first.out.0].len() / experts.rows);
        let inputs = slots[input.0].len() / experts.columns;
        Arc::make_mut(activations).quantize(&slots[input.0], inputs, experts.columns, forms(matrices), &self.pool);
        let outs = products.iter().map(|product| std::mem::take(to_write(slots, product.out))).collect();
        let sorted = Sorted::new(&chosen, count);
        let sharing = chosen.len() / inputs.max(1);
        let outs = multiply_experts(matrices, (activations, sharing), sorted, outs, &self.pool);
        Arc::make_mut(activations).release();
        for (product, mut out) in products.iter().zip(outs) {
            if let Some(bias) = product.bias {
                let experts = self.weights.experts(count, routes, product);
                for (to, chosen) in out.chunks_mut(experts.rows).zip(&chosen) {
                    let from = chosen.and_then(|expert| self.weights.vector(bias).get(experts.row(expert, 0)..));
                    on(self.level, Add { to, from: from.unwrap_or_default() });
                }
            }
            *to_write(slots, product.out) = out;
        }
        Ok(())
    }

    /// Adds rows of a table to those of a slot.
    fn add_rows(
        &self,
        (table, row): (WeightId, RowOf),
        to: SlotId,
        run: &Run,
        slots: &mut [Arc<Vec<f32>>],
    ) -> Result<()> {
        let (width, start) = (self.width(to), run.positions.start as usize);
        let mut added = vec![0.0; width];
        let mut last = None;
        for (to, position) in to_write(slots, to).chunks_mut(width).zip(run.batch.positions(start)) {
            let index = if row == RowOf::Position { position } else { 0 };
            if last != Some(index) {
                self.weights.decode_row(table, index, &mut added)?;
                last = Some(index);
            }
            on(self.level, Add { to, from: &added });
        }
        Ok(())
    }

    /// Changes numbers of `to` by their partners in `from`, some at a time.
    fn combine(
        &self,
        slots: &mut [Arc<Vec<f32>>],
        from: SlotId,
        to: SlotId,
        change: impl Fn(&mut [f32], &[f32]) + Send + Sync + 'static,
    ) {
        let from = slots[from.0].clone();
        self.pool.change(to_write(slots, to), CHUNK_NUMBERS, move |index, to| {
            let from = from.get(index * CHUNK_NUMBERS..).unwrap_or_default();
            change(to, from);
        });
    }

    fn width(&self, slot: SlotId) -> usize {
        self.program().slots[slot.0].width
    }
}

/// The curve that all a step's products go through in the next.
fn curve_of(op: &Op, next: &Op) -> Option<Activation> {
    match (op, next) {
        (Op::Linear { products, .. }, Op::Activate { activation, slot }) => match &products[..] {
            [product] if product.out == *slot => Some(*activation),
            _ => None,
        },
        _ => None,
    }
}

/// A slot that no job holds on to.
fn to_write(slots: &mut [Arc<Vec<f32>>], slot: SlotId) -> &mut Vec<f32> {
    Arc::make_mut(&mut slots[slot.0])
}

/// Two slots, the second to be written.
fn two(slots: &mut [Arc<Vec<f32>>], read: SlotId, write: SlotId) -> Result<[&mut Vec<f32>; 2]> {
    let two = slots.get_disjoint_mut([read.0, write.0]).map_err(|error| Error::Model {
        subject: format!("a step from slot {} to slot {}", read.0, write.0),
        found: error.to_string(),
        expected: "two slots of the program".into(),
    });
    two.map(|slots| slots.map(Arc::make_mut))
}
