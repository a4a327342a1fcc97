//! The inspect example, run as a person runs it. `cargo test` builds examples before it runs tests.

mod gguf_bytes;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use gguf_bytes::{Folder, everything};

/// The command; `None`, with a word about it, when only this test was built.
fn inspect() -> Option<Command> {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent()?.parent()?.join("examples").join(format!("inspect{}", std::env::consts::EXE_SUFFIX));
    if !path.exists() {
        say("skipped: the example is not built (cargo build --example inspect)");
        return None;
    }
    Some(Command::new(path))
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name)
}

#[track_caller]
fn text(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a line of the report has these words, whatever the space between them.
fn has_line(report: &str, words: &str) -> bool {
    report.lines().any(|line| line.split_whitespace().eq(words.split_whitespace()))
}

#[test]
fn text_report() {
    let Some(mut command) = inspect() else { return };
    let report = text(command.arg(golden("llama.gguf")).output().unwrap());
    for line in [
        "format GGUF version 3, little-endian, alignment 32",
        "architecture llama",
        "parameters 127.30 K",
        "bits per weight 32.00",
        "heads 4, 2 for keys and values",
        "rope base 10000, 32 dimensions",
        "F32 21 127.30 K 497.25 KiB 100.0 % 32.00",
        "tokens 320",
        "bos 1 <s>",
        "chat template none",
        "llama.vocab_size 320",
    ] {
        assert!(has_line(&report, line), "no {line:?} in\n{report}");
    }
    assert!(!report.contains("blk.0.attn_q.weight"));
    let report = text(command.arg("--tensors").output().unwrap());
    assert!(has_line(&report, "blk.0.attn_q.weight F32 64 × 128 32768 173440"), "{report}");
}

#[test]
fn json_report() {
    let Some(mut command) = inspect() else { return };
    let report = text(command.arg(golden("llama.gguf")).arg("--json").output().unwrap());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["architecture"], "llama");
    assert_eq!(report["file"]["bytes"], 518_272);
    assert_eq!(report["types"][0]["type"], "F32");
    assert_eq!(report["hyperparameters"]["attention.head_count_kv"], 2);
    assert_eq!(report["hyperparameters"]["attention.layer_norm_rms_epsilon"], 0.001);
    assert_eq!(report["vocabulary"]["special"]["eos"]["text"], "</s>");
    assert_eq!(report["chat_template"]["present"], false);
    assert_eq!(report["metadata"]["tokenizer.ggml.tokens"]["length"], 320);
    assert_eq!(report["tensors"].as_array().unwrap().len(), 21);
    let elements = report["tensors"].as_array().unwrap().iter().map(|tensor| tensor["parameters"].as_u64().unwrap());
    assert_eq!(report["parameters"], elements.sum::<u64>());
}

#[test]
fn odd_files_are_shown_too() {
    let folder = Folder::new("inspect");
    for (version, big) in [(1, false), (3, true)] {
        let path = folder.write("odd.gguf", &everything(version, big).bytes);
        let Some(mut command) = inspect() else { return };
        let report = text(command.arg(&path).arg("--tensors").output().unwrap());
        assert!(report.contains("32 × 0 × 4") && report.contains("scalar"), "{report}");
        let report = text(command.arg("--json").output().unwrap());
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["metadata"]["f32s"], serde_json::json!([0.5, "inf"]));
        assert_eq!(report["metadata"]["u64"], u64::MAX - 1);
    }
}

#[test]
fn what_goes_wrong_is_said_on_stderr() {
    let Some(mut command) = inspect() else { return };
    let output = command.arg("no-such-file.gguf").output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(message.starts_with("error: no-such-file.gguf: ") && output.stdout.is_empty(), "{message}");
    let Some(mut command) = inspect() else { return };
    assert_eq!(command.arg("--nonsense").output().unwrap().status.code(), Some(2));
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let Some(mut command) = inspect() else { return };
    let command = command.arg(golden("qwen2.gguf")).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Prints where the test runner does not swallow it.
fn say(line: &str) {
    use std::io::Write;
    _ = writeln!(std::io::stderr(), "{line}");
}
