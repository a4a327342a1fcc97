//! Products of packed weights and rounded activations.
//!
//! [`Rows`] is for few tokens: it unpacks each quad in registers and multiplies it at once, for one, two or four tokens,
//! so that the weights stream through once at the speed of memory. [`Tiles`] is for many: it unpacks 256 columns of
//! some rows into memory near the core, then goes over all tokens, 16 rows and four tokens at a time, which keeps the
//! multipliers busy.

use super::formats::{FloatScaled, Format, IntScaled, Minimum, Scales};
use super::{Isa, LANES, Task};
use crate::backend::cpu::activations::{Block, Fine, TILE, Wide};
use std::array::from_fn;
use std::marker::PhantomData;

/// Packed panels: their two planes, and how many there are.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub quants: &'a [u8],
    pub scales: &'a [u8],
    pub count: usize,
}

impl<'a> Panels<'a> {
    /// The planes of each panel.
    fn each(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let count = self.count.max(1);
        let size = |plane: &[u8]| (plane.len() / count).max(1);
        self.quants.chunks_exact(size(self.quants)).zip(self.scales.chunks_exact(size(self.scales)))
    }
}

/// Activations of one family, tile by tile of 256 columns: `blocks[tile * stride + token]`.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'a, B> {
    pub blocks: &'a [B],
    pub stride: usize,
}

impl<'a, B> Tokens<'a, B> {
    /// Neighbouring tokens' blocks of a tile.
    #[inline(always)]
    fn at<const T: usize>(self, tile: usize, token: usize) -> Option<&'a [B; T]> {
        self.blocks.get(tile * self.stride + token..)?.first_chunk()
    }
}

/// Repeats a block with a constant that counts.
macro_rules! unroll {
    ($i:ident in [$($n:literal)*] $body:block) => {
        $({ const $i: usize = $n; $body })*
    };
}

/// How many quads are added up before the sums are scaled: 16 columns, which is what all formats have a scale for, where
/// sums are wide.
const fn span<S: Isa, F: Format>() -> usize {
    if S::BIAS.is_some() && F::SPAN < 4 { 4 } else { F::SPAN }
}

/// The eight quads of group `2 * pair + HALF` times the activations of T tokens, times the scales of the first and the
/// second 16 columns.
#[inline(always)]
fn group<S: Isa, F: Format, const HALF: usize, const T: usize>(
    s: S,
    quants: &[u8],
    pair: usize,
    scale: [S::I; 2],
    x: [&[i32; 8]; T],
) -> [S::I; T] {
    let mut total = [s.splat(0); T];
    let mut sum = [s.no_sum(); T];
    unroll!(I in [0 1 2 3 4 5 6 7] {
        let w = F::quad::<S, HALF, I>(s, quants, pair);
        for t in 0..T {
            let x = s.splat(x[t][I]);
            sum[t] = if F::SIGNED { s.dot_signed(sum[t], w, x) } else { s.dot(sum[t], w, x) };
            if (I + 1).is_multiple_of(span::<S, F>()) {
                total[t] = s.add(total[t], s.scaled(sum[t], scale[I / 4]));
                sum[t] = s.no_sum();
            }
        }
    });
    total
}

/// The scale of a format that has none among the integers: 1, twice.
const ONES: i32 = 0x0001_0001;

/// One panel of a [`FloatScaled`] format times T tokens.
#[inline(always)]
fn float_panel<S: Isa, F: FloatScaled, const T: usize>(
    s: S,
    (quants, scales): (&[u8], &[u8]),
    x: Tokens<'_, Fine>,
    token: usize,
) -> [S::F; T] {
    let mut out = [s.splat_f32(0.0); T];
    let ones = s.splat(ONES);
    let tiles = quants.chunks(8 * F::QUANTS).zip(scales.chunks(8 * F::SCALES));
    for (tile, (quants, scales)) in tiles.enumerate() {
        let Some(x) = x.at::<T>(tile, token) else { break };
        let units = quants.chunks_exact(F::QUANTS).zip(scales.chunks_exact(F::SCALES));
        for (g, (quants, scales)) in units.enumerate().take(8) {
            s.prefetch_ahead(quants);
            let total = group::<S, F, 0, T>(s, quants, 0, [ones; 2], from_fn(|t| &x[t].words[g]));
            let (d, minimum) = F::scales(s, scales);
            for t in 0..T {
                let d = s.mul_f32(d, s.splat_f32(x[t].d[g]));
                out[t] = s.mul_add_f32(d, s.to_f32(total[t]), out[t]);
                if F::MINIMUM {
                    out[t] = s.mul_add_f32(minimum, s.splat_f32(x[t].sums[g]), out[t]);
                }
            }
        }
    }
    out
}

