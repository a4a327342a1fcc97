//! Writes the logits of every position: the tool that compares kiln with anything else.
//!
//! ```text
//! logits --model FILE --tokens 1,2,3 --out FILE [--batch N] [--kv f32|f16|q8_0] [--pool none|mean|cls|last] [--fast]
//!        [--device auto|cpu|gpu|gpu:NAME] [--gpu-layers N|all|auto]
//!        [--on-cpu embedding|head|ffn|experts,..] [--cpu-experts] [--threads N] [--ctx N]
//! ```
//!
//! The output is raw little-endian f32, one row of the vocabulary's length for each token. No special token is added,
//! and no softcap, bias or scale of the model is skipped. Weights are decoded exactly and multiplied in f32; with
//! `--fast` they are multiplied as everywhere else, packed and with activations rounded to eight bits.

mod common;

use clap::{Parser, ValueEnum};
use kiln::backend::batch::Batch;
use kiln::cache::{Cache, CacheFormat, CacheLimits};
use kiln::gguf::Gguf;
use kiln::model::{self, ProgramOptions};
use kiln::program::Purpose;
use kiln::scheduler::{self, Engine, Fit, Site};
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Writes the logits of every position of a sequence of tokens.
#[derive(Parser)]
struct Args {
    /// The GGUF file.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Token ids, separated by commas or spaces.
    #[arg(long, value_name = "IDS", value_parser = parse_ids)]
    tokens: Ids,
    /// Where the logits go: n_tokens × n_vocab numbers, little-endian f32.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How many tokens to run at a time; all of them by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// How keys and values are kept.
    #[arg(long, value_enum, default_value_t = Kv::F32)]
    kv: Kv,
    /// What becomes of an encoder's vectors: all positions, their mean, the first or the last. Decoders have logits, of
    /// all positions.
    #[arg(long, value_enum, default_value_t = Pool::None)]
    pool: Pool,
    /// Multiply as fast as chat does, with activations rounded to eight bits where weights are quantized.
    #[arg(long)]
    fast: bool,
    #[command(flatten)]
    flags: common::Flags,
}

#[derive(Clone, Copy, PartialEq, Debug, ValueEnum)]
enum Pool {
    None,
    Mean,
    Cls,
    Last,
}

#[derive(Clone)]
struct Ids(Vec<u32>);

#[derive(Clone, Copy, ValueEnum)]
enum Kv {
    #[value(name = "f32")]
    F32,
    #[value(name = "f16")]
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

fn parse_ids(text: &str) -> Result<Ids, String> {
    let parts = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
    let ids: Vec<u32> =
        parts.map(|part| part.parse().map_err(|_| format!("`{part}` is not a token id"))).collect::<Result<_, _>>()?;
    if ids.is_empty() { Err("no token ids".into()) } else { Ok(Ids(ids)) }
}

fn main() -> ExitCode {
    common::run(run)
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let options = args.flags.load_options()?;
    let in_model = |error: kiln::Error| format!("{}: {error}", args.model.display());
    let file = Arc::new(Gguf::open(&args.model)?);
    let architecture = file.metadata().str("general.architecture").map_err(in_model)?.unwrap_or_default();
    let trained = file.metadata().u32(&format!("{architecture}.context_length")).map_err(in_model)?;
    let context = options.context.or(trained).unwrap_or(u32::MAX) as usize;
    let program = model::program(&file, ProgramOptions { context }).map_err(in_model)?;
    let is_encoder = program.purpose == Purpose::Embed;
    if args.pool != Pool::None && !is_encoder {
        let pool = format!("{:?}", args.pool).to_lowercase();
        let found = format!("--pool {pool} for `{architecture}`, a decoder, which has logits and no vectors to pool");
        return Err(format!("{}: {found}; expected --pool none", args.model.display()).into());
    }
    let Ids(tokens) = &args.tokens;
    let format = match args.kv {
        Kv::F32 => CacheFormat::F32,
        Kv::F16 => CacheFormat::F16,
        Kv::Q8_0 => CacheFormat::Q8_0,
    };
    // An encoder reads a text at once.
    let chunk = args.batch.filter(|_| !is_encoder).map_or(tokens.len(), |batch| batch as usize);
    let limits = CacheLimits { chunk_tokens: chunk as u32, ..CacheLimits::new(tokens.len() as u32) };
    let cache = Cache::of_program(&program, limits).map_err(in_model)?;
    let options = options.exact(!args.fast).cache_format(format);
    let gpus = scheduler::open(&options)?;
    let fit = Fit { sites: gpus.iter().map(Site::of).collect::<Result<_, _>>()?, program, cache, reasons: vec![] };
    let engine = Engine::new(&file, fit, &options, &gpus).map_err(in_model)?;
    let mut sequence = engine.cache().sequence();
    let in_out = |error: std::io::Error| format!("{}: {error}", args.out.display());
    let mut out = BufWriter::new(File::create(&args.out).map_err(in_out)?);
    for tokens in tokens.chunks(chunk) {
        let outputs: Vec<usize> = (0..tokens.len()).collect();
        let logits = engine.run(Batch { tokens, outputs: &outputs, texts: &[] }, &mut sequence).map_err(in_model)?;
        for value in pooled(logits, tokens.len(), args.pool) {
            out.write_all(&value.to_le_bytes()).map_err(in_out)?;
        }
    }
    Ok(out.flush().map_err(in_out)?)
}

/// What is asked for of a text's rows.
fn pooled(rows: Vec<f32>, tokens: usize, pool: Pool) -> Vec<f32> {
    let width = rows.len() / tokens.max(1);
    let mean = |i: usize| rows.iter().skip(i).step_by(width).sum::<f32>() / tokens as f32;
    match pool {
        Pool::None => rows,
        Pool::Mean => (0..width).map(mean).collect(),
        Pool::Cls => rows[..width].to_vec(),
        Pool::Last => rows[rows.len() - width..].to_vec(),
    }
}
