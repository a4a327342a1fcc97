//! Products of floating-point numbers: for F32, F16 and BF16 weights as they lie in the file, and for rows of any
//! format that have been decoded.

use super::{Isa, LANES, Level, Task, on};
use crate::gguf::TensorType;
use crate::quant::simple::{BF16, F16, F32};

/// Weights of a plain type, eight at a time.
trait Plain {
    const BYTES: usize;
    fn load<S: Isa>(s: S, bytes: &[u8]) -> S::F;
    fn one(bytes: &[u8]) -> f32;
}

macro_rules! plain {
    ($name:ident, $bytes:literal, |$s:ident, $b:ident| $load:expr) => {
        impl Plain for $name {
            const BYTES: usize = $bytes;

            #[inline(always)]
            fn load<S: Isa>($s: S, $b: &[u8]) -> S::F {
                $load
            }

            #[inline(always)]
            fn one(bytes: &[u8]) -> f32 {
                bytes.first_chunk().map_or(0.0, |&bytes| $name(bytes).get())
            }
        }
    };
}

plain!(F32, 4, |s, bytes| s.to_float_bits(s.load(bytes)));
plain!(F16, 2, |s, bytes| s.load_f16(bytes));
plain!(BF16, 2, |s, bytes| s.load_bf16(bytes));

/// Vectors that are added up side by side, so that additions need not wait for each other.
const SIDES: usize = 4;

/// One row times T tokens.
#[inline(always)]
fn dot<S: Isa, W: Plain, const T: usize>(s: S, row: &[u8], x: [&[f32]; T]) -> [f32; T] {
    let mut sums = [[s.splat_f32(0.0); SIDES]; T];
    let step = SIDES * LANES;
    let whole = row.len() / W::BYTES / step;
    for (index, w) in row.chunks_exact(step * W::BYTES).enumerate() {
        let x = x.map(|x| x.get(index * step..(index + 1) * step).unwrap_or(&[0.0; SIDES * LANES]));
        for side in 0..SIDES {
            let w = W::load(s, &w[side * LANES * W::BYTES..]);
            for t in 0..T {
                sums[t][side] = s.mul_add_f32(w, s.load_f32(&x[t][side * LANES..]), sums[t][side]);
            }
        }
    }
    let mut out = [0.0; T];
    for t in 0..T {
        let [a, b, c, d] = sums[t];
        out[t] = s.sum_f32(s.add_f32(s.add_f32(a, b), s.add_f32(c, d)));
    }
    let rest = row.get(whole * step * W::BYTES..).unwrap_or_default();
    for (index, w) in rest.chunks_exact(W::BYTES).enumerate() {
        for t in 0..T {
            out[t] += W::one(w) * x[t].get(whole * step + index).copied().unwrap_or(0.0);
        }
    }
    out
}

/// Rows of a plain type times one token, or a few.
struct Dots<'a, const T: usize> {
    kind: TensorType,
    rows: &'a [u8], // [rows, columns]
    row_bytes: usize,
    x: [&'a [f32]; T],
    out: &'a mut [f32], // [T, rows]
}

impl<const T: usize> Dots<'_, T> {
    #[inline(always)]
    fn each<S: Isa, W: Plain>(self, s: S) {
        let rows = self.out.len() / T;
        for (index, row) in self.rows.chunks_exact(self.row_bytes.max(1)).enumerate() {
            for (t, value) in dot::<S, W, T>(s, row, self.x).into_iter().enumerate() {
                if let Some(out) = self.out.get_mut(t * rows + index) {
                    *out = value;
                }
            }
        }
    }
}

impl<const T: usize> Task for Dots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        match self.kind {
            TensorType::F16 => self.each::<S, F16>(s),
            TensorType::BF16 => self.each::<S, BF16>(s),
            _ => self.each::<S, F32>(s),
        }
    }
}

/// Rows of F32, F16 or BF16 times some tokens, of which there should be few: `out` is `[tokens, rows]`.
pub(crate) fn dots<'a>(
    level: Level,
    kind: TensorType,
    rows: &[u8],
    row_bytes: usize,
    x: impl Fn(usize) -> &'a [f32],
    out: &mut [f32],
    tokens: usize,
) {
    let count = out.len() / tokens.max(1);
    for (index, out) in out.chunks_mut(4 * count.max(1)).enumerate() {
        let first = 4 * index;
        match out.len() / count.max(1) {
            1 => on(level, Dots { kind, rows, row_bytes, x: [x(first)], out }),
            2 => on(level, Dots { kind, rows, row_bytes, x: [x(first), x(first + 1)], out }),
            3 => on(level, Dots { kind, rows, row_bytes, x: [x(first), x(first + 1), x(first + 2)], out }),
            _ => {
                let x = [x(first), x(first + 1), x(first + 2), x(first + 3)];
                on(level, Dots { kind, rows, row_bytes, x, out });
            }
        }
    }
}

