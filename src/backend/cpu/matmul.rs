//! Matrix products: several matrices times the same activations, as one job for the pool.
//!
//! Work is cut by rows. A worker multiplies some panels of rows by all tokens into memory of its own, then copies the
//! results to their places under a lock, which it holds for a thousandth of the time.

use super::activations::{Activations, Forms};
use super::matrix::Matrix;
use super::pool::Pool;
use super::simd::float::{PanelProduct, Product, Widen, dots, panels};
use super::simd::kernels::Panels;
use super::simd::rows::{Activate, Add};
use super::simd::table::Kernel;
use super::simd::{LANES, Level, on};
use crate::program::Activation;
use crate::{Error, Result, quant};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Up to so many tokens weights are multiplied as they are unpacked; beyond, they are unpacked into tiles first.
const FEW_TOKENS: usize = 4;
/// From so many tokens on it is worth putting decoded rows side by side.
const PANEL_FROM_TOKENS: usize = 16;
/// Panels that are done together at most: 64 rows.
pub(super) const MAX_PANELS: usize = 8;
/// Pieces of work for each worker, so that they end at about the same time.
const PIECES: usize = 6;
/// What is not worth waking anybody for: bytes of weights, times tokens.
const ALONE_BYTES: usize = 1 << 15;

/// The forms of activations that these matrices are multiplied by.
pub fn forms(matrices: &[Matrix]) -> Forms {
    matrices.iter().fold(Forms::default(), |forms, matrix| forms | matrix.forms())
}

/// What is done to results while they are near.
#[derive(Debug, Clone, Default)]
pub struct Finish {
    /// Added to each token's, a number for each row; empty if nothing is.
    pub bias: Vec<f32>,
    /// The curve that they then go through.
    pub activation: Option<Activation>,
}

impl Finish {
    /// Finishes `part`, which is `[tokens or more, rows]`, from `first_row` on.
    fn apply(&self, level: Level, part: &mut [f32], rows: usize, first_row: usize) {
        if let Some(bias) = self.bias.get(first_row..).filter(|bias| !bias.is_empty()) {
            for to in part.chunks_exact_mut(rows.max(1)) {
                on(level, Add { to, from: bias });
            }
        }
        if let Some(activation) = self.activation {
            on(level, Activate { activation, values: part });
        }
    }
}

/// Multiplies each matrix by the activations. `outs` are given back with the results: `outs[i]` becomes
/// `[tokens, matrices[i].rows()]`.
///
/// # Errors
/// If the activations have another number of columns than a matrix, were not taken in the form it needs, or an output
/// has not room for just the results.
pub fn matmul(
    matrices: &Arc<[Matrix]>,
    x: &Arc<Activations>,
    outs: Vec<Vec<f32>>,
    pool: &Pool,
) -> Result<Vec<Vec<f32>>> {
    matmul_then(matrices, x, outs, vec![], pool)
}

