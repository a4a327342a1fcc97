//! What a plan says of the CPU is what a process then takes of the machine's memory. Each case runs in a process of its
//! own, for memory that one gives back stays with the process.

mod gguf_bytes;

use gguf_bytes::Folder;
use gguf_bytes::hollow::Hollow;
use kiln::backend::batch::Batch;
use kiln::gguf::{Gguf, TensorType};
use kiln::scheduler::{CHUNK_TOKENS, Engine};
use kiln::{CacheFormat, Device, LoadOptions};
use std::process::Command;
use std::sync::Arc;

/// Names the case that a process is to run.
const CASE: &str = "KILN_RESIDENT_CASE";

const CONTEXT: u32 = 1024;

const CASES: [(TensorType, bool, CacheFormat); 5] = [
    (TensorType::Q4_0, true, CacheFormat::F16),
    (TensorType::Q8_0, false, CacheFormat::Q8_0),
    (TensorType::F16, true, CacheFormat::F32),
    (TensorType::Q6_K, true, CacheFormat::F16),
    (TensorType::Q4_K, true, CacheFormat::F16),
];

/// The bytes that the process has in memory; none where the system does not say.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Loads a model and fills its context.
fn load(folder: &Folder, layers: u64, case: usize) -> Engine {
    let (format, pack, kept) = CASES[case];
    let (width, heads, kv_heads, inner) = (1024, 16, 8, 4096);
    let (vocabulary, context) = (u64::from(CONTEXT), u64::from(CONTEXT));
    let (path, _) = Hollow { layers, width, heads, kv_heads, inner, vocabulary, context, format }.write(folder, 1);
    let options = LoadOptions::new().device(Device::Cpu).threads(2).cache_format(kept).pack(pack);
    let engine = Engine::load(&Arc::new(Gguf::open(&path).unwrap()), &options, &[]).unwrap();
    // Every row of the embedding, and all of the context.
    let tokens: Vec<u32> = (0..CONTEXT).collect();
    let mut sequence = engine.cache().sequence();
    for tokens in tokens.chunks(CHUNK_TOKENS) {
        engine.run(Batch { tokens, outputs: &[tokens.len() - 1], texts: &[] }, &mut sequence).unwrap();
    }
    engine
}

/// What a larger model takes beside a small one is what the plans say. What any model takes, its program's code for
/// example, is in both.
fn run(case: usize) {
    let folders = ["small", "large"].map(|size| Folder::new(&format!("resident-{size}-{case}")));
    let small = load(&folders[0], 1, case);
    let Some(before) = resident_bytes() else { return println!("skipped: the system does not say") };
    let large = load(&folders[1], 12, case);
    let planned = large.plan().parts[0].bytes() as f64;
    let measured = (resident_bytes().unwrap() - before) as f64;
    println!("{:?}: planned {planned}, measured {measured}: {:.4}", CASES[case], planned / measured);
    assert!((planned / measured - 1.0).abs() < 0.03, "{measured} bytes:\n{}", large.plan());
    drop(small);
}

#[test]
fn planned_bytes_are_those_that_a_process_then_has() {
    if let Some(case) = std::env::var(CASE).ok().and_then(|case| case.parse().ok()) {
        return run(case);
    }
    for case in 0..CASES.len() {
        let name = "planned_bytes_are_those_that_a_process_then_has";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(CASE, case.to_string()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        println!("{}", text.lines().filter(|line| line.contains("planned ")).collect::<String>());
        assert!(output.status.success(), "{text}");
    }
}
