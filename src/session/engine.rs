//! What computes for a model: the CPU or a GPU, behind one face.

use crate::Result;
use crate::backend::batch::Batch;
use crate::backend::cpu::executor::{Executor, ExecutorOptions};
use crate::backend::cpu::memory::PageMemory;
use crate::backend::gpu::readback::wait;
use crate::backend::gpu::{Gpu, GpuExecutor, GpuExecutorOptions, GpuOptions};
use crate::cache::{Cache, Sequence};
use crate::gguf::Gguf;
use crate::options::{Device, LoadOptions};
use crate::program::Program;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What computes, with the pages of all sessions; whoever runs a batch holds them.
#[derive(Debug)]
pub(super) enum Engine {
    Cpu(Box<Executor>, Mutex<PageMemory>),
    Gpu { gpu: Gpu, program: Program, weight_bytes: u64, executor: Box<Mutex<GpuExecutor>> },
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
        let how = GpuExecutorOptions::default();
        let executor = wait(gpu, GpuExecutor::new(gpu, file, program.clone(), cache, options.cache_format, how))?;
        let weight_bytes = executor.weight_bytes();
        Ok(Engine::Gpu { gpu: gpu.clone(), program, weight_bytes, executor: Box::new(Mutex::new(executor)) })
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

    /// Runs a batch.
    pub fn run(&self, batch: Batch, sequence: &mut Sequence) -> Result<Vec<f32>> {
        match self {
            Engine::Cpu(executor, memory) => executor.run(batch, sequence, &mut lock(memory)),
            Engine::Gpu { gpu, executor, .. } => wait(gpu, lock(executor).run(batch, sequence)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
