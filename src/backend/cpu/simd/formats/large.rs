//! Formats of 256 columns. Groups of 32 columns go by twos: the vector with quad i of an even group in its low halves
//! has quad i of the next group in its high halves.
//!
//! Single bits lie in one vector a group, bit i for quad i; two-bit numbers in two vectors a group, bits 2i for quads i
//! and 4+i. Six-bit scales are 16 a row, which fill three words: the lower bits of the words hold scales 0 to 11 a byte
//! each, their upper two bits together scales 12 to 15.

use super::{Format, IntScaled, Minimum, Scales, bit, nibbles, put, put_bytes, read, two_bits, vector, word};
use crate::backend::cpu::simd::{Isa, LANES};
use crate::quant::iq::{self, IQ4_LEVELS};
use crate::quant::k;
use crate::quant::simple::F16;
use std::array::from_fn;

const GROUPS: usize = 8;

/// The packed four-bit integers of all groups, from `quad(lane, group, i)`, which has an integer in each byte.
#[inline(always)]
fn pack_four_bits(quants: &mut [u8], quad: impl Fn(usize, usize, usize) -> u32) {
    for pair in 0..GROUPS / 2 {
        for i in 0..8 {
            put(quants, 8 * pair + i, |lane| {
                quad(lane, 2 * pair, i) & 0x0f0f_0f0f | (quad(lane, 2 * pair + 1, i) & 0x0f0f_0f0f) << 4
            });
        }
    }
}

/// The packed two-bit integers of all groups, from vector `at` on.
#[inline(always)]
fn pack_two_bits(quants: &mut [u8], at: usize, quad: impl Fn(usize, usize, usize) -> u32) {
    for group in 0..GROUPS {
        for half in 0..2 {
            put(quants, at + 2 * group + half, |lane| {
                (0..4).fold(0, |all, i| all | (quad(lane, group, 4 * half + i) & 0x0303_0303) << (2 * i))
            });
        }
    }
}

/// The packed single bits of all groups, from vector `at` on.
#[inline(always)]
fn pack_bits(quants: &mut [u8], at: usize, quad: impl Fn(usize, usize, usize) -> u32) {
    for group in 0..GROUPS {
        put(quants, at + group, |lane| (0..8).fold(0, |all, i| all | (quad(lane, group, i) & 0x0101_0101) << i));
    }
}

/// Sixteen six-bit integers of each row.
#[inline(always)]
fn pack_six_bits(scales: &mut [u8], values: &[[u8; 16]; LANES]) {
    for third in 0..3 {
        put(scales, third, |lane| {
            word(&values[lane], third) | (word(&values[lane], 3) >> (2 * third) & 0x0303_0303) << 6
        });
    }
}

/// Four words of four six-bit integers in each lane.
#[inline(always)]
fn six_bits<S: Isa>(s: S, scales: &[u8]) -> [S::I; 4] {
    let (a, b, c) = (vector(s, scales, 0), vector(s, scales, 1), vector(s, scales, 2));
    let (low, two) = (s.splat(0x3f3f_3f3f), s.splat(0x0303_0303));
    let upper = s.or(
        s.and(s.shr::<6>(a), two),
        s.or(s.shl::<2>(s.and(s.shr::<6>(b), two)), s.shl::<4>(s.and(s.shr::<6>(c), two))),
    );
    [s.and(a, low), s.and(b, low), s.and(c, low), upper]
}

/// The first four vectors.
#[inline(always)]
fn vectors<S: Isa>(s: S, bytes: &[u8]) -> [S::I; 4] {
    [vector(s, bytes, 0), vector(s, bytes, 1), vector(s, bytes, 2), vector(s, bytes, 3)]
}

/// The four bytes of each lane, widened: each byte twice.
#[inline(always)]
fn twice<S: Isa>(s: S, bytes: S::I) -> [S::I; 4] {
    [s.pair::<0, 0>(bytes), s.pair::<1, 1>(bytes), s.pair::<2, 2>(bytes), s.pair::<3, 3>(bytes)]
}

/// The four bytes of each lane, widened, two and two.
#[inline(always)]
fn by_twos<S: Isa>(s: S, bytes: S::I) -> [S::I; 2] {
    [s.pair::<0, 1>(bytes), s.pair::<2, 3>(bytes)]
}

