//! The fast runner against the plain one, on tiny random models of every family: vector code against the specification
//! of each op, and attention that is split over pages.

#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use kiln::backend::batch::Batch;
use kiln::backend::cpu::executor::{Executor, ExecutorOptions};
use kiln::backend::cpu::memory::PageMemory;
use kiln::backend::cpu::reference::Reference;
use kiln::cache::{Cache, CacheFormat, CacheLimits};
use kiln::model::{self, ProgramOptions};
use tiny::variants::{self, Variant};
use tiny::{Sizes, random};

/// What weights and caches in `f32` differ by: at most 6e-12, but 2.5e-10 after the 46 layers of one model, and 1.6e-9 after
/// the 27 of one with routers.
const NMSE: f64 = 1e-10;
const DEEP_NMSE: f64 = 5e-9;
/// The same where keys and values are rounded to 16 bits: now and then one of them goes the other way, which came to 3.3e-7.
const F16_NMSE: f64 = 1e-6;
/// Such a cache alone moves the logits of the deep model by 7e-5.
const DEEP_F16_NMSE: f64 = 1e-4;

struct Both {
    name: String,
    plain: Reference,
    fast: Executor,
    cache: Cache,
}

impl Both {
    fn new(variant: &Variant, context: usize, threads: usize) -> Self {
        let file = variant.tiny.file();
        let program = model::program(&file, ProgramOptions { context }).unwrap();
        let tokens = context as u32;
        let limits = CacheLimits { sequences: 2, chunk_tokens: tokens, ..CacheLimits::new(tokens) };
        let cache = Cache::of_program(&program, limits).unwrap();
        let mut options = ExecutorOptions::default();
        options.threads = threads;
        let fast = Executor::new(file.clone(), program.clone(), options).unwrap();
        Both { name: variant.name.clone(), plain: Reference::new(file, program).unwrap(), fast, cache }
    }

    /// Runs the tokens in the given batches with both, and compares the logits of the last token of each batch.
    fn compare(&self, tokens: &[u32], batches: &[usize], format: CacheFormat) {
        let memory = || PageMemory::new(&self.cache, format).unwrap();
        let (mut plain_memory, mut fast_memory) = (memory(), memory());
        let (mut plain, mut fast) = (self.cache.sequence(), self.cache.sequence());
        let mut rest = tokens;
        for &count in batches {
            let (tokens, later) = rest.split_at(count);
            rest = later;
            let batch = Batch { tokens, outputs: &[count - 1], texts: &[] };
            let expected = self.plain.run(batch, &mut plain, &mut plain_memory).unwrap();
            let found = self.fast.run(batch, &mut fast, &mut fast_memory).unwrap();
            let square = |x: f32| f64::from(x).powi(2);
            let error: f64 = found.iter().zip(&expected).map(|(a, b)| square(a - b)).sum();
            let nmse = error / expected.iter().map(|&b| square(b)).sum::<f64>();
            let deep = ["gemma2-46-layers", "deepseek2-27-layers"].contains(&&*self.name);
            let limit = match format {
                CacheFormat::F32 if deep => DEEP_NMSE,
                CacheFormat::F32 => NMSE,
                _ if deep => DEEP_F16_NMSE,
                _ => F16_NMSE,
            };
            assert!(nmse < limit, "{} with {format:?}, {count} tokens up to {}: {nmse:e}", self.name, fast.len());
        }
    }
}

fn tokens(count: usize) -> Vec<u32> {
    random("tokens", count).map(|value| ((value + 1.0) / 2.0 * Sizes::VOCABULARY as f32) as u32).collect()
}

#[test]
fn every_family() {
    for variant in variants::all() {
        let both = Both::new(&variant, 256, 2);
        both.compare(&tokens(60), &[37, 1, 1, 2, 3, 16], CacheFormat::F32);
        both.compare(&tokens(40), &[39, 1], CacheFormat::F16);
    }
}

#[test]
fn long_texts_are_split_over_pages() {
    // Two heads of keys and values and eight threads: what is to do has to be cut by pages.
    let long: Vec<Variant> =
        variants::all().into_iter().filter(|v| ["llama-plain", "gemma2-plain"].contains(&&*v.name)).collect();
    assert_eq!(long.len(), 2);
    for variant in long {
        for threads in [1, 8] {
            let both = Both::new(&variant, 1100, threads);
            both.compare(&tokens(1040), &[1000, 1, 7, 1, 31], CacheFormat::F32);
        }
        Both::new(&variant, 1100, 8).compare(&tokens(702), &[700, 1, 1], CacheFormat::F16);
    }
}
