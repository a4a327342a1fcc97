//! How many megabytes of text a second each tokenizer cuts, on one core.
//!
//! ```text
//! KILN_GOLDEN=path/to/golden cargo bench --bench tokenizer
//! KILN_TEXT=book.txt KILN_GOLDEN=path/to/golden cargo bench --bench tokenizer -- BPE
//! ```
//!
//! The text is the file that `KILN_TEXT` names, or words of GPT-2's vocabulary drawn by Zipf's law, which look like
//! English to a tokenizer. The other rows show that no text is much slower: one repeated character, spaces, and random
//! bytes, most of which are no UTF-8 and have to be repaired. The last line of each vocabulary compares them.

use kiln::gguf::{Gguf, GgufWriter};
use kiln::tokenizer::{Encode, Tokenizer};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

const TEXT_BYTES: usize = 10_000_000;

fn main() {
    let Some(golden) = std::env::var_os("KILN_GOLDEN").map(PathBuf::from) else {
        println!("skipped: KILN_GOLDEN is not set");
        return;
    };
    let folder = golden.join("tokenizers");
    let texts = texts(&folder);
    // Behind `--`, a part of the names of those that shall run.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for (name, vocabulary) in [
        ("SPM llama-spm", open(&folder, "llama-spm")),
        ("BPE llama-bpe", open(&folder, "llama-bpe")),
        ("BPE qwen2", open(&folder, "qwen2")),
        ("WordPiece bert-bge", open(&folder, "bert-bge")),
        ("Unigram llama-spm's tokens", unigram(&open(&folder, "llama-spm"))),
    ] {
        if !name.contains(&wanted) {
            continue;
        }
        let start = Instant::now();
        let tokenizer = Tokenizer::load(vocabulary.metadata()).expect("the vocabulary loads");
        println!("{name}: loaded in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
        compare(name, &tokenizer, &texts);
    }
}

/// One line that says how much slower than the first text the others are: medians of alternating runs.
fn compare(name: &str, tokenizer: &Tokenizer, texts: &[(String, Vec<u8>)]) {
    let mut seconds = vec![vec![]; texts.len()];
    for _ in 0..5 {
        for (times, (_, text)) in seconds.iter_mut().zip(texts) {
            let start = Instant::now();
            black_box(tokenizer.encode_bytes(text, Encode::default()));
            times.push(start.elapsed().as_secs_f64() / text.len() as f64);
        }
    }
    for times in &mut seconds {
        times.sort_by(f64::total_cmp);
    }
    let columns = texts
        .iter()
        .zip(&seconds)
        .map(|((kind, _), times)| format!("{kind} {:.1} MB/s ({:.2}x)", 1e-6 / times[2], times[2] / seconds[0][2]));
    println!("{name}: {}\n", columns.collect::<Vec<_>>().join(", "));
}

fn open(folder: &Path, name: &str) -> Gguf {
    Gguf::open(folder.join(format!("{name}.gguf"))).expect("a golden vocabulary")
}

/// A unigram vocabulary of the same tokens: the earlier a token, the more likely.
fn unigram(spm: &Gguf) -> Gguf {
    let tokens = spm.metadata().strings("tokenizer.ggml.tokens").ok().flatten().expect("tokens");
    let texts: Vec<String> = tokens.map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    let scores: Vec<f32> = (0..texts.len()).map(|rank| -((rank + 10) as f32).ln()).collect();
    let kinds = spm.metadata().i32s("tokenizer.ggml.token_type").ok().flatten().expect("token types");
    let mut writer = GgufWriter::new();
    let write = || -> kiln::Result<Vec<u8>> {
        writer.set("tokenizer.ggml.model", "t5")?;
        writer.set("tokenizer.ggml.tokens", texts)?;
        writer.set("tokenizer.ggml.scores", scores)?;
        writer.set("tokenizer.ggml.token_type", kinds)?;
        writer.set("tokenizer.ggml.unknown_token_id", 0u32)?;
        writer.set("tokenizer.ggml.add_space_prefix", true)?;
        let mut bytes = Vec::new();
        writer.write(&mut bytes)?;
        Ok(bytes)
    };
    Gguf::from_bytes(write().expect("writing to memory")).expect("what was just written")
}

/// Name and text; the first is the one that the others are compared with.
fn texts(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let english = match std::env::var_os("KILN_TEXT") {
        Some(path) => std::fs::read_to_string(path).expect("KILN_TEXT names a readable file of UTF-8"),
        None => drawn_words(&open(folder, "gpt-2")),
    };
    let mut random = Random(1);
    vec![
        ("English".into(), english.into_bytes()),
        ("one letter".into(), vec![b'a'; TEXT_BYTES]),
        ("spaces".into(), vec![b' '; TEXT_BYTES]),
        ("random bytes".into(), (0..TEXT_BYTES).map(|_| random.next() as u8).collect()),
    ]
}

/// Words that GPT-2 has tokens for, by Zipf's law, with an unknown ending now and then.
fn drawn_words(gpt2: &Gguf) -> String {
    let tokens = gpt2.metadata().strings("tokenizer.ggml.tokens").ok().flatten().expect("tokens");
    let word = |token: &[u8]| -> Option<String> {
        let letters = token.strip_prefix("Ġ".as_bytes())?;
        letters.iter().all(u8::is_ascii_alphabetic).then(|| String::from_utf8_lossy(letters).into_owned())
    };
    let words: Vec<String> = tokens.filter_map(word).filter(|word| !word.is_empty()).collect();
    let mut random = Random(7);
    let mut text = String::with_capacity(TEXT_BYTES + 100);
    while text.len() < TEXT_BYTES {
        // The logarithm of a Zipf-distributed rank is uniform.
        let rank = (words.len() as f64).powf(random.next() as f64 / f64::from(u32::MAX));
        text.push_str(&words[rank as usize % words.len()]);
        text.push_str(match random.next() % 40 {
            0..=2 => ", ",
            3..=4 => ". ",
            5 => "ably ",
            6 => "'s ",
            7 => ".\n\n",
            _ => " ",
        });
    }
    text.truncate(TEXT_BYTES);
    text
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }
}
