//! Every word of every unit, and the kernels on every unit, against `Scalar`. Units that this machine has not run on
//! models of their instructions.

use super::formats::{Format, large, small};
use super::scalar::Scalar;
use super::{Isa, LANES, Level, Task, neon};
use crate::backend::cpu::activations::Activations;
use crate::backend::cpu::matmul::matmul;
use crate::backend::cpu::matrix::{Matrix, MatrixOptions};
use crate::backend::cpu::pool::Pool;
use crate::gguf::TensorType::{self, *};
use crate::quant;
use std::array::from_fn;
use std::sync::Arc;

/// A small generator of random numbers, which likes the ends of ranges.
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn byte(&mut self) -> u8 {
        const EDGES: [u8; 8] = [0, 1, 0x7e, 0x7f, 0x80, 0x81, 0xfe, 0xff];
        let random = self.next();
        if random & 0x300 == 0 { EDGES[random as usize & 7] } else { random as u8 }
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        from_fn(|_| self.byte())
    }

    /// From -1 to 1.
    pub fn number(&mut self) -> f32 {
        (self.next() >> 24) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Of any size that 16 bits hold or are near to, and infinite now and then; no NaN.
    pub fn any_number(&mut self) -> f32 {
        match self.byte() {
            0 => f32::INFINITY,
            byte => self.number() * 2f32.powi(i32::from(byte) % 50 - 30),
        }
    }
}

/// The 32-bit integers of a vector.
fn lanes<S: Isa>(s: S, a: S::I) -> [u32; LANES] {
    bits(s, s.to_float_bits(a))
}

fn bits<S: Isa>(s: S, a: S::F) -> [u32; LANES] {
    s.lanes(a).map(f32::to_bits)
}

/// One word on this unit and on the other, with the same vectors.
macro_rules! same {
    ($s:ident, $get:ident, $name:ident $(::<$($n:literal),+>)? ($($a:expr),*)) => {
        assert_eq!(
            $get($s, $s.$name$(::<$($n),+>)?($($s.load(&$a)),*)),
            $get(Scalar, Scalar.$name$(::<$($n),+>)?($(Scalar.load(&$a)),*)),
            "{} {:?}", stringify!($name), ($($a,)*)
        );
    };
}

/// All words.
struct Words(u64);

impl Task for Words {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let mut random = Random::new(self.0);
        for _ in 0..300 {
            integers(s, &mut random);
            shifts(s, &mut random);
            products(s, &mut random);
            loads(s, &mut random);
            numbers(s, &mut random);
        }
        powers(s);
        s.prefetch_ahead(&[0; 256]);
    }
}

fn integers<S: Isa>(s: S, random: &mut Random) {
    let (a, b) = (random.bytes::<32>(), random.bytes::<32>());
    same!(s, lanes, and(a, b));
    same!(s, lanes, or(a, b));
    same!(s, lanes, xor(a, b));
    same!(s, lanes, sub_bytes(a, b));
    same!(s, lanes, add(a, b));
    same!(s, lanes, sub(a, b));
    same!(s, bits, to_f32(a));
    same!(s, bits, to_float_bits(a));
    let word = i32::from_le_bytes(random.bytes());
    assert_eq!(lanes(s, s.splat(word)), [word as u32; LANES]);
    let (table, index) = (random.bytes::<16>().map(|byte| byte as i8), a.map(|byte| byte & 15));
    assert_eq!(lanes(s, s.lookup(&table, s.load(&index))), lanes(Scalar, Scalar.lookup(&table, Scalar.load(&index))));
}

fn shifts<S: Isa>(s: S, random: &mut Random) {
    let a = random.bytes::<32>();
    same!(s, lanes, shl::<1>(a));
    same!(s, lanes, shl::<4>(a));
    same!(s, lanes, shl::<8>(a));
    same!(s, lanes, shl::<31>(a));
    same!(s, lanes, shr::<1>(a));
    same!(s, lanes, shr::<4>(a));
    same!(s, lanes, shr::<7>(a));
    same!(s, lanes, shr::<31>(a));
    same!(s, lanes, pair::<0, 0>(a));
    same!(s, lanes, pair::<1, 1>(a));
    same!(s, lanes, pair::<2, 2>(a));
    same!(s, lanes, pair::<3, 3>(a));
    same!(s, lanes, pair::<0, 1>(a));
    same!(s, lanes, pair::<2, 3>(a));
    same!(s, lanes, pair::<3, 0>(a));
}

