//! The intrinsics of NEON that the unit uses, and the two instructions that it writes itself.

#![allow(non_camel_case_types, reason = "the architecture's own names")]

use crate::quant::simple::{f16_to_f32, f32_to_f16};
use std::array::from_fn;

/// Vectors are arrays; the lane at the lowest address is the first.
macro_rules! vectors {
    ($($name:ident: [$lane:ty; $count:literal];)*) => {$(
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct $name(pub [$lane; $count]);
    )*};
}

vectors! {
    uint8x8_t: [u8; 8];
    uint8x16_t: [u8; 16];
    int8x8_t: [i8; 8];
    int8x16_t: [i8; 16];
    uint16x4_t: [u16; 4];
    uint16x8_t: [u16; 8];
    int16x4_t: [i16; 4];
    int16x8_t: [i16; 8];
    uint32x4_t: [u32; 4];
    int32x4_t: [i32; 4];
    float16x4_t: [u16; 4]; // bits
    float32x4_t: [f32; 4];
}

/// The same bits as another type.
macro_rules! reinterpret {
    ($($name:ident: $from:ident => $to:ident;)*) => {$(
        pub fn $name(a: $from) -> $to {
            $to(bytemuck::cast(a.0))
        }
    )*};
}

reinterpret! {
    vreinterpretq_u16_u8: uint8x16_t => uint16x8_t;
    vreinterpretq_s16_u8: uint8x16_t => int16x8_t;
    vreinterpretq_u32_u8: uint8x16_t => uint32x4_t;
    vreinterpretq_u32_s16: int16x8_t => uint32x4_t;
    vreinterpretq_u32_s32: int32x4_t => uint32x4_t;
    vreinterpretq_u8_u32: uint32x4_t => uint8x16_t;
    vreinterpretq_s8_u32: uint32x4_t => int8x16_t;
    vreinterpretq_s16_u32: uint32x4_t => int16x8_t;
    vreinterpretq_s32_u32: uint32x4_t => int32x4_t;
    vreinterpretq_f32_u32: uint32x4_t => float32x4_t;
    vreinterpretq_u8_u16: uint16x8_t => uint8x16_t;
    vreinterpret_f16_u16: uint16x4_t => float16x4_t;
    vreinterpret_u16_f16: float16x4_t => uint16x4_t;
}

/// Lane by lane.
fn zip<A: Copy, B: Copy, C, const N: usize>(a: [A; N], b: [B; N], f: impl Fn(A, B) -> C) -> [C; N] {
    from_fn(|i| f(a[i], b[i]))
}

/// LD1, on memory that needs no alignment.
///
/// # Safety
/// There must be 16 bytes to be read.
pub unsafe fn vld1q_u8(ptr: *const u8) -> uint8x16_t {
    // SAFETY: the caller's.
    uint8x16_t(unsafe { ptr.cast::<[u8; 16]>().read_unaligned() })
}

/// LD1.
///
/// # Safety
/// There must be 8 bytes to be read.
pub unsafe fn vld1_u8(ptr: *const u8) -> uint8x8_t {
    // SAFETY: the caller's.
    uint8x8_t(unsafe { ptr.cast::<[u8; 8]>().read_unaligned() })
}

/// LD1.
///
/// # Safety
/// There must be 4 numbers to be read.
pub unsafe fn vld1q_f32(ptr: *const f32) -> float32x4_t {
    // SAFETY: the caller's.
    float32x4_t(unsafe { ptr.cast::<[f32; 4]>().read_unaligned() })
}

/// ST1.
///
/// # Safety
/// There must be room for 4 numbers.
pub unsafe fn vst1q_f32(ptr: *mut f32, a: float32x4_t) {
    // SAFETY: the caller's.
    unsafe { ptr.cast::<[f32; 4]>().write_unaligned(a.0) }
}

/// ST1.
///
/// # Safety
/// There must be room for 16 bytes.
pub unsafe fn vst1q_u8(ptr: *mut u8, a: uint8x16_t) {
    // SAFETY: the caller's.
    unsafe { ptr.cast::<[u8; 16]>().write_unaligned(a.0) }
}

/// PRFM: no effect.
pub fn prefetch(_address: *const u8) {}

/// DUP.
pub fn vdupq_n_u32(value: u32) -> uint32x4_t {
    uint32x4_t([value; 4])
}

