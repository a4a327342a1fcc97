//! Text to token ids and back, with nothing but a model file.
//!
//! ```text
//! tokenize --model FILE "Hello, world!"     ids on the first line, then what each stands for
//! tokenize --model FILE --file book.txt     ids of a whole file ("-" is standard input)
//! tokenize --model FILE --jsonl texts.jsonl one JSON string a line in, one JSON array of ids a line out
//! tokenize --model FILE --decode "1 15043"  ids back to text
//! ```

use clap::{ArgGroup, Parser};
use kiln::gguf::Gguf;
use kiln::tokenizer::{Encode, Tokenizer, TokenizerOptions};
use std::error::Error;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Text to token ids and back, with nothing but a model file.
#[derive(Parser)]
#[command(group(ArgGroup::new("input").required(true).args(["text", "file", "jsonl", "decode"])))]
struct Args {
    /// The GGUF file whose vocabulary is used; weights are not read.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// A text to encode; its ids are printed, and below them each id's piece.
    text: Option<String>,
    /// A file to encode whole; "-" is standard input.
    #[arg(long, value_name = "F")]
    file: Option<PathBuf>,
    /// A file with one JSON string a line; prints one JSON array of ids a line. "-" is standard input.
    #[arg(long, value_name = "F")]
    jsonl: Option<PathBuf>,
    /// Ids to decode, separated by spaces or commas.
    #[arg(long, value_name = "IDS", value_parser = parse_ids)]
    decode: Option<Ids>,
    /// Recognise control tokens such as <|im_end|> in the text; with --decode, print them.
    #[arg(long)]
    special: bool,
    /// Add what the file asks for around a text: BOS, EOS, or an encoder's CLS and SEP.
    #[arg(long)]
    bos: bool,
    /// Use this pre-tokenizer in place of the one that the file names.
    #[arg(long, value_name = "NAME")]
    pre: Option<String>,
}

#[derive(Clone)]
struct Ids(Vec<u32>);

fn parse_ids(text: &str) -> Result<Ids, String> {
    let parts = text.split(|c: char| c == ',' || c.is_whitespace() || c == '[' || c == ']').filter(|p| !p.is_empty());
    let parse = |part: &str| part.parse().map_err(|_| format!("`{part}` is not a token id"));
    parts.map(parse).collect::<Result<_, _>>().map(Ids)
}

fn main() -> ExitCode {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    match run(&Args::parse(), &mut out).and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has had enough: `tokenize … | head`.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(args: &Args, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let options = args.pre.iter().fold(TokenizerOptions::default(), |options, pre| options.pre(pre));
    let tokenizer = Tokenizer::load_with(Gguf::open(&args.model)?.metadata(), &options)
        .map_err(|error| format!("{}: {error}{}", args.model.display(), hint(&error)))?;
    let how = Encode::default().parse_special(args.special).add_special(args.bos);

    if let Some(Ids(ids)) = &args.decode {
        decode(&tokenizer, ids, args.special, out)
    } else if let Some(path) = &args.jsonl {
        encode_lines(&tokenizer, path, how, out)
    } else if let Some(path) = &args.file {
        let mut text = Vec::new();
        open(path)?.read_to_end(&mut text).map_err(|error| format!("{}: {error}", path.display()))?;
        print_ids(&tokenizer.encode_bytes(&text, how), out)
    } else {
        let ids = tokenizer.encode(args.text.as_deref().unwrap_or_default(), how);
        print_ids(&ids, out)?;
        print_pieces(&tokenizer, &ids, out)
    }
}

/// What to do about a pre-tokenizer that is not known.
fn hint(error: &kiln::Error) -> &'static str {
    match error {
        kiln::Error::Metadata { key, .. } if key == "tokenizer.ggml.pre" => "\nhint: choose one with --pre NAME",
        _ => "",
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, String> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = std::fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}

fn decode(tokenizer: &Tokenizer, ids: &[u32], special: bool, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let count = tokenizer.token_count();
    if let Some(id) = ids.iter().find(|&&id| id >= count) {
        return Err(format!("token id {id} is outside the vocabulary of {count} tokens").into());
    }
    out.write_all(&tokenizer.decode_bytes(ids, special))?;
    Ok(writeln!(out)?)
}

fn encode_lines(tokenizer: &Tokenizer, path: &Path, how: Encode, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    for (number, line) in (1..).zip(open(path)?.lines()) {
        let place = |error: &dyn std::fmt::Display| format!("{}, line {number}: {error}", path.display());
        let line = line.map_err(|error| place(&error))?;
        let text: String =
            serde_json::from_str(&line).map_err(|error| place(&format!("not a JSON string: {error}")))?;
        serde_json::to_writer(&mut *out, &tokenizer.encode(&text, how)).map_err(io::Error::from)?;
        writeln!(out)?;
    }
    Ok(())
}

fn print_ids(ids: &[u32], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut line = serde_json::to_vec(ids)?;
    line.iter_mut().filter(|byte| **byte == b',').for_each(|byte| *byte = b' ');
    out.write_all(line.trim_ascii().strip_prefix(b"[").and_then(|line| line.strip_suffix(b"]")).unwrap_or_default())?;
    Ok(writeln!(out)?)
}

fn print_pieces(tokenizer: &Tokenizer, ids: &[u32], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    for &id in ids {
        let piece = tokenizer.piece(id);
        let kind = if tokenizer.is_control(id) { "  (control)" } else { "" };
        match std::str::from_utf8(piece) {
            Ok(text) => writeln!(out, "{id:>8}  {text:?}{kind}")?,
            Err(_) => writeln!(out, "{id:>8}  bytes {}{kind}", piece.escape_ascii())?,
        }
    }
    Ok(())
}