/// Sums of `count` products by both units' dot products, times a scale.
fn sums<S: Isa>(s: S, scale: [u8; 32], count: usize, mut quads: impl FnMut() -> ([u8; 32], [u8; 32]), signed: bool) {
    let (mut sum, mut expected) = (s.no_sum(), Scalar.no_sum());
    for _ in 0..count {
        let (w, x) = quads();
        let (left, right) = (s.load(&w), s.load(&x));
        sum = match (signed, S::BIAS, count) {
            (true, Some(0), 2..) => s.dot(sum, left, right),
            (true, ..) => s.dot_signed(sum, left, right),
            (false, ..) => s.dot(sum, left, right),
        };
        let (left, right) = (Scalar.load(&w), Scalar.load(&x));
        expected = if signed { Scalar.dot_signed(expected, left, right) } else { Scalar.dot(expected, left, right) };
    }
    let sum = s.scaled(sum, s.pair::<1, 1>(s.load(&scale)));
    let expected = Scalar.scaled(expected, Scalar.pair::<1, 1>(Scalar.load(&scale)));
    assert_eq!(lanes(s, sum), expected, "{count} quads, signed: {signed}");
}

fn products<S: Isa>(s: S, random: &mut Random) {
    let (a, b, scale) = (random.bytes::<32>(), random.bytes::<32>(), random.bytes());
    // Two products of -32768 and itself would not fit.
    same!(s, lanes, dot_i16(a.map(|byte| byte & 0x7f), b));
    let activations = |random: &mut Random| random.bytes().map(|byte: u8| (byte as i8).max(-127) as u8);
    let mut quads = |mask: u8| (random.bytes().map(|byte: u8| byte & mask), activations(random));
    sums(s, scale, 1, || quads(0x7f), false);
    sums(s, scale, 1, || quads(0xff), true);
    // As far as 16 bits go.
    sums(s, scale, 2, || quads(0x3f), false);
    sums(s, scale, 4, || quads(0x1f), false);
    sums(s, scale, 8, || quads(0x0f), false);
    sums(s, scale, 8, || ([0x0f; 32], [(-127i8) as u8; 32]), false);
    sums(s, scale, 2, || ([0x3f; 32], [127; 32]), false);
    if let Some(bias) = S::BIAS {
        sums(s, scale, 8, || quads(0xff), bias == 0);
        sums(s, scale, 8, || quads(0xff), true);
        sums(s, scale, 8, || ([0x80; 32], [0x81; 32]), bias == 0);
        sums(s, scale, 8, || ([0xff; 32], [0x81; 32]), bias == 0);
    }
}

/// Whole slices at any address, and slices that are too short.
fn loads<S: Isa>(s: S, random: &mut Random) {
    let bytes = random.bytes::<64>();
    let at = random.next() as usize % 16;
    let bytes = &bytes[at..];
    assert_eq!(lanes(s, s.load(bytes)), Scalar.load(bytes));
    assert_eq!(lanes(s, s.load_u16(bytes)), Scalar.load_u16(bytes));
    assert_eq!(bits(s, s.load_f16(bytes)), bits(Scalar, Scalar.load_f16(bytes)), "{bytes:?}");
    assert_eq!(bits(s, s.load_bf16(bytes)), bits(Scalar, Scalar.load_bf16(bytes)), "{bytes:?}");
    for short in 0..32 {
        assert_eq!(lanes(s, s.load(&bytes[..short])), [0; LANES]);
    }
    for short in 0..16 {
        assert_eq!(lanes(s, s.load_u16(&bytes[..short])), [0; LANES]);
        assert_eq!(bits(s, s.load_f16(&bytes[..short])), [0; LANES]);
        assert_eq!(bits(s, s.load_bf16(&bytes[..short])), [0; LANES]);
    }
    let values: [f32; 9] = from_fn(|_| f32::from_bits(u32::from_le_bytes(random.bytes())));
    assert_eq!(bits(s, s.load_f32(&values[1..])), bits(Scalar, Scalar.load_f32(&values[1..])));
    for short in 0..LANES {
        assert_eq!(bits(s, s.load_f32(&values[..short])), [0; LANES]);
    }
}

