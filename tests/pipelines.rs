//! What it costs a driver to make each pipeline: seconds, and the most memory that a process took for it.
//!
//! Compilers of some drivers take minutes and gigabytes for shaders that others take in their stride, so each pipeline is
//! made in a process of its own, within limits. To see the dearest, with checks and without:
//!
//! `KILN_TEST_GPU=SwiftShader KILN_PIPELINES=mat_vec,iq2,!BIAS cargo test --test pipelines -- --ignored --nocapture`
//!
//! `KILN_PIPELINES`: words that have to occur in a shader's file, flags and constants, and with `!`, those that must not.
//! Without it, all shaders are tried.

#![cfg(feature = "gpu")]
#![cfg(unix)] // the limit on memory is the shell's

mod gpu;

use kiln::backend::gpu::readback::wait;
use kiln::backend::gpu::shader::Variant;
use kiln::backend::gpu::{Gpu, GpuOptions, Tier, variants};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MOST_SECONDS: u64 = 20;
const MOST_KIB: u64 = 8 << 20;
/// Names the pipeline that a child is to make: its number, and whether checked.
const CHILD: &str = "KILN_PIPELINE";

fn open(checked: bool) -> Option<Gpu> {
    let mut options = GpuOptions::default();
    options.checked = checked;
    gpu::open(&options).pop()
}

/// The variants that can run on a device, each with its name.
fn possible(gpu: &Gpu) -> Vec<(String, Variant)> {
    let tiers = [(Tier::Subgroups, "SUBGROUPS"), (Tier::F16, "F16"), (Tier::Dot, "DOT")];
    let runs = |variant: &Variant| tiers.iter().all(|(tier, flag)| gpu.has(*tier) || !variant.flags.contains(flag));
    let name = |variant: &Variant| {
        let constants: Vec<String> = variant.constants.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {} {}", variant.file, variant.flags.join(" "), constants.join(" "))
    };
    variants::all().into_iter().filter(runs).map(|variant| (name(&variant), variant)).collect()
}

/// What a child does: the pipeline, and a line of what it cost.
fn make(gpu: &Gpu, variant: &Variant) {
    let before = peak_kib();
    let start = Instant::now();
    wait(gpu, variant.pipeline(gpu)).unwrap();
    let (seconds, kib) = (start.elapsed().as_secs_f64(), peak_kib().saturating_sub(before));
    println!("cost {seconds:.2} s, {} MiB", kib >> 10);
}

/// The most memory that this process ever had.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What came of a child: its line, or that it went beyond a limit.
fn outcome(mut child: Child) -> String {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(MOST_SECONDS) {
        if child.try_wait().unwrap().is_some() {
            let output = child.wait_with_output().unwrap();
            let output = String::from_utf8_lossy(&output.stdout);
            let cost = output.lines().find_map(|line| line.split_once("cost ")).map(|(_, cost)| cost.to_owned());
            return cost.unwrap_or_else(|| format!("failed within {} MiB", MOST_KIB >> 10));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    format!("more than {MOST_SECONDS} s")
}

#[test]
#[ignore = "to be looked at"]
fn what_pipelines_cost() {
    if let Ok(pipeline) = std::env::var(CHILD) {
        let (number, checked) = pipeline.split_once(' ').unwrap();
        let gpu = open(checked == "true").unwrap();
        return make(&gpu, &possible(&gpu)[number.parse::<usize>().unwrap()].1);
    }
    let Some(gpu) = open(false) else { return };
    let wanted = std::env::var("KILN_PIPELINES").unwrap_or_default();
    for (number, (name, _)) in possible(&gpu).iter().enumerate() {
        for checked in [false, true] {
            let name = format!("{} {name}", if checked { "checked" } else { "unchecked" });
            let is_wanted = |word: &str| match word.strip_prefix('!') {
                Some(word) => !name.contains(word),
                None => name.contains(word),
            };
            if !wanted.split(',').all(is_wanted) {
                continue;
            }
            let child = Command::new("sh")
                .args(["-c", &format!("ulimit -v {MOST_KIB}; exec \"$0\" --ignored --nocapture")])
                .arg(std::env::current_exe().unwrap())
                .env(CHILD, format!("{number} {checked}"))
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            let cost = outcome(child.unwrap());
            println!("{cost:>24}  {name}");
        }
    }
}
