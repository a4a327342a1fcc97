//! What is in a GGUF file: `inspect FILE [--tensors] [--json]`, or where it would run: `inspect FILE --plan`.
//!
//! Reads the header only, so it answers at once whatever the size of the model. Nothing in the file is required: a key
//! that is missing or strange is left out or shown as it stands, for the files one looks into are often the odd ones.
//! Text out of the file is escaped, so that no file can play tricks on a terminal.

#![warn(missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kiln::gguf::{Endian, Gguf, Metadata, TensorInfo, TensorType, Value};
use kiln::model::recipe_name;
use serde_json::{Map, Value as Json, json};

/// Show what is in a GGUF model file.
#[derive(Parser)]
#[command(name = "inspect")]
struct Options {
    /// The model: a .gguf file, or any one shard of a model in several files
    file: PathBuf,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Show where the model would run on this machine, and in how much memory
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    flags: common::Flags,
    /// Print JSON, with every tensor and all metadata (long texts and arrays summarised)
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    common::run(run)
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let report = if options.plan {
        options.flags.load_options()?.plan(&options.file)?.to_string()
    } else {
        let file = Gguf::open(&options.file)?;
        if options.json { json_report(&file) } else { text_report(&file, options.tensors) }
    };
    match io::stdout().write_all(report.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("writing the report: {error}").into()),
        _ => Ok(()), // `| head` may have seen enough
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Facts that both reports tell

/// How much of a model is stored in one way.
#[derive(Default, Clone, Copy)]
struct Share {
    tensors: u64,
    parameters: u64,
    bytes: u64,
}

impl Share {
    fn add(&mut self, tensor: &TensorInfo) {
        self.tensors += 1;
        self.parameters = self.parameters.saturating_add(tensor.elements());
        self.bytes = self.bytes.saturating_add(tensor.size_bytes());
    }

    fn bits_per_weight(self) -> Option<f64> {
        (self.parameters > 0).then(|| self.bytes as f64 * 8.0 / self.parameters as f64)
    }

    /// The part of the bytes of all tensors, from 0 to 1.
    fn of(self, total: Share) -> f64 {
        if total.bytes == 0 { 0.0 } else { self.bytes as f64 / total.bytes as f64 }
    }
}

/// What is stored in each type, most bytes first, and all together.
fn type_shares(file: &Gguf) -> (Vec<(TensorType, Share)>, Share) {
    let mut shares = BTreeMap::<TensorType, Share>::new();
    let mut total = Share::default();
    for tensor in file.tensors() {
        shares.entry(tensor.tensor_type()).or_default().add(tensor);
        total.add(tensor);
    }
    let mut shares: Vec<_> = shares.into_iter().collect();
    shares.sort_by_key(|(_, share)| std::cmp::Reverse(share.bytes));
    (shares, total)
}

/// A special token: the key that gives it its role, the role, its id, and its text if the vocabulary has it.
struct Special<'m> {
    key: &'m str,
    role: &'m str,
    id: u64,
    text: Option<String>,
}

/// The tokens that the metadata give a role, in file order.
fn special_tokens(metadata: &Metadata) -> Vec<Special<'_>> {
    let text = |id: u64| {
        let token = metadata.strings("tokenizer.ggml.tokens").ok()??.nth(usize::try_from(id).ok()?)?;
        Some(plain(token))
    };
    let special = metadata.iter().filter_map(|(key, value)| {
        let role = match key.strip_prefix("tokenizer.ggml.")?.strip_suffix("_token_id")? {
            "seperator" => "separator", // the format's own spelling
            role => role,
        };
        let id = u64::try_from(value.as_integer()?).ok()?;
        Some(Special { key, role, id, text: text(id) })
    });
    special.collect()
}

/// How many tokens, merges and so on: the length of an array.
fn array_len(metadata: &Metadata, key: &str) -> Option<usize> {
    metadata.get(key)?.as_array().map(|array| array.len())
}

fn endian_name(file: &Gguf) -> &'static str {
    match file.endian() {
        Endian::Little => "little-endian",
        Endian::Big => "big-endian",
    }
}

fn pooling_name(value: &Value<'_>) -> String {
    let names = ["none", "mean", "first token", "last token", "rank"];
    let name = value.as_integer().and_then(|id| names.get(usize::try_from(id).ok()?));
    name.map_or_else(|| show(value), |name| (*name).to_owned())
}