fn numbers<S: Isa>(s: S, random: &mut Random) {
    let [a, b, c]: [[f32; LANES]; 3] = from_fn(|_| from_fn(|_| random.number()));
    let [x, y, z] = [a, b, c].map(|values| s.load_f32(&values));
    let wide: [f32; LANES] = from_fn(|_| random.any_number());
    assert_eq!(s.to_f16(s.load_f32(&wide)), Scalar.to_f16(wide), "{wide:?}");
    assert_eq!(s.lanes(s.splat_f32(a[0])), [a[0]; LANES]);
    assert_eq!(s.lanes(s.add_f32(x, y)), Scalar.add_f32(a, b));
    assert_eq!(s.lanes(s.mul_f32(x, y)), Scalar.mul_f32(a, b));
    for (i, found) in s.lanes(s.mul_add_f32(x, y, z)).into_iter().enumerate() {
        assert!(found == a[i].mul_add(b[i], c[i]) || found == a[i] * b[i] + c[i]);
    }
    assert!((s.sum_f32(x) - a.iter().sum::<f32>()).abs() < 1e-5);
}

/// All of them, and the special halves of numbers.
fn powers<S: Isa>(s: S) {
    let all: [u8; 256] = from_fn(|i| i as u8);
    for eight in all.chunks_exact(8) {
        assert_eq!(bits(s, s.load_half_e8m0(eight)), bits(Scalar, Scalar.load_half_e8m0(eight)), "{eight:?}");
    }
    for halves in [
        [0u16, 0x8000, 1, 0x8001, 0x03ff, 0x0400, 0x7bff, 0xfbff],
        [0x7c00, 0xfc00, 0x7c01, 0x7e00, 0xfe01, 0x7fff, 0xffff, 0x3c00],
    ] {
        let bytes: [u8; 16] = bytemuck::cast(halves.map(u16::to_le_bytes));
        assert_eq!(bits(s, s.load_f16(&bytes)), bits(Scalar, Scalar.load_f16(&bytes)), "{halves:x?}");
        assert_eq!(bits(s, s.load_bf16(&bytes)), bits(Scalar, Scalar.load_bf16(&bytes)), "{halves:x?}");
    }
}

#[test]
fn words() {
    Scalar.vectorize(Words(1));
    neon::Neon::<false>::new().vectorize(Words(2));
    if let Some(s) = neon::Neon::<true>::detect() {
        s.vectorize(Words(3));
    }
    #[cfg(target_arch = "x86_64")]
    {
        use super::{avx2::Avx2, avx512::Avx512};
        Avx2::detect().into_iter().for_each(|s| s.vectorize(Words(4)));
        Avx512::detect().into_iter().for_each(|s| s.vectorize(Words(5)));
        Avx512::modelled().into_iter().for_each(|s| s.vectorize(Words(6)));
    }
}

/// What [`Isa::dot`] asks of all formats, on random bytes.
#[test]
fn quads_without_sign_are_below_128() {
    fn largest<F: Format>(random: &mut Random) -> u8 {
        macro_rules! quads {
            ($half:literal, $quants:expr, $pair:expr, $($i:literal)*) => {
                [$(F::quad::<Scalar, $half, $i>(Scalar, $quants, $pair)),*]
            };
        }
        let quants: Vec<u8> = (0..F::QUANTS).map(|_| random.byte()).collect();
        let pairs = F::COLUMNS.div_ceil(64);
        let quads = (0..pairs).flat_map(|pair| {
            let even = quads!(0, &quants, pair, 0 1 2 3 4 5 6 7);
            let odd = quads!(1, &quants, pair, 0 1 2 3 4 5 6 7);
            [even, odd]
        });
        quads.flatten().flatten().flat_map(u32::to_le_bytes).max().unwrap_or(0)
    }
    let random = &mut Random::new(7);
    macro_rules! hold {
        ($($format:ty)*) => {$(
            let peak = (0..20).map(|_| largest::<$format>(random)).max().unwrap();
            assert_eq!(<$format>::SIGNED, peak >= 128, "{}: {peak}", stringify!($format));
        )*};
    }
    hold! {
        small::Q4_0 small::Q4_1 small::Q5_0 small::Q5_1 small::Q8_0 small::IQ4_NL small::MXFP4
        large::Q2_K large::Q3_K large::Q4_K large::Q5_K large::Q6_K large::IQ4_XS
    }
}

