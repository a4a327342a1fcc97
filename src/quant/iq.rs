//! The IQ formats: a small integer is an index into a codebook of vectors, not a number.
//!
//! Eight neighbouring values (four in the IQ3 formats) are one entry of a codebook ([`super::grids`]). The entries of
//! IQ2 and IQ3 are magnitudes, and the signs stand apart, a bit each; those of IQ1 are -1, 0 and 1, moved off zero by a
//! small offset. Groups of 16 or 32 values have small scales under the block's `d`. The IQ4 formats have codebooks of
//! single numbers: sixteen levels, finer near zero than a straight line would be.
//!
//! Where a sign has seven bits for eight values, the eighth is such that the number of minus signs is even.

use super::bits::nibbles;
use super::simple::F16;
use super::{Block, assert_layout, grids};
use crate::gguf::TensorType;
use bytemuck::{Pod, Zeroable};

/// What the four bits of IQ4_NL and IQ4_XS are worth.
pub const IQ4_LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// How far the values of the IQ1 formats are moved, up or down, per group.
pub const IQ1_OFFSET: f32 = 0.125;

/// Eight groups of 32 under `d * (2 * scale + 1)`, with one offset each.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct IQ1_S {
    /// Scale of the scales.
    pub d: F16,
    /// The lower eight bits of each entry's number.
    pub qs: [u8; 32], // [256 / 8]
    /// For each group, little-endian: 4 times the upper 3 bits of an entry's number, 3 bits of scale, 1 bit that makes the
    /// offset negative.
    pub qh: [[u8; 2]; 8], // [256 / 32]
}

/// Sixteen groups of 16 under `d * (2 * scale + 1)`; each 8 values have their own offset.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct IQ1_M {
    /// The lower eight bits of each entry's number.
    pub qs: [u8; 32], // [256 / 8]
    /// Half a byte for each entry: the upper 3 bits of its number, 1 bit that makes the offset negative.
    pub qh: [u8; 16], // [256 / 16]
    /// Little-endian, each with the 3-bit scales of 4 groups and, in the highest 4 bits, a quarter of `d`.
    pub scales: [[u8; 2]; 4], // [256 / 64]
}

/// Eight groups of 32 under `d * (scale + 0.5) / 4`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct IQ2_XXS {
    /// Scale of the scales.
    pub d: F16,
    /// For each group four bytes of entry numbers, then, little-endian, 4 times 7 bits of signs and 4 bits of scale.
    pub qs: [[u8; 8]; 8], // [256 / 32][4 + 4]
}

/// Sixteen groups of 16 under `d * (scale + 0.5) / 4`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct IQ2_XS {
    /// Scale of the scales.
    pub d: F16,
    /// Little-endian: 9 bits of entry number, 7 bits of signs.
    pub qs: [[u8; 2]; 32], // [256 / 8]
    /// Four-bit scales, the earlier group in the low half.
    pub scales: [u8; 8], // [256 / 32]
}

/// Sixteen groups of 16 under `d * (scale + 0.5) / 4`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct IQ2_S {
    /// Scale of the scales.
    pub d: F16,
    /// The lower eight bits of each entry's number.
    pub qs: [u8; 32], // [256 / 8]
    /// The signs of the values, lowest bit first; 1 is minus.
    pub signs: [u8; 32], // [256 / 8]
    /// The upper two bits of the entries' numbers, four entries to a byte.
    pub qh: [u8; 8], // [256 / 32]
    /// Four-bit scales, the earlier group in the low half.
    pub scales: [u8; 8], // [256 / 32]
}

/// Eight groups of 32 under `d * (scale + 0.5) / 2`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct IQ3_XXS {
    /// Scale of the scales.
    pub d: F16,
    /// Entry numbers.
    pub qs: [u8; 64], // [256 / 4]
    /// For each group, little-endian: 4 times 7 bits of signs and 4 bits of scale.
    pub signs_and_scales: [[u8; 4]; 8], // [256 / 32]
}

/// Eight groups of 32 under `d * (2 * scale + 1)`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct IQ3_S {
    /// Scale of the scales.
    pub d: F16,
    /// The lower eight bits of each entry's number.
    pub qs: [u8; 64], // [256 / 4]
    /// The ninth bits of the entries' numbers, lowest bit first.
    pub qh: [u8; 8], // [256 / 32]
    /// The signs of the values, lowest bit first; 1 is minus.
    pub signs: [u8; 32], // [256 / 8]
    /// Four-bit scales, the earlier group in the low half.
    pub scales: [u8; 4], // [256 / 64]
}

