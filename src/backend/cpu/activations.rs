//! Activations, rounded once to eight bits for all the matrices that they are multiplied by.
//!
//! There are two roundings, as the formats of weights ask for: *fine*, with a scale for each 32 columns, and *wide*, with
//! one for each 256, next to the sums that the formats with minimums need. Exact products and floating-point weights
//! take the numbers as they are.
//!
//! Columns go by tiles of 256, and within a tile the tokens lie side by side, so that both few and many tokens are read
//! in order. Columns are filled up to whole tiles with zeros, tokens to 1, 2 or a multiple of 4.

use super::pool::Pool;
use super::simd::{Isa, Level, Task, on};
use std::ops::BitOr;
use std::sync::Arc;

/// Columns of a tile.
pub(crate) const TILE: usize = 256;

/// Which forms of the activations are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forms {
    /// Eight bits with a scale for each 32 columns.
    pub fine: bool,
    /// Eight bits with a scale for each 256 columns.
    pub wide: bool,
    /// As they are.
    pub exact: bool,
}

impl BitOr for Forms {
    type Output = Forms;

    fn bitor(self, other: Forms) -> Forms {
        Forms { fine: self.fine | other.fine, wide: self.wide | other.wide, exact: self.exact | other.exact }
    }
}

/// A tile of one token with a scale for each 32 columns.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Fine {
    /// Four integers of a byte in each word.
    pub words: [[i32; 8]; 8], // [256 / 32][32 / 4]
    pub d: [f32; 8],
    /// Sums of the integers, times the scale.
    pub sums: [f32; 8],
}

/// A tile of one token with a single scale.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Wide {
    /// Four integers of a byte in each word.
    pub words: [[i32; 8]; 8], // [256 / 32][32 / 4]
    /// Sums of 16 integers, two in each word.
    pub sums16: [i32; 8],
    /// Sums of 32 integers, two in each word.
    pub sums32: [i32; 4],
    pub d: f32,
}

/// The activations of some tokens.
#[derive(Debug, Clone, Default)]
pub struct Activations {
    tokens: usize,
    stride: usize,
    columns: usize,
    fine: Vec<Fine>,      // [tiles, stride]
    wide: Vec<Wide>,      // [tiles, stride]
    exact: Arc<Vec<f32>>, // [tokens, columns]
    forms: Forms,
}

/// What activations in these forms take: fine and wide ones. Exact ones are not copied.
pub fn bytes_of(forms: Forms, tokens: usize, columns: usize) -> [u64; 2] {
    let tiles = columns.div_ceil(TILE) * tokens.next_multiple_of(4);
    let bytes = |is_wanted: bool, count: usize, size: usize| if is_wanted { (count * size) as u64 } else { 0 };
    [bytes(forms.fine, tiles, size_of::<Fine>()), bytes(forms.wide, tiles, size_of::<Wide>())]
}

impl Activations {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes `values` in the given forms; what was there before is forgotten, but not its memory. `values` should be
    /// `tokens * columns` numbers, token by token; missing ones count as zero.
    pub fn quantize(&mut self, values: &Arc<Vec<f32>>, tokens: usize, columns: usize, forms: Forms, pool: &Pool) {
        self.tokens = tokens;
        self.columns = columns;
        self.forms = forms;
        self.stride = stride_of(tokens);
        let (tiles, stride) = (columns.div_ceil(TILE), self.stride);
        // Enough tokens in a piece of work for it to be worth handing out.
        let chunk = if tokens * columns < 1 << 14 { usize::MAX } else { stride };
        if forms.fine {
            self.fine.resize(tiles * stride, FINE_ZERO);
            pool.change(&mut self.fine, chunk, rounder(values, tokens, columns, stride, chunk));
        }
        if forms.wide {
            self.wide.resize(tiles * stride, WIDE_ZERO);
            pool.change(&mut self.wide, chunk, rounder(values, tokens, columns, stride, chunk));
        }
        if forms.exact {
            self.exact = values.clone();
            if values.len() < tokens * columns {
                Arc::make_mut(&mut self.exact).resize(tokens * columns, 0.0);
            }
        }
    }

