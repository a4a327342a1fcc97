//! The legacy formats, the ternary ones and the four-bit floating-point ones. [`super`] says how bits lie in a plane.

use super::planes::{Repack, all_quarters, bits, nibbles};
use crate::quant::fp4::{MXFP4, NVFP4};
use crate::quant::legacy::{Q1_0, Q2_0, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use crate::quant::ternary::{TQ1_0, TQ2_0};

/// Bits, a word a unit; scales.
impl Repack for Q1_0 {
    type Planes = ([u8; 16], [u8; 2]);

    fn repack(&self) -> Self::Planes {
        let units: [[u8; 4]; 4] = bytemuck::cast(self.qs);
        (bytemuck::cast(units.map(|unit| bits(u32::from_le_bytes(unit)).to_le_bytes())), self.d.0)
    }
}

/// Two bits each; scales.
impl Repack for Q2_0 {
    type Planes = ([u8; 16], [u8; 2]);

    fn repack(&self) -> Self::Planes {
        let column = |i: usize| self.qs[i / 4] >> (2 * (i % 4)) & 3;
        let byte = |i| column(i) | column(16 + i) << 2 | column(32 + i) << 4 | column(48 + i) << 6;
        (std::array::from_fn(byte), self.d.0)
    }
}

/// Four bits each; scales.
impl Repack for Q4_0 {
    type Planes = ([u8; 16], [u8; 2]);

    fn repack(&self) -> Self::Planes {
        (self.qs, self.d.0)
    }
}

/// Four bits each; scales and minimums.
impl Repack for Q4_1 {
    type Planes = ([u8; 16], [u8; 4]);

    fn repack(&self) -> Self::Planes {
        (self.qs, bytemuck::cast([self.d.0, self.m.0]))
    }
}

/// Four bits each; the fifth bits; scales.
impl Repack for Q5_0 {
    type Planes = ([u8; 16], [u8; 4], [u8; 2]);

    fn repack(&self) -> Self::Planes {
        (self.qs, bits(u32::from_le_bytes(self.qh)).to_le_bytes(), self.d.0)
    }
}

/// Four bits each; the fifth bits; scales and minimums.
impl Repack for Q5_1 {
    type Planes = ([u8; 16], [u8; 4], [u8; 4]);

    fn repack(&self) -> Self::Planes {
        (self.qs, bits(u32::from_le_bytes(self.qh)).to_le_bytes(), bytemuck::cast([self.d.0, self.m.0]))
    }
}

/// The first 16 of each unit, the other 16 of each unit; scales.
impl Repack for Q8_0 {
    type Planes = ([u8; 16], [u8; 16], [u8; 2]);
    const QUANT_PLANES: usize = 2;

    fn repack(&self) -> Self::Planes {
        let [first, second] = bytemuck::cast(self.qs);
        (first, second, self.d.0)
    }
}

/// The digits as in the file, 48 bytes a block; those of the last 16 columns, a word a block; scales.
impl Repack for TQ1_0 {
    type Planes = ([u8; 48], [u8; 4], [u8; 2]);

    fn repack(&self) -> Self::Planes {
        (self.qs, self.qh, self.d.0)
    }
}

/// Two bits each; scales.
impl Repack for TQ2_0 {
    type Planes = ([u8; 64], [u8; 2]);

    fn repack(&self) -> Self::Planes {
        (all_quarters(&self.qs), self.d.0)
    }
}

/// Four bits each; exponents.
impl Repack for MXFP4 {
    type Planes = ([u8; 16], [u8; 1]);

    fn repack(&self) -> Self::Planes {
        (self.qs, [self.e])
    }
}

/// Four bits each; scales, two bytes a unit.
impl Repack for NVFP4 {
    type Planes = ([u8; 32], [u8; 4]);

    fn repack(&self) -> Self::Planes {
        // The first eight columns of each group are in the low halves: those of two groups become eight bytes of a unit.
        let [a, b, c, d] = self.qs.map(|group| u128::from(u64::from_le_bytes(group)));
        let [low, high] = nibbles(a | c << 64, b | d << 64).map(u128::to_le_bytes);
        let ([low0, low1], [high0, high1]): ([[u8; 8]; 2], [[u8; 8]; 2]) = (bytemuck::cast(low), bytemuck::cast(high));
        (bytemuck::cast([low0, high0, low1, high1]), self.d)
    }
}
