//! Runs programs fast.
//!
//! Matrices are packed when the executor is made; a linear step quantizes its input once for all of its matrices, and
//! they are multiplied as one job. Attention goes over pages. Slots keep their memory from batch to batch.

use super::activations::Activations;
use super::attention::Attention;
use super::batch::{Batch, place_of, store};
use super::matmul::{forms, matmul};
use super::matrix::{Matrix, MatrixOptions};
use super::memory::PageMemory;
use super::pool::Pool;
use super::simd::rows::{Add, Gate, Norm, Rotate, Softcap, Turn};
use super::simd::{Level, on};
use super::weights::Weights;
use crate::Result;
use crate::cache::Sequence;
use crate::error::Error;
use crate::gguf::Gguf;
use crate::program::{Op, Product, Program, SlotId};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Numbers that a worker takes at once where each is computed by itself.
const CHUNK_NUMBERS: usize = 4096;

/// How an executor computes.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ExecutorOptions {
    /// Threads, the caller's among them.
    pub threads: usize,
    /// How weights are kept and multiplied.
    pub matrices: MatrixOptions,
}

impl Default for ExecutorOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        ExecutorOptions { threads, matrices: MatrixOptions::default() }
    }
}

/// A program with its weights made ready.
#[derive(Debug)]
pub struct Executor {
    weights: Weights,
    pool: Pool,
    level: Level,
    /// The matrices of each step; none for steps that are not linear.
    matrices: Vec<Vec<Matrix>>,
    scratch: Mutex<Scratch>,
}

/// Memory that is kept from batch to batch.
#[derive(Debug, Default)]
struct Scratch {
    slots: Vec<Vec<f32>>,
    activations: Activations,
    /// One for each rope, for the positions of the batch.
    turns: Vec<Turns>,
}

/// How far a rope turns at some positions: all its layers share it.
#[derive(Debug, Default)]
struct Turns {
    pairs: usize,
    cos: Vec<f32>, // [tokens, pairs]
    sin: Vec<f32>, // [tokens, pairs]
}