/// The part of the result that minimums are, still an integer: for each two groups, both minimums times both sums of
/// the activations.
#[inline(always)]
fn minimums<S: Isa, F: IntScaled>(s: S, minimum: &[S::I; 8], x: &Wide) -> S::I {
    let mut total = s.splat(0);
    if F::GROUP == 32 {
        for (minimum, sums) in minimum.iter().zip(x.sums32) {
            total = s.add(total, s.dot_i16(*minimum, s.splat(sums)));
        }
    } else {
        for (minimum, sums) in minimum.iter().zip(x.sums16) {
            total = s.add(total, s.dot_i16(*minimum, s.splat(sums)));
        }
    }
    total
}

/// Adds what a unit of an [`IntScaled`] format is worth: `total` and the minimums, times the floating-point scales.
#[inline(always)]
fn finish<S: Isa, F: IntScaled>(s: S, scales: (&[S::I; 8], S::F, S::F), total: S::I, x: &Wide, out: S::F) -> S::F {
    let (minimum, d, dmin) = scales;
    let d_x = s.splat_f32(x.d);
    let total = match F::MINIMUM {
        Minimum::Centre(32) => s.sub(total, s.shl::<5>(minimums::<S, F>(s, minimum, x))),
        Minimum::Centre(_) => s.sub(total, s.shl::<2>(minimums::<S, F>(s, minimum, x))),
        _ => total,
    };
    let out = s.mul_add_f32(s.mul_f32(d, d_x), s.to_f32(total), out);
    if F::MINIMUM != Minimum::Group {
        return out;
    }
    let low = s.to_f32(minimums::<S, F>(s, minimum, x));
    s.mul_add_f32(s.mul_f32(dmin, s.splat_f32(-x.d)), low, out)
}

/// One panel of an [`IntScaled`] format times T tokens.
#[inline(always)]
fn int_panel<S: Isa, F: IntScaled, const T: usize>(
    s: S,
    (quants, scales): (&[u8], &[u8]),
    x: Tokens<'_, Wide>,
    token: usize,
) -> [S::F; T] {
    let mut out = [s.splat_f32(0.0); T];
    let units = quants.chunks_exact(F::QUANTS).zip(scales.chunks_exact(F::SCALES));
    for (tile, (quants, scales)) in units.enumerate() {
        let Some(x) = x.at::<T>(tile, token) else { break };
        let Scales { scale, minimum, d, dmin } = F::scales(s, scales);
        let mut total = [s.splat(0); T];
        for pair in 0..4 {
            s.prefetch_ahead(quants.get(pair * F::QUANTS / 4..(pair + 1) * F::QUANTS / 4).unwrap_or_default());
            let scale_of = |group: usize| match F::GROUP {
                32 => [scale[group & 15]; 2],
                _ => [scale[(2 * group) & 15], scale[(2 * group + 1) & 15]],
            };
            let even = group::<S, F, 0, T>(s, quants, pair, scale_of(2 * pair), from_fn(|t| &x[t].words[2 * pair]));
            let odd =
                group::<S, F, 1, T>(s, quants, pair, scale_of(2 * pair + 1), from_fn(|t| &x[t].words[2 * pair + 1]));
            for t in 0..T {
                total[t] = s.add(total[t], s.add(even[t], odd[t]));
            }
        }
        for t in 0..T {
            out[t] = finish::<S, F>(s, (&minimum, d, dmin), total[t], &x[t], out[t]);
        }
    }
    out
}

/// A family of formats: what is done with a panel of one.
pub(crate) trait Family {
    type Format: Format;
    /// A tile of one token's activations.
    type Block: Block;
    /// A panel times T tokens.
    fn panel<S: Isa, const T: usize>(
        s: S,
        planes: (&[u8], &[u8]),
        x: Tokens<'_, Self::Block>,
        token: usize,
    ) -> [S::F; T];
    /// Unpacks 256 columns of a panel, or what is left of it.
    fn unpack<S: Isa>(s: S, tile: &mut Tile<S>, planes: (&[u8], &[u8]));
    /// Whether tiles are multiplied as 16-bit integers.
    const SIXTEEN_BITS: bool;
    /// Two tiles times four tokens. `pairs` are the same tokens in 16 bits, if those are what tiles are multiplied by.
    fn tiles<S: Isa>(
        s: S,
        tiles: [&Tile<S>; PANELS],
        x: &[Self::Block; TOKENS],
        pairs: Option<&[Pairs; TOKENS]>,
        out: &mut Out<S>,
    );
}

