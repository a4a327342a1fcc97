//! The splitters against the reference: `golden/splits.jsonl` holds texts, and for each list of pre-tokenizer names the
//! lengths in bytes of the pieces that llama.cpp's own `unicode_regex_split` makes of each text.

use kiln::tokenizer::split::{Splitter, names};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;

const GOLDEN: &str = include_str!("golden/splits.jsonl");

fn pieces<'a>(pre: &str, text: &'a str) -> Vec<&'a str> {
    let mut pieces = Vec::new();
    Splitter::by_name(pre).expect(pre).splitter.split(text, &mut |piece| pieces.push(piece));
    pieces
}

/// The array of strings under `key`.
fn strings<'a>(line: &'a Value, key: &str) -> Vec<&'a str> {
    line[key].as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

#[test]
fn pieces_equal_the_reference() {
    let lines: Vec<Value> = GOLDEN.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (head, families) = lines.split_first().unwrap();
    let texts = strings(head, "texts");
    let mut seen = BTreeSet::new();
    for family in families {
        let expected = strings(family, "lengths");
        assert_eq!(expected.len(), texts.len());
        for pre in strings(family, "pre") {
            seen.insert(pre);
            for (text, expected) in texts.iter().zip(&expected) {
                let lengths: Vec<_> = pieces(pre, text).iter().map(|piece| piece.len().to_string()).collect();
                assert_eq!(lengths.join(" "), *expected, "{pre} on {text:?}: {:?}", pieces(pre, text));
            }
        }
    }
    assert_eq!(seen, names().collect(), "every name has its golden pieces");
}

/// Texts of what splitters care about, with any other character now and then.
fn text() -> impl Strategy<Value = String> {
    let tricky = prop::sample::select(vec![
        "a",
        "B",
        "é",
        "Ü",
        "s",
        "ll",
        "'",
        "'S",
        " ",
        "  ",
        "\n",
        "\r",
        "\t",
        "\u{3000}",
        "\u{85}",
        "1",
        "234",
        "٣",
        "½",
        "!",
        "/",
        "$",
        "…",
        "。",
        "\u{301}",
        "中",
        "\u{fa6e}",
        "한",
        "ㄅ",
        "か",
        "\0",
        "\u{378}",
        "😀",
        "IMGIMGAZ",
        "<sentinel:1>",
    ]);
    let part = prop_oneof![4 => tricky.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn pieces_tile_the_text(text in text()) {
        for pre in names() {
            let first = pieces(pre, &text);
            prop_assert!(first.iter().all(|piece| !piece.is_empty()), "{pre}: {first:?}");
            prop_assert_eq!(first.concat(), text.as_str(), "{}", pre);
            prop_assert_eq!(first, pieces(pre, &text), "{}", pre);
        }
    }
}
