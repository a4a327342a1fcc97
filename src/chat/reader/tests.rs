//! What models write, whole and letter by letter, and what is read of it.

use super::*;
use serde_json::json;

const QWEN: Style = Style { thoughts: Some(THOUGHT_MARKS[0]), calls: Some(CallFormat::Tagged) };
const LLAMA: Style = Style { thoughts: None, calls: Some(CallFormat::Bare) };
const MISTRAL: Style = Style { thoughts: Some(THOUGHT_MARKS[1]), calls: Some(CallFormat::Mistral) };
const HARMONY: Style = Style { thoughts: None, calls: Some(CallFormat::Harmony) };

/// Neighbours of one kind become one.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut all: Vec<Piece> = vec![];
    for piece in pieces {
        match (all.last_mut(), &piece) {
            (Some(Piece::Text(text)), Piece::Text(more)) | (Some(Piece::Thought(text)), Piece::Thought(more)) => {
                text.push_str(more);
            }
            _ => all.push(piece),
        }
    }
    all
}

/// Reads a text, cut at every so many letters.
fn read_by(style: &Style, prompt: &str, text: &str, letters: usize) -> Vec<Piece> {
    let mut reader = Reader::new(style.clone(), prompt);
    let mut pieces = vec![];
    for part in text.chars().collect::<Vec<_>>().chunks(letters) {
        pieces.extend(reader.push(&part.iter().collect::<String>()));
    }
    pieces.extend(reader.finish());
    joined(pieces)
}

#[track_caller]
fn assert_reads(style: &Style, prompt: &str, text: &str, expected: &[Piece]) {
    for letters in [1, 2, 3, 7, usize::MAX] {
        assert_eq!(read_by(style, prompt, text, letters), expected, "{text:?} by {letters}");
    }
}

fn text(text: &str) -> Piece {
    Piece::Text(text.into())
}

fn thought(text: &str) -> Piece {
    Piece::Thought(text.into())
}

fn call(name: &str, arguments: serde_json::Value) -> Piece {
    call_with_id("", name, arguments)
}

fn call_with_id(id: &str, name: &str, arguments: serde_json::Value) -> Piece {
    Piece::Call(ToolCall::new(id, name, arguments.as_object().unwrap().clone()))
}

fn broken(text: &str, reason: &str) -> Piece {
    Piece::BrokenCall(BrokenCall { reason: reason.into(), text: text.into() })
}

#[test]
fn plain_text_goes_out_as_it_comes() {
    assert_reads(&Style::default(), "", "Hello, <b>world</b>! ", &[text("Hello, <b>world</b>! ")]);
    let mut reader = Reader::new(Style::default(), "");
    assert_eq!(reader.push("Hel"), [text("Hel")]);
    assert_eq!(reader.push("lo "), [text("lo ")]);
}

#[test]
fn thoughts_stand_apart() {
    let both = [thought("Hm, 2 < 3."), text("Yes.")];
    assert_reads(&QWEN, "", "<think>\nHm, 2 < 3.\n</think>\n\nYes.", &both);
    // The prompt has opened it already.
    assert_reads(&QWEN, "assistant\n<think>\n", "Hm, 2 < 3.\n</think>\n\nYes.", &both);
    assert_reads(&QWEN, "<think>\n\n</think>\n\n", "Yes.", &[text("Yes.")]);
    assert_reads(&QWEN, "", "<think>\n\n</think>\n\nYes.", &[text("Yes.")]);
    // In the middle of a text it is a text.
    assert_reads(&QWEN, "", "The mark <think> is one.", &[text("The mark <think> is one.")]);
    assert_reads(&QWEN, "", "<think>Never closed ", &[thought("Never closed")]);
    assert_reads(&QWEN, "", "<thinking>", &[text("<thinking>")]);
    assert_reads(&MISTRAL, "", "[THINK]a[/THINK]b", &[thought("a"), text("b")]);
}