/// Thirty-two levels under `d`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct IQ4_NL {
    /// Scale.
    pub d: F16,
    /// Numbers of levels: values 0 to 15 in the low halves, 16 to 31 in the high halves.
    pub qs: [u8; 16], // [32 / 2]
}

/// Eight groups of 32 levels under `d * (scale - 32)`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct IQ4_XS {
    /// Scale of the scales.
    pub d: F16,
    /// The upper two bits of the scales, little-endian, lowest first.
    pub scales_h: [u8; 2], // [8 * 2 / 8]
    /// The lower four bits of the scales, the earlier group in the low half.
    pub scales_l: [u8; 4], // [8 * 4 / 8]
    /// For each group as in [`IQ4_NL`].
    pub qs: [[u8; 16]; 8], // [256 / 32][32 / 2]
}

const _: () = assert_layout::<IQ1_S>();
const _: () = assert_layout::<IQ1_M>();
const _: () = assert_layout::<IQ2_XXS>();
const _: () = assert_layout::<IQ2_XS>();
const _: () = assert_layout::<IQ2_S>();
const _: () = assert_layout::<IQ3_XXS>();
const _: () = assert_layout::<IQ3_S>();
const _: () = assert_layout::<IQ4_NL>();
const _: () = assert_layout::<IQ4_XS>();

/// Seven bits of signs, and the eighth that makes their number even.
pub const fn even_signs(seven: u32) -> u8 {
    let seven = seven as u8 & 127;
    seven | (seven.count_ones() as u8 & 1) << 7
}

/// Half a byte: half 0 is the low one.
fn nibble(byte: u8, half: usize) -> u8 {
    byte >> (4 * half) & 15
}

/// Writes an entry of magnitudes, with a sign for each.
fn signed(values: &mut [f32], scale: f32, entry: &[i8], signs: u8) {
    for (lane, (value, &magnitude)) in values.iter_mut().zip(entry).enumerate() {
        let level = if signs >> lane & 1 == 1 { -magnitude } else { magnitude };
        *value = scale * f32::from(level);
    }
}

/// Writes an entry of -1, 0 and 1, moved by the offset.
fn moved(values: &mut [f32], scale: f32, entry: &[i8; 8], negative: bool) {
    let offset = if negative { -IQ1_OFFSET } else { IQ1_OFFSET };
    for (value, &level) in values.iter_mut().zip(entry) {
        *value = scale * (f32::from(level) + offset);
    }
}

impl Block for IQ1_S {
    const TYPE: TensorType = TensorType::IQ1_S;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let d = self.d.get();
        for (i, values) in values.chunks_exact_mut(8).enumerate() {
            let qh = u16::from_le_bytes(self.qh[i / 4]);
            let number = usize::from(self.qs[i]) | usize::from(qh >> (3 * (i % 4)) & 7) << 8;
            let scale = d * f32::from(2 * (qh >> 12 & 7) + 1);
            moved(values, scale, &grids::IQ1[number], qh >> 15 == 1);
        }
    }
}

impl IQ1_M {
    /// The scale of the scales, put together from the four places where it lies.
    pub fn d(&self) -> F16 {
        let quarters = self.scales.map(|scales| u16::from_le_bytes(scales) >> 12);
        F16((quarters[0] | quarters[1] << 4 | quarters[2] << 8 | quarters[3] << 12).to_le_bytes())
    }
}

impl Block for IQ1_M {
    const TYPE: TensorType = TensorType::IQ1_M;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let d = self.d().get();
        for (i, values) in values.chunks_exact_mut(8).enumerate() {
            let qh = nibble(self.qh[i / 2], i % 2);
            let number = usize::from(self.qs[i]) | usize::from(qh & 7) << 8;
            let group = i / 2;
            let scale = u16::from_le_bytes(self.scales[group / 4]) >> (3 * (group % 4)) & 7;
            moved(values, d * f32::from(2 * scale + 1), &grids::IQ1[number], qh >> 3 == 1);
        }
    }
}

