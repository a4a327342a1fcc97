//! What AVX-512 has and AVX2 has not.

use std::arch::x86_64::__m256i;
use std::array::from_fn;

/// VPDPBUSD: adds to each 32-bit integer the four products of bytes of `a`, without sign, and of `b`, with sign. The
/// sum wraps.
pub fn _mm256_dpbusd_epi32(src: __m256i, a: __m256i, b: __m256i) -> __m256i {
    let sums: [i32; 8] = bytemuck::cast(src);
    let (a, b): ([[u8; 4]; 8], [[i8; 4]; 8]) = (bytemuck::cast(a), bytemuck::cast(b));
    let products = |i: usize| a[i].iter().zip(b[i]).map(|(&a, b)| i32::from(a) * i32::from(b)).sum();
    let sums: [i32; 8] = from_fn(|i| sums[i].wrapping_add(products(i)));
    bytemuck::cast(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::tests::Random;
    use std::arch::x86_64;

    #[target_feature(enable = "avx512vnni,avx512vl")]
    fn real(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        x86_64::_mm256_dpbusd_epi32(sums, a, b)
    }

    #[test]
    fn known_products() {
        let sums = [i32::MAX, 0, -5, 7, 0, 0, 0, 1];
        let a =
            [[255u8, 255, 255, 255], [255; 4], [1, 2, 3, 4], [0; 4], [128; 4], [255, 0, 0, 0], [0, 0, 0, 255], [1; 4]];
        let b = [[127i8; 4], [-128; 4], [1, -1, 1, -1], [9; 4], [-1; 4], [-128, 1, 1, 1], [1, 1, 1, 127], [-128; 4]];
        let expected =
            [i32::MAX.wrapping_add(4 * 255 * 127), -4 * 255 * 128, -7, 7, -512, -255 * 128, 255 * 127, 1 - 512];
        let found = _mm256_dpbusd_epi32(bytemuck::cast(sums), bytemuck::cast(a), bytemuck::cast(b));
        assert_eq!(bytemuck::cast::<_, [i32; 8]>(found), expected);
    }

    #[test]
    fn as_the_processor() {
        if !is_x86_feature_detected!("avx512vnni") || !is_x86_feature_detected!("avx512vl") {
            return;
        }
        let mut random = Random::new(1);
        for _ in 0..1000 {
            let [sums, a, b] = [(); 3].map(|()| bytemuck::cast::<[u8; 32], __m256i>(random.bytes()));
            // SAFETY: the processor has just been asked.
            let real = unsafe { real(sums, a, b) };
            let model = _mm256_dpbusd_epi32(sums, a, b);
            assert_eq!(bytemuck::cast::<_, [i32; 8]>(model), bytemuck::cast::<_, [i32; 8]>(real));
        }
    }
}