/// Scales of groups of 32.
#[inline(always)]
fn scales_of_8<S: Isa>(s: S, scale: [S::I; 2], minimum: [S::I; 2], d: S::F, dmin: S::F) -> Scales<S> {
    let ([a, b, c, e], [f, g, h, i]) = (twice(s, scale[0]), twice(s, scale[1]));
    let ([j, k], [l, m]) = (by_twos(s, minimum[0]), by_twos(s, minimum[1]));
    let z = s.splat(0);
    Scales { scale: [a, b, c, e, f, g, h, i, z, z, z, z, z, z, z, z], minimum: [j, k, l, m, z, z, z, z], d, dmin }
}

/// Scales of groups of 16.
#[inline(always)]
fn scales_of_16<S: Isa>(s: S, scale: [S::I; 4], minimum: [S::I; 4], d: S::F, dmin: S::F) -> Scales<S> {
    let mut scales = Scales { scale: [s.splat(0); 16], minimum: [s.splat(0); 8], d, dmin };
    for i in 0..4 {
        scales.scale.as_chunks_mut().0[i] = twice(s, scale[i]);
        scales.minimum.as_chunks_mut().0[i] = by_twos(s, minimum[i]);
    }
    scales
}

/// The numbers behind `at` bytes of scales.
#[inline(always)]
fn halves<S: Isa>(s: S, scales: &[u8], at: usize) -> S::F {
    s.load_f16(scales.get(at..).unwrap_or_default())
}

/// Quad I of a group from the packed four-bit integers.
#[inline(always)]
fn four_bits<S: Isa, const HALF: usize, const I: usize>(s: S, quants: &[u8], pair: usize) -> S::I {
    nibbles::<S, HALF>(s, vector(s, quants, 8 * pair + I))
}

/// The vector of single bits of a group.
#[inline(always)]
fn bits_of<S: Isa, const HALF: usize>(s: S, quants: &[u8], at: usize, pair: usize) -> S::I {
    vector(s, quants, at + 2 * pair + HALF)
}

/// The vector of two-bit numbers that quad I of a group is in.
#[inline(always)]
fn two_bits_of<S: Isa, const HALF: usize, const I: usize>(s: S, quants: &[u8], at: usize, pair: usize) -> S::I {
    vector(s, quants, at + 2 * (2 * pair + HALF) + I / 4)
}

/// What differs between the formats of 256 columns.
macro_rules! large {
    (
        $name:ident: $block:ty, quants $quants:literal, span $span:literal, signed $signed:literal,
        pack |$b:ident, $q:ident, $sc:ident| $pack:block
        quad<$half:ident, $i:ident> |$s:ident, $qv:ident, $pair:ident| $quad:expr,
        group $group:literal, minimum $minimum:expr, scales |$ss:ident, $scv:ident| $scales:block
    ) => {
        #[allow(non_camel_case_types, reason = "the formats' own names")]
        pub(crate) struct $name;

        impl Format for $name {
            const COLUMNS: usize = 256;
            const BLOCK: usize = size_of::<$block>();
            const QUANTS: usize = $quants;
            const SIGNED: bool = $signed;
            const SPAN: usize = $span;

            #[inline(always)]
            fn pack(blocks: [&[u8]; LANES], $q: &mut [u8], $sc: &mut [u8]) {
                let Some($b) = read::<$block>(blocks) else { return };
                $pack
            }

            #[inline(always)]
            fn quad<S: Isa, const $half: usize, const $i: usize>($s: S, $qv: &[u8], $pair: usize) -> S::I {
                $quad
            }
        }

        impl IntScaled for $name {
            const GROUP: usize = $group;
            const MINIMUM: Minimum = $minimum;

            #[inline(always)]
            fn scales<S: Isa>($ss: S, $scv: &[u8]) -> Scales<S> {
                $scales
            }
        }
    };
}

/// Word i of plane `group % 4` of two-bit integers as the file has them.
#[inline(always)]
fn quarter(qs: &[u8], group: usize, i: usize) -> u32 {
    word(qs, 8 * (group / 4) + i) >> (2 * (group % 4))
}