/// The same, and finishes what comes of each matrix.
///
/// # Errors
/// As [`matmul`].
pub fn matmul_then(
    matrices: &Arc<[Matrix]>,
    x: &Arc<Activations>,
    outs: Vec<Vec<f32>>,
    mut finish: Vec<Finish>,
    pool: &Pool,
) -> Result<Vec<Vec<f32>>> {
    check(matrices, x, &outs)?;
    finish.resize_with(matrices.len(), Finish::default);
    if x.tokens() == 0 {
        return Ok(outs);
    }
    let work: usize = matrices.iter().map(|matrix| matrix.weight_bytes() * x.tokens()).sum();
    let total: usize = matrices.iter().map(|matrix| matrix.panels()).sum();
    let panels = (total / (pool.threads() * PIECES)).clamp(1, MAX_PANELS);
    let pieces: usize = matrices.iter().map(|matrix| matrix.panels().div_ceil(panels)).sum();
    let outs = outs.into_iter().zip(finish).map(|(out, finish)| Out { out: Mutex::new(out), finish }).collect();
    let job = Job { matrices: matrices.clone(), x: x.clone(), outs };
    let chunk = if work < ALONE_BYTES { pieces } else { 1 };
    let job = pool.share(job, pieces, chunk, move |job, range| range.for_each(|piece| job.piece(piece, panels)));
    Ok(job.outs.into_iter().map(|out| out.out.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
}

struct Job {
    matrices: Arc<[Matrix]>,
    x: Arc<Activations>,
    outs: Vec<Out>,
}

/// Where the results of a matrix go, and what is done to them on the way.
struct Out {
    out: Mutex<Vec<f32>>,
    finish: Finish,
}

impl Job {
    /// A piece of so many panels; pieces are counted through all matrices.
    fn piece(&self, mut piece: usize, panels: usize) {
        for (matrix, out) in self.matrices.iter().zip(&self.outs) {
            let own = matrix.panels().div_ceil(panels);
            if piece < own {
                let start = piece * panels;
                let panels = start..matrix.panels().min(start + panels);
                return multiply(matrix, (0, panels), &self.x, |part, rows| {
                    store(part, rows, matrix, start * LANES, self.x.tokens(), out);
                });
            }
            piece -= own;
        }
    }
}

fn check(matrices: &[Matrix], x: &Activations, outs: &[Vec<f32>]) -> Result<()> {
    let wrong = |matrix: &Matrix, found: String, expected: String| {
        Err(Error::Quant { format: matrix.kind().name(), found, expected })
    };
    for (index, matrix) in matrices.iter().enumerate() {
        let room = outs.get(index).map_or(0, Vec::len);
        if x.columns() != matrix.columns() {
            let found = format!("{} activations", x.columns());
            return wrong(matrix, found, format!("one for each of {} columns", matrix.columns()));
        }
        if x.forms() | matrix.forms() != x.forms() {
            return wrong(matrix, format!("activations as {:?}", x.forms()), format!("{:?}", matrix.forms()));
        }
        if room != x.tokens() * matrix.rows() {
            let expected = format!("{} rows for each of {} tokens", matrix.rows(), x.tokens());
            return wrong(matrix, format!("room for {room} results"), expected);
        }
    }
    Ok(())
}

/// Some panels of a member of a matrix, for all tokens. `take` gets the results, `[tokens or more, rows]`, and how many
/// rows that are.
pub(super) fn multiply(
    matrix: &Matrix,
    (member, panels): (usize, Range<usize>),
    x: &Activations,
    take: impl FnOnce(&mut [f32], usize),
) {
    match matrix.kernel {
        Some(kernel) => {
            matrix.with_panels(kernel, (member, panels), |panels| packed(matrix, kernel, panels, x, take));
        }
        None => floats(matrix, member, panels.start * LANES..matrix.rows().min(panels.end * LANES), x, take),
    }
}

fn packed(
    matrix: &Matrix,
    kernel: &dyn Kernel,
    panels: Panels<'_>,
    x: &Activations,
    take: impl FnOnce(&mut [f32], usize),
) {
    let rows = panels.count * LANES;
    if x.tokens() <= FEW_TOKENS {
        let mut few = [0.0; FEW_TOKENS * MAX_PANELS * LANES];
        let Some(part) = few.get_mut(..x.stride() * rows) else { return };
        kernel.rows(matrix.level(), panels, x, 0, x.stride(), part);
        take(part, rows);
    } else {
        let mut part = vec![0.0; x.stride() * rows];
        kernel.tiles(matrix.level(), panels, x, &mut part);
        take(&mut part, rows);
    }
}

/// Some rows of a matrix that is not multiplied in integers.
fn floats(matrix: &Matrix, member: usize, rows: Range<usize>, x: &Activations, take: impl FnOnce(&mut [f32], usize)) {
    let (count, tokens) = (rows.len(), x.tokens());
    let bytes = matrix.row_range(member, rows.start, rows.end);
    let mut part = vec![0.0; count * tokens];
    if matrix.is_plain() && tokens <= FEW_TOKENS {
        dots(matrix.level(), matrix.kind(), bytes, matrix.row_bytes(), |t| x.exact(t), &mut part, tokens);
    } else {
        // A few rows at a time, so that what is decoded stays near.
        let columns = matrix.columns();
        let mut decoded = vec![0.0; count * columns];
        if matrix.is_plain() {
            on(matrix.level(), Widen { kind: matrix.kind(), bytes, out: &mut decoded });
        } else if let Err(error) = quant::decode(matrix.kind(), bytes, &mut decoded) {
            // `Matrix::new` has checked the type and the lengths.
            log::error!("{matrix:?}: {error}");
        }
        let x = |token| x.exact(token);
        if tokens < PANEL_FROM_TOKENS {
            on(matrix.level(), Product { rows: &decoded, columns, x, tokens, out: &mut part });
        } else {
            let panels = panels(&decoded, columns);
            on(matrix.level(), PanelProduct { panels: &panels, columns, x, tokens, rows: count, out: &mut part });
        }
    }
    take(&mut part, count);
}

/// Copies `part`, which is `[tokens or more, rows]`, to the rows from `first_row` on of all tokens.
fn store(part: &mut [f32], rows: usize, matrix: &Matrix, first_row: usize, tokens: usize, out: &Out) {
    out.finish.apply(matrix.level(), part, rows, first_row);
    let mut out = out.out.lock().unwrap_or_else(PoisonError::into_inner);
    for (part, out) in part.chunks_exact(rows.max(1)).zip(out.chunks_exact_mut(matrix.rows().max(1))).take(tokens) {
        let to = out.get_mut(first_row..).unwrap_or_default();
        to.iter_mut().zip(part).for_each(|(to, &from)| *to = from);
    }
}
