//! How fast weights are multiplied: few tokens in GB/s of weights against the memory's own speed, many tokens in GOP/s.
//!
//! ```text
//! cargo bench --bench matmul -- [--threads N] [--only TYPE] [--rows N] [--tokens N] [--repeats N] [--best]
//! ```
//!
//! A row is the median of alternating runs over a set of matrices larger than the caches, as in a model. "Read" is what
//! the same threads read when they only add up a large buffer; `share` is a row's GB/s over it.

use kiln::backend::cpu::activations::Activations;
use kiln::backend::cpu::bandwidth::Bandwidth;
use kiln::backend::cpu::matmul::{forms, matmul};
use kiln::backend::cpu::matrix::{Matrix, MatrixOptions};
use kiln::backend::cpu::pool::Pool;
use kiln::gguf::TensorType;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const SHAPES: [(usize, usize); 4] = [(4096, 4096), (14336, 4096), (4096, 14336), (2048, 2048)];
const TYPES: [TensorType; 9] = [
    TensorType::Q4_0,
    TensorType::Q4_K,
    TensorType::Q5_K,
    TensorType::Q6_K,
    TensorType::Q8_0,
    TensorType::F16,
    TensorType::Q2_K,
    TensorType::IQ4_XS,
    TensorType::MXFP4,
];
/// More than the last cache holds.
const SET_BYTES: usize = 192 << 20;
const REPEATS: usize = 7;

fn main() {
    let argument = |name: &str| std::env::args().skip_while(|arg| arg != name).nth(1);
    let number = |name: &str, default: usize| argument(name).and_then(|n| n.parse().ok()).unwrap_or(default);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let pool = Pool::new(number("--threads", cores));
    let many = number("--tokens", 128);
    let repeats = number("--repeats", REPEATS);
    let only_rows = number("--rows", 0);
    println!("{} threads; a job that all come to: {:.2} µs", pool.threads(), round_trip(&pool) * 1e6);
    for (rows, columns) in SHAPES {
        for kind in TYPES {
            if argument("--only").is_some_and(|only| only != kind.name()) {
                continue;
            }
            if only_rows == 0 || only_rows == rows {
                measure(kind, (rows, columns), many, repeats, &pool);
            }
        }
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    // On a machine that does other things too, the best says more.
    if std::env::args().any(|arg| arg == "--best") { seconds[0] } else { seconds[seconds.len() / 2] }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// A job that is done when all workers have come, while all are awake.
fn round_trip(pool: &Pool) -> f64 {
    let jobs = |count: u32| {
        for _ in 0..count {
            let workers = pool.threads();
            pool.share(AtomicUsize::new(0), workers, 1, move |come, _| {
                come.fetch_add(1, Ordering::Relaxed);
                while come.load(Ordering::Relaxed) < workers {
                    std::hint::spin_loop();
                }
            });
        }
    };
    jobs(100);
    median((0..REPEATS).map(|_| seconds(|| jobs(1000)) / 1000.0).collect())
}

/// Bytes of small numbers, as random as speed asks for, under scales that are finite.
fn weights(kind: TensorType, bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut weights: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0xbf
    })
    .take(bytes)
    .collect();
    if kind == TensorType::F16 {
        weights.iter_mut().skip(1).step_by(2).for_each(|byte| *byte = *byte & 0x80 | 0x2c);
    }
    weights
}

fn measure(kind: TensorType, (rows, columns): (usize, usize), many: usize, repeats: usize, pool: &Pool) {
    let bytes = rows * columns / kind.block_elements() as usize * kind.block_bytes() as usize;
    let source = Arc::new(weights(kind, bytes));
    let options = MatrixOptions::default();
    let mut pack_seconds = 0.0;
    // As many matrices as it takes to not fit a cache.
    let matrices: Vec<Arc<[Matrix]>> = (0..SET_BYTES.div_ceil(bytes))
        .map(|_| {
            let start = Instant::now();
            let bytes: Arc<Vec<u8>> =
                if matches!(kind, TensorType::F16) { Arc::new(source.to_vec()) } else { source.clone() };
            let matrix = Matrix::new(kind, rows, columns, bytes, options, pool).expect("the sizes fit");
            pack_seconds += start.elapsed().as_secs_f64();
            [matrix].into()
        })
        .collect();
    let set_bytes = bytes * matrices.len();
    let buffer = Bandwidth::new(set_bytes, pool).expect("there is memory for it");
    let x: Vec<f32> = (0..many * columns).map(|i| (i * 7919 % 255) as f32 / 127.0 - 1.0).collect();
    let x = Arc::new(x);
    let mut activations = Arc::new(Activations::new());
    let mut out = vec![0.0; many.max(4) * rows];
    let mut product = |tokens: usize, matrices: &[Arc<[Matrix]>]| {
        out.resize(tokens * rows, 0.0);
        seconds(|| {
            for matrix in matrices {
                Arc::make_mut(&mut activations).quantize(&x, tokens, columns, forms(matrix), pool);
                let outs = matmul(matrix, &activations, vec![std::mem::take(&mut out)], pool).expect("the sizes fit");
                out = outs.into_iter().next().unwrap_or_default();
            }
        })
    };
    let (mut reads, mut ones, mut fours, mut manys) = (vec![], vec![], vec![], vec![]);
    for _ in 0..repeats {
        reads.push(set_bytes as f64 / buffer.measure(pool) / 1e9);
        ones.push(product(1, &matrices));
        fours.push(product(4, &matrices));
        manys.extend((0..8).map(|_| product(many, &matrices[..1])));
    }
    let speed = set_bytes as f64 / median(reads) / 1e9;
    let one = set_bytes as f64 / median(ones) / 1e9;
    let four = set_bytes as f64 / median(fours) / 1e9;
    let operations = 2.0 * (rows * columns * many) as f64 / median(manys) / 1e9;
    println!(
        "{kind:7} {rows:5} x {columns:5}: 1 token {one:5.1} GB/s of {speed:4.1} read, share {:4.2}; 4 tokens {four:5.1}; \
         {many} tokens {operations:5.0} GOP/s; packed at {:4.1} GB/s",
        one / speed,
        set_bytes as f64 / pack_seconds / 1e9,
    );
}
