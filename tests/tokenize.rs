//! The tokenize example, run as a person runs it. `cargo test` builds examples before it runs tests.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The command with a small model; `None`, with a word about it, when only this test was built.
fn tokenize(arguments: &[&str]) -> Option<Command> {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent()?.parent()?.join("examples").join(format!("tokenize{}", std::env::consts::EXE_SUFFIX));
    if !path.exists() {
        _ = writeln!(std::io::stderr(), "skipped: the example is not built (cargo build --example tokenize)");
        return None;
    }
    let model = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/llama.gguf");
    let mut command = Command::new(path);
    command.arg("--model").arg(model).args(arguments);
    Some(command)
}

fn with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn text(output: Output) -> String {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn error(output: Output, code: i32) -> String {
    assert!(output.status.code() == Some(code) && output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_text_gives_ids_and_pieces_and_ids_give_the_text() {
    let Some(mut command) = tokenize(&["the fox", "--bos"]) else { return };
    let output = text(command.output().unwrap());
    let (ids, pieces) = output.split_once('\n').unwrap();
    assert!(ids.starts_with("1 "), "{output}");
    assert_eq!(ids.split(' ').count(), pieces.lines().count());
    assert!(pieces.lines().next().unwrap().contains("\"<s>\"  (control)"), "{output}");
    for separated in [ids.to_owned(), ids.replace(' ', ",")] {
        let mut command = tokenize(&["--decode", &separated]).unwrap();
        assert_eq!(text(command.output().unwrap()), "the fox\n");
    }
    let mut command = tokenize(&["--decode", ids, "--special"]).unwrap();
    assert_eq!(text(command.output().unwrap()), "<s> the fox\n");
}

#[test]
fn files_and_lines_are_read_whole() {
    let Some(command) = tokenize(&["--file", "-"]) else { return };
    let ids = text(with_input(command, b"the fox"));
    let mut command = tokenize(&["the fox"]).unwrap();
    assert!(text(command.output().unwrap()).starts_with(&ids));

    let output = text(with_input(tokenize(&["--jsonl", "-"]).unwrap(), b"\"the fox\"\n\"\"\n\"a\\nb\"\n"));
    let lines: Vec<Vec<u32>> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    let first: Vec<String> = lines[0].iter().map(u32::to_string).collect();
    assert_eq!(first.join(" "), ids.trim_end());
    assert!(lines[1].is_empty() && !lines[2].is_empty());
}

#[test]
fn mistakes_are_named() {
    let Some(mut command) = tokenize(&[]) else { return };
    assert!(error(command.output().unwrap(), 2).contains("Usage"));
    let mut command = tokenize(&["--decode", "1 2x"]).unwrap();
    assert!(error(command.output().unwrap(), 2).contains("`2x` is not a token id"));
    let mut command = tokenize(&["--decode", "1 999999"]).unwrap();
    assert!(error(command.output().unwrap(), 1).contains("token id 999999 is outside the vocabulary of 320 tokens"));
    let mut command = tokenize(&["--file", "no/such/file"]).unwrap();
    assert!(error(command.output().unwrap(), 1).contains("no/such/file"));
    let output = with_input(tokenize(&["--jsonl", "-"]).unwrap(), b"\"fine\"\nnot json\n");
    assert!(String::from_utf8(output.stderr).unwrap().contains("line 2: not a JSON string"));
}
