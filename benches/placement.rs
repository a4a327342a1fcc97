//! What it costs to cut a model: half its layers on a GPU against the two pure runs, and the time lost at each boundary.
//!
//! ```text
//! cargo bench --bench placement -- --model FILE [--device NAME] [--layers N] [--tokens N] [--prompt N] [--threads N]
//! ```
//!
//! The same tokens are generated again and again after one prompt, in turns, and medians are compared. A cut should cost
//! no more than the work of its parts, which is estimated by the bytes of weights that each of them reads for a token.
//! A prompt, if one is asked for, goes through the cut model in pieces: both devices work at once, so it should take less
//! than the weighted sum, at best what the slower of the two takes for its part.
//!
//! Boundaries are counted by giving the GPU the same number of layers in one run of neighbours and in several.

use clap::Parser;
use kiln::{Device, LoadOptions, Model, Offload};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
struct Args {
    /// The GGUF file.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Part of the GPU's name; by default, the best.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Tokens to generate in each run.
    #[arg(long, default_value_t = 8)]
    tokens: usize,
    /// Tokens of a prompt to measure too.
    #[arg(long, default_value_t = 0)]
    prompt: usize,
    /// Layers that the GPU gets in the cut model; by default, half of them.
    #[arg(long)]
    layers: Option<u32>,
    /// Threads of the CPU.
    #[arg(long)]
    threads: Option<usize>,
    /// Runs of each kind.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// What `cargo bench` passes on.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A model in one placement.
struct Case {
    name: String,
    model: Model,
    /// For each token.
    milliseconds: Vec<f64>,
    /// For each token of a prompt.
    prompt_milliseconds: Vec<f64>,
}

impl Case {
    fn load(args: &Args, name: impl Into<String>, offload: Offload) -> kiln::Result<Case> {
        let device = Device::Gpu(args.device.clone());
        let mut options = LoadOptions::new().context(512.max(args.prompt as u32)).device(device).offload(offload);
        options.threads = args.threads;
        let model = options.open(&args.model)?;
        Ok(Case { name: name.into(), model, milliseconds: vec![], prompt_milliseconds: vec![] })
    }

    /// Milliseconds a token of a prompt, once more.
    fn run_prompt(&mut self, count: usize) -> kiln::Result<()> {
        let tokens: Vec<u32> = (0..count as u32).map(|token| token % 200 + 3).collect();
        let start = Instant::now();
        self.model.session().logits(&tokens)?;
        self.prompt_milliseconds.push(start.elapsed().as_secs_f64() * 1e3 / count as f64);
        Ok(())
    }

    /// Milliseconds a token, once more.
    fn run(&mut self, tokens: usize) -> kiln::Result<()> {
        let mut session = self.model.session();
        session.logits(&[1, 2, 3])?;
        let start = Instant::now();
        for token in 0..tokens {
            session.logits(&[token as u32 + 4])?;
        }
        self.milliseconds.push(start.elapsed().as_secs_f64() * 1e3 / tokens as f64);
        Ok(())
    }

    fn median(&self) -> f64 {
        median(&self.milliseconds)
    }

    /// Bytes of weights that GPUs read for a token, and all of them.
    fn bytes(&self) -> (f64, f64) {
        let (program, plan) = (self.model.program(), self.model.plan());
        let on_gpu: u64 =
            plan.parts.iter().filter(|part| part.free_bytes.is_some()).map(|part| part.weight_bytes).sum();
        let all = program.token_weight_bytes() as f64;
        ((on_gpu as f64).min(all), all)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> kiln::Result<()> {
    let mut whole = [Case::load(args, "GPU", Offload::All)?, Case::load(args, "CPU", Offload::None)?];
    let layers = whole[0].model.program().layers as u32;
    let given = args.layers.unwrap_or(layers / 2).min(layers);
    let name = format!("{given} of {layers} layers on the GPU");
    let mut half = Case::load(args, name, Offload::Layers(given))?;
    for _ in 0..args.runs {
        for case in whole.iter_mut().chain([&mut half]) {
            case.run(args.tokens)?;
            if args.prompt > 0 {
                case.run_prompt(args.prompt)?;
            }
        }
    }
    let (on_gpu, all) = half.bytes();
    let share = on_gpu / all;
    let sum = share * whole[0].median() + (1.0 - share) * whole[1].median();
    whole.iter().chain([&half]).for_each(|case| println!("{:40} {:10.3} ms a token", case.name, case.median()));
    println!("{:40} {sum:10.3} ms a token, with {:.1} % of the bytes on the GPU", "weighted sum", share * 100.0);
    println!("{:40} {:10.3}", "the cut model against that", half.median() / sum);
    if args.prompt > 0 {
        let [gpu, cpu, half] = [&whole[0], &whole[1], &half].map(|case| median(&case.prompt_milliseconds));
        let sum = share * gpu + (1.0 - share) * cpu;
        println!("a prompt of {}: GPU {gpu:.3}, CPU {cpu:.3}, cut {half:.3} ms a token", args.prompt);
        println!("{:40} {:10.3}", "that against the weighted sum", half / sum);
    }
    drop(whole);

    // As many layers on the GPU in both: neighbours, and with one on the CPU between each two.
    let count = layers.div_ceil(2);
    let apart: Vec<(Range<u32>, usize)> = (0..count).map(|index| (2 * index..2 * index + 1, 0)).collect();
    let mut together = Case::load(args, "layers together", Offload::Ranges([(0..count, 0)].into()))?;
    let mut scattered = Case::load(args, "layers apart", Offload::Ranges(apart))?;
    for _ in 0..args.runs {
        together.run(args.tokens)?;
        scattered.run(args.tokens)?;
    }
    let boundaries = 2.0 * f64::from(count - 1);
    for case in [&together, &scattered] {
        println!("{:40} {:10.3} ms a token", format!("{count} {}", case.name), case.median());
    }
    let lost = (scattered.median() - together.median()) / boundaries;
    println!("{:40} {lost:10.3} ms a token for each of {boundaries}", "time lost at a boundary");
    Ok(())
}
