//! Bytes of weights in profiles: of single tokens they are what `Program::token_weight_bytes` says, and of experts only
//! those count that are chosen.

#![cfg(feature = "gpu")]

#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use kiln::backend::batch::Batch;
use kiln::backend::cpu::executor::{Executor, ExecutorOptions};
use kiln::backend::cpu::memory::PageMemory;
use kiln::backend::gpu::readback::wait;
use kiln::backend::gpu::{Gpu, GpuExecutor, GpuExecutorOptions, GpuOptions, wgpu};
use kiln::backend::profile::Profile;
use kiln::cache::{Cache, CacheFormat, CacheGroup, CacheLimits};
use kiln::gguf::TensorType;
use kiln::model::{self, ProgramOptions};
use kiln::program::{Op, Program};
use kiln::quant::Format;
use tiny::{Sizes, Tiny};

/// Models with experts and without, in formats of several widths.
fn models() -> Vec<Tiny> {
    let wide = || Sizes { inner: vec![128; 2], ..Sizes::new(2) };
    let mut models: Vec<Tiny> =
        ["llama", "qwen3moe", "qwen2moe", "deepseek2", "llama4", "gpt-oss"].map(Tiny::new).into();
    models.push(Tiny::with_sizes("llama", wide()).store_matrices_as(TensorType::Q4_0));
    models.push(Tiny::with_sizes("qwen3moe", wide()).store_matrices_as(TensorType::Q8_0));
    models
}

fn program(tiny: &Tiny) -> Program {
    model::program(&tiny.file(), ProgramOptions { context: 64 }).unwrap()
}

fn cache(program: &Program) -> Cache {
    Cache::new(CacheGroup::of_program(program), CacheLimits::new(64)).unwrap()
}

/// The profile of some tokens on the CPU.
fn on_cpu(tiny: &Tiny, tokens: &[u32]) -> Profile {
    let mut options = ExecutorOptions::default();
    options.threads = 2;
    let executor = Executor::new(tiny.file(), program(tiny), options).unwrap();
    let cache = cache(executor.program());
    let mut memory = PageMemory::new(&cache, CacheFormat::F32).unwrap();
    let batch = Batch { tokens, outputs: &[tokens.len() - 1], texts: &[] };
    executor.profile(batch, &mut cache.sequence(), &mut memory).unwrap()
}

/// The bytes of a token's row of embeddings.
fn embedded_bytes(program: &Program) -> u64 {
    let tables = program.steps.iter().filter_map(|step| match step.op {
        Op::Embed { table, .. } => Some(&program.weights[table.0]),
        _ => None,
    });
    tables.map(|weight| Format::of(weight.tensor_type).unwrap().bytes_for(weight.columns).unwrap() as u64).sum()
}

/// The bytes of experts' matrices.
fn experts_bytes(profile: &Profile) -> u64 {
    profile.timings.iter().filter(|timing| timing.name == "experts").map(|timing| timing.weight_bytes).sum()
}

#[test]
fn a_token_on_the_cpu_reads_what_the_program_says() {
    for tiny in models() {
        let (profile, expected) = (on_cpu(&tiny, &[7]), program(&tiny).token_weight_bytes());
        assert_eq!(profile.total().weight_bytes, expected, "{}:\n{profile}", tiny.architecture);
        assert!(profile.total().seconds > 0.0 && profile.total().dispatches <= program(&tiny).steps.len());
    }
}

#[test]
fn experts_that_nobody_chose_are_not_read() {
    // Two layers, three matrices of 128 by 32 in eight experts.
    let (one, layer) = (3 * 128 * 32 * 4, 2);
    for used in [1, 3, 8] {
        let tiny = Tiny::new("qwen3moe").set("expert_used_count", used);
        assert_eq!(experts_bytes(&on_cpu(&tiny, &[7])), layer * u64::from(used) * one);
        // The same token again chooses the same in the first layer, so at most the second's differ.
        let twice = experts_bytes(&on_cpu(&tiny, &[7, 7]));
        assert!(twice <= u64::from(used + (2 * used).min(8)) * one, "{used} used: {twice}");
        // Many tokens read each once.
        let many: Vec<u32> = (0..60).collect();
        let all = experts_bytes(&on_cpu(&tiny, &many));
        assert!(all <= layer * 8 * one && all >= twice, "{used} used: {all}");
    }
}

#[test]
fn a_token_on_a_gpu_reads_what_the_program_says() {
    let mut options = GpuOptions::default();
    options.name = Some(std::env::var("KILN_TEST_GPU").unwrap_or("llvmpipe".into()).split(',').next().unwrap().into());
    let gpu = match pollster::block_on(Gpu::open(&options)) {
        Ok(gpu) if gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY) => gpu,
        gpu => return println!("skipped: no GPU {:?} with timestamps: {:?}", options.name, gpu.err()),
    };
    for tiny in models() {
        let (name, program) = (tiny.architecture.clone(), program(&tiny));
        // On GPUs rows are whole units of 32 numbers, and their scales whole words.
        let is_whole = program.weights.iter().all(|weight| {
            let whole = if weight.tensor_type == TensorType::F32 { 32 } else { 64 };
            weight.rows == 1 || weight.columns.is_multiple_of(whole)
        });
        let (cache, expected) = (cache(&program), program.token_weight_bytes() - embedded_bytes(&program));
        let how = GpuExecutorOptions::default();
        let made = GpuExecutor::new(&gpu, tiny.file(), program, &cache, CacheFormat::F32, how);
        let mut executor = wait(&gpu, made).unwrap();
        let batch = Batch { tokens: &[7], outputs: &[0], texts: &[] };
        let profile = wait(&gpu, executor.profile(batch, &mut cache.sequence())).unwrap();
        let found = profile.total().weight_bytes;
        let most = if is_whole { expected } else { expected + expected / 10 };
        assert!((expected..=most).contains(&found), "{name}: {found}, not {expected}:\n{profile}");
    }
}
