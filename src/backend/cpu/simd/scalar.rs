//! The vocabulary in plain Rust: what each word means, and what runs where there is no vector unit for it.

use super::{Isa, LANES, Task};
use crate::quant::fp4::half_e8m0;
use crate::quant::simple::{bf16_to_f32, f16_to_f32, f32_to_f16};
use std::array::from_fn;

/// Arrays and loops.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar;

/// Eight lanes.
type Lanes<T> = [T; LANES];

fn bytes_u8(a: u32) -> [i32; 4] {
    a.to_le_bytes().map(i32::from)
}

fn bytes_i8(a: u32) -> [i32; 4] {
    a.to_le_bytes().map(|byte| i32::from(byte as i8))
}

fn halves(a: u32) -> [i32; 2] {
    [i32::from(a as i16), i32::from((a >> 16) as i16)]
}

fn dot<const N: usize>(a: [i32; N], b: [i32; N]) -> i32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The first numbers of N bytes each.
fn read<const N: usize, T>(bytes: &[u8], number: impl Fn([u8; N]) -> T, zero: T) -> Lanes<T>
where
    T: Copy,
{
    let (chunks, _) = bytes.as_chunks::<N>();
    match chunks.first_chunk::<LANES>() {
        Some(chunks) => chunks.map(number),
        None => [zero; LANES],
    }
}

impl Isa for Scalar {
    type I = Lanes<u32>;
    type F = Lanes<f32>;
    type Sum = Lanes<i32>;

    const BIAS: Option<u8> = Some(128);
    const SEVERAL: bool = false;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) -> T::Output {
        task.run(self)
    }

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> Self::I {
        read(bytes, u32::from_le_bytes, 0)
    }

    #[inline(always)]
    fn load_u16(self, bytes: &[u8]) -> Self::I {
        read(bytes, |number| u32::from(u16::from_le_bytes(number)), 0)
    }

    #[inline(always)]
    fn splat(self, word: i32) -> Self::I {
        [word as u32; LANES]
    }

    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i] & b[i])
    }

    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn xor(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i] ^ b[i])
    }

    #[inline(always)]
    fn shl<const N: i32>(self, a: Self::I) -> Self::I {
        a.map(|a| a << N)
    }

    #[inline(always)]
    fn shr<const N: i32>(self, a: Self::I) -> Self::I {
        a.map(|a| a >> N)
    }

    #[inline(always)]
    fn sub_bytes(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| {
            let (a, b) = (a[i].to_le_bytes(), b[i].to_le_bytes());
            u32::from_le_bytes(from_fn(|byte| a[byte].wrapping_sub(b[byte])))
        })
    }

    #[inline(always)]
    fn lookup(self, table: &[i8; 16], index: Self::I) -> Self::I {
        index.map(|lane| u32::from_le_bytes(lane.to_le_bytes().map(|byte| table[usize::from(byte & 15)] as u8)))
    }

    #[inline(always)]
    fn pair<const A: usize, const B: usize>(self, a: Self::I) -> Self::I {
        a.map(|lane| {
            let bytes = bytes_i8(lane);
            bytes[A] as u32 & 0xffff | (bytes[B] as u32) << 16
        })
    }

    #[inline(always)]
    fn add(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn sub(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }

    #[inline(always)]
    fn dot_i16(self, a: Self::I, b: Self::I) -> Self::I {
        from_fn(|i| dot(halves(a[i]), halves(b[i])) as u32)
    }

    #[inline(always)]
    fn no_sum(self) -> Self::Sum {
        [0; LANES]
    }

    #[inline(always)]
    fn dot(self, sum: Self::Sum, w: Self::I, x: Self::I) -> Self::Sum {
        from_fn(|i| sum[i] + dot(bytes_u8(w[i]), bytes_i8(x[i])))
    }

    #[inline(always)]
    fn dot_signed(self, sum: Self::Sum, w: Self::I, x: Self::I) -> Self::Sum {
        from_fn(|i| sum[i] + dot(bytes_i8(w[i]), bytes_i8(x[i])))
    }

    #[inline(always)]
    fn scaled(self, sum: Self::Sum, scale: Self::I) -> Self::I {
        from_fn(|i| sum[i].wrapping_mul(halves(scale[i])[0]) as u32)
    }

    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        a.map(|a| a as i32 as f32)
    }

    #[inline(always)]
    fn load_f16(self, bytes: &[u8]) -> Self::F {
        read(bytes, |number| f16_to_f32(u16::from_le_bytes(number)), 0.0)
    }

    #[inline(always)]
    fn to_f16(self, a: Self::F) -> [u8; 2 * LANES] {
        let halves = a.map(|value| f32_to_f16(value).to_le_bytes());
        from_fn(|i| halves[i / 2][i % 2])
    }

    #[inline(always)]
    fn load_bf16(self, bytes: &[u8]) -> Self::F {
        read(bytes, |number| bf16_to_f32(u16::from_le_bytes(number)), 0.0)
    }

    #[inline(always)]
    fn to_float_bits(self, a: Self::I) -> Self::F {
        a.map(f32::from_bits)
    }

    #[inline(always)]
    fn load_f32(self, values: &[f32]) -> Self::F {
        values.first_chunk().copied().unwrap_or([0.0; LANES])
    }

    #[inline(always)]
    fn load_half_e8m0(self, bytes: &[u8]) -> Self::F {
        read(bytes, |[e]: [u8; 1]| half_e8m0(e), 0.0)
    }

    #[inline(always)]
    fn splat_f32(self, value: f32) -> Self::F {
        [value; LANES]
    }

    #[inline(always)]
    fn add_f32(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn mul_f32(self, a: Self::F, b: Self::F) -> Self::F {
        from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn mul_add_f32(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn lanes(self, a: Self::F) -> [f32; LANES] {
        a
    }

    #[inline(always)]
    fn sum_f32(self, a: Self::F) -> f32 {
        a.iter().sum()
    }

    #[inline(always)]
    fn prefetch_ahead(self, _bytes: &[u8]) {}
}