/// DUP.
pub fn vdupq_n_s32(value: i32) -> int32x4_t {
    int32x4_t([value; 4])
}

/// DUP.
pub fn vdupq_n_f32(value: f32) -> float32x4_t {
    float32x4_t([value; 4])
}

/// The lanes of the lower half.
pub fn vget_low_u16(a: uint16x8_t) -> uint16x4_t {
    uint16x4_t(from_fn(|i| a.0[i]))
}

/// The lanes of the upper half.
pub fn vget_high_u16(a: uint16x8_t) -> uint16x4_t {
    uint16x4_t(from_fn(|i| a.0[4 + i]))
}

/// Both halves.
pub fn vcombine_u16(low: uint16x4_t, high: uint16x4_t) -> uint16x8_t {
    uint16x8_t(bytemuck::cast([low.0, high.0]))
}

/// The lanes of the lower half.
pub fn vget_low_s16(a: int16x8_t) -> int16x4_t {
    int16x4_t(from_fn(|i| a.0[i]))
}

/// The lanes of the lower half.
pub fn vget_low_s8(a: int8x16_t) -> int8x8_t {
    int8x8_t(from_fn(|i| a.0[i]))
}

/// UXTL: eight lanes widened.
pub fn vmovl_u8(a: uint8x8_t) -> uint16x8_t {
    uint16x8_t(a.0.map(u16::from))
}

/// UXTL: four lanes widened.
pub fn vmovl_u16(a: uint16x4_t) -> uint32x4_t {
    uint32x4_t(a.0.map(u32::from))
}

/// UXTL2: the upper four lanes widened.
pub fn vmovl_high_u16(a: uint16x8_t) -> uint32x4_t {
    vmovl_u16(vget_high_u16(a))
}

/// AND.
pub fn vandq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
    uint32x4_t(zip(a.0, b.0, |a, b| a & b))
}

/// ORR.
pub fn vorrq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
    uint32x4_t(zip(a.0, b.0, |a, b| a | b))
}

/// EOR.
pub fn veorq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
    uint32x4_t(zip(a.0, b.0, |a, b| a ^ b))
}

/// BSL: bits of `b` where those of `a` are set, of `c` elsewhere.
pub fn vbslq_u32(a: uint32x4_t, b: uint32x4_t, c: uint32x4_t) -> uint32x4_t {
    uint32x4_t(from_fn(|i| a.0[i] & b.0[i] | !a.0[i] & c.0[i]))
}

/// CMHI: all bits where `a` is greater.
pub fn vcgtq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
    uint32x4_t(zip(a.0, b.0, |a, b| if a > b { u32::MAX } else { 0 }))
}

/// SHL by N from 0 to 31.
pub fn vshlq_n_u32<const N: i32>(a: uint32x4_t) -> uint32x4_t {
    const { assert!(0 <= N && N <= 31) };
    uint32x4_t(a.0.map(|a| a << N))
}

/// USHR by N from 1 to 32.
pub fn vshrq_n_u32<const N: i32>(a: uint32x4_t) -> uint32x4_t {
    const { assert!(1 <= N && N <= 32) };
    uint32x4_t(a.0.map(|a| a.checked_shr(N as u32).unwrap_or(0)))
}

/// SSHR by N from 1 to 16.
pub fn vshrq_n_s16<const N: i32>(a: int16x8_t) -> int16x8_t {
    const { assert!(1 <= N && N <= 16) };
    int16x8_t(a.0.map(|a| a >> N.min(15)))
}

/// SSHR by N from 1 to 32.
pub fn vshrq_n_s32<const N: i32>(a: int32x4_t) -> int32x4_t {
    const { assert!(1 <= N && N <= 32) };
    int32x4_t(a.0.map(|a| a >> N.min(31)))
}

/// USHL: left by the lowest byte of `b`, or right if that is negative.
pub fn vshlq_u32(a: uint32x4_t, b: int32x4_t) -> uint32x4_t {
    uint32x4_t(zip(a.0, b.0, |a, b| {
        let by = b as i8;
        let shifted = if by < 0 { a.checked_shr(by.unsigned_abs().into()) } else { a.checked_shl(by as u32) };
        shifted.unwrap_or(0)
    }))
}

/// ADD, wrapping.
pub fn vaddq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
    uint32x4_t(zip(a.0, b.0, u32::wrapping_add))
}

