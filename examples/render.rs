//! What a chat template makes of a context: the tool for whoever wonders why a model sees what it sees.
//!
//! ```text
//! render --model FILE --context chat.json                  the template in a model file
//! render --template chat.jinja --context chat.json         or in a file of its own
//! render --model FILE --context chat.json --ids            token ids instead of text
//! ```
//!
//! The context is the JSON object that the template sees: `messages`, `tools`, `add_generation_prompt`, `bos_token` and so
//! on. `bos_token` and `eos_token` come from the model file if the context has none.

use clap::{ArgGroup, Parser};
use kiln::chat::Prompter;
use kiln::gguf::Gguf;
use kiln::template::{Now, Template};
use kiln::tokenizer::Tokenizer;
use serde_json::{Map, Value};
use std::error::Error;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a chat template makes of a context.
#[derive(Parser)]
#[command(group(ArgGroup::new("source").required(true).args(["model", "template"])))]
struct Args {
    /// The GGUF file whose template is used; weights are not read.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// A file with a template.
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// A file with a JSON object: what the template sees. "-" is standard input.
    #[arg(long, value_name = "FILE")]
    context: PathBuf,
    /// What the template takes for the time, as 2026-01-15T12:34:56; by default the clock's, in UTC.
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
    /// Print token ids, of the model's vocabulary: what a model sees in a conversation. Control tokens that stand in
    /// messages are text there.
    #[arg(long, requires = "model")]
    ids: bool,
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

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let file = args.model.as_ref().map(Gguf::open).transpose()?;
    let source = match (&file, &args.template) {
        (Some(file), _) => file.metadata().str("tokenizer.chat_template")?.map(String::from).ok_or_else(|| {
            let path = args.model.as_deref().unwrap_or(Path::new("")).display();
            format!("{path}: found no tokenizer.chat_template, expected one; --template takes it from elsewhere")
        })?,
        (None, Some(path)) => read(path)?,
        (None, None) => return Err("expected --model or --template".into()),
    };
    let mut context: Map<String, Value> = serde_json::from_str(&read(&args.context)?)
        .map_err(|error| format!("{}: {error}, expected a JSON object", args.context.display()))?;
    let tokenizer = file.as_ref().map(|file| Tokenizer::load(file.metadata())).transpose()?;
    if let Some(tokenizer) = &tokenizer {
        let special = tokenizer.special();
        for (name, token) in [("bos_token", special.bos), ("eos_token", special.eos)] {
            let piece = token.map(|token| String::from_utf8_lossy(tokenizer.piece(token)).into_owned());
            context.entry(name).or_insert(piece.unwrap_or_default().into());
        }
    }
    let now = args.now.as_deref().map_or(Ok(Now::utc()), Now::parse)?;
    let context = Value::Object(context);
    let mut out = io::stdout().lock();
    match tokenizer.filter(|_| args.ids) {
        Some(tokenizer) => {
            let prompter = Prompter::new(&source, &tokenizer)?;
            let ids = prompter.tokens(&prompter.render(&context, now)?, &tokenizer);
            let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
            writeln!(out, "{}", ids.join(" "))?;
        }
        None => out.write_all(Template::new(&source)?.render(&context, now)?.as_bytes())?,
    }
    Ok(out.flush()?)
}

fn read(path: &Path) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    match path.to_str() {
        Some("-") => io::stdin().read_to_string(&mut text).map(|_| ())?,
        _ => text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?,
    }
    Ok(text)
}
