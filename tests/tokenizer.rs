//! What users of the tokenizer rely on, beyond equal ids: round trips, special tokens, streaming, clear errors, and
//! time that grows with the text and not with its square.

use kiln::gguf::{Gguf, GgufWriter};
use kiln::tokenizer::{Encode, StreamDecoder, Tokenizer, TokenizerOptions};
use proptest::prelude::*;
use std::path::Path;

fn committed(name: &str) -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    Tokenizer::load(Gguf::open(path).unwrap().metadata()).unwrap()
}

/// A file with nothing but metadata.
fn file(fill: impl FnOnce(&mut GgufWriter)) -> Gguf {
    let mut writer = GgufWriter::new();
    fill(&mut writer);
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    Gguf::from_bytes(bytes).unwrap()
}

/// Byte-level BPE over the printable ASCII characters, a few merges, and some special tokens.
fn small_bpe(writer: &mut GgufWriter, pre: Option<&str>) {
    let mut tokens: Vec<String> = (b'!'..=b'~').map(|byte| char::from(byte).to_string()).collect();
    tokens.extend(["Ġ", "Ċ", "he", "ll", "hell", "hello", "<|im_start|>", "<|im_end|>", "<tool>"].map(String::from));
    let kinds: Vec<i32> = tokens
        .iter()
        .map(|token| match &token[..] {
            "<|im_start|>" => 3,
            "<tool>" => 4,
            _ => 1,
        })
        .collect();
    writer.set("tokenizer.ggml.model", "gpt2").unwrap();
    writer.set("tokenizer.ggml.tokens", tokens).unwrap();
    writer.set("tokenizer.ggml.token_type", kinds).unwrap();
    writer.set("tokenizer.ggml.merges", ["h e", "l l", "he ll", "hell o"].map(String::from).to_vec()).unwrap();
    if let Some(pre) = pre {
        writer.set("tokenizer.ggml.pre", pre).unwrap();
    }
}

fn load_error(fill: impl FnOnce(&mut GgufWriter)) -> String {
    Tokenizer::load(file(fill).metadata()).unwrap_err().to_string()
}

