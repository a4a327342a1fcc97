//! Products of experts: each token times the matrices of those that are chosen for it.
//!
//! What is computed for one token and one of its experts is a *part*; parts are counted token by token, as they lie in
//! the result. They are sorted by expert, so that an expert's weights are read once for all tokens that chose it, and
//! those of an expert that nobody chose not at all. A piece of work is some rows of one expert: it gathers the rounded
//! activations of its parts and multiplies them as any others. All pieces of a step are one job for the pool.

use super::activations::Activations;
use super::matmul::{MAX_PANELS, multiply};
use super::matrix::Matrix;
use super::pool::Pool;
use super::simd::LANES;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Pieces of work for each worker: experts have different numbers of parts, so there are more than for one matrix.
const PIECES: usize = 16;
/// What is not worth waking anybody for: bytes of weights, times parts.
const ALONE_BYTES: usize = 1 << 15;

/// Parts, sorted by expert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sorted {
    parts: Vec<usize>,
    /// Where each expert's begin in `parts`.
    starts: Vec<usize>, // [experts + 1]
}

impl Sorted {
    /// Sorts parts by the expert that is chosen for each; those without one are left out.
    pub fn new(chosen: &[Option<usize>], experts: usize) -> Self {
        let mut starts = vec![0; experts + 1];
        let expert_of = |part: usize| chosen[part].filter(|&expert| expert < experts);
        for expert in (0..chosen.len()).filter_map(expert_of) {
            starts[expert + 1] += 1;
        }
        for expert in 0..experts {
            starts[expert + 1] += starts[expert];
        }
        let (mut next, mut parts) = (starts.clone(), vec![0; starts[experts]]);
        for part in 0..chosen.len() {
            if let Some(expert) = expert_of(part) {
                parts[next[expert]] = part;
                next[expert] += 1;
            }
        }
        Sorted { parts, starts }
    }

    /// The parts of an expert, in ascending order.
    fn of(&self, expert: usize) -> &[usize] {
        match self.starts.get(expert..expert + 2) {
            Some(&[start, end]) => self.parts.get(start..end).unwrap_or_default(),
            _ => &[],
        }
    }
}

/// Some panels of an expert of one of the matrices.
struct Piece {
    matrix: usize,
    expert: usize,
    panels: Range<usize>,
}

struct Job {
    matrices: Arc<[Matrix]>,
    x: Arc<Activations>,
    sorted: Sorted,
    /// How many neighbouring parts share one row of `x`.
    sharing: usize,
    pieces: Vec<Piece>,
    outs: Vec<Mutex<Vec<f32>>>,
}

/// Multiplies parts by the matrices of their experts. `outs` are given back with the results: `outs[i]` becomes
/// `[parts, matrices[i].rows()]`. Every `sharing` parts have one row of `x` in common, which must have been taken in the
/// forms that the matrices need.
pub(super) fn multiply_experts(
    matrices: &Arc<[Matrix]>,
    (x, sharing): (&Arc<Activations>, usize),
    sorted: Sorted,
    outs: Vec<Vec<f32>>,
    pool: &Pool,
) -> Vec<Vec<f32>> {
    let pieces = pieces(matrices, &sorted, pool.threads());
    let work = |piece: &Piece| {
        let (matrix, parts) = (&matrices[piece.matrix], sorted.of(piece.expert).len());
        matrix.weight_bytes() / matrix.panels().max(1) * piece.panels.len() * parts
    };
    let is_little = pieces.iter().map(work).sum::<usize>() < ALONE_BYTES;
    let (count, outs) = (pieces.len(), outs.into_iter().map(Mutex::new).collect());
    let job = Job { matrices: matrices.clone(), x: x.clone(), sorted, sharing, pieces, outs };
    let job = pool.share(job, count, if is_little { count } else { 1 }, |job, range| {
        job.pieces[range].iter().for_each(|piece| job.piece(piece));
    });
    job.outs.into_iter().map(|out| out.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// All pieces of a job: as large as they may be, since each gathers its activations anew.
fn pieces(matrices: &[Matrix], sorted: &Sorted, threads: usize) -> Vec<Piece> {
    let used = |matrix: &Matrix| (0..matrix.members()).filter(|&expert| !sorted.of(expert).is_empty());
    let total: usize = matrices.iter().map(|matrix| used(matrix).count() * matrix.panels()).sum();
    let most = (total / (threads * PIECES)).max(1);
    let most = if most > MAX_PANELS { most.next_multiple_of(MAX_PANELS) } else { most };
    let mut pieces = vec![];
    for (index, matrix) in matrices.iter().enumerate() {
        for expert in used(matrix) {
            let starts = (0..matrix.panels()).step_by(most);
            let panels = starts.map(|start| start..matrix.panels().min(start + most));
            pieces.extend(panels.map(|panels| Piece { matrix: index, expert, panels }));
        }
    }
    pieces
}

impl Job {
    fn piece(&self, piece: &Piece) {
        let (matrix, parts) = (&self.matrices[piece.matrix], self.sorted.of(piece.expert));
        let gathered = match (parts, self.x.tokens()) {
            (&[_], 1) => None,
            _ => Some(self.x.gather(parts.iter().map(|part| part / self.sharing))),
        };
        let x = gathered.as_ref().unwrap_or(&self.x);
        for start in piece.panels.clone().step_by(MAX_PANELS) {
            let panels = start..piece.panels.end.min(start + MAX_PANELS);
            multiply(matrix, (piece.expert, panels), x, |results, rows| {
                self.store(piece.matrix, parts, start * LANES, results, rows);
            });
        }
    }

    /// Copies `results`, which are `[parts or more, rows]`, to the rows from `first_row` on of these parts.
    fn store(&self, matrix: usize, parts: &[usize], first_row: usize, results: &[f32], rows: usize) {
        let width = self.matrices[matrix].rows();
        let rows_here = rows.min(width - first_row);
        let mut out = self.outs[matrix].lock().unwrap_or_else(PoisonError::into_inner);
        for (part, results) in parts.iter().zip(results.chunks_exact(rows.max(1))) {
            let start = part * width + first_row;
            if let Some(to) = out.get_mut(start..start + rows_here) {
                to.copy_from_slice(&results[..rows_here]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_sorted_by_expert() {
        let chosen = [Some(2), Some(0), None, Some(2), Some(9), Some(0)];
        let sorted = Sorted::new(&chosen, 3);
        assert_eq!([0, 1, 2, 3].map(|expert| sorted.of(expert)), [&[1, 5][..], &[], &[0, 3], &[]]);
    }
}