impl Turns {
    fn set(&mut self, angles: &[f32], magnitude: f32, positions: Range<usize>) {
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

/// As many numbers as are whole rows, and enough for a worker at once.
fn rows_of(width: usize) -> usize {
    width * (CHUNK_NUMBERS / width.max(1)).max(1)
}

/// What a step works on.
struct Run<'a, 'm> {
    batch: Batch<'a>,
    sequence: &'a Sequence,
    memory: &'m mut PageMemory,
}

impl Executor {
    /// Packs the weights of a program.
    pub fn new(file: Arc<Gguf>, program: Program, options: ExecutorOptions) -> Result<Self> {
        let weights = Weights::new(file, program)?;
        let pool = Pool::new(options.threads);
        let matrix = |product: &Product| {
            let weight = &weights.program.weights[product.weight.0];
            let rows = product.first_row..product.first_row + weights.program.slots[product.out.0].width;
            let bytes = weights.rows(product.weight, rows.clone())?;
            Matrix::new(weight.tensor_type, rows.len(), weight.columns, bytes, options.matrices, &pool)
        };
        let matrices = weights.program.steps.iter().map(|step| match &step.op {
            Op::Linear { products, .. } => products.iter().map(matrix).collect(),
            _ => Ok(vec![]),
        });
        let matrices = matrices.collect::<Result<_>>()?;
        Ok(Executor { weights, pool, level: options.matrices.level, matrices, scratch: Mutex::default() })
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
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        scratch.slots.resize_with(program.slots.len(), Vec::new);
        for (numbers, slot) in scratch.slots.iter_mut().zip(&program.slots) {
            numbers.resize(batch.numbers(slot), 0.0);
        }
        batch.run(program, sequence, memory, |sequence, memory| {
            let start = sequence.len() as usize;
            scratch.turns.resize_with(program.ropes.len(), Turns::default);
            for ((turns, rope), angles) in scratch.turns.iter_mut().zip(&program.ropes).zip(&self.weights.angles) {
                turns.set(angles, rope.magnitude, start..start + batch.tokens.len());
            }
            let mut run = Run { batch, sequence, memory };
            for (step, matrices) in program.steps.iter().zip(&self.matrices) {
                self.step(&step.op, matrices, &mut run, &mut scratch)?;
            }
            Ok(program.output.map(|output| scratch.slots[output.0].clone()).unwrap_or_default())
        })
    }

    fn step(&self, op: &Op, matrices: &[Matrix], run: &mut Run, scratch: &mut Scratch) -> Result<()> {
        let Scratch { slots, turns, .. } = scratch;
        match op {
            Op::Embed { table, out } => {
                for (token, row) in run.batch.tokens.iter().zip(slots[out.0].chunks_mut(self.width(*out))) {
                    self.weights.decode_row(*table, *token as usize, row)?;
                }
            }
            Op::Select { input, out } => {
                let (width, [input, out]) = (self.width(*input), two(slots, *input, *out)?);
                for (&token, row) in run.batch.outputs.iter().zip(out.chunks_mut(width)) {
                    row.copy_from_slice(&input[token * width..][..width]);
                }
            }
            Op::Norm { kind, input, group, epsilon, weight, bias, out } => {
                if input != out {
                    let [input, out] = two(slots, *input, *out)?;
                    out.copy_from_slice(input);
                }
                let (weight, bias) = (weight.map(|id| self.weights.vector(id)), bias.map(|id| self.weights.vector(id)));
                let width = self.width(*out);
                self.pool.for_each_chunk_mut(&mut slots[out.0], rows_of(width), |_, rows| {
                    let (kind, group, epsilon) = (*kind, *group, *epsilon);
                    on(self.level, Norm { kind, rows, width, group, epsilon, weight, bias });
                });
            }
            Op::Linear { input, products } => self.multiply(*input, products, matrices, scratch)?,
            Op::Rotate { slot, head_size, rope } => {
                let (turns, style, width) = (&turns[rope.0], self.program().ropes[rope.0].style, self.width(*slot));
                self.pool.for_each_chunk_mut(&mut slots[slot.0], rows_of(width), |index, rows| {
                    let first = index * rows_of(width) / width;
                    for (token, row) in (first..).zip(rows.chunks_mut(width)) {
                        on(self.level, Rotate { row, head_size: *head_size, style, turn: turns.of(token) });
                    }
                });
            }
            Op::Store { keys, values, to } => {
                let place = place_of(self.program(), *to, run.sequence)?;
                let (keys, values) =
                    (slots[keys.0].chunks(self.width(*keys)), slots[values.0].chunks(self.width(*values)));
                store((place, run.sequence), run.memory, keys, values)?;
            }
            Op::Attend { queries, over, heads, scale, softcap, out } => {
                let attention = Attention {
                    level: self.level,
                    shape: self.program().key_values[over.0],
                    heads: *heads,
                    scale: *scale,
                    softcap: *softcap,
                    place: place_of(self.program(), *over, run.sequence)?,
                    sequence: run.sequence,
                    memory: run.memory,
                };
                let [queries, sums] = two(slots, *queries, *out)?;
                attention.run(queries, sums, &self.pool)?;
            }
            Op::Gate { activation, gate, up, out } => {
                if gate != out {
                    let [gate, out] = two(slots, *gate, *out)?;
                    out.copy_from_slice(gate);
                }
                let [up, out] = two(slots, *up, *out)?;
                self.combine(out, up, |gate, up| on(self.level, Gate { activation: *activation, gate, up }));
            }
            Op::Add { from, to } => {
                let [from, to] = two(slots, *from, *to)?;
                self.combine(to, from, |to, from| on(self.level, Add { to, from }));
            }
            Op::Scale { slot, factor } => slots[slot.0].iter_mut().for_each(|x| *x *= factor),
            Op::Softcap { slot, cap } => {
                self.pool.for_each_chunk_mut(&mut slots[slot.0], CHUNK_NUMBERS, |_, values| {
                    on(self.level, Softcap { values, cap: *cap });
                })
            }
        }
        Ok(())
    }

    fn multiply(&self, input: SlotId, products: &[Product], matrices: &[Matrix], scratch: &mut Scratch) -> Result<()> {
        let Scratch { slots, activations, .. } = scratch;
        let width = self.width(input);
        let tokens = slots[input.0].len() / width;
        let matrices: Vec<&Matrix> = matrices.iter().collect();
        activations.quantize(&slots[input.0], tokens, width, forms(&matrices), &self.pool);
        let mut outs: Vec<Vec<f32>> =
            products.iter().map(|product| std::mem::take(&mut slots[product.out.0])).collect();
        let mut slices: Vec<&mut [f32]> = outs.iter_mut().map(|out| &mut out[..]).collect();
        let done = matmul(&matrices, activations, &mut slices, &self.pool);
        for (product, mut out) in products.iter().zip(outs) {
            let width = self.width(product.out);
            if let Some(bias) = product.bias {
                let bias = &self.weights.vector(bias)[product.first_row..][..width];
                out.chunks_mut(width).for_each(|to| on(self.level, Add { to, from: bias }));
            }
            slots[product.out.0] = out;
        }
        done
    }

    /// Changes numbers of `to` by their partners in `from`, some at a time.
    fn combine(&self, to: &mut [f32], from: &[f32], change: impl Fn(&mut [f32], &[f32]) + Sync) {
        self.pool.for_each_chunk_mut(to, CHUNK_NUMBERS, |index, to| {
            let from = from.get(index * CHUNK_NUMBERS..).unwrap_or_default();
            change(to, from);
        });
    }

    fn width(&self, slot: SlotId) -> usize {
        self.program().slots[slot.0].width
    }
}

/// Two slots, the second to be written.
fn two(slots: &mut [Vec<f32>], read: SlotId, write: SlotId) -> Result<[&mut Vec<f32>; 2]> {
    slots.get_disjoint_mut([read.0, write.0]).map_err(|error| Error::Model {
        subject: format!("a step from slot {} to slot {}", read.0, write.0),
        found: error.to_string(),
        expected: "two slots of the program".into(),
    })
}