#[test]
fn calls_in_tags() {
    let weather = || call("weather", json!({"place": "Zürich", "days": [1, 2]}));
    let written = r#"<tool_call>
{"name": "weather", "arguments": {"place": "Zürich", "days": [1, 2]}}
</tool_call>"#;
    assert_reads(&QWEN, "", written, &[weather()]);
    let with_text = format!("<think>\nLook.\n</think>\n\nOne moment.\n{written}\n{written}\n");
    assert_reads(&QWEN, "", &with_text, &[thought("Look."), text("One moment."), weather(), weather()]);
    // The mark of the end within a string is part of the string.
    let nasty = r#"<tool_call>{"name": "f", "arguments": {"a": "\"}</tool_call>"}}</tool_call>ok"#;
    assert_reads(&QWEN, "", nasty, &[call("f", json!({"a": "\"}</tool_call>"})), text("ok")]);
    let strings = r#"<tool_call>{"name": "f", "arguments": "{\"a\": 1}"}</tool_call>"#;
    assert_reads(&QWEN, "", strings, &[call("f", json!({"a": 1}))]);
    let tags = "<tool_call>\n<function=run>\n<parameter=code>\na = \"<b>\"\n\nb\n</parameter>\n<parameter=n>\n3\n</parameter>\n</function>\n</tool_call>";
    assert_reads(&QWEN, "", tags, &[call("run", json!({"code": "a = \"<b>\"\n\nb", "n": 3}))]);
    // The model ended without closing it.
    assert_reads(&QWEN, "", r#"<tool_call>{"name": "f"}"#, &[call("f", json!({}))]);
}

#[test]
fn calls_as_bare_json() {
    let one = r#"{"name": "add", "parameters": {"a": 1, "b": 2}}"#;
    let add = || call("add", json!({"a": 1, "b": 2}));
    assert_reads(&LLAMA, "", one, &[add()]);
    assert_reads(&LLAMA, "", &format!("<|python_tag|>{one}; {one}"), &[add(), add()]);
    assert_reads(&LLAMA, "", &format!("{one}\n{one}\n"), &[add(), add()]);
    let nested = r#"{"type": "function", "function": {"name": "add", "parameters": {"a": 1, "b": 2}}}"#;
    assert_reads(&LLAMA, "", nested, &[add()]);
    // An answer that is JSON, or holds some, is an answer.
    assert_reads(&LLAMA, "", r#"{"city": "Bern"} is it."#, &[text(r#"{"city": "Bern"} is it."#)]);
    assert_reads(&LLAMA, "", &format!("Like this: {one}"), &[text(&format!("Like this: {one}"))]);
    assert_reads(&LLAMA, "", "{ not JSON", &[text("{ not JSON")]);
}

#[test]
fn calls_of_mistral() {
    let list = r#"[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}, "id": "abcdefghi"}, {"name": "no"}]"#;
    assert_reads(&MISTRAL, "", list, &[call_with_id("abcdefghi", "add", json!({"a": 1})), call("no", json!({}))]);
    let named = r#"Wait.[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{"a": "x]"}[TOOL_CALLS]no[ARGS]{}"#;
    let expected = [text("Wait."), call_with_id("abcdefghi", "add", json!({"a": "x]"})), call("no", json!({}))];
    assert_reads(&MISTRAL, "", named, &expected);
}

#[test]
fn channels_of_harmony() {
    let answer = "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>final<|message|>Hi <you>.";
    assert_reads(&HARMONY, "<|start|>assistant", answer, &[thought("Think."), text("Hi <you>.")]);
    let weather = || call("weather", json!({"place": "Bern"}));
    for header in [
        "<|channel|>commentary to=functions.weather <|constrain|>json",
        " to=functions.weather<|channel|>commentary json",
    ] {
        let called = format!("{header}<|message|>{{\"place\": \"Bern\"}}");
        assert_reads(&HARMONY, "<|start|>assistant", &called, &[weather()]);
        let behind = format!("<|channel|>analysis<|message|>T<|end|><|start|>assistant{called}<|call|>");
        assert_reads(&HARMONY, "<|start|>assistant", &behind, &[thought("T"), weather()]);
    }
    let preamble = "<|channel|>commentary<|message|>I look.<|end|>";
    assert_reads(&HARMONY, "", preamble, &[text("I look.")]);
    assert_reads(&HARMONY, "", "Just text", &[text("Just text")]);
}

#[test]
fn broken_calls_are_text_and_a_warning() {
    let cut = r#"<tool_call>{"name": "f", "argu"#;
    let missing = "found the end, expected the rest of it";
    assert_reads(&QWEN, "", cut, &[text(cut), broken(cut, missing)]);
    let nameless = r#"<tool_call>{"arguments": {}}</tool_call>"#;
    let reason = "found no name, expected the name of a tool";
    assert_reads(
        &QWEN,
        "",
        &format!("a {nameless} b"),
        &[text(&format!("a{nameless}")), broken(nameless, reason), text("b")],
    );
    let list = r#"[TOOL_CALLS][{"name": "f", "arguments": 3}]"#;
    let reason = "found the arguments 3, expected an object";
    assert_reads(&MISTRAL, "", list, &[text(list), broken(list, reason)]);
    let code = "<|python_tag|>print(1)";
    assert_reads(&LLAMA, "", code, &[text(code), broken(code, "found code, expected JSON")]);
    let half = r#"{"name": "f", "parameters": {"#;
    assert_reads(&LLAMA, "", half, &[text(half), broken(half, missing)]);
    let body = "{oops";
    let found = read_by(&HARMONY, "", &format!("<|channel|>commentary to=functions.f<|message|>{body}"), 3);
    assert!(matches!(&found[..], [Piece::Text(text), Piece::BrokenCall(_)] if text == body), "{found:?}");
}

#[test]
fn whatever_comes_nothing_is_lost_and_nothing_panics() {
    let parts = [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        ":",
        "name",
        "a",
        " ",
        "\n",
        ";",
        "é",
        "<|channel|>",
        "<|message|>",
        "<|end|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<|python_tag|>",
        "<function=f>",
        "final",
        "to=",
        "</function>",
        "<",
    ];
    let mut state = 7u64;
    let mut pick = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most
    };
    for round in 0..5_000 {
        let written: String = (0..1 + pick(12)).map(|_| parts[pick(parts.len())]).collect();
        for style in [&QWEN, &LLAMA, &MISTRAL, &HARMONY, &Style::default()] {
            let whole = read_by(style, "", &written, usize::MAX);
            assert_eq!(read_by(style, "", &written, 1), whole, "{written:?} in round {round}");
        }
        // Without thoughts, calls and channels it is the text itself.
        assert_eq!(read_by(&Style::default(), "", &format!("a{written}"), 2), [text(&format!("a{written}"))]);
    }
}
