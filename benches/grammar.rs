//! What structured output costs: microseconds for each token, for the mask over the whole vocabulary and for taking the
//! token that was chosen.
//!
//! ```text
//! cargo bench --features grammar --bench grammar
//! cargo bench --features grammar --bench grammar -- --model llama-3.gguf
//! ```
//!
//! Of the file only the header is read. Without one, the vocabulary is made up: 128,256 tokens of byte-level BPE, as large
//! as that of Llama 3. Texts are made by chance of the tokens that each mask allows, marks that end something more often
//! than others; each text begins with a new matcher, so that nothing is known from the last one. `start` is what it costs
//! to make one.

use kiln::gguf::{Gguf, GgufWriter};
use kiln::grammar::{Grammar, Matcher, Vocabulary};
use kiln::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TEXTS: u64 = 12;
const MOST_TOKENS: usize = 200;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let file = match (arguments.next().as_deref(), arguments.next()) {
        (Some("--model"), Some(path)) => Gguf::open(path).expect("a model file"),
        (None, _) => made_up(),
        _ => panic!("usage: [--model FILE]"),
    };
    let tokenizer = Tokenizer::load(file.metadata()).expect("a tokenizer");
    let start = Instant::now();
    let vocabulary = Arc::new(Vocabulary::new(&tokenizer).expect("a vocabulary"));
    println!("{} tokens, made into a trie in {:.0} ms", tokenizer.token_count(), millis(start.elapsed()));
    println!("| grammar | tokens | median | mean | p99 | max | above 1 ms | start |");
    println!("|---|---|---|---|---|---|---|---|");
    for (group, grammars) in [("all schemas", schemas()), ("all others", others())] {
        let mut all = vec![];
        for (name, grammar) in grammars {
            let (mut times, mut starts) = (vec![], vec![]);
            for seed in 0..TEXTS {
                let start = Instant::now();
                let matcher = Matcher::new(&grammar, &vocabulary).expect("a grammar");
                starts.push(start.elapsed());
                walk(matcher, &tokenizer, seed, &mut times);
            }
            report(name, &mut times, &mut starts);
            all.extend(times);
        }
        report(group, &mut all, &mut []);
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One row: times in microseconds, the start in milliseconds, and how many tokens took longer than one.
fn report(name: &str, times: &mut [Duration], starts: &mut [Duration]) {
    times.sort();
    starts.sort();
    let micros = |time: Duration| format!("{:.0}", time.as_secs_f64() * 1e6);
    let at = |share: f64| micros(times[((times.len() - 1) as f64 * share) as usize]);
    let mean = micros(times.iter().sum::<Duration>() / times.len() as u32);
    let start = starts.get(starts.len() / 2).map_or(String::new(), |&start| format!("{:.2} ms", millis(start)));
    let slow = times.iter().filter(|time| millis(**time) > 1.0).count();
    println!("| {name} | {} | {} | {mean} | {} | {} | {slow} | {start} |", times.len(), at(0.5), at(0.99), at(1.0));
}

/// Follows a text that is made up on the way, and notes what each token took.
fn walk(mut matcher: Matcher, tokenizer: &Tokenizer, seed: u64, times: &mut Vec<Duration>) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below.max(1)
    };
    for _ in 0..MOST_TOKENS {
        let start = Instant::now();
        let Some(mask) = black_box(&mut matcher).mask().expect("a mask") else { return };
        let masked = start.elapsed();
        let mut allowed: Vec<u32> = mask.iter().filter(|&token| !tokenizer.is_control(token)).collect();
        if draw(4) == 0 {
            let is_mark =
                |token: &u32| [&b"\""[..], b",", b"}", b"]", b"\",", b"\"}"].contains(&tokenizer.piece(*token));
            let marks: Vec<u32> = allowed.iter().copied().filter(is_mark).collect();
            allowed = if marks.is_empty() { allowed } else { marks };
        }
        let Some(&token) = allowed.get(draw(allowed.len())) else { return };
        let start = Instant::now();
        matcher.accept(token).expect("a token of the mask");
        times.push(masked + start.elapsed());
    }
}

