//! Results as a table for people, or as JSON or CSV with the field names of llama-bench.

use crate::adapter;
use crate::measure::{Samples, Test};
use crate::profile::Step;
use clap::ValueEnum;
use kiln::Model;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
pub enum Format {
    /// A table in Markdown.
    Md,
    /// An array of objects.
    Json,
    /// A line of names, then a line a test.
    Csv,
}

/// What all tests have in common.
pub struct Setting {
    pub model: Model,
    pub filename: String,
    pub packed: bool,
    /// What the same threads read, in GB/s, when they do nothing else.
    pub read_gb_per_s: f64,
}

/// Writes results as they come, JSON at the end.
pub struct Report {
    setting: Setting,
    rows: usize,
    results: Results,
}

/// Results without the model that they came from.
pub struct Results {
    format: Format,
    objects: Vec<Value>,
}

/// What came of a test.
struct Outcome {
    nanoseconds: Vec<f64>,
    tokens_per_s: Vec<f64>,
    /// Of weights; none for prompts, whose tokens share what is read.
    gb_per_s: Option<f64>,
}

impl Report {
    pub fn new(format: Format, setting: Setting) -> Self {
        Report { setting, rows: 0, results: Results { format, objects: vec![] } }
    }

    pub fn model(&self) -> &Model {
        &self.setting.model
    }