/// The formats with floating-point scales only.
pub(crate) struct Float<F>(pub PhantomData<fn() -> F>);
/// The formats with integer scales under them.
pub(crate) struct Int<F>(pub PhantomData<fn() -> F>);

impl<F: FloatScaled> Family for Float<F> {
    type Format = F;
    type Block = Fine;
    const SIXTEEN_BITS: bool = F::SIGNED;

    #[inline(always)]
    fn panel<S: Isa, const T: usize>(s: S, planes: (&[u8], &[u8]), x: Tokens<'_, Fine>, token: usize) -> [S::F; T] {
        float_panel::<S, F, T>(s, planes, x, token)
    }

    #[inline(always)]
    fn unpack<S: Isa>(s: S, tile: &mut Tile<S>, planes: (&[u8], &[u8])) {
        tile.unpack_float::<F>(s, planes);
    }

    #[inline(always)]
    fn tiles<S: Isa>(
        s: S,
        tiles: [&Tile<S>; PANELS],
        x: &[Fine; TOKENS],
        pairs: Option<&[Pairs; TOKENS]>,
        out: &mut Out<S>,
    ) {
        match pairs {
            Some(pairs) => float_tiles_in_16_bits(s, tiles, x, pairs, out),
            None => float_tiles::<S, F>(s, tiles, x, out),
        }
    }
}

impl<F: IntScaled> Family for Int<F> {
    type Format = F;
    type Block = Wide;
    // The sums are to be multiplied by 16-bit scales, so they must not be wider.
    const SIXTEEN_BITS: bool = false;

    #[inline(always)]
    fn panel<S: Isa, const T: usize>(s: S, planes: (&[u8], &[u8]), x: Tokens<'_, Wide>, token: usize) -> [S::F; T] {
        int_panel::<S, F, T>(s, planes, x, token)
    }

    #[inline(always)]
    fn unpack<S: Isa>(s: S, tile: &mut Tile<S>, planes: (&[u8], &[u8])) {
        tile.unpack_int::<F>(s, planes);
    }

    #[inline(always)]
    fn tiles<S: Isa>(
        s: S,
        tiles: [&Tile<S>; PANELS],
        x: &[Wide; TOKENS],
        _: Option<&[Pairs; TOKENS]>,
        out: &mut Out<S>,
    ) {
        int_tiles::<S, F>(s, tiles, x, out);
    }
}

/// A panel times one token, as one function for all numbers of tokens. It stays one, so it is compiled without the
/// instructions of a unit: for [`Scalar`](super::scalar::Scalar) only.
#[inline(never)]
fn one<S: Isa, K: Family>(s: S, planes: (&[u8], &[u8]), x: Tokens<'_, K::Block>, token: usize) -> S::F {
    K::panel::<S, 1>(s, planes, x, token)[0]
}

/// Few tokens: `out[token, row]` for T tokens from the first given.
pub(crate) struct Rows<'a, K: Family, const T: usize> {
    pub panels: Panels<'a>,
    pub x: Tokens<'a, K::Block>,
    pub token: usize,
    pub out: &'a mut [f32], // [T, panels * 8]
}

impl<K: Family, const T: usize> Task for Rows<'_, K, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let rows = self.panels.count * LANES;
        for (index, planes) in self.panels.each().enumerate() {
            let sums = if S::SEVERAL {
                K::panel::<S, T>(s, planes, self.x, self.token)
            } else {
                from_fn(|t| one::<S, K>(s, planes, self.x, self.token + t))
            };
            for (t, &sums) in sums.iter().enumerate() {
                let out = self.out.get_mut(t * rows + index * LANES..).and_then(|out| out.first_chunk_mut());
                if let Some(out) = out {
                    *out = s.lanes(sums);
                }
            }
        }
    }
}