// ---------------------------------------------------------------------------------------------------------------------
// Text

/// The metadata, and which keys the report has told already.
struct Keys<'m> {
    metadata: &'m Metadata,
    architecture: String,
    told: BTreeSet<String>,
}

impl<'m> Keys<'m> {
    fn new(metadata: &'m Metadata) -> Self {
        let architecture = metadata.get("general.architecture").and_then(|value| value.as_str());
        Self { metadata, architecture: architecture.unwrap_or_default().to_owned(), told: BTreeSet::new() }
    }

    /// The value of a key as text. `*.` at its start stands for the architecture.
    fn text(&mut self, key: &str) -> Option<String> {
        self.value(key).map(|value| show(&value))
    }

    fn value(&mut self, key: &str) -> Option<Value<'m>> {
        let key = match key.strip_prefix("*.") {
            Some(rest) => format!("{}.{rest}", self.architecture),
            None => key.to_owned(),
        };
        let value = self.metadata.get(&key)?;
        self.told.insert(key);
        Some(value)
    }

    /// The parts that are there, joined by commas: `before` and `after` stand around each value.
    fn join(&mut self, parts: &[(&str, &str, &str)]) -> Option<String> {
        let parts = parts.iter().filter_map(|(before, key, after)| Some(format!("{before}{}{after}", self.text(key)?)));
        let parts: Vec<String> = parts.collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

fn text_report(file: &Gguf, with_tensors: bool) -> String {
    let mut keys = Keys::new(file.metadata());
    let mut report = String::new();
    section(&mut report, "File", file_rows(file, &mut keys));
    section(&mut report, "Model", model_rows(file, &mut keys));
    if !file.tensors().is_empty() {
        title(&mut report, "Quantization");
        report.push_str(&table(&quantization_rows(file), &[1, 2, 3, 4, 5]));
    }
    section(&mut report, "Vocabulary", vocabulary_rows(&mut keys));
    section(&mut report, "Other metadata", other_rows(&keys));
    if with_tensors {
        title(&mut report, "Tensors");
        report.push_str(&table(&tensor_rows(file), &[3, 4]));
    }
    report
}

type Rows = Vec<(String, Option<String>)>;

fn row(label: &str, value: Option<String>) -> (String, Option<String>) {
    (label.to_owned(), value)
}

fn file_rows(file: &Gguf, keys: &mut Keys<'_>) -> Rows {
    let paths = file.shards().iter().filter_map(|shard| Some((shard.path()?, shard.file_bytes())));
    let paths: Vec<_> = paths.map(|(path, bytes)| (plain(path.as_os_str().as_encoded_bytes()), bytes)).collect();
    let count = format!("{} tensors, {} metadata keys", file.tensors().len(), file.metadata().len());
    let format = format!("GGUF version {}, {}, alignment {}", file.version(), endian_name(file), file.alignment());
    for key in ["general.alignment", "split.no", "split.count", "split.tensors.count"] {
        keys.value(key);
    }
    let mut rows = vec![row("format", Some(format)), row("contents", Some(count))];
    match paths.as_slice() {
        [(path, bytes)] => {
            rows.insert(0, row("path", Some(path.clone())));
            rows.insert(1, row("size", Some(human_bytes(*bytes))));
        }
        shards => {
            rows.insert(0, row("size", Some(format!("{} in {} shards", human_bytes(file.file_bytes()), shards.len()))));
            let shards = shards.iter().enumerate();
            rows.extend(shards.map(|(index, (path, bytes))| {
                row(&format!("shard {}", index + 1), Some(format!("{path} ({})", human_bytes(*bytes))))
            }));
        }
    }
    rows
}

fn model_rows(file: &Gguf, keys: &mut Keys<'_>) -> Rows {
    let (_, total) = type_shares(file);
    let file_type = keys.value("general.file_type").map(|value| {
        let name = value.as_integer().and_then(|id| recipe_name(u32::try_from(id).ok()?));
        name.map_or_else(|| show(&value), str::to_owned)
    });
    let parameters = (total.parameters > 0).then(|| human_count(total.parameters));
    vec![
        row("architecture", keys.text("general.architecture").or(Some("not said".into()))),
        row("name", keys.text("general.name")),
        row("parameters", parameters),
        row("file type", file_type),
        row("bits per weight", total.bits_per_weight().map(|bits| format!("{bits:.2}"))),
        row(
            "context",
            keys.join(&[("", "*.context_length", " tokens"), ("window ", "*.attention.sliding_window", "")]),
        ),
        row("layers", keys.text("*.block_count")),
        row("width", keys.text("*.embedding_length")),
        row(
            "heads",
            keys.join(&[("", "*.attention.head_count", ""), ("", "*.attention.head_count_kv", " for keys and values")]),
        ),
        row(
            "head size",
            keys.join(&[("keys ", "*.attention.key_length", ""), ("values ", "*.attention.value_length", "")]),
        ),
        row("feed-forward", keys.text("*.feed_forward_length")),
        row(
            "experts",
            keys.join(&[
                ("", "*.expert_count", ""),
                ("", "*.expert_used_count", " used"),
                ("", "*.expert_shared_count", " shared"),
                ("feed-forward ", "*.expert_feed_forward_length", ""),
            ]),
        ),
        row("rope", keys.join(&[("base ", "*.rope.freq_base", ""), ("", "*.rope.dimension_count", " dimensions")])),
        row(
            "rope scaling",
            keys.join(&[
                ("", "*.rope.scaling.type", ""),
                ("factor ", "*.rope.scaling.factor", ""),
                ("from ", "*.rope.scaling.original_context_length", " tokens"),
            ]),
        ),
        row("pooling", keys.value("*.pooling_type").map(|value| pooling_name(&value))),
    ]
}

fn quantization_rows(file: &Gguf) -> Vec<Vec<String>> {
    let (shares, total) = type_shares(file);
    let line = |name: &str, share: Share| {
        vec![
            name.to_owned(),
            share.tensors.to_string(),
            human_count(share.parameters),
            human_bytes(share.bytes),
            format!("{:.1} %", 100.0 * share.of(total)),
            share.bits_per_weight().map_or_else(String::new, |bits| format!("{bits:.2}")),
        ]
    };
    let head = ["type", "tensors", "parameters", "size", "share", "bits/weight"].map(str::to_owned).to_vec();
    let types = shares.iter().map(|(kind, share)| line(kind.name(), *share));
    let last = (shares.len() > 1).then(|| line("all", total));
    [head].into_iter().chain(types).chain(last).collect()
}

fn vocabulary_rows(keys: &mut Keys<'_>) -> Rows {
    let metadata = keys.metadata;
    let mut len = |key: &str| {
        let len = array_len(metadata, key)?;
        keys.value(key);
        Some(len.to_string())
    };
    let (tokens, merges) = (len("tokenizer.ggml.tokens"), len("tokenizer.ggml.merges"));
    for key in ["scores", "token_type"] {
        keys.value(&format!("tokenizer.ggml.{key}"));
    }
    let model = keys.join(&[("", "tokenizer.ggml.model", ""), ("pre-tokenizer ", "tokenizer.ggml.pre", "")]);
    let mut rows = vec![row("model", model), row("tokens", tokens), row("merges", merges)];
    for Special { key, role, id, text } in special_tokens(metadata) {
        keys.value(key);
        let text = text.unwrap_or_else(|| "(not in the vocabulary)".into());
        rows.push(row(&plain(role.replace('_', " ").as_bytes()), Some(format!("{id:<7} {text}"))));
    }
    let flags = metadata.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix("tokenizer.ggml.")?;
        value.as_bool().map(|_| (plain(name.replace('_', " ").as_bytes()), key.to_owned()))
    });
    for (name, key) in flags.collect::<Vec<_>>() {
        rows.push((name, keys.text(&key)));
    }
    if rows.iter().any(|(_, value)| value.is_some()) {
        let template = keys.value("tokenizer.chat_template").map(|value| match value {
            Value::String(text) => format!("yes, {} bytes", text.len()),
            other => show(&other),
        });
        rows.push(row("chat template", template.or(Some("none".into()))));
    }
    rows
}

