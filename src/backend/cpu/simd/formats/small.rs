//! Formats of 32 columns. The four-bit integers keep the order of the file: the vector with columns 4c to 4c+3 in its
//! low halves has columns 16+4c to 16+4c+3 in its high halves.

use super::{FloatScaled, Format, VECTOR, bit, nibbles, put, put_bytes, read, vector, word};
use crate::backend::cpu::simd::{Isa, LANES};
use crate::quant::fp4::{self, DOUBLED_E2M1};
use crate::quant::iq::{self, IQ4_LEVELS};
use crate::quant::legacy;

/// Sixteen bytes of halves of each row to four vectors.
#[inline(always)]
fn pack_nibbles<'a>(quants: &mut [u8], qs: impl Fn(usize) -> &'a [u8; 16]) {
    for chunk in 0..4 {
        put(quants, chunk, |lane| word(qs(lane), chunk));
    }
}

/// Fifth bits to a vector of their own: bit i of byte b belongs to column 4i + b.
#[inline(always)]
fn pack_fifth_bits(quants: &mut [u8], qh: impl Fn(usize) -> [u8; 4]) {
    put(quants, 4, |lane| {
        let bits = u32::from_le_bytes(qh(lane));
        let spread = |i: u32| (((bits >> (4 * i) & 15) * 0x0020_4081) & 0x0101_0101) << i;
        (0..8).map(spread).fold(0, |all, bits| all | bits)
    });
}

/// The four-bit integers of quad I.
#[inline(always)]
fn four_bits<S: Isa, const I: usize>(s: S, quants: &[u8]) -> S::I {
    let chunk = vector(s, quants, I % 4);
    if I < 4 { nibbles::<S, 0>(s, chunk) } else { nibbles::<S, 1>(s, chunk) }
}

/// The five-bit integers of quad I.
#[inline(always)]
fn five_bits<S: Isa, const I: usize>(s: S, quants: &[u8]) -> S::I {
    s.or(four_bits::<S, I>(s, quants), bit::<S, I, 4>(s, vector(s, quants, 4)))
}

/// Scales, and the minimums that a fixed centre amounts to.
#[inline(always)]
fn centred<S: Isa>(s: S, scales: &[u8], centre: f32) -> (S::F, S::F) {
    let d = s.load_f16(scales);
    (d, s.mul_f32(d, s.splat_f32(-centre)))
}

/// Scales, then minimums.
#[inline(always)]
fn with_minimums<S: Isa>(s: S, scales: &[u8]) -> (S::F, S::F) {
    (s.load_f16(scales), s.load_f16(scales.get(2 * LANES..).unwrap_or_default()))
}

/// What differs between the formats of 32 columns.
macro_rules! small {
    (
        $(#[$doc:meta])* $name:ident: $block:ty, quants $quants:literal, span $span:literal, signed $signed:literal,
        pack |$b:ident, $q:ident, $sc:ident| $pack:block
        quad<$i:ident> |$s:ident, $qv:ident| $quad:expr,
        minimum $minimum:literal, scales |$ss:ident, $scv:ident| $scales:expr
    ) => {
        $(#[$doc])*
        #[allow(non_camel_case_types, reason = "the formats' own names")]
        pub(crate) struct $name;

        impl Format for $name {
            const COLUMNS: usize = 32;
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
            fn quad<S: Isa, const HALF: usize, const $i: usize>($s: S, $qv: &[u8], _pair: usize) -> S::I {
                $quad
            }
        }

        impl FloatScaled for $name {
            const MINIMUM: bool = $minimum;

            #[inline(always)]
            fn scales<S: Isa>($ss: S, $scv: &[u8]) -> (S::F, S::F) {
                $scales
            }
        }
    };
}

small! {
    Q4_0: legacy::Q4_0, quants 128, span 8, signed false,
    pack |b, quants, scales| {
        pack_nibbles(quants, |lane| &b[lane].qs);
        put_bytes(scales, 0, |lane| b[lane].d.0);
    }
    quad<I> |s, quants| four_bits::<S, I>(s, quants),
    minimum true, scales |s, scales| centred(s, scales, 8.0)
}

small! {
    Q4_1: legacy::Q4_1, quants 128, span 8, signed false,
    pack |b, quants, scales| {
        pack_nibbles(quants, |lane| &b[lane].qs);
        put_bytes(scales, 0, |lane| b[lane].d.0);
        put_bytes(scales, 2 * LANES, |lane| b[lane].m.0);
    }
    quad<I> |s, quants| four_bits::<S, I>(s, quants),
    minimum true, scales |s, scales| with_minimums(s, scales)
}

small! {
    Q5_0: legacy::Q5_0, quants 160, span 4, signed false,
    pack |b, quants, scales| {
        pack_nibbles(quants, |lane| &b[lane].qs);
        pack_fifth_bits(quants, |lane| b[lane].qh);
        put_bytes(scales, 0, |lane| b[lane].d.0);
    }
    quad<I> |s, quants| five_bits::<S, I>(s, quants),
    minimum true, scales |s, scales| centred(s, scales, 16.0)
}

small! {
    Q5_1: legacy::Q5_1, quants 160, span 4, signed false,
    pack |b, quants, scales| {
        pack_nibbles(quants, |lane| &b[lane].qs);
        pack_fifth_bits(quants, |lane| b[lane].qh);
        put_bytes(scales, 0, |lane| b[lane].d.0);
        put_bytes(scales, 2 * LANES, |lane| b[lane].m.0);
    }
    quad<I> |s, quants| five_bits::<S, I>(s, quants),
    minimum true, scales |s, scales| with_minimums(s, scales)
}

small! {
    Q8_0: legacy::Q8_0, quants 256, span 1, signed true,
    pack |b, quants, scales| {
        for i in 0..8 {
            put(quants, i, |lane| word(bytemuck::cast_slice(&b[lane].qs), i));
        }
        put_bytes(scales, 0, |lane| b[lane].d.0);
    }
    quad<I> |s, quants| vector(s, quants, I),
    minimum false, scales |s, scales| centred(s, scales, 0.0)
}

small! {
    IQ4_NL: iq::IQ4_NL, quants 128, span 1, signed true,
    pack |b, quants, scales| {
        pack_nibbles(quants, |lane| &b[lane].qs);
        put_bytes(scales, 0, |lane| b[lane].d.0);
    }
    quad<I> |s, quants| s.lookup(&IQ4_LEVELS, four_bits::<S, I>(s, quants)),
    minimum false, scales |s, scales| centred(s, scales, 0.0)
}

/// The numbers of MXFP4 with 12 added, so that they have no sign.
const RAISED_E2M1: [i8; 16] = {
    let mut raised = DOUBLED_E2M1;
    let mut i = 0;
    while i < raised.len() {
        raised[i] += 12;
        i += 1;
    }
    raised
};

small! {
    MXFP4: fp4::MXFP4, quants 128, span 4, signed false,
    pack |b, quants, scales| {
        pack_nibbles(quants, |lane| &b[lane].qs);
        put_bytes(scales, 0, |lane| [b[lane].e]);
    }
    quad<I> |s, quants| s.lookup(&RAISED_E2M1, four_bits::<S, I>(s, quants)),
    minimum true, scales |s, scales| {
        let d = s.load_half_e8m0(scales);
        (d, s.mul_f32(d, s.splat_f32(-12.0)))
    }
}

const _: () = assert!(VECTOR == 32, "the sizes of quants above are those of vectors of 32 bytes");
