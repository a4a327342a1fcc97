//! The vocabulary in AVX2, FMA and F16C.
//!
//! Products of bytes are added up in 16 bits, eight times cheaper than in 32: [`Isa::dot`] is two instructions. What
//! may be added before it must be widened is said by each format.

use super::{Isa, LANES, Task};
use std::arch::x86_64::*;

/// The proof that the processor has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if it is so.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"))
            .then_some(Avx2(()))
    }
}

/// How far ahead weights are fetched.
const AHEAD_BYTES: usize = 2048;

/// An intrinsic that has no conditions but the processor's.
macro_rules! avx2 {
    ($call:expr) => {
        // SAFETY: the value of type `Avx2` that the method was called on proves that the processor has the instructions.
        unsafe { $call }
    };
}

/// How to shuffle the bytes of a lane so that bytes A and B stand in the upper halves of 16 bits, over zeros.
const fn first(a: i32, b: i32) -> i32 {
    0x0080_0080 | a << 8 | b << 24
}

/// What to add to that for the next lane.
const EACH: i32 = 0x0400_0400;

#[target_feature(enable = "avx2,fma,f16c")]
fn vectorized<T: Task>(s: Avx2, task: T) -> T::Output {
    task.run(s)
}

/// The first N bytes as a vector of that size.
macro_rules! load {
    ($bytes:expr, $count:literal, $load:expr, $zero:expr) => {
        match $bytes.first_chunk::<$count>() {
            // SAFETY: the pointer is that of an array of as many bytes as are read, and needs no alignment; `Avx2`
            // proves the processor.
            Some(bytes) => unsafe { $load(bytes.as_ptr().cast()) },
            None => avx2!($zero),
        }
    };
}

impl Isa for Avx2 {
    type I = __m256i;
    type F = __m256;
    type Sum = __m256i; // 16 sums of 16 bits

    const BIAS: Option<u8> = None;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) -> T::Output {
        avx2!(vectorized(self, task))
    }

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> __m256i {
        load!(bytes, 32, _mm256_loadu_si256, _mm256_setzero_si256())
    }

    #[inline(always)]
    fn load_u16(self, bytes: &[u8]) -> __m256i {
        let half = load!(bytes, 16, _mm_loadu_si128, _mm_setzero_si128());
        avx2!(_mm256_cvtepu16_epi32(half))
    }

    #[inline(always)]
    fn splat(self, word: i32) -> __m256i {
        avx2!(_mm256_set1_epi32(word))
    }

    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_and_si256(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn xor(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_xor_si256(a, b))
    }

    #[inline(always)]
    fn shl<const N: i32>(self, a: __m256i) -> __m256i {
        avx2!(_mm256_slli_epi32::<N>(a))
    }

    #[inline(always)]
    fn shr<const N: i32>(self, a: __m256i) -> __m256i {
        avx2!(_mm256_srli_epi32::<N>(a))
    }

    #[inline(always)]
    fn sub_bytes(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_sub_epi8(a, b))
    }

    #[inline(always)]
    fn lookup(self, table: &[i8; 16], index: __m256i) -> __m256i {
        // SAFETY: the array has the 16 bytes that are read, unaligned; `Avx2` proves the processor.
        let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
        avx2!(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), index))
    }

    #[inline(always)]
    fn pair<const A: usize, const B: usize>(self, a: __m256i) -> __m256i {
        // Each byte into the upper half of 16 bits, then down again with its sign.
        let order = const {
            let (a, b) = (A as i32, B as i32);
            [first(a, b), first(a, b) + EACH, first(a, b) + 2 * EACH, first(a, b) + 3 * EACH]
        };
        avx2!({
            let half = _mm_setr_epi32(order[0], order[1], order[2], order[3]);
            _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(half)))
        })
    }

    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_add_epi32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_sub_epi32(a, b))
    }

    #[inline(always)]
    fn dot_i16(self, a: __m256i, b: __m256i) -> __m256i {
        avx2!(_mm256_madd_epi16(a, b))
    }

    #[inline(always)]
    fn no_sum(self) -> __m256i {
        avx2!(_mm256_setzero_si256())
    }

    #[inline(always)]
    fn dot(self, sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        avx2!(_mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x)))
    }

    #[inline(always)]
    fn dot_signed(self, sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        avx2!(_mm256_add_epi16(sum, _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))))
    }

    #[inline(always)]
    fn scaled(self, sum: __m256i, scale: __m256i) -> __m256i {
        avx2!(_mm256_madd_epi16(sum, scale))
    }

    #[inline(always)]
    fn to_f32(self, a: __m256i) -> __m256 {
        avx2!(_mm256_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn load_f16(self, bytes: &[u8]) -> __m256 {
        let half = load!(bytes, 16, _mm_loadu_si128, _mm_setzero_si128());
        avx2!(_mm256_cvtph_ps(half))
    }

    #[inline(always)]
    fn to_f16(self, a: __m256) -> [u8; 2 * LANES] {
        let mut bytes = [0; 2 * LANES];
        // SAFETY: the array has room for the 16 bytes that are written, unaligned; `Avx2` proves the processor.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a)) };
        bytes
    }

    #[inline(always)]
    fn load_bf16(self, bytes: &[u8]) -> __m256 {
        let wide = self.load_u16(bytes);
        avx2!(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide)))
    }

    #[inline(always)]
    fn to_float_bits(self, a: __m256i) -> __m256 {
        avx2!(_mm256_castsi256_ps(a))
    }

    #[inline(always)]
    fn load_f32(self, values: &[f32]) -> __m256 {
        load!(values, 8, _mm256_loadu_ps, _mm256_setzero_ps())
    }

    #[inline(always)]
    fn load_half_e8m0(self, bytes: &[u8]) -> __m256 {
        let eight = load!(bytes, 8, _mm_loadl_epi64, _mm_setzero_si128());
        avx2!({
            let e = _mm256_cvtepu8_epi32(eight);
            let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, _mm256_set1_epi32(1)));
            let subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), e);
            let is_normal = _mm256_cmpgt_epi32(e, _mm256_set1_epi32(1));
            _mm256_castsi256_ps(_mm256_blendv_epi8(subnormal, normal, is_normal))
        })
    }

    #[inline(always)]
    fn splat_f32(self, value: f32) -> __m256 {
        avx2!(_mm256_set1_ps(value))
    }

    #[inline(always)]
    fn add_f32(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn mul_f32(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn mul_add_f32(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        avx2!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn lanes(self, a: __m256) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array has room for the eight numbers that are written, unaligned; `Avx2` proves the processor.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), a) };
        lanes
    }

    #[inline(always)]
    fn sum_f32(self, a: __m256) -> f32 {
        avx2!({
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn prefetch_ahead(self, bytes: &[u8]) {
        for line in 0..bytes.len() / 64 {
            // Only a hint: no address is wrong.
            avx2!(_mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD_BYTES + 64 * line).cast()));
        }
    }
}
