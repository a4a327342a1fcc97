//! Each function of the model against the processor.

use super::aarch64 as model;
use crate::backend::cpu::simd::tests::Random;

/// The processor's.
mod real {
    pub use crate::backend::cpu::simd::neon::instructions::vdotq_s32;
    pub use std::arch::aarch64::*;
}

/// The same bits as a type of the same size.
fn same_bits<A: Copy, B: Copy>(a: A) -> B {
    assert_eq!(size_of::<A>(), size_of::<B>());
    // SAFETY: both are vectors or numbers, which have the same size and for which all bits are values.
    unsafe { std::mem::transmute_copy(&a) }
}

/// Bytes to compare by; NaNs too.
fn bytes<const N: usize, A: Copy>(a: A) -> [u8; N] {
    same_bits(a)
}

/// Calls both functions with the same random vectors of the given types.
macro_rules! same {
    ($random:expr, $name:ident $(::<$n:literal>)? ($($a:ident: $type:ident),*) -> $bytes:literal) => {
        for _ in 0..200 {
            $(let $a = model::$type(bytemuck::cast($random.bytes::<{ size_of::<model::$type>() }>()));)*
            let expected: [u8; $bytes] = bytes(model::$name$(::<$n>)?($($a),*));
            // SAFETY: all processors of this architecture have NEON; for dot products it has been asked.
            #[allow(unused_unsafe)]
            let found: [u8; $bytes] = bytes(unsafe { real::$name$(::<$n>)?($(same_bits($a)),*) });
            assert_eq!(found, expected, "{} {:?}", stringify!($name), ($($a,)*));
        }
    };
}

#[test]
fn integers() {
    let random = &mut Random::new(1);
    same!(random, vget_low_u16(a: uint16x8_t) -> 8);
    same!(random, vget_high_u16(a: uint16x8_t) -> 8);
    same!(random, vget_low_s16(a: int16x8_t) -> 8);
    same!(random, vget_low_s8(a: int8x16_t) -> 8);
    same!(random, vcombine_u16(a: uint16x4_t, b: uint16x4_t) -> 16);
    same!(random, vmovl_u8(a: uint8x8_t) -> 16);
    same!(random, vmovl_u16(a: uint16x4_t) -> 16);
    same!(random, vmovl_high_u16(a: uint16x8_t) -> 16);
    same!(random, vandq_u32(a: uint32x4_t, b: uint32x4_t) -> 16);
    same!(random, vorrq_u32(a: uint32x4_t, b: uint32x4_t) -> 16);
    same!(random, veorq_u32(a: uint32x4_t, b: uint32x4_t) -> 16);
    same!(random, vbslq_u32(a: uint32x4_t, b: uint32x4_t, c: uint32x4_t) -> 16);
    same!(random, vcgtq_u32(a: uint32x4_t, b: uint32x4_t) -> 16);
    same!(random, vshlq_n_u32::<0>(a: uint32x4_t) -> 16);
    same!(random, vshlq_n_u32::<31>(a: uint32x4_t) -> 16);
    same!(random, vshrq_n_u32::<1>(a: uint32x4_t) -> 16);
    same!(random, vshrq_n_u32::<32>(a: uint32x4_t) -> 16);
    same!(random, vshrq_n_s16::<8>(a: int16x8_t) -> 16);
    same!(random, vshrq_n_s16::<16>(a: int16x8_t) -> 16);
    same!(random, vshrq_n_s32::<16>(a: int32x4_t) -> 16);
    same!(random, vshrq_n_s32::<32>(a: int32x4_t) -> 16);
    same!(random, vshlq_u32(a: uint32x4_t, b: int32x4_t) -> 16);
    same!(random, vaddq_u32(a: uint32x4_t, b: uint32x4_t) -> 16);
    same!(random, vsubq_u32(a: uint32x4_t, b: uint32x4_t) -> 16);
    same!(random, vsubq_u8(a: uint8x16_t, b: uint8x16_t) -> 16);
    same!(random, vmulq_s32(a: int32x4_t, b: int32x4_t) -> 16);
    same!(random, vqtbl1q_u8(a: uint8x16_t, b: uint8x16_t) -> 16);
    same!(random, vmull_s8(a: int8x8_t, b: int8x8_t) -> 16);
    same!(random, vmull_high_s8(a: int8x16_t, b: int8x16_t) -> 16);
    same!(random, vmull_s16(a: int16x4_t, b: int16x4_t) -> 16);
    same!(random, vmull_high_s16(a: int16x8_t, b: int16x8_t) -> 16);
    same!(random, vpaddq_s16(a: int16x8_t, b: int16x8_t) -> 16);
    same!(random, vpaddq_s32(a: int32x4_t, b: int32x4_t) -> 16);
    same!(random, vpadalq_s16(a: int32x4_t, b: int16x8_t) -> 16);
}

#[test]
fn dot_products() {
    if !std::arch::is_aarch64_feature_detected!("dotprod") {
        return;
    }
    let random = &mut Random::new(2);
    same!(random, vdotq_s32(a: int32x4_t, b: int8x16_t, c: int8x16_t) -> 16);
}

#[test]
fn numbers() {
    let random = &mut Random::new(3);
    same!(random, vcvtq_f32_s32(a: int32x4_t) -> 16);
    for bits in 0..=u16::MAX {
        let expected: [u8; 16] = bytes(model::vcvt_f32_f16(model::float16x4_t([bits; 4])));
        // SAFETY: all processors of this architecture have the instruction.
        let found: [u8; 16] = bytes(unsafe { real::vcvt_f32_f16(same_bits([bits; 4])) });
        assert_eq!(found, expected, "{bits:#x}");
    }
    for _ in 0..20_000 {
        let number = random.any_number();
        let expected: [u8; 8] = bytes(model::vcvt_f16_f32(model::float32x4_t([number; 4])));
        // SAFETY: all processors of this architecture have the instruction.
        let found: [u8; 8] = bytes(unsafe { real::vcvt_f16_f32(same_bits([number; 4])) });
        assert_eq!(found, expected, "{number:e}");
    }
}

/// Sums and products of numbers that are no NaNs, whose bits processors choose differently.
#[test]
fn arithmetic() {
    let random = &mut Random::new(4);
    let numbers = |random: &mut Random| model::float32x4_t([(); 4].map(|()| random.number()));
    for _ in 0..1000 {
        let [a, b, c] = [(); 3].map(|()| numbers(random));
        // SAFETY: all processors of this architecture have the instructions.
        let found = unsafe {
            let (a, b, c) = (same_bits(a), same_bits(b), same_bits(c));
            let sum = real::vaddvq_f32(a);
            [real::vaddq_f32(a, b), real::vmulq_f32(a, b), real::vfmaq_f32(a, b, c), real::vdupq_n_f32(sum)]
        };
        let sum = model::vaddvq_f32(a);
        let expected =
            [model::vaddq_f32(a, b), model::vmulq_f32(a, b), model::vfmaq_f32(a, b, c), model::vdupq_n_f32(sum)];
        assert_eq!(bytes::<64, _>(found), bytes::<64, _>(expected), "{a:?} {b:?} {c:?}");
    }
}