const TYPES: [TensorType; 28] = [
    F32, F16, BF16, Q1_0, Q2_0, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ1_S, IQ1_M, IQ2_XXS,
    IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, IQ4_NL, IQ4_XS, TQ1_0, TQ2_0, MXFP4, NVFP4,
];

/// Random blocks whose values are of ordinary size; bytes are what `byte` gives.
fn weights(kind: TensorType, count: usize, mut byte: impl FnMut() -> u8) -> Vec<u8> {
    let (block, size) = (kind.block_elements() as usize, kind.block_bytes() as usize);
    let mut bytes = vec![0; count / block * size];
    let mut values = vec![0.0; block];
    for block in bytes.chunks_exact_mut(size) {
        loop {
            block.fill_with(&mut byte);
            quant::decode(kind, block, &mut values).unwrap();
            if values.iter().all(|value| value.abs() < 10.0) {
                break;
            }
        }
    }
    bytes
}

fn product(matrix: Matrix, activations: &Arc<Activations>, pool: &Pool) -> Vec<f32> {
    let out = vec![f32::NAN; activations.tokens() * matrix.rows()];
    matmul(&[matrix].into(), activations, vec![out], pool).unwrap().remove(0)
}

/// The same products on all units. Integers are the same, so only the rounding of the last few additions differs.
fn hold_units(random: &mut Random, kind: TensorType, bytes: Vec<u8>, rows: usize, columns: usize) {
    let pool = Pool::new(1);
    let bytes = Arc::new(bytes);
    let matrix = |level| {
        let options = MatrixOptions { level, ..MatrixOptions::default() };
        Matrix::new(kind, rows, columns, bytes.clone(), options, &pool).unwrap()
    };
    for tokens in [1, 2, 3, 4, 9] {
        let x: Vec<f32> = (0..tokens * columns).map(|_| random.number()).collect();
        let mut activations = Activations::new();
        activations.quantize(&x.into(), tokens, columns, matrix(Level::Scalar).forms(), &pool);
        let activations = activations.into();
        let expected = product(matrix(Level::Scalar), &activations, &pool);
        let size: f64 = expected.iter().map(|&b| f64::from(b).powi(2)).sum();
        for level in [Level::Avx2, Level::Avx512, Level::Neon] {
            let found = product(matrix(level), &activations, &pool);
            let error: f64 = found.iter().zip(&expected).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
            assert!(error <= 1e-10 * size, "{kind} {level:?} {tokens} tokens: {:e}", error / size);
        }
    }
}

#[test]
fn kernels() {
    let random = &mut Random::new(8);
    for kind in TYPES {
        // Rows that leave lanes empty; columns that leave the last tile short where the type allows it.
        let columns = match kind.block_elements() {
            1 => 331,
            256 => 512,
            block => 256 + 3 * block as usize,
        };
        let bytes = weights(kind, 19 * columns, || random.byte());
        hold_units(random, kind, bytes, 19, columns);
    }
}

/// Weights at the ends of their ranges.
#[test]
fn kernels_at_the_edges() {
    let random = &mut Random::new(9);
    for kind in TYPES.into_iter().filter(|kind| kind.is_quantized()) {
        let bytes = weights(kind, 9 * 512, || [0, 0xff, 0x7f, 0x80][random.next() as usize % 4]);
        hold_units(random, kind, bytes, 9, 512);
    }
}