/// Word i of the halves of Q4_K and Q5_K, which alternate by 32 bytes.
#[inline(always)]
fn half(qs: &[[u8; 32]; 4], group: usize, i: usize) -> u32 {
    word(qs.as_flattened(), 8 * (group / 2) + i) >> (4 * (group % 2))
}

/// Scales and minimums of each row of Q4_K and Q5_K.
#[inline(always)]
fn pack_k_scales(scales: &mut [u8], block: impl Fn(usize) -> ([u8; 12], F16, F16)) {
    let values = from_fn(|lane| {
        let mut values = [0; 16];
        let (scale, minimum) = values.split_at_mut(8);
        let (packed, ..) = block(lane);
        for ((scale, minimum), pair) in scale.iter_mut().zip(minimum).zip(k::scales_and_minimums(&packed)) {
            (*scale, *minimum) = pair;
        }
        values
    });
    pack_six_bits(scales, &values);
    put_bytes(scales, 12 * LANES, |lane| block(lane).1.0);
    put_bytes(scales, 14 * LANES, |lane| block(lane).2.0);
}

/// The twin of [`pack_k_scales`].
#[inline(always)]
fn k_scales<S: Isa>(s: S, scales: &[u8]) -> Scales<S> {
    let [a, b, c, e] = six_bits(s, scales);
    scales_of_8(s, [a, b], [c, e], halves(s, scales, 12 * LANES), halves(s, scales, 14 * LANES))
}

large! {
    Q4_K: k::Q4_K, quants 1024, span 8, signed false,
    pack |b, quants, scales| {
        pack_four_bits(quants, |lane, group, i| half(&b[lane].qs, group, i));
        pack_k_scales(scales, |lane| (b[lane].scales, b[lane].d, b[lane].dmin));
    }
    quad<HALF, I> |s, quants, pair| four_bits::<S, HALF, I>(s, quants, pair),
    group 32, minimum Minimum::Group, scales |s, scales| { k_scales(s, scales) }
}

large! {
    Q5_K: k::Q5_K, quants 1280, span 4, signed false,
    pack |b, quants, scales| {
        pack_four_bits(quants, |lane, group, i| half(&b[lane].qs, group, i));
        pack_bits(quants, 32, |lane, group, i| word(&b[lane].qh, i) >> group);
        pack_k_scales(scales, |lane| (b[lane].scales, b[lane].d, b[lane].dmin));
    }
    quad<HALF, I> |s, quants, pair| s.or(
        four_bits::<S, HALF, I>(s, quants, pair),
        bit::<S, I, 4>(s, bits_of::<S, HALF>(s, quants, 32, pair)),
    ),
    group 32, minimum Minimum::Group, scales |s, scales| { k_scales(s, scales) }
}

large! {
    Q6_K: k::Q6_K, quants 1536, span 2, signed false,
    pack |b, quants, scales| {
        pack_four_bits(quants, |lane, group, i| {
            word(b[lane].ql.as_flattened(), 16 * (group / 4) + 8 * (group % 2) + i) >> (4 * (group % 4 / 2))
        });
        pack_two_bits(quants, 32, |lane, group, i| quarter(&b[lane].qh, group, i));
        for four in 0..4 {
            put(scales, four, |lane| word(bytemuck::cast_slice(&b[lane].scales), four));
        }
        put_bytes(scales, 16 * LANES, |lane| b[lane].d.0);
    }
    quad<HALF, I> |s, quants, pair| s.or(
        four_bits::<S, HALF, I>(s, quants, pair),
        two_bits::<S, I, 4>(s, two_bits_of::<S, HALF, I>(s, quants, 32, pair)),
    ),
    group 16, minimum Minimum::Centre(32), scales |s, scales| {
        let scale = vectors(s, scales);
        let d = halves(s, scales, 16 * LANES);
        scales_of_16(s, scale, scale, d, d)
    }
}

