//! The vocabulary in NEON: a vector of eight lanes is two of 128 bits.
//!
//! Processors with the dot product extension (ARMv8.4, and most since Cortex-A55 and A75) multiply and add up four
//! signed bytes a lane in one instruction; for the others there are widening products. All weights that have no sign are
//! below 128, so signed products serve for them too, and the products of mixed sign of the I8MM extension (USDOT) would
//! change nothing. Its matrix products (SMMLA) multiply twice as much at a time, but they spread a row over two lanes,
//! which are not this vocabulary's.
//!
//! Stable Rust has no intrinsics for dot products and prefetching: they are written in assembly below.
//!
//! On other processors, tests compile this file over a model of the intrinsics in plain Rust. Compiled for aarch64 Linux,
//! all tests of the kernels have passed in QEMU's emulation of processors with dot products and without; how fast the
//! unit is has not been measured on any processor.

#![cfg_attr(not(target_arch = "aarch64"), allow(unused_unsafe, reason = "the model is safe"))]

use super::{Isa, LANES, Task};
#[cfg(target_arch = "aarch64")]
use instructions::{prefetch, vdotq_s32};
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;

#[cfg(not(target_arch = "aarch64"))]
use super::model::aarch64::*;

/// What stable Rust has no intrinsics for.
#[cfg(target_arch = "aarch64")]
pub(super) mod instructions {
    use std::arch::aarch64::{int8x16_t, int32x4_t};
    use std::arch::asm;

    /// Adds to each 32-bit integer the four products of bytes.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    pub fn vdotq_s32(mut a: int32x4_t, b: int8x16_t, c: int8x16_t) -> int32x4_t {
        // SAFETY: the instruction works on these registers alone; the function's features say that it is there.
        unsafe {
            asm!(
                "sdot {a:v}.4s, {b:v}.16b, {c:v}.16b",
                a = inout(vreg) a, b = in(vreg) b, c = in(vreg) c,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        a
    }

    /// Says that this address will be read.
    #[inline(always)]
    pub fn prefetch(address: *const u8) {
        // SAFETY: a hint, for which no address is wrong.
        unsafe {
            asm!("prfm pldl1keep, [{address}]", address = in(reg) address, options(readonly, nostack, preserves_flags));
        }
    }
}

/// The proof that the processor has NEON, and if `DOT`, its dot products of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon<const DOT: bool>(());

impl Neon<false> {
    /// All processors of this architecture have it.
    pub fn new() -> Self {
        Neon(())
    }
}

impl Neon<true> {
    /// The proof, if it is so.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "aarch64")]
        return std::arch::is_aarch64_feature_detected!("dotprod").then_some(Neon(()));
        #[cfg(not(target_arch = "aarch64"))]
        return Some(Neon(()));
    }
}

/// How far ahead weights are fetched.
const AHEAD_BYTES: usize = 2048;

/// An intrinsic that has no conditions but the processor's.
macro_rules! neon {
    ($call:expr) => {
        // SAFETY: the value of type `Neon` that the method was called on proves that the processor has the instructions.
        unsafe { $call }
    };
}

/// What is done with one half of the vectors, done with both.
macro_rules! both {
    ($($a:ident),* => $call:expr) => {
        [{ $(let $a = $a[0];)* neon!($call) }, { $(let $a = $a[1];)* neon!($call) }]
    };
}

