//! The tokenizer against ids, and texts, that llama.cpp computed.
//!
//! Small vocabularies of every algorithm lie in `tests/golden/tokenizers`. Seven real ones are too large for the
//! repository: `KILN_GOLDEN` names the folder that holds them.

use kiln::gguf::Gguf;
use kiln::tokenizer::{Encode, Tokenizer};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const SMALL: [&str; 7] =
    ["t5-small", "t5-plain-small", "rwkv-small", "gemma4-small", "whitespace-small", "rstrip-small", "lstrip-small"];
const REAL: [&str; 7] = ["llama-spm", "phi-3", "llama-bpe", "gpt-2", "qwen2", "deepseek-llm", "bert-bge"];

fn committed(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder)
}

fn large_set() -> Option<PathBuf> {
    let folder = std::env::var_os("KILN_GOLDEN");
    if folder.is_none() {
        say("skipped: KILN_GOLDEN is not set");
    }
    Some(PathBuf::from(folder?).join("tokenizers"))
}

fn load(path: &Path) -> Tokenizer {
    Tokenizer::load(Gguf::open(path).unwrap().metadata()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn the_references_own_test_strings() {
    let Some(folder) = large_set() else { return };
    for name in REAL {
        let tokenizer = load(&folder.join(format!("{name}.gguf")));
        let texts = fs::read_to_string(folder.join(format!("{name}.gguf.inp"))).unwrap();
        let mut texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        assert_eq!(texts.pop(), Some(""), "nothing follows the last separator");
        let expected = fs::read_to_string(folder.join(format!("{name}.gguf.out"))).unwrap();
        let expected: Vec<Vec<u32>> =
            expected.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
        assert_eq!(texts.len(), expected.len(), "{name}");
        for (text, expected) in texts.iter().zip(&expected) {
            assert_eq!(&tokenizer.encode(text, Encode::default()), expected, "{name}: {text:?}");
        }
        println!("{name}: {} texts", texts.len());
    }
}

/// Every case of a file: the ids in all three ways of encoding, and the text that the plain ids give.
fn check_cases(tokenizer: &Tokenizer, path: &Path) {
    let cases = fs::read_to_string(path).unwrap();
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = case["text"].as_str().unwrap();
        let plain = tokenizer.encode(text, Encode::default());
        let special = tokenizer.encode(text, Encode::default().parse_special(true));
        let around = tokenizer.encode(text, Encode::default().parse_special(true).add_special(true));
        let place = path.display();
        assert_eq!(plain, ids(&case["plain"]), "{place}, plain: {text:?}");
        assert_eq!(special, ids(&case["special"]), "{place}, special: {text:?}");
        assert_eq!(around, ids(&case["add_special"]), "{place}, add_special: {text:?}");
        let decoded = tokenizer.decode_bytes(&plain, true);
        match case["detokenized"].as_str() {
            Some(expected) => assert_eq!(String::from_utf8_lossy(&decoded), expected, "{place}: {text:?}"),
            None => assert_eq!(hex(&decoded), case["detokenized_hex"].as_str().unwrap(), "{place}: {text:?}"),
        }
    }
    println!("{}: {} strings", path.display(), cases.lines().count());
}

#[test]
fn random_strings_with_small_vocabularies_of_every_algorithm() {
    let folder = committed("tokenizers");
    for name in SMALL {
        check_cases(&load(&folder.join(format!("{name}.gguf"))), &folder.join(format!("{name}.jsonl")));
    }
}

#[test]
fn random_strings_with_real_vocabularies() {
    let Some(folder) = large_set() else { return };
    for name in REAL {
        check_cases(&load(&folder.join(format!("{name}.gguf"))), &folder.join(format!("{name}.random.jsonl")));
    }
}

#[test]
fn the_sample_texts_of_the_golden_models() {
    let mut folders = vec![committed("models")];
    folders.extend(large_set().map(|folder| folder.with_file_name("models")));
    let mut checked = 0;
    for folder in folders {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let model: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            let (sample, tokenizer) = (&model["tokenizer_sample"], load(&path.with_extension("gguf")));
            let text = sample["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, Encode::default()), ids(&sample["plain"]), "{}", path.display());
            let around = tokenizer.encode(text, Encode::default().add_special(true));
            assert_eq!(around, ids(&sample["add_special"]), "{}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 4, "only {checked} models found");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Prints where the test runner does not swallow it.
fn say(line: &str) {
    use std::io::Write;
    _ = writeln!(std::io::stderr(), "{line}");
}
