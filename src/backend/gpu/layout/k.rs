//! The K formats. [`super`] says how bits lie in a plane.

use super::planes::{Repack, all_bits, all_quarters, nibbles, sixes};
use crate::quant::k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};

/// Two bits each; for each group a byte of scale and minimum; their scales.
impl Repack for Q2_K {
    type Planes = ([u8; 64], [u8; 16], [u8; 4]);

    fn repack(&self) -> Self::Planes {
        (all_quarters(&self.qs), self.scales, bytemuck::cast([self.d.0, self.dmin.0]))
    }
}

/// Two bits each; the third bits; the scales of both groups of a unit, twelve bits in two planes; their scale.
impl Repack for Q3_K {
    type Planes = ([u8; 64], [u8; 32], [u8; 8], [u8; 4], [u8; 2]);

    fn repack(&self) -> Self::Planes {
        let scales: [[u8; 2]; 8] = bytemuck::cast(self.scales().map(|scale| (scale + 32) as u8));
        let (low, high) = sixes(u64::from_le_bytes(scales.map(|s| s[0])), u64::from_le_bytes(scales.map(|s| s[1])));
        (all_quarters(&self.qs), all_bits(&self.hmask), low, high, self.d.0)
    }
}

/// Four bits each; the scales of scales and minimums; scales and minimums, twelve bits in two planes.
impl Repack for Q4_K {
    type Planes = ([u8; 128], [u8; 4], [u8; 8], [u8; 4]);

    fn repack(&self) -> Self::Planes {
        let (low, high) = scales_and_minimums(&self.scales);
        (all_nibbles(&self.qs), bytemuck::cast([self.d.0, self.dmin.0]), low, high)
    }
}

/// As Q4_K; before the scales the fifth bits.
impl Repack for Q5_K {
    type Planes = ([u8; 128], [u8; 32], [u8; 4], [u8; 8], [u8; 4]);

    fn repack(&self) -> Self::Planes {
        let (low, high) = scales_and_minimums(&self.scales);
        (all_nibbles(&self.qs), all_bits(&self.qh), bytemuck::cast([self.d.0, self.dmin.0]), low, high)
    }
}

/// The lower four bits, the upper two; scales, a byte a group; their scale.
impl Repack for Q6_K {
    type Planes = ([u8; 128], [u8; 64], [u8; 16], [u8; 2]);
    const QUANT_PLANES: usize = 2;

    fn repack(&self) -> Self::Planes {
        let units = self.ql.map(|half| {
            let [a, b, c, d] = bytemuck::cast::<_, [[u8; 16]; 4]>(half).map(u128::from_le_bytes);
            let ([first, third], [second, fourth]) = (nibbles(a, b), nibbles(c, d));
            [first, second, third, fourth].map(u128::to_le_bytes)
        });
        (bytemuck::cast(units), all_quarters(&self.qh), bytemuck::cast(self.scales), self.d.0)
    }
}

/// Four bits a column of 256 columns in which each 32 bytes hold one unit in the low halves, the next in the high halves.
fn all_nibbles(bytes: &[[u8; 32]; 4]) -> [u8; 128] {
    bytemuck::cast(bytes.map(|units| {
        let [a, b] = bytemuck::cast::<_, [[u8; 16]; 2]>(units).map(u128::from_le_bytes);
        nibbles(a, b).map(u128::to_le_bytes)
    }))
}

/// As [`crate::quant::k::scales_and_minimums`], four pairs at a time.
fn scales_and_minimums(packed: &[u8; 12]) -> ([u8; 8], [u8; 4]) {
    let [scales, minimums, halves] = bytemuck::cast::<_, [[u8; 4]; 3]>(*packed).map(u32::from_le_bytes);
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    sixes(
        join(scales & 0x3f3f_3f3f, halves & 0x0f0f_0f0f | (scales >> 2) & 0x3030_3030),
        join(minimums & 0x3f3f_3f3f, (halves >> 4) & 0x0f0f_0f0f | (minimums >> 2) & 0x3030_3030),
    )
}