impl Block for IQ2_XXS {
    const TYPE: TensorType = TensorType::IQ2_XXS;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let d = self.d.get();
        for (values, &[n0, n1, n2, n3, w0, w1, w2, w3]) in values.chunks_exact_mut(32).zip(&self.qs) {
            let word = u32::from_le_bytes([w0, w1, w2, w3]);
            let scale = d * (0.5 + (word >> 28) as f32) * 0.25;
            for (i, (values, number)) in values.chunks_exact_mut(8).zip([n0, n1, n2, n3]).enumerate() {
                signed(values, scale, &grids::IQ2_XXS[usize::from(number)], even_signs(word >> (7 * i)));
            }
        }
    }
}

impl Block for IQ2_XS {
    const TYPE: TensorType = TensorType::IQ2_XS;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let d = self.d.get();
        for (i, values) in values.chunks_exact_mut(8).enumerate() {
            let code = u16::from_le_bytes(self.qs[i]);
            let scale = d * (0.5 + f32::from(nibble(self.scales[i / 4], i / 2 % 2))) * 0.25;
            signed(values, scale, &grids::IQ2_XS[usize::from(code & 511)], even_signs(u32::from(code >> 9)));
        }
    }
}

impl Block for IQ2_S {
    const TYPE: TensorType = TensorType::IQ2_S;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let d = self.d.get();
        for (i, values) in values.chunks_exact_mut(8).enumerate() {
            let number = usize::from(self.qs[i]) | usize::from(self.qh[i / 4] >> (2 * (i % 4)) & 3) << 8;
            let scale = d * (0.5 + f32::from(nibble(self.scales[i / 4], i / 2 % 2))) * 0.25;
            signed(values, scale, &grids::IQ2_S[number], self.signs[i]);
        }
    }
}

impl Block for IQ3_XXS {
    const TYPE: TensorType = TensorType::IQ3_XXS;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let d = self.d.get();
        for (i, values) in values.chunks_exact_mut(4).enumerate() {
            let word = u32::from_le_bytes(self.signs_and_scales[i / 8]);
            let scale = d * (0.5 + (word >> 28) as f32) * 0.5;
            let signs = even_signs(word >> (7 * (i / 2 % 4))) >> (4 * (i % 2));
            signed(values, scale, &grids::IQ3_XXS[usize::from(self.qs[i])], signs);
        }
    }
}

impl Block for IQ3_S {
    const TYPE: TensorType = TensorType::IQ3_S;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let d = self.d.get();
        for (i, values) in values.chunks_exact_mut(4).enumerate() {
            let number = usize::from(self.qs[i]) | usize::from(self.qh[i / 8] >> (i % 8) & 1) << 8;
            let group = i / 8;
            let scale = d * f32::from(1 + 2 * nibble(self.scales[group / 2], group % 2));
            signed(values, scale, &grids::IQ3_S[number], nibble(self.signs[i / 2], i % 2));
        }
    }
}

/// Writes 32 values, each a level under one scale.
fn levels(values: &mut [f32], scale: f32, qs: &[u8; 16]) {
    for (value, q) in values.iter_mut().zip(nibbles(qs)) {
        *value = scale * f32::from(IQ4_LEVELS[usize::from(q)]);
    }
}

impl Block for IQ4_NL {
    const TYPE: TensorType = TensorType::IQ4_NL;
    type Values = [f32; 32];

    fn decode(&self, values: &mut [f32; 32]) {
        levels(values, self.d.get(), &self.qs);
    }
}

impl IQ4_XS {
    /// The scales, -32 to 31.
    pub fn scales(&self) -> [i8; 8] {
        let high = u16::from_le_bytes(self.scales_h);
        std::array::from_fn(|group| {
            let low = nibble(self.scales_l[group / 2], group % 2);
            let high = (high >> (2 * group) & 3) as u8;
            (low | high << 4) as i8 - 32
        })
    }
}

impl Block for IQ4_XS {
    const TYPE: TensorType = TensorType::IQ4_XS;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let d = self.d.get();
        for ((values, qs), scale) in values.chunks_exact_mut(32).zip(&self.qs).zip(self.scales()) {
            levels(values, d * f32::from(scale), qs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_signs_are_even_in_number() {
        let all: Vec<u8> = (0..128).map(even_signs).collect();
        assert!(all.iter().enumerate().all(|(i, signs)| usize::from(signs & 127) == i && signs.count_ones() % 2 == 0));
        assert_eq!(even_signs(0b1000_0000_0001), 0b1000_0001, "only seven bits are looked at");
    }
}
