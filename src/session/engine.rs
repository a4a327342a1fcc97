//! What computes for a model: the CPU or a GPU, behind one face.

use crate::backend::batch::Batch;
use crate::backend::cpu::executor::{Executor, ExecutorOptions};
use crate::backend::cpu::memory::PageMemory;
use crate::backend::gpu::readback::{wait, wait_until};
use crate::backend::gpu::{Choice, Gpu, GpuExecutor, GpuExecutorOptions, GpuOptions, Input, Ticket, Wanted};
use crate::cache::{Cache, Sequence};
use crate::gguf::Gguf;
use crate::options::{Device, LoadOptions};
use crate::program::Program;
use crate::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What computes, with the pages of all sessions; whoever runs a batch holds them.
#[derive(Debug)]
pub(super) enum Engine {
    Cpu(Box<Executor>, Mutex<PageMemory>),
    Gpu {
        gpu: Gpu,
        program: Program,
        weight_bytes: u64,
        most_candidates: u32,
        chunk_tokens: usize,
        executor: Box<Mutex<GpuExecutor>>,
    },
}

impl Engine {
    pub fn new(
        file: Arc<Gguf>,
        program: Program,
        cache: &Cache,
        options: &LoadOptions,
        gpu: Option<&Gpu>,
    ) -> Result<Self> {
        if let Some(gpu) = gpu {
            return Self::on_gpu(gpu, file, program, cache, options);
        }
        match &options.device {
            // A GPU is not chosen before its kernels have been proven on more than emulated ones.
            Device::Auto | Device::Cpu => Self::on_cpu(file, program, cache, options),
            Device::Gpu(name) => {
                let mut how = GpuOptions::default();
                how.name.clone_from(name);
                Self::on_gpu(&pollster::block_on(Gpu::open(&how))?, file, program, cache, options)
            }
        }
    }

    fn on_cpu(file: Arc<Gguf>, program: Program, cache: &Cache, options: &LoadOptions) -> Result<Self> {
        let mut how = ExecutorOptions::default();
        how.matrices.pack = options.pack;
        how.threads = options.threads.unwrap_or(how.threads);
        let memory = PageMemory::new(cache, options.cache_format)?;
        Ok(Engine::Cpu(Box::new(Executor::new(file, program, how)?), Mutex::new(memory)))
    }

    fn on_gpu(gpu: &Gpu, file: Arc<Gguf>, program: Program, cache: &Cache, options: &LoadOptions) -> Result<Self> {
        let submit_budget = Duration::from_millis(options.submit_budget_ms.into());
        let how = GpuExecutorOptions { submit_budget, ..GpuExecutorOptions::default() };
        let executor = wait(gpu, GpuExecutor::new(gpu, file, program.clone(), cache, options.cache_format, how))?;
        let (weight_bytes, most_candidates) = (executor.weight_bytes(), executor.most_candidates());
        let (gpu, chunk_tokens) = (gpu.clone(), executor.chunk_tokens() as usize);
        let executor = Box::new(Mutex::new(executor));
        Ok(Engine::Gpu { gpu, program, weight_bytes, most_candidates, chunk_tokens, executor })
    }

    pub fn program(&self) -> &Program {
        match self {
            Engine::Cpu(executor, _) => executor.program(),
            Engine::Gpu { program, .. } => program,
        }
    }

    /// Bytes of weights beside the file.
    pub fn packed_bytes(&self) -> u64 {
        match self {
            Engine::Cpu(executor, _) => executor.packed_bytes(),
            Engine::Gpu { weight_bytes, .. } => *weight_bytes,
        }
    }

    pub fn threads(&self) -> usize {
        match self {
            Engine::Cpu(executor, _) => executor.threads(),
            Engine::Gpu { .. } => 1,
        }
    }

    pub fn gpu(&self) -> Option<&Gpu> {
        match self {
            Engine::Cpu(..) => None,
            Engine::Gpu { gpu, .. } => Some(gpu),
        }
    }

    /// In a word or two.
    pub fn name(&self) -> String {
        match self {
            Engine::Cpu(executor, _) => format!("{} threads of the CPU", executor.threads()),
            Engine::Gpu { gpu, .. } => format!("{gpu:?}"),
        }
    }

    /// The most tokens that run at once.
    pub fn chunk_tokens(&self) -> usize {
        match self {
            Engine::Cpu(..) => usize::MAX,
            Engine::Gpu { chunk_tokens, .. } => *chunk_tokens,
        }
    }

    /// As many candidates as are wanted, if the engine can find so many of them.
    pub fn candidates(&self, wanted: Option<usize>) -> Option<u32> {
        let Engine::Gpu { most_candidates, .. } = self else { return None };
        let wanted = u32::try_from(wanted?).ok()?;
        (wanted <= *most_candidates).then_some(wanted)
    }

    /// Whether steps may go ahead.
    pub fn is_short(&self) -> bool {
        matches!(self, Engine::Gpu { executor, .. } if lock(executor).is_short())
    }

    /// Begins a step that chooses; only where [`Engine::candidates`] are to be had.
    pub fn begin(&self, input: Input, wanted: Wanted, sequence: &mut Sequence) -> Result<Ticket> {
        let Engine::Gpu { gpu, executor, .. } = self else { return Err(no_gpu()) };
        wait(gpu, lock(executor).begin(input, wanted, sequence))
    }

    /// Gives up a step.
    pub fn forget(&self, ticket: Ticket) {
        if let Engine::Gpu { executor, .. } = self {
            lock(executor).forget(ticket);
        }
    }

    /// Waits for a step.
    pub fn finish(&self, ticket: Ticket) -> Result<Choice> {
        let Engine::Gpu { gpu, executor, .. } = self else { return Err(no_gpu()) };
        let submission = ticket.submission();
        let (choice, arrival) = wait_until(gpu, &submission, ticket.finish(gpu))?;
        lock(executor).end(arrival);
        Ok(choice)
    }

    /// Runs a batch.
    pub fn run(&self, batch: Batch, sequence: &mut Sequence) -> Result<Vec<f32>> {
        match self {
            Engine::Cpu(executor, memory) => executor.run(batch, sequence, &mut lock(memory)),
            Engine::Gpu { gpu, executor, .. } => wait(gpu, lock(executor).run(batch, sequence)),
        }
    }
}

fn no_gpu() -> Error {
    Error::Gpu { subject: "step".into(), found: "a model on the CPU".into(), expected: "one on a GPU".into() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
