//! What activations are rounded to before an integer dot product with quantized weights. No file stores these.
//!
//! Both have eight-bit integers and one scale. Next to them they keep sums of the integers: a weight format with a
//! minimum or an offset multiplies it by the sum of the activations, which need not be taken again for each row.

use super::simple::{F16, F32};
use super::{Block, assert_layout};
use crate::gguf::TensorType;
use bytemuck::{Pod, Zeroable};

/// Eight bits each, `d * q`: beside the 32-value formats with a minimum.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q8_1 {
    /// Scale.
    pub d: F16,
    /// `d` times the sum of the integers.
    pub s: F16,
    /// The integers, in order.
    pub qs: [i8; 32], // [32]
}

/// Eight bits each, `d * q`: beside the 256-value formats.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Q8_K {
    /// Scale.
    pub d: F32,
    /// The integers, in order.
    pub qs: [i8; 256], // [256]
    /// The sum of each 16 integers, a little-endian `i16`.
    pub bsums: [[u8; 2]; 16], // [256 / 16]
}

const _: () = assert_layout::<Q8_1>();
const _: () = assert_layout::<Q8_K>();

impl Block for Q8_1 {
    const TYPE: TensorType = TensorType::Q8_1;
    type Values = [f32; 32];

    fn decode(&self, values: &mut [f32; 32]) {
        let d = self.d.get();
        for (value, &q) in values.iter_mut().zip(&self.qs) {
            *value = d * f32::from(q);
        }
    }
}

impl Block for Q8_K {
    const TYPE: TensorType = TensorType::Q8_K;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let d = self.d.get();
        for (value, &q) in values.iter_mut().zip(&self.qs) {
            *value = d * f32::from(q);
        }
    }
}