#[track_caller]
fn assert_mentions(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn an_unknown_pre_tokenizer_is_named_with_the_way_out() {
    let gguf = file(|writer| small_bpe(writer, Some("brand-new")));
    let error = Tokenizer::load(gguf.metadata()).unwrap_err().to_string();
    assert_mentions(&error, &["tokenizer.ggml.pre", "brand-new", "TokenizerOptions::pre", "llama-bpe"]);
    let options = TokenizerOptions::default().pre("gpt-2");
    let tokenizer = Tokenizer::load_with(gguf.metadata(), &options).unwrap();
    assert_eq!(tokenizer.decode(&tokenizer.encode("hello", Encode::default())), "hello");
}

#[test]
fn broken_vocabularies_are_refused_by_key() {
    assert_mentions(&load_error(|_| ()), &["tokenizer.ggml.model", "nothing", "gpt2"]);
    let error = load_error(|writer| {
        writer.set("tokenizer.ggml.model", "plamo9").unwrap();
    });
    assert_mentions(&error, &["tokenizer.ggml.model", "plamo9", "rwkv"]);
    let error = load_error(|writer| {
        writer.set("tokenizer.ggml.model", "llama").unwrap();
    });
    assert_mentions(&error, &["tokenizer.ggml.tokens", "nothing"]);
    let error = load_error(|writer| {
        writer.set("tokenizer.ggml.model", "gpt2").unwrap();
        writer.set("tokenizer.ggml.tokens", vec!["a".to_owned()]).unwrap();
    });
    assert_mentions(&error, &["tokenizer.ggml.merges", "nothing"]);
    let error = load_error(|writer| {
        writer.set("tokenizer.ggml.model", "llama").unwrap();
        writer.set("tokenizer.ggml.tokens", vec!["a".to_owned(), "b".to_owned()]).unwrap();
        writer.set("tokenizer.ggml.scores", vec![1.0f32]).unwrap();
    });
    assert_mentions(&error, &["tokenizer.ggml.scores", "1 entries", "2 tokens"]);
    let error = load_error(|writer| {
        writer.set("tokenizer.ggml.model", "t5").unwrap();
        writer.set("tokenizer.ggml.tokens", vec!["a".to_owned()]).unwrap();
        writer.set("tokenizer.ggml.precompiled_charsmap", vec![255u8, 0, 0, 0, 7]).unwrap();
    });
    assert_mentions(&error, &["tokenizer.ggml.precompiled_charsmap", "5 bytes"]);
}

#[test]
fn control_tokens_are_recognised_only_on_request_and_user_defined_ones_always() {
    let tokenizer = Tokenizer::load(file(|writer| small_bpe(writer, Some("gpt-2"))).metadata()).unwrap();
    let text = "<|im_start|>hello<tool><|im_end|>";
    let id = |text| tokenizer.token(text).unwrap();
    let plain = tokenizer.encode(text, Encode::default());
    assert!(!plain.contains(&id("<|im_start|>")) && !plain.contains(&id("<|im_end|>")));
    assert!(plain.contains(&id("<tool>")));
    let parsed = tokenizer.encode(text, Encode::default().parse_special(true));
    assert_eq!(parsed, [id("<|im_start|>"), id("hello"), id("<tool>"), id("<|im_end|>")]);
    // What looks like the end of a turn ends a generation, and is hidden, whatever the file calls it.
    assert!(tokenizer.special().ends_generation(id("<|im_end|>")) && tokenizer.is_control(id("<|im_end|>")));
    assert_eq!(tokenizer.decode(&parsed), "hello<tool>");
    assert_eq!(tokenizer.decode_bytes(&parsed, true), text.as_bytes());
}

#[test]
fn special_ids_come_from_the_file_or_else_from_the_texts() {
    let gguf = file(|writer| {
        writer.set("tokenizer.ggml.model", "llama").unwrap();
        let tokens =
            ["<unk>", "<s>", "</s>", "a", "<PRE>", "<SUF>", "<MID>", "<|fim_pad|>", "<|eot_id|>", "<control_unused_1>"];
        writer.set("tokenizer.ggml.tokens", tokens.map(String::from).to_vec()).unwrap();
        writer.set("tokenizer.ggml.eos_token_id", 3u32).unwrap();
        writer.set("tokenizer.ggml.padding_token_id", 99u32).unwrap();
        writer.set("tokenizer.ggml.suffix_token_id", 3u32).unwrap();
        writer.set("tokenizer.ggml.suppress_tokens", vec![4i32, -1, 99, 5]).unwrap();
        writer.set("tokenizer.ggml.add_eos_token", true).unwrap();
    });
    let tokenizer = Tokenizer::load(gguf.metadata()).unwrap();
    let special = tokenizer.special();
    assert_eq!((special.bos, special.eos, special.unknown, special.padding), (Some(1), Some(3), Some(0), None));
    assert_eq!((special.fim_prefix, special.fim_suffix, special.fim_middle), (Some(4), Some(3), Some(6)));
    assert_eq!((special.eot, special.fim_padding), (Some(8), Some(7)));
    assert_eq!(special.end_of_generation, [2, 3, 7, 8]); // </s>, eos, fim_pad, eot
    assert_eq!(special.suppressed, [4, 5]);
    assert_eq!(tokenizer.encode("a", Encode::default().add_special(true)), [1, 0, 0, 0, 3, 3]); // the space mark's bytes are unknown
}

#[test]
fn scores_may_be_integers() {
    let gguf = file(|writer| {
        writer.set("tokenizer.ggml.model", "llama").unwrap();
        let tokens = ["<unk>", "<s>", "</s>", "a", "b", "c", "ab", "bc"].map(String::from).to_vec();
        writer.set("tokenizer.ggml.tokens", tokens).unwrap();
        writer.set("tokenizer.ggml.scores", vec![0i32, 0, 0, 0, 0, 0, -5, -1]).unwrap();
        writer.set("tokenizer.ggml.add_space_prefix", false).unwrap();
    });
    let tokenizer = Tokenizer::load(gguf.metadata()).unwrap();
    assert_eq!(tokenizer.encode("abc", Encode::default()), [3, 7]); // `bc` has the higher score
}

#[test]
fn bytes_that_are_no_text_survive_where_the_vocabulary_has_bytes() {
    let tokenizer = committed("models/llama.gguf");
    let bytes: Vec<u8> = (0..=255).rev().chain(0..=255).collect();
    let ids = tokenizer.encode_bytes(&bytes, Encode::default());
    assert_eq!(tokenizer.decode_bytes(&ids, true), bytes);
}

#[test]
fn hostile_texts_take_linear_time() {
    // With quadratic work any one of these would take hours.
    let texts =
        ["a", " ", "\n", "'", "7", "é", "中", "ab", " a", "\r\n ", "<|", "\u{301}"].map(|unit| unit.repeat(400_000));
    for name in [
        "models/llama.gguf",
        "models/qwen2.gguf",
        "models/bert.gguf",
        "tokenizers/t5-small.gguf",
        "tokenizers/rwkv-small.gguf",
        "tokenizers/gemma4-small.gguf",
    ] {
        let tokenizer = committed(name);
        for text in &texts {
            let ids = tokenizer.encode(text, Encode::default().parse_special(true));
            assert!(ids.len() <= text.len() + 1, "{name}");
        }
    }
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ a-zé中\\n'0-9<>|]{0,80}", "(he|ll|o| |\\PC){0,30}"]
}

proptest! {
    #[test]
    fn encoding_and_decoding_give_the_text_back(text in texts()) {
        // Vocabularies that hold every byte and clean nothing up.
        for name in ["models/llama.gguf", "models/qwen2.gguf", "tokenizers/rwkv-small.gguf"] {
            let tokenizer = committed(name);
            for special in [false, true] {
                let ids = tokenizer.encode(&text, Encode::default().add_special(special));
                prop_assert_eq!(&tokenizer.decode(&ids), &text, "{}", name);
            }
        }
    }

    #[test]
    fn a_stream_of_tokens_gives_the_same_text_as_all_at_once(text in texts()) {
        let tokenizer = committed("models/qwen2.gguf");
        let ids = tokenizer.encode(&text, Encode::default());
        let mut stream = StreamDecoder::default();
        let mut streamed: String = ids.iter().map(|&id| stream.push(tokenizer.piece(id))).collect();
        streamed.push_str(&stream.finish());
        prop_assert_eq!(streamed, text);
    }
}
