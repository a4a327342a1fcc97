//! How many short sentences a second become vectors, by an encoder of 22 million parameters with random weights.
//!
//! ```text
//! cargo bench --bench embedding
//! KILN_THREADS=2 KILN_WRITE=folder cargo bench --bench embedding
//! ```
//!
//! Everything counts but loading: cutting texts into tokens, running them, pooling, normalising. `KILN_WRITE` names a folder
//! to write the models and the sentences to, one a line, for comparing them with another implementation. `KILN_BATCH` says
//! how many tokens run together.

use kiln::gguf::{Gguf, GgufWriter, TensorType};
use kiln::quant::Format;
use kiln::{Device, EmbedOptions, LoadOptions, Model};
use std::path::PathBuf;
use std::time::Instant;

const LAYERS: usize = 6;
const WIDTH: usize = 384;
const HEADS: u32 = 12;
const INNER: usize = 1536;
const VOCABULARY: usize = 30522;
const CONTEXT: usize = 512;
const SENTENCES: usize = 1000;
const RUNS: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let folder = std::env::var_os("KILN_WRITE").map(PathBuf::from);
    let sentences = sentences();
    if let Some(folder) = &folder {
        std::fs::write(folder.join("sentences.txt"), sentences.join("\n"))?;
    }
    let mut options = LoadOptions::new().device(Device::Cpu);
    options.threads = number("KILN_THREADS");
    let mut how = EmbedOptions::new();
    how.batch_tokens = number("KILN_BATCH").unwrap_or(how.batch_tokens);
    for kind in [TensorType::F16, TensorType::Q8_0] {
        let bytes = file(kind)?;
        if let Some(folder) = &folder {
            std::fs::write(folder.join(format!("encoder-22m-{}.gguf", kind.name())), &bytes)?;
        }
        let model = Model::load(Gguf::from_bytes(bytes)?, &options)?;
        let embedder = model.embedder_with(how.clone())?;
        let encode = kiln::tokenizer::Encode::default().add_special(true);
        let tokens: usize = sentences.iter().map(|text| model.tokenizer().encode(text, encode).len()).sum();
        let mut seconds: Vec<f64> = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                let vectors = embedder.embed(&sentences);
                assert!(vectors.is_ok_and(|vectors| vectors.len() == SENTENCES));
                start.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        let median = seconds[RUNS / 2];
        println!(
            "{} on {} threads: {SENTENCES} sentences, {tokens} tokens in {median:.3} s ({:.3} to {:.3}): {:.0} sentences/s, {:.0} tokens/s",
            model.facts(),
            model.threads(),
            seconds[0],
            seconds[RUNS - 1],
            SENTENCES as f64 / median,
            tokens as f64 / median,
        );
    }
    Ok(())
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Between -1 and 1.
    fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// The `index`-th word, of letters.
fn word(mut index: usize) -> String {
    let mut word = String::new();
    while index > 0 || word.len() < 2 {
        word.push(char::from(b'a' + (index % 26) as u8));
        index /= 26;
    }
    word
}

/// Sentences of five to sixteen words.
fn sentences() -> Vec<String> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let sentence = |_| {
        let count = 5 + dice.next() as usize % 12;
        let words: Vec<String> = (0..count).map(|_| word(dice.next() as usize % (VOCABULARY - 200))).collect();
        format!("{}.", words.join(" "))
    };
    (0..SENTENCES).map(sentence).collect()
}

fn file(kind: TensorType) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", "bert")?;
    for (key, value) in [
        ("vocab_size", VOCABULARY as u32),
        ("context_length", CONTEXT as u32),
        ("embedding_length", WIDTH as u32),
        ("block_count", LAYERS as u32),
        ("feed_forward_length", INNER as u32),
        ("attention.head_count", HEADS),
        ("pooling_type", 1),
    ] {
        writer.set(&format!("bert.{key}"), value)?;
    }
    writer.set("bert.attention.layer_norm_epsilon", 1e-12f32)?;
    writer.set("bert.attention.causal", false)?;
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u{2581}."].map(String::from);
    let words = (0..VOCABULARY - special.len()).map(|index| format!("\u{2581}{}", word(index)));
    let tokens: Vec<String> = special.into_iter().chain(words).collect();
    let kinds: Vec<i32> = (0..VOCABULARY).map(|id| if id < 5 { 3 } else { 1 }).collect();
    writer.set("tokenizer.ggml.model", "bert")?;
    writer.set("tokenizer.ggml.pre", "jina-v2-en")?;
    writer.set("tokenizer.ggml.tokens", tokens)?;
    writer.set("tokenizer.ggml.token_type", kinds)?;
    writer.set("tokenizer.ggml.token_type_count", 2u32)?;
    for (key, id) in [("padding", 0), ("unknown", 1), ("bos", 2), ("cls", 2), ("eos", 3), ("seperator", 3), ("mask", 4)]
    {
        writer.set(&format!("tokenizer.ggml.{key}_token_id"), id as u32)?;
    }
    let mut dice = Dice(1);
    let mut add = |name: &str, shape: &[usize], kind: TensorType| -> Result<(), Box<dyn std::error::Error>> {
        let (middle, spread) = match shape {
            [_] => (if name.ends_with("norm.weight") { 1.0 } else { 0.0 }, 0.1),
            _ => (0.0, 1.7 / (shape[0] as f32).sqrt()),
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| middle + spread * dice.number()).collect();
        let format = Format::of(kind)?;
        let mut bytes = vec![0; format.bytes_for(values.len())?];
        format.encode(&values, &mut bytes)?;
        let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        Ok(writer.tensor(name, &shape, kind, bytes)?)
    };
    let exact = TensorType::F32;
    add("token_embd.weight", &[WIDTH, VOCABULARY], kind)?;
    add("position_embd.weight", &[WIDTH, CONTEXT], exact)?;
    add("token_types.weight", &[WIDTH, 2], exact)?;
    let both = |name: &str| [format!("{name}.weight"), format!("{name}.bias")];
    for name in both("token_embd_norm") {
        add(&name, &[WIDTH], exact)?;
    }
    for layer in 0..LAYERS {
        let matrices = [
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH, WIDTH),
            ("attn_v", WIDTH, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_up", WIDTH, INNER),
            ("ffn_down", INNER, WIDTH),
        ];
        for (name, columns, rows) in matrices {
            let [weight, bias] = both(&format!("blk.{layer}.{name}"));
            add(&weight, &[columns, rows], kind)?;
            add(&bias, &[rows], exact)?;
        }
        for name in ["attn_output_norm", "layer_output_norm"] {
            for name in both(&format!("blk.{layer}.{name}")) {
                add(&name, &[WIDTH], exact)?;
            }
        }
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes)?;
    Ok(bytes)
}
