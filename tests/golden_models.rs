//! Whole models against the reference's logits, by the executable specification of the CPU.
//!
//! Some models lie in `tests/golden/models`; `KILN_GOLDEN` names the folder that holds the others.

use kiln::backend::cpu::memory::KvMemory;
use kiln::backend::cpu::reference::{Batch, Reference};
use kiln::gguf::{Gguf, TensorType};
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
            model: Reference::new(file, program).unwrap(),
            tokens: ids(&facts["tokens"]),
            logits: bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            facts,
        }
    }

    /// The logits of all tokens, `chunk` of them at a time.
    fn run(&self, chunk: usize, format: TensorType) -> Vec<f32> {
        let mut cache = KvMemory::new(self.model.program(), format, self.tokens.len()).unwrap();
        let mut logits = Vec::new();
        for (i, tokens) in self.tokens.chunks(chunk).enumerate() {
            let outputs: Vec<usize> = (0..tokens.len()).collect();
            let batch = Batch { tokens, start: i * chunk, outputs: &outputs };
            logits.extend(self.model.run(batch, &mut cache).unwrap());
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
        let mut cache = KvMemory::new(self.model.program(), TensorType::F32, self.tokens.len() + count).unwrap();
        let mut tokens = self.tokens.clone();
        let mut done = 0;
        while tokens.len() < self.tokens.len() + count {
            let fresh = &tokens[done..];
            let batch = Batch { tokens: fresh, start: done, outputs: &[fresh.len() - 1] };
            let logits = self.model.run(batch, &mut cache).unwrap();
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

fn check(golden: &Golden) {
    for (chunk, what) in [(usize::MAX, "one batch"), (7, "seven at a time"), (1, "one at a time")] {
        let logits = golden.run(chunk.min(golden.tokens.len()), TensorType::F32);
        golden.assert_near(&logits, what, 5e-4, 1e-10);
        let best: Vec<u32> = logits.chunks(golden.model.program().vocabulary).map(argmax).collect();
        assert_eq!(best, ids(&golden.facts["argmax"]), "{}", golden.name);
    }
    golden.assert_near(&golden.run(golden.tokens.len(), TensorType::F16), "F16 cache", 1e-1, 1e-5);
    let expected = ids(&golden.facts["greedy"]["tokens"]);
    assert_eq!(golden.greedy(expected.len()), expected, "{}", golden.name);
}

#[test]
fn committed_models() {
    COMMITTED.iter().for_each(|name| check(&Golden::open(&committed(), name)));
}

#[test]
fn all_models_of_these_families() {
    let Some(folder) = large_set("models") else { return };
    LARGE_SET.iter().chain(&["glm4"]).for_each(|name| check(&Golden::open(&folder, name)));
}

#[test]
fn quantized_models_decoded_exactly() {
    let Some(folder) = large_set("quantized") else { return };
    let mut checked = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".gguf").filter(|name| name.starts_with("llama.")) else { continue };
        let golden = Golden::open(&folder, name);
        golden.assert_near(&golden.run(golden.tokens.len(), TensorType::F32), "exact", 2e-4, 1e-10);
        checked += 1;
    }
    assert!(checked >= 25, "only {checked} files");
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