/// Widens F16 or BF16 to F32.
pub(crate) struct Widen<'a> {
    pub kind: TensorType,
    pub bytes: &'a [u8],
    pub out: &'a mut [f32],
}

impl Widen<'_> {
    #[inline(always)]
    fn each<S: Isa, W: Plain>(self, s: S) {
        let (eights, rest) = self.out.as_chunks_mut::<LANES>();
        let done = eights.len() * LANES * W::BYTES;
        for (out, bytes) in eights.iter_mut().zip(self.bytes.chunks_exact(LANES * W::BYTES)) {
            *out = s.lanes(W::load(s, bytes));
        }
        for (out, bytes) in rest.iter_mut().zip(self.bytes.get(done..).unwrap_or_default().chunks_exact(W::BYTES)) {
            *out = W::one(bytes);
        }
    }
}

impl Task for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        match self.kind {
            TensorType::F16 => self.each::<S, F16>(s),
            TensorType::BF16 => self.each::<S, BF16>(s),
            _ => self.each::<S, F32>(s),
        }
    }
}

/// Narrows F32 to F16.
pub(crate) struct Narrow<'a> {
    pub values: &'a [f32],
    pub out: &'a mut [u8],
}

impl Task for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        for (out, values) in self.out.chunks_mut(2 * LANES).zip(self.values.chunks(LANES)) {
            let mut eight = [0.0; LANES];
            eight.iter_mut().zip(values).for_each(|(to, &from)| *to = from);
            let bytes = s.to_f16(s.load_f32(&eight));
            out.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        }
    }
}

/// Rows and tokens that are multiplied at a time.
const ROWS: usize = 4;
const TOKENS: usize = 3;
/// Columns that are multiplied at a time: four rows of them fit the nearest cache.
const COLUMNS: usize = 1024;

/// Decoded rows times many tokens: adds to `out`.
pub(crate) struct Product<'a, X> {
    pub rows: &'a [f32], // [rows, columns]
    pub columns: usize,
    pub x: X,
    pub tokens: usize,
    pub out: &'a mut [f32], // [tokens, rows]
}

/// Sums of products of R rows and T tokens; all slices must be of the same length, a multiple of eight.
#[inline(always)]
fn block<S: Isa, const R: usize, const T: usize>(s: S, w: [&[f32]; R], x: [&[f32]; T]) -> [[f32; T]; R] {
    let mut sums = [[s.splat_f32(0.0); T]; R];
    let w = w.map(|w| w.as_chunks::<LANES>().0);
    let x = x.map(|x| x.as_chunks::<LANES>().0);
    for i in 0..w.iter().map(|w| w.len()).chain(x.iter().map(|x| x.len())).min().unwrap_or(0) {
        let mut x_i = [s.splat_f32(0.0); T];
        for t in 0..T {
            x_i[t] = s.load_f32(&x[t][i]);
        }
        for r in 0..R {
            let w = s.load_f32(&w[r][i]);
            for t in 0..T {
                sums[r][t] = s.mul_add_f32(w, x_i[t], sums[r][t]);
            }
        }
    }
    let mut out = [[0.0; T]; R];
    for r in 0..R {
        for t in 0..T {
            out[r][t] = s.sum_f32(sums[r][t]);
        }
    }
    out
}

impl<'a, X: Fn(usize) -> &'a [f32]> Product<'_, X> {
    /// R rows and T tokens from `row` and `token` on, over the columns from `start` to `end`.
    #[inline(always)]
    fn corner<S: Isa, const R: usize, const T: usize>(&mut self, s: S, row: usize, token: usize, span: (usize, usize)) {
        let (start, end) = span;
        let rows = self.rows.len() / self.columns.max(1);
        let whole = start + (end - start) / LANES * LANES;
        let part = |values: &'_ [f32], from: usize, to: usize| (from.min(values.len()), to.min(values.len()));
        let w: [&[f32]; R] = std::array::from_fn(|r| {
            let (from, to) = part(self.rows, (row + r) * self.columns, (row + r + 1) * self.columns);
            &self.rows[from..to]
        });
        let x: [&[f32]; T] = std::array::from_fn(|t| (self.x)(token + t));
        let sums = block::<S, R, T>(
            s,
            w.map(|w| w.get(start..whole).unwrap_or_default()),
            x.map(|x| x.get(start..whole).unwrap_or_default()),
        );
        for (r, sums) in sums.iter().enumerate() {
            for (t, sum) in sums.iter().enumerate() {
                let tail = w[r].iter().zip(x[t]).skip(whole).take(end - whole);
                if let Some(out) = self.out.get_mut((token + t) * rows + row + r) {
                    *out += sum + tail.map(|(w, x)| w * x).sum::<f32>();
                }
            }
        }
    }

    #[inline(always)]
    fn strip<S: Isa, const R: usize>(&mut self, s: S, row: usize, span: (usize, usize)) {
        let mut token = 0;
        while token + TOKENS <= self.tokens {
            self.corner::<S, R, TOKENS>(s, row, token, span);
            token += TOKENS;
        }
        while token < self.tokens {
            self.corner::<S, R, 1>(s, row, token, span);
            token += 1;
        }
    }
}

