//! Talks to a model, in a terminal or for a script.
//!
//! ```text
//! chat                                            the model in the box, a very small one
//! chat --model FILE                               a GGUF file
//! chat --hf ORG/REPO[:QUANT]                      a model from the hub
//! chat --model FILE --prompt TEXT                 one turn, without a terminal
//! cat FILE | chat --model FILE --json             the same, from standard input, as lines of JSON
//! ```
//!
//! `chat --help` lists the rest, `/help` what can be said while talking. Exit codes: 0, 1 if something failed, 2 if the
//! arguments were wrong, 130 if Ctrl-C ended a reply that no terminal asked for.

#[path = "../common/mod.rs"]
mod common;
mod hub;
mod load;
mod once;
mod progress;
mod stream;
mod talk;
mod wrap;

use clap::{Parser, ValueEnum};
use kiln::chat::{ChatBuilder, ContextPolicy};
use kiln::sampler::SamplerOptions;
use kiln::{Generate, Model};
use std::error::Error;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

/// Talks to a model, in a terminal or for a script.
///
/// Without --model and --hf it is the model in the box: a very small one that comes with this program.
#[derive(Parser)]
struct Args {
    /// The GGUF file.
    #[arg(long, value_name = "FILE", conflicts_with = "hf")]
    model: Option<PathBuf>,
    #[command(flatten)]
    hub: hub::Flags,
    /// Say this, print the reply and end; "-" is standard input. A model without a chat template completes it.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// What the model is told before anything else.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// A chat template in place of the model's own.
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Go on with a conversation that /save has written.
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// Complete the text of --prompt, without a conversation around it.
    #[arg(long, requires = "prompt", conflicts_with_all = ["system", "template", "load"])]
    raw: bool,
    /// Whether a model that can think does so before it answers; by default, as its template has it.
    #[arg(long, value_name = "YES|NO", value_parser = clap::builder::BoolishValueParser::new())]
    think: Option<bool>,
    /// What to do when the context is full.
    #[arg(long, value_name = "WHAT", value_enum, default_value = "forget")]
    when_full: WhenFull,
    /// The most tokens of a reply; 256 with --prompt, else none.
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// The temperature; at 0 the likeliest token is always taken.
    #[arg(long, value_name = "T")]
    temp: Option<f32>,
    /// Choose among so many of the likeliest tokens; 0 is all.
    #[arg(long, value_name = "K", default_value_t = SamplerOptions::default().top_k)]
    top_k: usize,
    /// Choose among the likeliest tokens that together are so probable.
    #[arg(long, value_name = "P", default_value_t = SamplerOptions::default().top_p)]
    top_p: f32,
    /// Choose among tokens so probable, compared to the likeliest.
    #[arg(long, value_name = "P", default_value_t = SamplerOptions::default().min_p)]
    min_p: f32,
    /// Where the choice of tokens starts from; by default 0 with --prompt, else the clock.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Print lines of JSON: one for each piece of the reply, and one at its end.
    #[arg(long)]
    json: bool,
    /// Whether to use colours.
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    color: Color,
    #[command(flatten)]
    flags: common::Flags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WhenFull {
    /// End the reply with an error.
    Stop,
    /// Forget the oldest messages, but not the system's.
    Forget,
    /// Forget the older half of all tokens.
    Shift,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    Always,
    Never,
}

/// How a program ends that somebody has stopped with Ctrl-C.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let result = common::run(|args: &Args| {
        if run(args)? == Ended::Interrupted {
            code = ExitCode::from(INTERRUPTED);
        }
        Ok(())
    });
    if result == ExitCode::SUCCESS { code } else { result }
}

/// How the conversation came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Well,
    Interrupted,
}

fn run(args: &Args) -> Result<Ended, Box<dyn Error>> {
    let model = args.open(args.model.as_deref())?;
    match args.text()? {
        Some(text) => once::run(args, &model, &text),
        None => talk::run(args, model).map(|()| Ended::Well),
    }
}

impl Args {
    /// What to say, if there is nobody to ask.
    fn text(&self) -> Result<Option<String>, Box<dyn Error>> {
        match self.prompt.as_deref() {
            Some(text) if text != "-" => Ok(Some(text.to_owned())),
            None if io::stdin().is_terminal() && !self.json => Ok(None),
            _ => {
                let mut bytes = vec![];
                io::stdin().read_to_end(&mut bytes)?;
                let text =
                    String::from_utf8(bytes).map_err(|error| format!("standard input: {error}, expected text"))?;
                if text.trim().is_empty() {
                    return Err("standard input: found nothing, expected what to say".into());
                }
                Ok(Some(text))
            }
        }
    }

    /// A conversation as the flags ask for it.
    fn chat(&self, model: &Model) -> Result<ChatBuilder, Box<dyn Error>> {
        let policy = match self.when_full {
            WhenFull::Stop => ContextPolicy::Stop,
            WhenFull::Forget => ContextPolicy::ForgetOldest { keep_system: true },
            WhenFull::Shift => ContextPolicy::Shift,
        };
        let mut chat = model.chat().policy(policy).generate(self.generate(self.prompt.is_some()));
        if let Some(think) = self.think {
            chat = chat.thinking(think);
        }
        if let Some(path) = &self.template {
            let read = std::fs::read_to_string(path);
            chat = chat.template(read.map_err(|error| format!("{}: {error}", path.display()))?);
        }
        Ok(chat)
    }

    /// How to choose tokens: the same again where nobody sits, something else each time where somebody does.
    fn generate(&self, is_repeatable: bool) -> Generate {
        let defaults = SamplerOptions::default();
        let temperature = self.temp.unwrap_or(defaults.temperature);
        let sampler = defaults.temperature(temperature).top_k(self.top_k).top_p(self.top_p).min_p(self.min_p);
        let clock = || {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
        };
        let seed = self.seed.unwrap_or_else(|| if is_repeatable { 0 } else { clock() });
        let mut how = Generate::new().sampler(sampler).seed(seed);
        how.max_tokens = self.max_tokens.or(is_repeatable.then_some(256));
        how
    }

    fn has_colors(&self) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        }
    }
}