    pub fn add(&mut self, test: &Test, samples: &Samples) -> io::Result<()> {
        let outcome = Outcome::new(test, samples, &self.setting.model);
        self.table_row(test, &outcome)?;
        match self.results.format {
            Format::Md => {}
            Format::Json => {
                let mut fields = self.fields(test, samples, &outcome);
                fields.push(("samples_ns", json!(outcome.nanoseconds.iter().map(|&ns| ns as u64).collect::<Vec<_>>())));
                fields.push(("samples_ts", json!(outcome.tokens_per_s)));
                let object = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                self.results.objects.push(object);
            }
            Format::Csv => {
                let fields = self.fields(test, samples, &outcome);
                if self.rows == 0 {
                    csv_line(fields.iter().map(|(name, _)| (*name).to_owned()))?;
                }
                csv_line(fields.into_iter().map(|(_, value)| plain(value)))?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Lets go of the model.
    pub fn close(self) -> Results {
        self.results
    }

    fn table_row(&self, test: &Test, outcome: &Outcome) -> io::Result<()> {
        let facts = self.setting.model.facts();
        let mut out = self.results.for_people();
        let width = facts.to_string().len();
        if self.rows == 0 {
            writeln!(
                out,
                "| {:width$} |       size |     params | device | threads |            test |                  t/s |  GB/s | share |",
                "model"
            )?;
            writeln!(
                out,
                "| {:-<width$} | ---------: | ---------: | ------ | ------: | --------------: | -------------------: | ----: | ----: |",
                ""
            )?;
        }
        let speed = format!("{:.2} ± {:.2}", mean(&outcome.tokens_per_s), deviation(&outcome.tokens_per_s));
        let or_dash = |number: Option<f64>| number.map_or("-".to_owned(), |number| format!("{number:.2}"));
        writeln!(
            out,
            "| {facts} | {:>10} | {:>10} | {:6} | {:>7} | {:>15} | {speed:>20} | {:>5} | {:>5} |",
            format!("{:.2} MiB", facts.weight_bytes as f64 / f64::from(1 << 20)),
            format!("{:.2} M", facts.parameters as f64 / 1e6),
            backend(&self.setting.model),
            self.setting.model.threads(),
            test.name(),
            or_dash(outcome.gb_per_s),
            or_dash(self.share(outcome)),
        )?;
        out.flush()
    }

    /// Of what the processor's memory can be read at; a GPU has its own.
    fn share(&self, outcome: &Outcome) -> Option<f64> {
        let speed = outcome.gb_per_s.filter(|_| self.setting.model.gpus().is_empty());
        speed.map(|speed| speed / self.setting.read_gb_per_s)
    }

    /// The fields that llama-bench has too, then the others.
    fn fields(&self, test: &Test, samples: &Samples, outcome: &Outcome) -> Vec<(&'static str, Value)> {
        let Setting { model, filename, packed, read_gb_per_s } = &self.setting;
        let (facts, plan) = (model.facts(), model.memory());
        let mut fields = vec![("cpu_info", json!(cpu_name()))];
        fields.extend(adapter::fields(model.gpus().first()));
        fields.extend([
            ("model_filename", json!(filename)),
            ("model_type", json!(facts.to_string())),
            ("model_size", json!(facts.weight_bytes)),
            ("model_n_params", json!(facts.parameters)),
            ("n_threads", json!(model.threads())),
            ("type_k", json!("f16")),
            ("type_v", json!("f16")),
            ("n_gpu_layers", json!(model.plan().gpu_layers)),
            ("n_prompt", json!(test.prompt)),
            ("n_gen", json!(test.generated)),
            ("n_depth", json!(test.depth)),
            ("test_time", json!(utc(samples.begun))),
            ("avg_ns", json!(mean(&outcome.nanoseconds) as u64)),
            ("stddev_ns", json!(deviation(&outcome.nanoseconds) as u64)),
            ("avg_ts", json!(mean(&outcome.tokens_per_s))),
            ("stddev_ts", json!(deviation(&outcome.tokens_per_s))),
            ("engine", json!(concat!("kiln ", env!("CARGO_PKG_VERSION")))),
            ("packed", json!(packed)),
            ("packed_bytes", json!(plan.packed_bytes)),
            ("cache_bytes", json!(plan.cache_bytes)),
            ("token_bytes", json!(model.token_bytes())),
            ("gb_per_s", json!(outcome.gb_per_s)),
            ("read_gb_per_s", json!(read_gb_per_s)),
            ("read_share", json!(self.share(outcome))),
        ]);
        fields
    }
}

/// What computes.
fn backend(model: &Model) -> &'static str {
    match (model.gpus().first(), model.plan().parts.len()) {
        (None, _) => "CPU",
        (Some(_), 1) => "GPU",
        (Some(_), _) => "mixed",
    }
}

impl Results {
    /// Where tables go: where nobody else reads.
    fn for_people(&self) -> Box<dyn Write> {
        match self.format {
            Format::Md => Box::new(io::stdout().lock()),
            Format::Json | Format::Csv => Box::new(io::stderr().lock()),
        }
    }

    /// Adds what profiles found.
    pub fn add_profile(&mut self, [chunk, token]: &[Step; 2]) -> io::Result<()> {
        write!(self.for_people(), "\n{chunk}\n{token}")?;
        for object in &mut self.objects {
            let is_prompt = object["n_prompt"].as_u64() > Some(0);
            object["profile"] = if is_prompt { chunk.value() } else { token.value() };
        }
        Ok(())
    }

    /// Adds why there is no profile.
    pub fn without_profile(&mut self, why: &str) -> io::Result<()> {
        writeln!(self.for_people(), "\n{why}")?;
        self.objects.iter_mut().for_each(|object| object["profile"] = json!({ "error": why }));
        Ok(())
    }

    pub fn finish(self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.format == Format::Json {
            serde_json::to_writer_pretty(&mut out, &self.objects)?;
            writeln!(out)?;
        }
        out.flush()
    }
}

impl Outcome {
    fn new(test: &Test, samples: &Samples, model: &Model) -> Self {
        let nanoseconds: Vec<f64> = samples.times.iter().map(|time| time.as_nanos().max(1) as f64).collect();
        let tokens_per_s: Vec<f64> = nanoseconds.iter().map(|ns| f64::from(test.tokens()) / ns * 1e9).collect();
        let speed = mean(&tokens_per_s) * model.token_bytes() as f64 / 1e9;
        Outcome { nanoseconds, gb_per_s: (test.generated > 0).then_some(speed), tokens_per_s }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The standard deviation of what the values are a sample of.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if values.len() > 1 { (squares / (values.len() - 1) as f64).sqrt() } else { 0.0 }
}

/// A value as a field of CSV; nothing is an empty one.
fn plain(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// A line of quoted fields, as llama-bench writes it.
fn csv_line(fields: impl Iterator<Item = String>) -> io::Result<()> {
    let quoted: Vec<String> = fields.map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
    writeln!(io::stdout().lock(), "{}", quoted.join(","))
}

/// The processor, where the system tells it in a file; else its architecture.
fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or(std::env::consts::ARCH, |(_, name)| name.trim()).to_owned()
}

/// A time as in 2026-01-31T23:59:59Z.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March have their leap day at the end, and 400 of them have 146,097 days.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // from March
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", era * 400 + year)
}
