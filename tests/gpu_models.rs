//! Whole models on every GPU and in every tier, against the reference's logits.
//!
//! Some models lie in `tests/golden/models`; `KILN_GOLDEN` names the folder that holds the others.

mod gpu;

use gpu::{gpus, nmse};
use kiln::backend::batch::Batch;
use kiln::backend::gpu::readback::wait;
use kiln::backend::gpu::{Gpu, GpuExecutor, GpuExecutorOptions, Tier};
use kiln::cache::{Cache, CacheFormat, CacheGroup, CacheLimits};
use kiln::gguf::Gguf;
use kiln::model::{self, ProgramOptions};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

struct Golden {
    name: String,
    file: Arc<Gguf>,
    tokens: Vec<u32>,
    greedy: Vec<u32>,
    logits: Vec<f32>, // [tokens, vocabulary]
    context: usize,
}

impl Golden {
    fn open(folder: &Path, name: &str) -> Golden {
        let text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let facts: Value = serde_json::from_str(&text).unwrap();
        let ids = |value: &Value| -> Vec<u32> {
            value.as_array().into_iter().flatten().filter_map(Value::as_u64).map(|id| id as u32).collect()
        };
        let bytes = fs::read(folder.join(format!("{name}.logits.f32"))).unwrap();
        Golden {
            name: name.to_owned(),
            file: Arc::new(Gguf::open(folder.join(format!("{name}.gguf"))).unwrap()),
            tokens: ids(&facts["tokens"]),
            greedy: ids(&facts["greedy"]),
            logits: gpu::floats(&bytes),
            context: facts["n_ctx"].as_u64().unwrap_or(512) as usize,
        }
    }

    fn executor(&self, gpu: &Gpu, format: CacheFormat) -> (GpuExecutor, Cache) {
        let program = model::program(&self.file, ProgramOptions { context: self.context }).unwrap();
        let limits = CacheLimits::new((self.tokens.len() + self.greedy.len() + 1) as u32);
        let cache = Cache::new(CacheGroup::of_program(&program), limits).unwrap();
        let options = GpuExecutorOptions::default();
        let executor = wait(gpu, GpuExecutor::new(gpu, self.file.clone(), program, &cache, format, options));
        (executor.unwrap_or_else(|error| panic!("{} on {gpu:?}: {error}", self.name)), cache)
    }

    /// The logits of all tokens, so many at a time.
    fn logits(&self, gpu: &Gpu, executor: &mut GpuExecutor, cache: &Cache, chunk: usize) -> Vec<f32> {
        let mut sequence = cache.sequence();
        let mut logits = vec![];
        for tokens in self.tokens.chunks(chunk) {
            let outputs: Vec<usize> = (0..tokens.len()).collect();
            let batch = Batch { tokens, outputs: &outputs };
            logits.extend(wait(gpu, executor.run(batch, &mut sequence)).unwrap());
        }
        logits
    }

    /// The tokens that follow, each the likeliest.
    fn follow(&self, gpu: &Gpu, executor: &mut GpuExecutor, cache: &Cache) -> Vec<u32> {
        let mut sequence = cache.sequence();
        let (mut fresh, mut found) = (self.tokens.clone(), vec![]);
        for _ in 0..self.greedy.len() {
            let batch = Batch { tokens: &fresh, outputs: &[fresh.len() - 1] };
            let logits = wait(gpu, executor.run(batch, &mut sequence)).unwrap();
            let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap().0 as u32;
            found.push(best);
            fresh = vec![best];
        }
        found
    }

    fn check(&self, gpu: &Gpu, format: CacheFormat, most: f64) {
        let (mut executor, cache) = self.executor(gpu, format);
        for chunk in [self.tokens.len(), 7, 1] {
            let logits = self.logits(gpu, &mut executor, &cache, chunk);
            let error = nmse(&logits, &self.logits);
            println!("{:20} {format:?} by {chunk:2}: {error:.1e} on {gpu:?}", self.name);
            assert!(error <= most, "{} {format:?} by {chunk}: NMSE {error:e} on {gpu:?}", self.name);
        }
        assert_eq!(self.follow(gpu, &mut executor, &cache), self.greedy, "{} on {gpu:?}", self.name);
    }
}

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

#[test]
fn committed_models() {
    for gpu in gpus() {
        // SwiftShader's compiler takes minutes and gigabytes for shaders with checks: there one model has to do.
        let is_slow = gpu.info().name.contains("SwiftShader");
        if is_slow && (gpu.checked() || gpu.tiers().has(Tier::Dot) != gpu.tiers().has(Tier::Subgroups)) {
            continue;
        }
        let names: &[&str] = if is_slow { &["llama"] } else { &["llama", "qwen2", "phi3", "gemma", "olmo2"] };
        for name in names {
            Golden::open(&committed(), name).check(&gpu, CacheFormat::F32, 1e-8);
        }
    }
}