/// 256 columns of a panel, unpacked. Bytes with sign are widened to 16 bits where there are no scales among the integers;
/// where there are, they are split into halves without sign, for which sums fit 16 bits longer. If the unit's sums are
/// wide, they get its bias and stay whole.
#[derive(Clone, Copy)]
pub(crate) struct Tile<S: Isa> {
    low: [[S::I; 8]; 8],  // [group][quad], or the first eight pairs of columns
    high: [[S::I; 8]; 8], // signed formats and narrow sums only: high halves, or the other eight pairs
    scale: [S::I; 16],    // 256-column formats only
    minimum: [S::I; 8],   // 256-column formats only
    d: [S::F; 8],         // the first only, in 256-column formats
    dmin: [S::F; 8],
}

/// Rows and tokens that are multiplied at a time: two panels of eight rows, and four tokens.
pub(crate) const PANELS: usize = 2;
pub(crate) const TOKENS: usize = 4;

/// What is added to signed bytes in a [`Tile`].
const fn bias<S: Isa>() -> u8 {
    match S::BIAS {
        Some(bias) => bias,
        None => 128,
    }
}

impl<S: Isa> Tile<S> {
    fn new(s: S) -> Self {
        let (i, f) = (s.splat(0), s.splat_f32(0.0));
        Tile { low: [[i; 8]; 8], high: [[i; 8]; 8], scale: [i; 16], minimum: [i; 8], d: [f; 8], dmin: [f; 8] }
    }

    #[inline(always)]
    fn unpack_group<F: Format, const HALF: usize>(&mut self, s: S, quants: &[u8], pair: usize, group: usize) {
        let half = s.splat(0x0f0f_0f0f);
        unroll!(I in [0 1 2 3 4 5 6 7] {
            let w = F::quad::<S, HALF, I>(s, quants, pair);
            if let (true, Some(bias)) = (F::SIGNED, S::BIAS) {
                self.low[group & 7][I] = s.xor(w, s.splat(i32::from_le_bytes([bias; 4])));
            } else if F::SIGNED {
                let w = s.xor(w, s.splat(0x8080_8080u32 as i32));
                self.low[group & 7][I] = s.and(w, half);
                self.high[group & 7][I] = s.and(s.shr::<4>(w), half);
            } else {
                self.low[group & 7][I] = w;
            }
        });
    }

    /// Eight units of 32 columns, or as many as there are.
    #[inline(always)]
    fn unpack_float<F: FloatScaled>(&mut self, s: S, (quants, scales): (&[u8], &[u8])) {
        let units = quants.chunks_exact(F::QUANTS).zip(scales.chunks_exact(F::SCALES));
        for (g, (quants, scales)) in units.enumerate().take(8) {
            if F::SIGNED && S::BIAS.is_none() {
                unroll!(I in [0 1 2 3 4 5 6 7] {
                    let w = F::quad::<S, 0, I>(s, quants, 0);
                    let half = if I < 4 { &mut self.low[g] } else { &mut self.high[g] };
                    half[2 * (I % 4)] = s.pair::<0, 1>(w);
                    half[2 * (I % 4) + 1] = s.pair::<2, 3>(w);
                });
            } else {
                self.unpack_group::<F, 0>(s, quants, 0, g);
            }
            let (d, minimum) = F::scales(s, scales);
            self.d[g] = d;
            self.dmin[g] = if F::SIGNED { s.mul_f32(d, s.splat_f32(-f32::from(bias::<S>()))) } else { minimum };
        }
    }

    /// One unit of 256 columns.
    #[inline(always)]
    fn unpack_int<F: IntScaled>(&mut self, s: S, (quants, scales): (&[u8], &[u8])) {
        for pair in 0..4 {
            self.unpack_group::<F, 0>(s, quants, pair, 2 * pair);
            self.unpack_group::<F, 1>(s, quants, pair, 2 * pair + 1);
        }
        let Scales { scale, minimum, d, dmin } = F::scales(s, scales);
        (self.scale, self.minimum, self.d[0], self.dmin[0]) = (scale, minimum, d, dmin);
    }
}

/// Sums of products of some quads of two tiles and four tokens. All slices must have the same length.
///
/// This is the loop in which many tokens spend their time. It must stay a loop: unrolled, the optimizer sorts it by
/// sums, and there are not the registers for that. So the lengths must not be constants.
#[inline(always)]
fn tile_quads<S: Isa>(s: S, w: [&[S::I]; PANELS], x: [&[i32]; TOKENS]) -> [[S::Sum; TOKENS]; PANELS] {
    let mut sums = [[s.no_sum(); TOKENS]; PANELS];
    let both = w[0].iter().zip(w[1]);
    let all = x[0].iter().zip(x[1]).zip(x[2].iter().zip(x[3]));
    for ((&w0, &w1), ((&x0, &x1), (&x2, &x3))) in both.zip(all) {
        let x = [x0, x1, x2, x3];
        for t in 0..TOKENS {
            let x = s.splat(x[t]);
            sums[0][t] = s.dot(sums[0][t], w0, x);
            sums[1][t] = s.dot(sums[1][t], w1, x);
        }
    }
    sums
}

