//! The tokenizer against ids, and texts, that llama.cpp computed for real vocabularies.
//!
//! These files are large and live outside the repository: `KILN_GOLDEN` names the folder that holds them.

use kiln::gguf::Gguf;
use kiln::tokenizer::{Encode, Tokenizer};
use serde_json::Value;
use std::path::{Path, PathBuf};

const VOCABULARIES: [&str; 7] = ["llama-spm", "phi-3", "llama-bpe", "gpt-2", "qwen2", "deepseek-llm", "bert-bge"];

fn golden_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("KILN_GOLDEN");
    if folder.is_none() {
        println!("skipped: KILN_GOLDEN is not set");
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
    let Some(folder) = golden_folder() else { return };
    for name in VOCABULARIES {
        let tokenizer = load(&folder.join(format!("{name}.gguf")));
        let texts = std::fs::read_to_string(folder.join(format!("{name}.gguf.inp"))).unwrap();
        let mut texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        assert_eq!(texts.pop(), Some(""), "nothing follows the last separator");
        let expected = std::fs::read_to_string(folder.join(format!("{name}.gguf.out"))).unwrap();
        let expected: Vec<Vec<u32>> =
            expected.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
        assert_eq!(texts.len(), expected.len(), "{name}");
        for (text, expected) in texts.iter().zip(&expected) {
            assert_eq!(&tokenizer.encode(text, Encode::default()), expected, "{name}: {text:?}");
        }
        println!("{name}: {} texts", texts.len());
    }
}

#[test]
fn random_strings_in_all_ways_of_encoding_and_back() {
    let Some(folder) = golden_folder() else { return };
    for name in VOCABULARIES {
        let tokenizer = load(&folder.join(format!("{name}.gguf")));
        let cases = std::fs::read_to_string(folder.join(format!("{name}.random.jsonl"))).unwrap();
        for line in cases.lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let text = case["text"].as_str().unwrap();
            let plain = tokenizer.encode(text, Encode::default());
            let special = tokenizer.encode(text, Encode::default().parse_special(true));
            let around = tokenizer.encode(text, Encode::default().parse_special(true).add_special(true));
            assert_eq!(plain, ids(&case["plain"]), "{name}, plain: {text:?}");
            assert_eq!(special, ids(&case["special"]), "{name}, special: {text:?}");
            assert_eq!(around, ids(&case["add_special"]), "{name}, add_special: {text:?}");
            let decoded = tokenizer.decode_bytes(&plain, true);
            match case["detokenized"].as_str() {
                Some(expected) => assert_eq!(String::from_utf8_lossy(&decoded), expected, "{name}: {text:?}"),
                None => assert_eq!(hex(&decoded), case["detokenized_hex"].as_str().unwrap(), "{name}: {text:?}"),
            }
        }
        println!("{name}: {} strings", cases.lines().count());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