impl<'a, X: Fn(usize) -> &'a [f32]> Task for Product<'_, X> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        let rows = self.rows.len() / self.columns.max(1);
        for start in (0..self.columns).step_by(COLUMNS) {
            let span = (start, self.columns.min(start + COLUMNS));
            let mut row = 0;
            while row + ROWS <= rows {
                self.strip::<S, ROWS>(s, row, span);
                row += ROWS;
            }
            while row < rows {
                self.strip::<S, 1>(s, row, span);
                row += 1;
            }
        }
    }
}

/// Rows that lie side by side in a panel, and tokens that they are multiplied with at a time: as many sums as there are
/// registers for.
pub(crate) const PANEL_ROWS: usize = 2 * LANES;
const PANEL_TOKENS: usize = 6;

/// Decoded rows times many tokens, by panels in which the rows lie side by side: every number of a token is multiplied
/// with a column of a panel, so that nothing has to be added up across lanes. Writes `out`.
pub(crate) struct PanelProduct<'a, X> {
    pub panels: &'a [[f32; PANEL_ROWS]], // [panels, columns]
    pub columns: usize,
    pub x: X,
    pub tokens: usize,
    pub rows: usize,        // the last panel may have fewer
    pub out: &'a mut [f32], // [tokens, rows]
}

/// Puts rows side by side.
pub(crate) fn panels(rows: &[f32], columns: usize) -> Vec<[f32; PANEL_ROWS]> {
    let count = rows.len() / columns.max(1);
    let mut panels = vec![[0.0; PANEL_ROWS]; count.div_ceil(PANEL_ROWS) * columns];
    for (row, values) in rows.chunks_exact(columns.max(1)).enumerate() {
        let (panel, lane) = (row / PANEL_ROWS, row % PANEL_ROWS);
        let own = panels.get_mut(panel * columns..).unwrap_or_default();
        own.iter_mut().zip(values).for_each(|(column, value)| column[lane] = *value);
    }
    panels
}

impl<'a, X: Fn(usize) -> &'a [f32]> PanelProduct<'_, X> {
    /// A panel times T tokens.
    #[inline(always)]
    fn corner<S: Isa, const T: usize>(&mut self, s: S, panel: usize, token: usize) {
        let columns = &self.panels[panel * self.columns..(panel + 1) * self.columns];
        let x: [&[f32]; T] = std::array::from_fn(|t| (self.x)(token + t).get(..columns.len()).unwrap_or_default());
        if x.iter().any(|x| x.len() != columns.len()) {
            return;
        }
        let mut sums = [[s.splat_f32(0.0); 2]; T];
        for (i, column) in columns.iter().enumerate() {
            let w = [s.load_f32(&column[..LANES]), s.load_f32(&column[LANES..])];
            for t in 0..T {
                let x = s.splat_f32(x[t][i]);
                sums[t] = [s.mul_add_f32(w[0], x, sums[t][0]), s.mul_add_f32(w[1], x, sums[t][1])];
            }
        }
        let first = panel * PANEL_ROWS;
        for t in 0..T {
            let out =
                self.out.get_mut((token + t) * self.rows + first..(token + t + 1) * self.rows).unwrap_or_default();
            for (half, out) in out.chunks_mut(LANES).take(2).enumerate() {
                out.iter_mut().zip(s.lanes(sums[t][half])).for_each(|(out, sum)| *out = sum);
            }
        }
    }
}

impl<'a, X: Fn(usize) -> &'a [f32]> Task for PanelProduct<'_, X> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        for panel in 0..self.rows.div_ceil(PANEL_ROWS) {
            let mut token = 0;
            while token + PANEL_TOKENS <= self.tokens {
                self.corner::<S, PANEL_TOKENS>(s, panel, token);
                token += PANEL_TOKENS;
            }
            while token + 2 <= self.tokens {
                self.corner::<S, 2>(s, panel, token);
                token += 2;
            }
            if token < self.tokens {
                self.corner::<S, 1>(s, panel, token);
            }
        }
    }
}
