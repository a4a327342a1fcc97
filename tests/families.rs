//! Tiny random models of every family on a GPU, whole and cut everywhere, against the executable specification.
//!
//! What holds for these models on the CPU is in `models.rs`; that fast code there computes the same, in `executor.rs`.

#![cfg(feature = "gpu")]

mod gpu;
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use gpu::nmse;
use kiln::backend::batch::Batch;
use kiln::backend::cpu::memory::PageMemory;
use kiln::backend::cpu::reference::Reference;
use kiln::backend::gpu::{Gpu, GpuOptions};
use kiln::cache::{Cache, CacheFormat, CacheLimits};
use kiln::model::{self, ProgramOptions};
use kiln::program::Op;
use kiln::scheduler::{Engine, Fit, Site};
use kiln::{LoadOptions, Offload, TensorClass};
use std::collections::BTreeSet;
use tiny::variants::{self, CONTEXT, Variant};
use tiny::{Sizes, random};

/// Measured: at most 2e-12; 1e-10 after many layers.
const NMSE: f64 = 1e-8;
/// More than the windows, and more than a page.
const TOKENS: usize = 37;
const MOST_LAYERS: usize = 8;

/// A device of the machine, the fastest that there is for tests.
fn gpu() -> Option<Gpu> {
    let names = std::env::var("KILN_TEST_GPU").unwrap_or("llvmpipe,SwiftShader".into());
    names.split(',').find_map(|name| {
        let mut options = GpuOptions::default();
        options.name = Some(name.into());
        pollster::block_on(Gpu::open(&options)).inspect_err(|error| println!("skipped: no GPU {name}: {error}")).ok()
    })
}

fn tokens() -> Vec<u32> {
    random("tokens", TOKENS).map(|value| ((value + 1.0) / 2.0 * Sizes::VOCABULARY as f32) as u32).collect()
}

/// What the specification makes of the tokens.
fn expected(variant: &Variant) -> Vec<f32> {
    let file = variant.tiny.file();
    let program = model::program(&file, ProgramOptions { context: CONTEXT }).unwrap();
    let cache = Cache::of_program(&program, CacheLimits::new(TOKENS as u32)).unwrap();
    let (mut sequence, mut memory) = (cache.sequence(), PageMemory::new(&cache, CacheFormat::F32).unwrap());
    let outputs: Vec<usize> = (0..TOKENS).collect();
    let batch = Batch { tokens: &tokens(), outputs: &outputs, texts: &[] };
    Reference::new(file, program).unwrap().run(batch, &mut sequence, &mut memory).unwrap()
}

/// Runs a model so many tokens at a time, and compares.
fn check(variant: &Variant, options: &LoadOptions, gpu: &Gpu, expected: &[f32], chunks: &[usize]) {
    let options = options.clone().cache_format(CacheFormat::F32).threads(2).context(CONTEXT as u32);
    let file = variant.tiny.file();
    let fit = Fit::new(&file, &options, vec![Site::of(gpu).unwrap()]).unwrap();
    let engine = match Engine::new(&file, fit, &options, std::slice::from_ref(gpu)) {
        Err(error) if error.to_string().contains("a step that has a kernel") => {
            println!("skipped: {}: {error}", variant.name);
            return;
        }
        engine => engine.unwrap_or_else(|error| panic!("{}, {options:?}: {error}", variant.name)),
    };
    for &chunk in chunks {
        let mut sequence = engine.cache().sequence();
        let mut logits = vec![];
        for tokens in tokens().chunks(chunk) {
            let outputs: Vec<usize> = (0..tokens.len()).collect();
            logits.extend(engine.run(Batch { tokens, outputs: &outputs, texts: &[] }, &mut sequence).unwrap());
        }
        let (error, plan) = (nmse(&logits, expected), engine.plan());
        assert!(error <= NMSE, "{} by {chunk}: NMSE {error:e}, {:?}:\n{plan}", variant.name, options.offload);
    }
}

/// Some of the variants: several tests run side by side.
fn check_whole(part: usize, parts: usize) {
    let Some(gpu) = gpu() else { return };
    // Those whose steps differ from others' in numbers alone, or in how many there are, say nothing more, and take long.
    let mut seen = BTreeSet::new();
    let mut is_new = |variant: &Variant| {
        let program = model::program(&variant.tiny.file(), ProgramOptions { context: CONTEXT }).unwrap();
        let listing = program.to_string().split_off(variant.tiny.architecture.len());
        seen.insert(listing.replace(|letter: char| letter.is_ascii_digit(), ""))
    };
    let mut variants = variants::all();
    variants.retain(|variant| variant.tiny.layers() <= MOST_LAYERS && is_new(variant));
    println!("{} variants", variants.len());
    for variant in variants.iter().skip(part).step_by(parts) {
        let options = LoadOptions::new().offload(Offload::All);
        check(variant, &options, &gpu, &expected(variant), &[TOKENS, 5]);
    }
}

#[test]
fn one_half_of_the_variants_on_a_gpu() {
    check_whole(0, 2);
}

#[test]
fn the_other_half_of_the_variants_on_a_gpu() {
    check_whole(1, 2);
}

#[test]
fn recurrent_heads_of_many_sizes_on_a_gpu() {
    let Some(gpu) = gpu() else { return };
    let is_sized = |variant: &Variant| ["-wide", "-wider", "-odd"].iter().any(|end| variant.name.ends_with(end));
    for variant in variants::all().iter().filter(|variant| is_sized(variant)) {
        // Shorter than the convolution, and longer.
        check(variant, &LoadOptions::new().offload(Offload::All), &gpu, &expected(variant), &[TOKENS, 2, 1]);
    }
}

/// The plain model of each family is cut before each layer, and inside of all; experts are taken apart from all else.
fn check_cut(part: usize, parts: usize) {
    let Some(gpu) = gpu() else { return };
    let mut seen = BTreeSet::new();
    let mut is_cut =
        |variant: &Variant| seen.insert(variant.tiny.architecture.clone()) || variant.name == "gemma4-experts-merged";
    let plain = variants::all().into_iter().filter(|variant| is_cut(variant));
    for variant in plain.skip(part).step_by(parts) {
        let expected = expected(&variant);
        for count in 0..variant.tiny.layers() as u32 {
            let options = LoadOptions::new().offload(Offload::Layers(count));
            check(&variant, &options, &gpu, &expected, &[11]);
        }
        let program = model::program(&variant.tiny.file(), ProgramOptions { context: CONTEXT }).unwrap();
        let has_experts = program.steps.iter().any(|step| matches!(step.op, Op::Route { .. }));
        for class in [TensorClass::FeedForward, TensorClass::Experts] {
            if class == TensorClass::FeedForward || has_experts {
                let options = LoadOptions::new().offload(Offload::All).on_cpu(class);
                check(&variant, &options, &gpu, &expected, &[TOKENS, 1]);
            }
        }
    }
}

#[test]
fn one_half_of_the_families_cut_everywhere() {
    check_cut(0, 2);
}

#[test]
fn the_other_half_of_the_families_cut_everywhere() {
    check_cut(1, 2);
}