    /// Some of the tokens, in this order.
    pub(crate) fn gather(&self, tokens: impl ExactSizeIterator<Item = usize> + Clone) -> Activations {
        let stride = stride_of(tokens.len());
        Activations {
            tokens: tokens.len(),
            stride,
            columns: self.columns,
            fine: gather(&self.fine, self.stride, tokens.clone(), stride, FINE_ZERO),
            wide: gather(&self.wide, self.stride, tokens.clone(), stride, WIDE_ZERO),
            exact: Arc::new(if self.forms.exact {
                tokens.flat_map(|token| self.exact(token)).copied().collect()
            } else {
                vec![]
            }),
            forms: self.forms,
        }
    }

    /// Lets go of the numbers as they are: whoever owns them may change them again without a copy.
    pub fn release(&mut self) {
        self.exact = Arc::default();
    }

    /// How many tokens these are.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// How many numbers a token has.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// What they were taken as.
    pub fn forms(&self) -> Forms {
        self.forms
    }

    /// Tokens with those that fill up.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn fine(&self) -> &[Fine] {
        &self.fine
    }

    pub(crate) fn wide(&self) -> &[Wide] {
        &self.wide
    }

    /// The numbers of a token; empty if there is none, or if they were not asked for.
    pub(crate) fn exact(&self, token: usize) -> &[f32] {
        self.exact.get(token * self.columns..(token + 1) * self.columns).unwrap_or_default()
    }
}

const FINE_ZERO: Fine = Fine { words: [[0; 8]; 8], d: [0.0; 8], sums: [0.0; 8] };
const WIDE_ZERO: Wide = Wide { words: [[0; 8]; 8], sums16: [0; 8], sums32: [0; 4], d: 0.0 };

/// Tokens with those that fill up.
fn stride_of(tokens: usize) -> usize {
    if tokens <= 2 { tokens } else { tokens.next_multiple_of(4) }
}

/// The blocks of some tokens, tile by tile.
fn gather<B: Block>(
    blocks: &[B],
    stride: usize,
    tokens: impl ExactSizeIterator<Item = usize> + Clone,
    to_stride: usize,
    zero: B,
) -> Vec<B> {
    let mut gathered = Vec::with_capacity(blocks.len() / stride.max(1) * to_stride);
    for tile in blocks.chunks_exact(stride.max(1)) {
        gathered.extend(tokens.clone().map(|token| tile.get(token).copied().unwrap_or(zero)));
        gathered.resize(gathered.len().next_multiple_of(to_stride.max(1)), zero);
    }
    gathered
}

/// What rounds a chunk of blocks, given its number.
fn rounder<B: Block>(
    values: &Arc<Vec<f32>>,
    tokens: usize,
    columns: usize,
    stride: usize,
    chunk: usize,
) -> impl Fn(usize, &mut [B]) + Send + Sync + 'static {
    let (values, level) = (values.clone(), Level::best());
    move |index, blocks| {
        let first = index.wrapping_mul(chunk);
        let tile = |i| {
            let (tile, token) = ((first + i) / stride, (first + i) % stride);
            let row = values.get(token * columns..).unwrap_or_default();
            let row = row.get(..columns.min(row.len())).unwrap_or_default();
            let row = if token < tokens { row.get(tile * TILE..).unwrap_or_default() } else { &[] };
            row.get(..TILE.min(row.len())).unwrap_or_default()
        };
        on(level, Round { blocks, tile });
    }
}

