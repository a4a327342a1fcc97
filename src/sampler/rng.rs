//! The sampler's own source of chance: xoshiro256++ (Blackman and Vigna), its state filled from a seed by SplitMix64.
//!
//! Both are fixed here for good, because people keep seeds: the same seed gives the same numbers on every platform and
//! in every version.

/// A stream of numbers, given by its seed.
#[derive(Debug, Clone)]
pub(super) struct Rng {
    state: [u64; 4],
}

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        let mut mix = SplitMix(seed);
        Self { state: [mix.next(), mix.next(), mix.next(), mix.next()] }
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Uniform in `0.0..1.0`, in steps of 2⁻⁵³.
    pub(super) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// Spreads a seed of any quality over as many bits as wanted.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_published_generators() {
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let numbers: Vec<u64> = (0..6).map(|_| rng.next()).collect();
        let published =
            [41943041, 58720359, 3588806011781223, 3591011842654386, 9228616714210784205, 9973669472204895162];
        assert_eq!(numbers, published);
        let mut mix = SplitMix(1477776061723855037);
        let published = [1985237415132408290, 2979275885539914483, 13511426838097143398];
        assert_eq!([mix.next(), mix.next(), mix.next()], published);
    }

    #[test]
    fn uniform_numbers_fill_the_unit_interval_evenly() {
        let mut rng = Rng::new(7);
        let mut counts = [0; 10];
        for _ in 0..100_000 {
            let x = rng.uniform();
            assert!((0.0..1.0).contains(&x));
            counts[(x * 10.0) as usize] += 1;
        }
        // Chi-square with 9 degrees of freedom: 27.9 is passed once in a thousand.
        let chi_square: f64 = counts.iter().map(|&n| (n as f64 - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi_square < 27.9, "{chi_square}: {counts:?}");
    }
}
