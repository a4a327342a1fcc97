//! Vectors of texts, how alike they are, and which documents answer a query.
//!
//! ```text
//! embed --model FILE TEXT..                one JSON array of numbers a text
//! embed --model FILE --jsonl F             the same for a file with one JSON string a line ("-" is standard input)
//! embed --model FILE --similarity TEXT..   the cosine of each pair of texts, as a table
//! embed --model FILE --query Q TEXT..      a reranker's score of each text, the best first
//! ```

mod common;

use clap::{Parser, ValueEnum};
use kiln::embed::similarity;
use kiln::{EmbedOptions, Embedder, Pooling};
use std::error::Error;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Prints vectors of texts, how alike they are, or how well they answer a query.
#[derive(Parser)]
struct Args {
    /// The GGUF file.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// The texts.
    #[arg(value_name = "TEXT", required_unless_present = "jsonl")]
    texts: Vec<String>,
    /// A file with one JSON string a line, in place of texts; "-" is standard input.
    #[arg(long, value_name = "F", conflicts_with = "texts")]
    jsonl: Option<PathBuf>,
    /// Print how alike texts are, from -1 to 1, in place of their vectors.
    #[arg(long)]
    similarity: bool,
    /// Print how well each text answers this, the best first: for rerankers.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["similarity", "pool", "raw"])]
    query: Option<String>,
    /// How one vector is made of a text's tokens; by default, as the file says.
    #[arg(long, value_enum)]
    pool: Option<Pool>,
    /// Leave vectors as long as they are; otherwise each is made one long.
    #[arg(long)]
    raw: bool,
    /// Cut the end off texts that are too long, which otherwise are errors.
    #[arg(long)]
    truncate: bool,
    #[command(flatten)]
    flags: common::Flags,
}

#[derive(Clone, Copy, ValueEnum)]
enum Pool {
    Mean,
    Cls,
    Last,
}

fn main() -> ExitCode {
    common::run(run)
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut how = EmbedOptions::new().normalise(!args.raw).truncate(args.truncate);
    how.pooling = args.pool.map(|pool| match pool {
        Pool::Mean => Pooling::Mean,
        Pool::Cls => Pooling::First,
        Pool::Last => Pooling::Last,
    });
    let embed = args.pool.is_some(); // also with a model that generates
    let texts = match &args.jsonl {
        Some(path) => read_lines(path)?,
        None => args.texts.clone(),
    };
    let in_model = |error: kiln::Error| format!("{}: {error}", args.model.display());
    let model = args.flags.load_options()?.embed(embed).open(&args.model)?;
    let embedder = model.embedder_with(how).map_err(in_model)?;
    let out = &mut BufWriter::new(io::stdout().lock());
    match &args.query {
        Some(query) => rank(&embedder, query, &texts, out)?,
        None => {
            let vectors = embedder.embed(&texts).map_err(in_model)?;
            match args.similarity {
                true => print_table(&texts, &vectors, out)?,
                false => print_vectors(&vectors, out)?,
            }
        }
    }
    Ok(out.flush()?)
}

fn read_lines(path: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let in_path = |error: io::Error| format!("{}: {error}", path.display());
    let lines: Box<dyn BufRead> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(std::fs::File::open(path).map_err(in_path)?)),
    };
    let text = |(number, line): (usize, io::Result<String>)| -> Result<String, Box<dyn Error>> {
        let place = |error| format!("{}, line {number}: not a JSON string: {error}", path.display());
        Ok(serde_json::from_str(&line.map_err(in_path)?).map_err(place)?)
    };
    (1..).zip(lines.lines()).map(text).collect()
}

fn print_vectors(vectors: &[Vec<f32>], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    for vector in vectors {
        serde_json::to_writer(&mut *out, vector).map_err(io::Error::from)?;
        writeln!(out)?;
    }
    Ok(())
}

fn print_table(texts: &[String], vectors: &[Vec<f32>], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    for (a, text) in vectors.iter().zip(texts) {
        for b in vectors {
            write!(out, "{:7.4} ", similarity(a, b))?;
        }
        writeln!(out, " {text}")?;
    }
    Ok(())
}

fn rank(embedder: &Embedder, query: &str, texts: &[String], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut scored: Vec<(f32, &String)> = embedder.rank(query, texts)?.into_iter().zip(texts).collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    for (score, text) in scored {
        writeln!(out, "{score:8.4}  {text}")?;
    }
    Ok(())
}