/// Numbers as integers from -127 to 127, times the inverse of their scale. The addition puts the integer part, rounded
/// to even, into the lowest bits.
#[inline(always)]
fn round<const N: usize>(values: &[f32; N], inverse: f32) -> [i8; N] {
    const SHIFTER: f32 = 12_582_912.0; // 1.5 * 2^23
    let mut quants = [0; N];
    for (quant, value) in quants.iter_mut().zip(values) {
        *quant = (value * inverse + SHIFTER).to_bits() as i8;
    }
    quants
}

/// The scale that makes 127 of the largest magnitude, and its inverse; zeros if all is zero, or not finite.
#[inline(always)]
fn scale<const N: usize>(values: &[f32; N]) -> (f32, f32) {
    // Eight largest at a time, so that none waits for the one before.
    let mut peaks = [0.0f32; 8];
    for eight in values.as_chunks::<8>().0 {
        for (peak, value) in peaks.iter_mut().zip(eight) {
            *peak = if value.abs() > *peak { value.abs() } else { *peak };
        }
    }
    let peak = peaks.iter().fold(0.0, |peak: f32, &other| peak.max(other));
    let inverse = 127.0 / peak;
    if inverse.is_normal() { (peak / 127.0, inverse) } else { (0.0, 0.0) }
}

fn words(quants: [i8; 32]) -> [i32; 8] {
    bytemuck::cast(quants)
}

#[inline(always)]
fn sum(quants: &[i8]) -> i32 {
    quants.iter().map(|&q| i32::from(q)).sum()
}

/// Two 16-bit numbers in a word.
fn two(low: i32, high: i32) -> i32 {
    low & 0xffff | high << 16
}

/// At most 256 numbers, filled up with zeros.
#[inline(always)]
fn filled(values: &[f32]) -> [f32; TILE] {
    let mut all = [0.0; TILE];
    all.iter_mut().zip(values).for_each(|(to, &from)| *to = from);
    all
}

/// A block of one token's tile.
pub(crate) trait Block: Copy {
    /// Rounds at most 256 numbers; missing ones are zeros.
    fn new(values: &[f32]) -> Self;
    /// The integers, four in a word.
    fn words(&self) -> &[[i32; 8]; 8];
}

/// Rounds on the vector unit at hand.
struct Round<'a, B, T> {
    blocks: &'a mut [B],
    tile: T,
}

impl<'v, B: Block, T: Fn(usize) -> &'v [f32]> Task for Round<'_, B, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        for (i, block) in self.blocks.iter_mut().enumerate() {
            *block = B::new((self.tile)(i));
        }
    }
}

impl Block for Fine {
    #[inline(always)]
    fn new(values: &[f32]) -> Self {
        let all = filled(values);
        let mut block = Fine { words: [[0; 8]; 8], d: [0.0; 8], sums: [0.0; 8] };
        for (g, values) in all.as_chunks::<32>().0.iter().enumerate() {
            let (d, inverse) = scale(values);
            let quants = round(values, inverse);
            block.words[g] = words(quants);
            block.d[g] = d;
            block.sums[g] = d * sum(&quants) as f32;
        }
        block
    }

    fn words(&self) -> &[[i32; 8]; 8] {
        &self.words
    }
}

impl Block for Wide {
    #[inline(always)]
    fn new(values: &[f32]) -> Self {
        let all = filled(values);
        let (d, inverse) = scale(&all);
        let mut block = Wide { words: [[0; 8]; 8], sums16: [0; 8], sums32: [0; 4], d };
        for (g, values) in all.as_chunks::<32>().0.iter().enumerate() {
            let quants = round(values, inverse);
            let (low, high) = quants.split_at(16);
            let (low, high) = (sum(low), sum(high));
            block.words[g] = words(quants);
            block.sums16[g] = two(low, high);
            let both = if g % 2 == 0 { two(low + high, 0) } else { (low + high) << 16 };
            block.sums32[g / 2] |= both;
        }
        block
    }

    fn words(&self) -> &[[i32; 8]; 8] {
        &self.words
    }
}
