//! How many dispatches a layer takes: each costs time on every GPU, however little it computes.

#![cfg(feature = "gpu")]

mod gpu;
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use gpu::open;
use kiln::backend::gpu::readback::wait;
use kiln::backend::gpu::{Gpu, GpuExecutor, GpuExecutorOptions, GpuOptions, Tier};
use kiln::cache::{Cache, CacheFormat, CacheLimits};
use kiln::gguf::TensorType;
use kiln::model::{self, ProgramOptions};
use tiny::{Sizes, Tiny};

fn dispatches(gpu: &Gpu, architecture: &str, layers: usize, format: TensorType) -> usize {
    let tiny = Tiny::with_sizes(architecture, Sizes::new(layers)).store_matrices_as(format);
    let file = tiny.file();
    let program = model::program(&file, ProgramOptions { context: 64 }).unwrap();
    let cache = Cache::of_program(&program, CacheLimits::new(64)).unwrap();
    let options = GpuExecutorOptions::default();
    let executor = wait(gpu, GpuExecutor::new(gpu, file, program, &cache, CacheFormat::F16, options)).unwrap();
    executor.token_dispatches().count()
}

#[test]
fn a_layer_takes_ten_at_most() {
    for gpu in open(&GpuOptions::default()).iter().filter(|gpu| gpu.has(Tier::Dot) && gpu.has(Tier::Subgroups)) {
        let plain = ["llama", "qwen2", "qwen3", "gemma", "phi3", "smollm3"];
        let unusual = ["gemma2", "gemma3", "glm4", "granite", "olmo2"];
        for architecture in plain.into_iter().chain(unusual) {
            let [fewer, more] = [3, 4].map(|layers| dispatches(gpu, architecture, layers, TensorType::Q8_0));
            println!("{architecture}: {} a layer", more - fewer);
            assert!(more - fewer <= 10, "{architecture}: {} dispatches a layer on {gpu:?}", more - fewer);
        }
    }
}

/// A shared expert, and keys that are put together, are dispatches of their own.
#[test]
fn a_layer_of_experts_takes_a_few_more() {
    for gpu in open(&GpuOptions::default()).iter().filter(|gpu| gpu.has(Tier::Dot) && gpu.has(Tier::Subgroups)) {
        let (rounded, halves) = (TensorType::Q8_0, TensorType::F16);
        let cases =
            [("qwen3moe", rounded, 13), ("gpt-oss", rounded, 13), ("glm4moe", rounded, 16), ("deepseek2", halves, 28)];
        for (architecture, format, most) in cases {
            let [fewer, more] = [3, 4].map(|layers| dispatches(gpu, architecture, layers, format));
            println!("{architecture}: {} a layer", more - fewer);
            assert!(more - fewer <= most, "{architecture}: {} dispatches a layer on {gpu:?}", more - fewer);
        }
    }
}
