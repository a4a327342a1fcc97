//! Whole models on every GPU and in every tier, against the reference's logits.
//!
//! Some models lie in `tests/golden/models`; `KILN_GOLDEN` names the folder that holds the others. What limits the errors
//! is said there: 1e-8 where all numbers have 32 bits, 1e-5 where the cache has 16, and for quantized files either what a
//! decoder may do, or one and a half times the error that the reference has itself with activations of eight bits.

#![cfg(feature = "gpu")]

mod gpu;

use gpu::{gpus, nmse};
use kiln::backend::batch::Batch;
use kiln::backend::cpu::executor::{Executor, ExecutorOptions};
use kiln::backend::cpu::matrix::MatrixOptions;
use kiln::backend::cpu::memory::PageMemory;
use kiln::backend::gpu::readback::wait;
use kiln::backend::gpu::{Gpu, GpuExecutor, GpuExecutorOptions, Tier, Tiers};
use kiln::cache::{Cache, CacheFormat, CacheLimits};
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
    /// The tokens that follow, as far as the reference says; as many as it does for other files.
    greedy: Vec<u32>,
    /// The likeliest after each token.
    argmax: Vec<u32>,
    logits: Vec<f32>, // [tokens, vocabulary]
    context: usize,
    facts: Value,
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
            greedy: ids(&facts["greedy"]["tokens"]),
            argmax: ids(&facts["argmax"]),
            logits: gpu::floats(&bytes),
            context: facts["n_ctx"].as_u64().unwrap_or(512) as usize,
            facts,
        }
    }

    fn executor(&self, gpu: &Gpu, format: CacheFormat) -> (GpuExecutor, Cache) {
        let program = model::program(&self.file, ProgramOptions { context: self.context }).unwrap();
        let limits = CacheLimits::new((self.tokens.len() + MOST_FOLLOWING) as u32);
        let cache = Cache::of_program(&program, limits).unwrap();
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
            let batch = Batch { tokens, outputs: &outputs, texts: &[] };
            logits.extend(wait(gpu, executor.run(batch, &mut sequence)).unwrap());
        }
        logits
    }

    /// The tokens that follow, each the likeliest.
    fn follow(&self, gpu: &Gpu, executor: &mut GpuExecutor, cache: &Cache, count: usize) -> Vec<u32> {
        let mut sequence = cache.sequence();
        self.likeliest(count, |batch| wait(gpu, executor.run(batch, &mut sequence)).unwrap())
    }

    /// The same by the CPU, with weights decoded exactly.
    fn follow_on_cpu(&self, count: usize) -> Vec<u32> {
        let program = model::program(&self.file, ProgramOptions { context: self.context }).unwrap();
        let limits = CacheLimits::new((self.tokens.len() + MOST_FOLLOWING) as u32);
        let cache = Cache::of_program(&program, limits).unwrap();
        let (mut sequence, mut memory) = (cache.sequence(), PageMemory::new(&cache, CacheFormat::F32).unwrap());
        let mut options = ExecutorOptions::default();
        options.matrices = MatrixOptions { exact: true, ..MatrixOptions::default() };
        let executor = Executor::new(self.file.clone(), program, options).unwrap();
        self.likeliest(count, |batch| executor.run(batch, &mut sequence, &mut memory).unwrap())
    }

    fn likeliest(&self, count: usize, mut run: impl FnMut(Batch) -> Vec<f32>) -> Vec<u32> {
        let (mut fresh, mut found) = (self.tokens.clone(), vec![]);
        for _ in 0..count {
            let best = argmax(&run(Batch { tokens: &fresh, outputs: &[fresh.len() - 1], texts: &[] }));
            found.push(best);
            fresh = vec![best];
        }
        found
    }

    /// Compares logits, in chunks of some sizes. Returns those of the last.
    fn compare(&self, gpu: &Gpu, run: &mut (GpuExecutor, Cache), chunks: &[usize], what: &str, most: f64) -> Vec<f32> {
        let mut logits = vec![];
        for &chunk in chunks {
            logits = self.logits(gpu, &mut run.0, &run.1, chunk);
            let error = nmse(&logits, &self.logits);
            println!("{:20} {what} by {chunk:2}: {error:.1e} on {gpu:?}", self.name);
            assert!(error <= most, "{} {what} by {chunk}: NMSE {error:e} on {gpu:?}", self.name);
        }
        logits
    }

    /// A model whose weights are F32.
    fn check(&self, gpu: &Gpu, format: CacheFormat) {
        let mut run = self.executor(gpu, format);
        let most = match format {
            CacheFormat::F32 => 1e-8,
            // In its 27 layers errors grow, as the set says.
            _ if self.name == "deepseek2-lite" => 1e-2,
            _ => 1e-5,
        };
        let logits = self.compare(gpu, &mut run, &[self.tokens.len(), 7, 1], &format!("{format:?}"), most);
        if format == CacheFormat::F32 {
            assert_eq!(self.best(&logits), self.argmax, "{} on {gpu:?}", self.name);
            assert!(!self.greedy.is_empty(), "{}: nothing follows", self.name);
            let following = self.follow(gpu, &mut run.0, &run.1, self.greedy.len());
            assert_eq!(following, self.greedy, "{} on {gpu:?}", self.name);
        }
    }

    /// A quantized file.
    fn check_quantized(&self, gpu: &Gpu, format: CacheFormat, following: &[u32]) {
        let mut run = self.executor(gpu, format);
        let own = |what: &str| self.facts["llama_cpp_own_run"][what].as_f64().unwrap();
        let is_exact = !gpu.has(Tier::Dot);
        let most = match format {
            _ if !is_exact => 1.5 * own("nmse"),
            CacheFormat::F32 => 1e-10,
            _ => 1e-5,
        };
        let what = format!("{format:?} {}", if is_exact { "decoded" } else { "by integers" });
        let logits = self.compare(gpu, &mut run, &[self.tokens.len(), 1], &what, most);
        if is_exact && format == CacheFormat::F32 {
            assert_eq!(self.best(&logits), self.argmax, "{} on {gpu:?}", self.name);
            assert_eq!(self.follow(gpu, &mut run.0, &run.1, following.len()), following, "{} on {gpu:?}", self.name);
            return;
        }
        // Otherwise the likeliest may be another, if the reference gives it nearly as much.
        let width = self.logits.len() / self.tokens.len();
        for (token, best) in self.best(&logits).into_iter().enumerate() {
            let truth = &self.logits[token * width..][..width];
            let behind = truth[self.argmax[token] as usize] - truth[best as usize];
            assert!(f64::from(behind) <= 2.0 * own("max_abs_diff"), "{} {what}, token {token}: {best}", self.name);
        }
    }

    /// A quantized mixture of experts by integers: few tokens may go to other experts than without rounding.
    fn check_most_tokens(&self, gpu: &Gpu) {
        let mut run = self.executor(gpu, CacheFormat::F32);
        let width = self.logits.len() / self.tokens.len();
        for chunk in [self.tokens.len(), 3, 1] {
            let logits = self.logits(gpu, &mut run.0, &run.1, chunk);
            let errors = logits.chunks(width).zip(self.logits.chunks(width)).map(|(found, truth)| nmse(found, truth));
            let others: Vec<f64> = errors.filter(|&error| error > 5e-3).collect();
            println!("{:20} by integers by {chunk:2}: other tokens {others:?} on {gpu:?}", self.name);
            assert!(others.len() <= self.tokens.len() / 8, "{} by {chunk}: NMSE {others:?} on {gpu:?}", self.name);
        }
    }

    /// The likeliest after each token.
    fn best(&self, logits: &[f32]) -> Vec<u32> {
        logits.chunks(logits.len() / self.tokens.len()).map(argmax).collect()
    }
}