fn other_rows(keys: &Keys<'_>) -> Rows {
    let others = keys.metadata.iter().filter(|(key, _)| !keys.told.contains(*key));
    others.map(|(key, value)| (plain(key.as_bytes()), Some(show(&value)))).collect()
}

fn tensor_rows(file: &Gguf) -> Vec<Vec<String>> {
    let sharded = file.shard_count() > 1;
    let mut head = ["name", "type", "shape", "bytes", "offset"].map(str::to_owned).to_vec();
    head.extend(sharded.then(|| "shard".to_owned()));
    let line = |tensor: &TensorInfo| {
        let shape: Vec<String> = tensor.shape().iter().map(u64::to_string).collect();
        let mut line = vec![
            plain(tensor.name().as_bytes()),
            tensor.tensor_type().to_string(),
            if shape.is_empty() { "scalar".into() } else { shape.join(" × ") },
            tensor.size_bytes().to_string(),
            (data_offset(file, tensor) + tensor.offset_bytes()).to_string(),
        ];
        line.extend(sharded.then(|| (tensor.shard() + 1).to_string()));
        line
    };
    [head].into_iter().chain(file.tensors().iter().map(line)).collect()
}

/// Where the data of a tensor's shard begin in its file.
fn data_offset(file: &Gguf, tensor: &TensorInfo) -> u64 {
    file.shards().get(tensor.shard()).map_or(0, |shard| shard.data_offset())
}

