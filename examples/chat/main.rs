//! Completes a text, streaming to the terminal. (Conversations are not built yet.)
//!
//! ```text
//! chat (--model FILE | --hf ORG/REPO[:QUANT]) --prompt TEXT [--max-tokens N] [--temp T] [--seed S]
//!      [--device auto|cpu|gpu|gpu:NAME] [--gpu-layers N|all|auto]
//!        [--on-cpu embedding|head|ffn|experts,..] [--cpu-experts] [--threads N] [--ctx N]
//! ```

#[path = "../common/mod.rs"]
mod common;
mod hub;
mod progress;

use clap::Parser;
use kiln::Generate;
use kiln::sampler::SamplerOptions;
use kiln::session::{Finish, Statistics};
use std::error::Error;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Completes a text, streaming to the terminal.
#[derive(Parser)]
struct Args {
    /// The GGUF file.
    #[arg(long, value_name = "FILE", required_unless_present = "hf", conflicts_with = "hf")]
    model: Option<PathBuf>,
    #[command(flatten)]
    hub: hub::Flags,
    /// The text to go on from; "-" is standard input.
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// The most tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// The temperature; at 0 the likeliest token is always taken.
    #[arg(long, value_name = "T", default_value_t = SamplerOptions::default().temperature)]
    temp: f32,
    /// Where the choice of tokens starts from.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    flags: common::Flags,
}

fn main() -> ExitCode {
    common::run(run)
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let options = args.flags.load_options()?;
    let path = match &args.model {
        Some(path) => path.clone(),
        None => {
            let mut downloads = hub::Downloads::default();
            hub::fetch(&args.hub, &mut |done, total, name| downloads.show(done, total, name))?
        }
    };
    let model = options.open(&path)?;
    let mut prompt = args.prompt.clone();
    if prompt == "-" {
        prompt.clear();
        io::stdin().read_to_string(&mut prompt)?;
    }
    let sampler = SamplerOptions::default().temperature(args.temp);
    let how = Generate::new().max_tokens(args.max_tokens).sampler(sampler).seed(args.seed);
    let mut session = model.session();
    let mut reply = session.generate_with(&prompt, how)?;
    let mut out = io::stdout().lock();
    for piece in &mut reply {
        out.write_all(piece?.as_bytes())?;
        out.flush()?;
    }
    writeln!(out)?;
    print_statistics(&reply.statistics(), reply.finish());
    Ok(())
}

fn print_statistics(statistics: &Statistics, finish: Option<Finish>) {
    let why = match finish {
        Some(Finish::End(token)) => format!("the model ended with token {token}"),
        Some(Finish::MaxTokens) => "as many tokens as asked for".into(),
        other => format!("{other:?}"),
    };
    // A speed takes two tokens to tell.
    let speed = match statistics.generated_tokens {
        0 | 1 => String::new(),
        _ => {
            let (tokens, gigabytes) = (statistics.tokens_per_second(), statistics.gigabytes_per_second());
            format!(" at {tokens:.1} tokens/s ({gigabytes:.1} GB/s)")
        }
    };
    eprintln!(
        "{} prompt tokens at {:.1} tokens/s, {} generated{speed}, first after {:.0} ms: {why}",
        statistics.prompt_tokens,
        statistics.prompt_tokens_per_second(),
        statistics.generated_tokens,
        statistics.first_token.as_secs_f64() * 1e3,
    );
}
