//! Where the time of single steps goes: each kernel of a chunk of a prompt, and of one token behind it, on a GPU; or each
//! kind of step on the CPU.

use crate::measure::Tokens;
use kiln::LoadOptions;
use kiln::backend::batch::Batch;
use kiln::backend::cpu::executor::{Executor, ExecutorOptions};
use kiln::backend::cpu::memory::PageMemory;
use kiln::backend::gpu::readback::wait;
use kiln::backend::gpu::{Gpu, GpuExecutor, GpuExecutorOptions, wgpu};
use kiln::backend::profile::{Profile, Timing};
use kiln::cache::{Cache, CacheLimits, Sequence};
use kiln::gguf::Gguf;
use kiln::model::{self, ProgramOptions};
use serde_json::{Value, json};
use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

/// Tokens of a prompt that a GPU runs at once, at most.
pub const CHUNK_TOKENS: u32 = 512;

/// What is run: a chunk of a prompt, then one token.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Tokens in the cache before the chunk.
    pub depth: u32,
    /// Tokens of the chunk.
    pub prompt: u32,
    /// Runs, the median of which counts.
    pub reps: NonZeroU32,
}

/// One step, and where its time went.
pub struct Step {
    pub tokens: u32,
    /// Tokens in the cache before.
    pub depth: u32,
    /// What the step takes as a whole, its logits read back: kernels of a GPU follow each other without a gap.
    pub seconds: f64,
    /// Its kernels, each in a pass of its own; or what it does on the CPU.
    pub profile: Profile,
}

/// What runs steps.
enum Machine {
    Cpu(Box<Executor>, PageMemory),
    Gpu(Box<GpuExecutor>),
}

impl Machine {
    fn run(&mut self, batch: Batch, sequence: &mut Sequence) -> kiln::Result<()> {
        match self {
            Machine::Cpu(executor, memory) => executor.run(batch, sequence, memory).map(|_| ()),
            Machine::Gpu(executor) => {
                let gpu = executor.gpu().clone();
                wait(&gpu, executor.run(batch, sequence)).map(|_| ())
            }
        }
    }

    fn profile(&mut self, batch: Batch, sequence: &mut Sequence) -> kiln::Result<Profile> {
        match self {
            Machine::Cpu(executor, memory) => executor.profile(batch, sequence, memory),
            Machine::Gpu(executor) => {
                let gpu = executor.gpu().clone();
                wait(&gpu, executor.profile(batch, sequence))
            }
        }
    }
}

/// Why a device has no profile, if so.
pub fn obstacle(gpu: &Gpu) -> Option<String> {
    let has_timestamps = gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY);
    (!has_timestamps).then(|| format!("no profile: {} has no timestamps to measure kernels with", gpu.info().name))
}

impl Plan {
    /// Positions that a sequence must have room for.
    pub fn positions(&self) -> u32 {
        self.depth.saturating_add(self.prompt + 1)
    }

    /// The chunk and the token, of the model in a file; on the CPU, if there is no GPU.
    pub fn run(&self, gpu: Option<&Gpu>, file: Gguf, options: &LoadOptions) -> Result<[Step; 2], Box<dyn Error>> {
        let context = options.context.unwrap_or_default().max(self.positions());
        let program = model::program(&file, ProgramOptions { context: context as usize })?;
        // Every run of the chunk is taken back.
        let limits = CacheLimits { rollback_tokens: self.prompt, ..CacheLimits::new(context) };
        let cache = Cache::of_program(&program, limits)?;
        let mut tokens = Tokens::new(program.vocabulary);
        let (file, format) = (Arc::new(file), options.cache_format);
        let mut machine = match gpu {
            Some(gpu) => {
                let made = GpuExecutor::new(gpu, file, program, &cache, format, GpuExecutorOptions::default());
                Machine::Gpu(Box::new(wait(gpu, made)?))
            }
            None => {
                let mut how = ExecutorOptions::default();
                how.threads = options.threads.unwrap_or(how.threads);
                (how.matrices.pack, how.matrices.exact) = (options.pack, options.exact);
                Machine::Cpu(Box::new(Executor::new(file, program, how)?), PageMemory::new(&cache, format)?)
            }
        };
        let mut sequence = cache.sequence();
        if self.depth > 0 {
            eprintln!("profile: {} tokens before", self.depth);
            machine.run(Batch { tokens: &tokens.take(self.depth), outputs: &[], texts: &[] }, &mut sequence)?;
        }
        let (chunk, token) = (tokens.take(self.prompt), tokens.take(1));
        let first = self.step(&mut machine, &chunk, &mut sequence)?;
        machine.run(Batch { tokens: &chunk, outputs: &[], texts: &[] }, &mut sequence)?;
        Ok([first, self.step(&mut machine, &token, &mut sequence)?])
    }

    /// The medians of a step that is run as a whole and kernel by kernel, and taken back.
    fn step(&self, machine: &mut Machine, tokens: &[u32], sequence: &mut Sequence) -> kiln::Result<Step> {
        let (depth, batch) = (sequence.len(), Batch { tokens, outputs: &[tokens.len() - 1], texts: &[] });
        let (mut times, mut profiles) = (vec![], vec![]);
        // The first run warms up.
        for rep in 0..=self.reps.get() {
            eprintln!("profile of {} tokens: {rep} of {}", tokens.len(), self.reps);
            let start = Instant::now();
            machine.run(batch, sequence)?;
            let seconds = start.elapsed().as_secs_f64();
            sequence.truncate(depth)?;
            let profile = machine.profile(batch, sequence)?;
            sequence.truncate(depth)?;
            if rep > 0 {
                times.push(seconds);
                profiles.push(profile);
            }
        }
        times.sort_by(f64::total_cmp);
        profiles.sort_by(|a, b| a.total().seconds.total_cmp(&b.total().seconds));
        let (seconds, profile) = (times[times.len() / 2], profiles.swap_remove(profiles.len() / 2));
        Ok(Step { tokens: tokens.len() as u32, depth, seconds, profile })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.tokens == 1 { "One token".into() } else { format!("{} tokens at once", self.tokens) };
        let (step, kernels) = (self.seconds * 1e6, self.profile.total().seconds * 1e6);
        writeln!(f, "{what} behind {}: {step:.1} µs; timed one by one, its parts take {kernels:.1} µs.\n", self.depth)?;
        write!(f, "{}", self.profile)
    }
}

impl Step {
    /// For JSON.
    pub fn value(&self) -> Value {
        let kernel = |timing: &Timing| {
            json!({
                "kernel": timing.name,
                "weights": timing.product.map(|product| product.to_string()),
                "dispatches": timing.dispatches,
                "ns": timing.seconds * 1e9,
                "weight_bytes": timing.weight_bytes,
                "flops": timing.flops,
                "gb_per_s": timing.gb_per_s(),
                "gflop_per_s": timing.gflop_per_s(),
            })
        };
        json!({
            "n_tokens": self.tokens,
            "n_depth": self.depth,
            "step_ns": self.seconds * 1e9,
            "kernels_ns": self.profile.total().seconds * 1e9,
            "kernels": self.profile.timings.iter().map(kernel).collect::<Vec<_>>(),
        })
    }
}