fn title(report: &mut String, title: &str) {
    let gap = if report.is_empty() { "" } else { "\n" };
    let _ = writeln!(report, "{gap}{title}");
}

/// Labels are at least so wide, so that sections line up.
const LABEL_CHARS: usize = 15;

/// A title and its rows, of which those without a value are left out.
fn section(report: &mut String, name: &str, rows: Rows) {
    let rows: Vec<_> =
        rows.into_iter().filter_map(|(label, value)| Some(vec![format!("{label:<LABEL_CHARS$}"), value?])).collect();
    if !rows.is_empty() {
        title(report, name);
        report.push_str(&table(&rows, &[]));
    }
}

/// Columns as wide as their widest cell; those in `right` are numbers and aligned as such.
fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.chars().count().max(*width));
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let _ = match right.contains(&column) {
                true => write!(line, "  {cell:>width$}"),
                false => write!(line, "  {cell:<width$}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// A value as text for people: strings without quotes, but escaped and shortened.
fn show(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => plain(text),
        other => other.to_string(),
    }
}

/// Text out of the file, on one line, without characters that steer a terminal, and not too long.
fn plain(bytes: &[u8]) -> String {
    const SHOWN_CHARS: usize = 100;
    let text = String::from_utf8_lossy(bytes);
    let escape = |c: char| match c {
        '"' | '\'' | '\\' => c.to_string(),
        _ => c.escape_debug().to_string(),
    };
    let shown: String = text.chars().take(SHOWN_CHARS).map(escape).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() { format!("{shown}… ({} bytes)", bytes.len()) } else { shown }
}

/// 1.24 B, 7.25 M, 320.
fn human_count(count: u64) -> String {
    scaled(count, 1000.0, &["", " K", " M", " B", " T"])
}

/// 4.37 GiB, 506.1 KiB.
fn human_bytes(bytes: u64) -> String {
    scaled(bytes, 1024.0, &[" bytes", " KiB", " MiB", " GiB", " TiB"])
}

fn scaled(number: u64, step: f64, units: &[&str]) -> String {
    let mut value = number as f64;
    for (index, unit) in units.iter().enumerate() {
        if value < step || index + 1 == units.len() {
            return if index == 0 { format!("{number}{unit}") } else { format!("{value:.2}{unit}") };
        }
        value /= step;
    }
    number.to_string()
}

// ---------------------------------------------------------------------------------------------------------------------
// JSON

/// Arrays with more elements, and texts with more bytes, are summarised.
const JSON_ARRAY_ELEMENTS: usize = 64;
const JSON_TEXT_BYTES: usize = 1024;

fn json_report(file: &Gguf) -> String {
    let metadata = file.metadata();
    let (shares, total) = type_shares(file);
    let architecture = metadata.get("general.architecture").and_then(|value| value.as_str());
    let name = metadata.get("general.name").and_then(|value| value.as_str());
    let types = shares.into_iter().map(|(kind, share)| {
        json!({
            "type": kind.name(),
            "tensors": share.tensors,
            "parameters": share.parameters,
            "bytes": share.bytes,
            "share": share.of(total),
        })
    });
    let report = json!({
        "file": json_file(file),
        "architecture": architecture,
        "name": name,
        "parameters": total.parameters,
        "tensor_bytes": total.bytes,
        "bits_per_weight": total.bits_per_weight(),
        "types": types.collect::<Vec<_>>(),
        "hyperparameters": json_hyperparameters(metadata, architecture),
        "vocabulary": json_vocabulary(metadata),
        "chat_template": json_template(metadata),
        "metadata": metadata.iter().map(|(key, value)| (key.to_owned(), json_value(value))).collect::<Map<_, _>>(),
        "tensors": file.tensors().iter().map(|tensor| json_tensor(file, tensor)).collect::<Vec<_>>(),
    });
    format!("{report:#}\n")
}

fn json_file(file: &Gguf) -> Json {
    let shards = file.shards().iter().map(|shard| {
        let path = shard.path().map(|path| path.to_string_lossy());
        json!({ "path": path, "bytes": shard.file_bytes(), "data_offset": shard.data_offset() })
    });
    json!({
        "bytes": file.file_bytes(),
        "version": file.version(),
        "byte_order": endian_name(file),
        "alignment": file.alignment(),
        "shards": shards.collect::<Vec<_>>(),
    })
}

/// The keys of the architecture, without its name in front.
fn json_hyperparameters(metadata: &Metadata, architecture: Option<&str>) -> Json {
    let own = |key: &str| Some(key.strip_prefix(architecture?)?.strip_prefix('.')?.to_owned());
    metadata.iter().filter_map(|(key, value)| Some((own(key)?, json_value(value)))).collect::<Map<_, _>>().into()
}

fn json_vocabulary(metadata: &Metadata) -> Json {
    let text = |key: &str| metadata.get(key).and_then(|value| value.as_str());
    let special = special_tokens(metadata).into_iter();
    let special = special.map(|Special { role, id, text, .. }| (role.to_owned(), json!({ "id": id, "text": text })));
    let flags = metadata.iter().filter_map(|(key, value)| {
        Some((key.strip_prefix("tokenizer.ggml.")?.to_owned(), Json::from(value.as_bool()?)))
    });
    json!({
        "model": text("tokenizer.ggml.model"),
        "pre": text("tokenizer.ggml.pre"),
        "tokens": array_len(metadata, "tokenizer.ggml.tokens"),
        "merges": array_len(metadata, "tokenizer.ggml.merges"),
        "special": special.collect::<Map<_, _>>(),
        "flags": flags.collect::<Map<_, _>>(),
    })
}

fn json_template(metadata: &Metadata) -> Json {
    match metadata.get("tokenizer.chat_template") {
        Some(Value::String(text)) => json!({ "present": true, "bytes": text.len() }),
        other => json!({ "present": other.is_some(), "bytes": null }),
    }
}

fn json_tensor(file: &Gguf, tensor: &TensorInfo) -> Json {
    json!({
        "name": tensor.name(),
        "type": tensor.tensor_type().name(),
        "shape": tensor.shape(),
        "parameters": tensor.elements(),
        "bytes": tensor.size_bytes(),
        "offset": data_offset(file, tensor) + tensor.offset_bytes(),
        "shard": tensor.shard(),
    })
}

fn json_value(value: Value<'_>) -> Json {
    match value {
        Value::U64(value) => value.into(),
        Value::Bool(value) => value.into(),
        // By way of the shortest decimal, so that an f32 of 0.1 does not become 0.10000000149.
        Value::F32(value) => json_number(&value.to_string()),
        Value::F64(value) => json_number(&value.to_string()),
        Value::String(text) if text.len() > JSON_TEXT_BYTES => json!({ "text_bytes": text.len() }),
        Value::String(text) => String::from_utf8_lossy(text).into(),
        Value::Array(array) if array.len() > JSON_ARRAY_ELEMENTS => {
            json!({ "array_of": array.element_type().name(), "length": array.len() })
        }
        Value::Array(array) => array.iter().map(json_value).collect(),
        integer => integer.as_integer().and_then(|value| i64::try_from(value).ok()).into(),
    }
}

/// JSON has no infinity and no NaN; they become text.
fn json_number(decimal: &str) -> Json {
    let number = decimal.parse().ok().and_then(serde_json::Number::from_f64);
    number.map_or_else(|| decimal.into(), Json::Number)
}
