//! Blocks of one number: F32, F16, BF16.
//!
//! The same structs are the scales inside other blocks. Numbers are kept as little-endian bytes, as in the file, so that
//! they have no alignment.
//!
//! The conversions are written out here rather than left to the processor: they then give the same bits on every
//! machine, NaNs included, and can be evaluated at compile time. Widening is exact. Narrowing rounds to the nearest,
//! ties to even; what is too large becomes infinity, and a NaN stays a (quiet) NaN of its sign.

use super::{Block, assert_layout};
use crate::gguf::TensorType;
use bytemuck::{Pod, Zeroable};

/// A 32-bit floating-point number.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct F32(pub [u8; 4]);

/// A 16-bit floating-point number: 5 bits of exponent, 10 of fraction.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct F16(pub [u8; 2]);

/// The upper half of a 32-bit floating-point number: 8 bits of exponent, 7 of fraction.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct BF16(pub [u8; 2]);

const _: () = assert_layout::<F32>();
const _: () = assert_layout::<F16>();
const _: () = assert_layout::<BF16>();

impl F32 {
    /// The number.
    pub const fn get(self) -> f32 {
        f32::from_le_bytes(self.0)
    }

    /// The bytes of a number.
    pub const fn new(value: f32) -> Self {
        F32(value.to_le_bytes())
    }
}

impl F16 {
    /// The number, exactly.
    pub const fn get(self) -> f32 {
        f16_to_f32(u16::from_le_bytes(self.0))
    }

    /// The nearest number to `value`.
    pub const fn new(value: f32) -> Self {
        F16(f32_to_f16(value).to_le_bytes())
    }
}

impl BF16 {
    /// The number, exactly.
    pub const fn get(self) -> f32 {
        bf16_to_f32(u16::from_le_bytes(self.0))
    }

    /// The nearest number to `value`.
    pub const fn new(value: f32) -> Self {
        BF16(f32_to_bf16(value).to_le_bytes())
    }
}

impl Block for F32 {
    const TYPE: TensorType = TensorType::F32;
    type Values = [f32; 1];

    fn decode(&self, values: &mut [f32; 1]) {
        *values = [self.get()];
    }
}

impl Block for F16 {
    const TYPE: TensorType = TensorType::F16;
    type Values = [f32; 1];

    fn decode(&self, values: &mut [f32; 1]) {
        *values = [self.get()];
    }
}

impl Block for BF16 {
    const TYPE: TensorType = TensorType::BF16;
    type Values = [f32; 1];

    fn decode(&self, values: &mut [f32; 1]) {
        *values = [self.get()];
    }
}

/// 2^112: what the exponent biases of F32 (127) and F16 (15) differ by.
const REBIAS: f32 = f32::from_bits((127 + 112) << 23);

/// The number with these bits.
pub const fn f16_to_f32(bits: u16) -> f32 {
    let sign = (bits as u32 & 0x8000) << 16;
    let shifted = (bits as u32 & 0x7fff) << 13; // exponent and fraction, where F32 has them
    let magnitude = match shifted {
        // A number, subnormal or not: the exponent is 112 too small, and scaling by a power of two is exact.
        0..0x0f80_0000 => (f32::from_bits(shifted) * REBIAS).to_bits(),
        0x0f80_0000 => f32::INFINITY.to_bits(),
        _ => shifted | 0x7fc0_0000,
    };
    f32::from_bits(sign | magnitude)
}

/// The bits of the nearest number.
pub const fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = match bits & 0x7fff_ffff {
        // Below 2^-14, where the spacing is 2^-24 as it is from 0.5 to 1: an addition rounds to it.
        tiny @ 0..0x3880_0000 => (f32::from_bits(tiny) + 0.5).to_bits() - 0.5f32.to_bits(),
        // From 65520 on: nearer to the power of two beyond the largest number than to that number.
        0x477f_f000..=0x7f80_0000 => 0x7c00,
        normal @ 0..0x477f_f000 => (half_to_even(normal, 13) - (112 << 23)) >> 13,
        _ => 0x7e00,
    };
    sign | magnitude as u16
}

/// The number with these bits.
pub const fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// The bits of the nearest number.
pub const fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    match value.is_nan() {
        true => (bits >> 16) as u16 | 0x0040,
        false => (half_to_even(bits, 16) >> 16) as u16,
    }
}

/// Adds what makes dropping the lowest `dropped` bits round to the nearest, ties to even.
const fn half_to_even(bits: u32, dropped: u32) -> u32 {
    let odd = bits >> dropped & 1;
    bits + (1 << (dropped - 1)) - 1 + odd
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of 16 bits from the definition, in arithmetic that is exact for all of them.
    fn by_definition(bits: u16, exponent_bits: u32) -> f64 {
        let fraction_bits = 15 - exponent_bits;
        let bias = (1 << (exponent_bits - 1)) - 1;
        let exponent = i32::from(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
        let fraction = f64::from(bits & ((1 << fraction_bits) - 1)) / f64::from(1 << fraction_bits);
        let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
        if exponent == (1 << exponent_bits) - 1 {
            return if fraction == 0.0 { sign * f64::INFINITY } else { f64::NAN };
        }
        let (lead, exponent) = if exponent == 0 { (0.0, 1) } else { (1.0, exponent) };
        sign * (lead + fraction) * f64::from(exponent - bias).exp2()
    }

    /// Checks all 65,536 patterns, and that each pair of neighbours is told apart at the right place.
    fn check(exponent_bits: u32, widen: fn(u16) -> f32, narrow: fn(f32) -> u16) {
        for bits in 0..=u16::MAX {
            let (value, expected) = (widen(bits), by_definition(bits, exponent_bits));
            if expected.is_nan() {
                assert!(value.is_nan() && widen(narrow(value)).is_nan(), "{bits:#06x}");
                assert_eq!(value.is_sign_negative(), bits >> 15 == 1, "{bits:#06x}");
                continue;
            }
            assert_eq!(f64::from(value).to_bits(), expected.to_bits(), "{bits:#06x}");
            assert_eq!(narrow(value), bits, "{bits:#06x} there and back");
            let next = by_definition(bits + 1, exponent_bits);
            if expected.is_infinite() || next.is_nan() {
                continue;
            }
            // Infinity takes over where the next number of the same spacing would.
            let spacing = expected - by_definition(bits.wrapping_sub(1), exponent_bits);
            let middle = if next.is_infinite() { expected + spacing / 2.0 } else { (expected + next) / 2.0 } as f32;
            let even = bits + (bits & 1);
            let (inward, outward) = (f32::from_bits(middle.to_bits() - 1), f32::from_bits(middle.to_bits() + 1));
            assert_eq!(narrow(middle), even, "the middle above {bits:#06x}");
            assert_eq!((narrow(inward), narrow(outward)), (bits, bits + 1), "beside the middle above {bits:#06x}");
        }
    }

    #[test]
    fn f16_by_definition() {
        check(5, f16_to_f32, f32_to_f16);
        assert_eq!(f32_to_f16(f32::MAX), 0x7c00);
        assert_eq!(f32_to_f16(-f32::from_bits(1)), 0x8000);
        assert_eq!(f16_to_f32(0xfc01).to_bits(), 0xffc0_2000, "a quiet NaN with the same payload");
        assert_eq!((f32_to_f16(f32::NAN), f32_to_f16(-f32::NAN)), (0x7e00, 0xfe00));
    }

    #[test]
    fn bf16_by_definition() {
        check(8, bf16_to_f32, f32_to_bf16);
        assert_eq!(f32_to_bf16(f32::from_bits(0xff80_0001)), 0xffc0, "a NaN stays one");
    }
}
