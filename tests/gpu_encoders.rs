//! Encoders on every GPU and in every tier: against the reference's rows, and against the specification where there is no
//! reference. All numbers have 32 bits.

#![cfg(feature = "gpu")]

mod gpu;
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use gpu::{floats, gpus, nmse};
use kiln::backend::batch::Batch;
use kiln::backend::cpu::memory::PageMemory;
use kiln::backend::cpu::reference::Reference;
use kiln::backend::gpu::readback::wait;
use kiln::backend::gpu::{Gpu, GpuExecutor, GpuExecutorOptions};
use kiln::cache::{Cache, CacheFormat, CacheLimits};
use kiln::gguf::Gguf;
use kiln::model::{self, ProgramOptions};
use kiln::program::Program;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiny::{Sizes, random};

const NMSE: f64 = 1e-8;

fn cache(program: &Program) -> Cache {
    Cache::of_program(program, CacheLimits::new(512)).unwrap()
}

fn on_gpu(gpu: &Gpu, file: &Arc<Gguf>, program: &Program, batch: Batch) -> Vec<f32> {
    let (cache, how) = (cache(program), GpuExecutorOptions::default());
    let executor = wait(gpu, GpuExecutor::new(gpu, file.clone(), program.clone(), &cache, CacheFormat::F32, how));
    wait(gpu, executor.unwrap().run(batch, &mut cache.sequence())).unwrap()
}

/// The golden text between others.
fn check_golden(folder: &Path, name: &str) {
    let facts: Value = serde_json::from_str(&fs::read_to_string(folder.join(format!("{name}.json"))).unwrap()).unwrap();
    let expected = floats(&fs::read(folder.join(format!("{name}.embd.f32"))).unwrap());
    let file = Arc::new(Gguf::open(folder.join(format!("{name}.gguf"))).unwrap());
    let program = model::program(&file, ProgramOptions { context: 256 }).unwrap();
    let tokens: Vec<u32> = facts["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let width = expected.len() / tokens.len();
    let many = [&tokens[..7], &tokens, &tokens[..1], &tokens, &tokens[3..30]];
    let (texts, together) = (many.map(<[u32]>::len), many.concat());
    let outputs: Vec<usize> = (0..together.len()).collect();
    for gpu in gpus() {
        for (start, batch) in [
            (0, Batch { tokens: &tokens, outputs: &outputs[..tokens.len()], texts: &[] }),
            (7, Batch { tokens: &together, outputs: &outputs, texts: &texts }),
        ] {
            let rows = on_gpu(&gpu, &file, &program, batch);
            let error = nmse(&rows[start * width..][..expected.len()], &expected);
            println!("{name:12} {error:.1e} on {gpu:?}");
            assert!(error <= NMSE, "{name}: NMSE {error:e} on {gpu:?}");
        }
    }
}

#[test]
fn a_committed_model() {
    check_golden(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models"), "bert");
}

#[test]
fn all_models() {
    let Some(root) = std::env::var_os("KILN_GOLDEN").map(PathBuf::from) else { return };
    for name in ["bert", "nomic-bert"] {
        check_golden(&root.join("models"), name);
    }
}

#[test]
fn every_family_is_as_specified() {
    let gpus: Vec<Gpu> = gpus().into_iter().take(2).collect();
    for variant in tiny::encoders::all() {
        let file = variant.tiny.file();
        let program = model::program(&file, ProgramOptions { context: 256 }).unwrap();
        let token = |value: f32| ((value + 1.0) / 2.0 * Sizes::VOCABULARY as f32) as u32;
        let tokens: Vec<u32> = random("tokens", 90).map(token).collect();
        let texts = [3, 70, 1, 16];
        let outputs: Vec<usize> = (0..tokens.len()).filter(|token| token % 3 != 1).collect();
        let batch = Batch { tokens: &tokens, outputs: &outputs, texts: &texts };
        let (cache, reference) = (cache(&program), Reference::new(file.clone(), program.clone()).unwrap());
        let mut memory = PageMemory::new(&cache, CacheFormat::F32).unwrap();
        let expected = reference.run(batch, &mut cache.sequence(), &mut memory).unwrap();
        for gpu in &gpus {
            let error = nmse(&on_gpu(gpu, &file, &program, batch), &expected);
            println!("{:28} {error:.1e} on {gpu:?}", variant.name);
            assert!(error <= NMSE, "{}: NMSE {error:e} on {gpu:?}", variant.name);
        }
    }
}
