//! Every type of weights times activations, on every vector unit of this machine, against scalar decoding and sums in
//! `f64`.

use kiln::backend::cpu::activations::{Activations, Forms};
use kiln::backend::cpu::matmul::{forms, matmul};
use kiln::backend::cpu::matrix::{Matrix, MatrixOptions};
use kiln::backend::cpu::pool::Pool;
use kiln::backend::cpu::simd::Level;
use kiln::gguf::TensorType::{self, *};
use kiln::quant;
use std::sync::Arc;

/// Largest NMSE of products with activations rounded to eight bits.
const ROUNDED: f64 = 5e-4;
/// Largest NMSE of products in `f32`.
const EXACT: f64 = 1e-10;

const TYPES: [TensorType; 28] = [
    F32, F16, BF16, Q1_0, Q2_0, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ1_S, IQ1_M, IQ2_XXS,
    IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, IQ4_NL, IQ4_XS, TQ1_0, TQ2_0, MXFP4, NVFP4,
];

/// A small generator of random numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 32) as u8
    }

    /// From -1 to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Roughly normal.
    fn normal(&mut self) -> f32 {
        (0..6).map(|_| self.unit()).sum::<f32>() * 0.7
    }

    /// Random blocks whose values are of ordinary size, so that no block drowns the others.
    fn weights(&mut self, kind: TensorType, count: usize) -> Vec<u8> {
        let (block, size) = (kind.block_elements() as usize, kind.block_bytes() as usize);
        let mut bytes = vec![0; count / block * size];
        let mut values = vec![0.0; block];
        for block in bytes.chunks_exact_mut(size) {
            loop {
                block.fill_with(|| self.byte());
                quant::decode(kind, block, &mut values).unwrap();
                let peak = values.iter().fold(0.0, |peak: f32, value| peak.max(value.abs()));
                if values.iter().all(|value| value.is_finite()) && (0.03..3.0).contains(&peak) {
                    break;
                }
            }
        }
        bytes
    }
}

fn levels() -> Vec<Level> {
    let mut levels = vec![Level::Scalar];
    levels.extend((Level::best() == Level::Avx512).then_some(Level::Avx2));
    levels.extend((Level::best() != Level::Scalar).then(Level::best));
    levels
}

struct Case {
    kind: TensorType,
    rows: usize,
    columns: usize,
    bytes: Arc<Vec<u8>>,
    decoded: Vec<f32>,
}

impl Case {
    fn new(kind: TensorType, rows: usize, columns: usize, bytes: Vec<u8>) -> Self {
        let mut decoded = vec![0.0; rows * columns];
        quant::decode(kind, &bytes, &mut decoded).unwrap();
        Case { kind, rows, columns, bytes: Arc::new(bytes), decoded }
    }

    fn random(random: &mut Random, kind: TensorType, rows: usize, columns: usize) -> Self {
        let bytes = random.weights(kind, rows * columns);
        Self::new(kind, rows, columns, bytes)
    }

    fn truth(&self, x: &[f32]) -> Vec<f64> {
        let dot = |row: &[f32], x: &[f32]| row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
        x.chunks_exact(self.columns)
            .flat_map(|x| self.decoded.chunks_exact(self.columns).map(move |row| dot(row, x)))
            .collect()
    }

    fn matrix(&self, options: MatrixOptions, pool: &Pool) -> Matrix {
        Matrix::new(self.kind, self.rows, self.columns, self.bytes.clone(), options, pool).unwrap()
    }

    fn product(&self, x: &[f32], options: MatrixOptions, pool: &Pool) -> Vec<f32> {
        let matrix = self.matrix(options, pool);
        let tokens = x.len() / self.columns;
        let activations = activations(x, tokens, matrix.forms(), pool);
        let out = vec![f32::NAN; tokens * self.rows];
        matmul(&[matrix].into(), &activations, vec![out], pool).unwrap().remove(0)
    }
}

fn activations(x: &[f32], tokens: usize, forms: Forms, pool: &Pool) -> Arc<Activations> {
    let mut activations = Activations::new();
    activations.quantize(&x.to_vec().into(), tokens, x.len() / tokens, forms, pool);
    activations.into()
}

fn nmse(found: &[f32], truth: &[f64]) -> f64 {
    assert_eq!(found.len(), truth.len());
    let error: f64 = found.iter().zip(truth).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum();
    let size: f64 = truth.iter().map(|b| b * b).sum();
    if error == 0.0 { 0.0 } else { error / size }
}

