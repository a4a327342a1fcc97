//! The K formats: 256 values under one floating-point scale, in groups of 16 or 32 that have small integer scales.
//!
//! `x = (d * scale) * q - (dmin * min)` for Q2_K, Q4_K and Q5_K, `x = (d * scale) * q` with signed integers for Q3_K and
//! Q6_K.

use super::bits::{bit_planes, nibbles, quarters};
use super::simple::F16;
use super::{Block, assert_layout};
use crate::gguf::TensorType;
use bytemuck::{Pod, Zeroable};

/// Two bits each, in 16 groups of 16 with four-bit scales and minimums.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q2_K {
    /// For each group the scale in the low half, the minimum in the high half.
    pub scales: [u8; 16], // [256 / 16]
    /// Each 32 bytes hold four planes of 32 values, the lowest bits first.
    pub qs: [u8; 64], // [256 / 4]
    /// Scale of the scales.
    pub d: F16,
    /// Scale of the minimums.
    pub dmin: F16,
}

/// Three bits each, worth -4 to 3, in 16 groups of 16 with six-bit scales, worth -32 to 31.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q3_K {
    /// The third bits in eight planes of 32 values, lowest first.
    pub hmask: [u8; 32], // [256 / 8]
    /// The lower two bits, as in [`Q2_K`].
    pub qs: [u8; 64], // [256 / 4]
    /// The scales: eight bytes of lower four bits, four bytes of upper two bits; see [`Q3_K::scales`].
    pub scales: [u8; 12], // [16 * 6 / 8]
    /// Scale of the scales.
    pub d: F16,
}

/// Four bits each, in 8 groups of 32 with six-bit scales and minimums.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q4_K {
    /// Scale of the scales.
    pub d: F16,
    /// Scale of the minimums.
    pub dmin: F16,
    /// Scales and minimums; see [`scales_and_minimums`].
    pub scales: [u8; 12], // [2 * 8 * 6 / 8]
    /// Each 32 bytes hold one group in the low halves, the next in the high halves.
    pub qs: [[u8; 32]; 4], // [256 / 64][64 / 2]
}

/// Five bits each, in 8 groups of 32 with six-bit scales and minimums.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q5_K {
    /// Scale of the scales.
    pub d: F16,
    /// Scale of the minimums.
    pub dmin: F16,
    /// Scales and minimums; see [`scales_and_minimums`].
    pub scales: [u8; 12], // [2 * 8 * 6 / 8]
    /// The fifth bits in eight planes of 32 values, lowest first.
    pub qh: [u8; 32], // [256 / 8]
    /// The lower four bits, as in [`Q4_K`].
    pub qs: [[u8; 32]; 4], // [256 / 64][64 / 2]
}

/// Six bits each, worth -32 to 31, in 16 groups of 16 with eight-bit scales.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q6_K {
    /// The lower four bits: each 64 bytes hold 64 values in the low halves, the next 64 in the high halves.
    pub ql: [[u8; 64]; 2], // [256 / 128][128 / 2]
    /// The upper two bits: each 32 bytes hold four planes of 32 values, the lowest bits first.
    pub qh: [u8; 64], // [256 / 4]
    /// The scales.
    pub scales: [i8; 16], // [256 / 16]
    /// Scale of the scales.
    pub d: F16,
}

const _: () = assert_layout::<Q2_K>();
const _: () = assert_layout::<Q3_K>();
const _: () = assert_layout::<Q4_K>();
const _: () = assert_layout::<Q5_K>();
const _: () = assert_layout::<Q6_K>();

/// The eight (scale, minimum) pairs of Q4_K and Q5_K, six bits each.
///
/// Bytes 0 to 3 hold scales 0 to 3 in their lower six bits, bytes 4 to 7 the minimums 0 to 3. Bytes 8 to 11 hold the
/// lower four bits of scales 4 to 7 (low half) and of minimums 4 to 7 (high half), whose upper two bits fill up the
/// first eight bytes.
pub fn scales_and_minimums(packed: &[u8; 12]) -> [(u8, u8); 8] {
    std::array::from_fn(|group| match group {
        0..4 => (packed[group] & 63, packed[group + 4] & 63),
        _ => {
            let low = packed[group + 4];
            (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
        }
    })
}

/// Writes `x = (d * scale) * q - (dmin * min)` for one group.
fn decode_group(values: &mut [f32], scale: f32, minimum: f32, quants: impl Iterator<Item = u8>) {
    for (value, q) in values.iter_mut().zip(quants) {
        *value = scale * f32::from(q) - minimum;
    }
}

impl Block for Q2_K {
    const TYPE: TensorType = TensorType::Q2_K;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let (d, dmin) = (self.d.get(), self.dmin.get());
        let quants = quarters(&self.qs);
        for ((values, quants), packed) in values.chunks_exact_mut(16).zip(quants.chunks_exact(16)).zip(self.scales) {
            let (scale, minimum) = (d * f32::from(packed & 15), dmin * f32::from(packed >> 4));
            decode_group(values, scale, minimum, quants.iter().copied());
        }
    }
}

impl Q3_K {
    /// The scales, -32 to 31: lower four bits in the low halves of eight bytes, then in their high halves; upper two
    /// bits in four planes of the last four bytes.
    pub fn scales(&self) -> [i8; 16] {
        let [low @ .., u0, u1, u2, u3] = self.scales;
        let upper = [u0, u1, u2, u3];
        let mut scales = [0; 16];
        for (group, (scale, low)) in scales.iter_mut().zip(nibbles::<8>(&low)).enumerate() {
            let high = upper[group % 4] >> (2 * (group / 4)) & 3;
            *scale = (low | high << 4) as i8 - 32;
        }
        scales
    }
}

impl Block for Q3_K {
    const TYPE: TensorType = TensorType::Q3_K;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let d = self.d.get();
        let (low, high) = (quarters(&self.qs), bit_planes(&self.hmask));
        let scales = self.scales();
        for (i, value) in values.iter_mut().enumerate() {
            let q = (low[i] | high[i] << 2) as i8 - 4;
            *value = d * f32::from(scales[i / 16]) * f32::from(q);
        }
    }
}

impl Block for Q4_K {
    const TYPE: TensorType = TensorType::Q4_K;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let (d, dmin) = (self.d.get(), self.dmin.get());
        let mut quants = self.qs.iter().flat_map(nibbles);
        for (values, (scale, minimum)) in values.chunks_exact_mut(32).zip(scales_and_minimums(&self.scales)) {
            decode_group(values, d * f32::from(scale), dmin * f32::from(minimum), quants.by_ref());
        }
    }
}

impl Block for Q5_K {
    const TYPE: TensorType = TensorType::Q5_K;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let (d, dmin) = (self.d.get(), self.dmin.get());
        let mut quants = self.qs.iter().flat_map(nibbles).zip(bit_planes(&self.qh)).map(|(low, high)| low | high << 4);
        for (values, (scale, minimum)) in values.chunks_exact_mut(32).zip(scales_and_minimums(&self.scales)) {
            decode_group(values, d * f32::from(scale), dmin * f32::from(minimum), quants.by_ref());
        }
    }
}

impl Block for Q6_K {
    const TYPE: TensorType = TensorType::Q6_K;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let d = self.d.get();
        let quants = self.ql.iter().flat_map(nibbles).zip(quarters(&self.qh));
        for (i, (value, (low, high))) in values.iter_mut().zip(quants).enumerate() {
            let q = (low | high << 4) as i8 - 32;
            *value = d * f32::from(self.scales[i / 16]) * f32::from(q);
        }
    }
}
