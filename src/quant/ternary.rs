//! Blocks of -1, 0 and 1 times one scale, for models that were trained to such weights.

use super::bits::quarters;
use super::simple::F16;
use super::{Block, assert_layout};
use crate::gguf::TensorType;
use bytemuck::{Pod, Zeroable};

/// Five values in a byte, as the digits of a number to base three.
///
/// A byte holds not the number n below 243 itself but the fraction n/243, as ⌈256 n / 243⌉: the digits then come out
/// from the first to the last by multiplying by three and looking at what overflows the byte, with no division.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct TQ1_0 {
    /// 32 bytes that hold values 0 to 159, then 16 bytes that hold 160 to 239: the first digits of all bytes of the
    /// run, then the second digits, and so on.
    pub qs: [u8; 48], // [240 / 5]
    /// Values 240 to 255 in the same manner, four to a byte.
    pub qh: [u8; 4], // [16 / 4]
    /// Scale.
    pub d: F16,
}

/// Two bits each, `d * (q - 1)`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct TQ2_0 {
    /// Each 32 bytes hold four planes of 32 values, the lowest bits first.
    pub qs: [u8; 64], // [256 / 4]
    /// Scale.
    pub d: F16,
}

const _: () = assert_layout::<TQ1_0>();
const _: () = assert_layout::<TQ2_0>();

/// The first `count` digits of each byte: the first ones of all bytes, then the second ones, and so on.
fn digits(bytes: &[u8], count: u32) -> impl Iterator<Item = u8> {
    (0..count).flat_map(move |place| {
        bytes.iter().map(move |byte| {
            let rest = byte.wrapping_mul(3u8.pow(place)); // the fraction without its first digits
            ((u16::from(rest) * 3) >> 8) as u8
        })
    })
}

impl Block for TQ1_0 {
    const TYPE: TensorType = TensorType::TQ1_0;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let d = self.d.get();
        let (long, short) = self.qs.split_at(32);
        let digits = digits(long, 5).chain(digits(short, 5)).chain(digits(&self.qh, 4));
        for (value, digit) in values.iter_mut().zip(digits) {
            *value = d * (f32::from(digit) - 1.0);
        }
    }
}

impl Block for TQ2_0 {
    const TYPE: TensorType = TensorType::TQ2_0;
    type Values = [f32; 256];

    fn decode(&self, values: &mut [f32; 256]) {
        let d = self.d.get();
        for (value, q) in values.iter_mut().zip(quarters(&self.qs)) {
            *value = d * (f32::from(q) - 1.0);
        }
    }
}
