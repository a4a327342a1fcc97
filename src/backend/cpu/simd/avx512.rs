//! The vocabulary in AVX-512, on vectors of 256 bits.
//!
//! Products of bytes are one instruction of AVX512-VNNI, which adds them up in 32 bits: nothing has to be widened early,
//! and a lane of a sum is a lane of its row. Everything else is [`Avx2`]'s: the compiler writes its intrinsics in the
//! encoding of AVX-512 here, with 32 registers instead of 16.
//!
//! AVX512-BF16 is left alone. Its products take both sides in BF16, so the activations of BF16 weights would be rounded
//! to eight bits of fraction; to widen BF16 weights, a shift is all it takes.
//!
//! Tests have a second way to a value of the type, on which the instruction is modelled in plain Rust, for processors that
//! have none.

use super::avx2::Avx2;
use super::{Isa, LANES, Task};
use std::arch::x86_64::*;

/// The proof that the processor has AVX512-VL with VNNI and BW.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512 {
    avx2: Avx2,
    /// It has not, and VNNI is modelled.
    #[cfg(test)]
    modelled: bool,
}

impl Avx512 {
    /// The proof, if it is so.
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        let avx2 = Avx2::detect().filter(|_| found)?;
        Some(Avx512 {
            avx2,
            #[cfg(test)]
            modelled: false,
        })
    }

    /// A unit that any processor with AVX2 can run.
    #[cfg(test)]
    pub fn modelled() -> Option<Self> {
        Some(Avx512 { avx2: Avx2::detect()?, modelled: true })
    }

    /// Adds for each lane four products of bytes, of which `a` has no sign.
    #[inline(always)]
    fn products(self, sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        #[cfg(test)]
        if self.modelled {
            return super::model::x86_64::_mm256_dpbusd_epi32(sum, a, b);
        }
        // SAFETY: the value of type `Avx512`, which is not modelled, proves that the processor has the instruction.
        unsafe { _mm256_dpbusd_epi32(sum, a, b) }
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn vectorized<T: Task>(s: Avx512, task: T) -> T::Output {
    task.run(s)
}

/// Words for which AVX2 is enough.
macro_rules! as_avx2 {
    ($(fn $name:ident $(<$(const $n:ident: $t:ty),+>)? ($($a:ident: $type:ty),*) -> $out:ty;)*) => {$(
        #[inline(always)]
        fn $name $(<$(const $n: $t),+>)? (self, $($a: $type),*) -> $out {
            self.avx2.$name $(::<$($n),+>)? ($($a),*)
        }
    )*};
}

impl Isa for Avx512 {
    type I = __m256i;
    type F = __m256;
    type Sum = __m256i; // 8 sums of 32 bits

    const BIAS: Option<u8> = Some(128);

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) -> T::Output {
        #[cfg(test)]
        if self.modelled {
            return task.run(self);
        }
        // SAFETY: the value of type `Avx512`, which is not modelled, proves that the processor has the instructions.
        unsafe { vectorized(self, task) }
    }

    #[inline(always)]
    fn no_sum(self) -> __m256i {
        self.splat(0)
    }

    #[inline(always)]
    fn dot(self, sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        self.products(sum, w, x)
    }

    #[inline(always)]
    fn dot_signed(self, sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the value of type `Avx512` proves AVX2.
        let (size, x) = unsafe { (_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)) };
        self.products(sum, size, x)
    }

    #[inline(always)]
    fn scaled(self, sum: __m256i, scale: __m256i) -> __m256i {
        // SAFETY: the value of type `Avx512` proves AVX2.
        unsafe { _mm256_mullo_epi32(sum, _mm256_srai_epi32::<16>(scale)) }
    }

    as_avx2! {
        fn load(bytes: &[u8]) -> __m256i;
        fn load_u16(bytes: &[u8]) -> __m256i;
        fn splat(word: i32) -> __m256i;
        fn and(a: __m256i, b: __m256i) -> __m256i;
        fn or(a: __m256i, b: __m256i) -> __m256i;
        fn xor(a: __m256i, b: __m256i) -> __m256i;
        fn shl<const N: i32>(a: __m256i) -> __m256i;
        fn shr<const N: i32>(a: __m256i) -> __m256i;
        fn sub_bytes(a: __m256i, b: __m256i) -> __m256i;
        fn lookup(table: &[i8; 16], index: __m256i) -> __m256i;
        fn pair<const A: usize, const B: usize>(a: __m256i) -> __m256i;
        fn add(a: __m256i, b: __m256i) -> __m256i;
        fn sub(a: __m256i, b: __m256i) -> __m256i;
        fn dot_i16(a: __m256i, b: __m256i) -> __m256i;
        fn to_f32(a: __m256i) -> __m256;
        fn load_f16(bytes: &[u8]) -> __m256;
        fn to_f16(a: __m256) -> [u8; 2 * LANES];
        fn load_bf16(bytes: &[u8]) -> __m256;
        fn to_float_bits(a: __m256i) -> __m256;
        fn load_f32(values: &[f32]) -> __m256;
        fn load_half_e8m0(bytes: &[u8]) -> __m256;
        fn splat_f32(value: f32) -> __m256;
        fn add_f32(a: __m256, b: __m256) -> __m256;
        fn mul_f32(a: __m256, b: __m256) -> __m256;
        fn mul_add_f32(a: __m256, b: __m256, c: __m256) -> __m256;
        fn lanes(a: __m256) -> [f32; LANES];
        fn sum_f32(a: __m256) -> f32;
        fn prefetch_ahead(bytes: &[u8]) -> ();
    }
}