/// The first sixteen bytes.
#[inline(always)]
fn sixteen(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: the pointer is that of an array of as many bytes as are read, and needs no alignment; all processors of
    // this architecture have the instruction.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

/// The first eight 16-bit numbers; zeros if there are fewer.
#[inline(always)]
fn eight(bytes: &[u8]) -> uint16x8_t {
    neon!(vreinterpretq_u16_u8(sixteen(bytes.first_chunk().unwrap_or(&[0; 16]))))
}

/// The same in 32 bits.
#[inline(always)]
fn wide(numbers: uint16x8_t) -> [uint32x4_t; 2] {
    [neon!(vmovl_u16(vget_low_u16(numbers))), neon!(vmovl_high_u16(numbers))]
}

/// How to move bytes A and B of each lane to the upper halves of 16 bits. There is no byte 255, which makes zeros.
const fn upper_halves(a: usize, b: usize) -> [u8; 16] {
    let mut order = [255; 16];
    let mut lane = 0;
    while lane < 4 {
        order[4 * lane + 1] = (4 * lane + a) as u8;
        order[4 * lane + 3] = (4 * lane + b) as u8;
        lane += 1;
    }
    order
}

#[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon,dotprod"))]
fn vectorized<T: Task>(s: Neon<true>, task: T) -> T::Output {
    task.run(s)
}

impl<const DOT: bool> Isa for Neon<DOT> {
    type I = [uint32x4_t; 2];
    type F = [float32x4_t; 2];
    type Sum = [int32x4_t; 2];

    const BIAS: Option<u8> = Some(0);

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) -> T::Output {
        // NEON alone is on in all code for this architecture.
        if DOT { neon!(vectorized(Neon(()), task)) } else { task.run(self) }
    }

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> Self::I {
        let (halves, _) = bytes.first_chunk::<32>().unwrap_or(&[0; 32]).as_chunks::<16>();
        [neon!(vreinterpretq_u32_u8(sixteen(&halves[0]))), neon!(vreinterpretq_u32_u8(sixteen(&halves[1])))]
    }

    #[inline(always)]
    fn load_u16(self, bytes: &[u8]) -> Self::I {
        wide(eight(bytes))
    }

    #[inline(always)]
    fn splat(self, word: i32) -> Self::I {
        [neon!(vdupq_n_u32(word as u32)); 2]
    }

    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        both!(a, b => vandq_u32(a, b))
    }

    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        both!(a, b => vorrq_u32(a, b))
    }

    #[inline(always)]
    fn xor(self, a: Self::I, b: Self::I) -> Self::I {
        both!(a, b => veorq_u32(a, b))
    }

    #[inline(always)]
    fn shl<const N: i32>(self, a: Self::I) -> Self::I {
        both!(a => vshlq_n_u32::<N>(a))
    }

    #[inline(always)]
    fn shr<const N: i32>(self, a: Self::I) -> Self::I {
        both!(a => vshrq_n_u32::<N>(a))
    }

    #[inline(always)]
    fn sub_bytes(self, a: Self::I, b: Self::I) -> Self::I {
        both!(a, b => vreinterpretq_u32_u8(vsubq_u8(vreinterpretq_u8_u32(a), vreinterpretq_u8_u32(b))))
    }

    #[inline(always)]
    fn lookup(self, table: &[i8; 16], index: Self::I) -> Self::I {
        let table = sixteen(bytemuck::cast_ref(table));
        both!(index => vreinterpretq_u32_u8(vqtbl1q_u8(table, vreinterpretq_u8_u32(index))))
    }

    #[inline(always)]
    fn pair<const A: usize, const B: usize>(self, a: Self::I) -> Self::I {
        // Each byte into the upper half of 16 bits, then down again with its sign.
        let order = sixteen(const { &upper_halves(A, B) });
        both!(a => {
            let upper = vreinterpretq_s16_u8(vqtbl1q_u8(vreinterpretq_u8_u32(a), order));
            vreinterpretq_u32_s16(vshrq_n_s16::<8>(upper))
        })
    }

    #[inline(always)]
    fn add(self, a: Self::I, b: Self::I) -> Self::I {
        both!(a, b => vaddq_u32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Self::I, b: Self::I) -> Self::I {
        both!(a, b => vsubq_u32(a, b))
    }

    #[inline(always)]
    fn dot_i16(self, a: Self::I, b: Self::I) -> Self::I {
        both!(a, b => {
            let (a, b) = (vreinterpretq_s16_u32(a), vreinterpretq_s16_u32(b));
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            vreinterpretq_u32_s32(vpaddq_s32(low, vmull_high_s16(a, b)))
        })
    }

    #[inline(always)]
    fn no_sum(self) -> Self::Sum {
        [neon!(vdupq_n_s32(0)); 2]
    }

    #[inline(always)]
    fn dot(self, sum: Self::Sum, w: Self::I, x: Self::I) -> Self::Sum {
        both!(sum, w, x => {
            let (w, x) = (vreinterpretq_s8_u32(w), vreinterpretq_s8_u32(x));
            if DOT {
                vdotq_s32(sum, w, x)
            } else {
                // Two products fit 16 bits, as no byte of `x` is -128.
                let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
                vpadalq_s16(sum, vpaddq_s16(low, vmull_high_s8(w, x)))
            }
        })
    }

    #[inline(always)]
    fn dot_signed(self, sum: Self::Sum, w: Self::I, x: Self::I) -> Self::Sum {
        self.dot(sum, w, x)
    }

    #[inline(always)]
    fn scaled(self, sum: Self::Sum, scale: Self::I) -> Self::I {
        both!(sum, scale => {
            let scale = vshrq_n_s32::<16>(vreinterpretq_s32_u32(scale));
            vreinterpretq_u32_s32(vmulq_s32(sum, scale))
        })
    }

    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        both!(a => vcvtq_f32_s32(vreinterpretq_s32_u32(a)))
    }

    #[inline(always)]
    fn load_f16(self, bytes: &[u8]) -> Self::F {
        let eight = eight(bytes);
        let halves = [neon!(vget_low_u16(eight)), neon!(vget_high_u16(eight))];
        both!(halves => vcvt_f32_f16(vreinterpret_f16_u16(halves)))
    }

    #[inline(always)]
    fn to_f16(self, a: Self::F) -> [u8; 2 * LANES] {
        let [low, high] = both!(a => vreinterpret_u16_f16(vcvt_f16_f32(a)));
        let mut bytes = [0; 2 * LANES];
        // SAFETY: the array has room for the 16 bytes that are written, unaligned; all processors of this architecture
        // have the instruction.
        unsafe { vst1q_u8(bytes.as_mut_ptr(), vreinterpretq_u8_u16(vcombine_u16(low, high))) };
        bytes
    }

    #[inline(always)]
    fn load_bf16(self, bytes: &[u8]) -> Self::F {
        self.to_float_bits(self.shl::<16>(self.load_u16(bytes)))
    }

    #[inline(always)]
    fn to_float_bits(self, a: Self::I) -> Self::F {
        both!(a => vreinterpretq_f32_u32(a))
    }

    #[inline(always)]
    fn load_f32(self, values: &[f32]) -> Self::F {
        let values = values.first_chunk::<LANES>().unwrap_or(&[0.0; LANES]).as_ptr();
        // SAFETY: the pointer is that of an array of eight numbers, of which the first and the last four are read.
        unsafe { [vld1q_f32(values), vld1q_f32(values.add(4))] }
    }

    #[inline(always)]
    fn load_half_e8m0(self, bytes: &[u8]) -> Self::F {
        let bytes = bytes.first_chunk::<8>().unwrap_or(&[0; 8]);
        // SAFETY: the pointer is that of an array of as many bytes as are read; the rest as above.
        let e = wide(unsafe { vmovl_u8(vld1_u8(bytes.as_ptr())) });
        let one = neon!(vdupq_n_u32(1));
        both!(e => {
            let normal = vshlq_n_u32::<23>(vsubq_u32(e, one));
            let subnormal = vshlq_u32(vdupq_n_u32(0x0020_0000), vreinterpretq_s32_u32(e));
            vreinterpretq_f32_u32(vbslq_u32(vcgtq_u32(e, one), normal, subnormal))
        })
    }

    #[inline(always)]
    fn splat_f32(self, value: f32) -> Self::F {
        [neon!(vdupq_n_f32(value)); 2]
    }

    #[inline(always)]
    fn add_f32(self, a: Self::F, b: Self::F) -> Self::F {
        both!(a, b => vaddq_f32(a, b))
    }

    #[inline(always)]
    fn mul_f32(self, a: Self::F, b: Self::F) -> Self::F {
        both!(a, b => vmulq_f32(a, b))
    }

    #[inline(always)]
    fn mul_add_f32(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(a, b, c => vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn lanes(self, a: Self::F) -> [f32; LANES] {
        let mut lanes = [0.0f32; LANES];
        let to = lanes.as_mut_ptr();
        // SAFETY: the array has room for eight numbers, of which the first and the last four are written.
        unsafe {
            vst1q_f32(to, a[0]);
            vst1q_f32(to.add(4), a[1]);
        }
        lanes
    }

    #[inline(always)]
    fn sum_f32(self, a: Self::F) -> f32 {
        neon!(vaddvq_f32(vaddq_f32(a[0], a[1])))
    }

    #[inline(always)]
    fn prefetch_ahead(self, bytes: &[u8]) {
        for line in 0..bytes.len() / 64 {
            prefetch(bytes.as_ptr().wrapping_add(AHEAD_BYTES + 64 * line));
        }
    }
}
