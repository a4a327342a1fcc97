//! Runs examples as a person runs them. `cargo test` builds examples before it runs tests.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};

/// An example with arguments; `None`, with a word about it, when only the test was built.
pub fn example(name: &str, arguments: &[&str]) -> Option<Command> {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent()?.parent()?.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if !path.exists() {
        _ = writeln!(std::io::stderr(), "skipped: the example is not built (cargo build --example {name})");
        return None;
    }
    let mut command = Command::new(path);
    command.args(arguments);
    Some(command)
}

/// A model in the repository.
pub fn model(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name);
    path.to_str().unwrap().to_owned()
}

/// What it says as it fails with a code.
#[track_caller]
pub fn error(mut command: Command, code: i32) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.code() == Some(code) && stdout.is_empty(), "{command:?}: {status}\n{stderr}");
    stderr
}
