//! Linear recurrences: heads side by side, tokens one after the other.
//!
//! A head's matrix stays near while all tokens of a batch go over it: it is read from memory, and written there, once a
//! batch and not once a token.

use super::ops::{Fade, scanned};
use super::pool::Pool;
use super::simd::{Isa, LANES, Level, Task, on};
use crate::backend::weights::Weights;
use crate::program::{Scan, State};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A recurrence over a batch.
pub(super) struct Recurrence {
    pub level: Level,
    pub scan: Scan,
    pub state: State,
    pub weights: Arc<Weights>,
    /// The matrices before the batch; none if there is nothing before it.
    pub earlier: Vec<Arc<Vec<f32>>>,
    pub input: Arc<Vec<f32>>,          // [tokens, width]
    pub steps: Arc<Vec<f32>>,          // [tokens, heads]
    pub writes: Option<Arc<Vec<f32>>>, // [tokens, heads]
}

/// A head at work: its matrix, and what it read.
#[derive(Default)]
struct Head {
    matrix: Arc<Vec<f32>>, // [value_size, key_size]
    sums: Vec<f32>,        // [tokens, value_size]
}

impl Recurrence {
    /// Writes what each token reads. Takes matrices to write to, as far as there are any, and returns those behind the
    /// batch.
    pub fn run(self, spare: Vec<Arc<Vec<f32>>>, out: &mut [f32], pool: &Pool) -> Vec<Arc<Vec<f32>>> {
        let State { heads, value_size, .. } = self.state;
        let spare = spare.into_iter().chain(std::iter::repeat_with(Arc::default));
        let work: Vec<Mutex<Head>> =
            spare.take(heads).map(|matrix| Mutex::new(Head { matrix, sums: vec![] })).collect();
        let (_, work) = pool.share((self, work), heads, 1, |(recurrence, work), range| {
            for head in range {
                recurrence.head(head, &mut lock(&work[head]));
            }
        });
        let work = work.into_iter().map(|head| head.into_inner().unwrap_or_else(PoisonError::into_inner));
        let finished = work.enumerate().map(|(head, Head { matrix, sums })| {
            for (token, sums) in sums.chunks(value_size.max(1)).enumerate() {
                out[(token * heads + head) * value_size..][..value_size].copy_from_slice(sums);
            }
            matrix
        });
        finished.collect()
    }

    fn head(&self, head: usize, work: &mut Head) {
        let (scan, state) = (&self.scan, &self.state);
        let (heads, tokens) = (state.heads, self.steps.len() / state.heads.max(1));
        let matrix = Arc::make_mut(&mut work.matrix);
        matrix.resize(state.head_numbers(), 0.0);
        match self.earlier.get(head) {
            Some(earlier) => matrix.copy_from_slice(earlier),
            None => matrix.fill(0.0),
        }
        work.sums.resize(tokens * state.value_size, 0.0);
        let number = |id| self.weights.vector(id).get(head).copied().unwrap_or_default();
        let (bias, decay, skip) = (number(scan.step_bias), number(scan.decay), scan.skip.map(number));
        let width = self.input.len() / tokens.max(1);
        let (mut query, mut key) = (vec![], vec![]);
        let rows = self.input.chunks(width.max(1)).zip(work.sums.chunks_mut(state.value_size.max(1)));
        for (token, (row, sums)) in rows.enumerate() {
            let write = self.writes.as_ref().map(|writes| writes[token * heads + head]);
            let fade = Fade::new(self.steps[token * heads + head] + bias, decay, write, skip);
            let value = scanned(scan, state, head, row, [&mut query, &mut key]);
            let corrects = scan.writes.is_some();
            on(self.level, Step { matrix, query: &query, key: &key, value, fade, corrects, sums });
        }
    }
}

/// One token of one head.
struct Step<'a> {
    matrix: &'a mut [f32], // [value_size, key_size]
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
    fade: Fade,
    corrects: bool,
    sums: &'a mut [f32],
}

impl Task for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        let Step { matrix, query, key, value, fade, corrects, sums } = self;
        for ((cells, value), sum) in matrix.chunks_exact_mut(key.len().max(1)).zip(value).zip(sums) {
            let known = if corrects { fade.keep * dot(cells, key) } else { 0.0 };
            let write = fade.write * (value - known);
            for (cell, key) in cells.iter_mut().zip(key) {
                *cell = *cell * fade.keep + write * key;
            }
            *sum = dot(cells, query) + fade.skip * value;
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<{ 4 * LANES }>(), b.as_chunks::<{ 4 * LANES }>());
    let mut sums = [0.0f32; 4 * LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..4 * LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