fn options(level: Level) -> MatrixOptions {
    MatrixOptions { level, ..MatrixOptions::default() }
}

#[test]
fn all_types_all_token_counts() {
    let pool = Pool::new(2);
    let mut random = Random(1);
    for kind in TYPES {
        // Rows that leave lanes empty; columns that leave the last tile short where the type allows it.
        let columns = match kind.block_elements() {
            1 => 331,
            256 => 768,
            block => 256 + 3 * block as usize,
        };
        let case = Case::random(&mut random, kind, 37, columns);
        for tokens in (1..=9).chain([33]) {
            let x: Vec<f32> = (0..tokens * columns).map(|_| random.normal()).collect();
            let truth = case.truth(&x);
            for level in levels() {
                let options = options(level);
                let packed = case.product(&x, options, &pool);
                let error = nmse(&packed, &truth);
                assert!(error < ROUNDED, "{kind} {level:?} {tokens} tokens: {error:e}");
                let unpacked = case.product(&x, MatrixOptions { pack: false, ..options }, &pool);
                assert_eq!(packed, unpacked, "{kind} {level:?} {tokens} tokens: packed and unpacked");
                let exact = case.product(&x, MatrixOptions { exact: true, ..options }, &pool);
                let error = nmse(&exact, &truth);
                assert!(error < EXACT, "{kind} {level:?} {tokens} tokens, exact: {error:e}");
            }
        }
    }
}

/// Activations that eight bits hold exactly: what is left is the rounding of `f32`.
#[test]
fn integer_activations_are_exact() {
    let pool = Pool::new(2);
    let mut random = Random(2);
    for kind in TYPES {
        let case = Case::random(&mut random, kind, 24, 512);
        for tokens in [1, 2, 4, 8] {
            let mut x: Vec<f32> = (0..tokens * 512).map(|_| f32::from(random.byte() as i8).max(-127.0)).collect();
            x.iter_mut().step_by(32).for_each(|x| *x = if *x < 0.0 { -127.0 } else { 127.0 });
            let truth = case.truth(&x);
            for level in levels() {
                let error = nmse(&case.product(&x, options(level), &pool), &truth);
                assert!(error < EXACT, "{kind} {level:?} {tokens} tokens: {error:e}");
            }
        }
    }
}

/// Bytes and activations at the ends of their ranges: sums of 16 bits must not overflow.
#[test]
fn edges() {
    let pool = Pool::new(1);
    for kind in TYPES.into_iter().filter(|kind| kind.is_quantized()) {
        for byte in [0x00, 0xff, 0x7f, 0x80, 0xaa, 0x55, 0x0f, 0xf0] {
            let size = kind.block_bytes() as usize;
            let mut bytes = vec![byte; 9 * 512 / kind.block_elements() as usize * size];
            // The scales too are bytes of the block: where that makes them infinite, smaller ones take their place.
            let finite = |bytes: &[u8]| {
                let mut values = vec![0.0; bytes.len() / size * kind.block_elements() as usize];
                quant::decode(kind, bytes, &mut values).unwrap();
                values.iter().all(|value| value.abs() < 1e7)
            };
            for block in bytes.chunks_exact_mut(size) {
                for at in [0, 2, size - 2, size - 4] {
                    if !finite(block) {
                        block[at..at + 2].copy_from_slice(&[0x55, 0x2c]);
                    }
                }
                if !finite(block) && kind == MXFP4 {
                    block[0] = 0x70;
                }
            }
            if !finite(&bytes) {
                continue;
            }
            let case = Case::new(kind, 9, 512, bytes);
            for value in [127.0, -127.0] {
                for tokens in [1, 2, 4, 8] {
                    let x = vec![value; tokens * 512];
                    let truth = case.truth(&x);
                    // Sums may cancel to nothing, so errors are held to the size of what is summed.
                    let size: f64 = case.decoded.iter().map(|w| f64::from(w.abs()) * 127.0).sum::<f64>() / 9.0;
                    for level in levels() {
                        let found = case.product(&x, options(level), &pool);
                        let off = found.iter().zip(&truth).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
                        let error = off / size.max(f64::MIN_POSITIVE);
                        assert!(error < 1e-5, "{kind} {level:?} bytes {byte:#x}, {tokens} of {value}: {error:e}");
                    }
                }
            }
        }
    }
}