/// The same as [`tile_group`] where only two quads may be added up: the totals are in registers then.
#[inline(always)]
fn tile_group_by_twos<S: Isa>(
    s: S,
    w: [&[S::I; 8]; PANELS],
    scale: [[S::I; 2]; PANELS],
    x: [&[i32; 8]; TOKENS],
    total: &mut [[S::I; TOKENS]; PANELS],
) {
    let mut sums = *total;
    for part in 0..std::hint::black_box(4) {
        let part = part & 3;
        for t in 0..TOKENS {
            let (x0, x1) = (s.splat(x[t][2 * part]), s.splat(x[t][2 * part + 1]));
            for p in 0..PANELS {
                let sum = s.dot(s.dot(s.no_sum(), w[p][2 * part], x0), w[p][2 * part + 1], x1);
                sums[p][t] = s.add(sums[p][t], s.scaled(sum, scale[p][part / 2]));
            }
        }
    }
    *total = sums;
}

/// Sums of products of one group of two tiles and four tokens, times the scales of its 16 or 32 columns.
#[inline(always)]
fn tile_group<S: Isa, const SPAN: usize>(
    s: S,
    w: [&[S::I; 8]; PANELS],
    scale: [[S::I; 2]; PANELS],
    x: [&[i32; 8]; TOKENS],
    total: &mut [[S::I; TOKENS]; PANELS],
) {
    let span = std::hint::black_box(SPAN);
    for part in 0..8 / SPAN {
        // The totals shall wait in memory: the registers are for the sums.
        let total = std::hint::black_box(&mut *total);
        let quads = part * SPAN..8.min(part * SPAN + span);
        let sums = tile_quads(
            s,
            w.map(|w| w.get(quads.clone()).unwrap_or_default()),
            x.map(|x| x.get(quads.clone()).unwrap_or_default()),
        );
        for p in 0..PANELS {
            for t in 0..TOKENS {
                total[p][t] = s.add(total[p][t], s.scaled(sums[p][t], scale[p][part * SPAN / 4]));
            }
        }
    }
}

/// The same for any format: halves of bytes are put together again, 16 high ones for one low.
#[inline(always)]
fn tile_group_of<S: Isa, F: Format>(
    s: S,
    tiles: [&Tile<S>; PANELS],
    g: usize,
    scale: [[S::I; 2]; PANELS],
    x: [&[i32; 8]; TOKENS],
    total: &mut [[S::I; TOKENS]; PANELS],
) {
    let low = tiles.map(|tile| &tile.low[g & 7]);
    if F::SIGNED && S::BIAS.is_none() {
        let mut high = [[s.splat(0); TOKENS]; PANELS];
        tile_group::<S, 8>(s, tiles.map(|tile| &tile.high[g & 7]), scale, x, &mut high);
        for (total, high) in total.as_flattened_mut().iter_mut().zip(high.as_flattened()) {
            *total = s.add(*total, s.shl::<4>(*high));
        }
        return tile_group::<S, 8>(s, low, scale, x, total);
    }
    // Where nothing overflows, the halves of a group still have scales of their own.
    match if F::SIGNED { 8 } else { span::<S, F>() } {
        8 => tile_group::<S, 8>(s, low, scale, x, total),
        4 => tile_group::<S, 4>(s, low, scale, x, total),
        _ => tile_group_by_twos(s, low, scale, x, total),
    }
}

/// Sums of two panels and four tokens.
pub(crate) type Out<S> = [[<S as Isa>::F; TOKENS]; PANELS];

