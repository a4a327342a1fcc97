//! Whole models against the reference's logits, by the executable specification of the CPU.
//!
//! Some models lie in `tests/golden/models`; `KILN_GOLDEN` names the folder that holds the others.

use kiln::backend::batch::Batch;
use kiln::backend::cpu::executor::{Executor, ExecutorOptions};
use kiln::backend::cpu::matrix::MatrixOptions;
use kiln::backend::cpu::memory::PageMemory;
use kiln::backend::cpu::reference::Reference;
use kiln::cache::{Cache, CacheFormat, CacheLimits, Sequence};
use kiln::gguf::Gguf;
use kiln::model::{self, ProgramOptions};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const COMMITTED: [&str; 6] = ["llama", "qwen2", "phi3", "gemma", "olmo2", "olmo3"];
const LARGE_SET: [&str; 13] = [
    "llama",
    "llama-rope3",
    "llama-linear",
    "llama-yarn",
    "llama-bias",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
    "phi3-short",
    "granite",
    "smollm3",
];

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

fn large_set(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("KILN_GOLDEN");
    if root.is_none() {
        say("skipped: KILN_GOLDEN is not set");
    }
    Some(PathBuf::from(root?).join(folder))
}

/// Prints where the test runner does not swallow it.
fn say(line: &str) {
    use std::io::Write;
    _ = writeln!(std::io::stderr(), "{line}");
}

/// A model, and what the reference made of it.
struct Golden {
    name: String,
    file: Arc<Gguf>,
    model: Reference,
    tokens: Vec<u32>,
    logits: Vec<f32>, // [tokens, vocabulary]
    facts: Value,
}

impl Golden {
    fn open(folder: &Path, name: &str) -> Golden {
        let facts: Value =
            serde_json::from_str(&fs::read_to_string(folder.join(format!("{name}.json"))).unwrap()).unwrap();
        let bytes = fs::read(folder.join(format!("{name}.logits.f32"))).unwrap();
        let file = Arc::new(Gguf::open(folder.join(format!("{name}.gguf"))).unwrap());
        let context = facts["n_ctx"].as_u64().unwrap_or(512) as usize;
        let program = model::program(&file, ProgramOptions { context }).unwrap();
        Golden {
            name: name.to_owned(),
            model: Reference::new(file.clone(), program).unwrap(),
            file,
            tokens: ids(&facts["tokens"]),
            logits: bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            facts,
        }
    }

    /// An empty sequence with room for some tokens, and the memory of its pages.
    fn sequence(&self, tokens: usize, format: CacheFormat) -> (Sequence, PageMemory) {
        let cache = Cache::of_program(self.model.program(), CacheLimits::new(tokens as u32)).unwrap();
        (cache.sequence(), PageMemory::new(&cache, format).unwrap())
    }

    /// The logits of all tokens by an executor, `chunk` of them at a time.
    fn run_fast(&self, executor: &Executor, chunk: usize, format: CacheFormat) -> Vec<f32> {
        let (mut sequence, mut memory) = self.sequence(self.tokens.len(), format);
        let mut logits = Vec::new();
        for tokens in self.tokens.chunks(chunk) {
            let outputs: Vec<usize> = (0..tokens.len()).collect();
            logits.extend(
                executor.run(Batch { tokens, outputs: &outputs, texts: &[] }, &mut sequence, &mut memory).unwrap(),
            );
        }
        logits
    }

    fn executor(&self, threads: usize, matrices: MatrixOptions) -> Executor {
        let mut options = ExecutorOptions::default();
        (options.threads, options.matrices) = (threads, matrices);
        Executor::new(self.file.clone(), self.model.program().clone(), options).unwrap()
    }

    /// The logits of all tokens, `chunk` of them at a time.
    fn run(&self, chunk: usize, format: CacheFormat) -> Vec<f32> {
        let (mut sequence, mut memory) = self.sequence(self.tokens.len(), format);
        let mut logits = Vec::new();
        for tokens in self.tokens.chunks(chunk) {
            let outputs: Vec<usize> = (0..tokens.len()).collect();
            logits.extend(
                self.model.run(Batch { tokens, outputs: &outputs, texts: &[] }, &mut sequence, &mut memory).unwrap(),
            );
        }
        logits
    }

    #[track_caller]
    fn assert_near(&self, logits: &[f32], what: &str, max_difference: f64, max_nmse: f64) {
        assert_eq!(logits.len(), self.logits.len(), "{}", self.name);
        let pairs = || logits.iter().zip(&self.logits).map(|(&a, &b)| (f64::from(a), f64::from(b)));
        let difference = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let nmse = pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>() / pairs().map(|(_, b)| b * b).sum::<f64>();
        println!("{:28} {what:20} max {difference:.1e}, NMSE {nmse:.1e}", self.name);
        let found = format!("{}, {what}: max {difference:e}, NMSE {nmse:e}", self.name);
        assert!(difference <= max_difference && nmse <= max_nmse, "{found}");
    }