fn schemas() -> Vec<(&'static str, Grammar)> {
    let schema = |name: &'static str, schema: Value| (name, Grammar::json_schema(&schema).expect(name));
    let text = || json!({ "type": "string" });
    let person = json!({ "type": "object", "properties": { "name": text(), "age": { "type": "integer", "minimum": 0,
        "maximum": 150 }, "email": { "type": "string", "format": "email" } }, "required": ["name", "age"],
        "additionalProperties": false });
    let tool = |name: &str| {
        json!({ "type": "object", "properties": { "name": { "const": name }, "arguments": {
        "type": "object", "properties": { "query": text(), "limit": { "type": "integer" }, "exact": { "type": "boolean" } },
        "required": ["query"], "additionalProperties": false } }, "required": ["name", "arguments"],
        "additionalProperties": false })
    };
    let tools: Vec<Value> = (0..20).map(|i| tool(&format!("search_{i}"))).collect();
    let words: Vec<String> = (0..200).map(|i| format!("choice {i} of many")).collect();
    let fields: serde_json::Map<String, Value> = (0..60).map(|i| (format!("field_{i}"), text())).collect();
    vec![
        ("any JSON", Grammar::json()),
        schema("object of three", person.clone()),
        schema("array of objects", json!({ "type": "array", "items": person, "minItems": 1, "maxItems": 50 })),
        schema("20 tools", json!({ "anyOf": tools })),
        schema("60 optional fields", json!({ "type": "object", "properties": fields, "additionalProperties": false })),
        schema("open object", json!({ "type": "object", "properties": { "id": { "type": "integer" } } })),
        schema("enum of 200", json!({ "type": "array", "items": { "enum": words }, "minItems": 20 })),
        schema(
            "short strings",
            json!({ "type": "array", "items": { "type": "string", "minLength": 3, "maxLength": 40 } }),
        ),
        schema("long strings", json!({ "type": "array", "items": { "type": "string", "maxLength": 2000 } })),
        schema(
            "dates",
            json!({ "type": "array", "items": { "type": "string", "format": "date-time" }, "minItems": 10 }),
        ),
        schema("UUIDs", json!({ "type": "array", "items": { "type": "string", "format": "uuid" }, "minItems": 10 })),
        schema(
            "pattern",
            json!({ "type": "array", "items": { "type": "string", "pattern": "^[A-Z][a-z]+( [A-Z][a-z]+){1,3}$" },
            "minItems": 10 }),
        ),
        schema(
            "numbers",
            json!({ "type": "array", "items": { "type": "number", "minimum": -90, "maximum": 90 }, "minItems": 30 }),
        ),
        schema(
            "tree",
            json!({ "$defs": { "node": { "type": "object", "properties": { "label": text(), "children": {
            "type": "array", "items": { "$ref": "#/$defs/node" } } }, "required": ["label", "children"],
            "additionalProperties": false } }, "$ref": "#/$defs/node" }),
        ),
    ]
}

fn others() -> Vec<(&'static str, Grammar)> {
    vec![
        ("regex", Grammar::regex(r"(\w+ ){3,30}\.").expect("a regex")),
        (
            "Lark sums",
            Grammar::lark("start: atom (/[-+*\\/]/ atom)*\natom: /[0-9]+/ | \"(\" start \")\"").expect("sums"),
        ),
    ]
}

/// A vocabulary of 128,256 tokens that look like those of a byte-level BPE: syllables in words, with and without a blank
/// and a capital, numbers, marks, white space, and characters of three bytes.
fn made_up() -> Gguf {
    const COUNT: usize = 128_000;
    let mut pieces: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    pieces.extend((10..1000).map(|number| number.to_string().into_bytes()));
    pieces.extend((2..80).map(|count| vec![b' '; count]));
    pieces.extend((1..40).map(|count| [&b"\n"[..], &vec![b' '; count]].concat()));
    let marks = b"\"{}[]:,.;()<>=+-*/'!?_#$%&@|~^`\\";
    for &a in marks {
        pieces.extend(marks.iter().flat_map(|&b| [vec![a, b], vec![b' ', a, b], vec![a, b, b'\n']]));
    }
    pieces.extend((0x4E00..0x7000).step_by(2).filter_map(char::from_u32).map(|c| c.to_string().into_bytes()));
    let syllables: Vec<String> =
        "bcdfghklmnprstvw".chars().flat_map(|c| "aeiou".chars().map(move |vowel| format!("{c}{vowel}"))).collect();
    let ends = ["", "n", "s", "t", "r", "ing", "ed", "ly", "tion"];
    let words = (0_usize..).map(|i| {
        let (first, second, third) = (i % 80, i / 80 % 81, i / 6480 / 9 % 81);
        let more = |at: usize| at.checked_sub(1).and_then(|at| syllables.get(at)).map_or("", |syllable| &syllable[..]);
        format!("{}{}{}{}", syllables[first], more(second), more(third), ends[i / 6480 % 9])
    });
    let mut seen = std::collections::HashSet::new();
    for word in words.filter(|word| seen.insert(word.clone())) {
        let capital = word[..1].to_uppercase() + &word[1..];
        pieces.extend([format!(" {word}"), word, format!(" {capital}"), capital].map(String::into_bytes));
        if pieces.len() >= COUNT {
            break;
        }
    }
    pieces.truncate(COUNT);
    let mut tokens: Vec<String> =
        pieces.iter().map(|piece| piece.iter().map(|&byte| byte_level(byte)).collect()).collect();
    tokens.extend((0..256).map(|i| if i == 0 { "<|endoftext|>".into() } else { format!("<|reserved_{i}|>") }));
    let mut kinds = vec![1_i32; COUNT];
    kinds.resize(tokens.len(), 3);
    let mut writer = GgufWriter::new();
    let write = || -> kiln::Result<Vec<u8>> {
        writer.set("tokenizer.ggml.model", "gpt2")?;
        writer.set("tokenizer.ggml.pre", "llama-bpe")?;
        writer.set("tokenizer.ggml.tokens", tokens)?;
        writer.set("tokenizer.ggml.token_type", kinds)?;
        writer.set("tokenizer.ggml.merges", vec!["b a".to_owned()])?;
        writer.set("tokenizer.ggml.eos_token_id", COUNT as u32)?;
        let mut bytes = vec![];
        writer.write(&mut bytes)?;
        Ok(bytes)
    };
    Gguf::from_bytes(write().expect("writing to memory")).expect("what was just written")
}

/// The character that byte-level vocabularies write for a byte.
fn byte_level(byte: u8) -> char {
    let is_shown = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..);
    if is_shown(&byte) {
        return char::from(byte);
    }
    let hidden_before = (0..byte).filter(|byte| !is_shown(byte)).count() as u32;
    char::from_u32(256 + hidden_before).expect("a character")
}
