//! A tree of agents on one model: a planner, workers that go on from what the planner has seen, and a summariser that
//! reads what they found. What they have in common is computed once and kept once.
//!
//! ```text
//! agents [--model FILE] [--task TEXT] [--workers N] [--max-tokens N] [--temp T] [--seed S]
//!        [--device auto|cpu|gpu|gpu:NAME] [--gpu-layers N|all|auto]
//!          [--on-cpu embedding|head|ffn|experts,..] [--cpu-experts] [--threads N] [--ctx N]
//! ```
//!
//! Without `--model` it is the model in the box, which can play all parts and is good at none.

mod common;

use clap::Parser;
use kiln::chat::{Chat, ContextPolicy};
use kiln::gguf::Gguf;
use kiln::sampler::SamplerOptions;
use kiln::{Generate, LoadOptions, Model};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

static BOX: &[u8] = include_bytes!("model-in-the-box/box.gguf");

/// A tree of agents on one model.
#[derive(Parser)]
struct Args {
    /// The GGUF file; it needs a chat template. Without one, the model in the box.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// What the planner is asked for: a list, with commas between its parts.
    #[arg(long, value_name = "TEXT", default_value = "Please give me a list of three animals.")]
    task: String,
    /// What each worker is asked for; {} stands for its part.
    #[arg(long, value_name = "TEXT", default_value = "Tell me a story about a {}.")]
    work: String,
    /// What the summariser is asked for; {} stands for what the workers found.
    #[arg(long, value_name = "TEXT", default_value = "{} What was it that I just said?")]
    summary: String,
    /// The most workers.
    #[arg(long, value_name = "N", default_value_t = 3)]
    workers: usize,
    /// The most tokens that an agent writes.
    #[arg(long, value_name = "N", default_value_t = 120)]
    max_tokens: usize,
    /// The temperature; at 0 the likeliest token is always taken.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
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

/// What an agent said, and what it cost.
struct Report {
    name: String,
    said: String,
    /// Tokens in front of what it wrote, and those among them that somebody had computed before.
    prompt: usize,
    shared: usize,
    written: usize,
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let model = open(args)?;
    let start = Instant::now();
    let sampler = SamplerOptions::default().temperature(args.temp);
    let how = Generate::new().max_tokens(args.max_tokens).sampler(sampler).seed(args.seed);
    let system = "Answer briefly and kindly.";
    let mut planner = model.chat().system(system).policy(ContextPolicy::Stop).generate(how).start()?;
    let plan = ask(&mut planner, "planner", &args.task)?;
    let parts = parts_of(&plan.said, args.workers);

    // Each worker goes on from what the planner has seen and said.
    let mut chats = parts.iter().map(|_| planner.fork()).collect::<kiln::Result<Vec<Chat>>>()?;
    let found = thread::scope(|scope| -> Result<Vec<Report>, Box<dyn Error>> {
        let work = |(chat, part): (_, &String)| {
            let (name, task) = (format!("worker on {part}"), args.work.replace("{}", part));
            scope.spawn(move || ask(chat, &name, &task))
        };
        let running: Vec<_> = chats.iter_mut().zip(&parts).map(work).collect();
        running.into_iter().map(|worker| Ok(worker.join().map_err(|_| "a worker has died")??)).collect()
    })?;

    let results: Vec<&str> = found.iter().map(|report| &report.said[..]).collect();
    let mut summariser = planner.fork()?;
    let summary = ask(&mut summariser, "summariser", &args.summary.replace("{}", &results.join(" ")))?;

    print(&plan, 0);
    found.iter().chain([&summary]).for_each(|report| print(report, 1));
    let all: Vec<&Report> = [&plan, &summary].into_iter().chain(&found).collect();
    let sum = |count: fn(&Report) -> usize| all.iter().map(|report| count(report)).sum::<usize>();
    let (prompt, shared, written) =
        (sum(|report| report.prompt), sum(|report| report.shared), sum(|report| report.written));
    println!(
        "{} agents in {:.2} s: {written} tokens written; of {prompt} tokens read, {shared} ({:.0} %) were not computed again.",
        all.len(),
        start.elapsed().as_secs_f64(),
        100.0 * shared as f64 / prompt.max(1) as f64,
    );
    Ok(())
}

/// Opens the model, with room for all agents.
fn open(args: &Args) -> Result<Model, Box<dyn Error>> {
    let agents = u32::try_from(args.workers).unwrap_or(u32::MAX).saturating_add(2);
    let options: LoadOptions = args.flags.load_options()?.sessions(agents);
    Ok(match &args.model {
        Some(path) => options.open(path)?,
        None => Model::load(Gguf::from_bytes(BOX.to_vec())?, &options)?,
    })
}

/// Asks an agent something.
fn ask(chat: &mut Chat, name: &str, task: &str) -> kiln::Result<Report> {
    let mut reply = chat.say(task)?;
    let mut said = String::new();
    for piece in &mut reply {
        said.push_str(&piece?.to_string());
    }
    let cost = reply.statistics();
    drop(reply);
    // All that is held now was read or written.
    let prompt = chat.session().tokens().len().saturating_sub(cost.generated_tokens);
    let shared = prompt.saturating_sub(cost.prompt_tokens);
    Ok(Report { name: name.into(), said: said.trim().into(), prompt, shared, written: cost.generated_tokens })
}

/// The parts of a list in words.
fn parts_of(list: &str, most: usize) -> Vec<String> {
    let list = list.rsplit(':').next().unwrap_or(list).replace(" and ", ", ");
    let is_edge = |c: char| !c.is_alphanumeric();
    let parts = list.split([',', '\n', ';']).map(|part| part.trim_matches(is_edge).to_lowercase());
    parts.filter(|part| !part.is_empty()).take(most).collect()
}

fn print(report: &Report, depth: usize) {
    let Report { name, said, prompt, shared, written } = report;
    let (branch, stem) = if depth == 0 { ("", "") } else { ("+- ", "|    ") };
    println!("{branch}{name}: {prompt} tokens read, {shared} of them shared; {written} written");
    println!("{stem}  {}", said.replace('\n', " "));
}