large! {
    Q2_K: k::Q2_K, quants 512, span 4, signed false,
    pack |b, quants, scales| {
        pack_two_bits(quants, 0, |lane, group, i| quarter(&b[lane].qs, group, i));
        for four in 0..4 {
            put(scales, four, |lane| word(&b[lane].scales, four));
        }
        put_bytes(scales, 16 * LANES, |lane| b[lane].d.0);
        put_bytes(scales, 18 * LANES, |lane| b[lane].dmin.0);
    }
    quad<HALF, I> |s, quants, pair| two_bits::<S, I, 0>(s, two_bits_of::<S, HALF, I>(s, quants, 0, pair)),
    group 16, minimum Minimum::Group, scales |s, scales| {
        let (mut scale, mut minimum) = (vectors(s, scales), vectors(s, scales));
        for i in 0..4 {
            scale[i] = nibbles::<S, 0>(s, scale[i]);
            minimum[i] = nibbles::<S, 1>(s, minimum[i]);
        }
        scales_of_16(s, scale, minimum, halves(s, scales, 16 * LANES), halves(s, scales, 18 * LANES))
    }
}

large! {
    Q3_K: k::Q3_K, quants 768, span 4, signed false,
    pack |b, quants, scales| {
        pack_two_bits(quants, 0, |lane, group, i| quarter(&b[lane].qs, group, i));
        pack_bits(quants, 16, |lane, group, i| word(&b[lane].hmask, i) >> group);
        pack_six_bits(scales, &b.map(|b| b.scales().map(|scale| (scale + 32) as u8)));
        put_bytes(scales, 12 * LANES, |lane| b[lane].d.0);
    }
    quad<HALF, I> |s, quants, pair| s.or(
        two_bits::<S, I, 0>(s, two_bits_of::<S, HALF, I>(s, quants, 0, pair)),
        bit::<S, I, 2>(s, bits_of::<S, HALF>(s, quants, 16, pair)),
    ),
    group 16, minimum Minimum::Centre(4), scales |s, scales| {
        let mut scale = six_bits(s, scales);
        for four in &mut scale {
            *four = s.sub_bytes(*four, s.splat(0x2020_2020));
        }
        let d = halves(s, scales, 12 * LANES);
        scales_of_16(s, scale, scale, d, d)
    }
}

large! {
    IQ4_XS: iq::IQ4_XS, quants 1024, span 1, signed true,
    pack |b, quants, scales| {
        // In the file each group has its first 16 columns in the low halves of 16 bytes, the others in the high halves.
        pack_four_bits(quants, |lane, group, i| {
            word(bytemuck::bytes_of(&b[lane].qs), 4 * group + i % 4) >> (4 * (i / 4))
        });
        let values = b.map(|b| b.scales().map(|scale| (scale + 32) as u8));
        put(scales, 0, |lane| {
            word(&values[lane], 0) & 0x0f0f_0f0f | (word(&values[lane], 1) & 0x0f0f_0f0f) << 4
        });
        put_bytes(scales, 4 * LANES, |lane| {
            let (a, c) = (word(&values[lane], 0), word(&values[lane], 1));
            let upper = a >> 4 & 0x0303_0303 | (c >> 4 & 0x0303_0303) << 2;
            let [p, q, r, t] = upper.to_le_bytes();
            [p | q << 4, r | t << 4]
        });
        put_bytes(scales, 6 * LANES, |lane| b[lane].d.0);
    }
    quad<HALF, I> |s, quants, pair| s.lookup(&IQ4_LEVELS, four_bits::<S, HALF, I>(s, quants, pair)),
    group 32, minimum Minimum::None, scales |s, scales| {
        let low = vector(s, scales, 0);
        let upper = s.load_u16(scales.get(4 * LANES..).unwrap_or_default());
        let upper = s.and(s.or(upper, s.shl::<8>(upper)), s.splat(0x00ff_00ff));
        let upper = s.and(s.or(upper, s.shl::<4>(upper)), s.splat(0x0f0f_0f0f));
        let (two, centre) = (s.splat(0x0303_0303), s.splat(0x2020_2020));
        let a = s.or(nibbles::<S, 0>(s, low), s.shl::<4>(s.and(upper, two)));
        let c = s.or(nibbles::<S, 1>(s, low), s.shl::<4>(s.and(s.shr::<2>(upper), two)));
        let d = halves(s, scales, 6 * LANES);
        let scale = [s.sub_bytes(a, centre), s.sub_bytes(c, centre)];
        scales_of_8(s, scale, scale, d, d)
    }
}