/// Sums of products of group `g` of two tiles and four tokens, where all scales are floating-point numbers. Small
/// enough to stay in registers between the loops.
#[inline(always)]
fn whole_group<S: Isa, const SPAN: usize>(
    s: S,
    w: [&[S::I; 8]; PANELS],
    x: [&[i32; 8]; TOKENS],
) -> [[S::I; TOKENS]; PANELS] {
    let (ones, span) = (s.splat(ONES), std::hint::black_box(SPAN));
    let mut total = [[s.splat(0); TOKENS]; PANELS];
    for part in 0..8 / SPAN {
        let quads = part * SPAN..8.min(part * SPAN + span);
        let sums = tile_quads(
            s,
            w.map(|w| w.get(quads.clone()).unwrap_or_default()),
            x.map(|x| x.get(quads.clone()).unwrap_or_default()),
        );
        for p in 0..PANELS {
            for t in 0..TOKENS {
                total[p][t] = s.add(total[p][t], s.scaled(sums[p][t], ones));
            }
        }
    }
    total
}

#[inline(always)]
fn float_tiles<S: Isa, F: FloatScaled>(s: S, tiles: [&Tile<S>; PANELS], x: &[Fine; TOKENS], out: &mut Out<S>) {
    // A short last tile has groups of the one before; their activations are zeros.
    for g in 0..8 {
        let (w, words) = (tiles.map(|tile| &tile.low[g]), from_fn(|t| &x[t].words[g]));
        let total = match if F::SIGNED { 8 } else { span::<S, F>() } {
            4 => whole_group::<S, 4>(s, w, words),
            _ => whole_group::<S, 8>(s, w, words),
        };
        for p in 0..PANELS {
            for t in 0..TOKENS {
                let d = s.mul_f32(tiles[p].d[g], s.splat_f32(x[t].d[g]));
                let mut sum = s.mul_add_f32(d, s.to_f32(total[p][t]), out[p][t]);
                if F::MINIMUM || F::SIGNED && bias::<S>() != 0 {
                    sum = s.mul_add_f32(tiles[p].dmin[g], s.splat_f32(x[t].sums[g]), sum);
                }
                out[p][t] = sum;
            }
        }
    }
}

/// A token's tile in 16-bit integers, two in a word.
pub(crate) type Pairs = [[i32; 16]; 8]; // [group][pair]

/// Adds products of some pairs of columns of two tiles and four tokens. A loop for the reasons of [`tile_quads`].
#[inline(always)]
fn tile_pairs<S: Isa>(
    s: S,
    w: [&[S::I]; PANELS],
    x: [&[i32]; TOKENS],
    mut sums: [[S::I; TOKENS]; PANELS],
) -> [[S::I; TOKENS]; PANELS] {
    let both = w[0].iter().zip(w[1]);
    let all = x[0].iter().zip(x[1]).zip(x[2].iter().zip(x[3]));
    for ((&w0, &w1), ((&x0, &x1), (&x2, &x3))) in both.zip(all) {
        let x = [x0, x1, x2, x3];
        for t in 0..TOKENS {
            let x = s.splat(x[t]);
            sums[0][t] = s.add(sums[0][t], s.dot_i16(w0, x));
            sums[1][t] = s.add(sums[1][t], s.dot_i16(w1, x));
        }
    }
    sums
}

#[inline(always)]
fn float_tiles_in_16_bits<S: Isa>(
    s: S,
    tiles: [&Tile<S>; PANELS],
    x: &[Fine; TOKENS],
    pairs: &[Pairs; TOKENS],
    out: &mut Out<S>,
) {
    for g in 0..8 {
        let count = std::hint::black_box(8).min(8);
        let (low, high) = (tiles.map(|tile| &tile.low[g][..count]), tiles.map(|tile| &tile.high[g][..count]));
        let mut total = [[s.splat(0); TOKENS]; PANELS];
        total = tile_pairs(s, low, from_fn(|t| &pairs[t][g][..count]), total);
        total = tile_pairs(s, high, from_fn(|t| &pairs[t][g][8..8 + count]), total);
        for p in 0..PANELS {
            for t in 0..TOKENS {
                let d = s.mul_f32(tiles[p].d[g], s.splat_f32(x[t].d[g]));
                out[p][t] = s.mul_add_f32(d, s.to_f32(total[p][t]), out[p][t]);
            }
        }
    }
}

