//! How fast a model runs here: tokens a second as llama-bench counts them, and against the memory's own speed.
//!
//! ```text
//! bench (--model FILE | --synthetic SHAPE:QUANT [--write FILE]) [--pp 512] [--tg 128] [--depth 0] [--reps 5]
//!       [--output md|json|csv] [--no-pack] [--profile]
//!       [--device auto|cpu|gpu|gpu:NAME] [--gpu-layers N|all|auto]
//!        [--on-cpu embedding|head|ffn|experts,..] [--cpu-experts] [--threads N] [--ctx N]
//! ```
//!
//! `ppN` runs a prompt of N random tokens and computes the logits behind the last one; `tgN` runs N random tokens one by
//! one, each with its logits. Nothing is tokenized or sampled. Behind `@ dN` stand how many tokens were in the cache
//! before. One run warms up and is not counted. `--pp`, `--tg` and `--depth` take lists (`--depth 0,4096`); 0 leaves a
//! test out.
//!
//! While single tokens are run, all weights are read for each, so the memory's speed is the limit: GB/s are the bytes of
//! weights (keys and values not among them), and the share is of what the same threads read when they only add up a
//! buffer. A model that fits in a cache can have a share above 1.
//!
//! `--profile` then shows where the time goes on a GPU or the CPU: the kernels, or kinds of steps, of one chunk of the
//! longest prompt, at the largest depth, and of one token behind it. Kernels are timed in passes of their own, so that
//! together they can take longer than the step. They are products with a part of the weights, or without weights; MB and
//! GB/s are the bytes of weights that are read, of experts those of the ones that are chosen.
//!
//! JSON and CSV name what llama-bench has too as llama-bench does, and the tables then go to where errors go. In JSON, a
//! row has the profile of its kind of step.

mod adapter;
#[path = "../common/mod.rs"]
mod common;
mod measure;
mod profile;
mod report;
mod synthetic;

use clap::{ArgGroup, Parser};
use kiln::backend::cpu::pool::Pool;
use kiln::gguf::Gguf;
use kiln::{Device, LoadOptions, Model, model};
use measure::{Test, read_bandwidth};
use profile::{CHUNK_TOKENS, Plan};
use report::{Format, Report, Setting};
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use synthetic::Synthetic;

/// How fast a model runs here.
#[derive(Parser)]
#[command(group(ArgGroup::new("source").required(true).args(["model", "synthetic"])))]
struct Args {
    /// The GGUF file.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// A model of a known shape with random weights: llama-1b:q4_0.
    #[arg(long, value_name = "SHAPE:QUANT")]
    synthetic: Option<Synthetic>,
    /// Write the synthetic model to a file, and run it from there.
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    write: Option<PathBuf>,
    /// Lengths of prompts.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "512")]
    pp: Vec<u32>,
    /// How many tokens to run one by one.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "128")]
    tg: Vec<u32>,
    /// How many tokens are in the cache before.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "0")]
    depth: Vec<u32>,
    /// How often each test is run.
    #[arg(long, value_name = "N", default_value = "5")]
    reps: NonZeroU32,
    /// How the results are written.
    #[arg(long, value_enum, default_value_t = Format::Md)]
    output: Format,
    /// Leave weights as they are in the file: slower, and half the memory.
    #[arg(long)]
    no_pack: bool,
    /// Show where the time goes, kernel by kernel, and how many bytes of weights are read.
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    flags: common::Flags,
}