#[test]
fn several_matrices_of_several_types() {
    let pool = Pool::new(3);
    let mut random = Random(3);
    let cases = [(Q4_K, 96), (Q6_K, 17), (Q8_0, 200), (F16, 5), (IQ2_XS, 8), (Q5_0, 1)]
        .map(|(kind, rows)| Case::random(&mut random, kind, rows, 512));
    for tokens in [1, 3, 7] {
        let x: Vec<f32> = (0..tokens * 512).map(|_| random.normal()).collect();
        let matrices = cases.each_ref().map(|case| case.matrix(MatrixOptions::default(), &pool));
        let activations = activations(&x, tokens, forms(&matrices), &pool);
        let outs = cases.iter().map(|case| vec![f32::NAN; tokens * case.rows]).collect();
        let outs = matmul(&matrices.into(), &activations, outs, &pool).unwrap();
        for (case, out) in cases.iter().zip(&outs) {
            let error = nmse(out, &case.truth(&x));
            assert!(error < ROUNDED, "{} {tokens} tokens: {error:e}", case.kind);
            assert_eq!(out, &case.product(&x, MatrixOptions::default(), &Pool::new(1)), "{}", case.kind);
        }
    }
}

#[test]
fn packed_memory_is_the_files() {
    let pool = Pool::new(2);
    let mut random = Random(4);
    for kind in TYPES {
        let case = Case::random(&mut random, kind, 16, 512);
        let matrix = case.matrix(MatrixOptions::default(), &pool);
        let packed = matrix.packed_bytes();
        assert!(packed == case.bytes.len() || packed == 0, "{kind}: {packed} for {}", case.bytes.len());
        assert_eq!(case.matrix(MatrixOptions { pack: false, ..Default::default() }, &pool).packed_bytes(), 0);
    }
}

#[test]
fn bytes_at_odd_addresses() {
    struct Odd(Vec<u8>);
    impl AsRef<[u8]> for Odd {
        fn as_ref(&self) -> &[u8] {
            &self.0[1..]
        }
    }
    let pool = Pool::new(2);
    let mut random = Random(5);
    for kind in TYPES {
        let case = Case::random(&mut random, kind, 9, 512);
        let x: Vec<f32> = (0..512).map(|_| random.normal()).collect();
        let expected = case.product(&x, MatrixOptions::default(), &pool);
        for pack in [true, false] {
            let odd = Arc::new(Odd([&[0], &case.bytes[..]].concat()));
            let options = MatrixOptions { pack, ..Default::default() };
            let matrix = Matrix::new(kind, 9, 512, odd, options, &pool).unwrap();
            let activations = activations(&x, 1, matrix.forms(), &pool);
            let outs = matmul(&[matrix].into(), &activations, vec![vec![f32::NAN; 9]], &pool).unwrap();
            assert_eq!(outs, [&expected[..]], "{kind}");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let pool = Pool::new(1);
    let bytes = Arc::new(vec![0u8; 34 * 4]);
    let wrong = |kind, rows, columns| {
        Matrix::new(kind, rows, columns, bytes.clone(), MatrixOptions::default(), &pool).unwrap_err().to_string()
    };
    assert_eq!(wrong(Q8_0, 3, 32), "Q8_0 blocks: found 136 bytes for 3 rows of 32, expected 34 bytes a row");
    assert_eq!(wrong(Q8_0, 4, 31), "Q8_0 blocks: found 31 values, expected whole blocks of 32 values");
    assert!(wrong(I32, 1, 34).contains("holds no weights"));
    let matrix = Matrix::new(Q8_0, 4, 32, bytes.clone(), MatrixOptions::default(), &pool).unwrap();
    let forms = matrix.forms();
    let matrices = Arc::new([matrix]) as Arc<[Matrix]>;
    let fits = |x, outs| matmul(&matrices, &x, outs, &pool).is_ok();
    assert!(!fits(activations(&[0.0; 64], 1, forms, &pool), vec![vec![0.0; 4]]));
    assert!(!fits(activations(&[0.0; 32], 1, Forms::default(), &pool), vec![vec![0.0; 4]]));
    assert!(!fits(activations(&[0.0; 32], 1, forms, &pool), vec![vec![0.0; 3]]));
    assert!(!fits(activations(&[0.0; 32], 1, forms, &pool), vec![]));
    assert!(fits(activations(&[0.0; 32], 1, forms, &pool), vec![vec![0.0; 4]]));
}