/// Tokens that there is room for after those of the file.
const MOST_FOLLOWING: usize = 25;

fn argmax(logits: &[f32]) -> u32 {
    logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap().0 as u32
}

const COMMITTED: [&str; 6] = ["llama", "qwen2", "phi3", "gemma", "olmo2", "olmo3"];

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

/// A folder of the large set; none, with a visible word, where there is no such set.
fn large_set(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("KILN_GOLDEN");
    if root.is_none() {
        println!("skipped: KILN_GOLDEN is not set");
    }
    Some(PathBuf::from(root?).join(folder))
}

/// Whether a device has all that its name can have, or nothing.
fn is_plain(gpu: &Gpu) -> bool {
    gpu.tiers() == Tiers::NONE
}

fn is_fastest(gpu: &Gpu) -> bool {
    gpu.has(Tier::Subgroups) && gpu.has(Tier::Dot)
}

fn is_slow(gpu: &Gpu) -> bool {
    gpu.info().name.contains("SwiftShader")
}

#[test]
fn committed_models() {
    for gpu in gpus() {
        // SwiftShader's compiler takes seconds for some shaders: there one model has to do, if time matters.
        let is_short = is_slow(&gpu) && std::env::var_os("KILN_GOLDEN").is_none();
        let names: &[&str] = if is_short { &["llama"] } else { &COMMITTED };
        names.iter().for_each(|name| Golden::open(&committed(), name).check(&gpu, CacheFormat::F32));
    }
}