#[inline(always)]
fn int_tiles<S: Isa, F: IntScaled>(s: S, tiles: [&Tile<S>; PANELS], x: &[Wide; TOKENS], out: &mut Out<S>) {
    let mut total = [[s.splat(0); TOKENS]; PANELS];
    for g in 0..8 {
        let scale = tiles.map(|tile| match F::GROUP {
            32 => [tile.scale[g]; 2],
            _ => [tile.scale[2 * g], tile.scale[2 * g + 1]],
        });
        tile_group_of::<S, F>(s, tiles, g, scale, from_fn(|t| &x[t].words[g]), &mut total);
    }
    for p in 0..PANELS {
        let tile = tiles[p];
        for t in 0..TOKENS {
            let mut total = total[p][t];
            if F::SIGNED && bias::<S>() != 0 {
                total = s.sub(total, s.shl::<7>(minimums::<S, F>(s, &tile.minimum, &x[t])));
            }
            out[p][t] = finish::<S, F>(s, (&tile.minimum, tile.d[0], tile.dmin[0]), total, &x[t], out[p][t]);
        }
    }
}

#[inline(always)]
fn widen(words: &[[i32; 8]; 8], pairs: &mut Pairs) {
    let bytes: &[i8; TILE] = bytemuck::cast_ref(words);
    let wide: &mut [i16; TILE] = bytemuck::cast_mut(pairs);
    wide.iter_mut().zip(bytes).for_each(|(wide, &byte)| *wide = i16::from(byte));
}

/// Many tokens: `out[token, row]` for all tokens, whose number is a multiple of four.
pub(crate) struct Tiles<'a, K: Family> {
    pub panels: Panels<'a>,
    pub x: Tokens<'a, K::Block>,
    pub out: &'a mut [f32], // [tokens, panels * 8]
}

impl<K: Family> Tiles<'_, K> {
    /// The part of each panel's planes that is in this tile.
    #[inline(always)]
    fn part<'a>((quants, scales): (&'a [u8], &'a [u8]), tile: usize) -> (&'a [u8], &'a [u8]) {
        let units = TILE / K::Format::COLUMNS;
        let part = |plane: &'a [u8], unit_bytes: usize| {
            let start = plane.len().min(tile * units * unit_bytes);
            let end = plane.len().min((tile + 1) * units * unit_bytes);
            plane.get(start..end).unwrap_or_default()
        };
        (part(quants, K::Format::QUANTS), part(scales, K::Format::SCALES))
    }

    #[inline(always)]
    fn store<S: Isa>(&mut self, s: S, sums: &[Out<S>], fours: usize) {
        let rows = self.panels.count * LANES;
        for (index, sums) in sums.iter().enumerate() {
            let (pair, four) = (index / fours, index % fours);
            for p in (0..PANELS).filter(|p| pair * PANELS + p < self.panels.count) {
                for (t, &sums) in sums[p].iter().enumerate() {
                    let at = (four * TOKENS + t) * rows + (pair * PANELS + p) * LANES;
                    if let Some(place) = self.out.get_mut(at..).and_then(|out| out.first_chunk_mut()) {
                        *place = s.lanes(sums);
                    }
                }
            }
        }
    }
}

impl<K: Family> Task for Tiles<'_, K> {
    type Output = ();

    /// Goes over the tiles of 256 columns: unpacks them for all panels, then multiplies them by all tokens.
    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        let panels: Vec<_> = self.panels.each().collect();
        let pairs = panels.len().div_ceil(PANELS);
        let stride = self.x.stride.max(1);
        let fours = (stride / TOKENS).max(1);
        let mut tiles = vec![Tile::new(s); pairs * PANELS];
        let sixteen_bits = K::SIXTEEN_BITS && S::BIAS.is_none();
        let mut sixteen: Vec<Pairs> = vec![[[0; 16]; 8]; if sixteen_bits { stride } else { 0 }];
        let mut sums: Vec<Out<S>> = vec![[[s.splat_f32(0.0); TOKENS]; PANELS]; pairs * fours];
        for (index, x) in self.x.blocks.chunks_exact(stride).enumerate() {
            for (tile, &planes) in tiles.iter_mut().zip(&panels) {
                K::unpack(s, tile, Self::part(planes, index));
            }
            if sixteen_bits {
                sixteen.iter_mut().zip(x).for_each(|(pairs, x)| widen(x.words(), pairs));
            }
            for ([a, b], sums) in tiles.as_chunks::<PANELS>().0.iter().zip(sums.chunks_exact_mut(fours)) {
                for (index, (x, sums)) in x.as_chunks::<TOKENS>().0.iter().zip(sums).enumerate() {
                    K::tiles(s, [a, b], x, sixteen.as_chunks().0.get(index), sums);
                }
            }
        }
        self.store(s, &sums, fours);
    }
}