/// SUB, wrapping.
pub fn vsubq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
    uint32x4_t(zip(a.0, b.0, u32::wrapping_sub))
}

/// SUB, wrapping.
pub fn vsubq_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
    uint8x16_t(zip(a.0, b.0, u8::wrapping_sub))
}

/// MUL, the lower half of each product.
pub fn vmulq_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    int32x4_t(zip(a.0, b.0, i32::wrapping_mul))
}

/// TBL: bytes of the table; zeros for those it does not have.
pub fn vqtbl1q_u8(table: uint8x16_t, index: uint8x16_t) -> uint8x16_t {
    uint8x16_t(index.0.map(|index| table.0.get(usize::from(index)).copied().unwrap_or(0)))
}

/// SMULL: products of twice the width.
pub fn vmull_s8(a: int8x8_t, b: int8x8_t) -> int16x8_t {
    int16x8_t(zip(a.0, b.0, |a, b| i16::from(a) * i16::from(b)))
}

/// SMULL2: the same of the upper halves.
pub fn vmull_high_s8(a: int8x16_t, b: int8x16_t) -> int16x8_t {
    int16x8_t(from_fn(|i| i16::from(a.0[8 + i]) * i16::from(b.0[8 + i])))
}

/// SMULL.
pub fn vmull_s16(a: int16x4_t, b: int16x4_t) -> int32x4_t {
    int32x4_t(zip(a.0, b.0, |a, b| i32::from(a) * i32::from(b)))
}

/// SMULL2.
pub fn vmull_high_s16(a: int16x8_t, b: int16x8_t) -> int32x4_t {
    int32x4_t(from_fn(|i| i32::from(a.0[4 + i]) * i32::from(b.0[4 + i])))
}

/// ADDP: sums of neighbours, first those of `a`; wrapping.
pub fn vpaddq_s16(a: int16x8_t, b: int16x8_t) -> int16x8_t {
    let both: [i16; 16] = bytemuck::cast([a.0, b.0]);
    int16x8_t(from_fn(|i| both[2 * i].wrapping_add(both[2 * i + 1])))
}

/// ADDP.
pub fn vpaddq_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    let both: [i32; 8] = bytemuck::cast([a.0, b.0]);
    int32x4_t(from_fn(|i| both[2 * i].wrapping_add(both[2 * i + 1])))
}

/// SADALP: adds sums of neighbours of `b`, widened; wrapping.
pub fn vpadalq_s16(a: int32x4_t, b: int16x8_t) -> int32x4_t {
    int32x4_t(from_fn(|i| a.0[i].wrapping_add(i32::from(b.0[2 * i]) + i32::from(b.0[2 * i + 1]))))
}

/// SDOT: adds to each lane four products of signed bytes; wrapping.
pub fn vdotq_s32(a: int32x4_t, b: int8x16_t, c: int8x16_t) -> int32x4_t {
    let product = |i: usize| i32::from(b.0[i]) * i32::from(c.0[i]);
    int32x4_t(from_fn(|i| a.0[i].wrapping_add((4 * i..4 * i + 4).map(product).sum())))
}

/// SCVTF: the nearest number, ties to even.
pub fn vcvtq_f32_s32(a: int32x4_t) -> float32x4_t {
    float32x4_t(a.0.map(|a| a as f32))
}

/// FCVTL: subnormal numbers too, and NaNs with their bits, made quiet.
pub fn vcvt_f32_f16(a: float16x4_t) -> float32x4_t {
    float32x4_t(a.0.map(f16_to_f32))
}

/// FCVTN: rounded to even. Which NaN a NaN becomes is not modelled.
pub fn vcvt_f16_f32(a: float32x4_t) -> float16x4_t {
    float16x4_t(a.0.map(f32_to_f16))
}

/// FADD.
pub fn vaddq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    float32x4_t(zip(a.0, b.0, |a, b| a + b))
}

/// FMUL.
pub fn vmulq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    float32x4_t(zip(a.0, b.0, |a, b| a * b))
}

/// FMLA: `a + b * c`, rounded once.
pub fn vfmaq_f32(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    float32x4_t(from_fn(|i| b.0[i].mul_add(c.0[i], a.0[i])))
}

/// FADDP, twice.
pub fn vaddvq_f32(a: float32x4_t) -> f32 {
    let [a, b, c, d] = a.0;
    (a + b) + (c + d)
}