/// Some of the large set: two tests run side by side.
fn check_families(names: &[&str]) {
    let Some(folder) = large_set("models") else { return };
    let gpus: Vec<Gpu> = gpus().into_iter().filter(|gpu| is_plain(gpu) || is_fastest(gpu)).collect();
    for name in names {
        let golden = Golden::open(&folder, name);
        for gpu in gpus.iter().filter(|gpu| !is_slow(gpu) || !gpu.checked()) {
            golden.check(gpu, CacheFormat::F32);
            if is_fastest(gpu) && !gpu.checked() {
                golden.check(gpu, CacheFormat::F16);
            }
        }
    }
}

#[test]
fn families_with_plain_layers() {
    check_families(&["llama", "llama-rope3", "llama-linear", "llama-yarn", "llama-bias", "qwen2", "qwen3"]);
}

#[test]
fn families_with_more_in_their_layers() {
    check_families(&["gemma2", "gemma3", "phi3", "phi3-short", "granite", "smollm3", "glm4"]);
}

#[test]
fn mixtures_of_experts() {
    check_families(&["mixtral", "qwen3moe", "gpt-oss", "lfm2"]);
}

#[test]
fn latent_attention() {
    check_families(&["deepseek2", "deepseek2-lite"]);
}

#[test]
fn quantized_mixtures_of_experts() {
    let Some(folder) = large_set("quantized") else { return };
    let gpus: Vec<Gpu> = gpus().into_iter().filter(|gpu| is_plain(gpu) || is_fastest(gpu)).collect();
    for name in quantized_names(&folder, "qwen3moe.") {
        let golden = Golden::open(&folder, &name);
        let following = golden.follow_on_cpu(8);
        for gpu in gpus.iter().filter(|gpu| !gpu.checked() && !is_slow(gpu)) {
            match gpu.has(Tier::Dot) {
                false => golden.check_quantized(gpu, CacheFormat::F32, &following),
                true => golden.check_most_tokens(gpu),
            }
        }
    }
}

/// The quantized files of a model.
fn quantized_names(folder: &Path, model: &str) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files.filter_map(|file| Some(file.strip_suffix(".gguf")?.to_owned())).collect();
    names.retain(|name| name.starts_with(model));
    names.sort_unstable();
    names
}

/// Every type of weights there is: exactly where activations stay as they are, and rounded to eight bits.
fn check_quantized(part: usize) {
    let Some(folder) = large_set("quantized") else { return };
    let gpus: Vec<Gpu> = gpus().into_iter().filter(|gpu| is_plain(gpu) || is_fastest(gpu)).collect();
    let names = quantized_names(&folder, "llama.");
    assert!(names.len() >= 25, "only {} files", names.len());
    for name in names.iter().skip(part).step_by(2) {
        let golden = Golden::open(&folder, name);
        let following = golden.follow_on_cpu(8);
        for gpu in gpus.iter().filter(|gpu| !gpu.checked()) {
            // SwiftShader's compiler takes half an hour for all of them.
            if is_slow(gpu) && !(is_fastest(gpu) && ["llama.Q4_K_M", "llama.Q8_0"].contains(&name.as_str())) {
                continue;
            }
            if !is_slow(gpu) {
                golden.check_quantized(gpu, CacheFormat::F32, &following);
            }
            golden.check_quantized(gpu, CacheFormat::F16, &following);
        }
    }
}

#[test]
fn every_second_quantized_model() {
    check_quantized(0);
}

#[test]
fn every_other_quantized_model() {
    check_quantized(1);
}
