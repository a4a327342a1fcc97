//! Four-bit floating-point numbers (E2M1) under eight-bit scales.
//!
//! A four-bit number has a sign, two bits of exponent and one of fraction: ±0, 0.5, 1, 1.5, 2, 3, 4, 6. The table below
//! holds them doubled, as integers, and the scales are halved to make up for it; so dot products can stay in integers.

use super::bits::nibbles;
use super::{Block, assert_layout};
use crate::gguf::TensorType;
use bytemuck::{Pod, Zeroable};

/// Twice the value of each four-bit number. Minus zero is worth the same as zero.
pub const DOUBLED_E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 32 numbers under a power of two.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct MXFP4 {
    /// Scale: the exponent of a power of two, biased by 127 (E8M0).
    pub e: u8,
    /// Values 0 to 15 in the low halves, 16 to 31 in the high halves.
    pub qs: [u8; 16], // [32 / 2]
}

/// 64 numbers in four groups of 16, each under its own scale. The tensor as a whole has a further scale, which the
/// file stores as a tensor of its own.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct NVFP4 {
    /// Scales: unsigned, four bits of exponent, three of fraction (UE4M3).
    pub d: [u8; 4], // [64 / 16]
    /// In each group the first 8 values in the low halves, the other 8 in the high halves.
    pub qs: [[u8; 8]; 4], // [64 / 16][16 / 2]
}

const _: () = assert_layout::<MXFP4>();
const _: () = assert_layout::<NVFP4>();

/// Half of the power of two that an E8M0 scale stands for: 2^(e - 128). The pattern that the standard calls NaN (255)
/// is worth 2^127 like any other; the two lowest give subnormal numbers.
pub const fn half_e8m0(e: u8) -> f32 {
    f32::from_bits(match e {
        0..2 => 0x0020_0000 << e,
        _ => (e as u32 - 1) << 23,
    })
}

/// Half of what a UE4M3 scale stands for. The pattern that the standard calls NaN (0x7f) is worth 0; the highest bit has
/// no meaning, except that with it 0x7f is a number.
pub fn half_ue4m3(bits: u8) -> f32 {
    let (exponent, fraction) = (bits >> 3 & 15, f32::from(bits & 7));
    match (bits, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => fraction * f32::from_bits((127 - 10) << 23),
        _ => (8.0 + fraction) * f32::from_bits((127 - 11 + u32::from(exponent)) << 23),
    }
}

fn number(bits: u8) -> f32 {
    f32::from(DOUBLED_E2M1[usize::from(bits & 15)])
}

impl Block for MXFP4 {
    const TYPE: TensorType = TensorType::MXFP4;
    type Values = [f32; 32];

    fn decode(&self, values: &mut [f32; 32]) {
        let d = half_e8m0(self.e);
        for (value, q) in values.iter_mut().zip(nibbles(&self.qs)) {
            *value = d * number(q);
        }
    }
}

impl Block for NVFP4 {
    const TYPE: TensorType = TensorType::NVFP4;
    type Values = [f32; 64];

    fn decode(&self, values: &mut [f32; 64]) {
        let (groups, _) = values.as_chunks_mut::<16>();
        for ((values, qs), &scale) in groups.iter_mut().zip(&self.qs).zip(&self.d) {
            let d = half_ue4m3(scale);
            for (value, q) in values.iter_mut().zip(nibbles(qs)) {
                *value = d * number(q);
            }
        }
    }
}