    /// The tokens that follow, each the likeliest.
    fn greedy(&self, count: usize) -> Vec<u32> {
        let (mut sequence, mut memory) = self.sequence(self.tokens.len() + count, CacheFormat::F32);
        let mut tokens = self.tokens.clone();
        let mut done = 0;
        while tokens.len() < self.tokens.len() + count {
            let fresh = &tokens[done..];
            let batch = Batch { tokens: fresh, outputs: &[fresh.len() - 1], texts: &[] };
            let logits = self.model.run(batch, &mut sequence, &mut memory).unwrap();
            done = tokens.len();
            tokens.push(argmax(&logits));
        }
        tokens.split_off(self.tokens.len())
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.unwrap().0 as u32
}

/// The greatest difference and error that the golden data allow: by `f32`, and with a cache of 16 bits.
fn tolerances(golden: &Golden) -> [(f64, f64); 2] {
    match &golden.name[..] {
        "deepseek2-lite" => [(2e-3, 1e-9), (f64::INFINITY, 1e-2)],
        _ => [(5e-4, 1e-10), (1e-1, 1e-5)],
    }
}

fn check(golden: &Golden) {
    let [(max, nmse), (half_max, half_nmse)] = tolerances(golden);
    for (chunk, what) in [(usize::MAX, "one batch"), (7, "seven at a time"), (1, "one at a time")] {
        let logits = golden.run(chunk.min(golden.tokens.len()), CacheFormat::F32);
        golden.assert_near(&logits, what, max, nmse);
        let best: Vec<u32> = logits.chunks(golden.model.program().vocabulary).map(argmax).collect();
        assert_eq!(best, ids(&golden.facts["argmax"]), "{}", golden.name);
    }
    golden.assert_near(&golden.run(golden.tokens.len(), CacheFormat::F16), "F16 cache", half_max, half_nmse);
    let expected = ids(&golden.facts["greedy"]["tokens"]);
    assert_eq!(golden.greedy(expected.len()), expected, "{}", golden.name);
}

/// The fast executor: exact weights in any number of threads and any chunks, and both cache formats.
fn check_executor(golden: &Golden) {
    let [(max, nmse), (half_max, half_nmse)] = tolerances(golden);
    for (threads, chunk) in [(1, usize::MAX), (2, 7), (4, 1)] {
        let executor = golden.executor(threads, MatrixOptions { exact: true, ..MatrixOptions::default() });
        let chunk = chunk.min(golden.tokens.len());
        let logits = golden.run_fast(&executor, chunk, CacheFormat::F32);
        golden.assert_near(&logits, &format!("{threads} threads"), max, nmse);
        let best: Vec<u32> = logits.chunks(golden.model.program().vocabulary).map(argmax).collect();
        assert_eq!(best, ids(&golden.facts["argmax"]), "{}", golden.name);
        golden.assert_near(
            &golden.run_fast(&executor, chunk, CacheFormat::F16),
            "fast, F16 cache",
            half_max,
            half_nmse,
        );
    }
}

#[test]
fn committed_models() {
    for name in COMMITTED {
        let golden = Golden::open(&committed(), name);
        check(&golden);
        check_executor(&golden);
    }
}

#[test]
fn all_models_of_these_families() {
    let Some(folder) = large_set("models") else { return };
    for name in LARGE_SET.iter().chain(&["glm4", "lfm2"]) {
        let golden = Golden::open(&folder, name);
        check(&golden);
        check_executor(&golden);
    }
}

#[test]
fn models_with_experts() {
    let Some(folder) = large_set("models") else { return };
    for name in ["mixtral", "qwen3moe", "gpt-oss", "deepseek2", "deepseek2-lite"] {
        let golden = Golden::open(&folder, name);
        check(&golden);
        check_executor(&golden);
    }
}

#[test]
fn quantized_models_decoded_exactly() {
    let Some(folder) = large_set("quantized") else { return };
    let mut checked = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".gguf") else { continue };
        let golden = Golden::open(&folder, name);
        let all = golden.tokens.len();
        golden.assert_near(&golden.run(all, CacheFormat::F32), "exact", 2e-4, 1e-10);
        let exact = golden.executor(2, MatrixOptions { exact: true, ..MatrixOptions::default() });
        golden.assert_near(&golden.run_fast(&exact, all, CacheFormat::F32), "exact, fast", 2e-4, 1e-10);
        // Activations of eight bits: no worse than one and a half times the reference's own error.
        let nmse = golden.facts["llama_cpp_own_run"]["nmse"].as_f64().unwrap();
        let runs = [
            (true, all, "packed"),
            (false, all, "not packed"),
            (true, 1, "packed, one by one"),
            (true, 3, "packed, by threes"),
        ];
        for (pack, chunk, what) in runs {
            let executor = golden.executor(2, MatrixOptions { pack, ..MatrixOptions::default() });
            let logits = golden.run_fast(&executor, chunk, CacheFormat::F32);
            golden.assert_near(&logits, what, f64::INFINITY, 1.5 * nmse);
        }
        checked += 1;
    }
    assert!(checked >= 40, "only {checked} files");
}

#[test]
fn the_listing_names_every_step() {
    let program = Golden::open(&committed(), "llama").model.program().to_string();
    for line in [
        "llama: 2 layers, vocabulary 320, context 512",
        "embed     x = token_embd.weight[token]",
        "layer 0    norm      h = rms(x) * blk.0.attn_norm.weight",
        "layer 1    select    x = rows of x with outputs",
        "linear    logits = output.weight · h",
    ] {
        assert!(program.lines().any(|found| found.trim().ends_with(line)), "`{line}` is not in\n{program}");
    }
}