fn main() -> ExitCode {
    common::run(run)
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let tests = tests(args);
    let mut options = args.flags.load_options()?.pack(!args.no_pack);
    let plan = profile_plan(args, &options)?;
    let needed = tests.iter().map(Test::positions).chain(plan.as_ref().map(Plan::positions)).max().unwrap_or(1);
    options.context = options.context.or(Some(needed));
    if tests.iter().any(|test| test.depth > 0) {
        // The tests at a depth start from forks of one session.
        options = options.sessions(2);
    }
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    let threads = options.threads.unwrap_or(cores);
    let pool = Pool::new(threads);
    let read_gb_per_s = read_bandwidth(&pool)?;
    eprintln!("{} threads read {read_gb_per_s:.1} GB/s", pool.threads());

    let start = Instant::now();
    let (model, filename) = load(args, &options, &pool)?;
    drop(pool);
    eprintln!("{}: {}; ready after {:.2} s", model.facts(), model.memory(), start.elapsed().as_secs_f64());
    let gpu = model.gpus().into_iter().next();
    if let Some(gpu) = &gpu {
        eprintln!("{}", adapter::line(gpu));
    }

    let mut report = Report::new(args.output, Setting { model, filename, packed: options.pack, read_gb_per_s });
    for test in &tests {
        let samples = test.run(report.model(), args.reps.get())?;
        report.add(test, &samples)?;
    }
    // The profile needs the model's place in memory.
    let mut results = report.close();
    if let Some(plan) = plan {
        match gpu.as_ref().and_then(profile::obstacle) {
            Some(obstacle) => results.without_profile(&obstacle)?,
            None => results.add_profile(&plan.run(gpu.as_ref(), again(args, &Pool::new(threads))?, &options)?)?,
        }
    }
    Ok(results.finish()?)
}

/// What `--profile` asks for.
fn profile_plan(args: &Args, options: &LoadOptions) -> Result<Option<Plan>, String> {
    if !args.profile {
        return Ok(None);
    }
    if !matches!(options.device, Device::Gpu(_) | Device::Cpu) {
        return Err(
            "--profile: it is one device whose steps are timed, expected --device gpu or --device cpu too".into()
        );
    }
    if args.output == Format::Csv {
        return Err("--profile: CSV has no place for it, expected --output md or json".into());
    }
    let longest = |list: &[u32]| list.iter().copied().max().unwrap_or(0);
    let prompt = longest(&args.pp).min(CHUNK_TOKENS);
    let prompt = if prompt > 0 { prompt } else { CHUNK_TOKENS };
    Ok(Some(Plan { depth: longest(&args.depth), prompt, reps: args.reps }))
}

/// At each depth, prompts and then single tokens.
fn tests(args: &Args) -> Vec<Test> {
    let at = |depth: u32| {
        let prompts = args.pp.iter().map(move |&prompt| Test { prompt, generated: 0, depth });
        let singles = args.tg.iter().map(move |&generated| Test { prompt: 0, generated, depth });
        prompts.chain(singles).filter(|test| test.tokens() > 0)
    };
    args.depth.iter().flat_map(|&depth| at(depth)).collect()
}

/// The model, and what to call it.
fn load(args: &Args, options: &LoadOptions, pool: &Pool) -> Result<(Model, String), Box<dyn Error>> {
    if let (Some(path), Some(synthetic)) = (&args.write, &args.synthetic) {
        eprintln!("writing {synthetic} to {}: {:.2} GB", path.display(), gigabytes(synthetic));
        write(synthetic, path, pool).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    match (path(args), &args.synthetic) {
        (Some(path), _) => Ok((options.open(path)?, path.display().to_string())),
        (None, Some(synthetic)) => {
            // What cannot run need not be made.
            model::trained_context(synthetic.without_weights()?.metadata())?;
            Ok((Model::load(build(synthetic, pool)?, options)?, format!("synthetic {synthetic}")))
        }
        (None, None) => Err("neither --model nor --synthetic".into()),
    }
}

/// The model once more, for its profile.
fn again(args: &Args, pool: &Pool) -> Result<Gguf, Box<dyn Error>> {
    match (path(args), &args.synthetic) {
        (None, Some(synthetic)) => Ok(build(synthetic, pool)?),
        (path, _) => Ok(Gguf::open(path.unwrap_or(Path::new("")))?),
    }
}

/// Where the model is, if it is in a file.
fn path(args: &Args) -> Option<&Path> {
    args.model.as_deref().or(args.write.as_deref())
}

fn build(synthetic: &Synthetic, pool: &Pool) -> kiln::Result<Gguf> {
    eprintln!("making {synthetic}: {:.2} GB", gigabytes(synthetic));
    synthetic.build(pool)
}

fn write(synthetic: &Synthetic, path: &Path, pool: &Pool) -> kiln::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    synthetic.write(&mut out, pool)?;
    Ok(())
}

fn gigabytes(synthetic: &Synthetic) -> f64 {
    synthetic.weight_bytes() as f64 / 1e9
}
