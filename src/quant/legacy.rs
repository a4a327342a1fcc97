//! The first formats: one scale `d` for the whole block, and for some a minimum `m`.
//!
//! `x = d * (q - centre)` or `x = d * q + m`. Four-bit integers lie with the first half of the block in the low halves
//! of the bytes and the second half in the high halves; the fifth bit of the Q5 formats stands apart, in the order of
//! the values.

use super::bits::nibbles;
use super::simple::F16;
use super::{Block, assert_layout};
use crate::gguf::TensorType;
use bytemuck::{Pod, Zeroable};

/// A sign for each value: `d` or `-d`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q1_0 {
    /// The magnitude of all values.
    pub d: F16,
    /// One bit each, lowest first; 1 is plus.
    pub qs: [u8; 16], // [128 / 8]
}

/// Two bits each, worth -1, 0, 1 or 2 times `d`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q2_0 {
    /// Scale.
    pub d: F16,
    /// Two bits each, lowest first, neighbours side by side.
    pub qs: [u8; 16], // [64 / 4]
}

/// Four bits each, `d * (q - 8)`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q4_0 {
    /// Scale.
    pub d: F16,
    /// Values 0 to 15 in the low halves, 16 to 31 in the high halves.
    pub qs: [u8; 16], // [32 / 2]
}

/// Four bits each, `d * q + m`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q4_1 {
    /// Scale.
    pub d: F16,
    /// Minimum.
    pub m: F16,
    /// As in [`Q4_0`].
    pub qs: [u8; 16], // [32 / 2]
}

/// Five bits each, `d * (q - 16)`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q5_0 {
    /// Scale.
    pub d: F16,
    /// The fifth bits, little-endian: bit i belongs to value i.
    pub qh: [u8; 4], // [32 / 8]
    /// The lower four bits, as in [`Q4_0`].
    pub qs: [u8; 16], // [32 / 2]
}

/// Five bits each, `d * q + m`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q5_1 {
    /// Scale.
    pub d: F16,
    /// Minimum.
    pub m: F16,
    /// The fifth bits, as in [`Q5_0`].
    pub qh: [u8; 4], // [32 / 8]
    /// The lower four bits, as in [`Q4_0`].
    pub qs: [u8; 16], // [32 / 2]
}

/// Eight bits each, `d * q`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q8_0 {
    /// Scale.
    pub d: F16,
    /// The integers, in order.
    pub qs: [i8; 32], // [32]
}

const _: () = assert_layout::<Q1_0>();
const _: () = assert_layout::<Q2_0>();
const _: () = assert_layout::<Q4_0>();
const _: () = assert_layout::<Q4_1>();
const _: () = assert_layout::<Q5_0>();
const _: () = assert_layout::<Q5_1>();
const _: () = assert_layout::<Q8_0>();

/// Five-bit integers, in order: four bits from `qs`, the fifth from `qh`.
fn five_bits(qh: [u8; 4], qs: &[u8; 16]) -> impl Iterator<Item = u8> {
    let high = u32::from_le_bytes(qh);
    nibbles(qs).enumerate().map(move |(i, low)| low | ((high >> i & 1) << 4) as u8)
}

impl Block for Q1_0 {
    const TYPE: TensorType = TensorType::Q1_0;
    type Values = [f32; 128];

    fn decode(&self, values: &mut [f32; 128]) {
        let d = self.d.get();
        for (i, value) in values.iter_mut().enumerate() {
            *value = if self.qs[i / 8] >> (i % 8) & 1 == 1 { d } else { -d };
        }
    }
}

impl Block for Q2_0 {
    const TYPE: TensorType = TensorType::Q2_0;
    type Values = [f32; 64];

    fn decode(&self, values: &mut [f32; 64]) {
        let d = self.d.get();
        for (i, value) in values.iter_mut().enumerate() {
            let q = self.qs[i / 4] >> (2 * (i % 4)) & 3;
            *value = d * (f32::from(q) - 1.0);
        }
    }
}

impl Block for Q4_0 {
    const TYPE: TensorType = TensorType::Q4_0;
    type Values = [f32; 32];

    fn decode(&self, values: &mut [f32; 32]) {
        let d = self.d.get();
        for (value, q) in values.iter_mut().zip(nibbles(&self.qs)) {
            *value = d * (f32::from(q) - 8.0);
        }
    }
}

impl Block for Q4_1 {
    const TYPE: TensorType = TensorType::Q4_1;
    type Values = [f32; 32];

    fn decode(&self, values: &mut [f32; 32]) {
        let (d, m) = (self.d.get(), self.m.get());
        for (value, q) in values.iter_mut().zip(nibbles(&self.qs)) {
            *value = d * f32::from(q) + m;
        }
    }
}

impl Block for Q5_0 {
    const TYPE: TensorType = TensorType::Q5_0;
    type Values = [f32; 32];

    fn decode(&self, values: &mut [f32; 32]) {
        let d = self.d.get();
        for (value, q) in values.iter_mut().zip(five_bits(self.qh, &self.qs)) {
            *value = d * (f32::from(q) - 16.0);
        }
    }
}

impl Block for Q5_1 {
    const TYPE: TensorType = TensorType::Q5_1;
    type Values = [f32; 32];

    fn decode(&self, values: &mut [f32; 32]) {
        let (d, m) = (self.d.get(), self.m.get());
        for (value, q) in values.iter_mut().zip(five_bits(self.qh, &self.qs)) {
            *value = d * f32::from(q) + m;
        }
    }
}

impl Block for Q8_0 {
    const TYPE: TensorType = TensorType::Q8_0;
    type Values = [f32; 32];

    fn decode(&self, values: &mut [f32; 32]) {
        let d = self.d.get();
        for (value, &q) in values.iter_mut().zip(&self.qs) {
            *value = d * f32::from(q);
        }
    }
}
