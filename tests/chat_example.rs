//! The example `chat` as scripts use it, and how it breaks lines for those who sit in front of it.
#![cfg(feature = "chat")]

mod example;
#[path = "../examples/chat/wrap.rs"]
mod wrap;

use example::{error, example, model};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// What it prints, when something is piped in.
fn piped(mut command: Command, text: &str) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const PLAIN: [&str; 4] = ["--device", "cpu", "--temp", "0"];

#[test]
fn a_prompt_gets_a_reply_from_the_model_in_the_box() {
    let Some(mut command) = example("chat", &PLAIN) else { return };
    let said = text(command.args(["--prompt", "What is 7 + 5?"]).output().unwrap());
    assert_eq!(said, "7 + 5 = 12.\n");
    let Some(command) = example("chat", &PLAIN) else { return };
    assert_eq!(text(piped(command, "What is 7 + 5?")), said);
    let Some(mut command) = example("chat", &PLAIN) else { return };
    assert_eq!(text(command.args(["--prompt", "What is 7 + 5?", "--max-tokens", "2"]).output().unwrap()), "7 +\n");
}

#[test]
fn events_are_lines_of_json() {
    let Some(mut command) = example("chat", &PLAIN) else { return };
    command.arg("--json");
    let lines = text(piped(command, "What is 7 + 5?"));
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (end, pieces) = events.split_last().unwrap();
    let said: String = pieces.iter().map(|event| event["text"].as_str().unwrap()).collect();
    assert!(pieces.iter().all(|event| event["event"] == "text") && said == "7 + 5 = 12.", "{lines}");
    assert_eq!((&end["event"], &end["finish"]), (&"end".into(), &"end".into()));
    assert_eq!(end["generated_tokens"].as_u64(), Some(pieces.len() as u64 + 1), "{lines}");

    let Some(mut command) = example("chat", &PLAIN) else { return };
    let long = "word ".repeat(3000);
    let output = command.args(["--json", "--when-full", "stop", "--prompt", &long]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let event: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(event["event"] == "error" && event["message"].as_str().unwrap().contains("context full"), "{event}");
}

#[test]
fn conversations_are_read_from_files_and_change_what_is_said() {
    let path = std::env::temp_dir().join(format!("kiln-chat-{}.json", std::process::id()));
    let messages = r#"[{"role": "user", "content": "My name is Tom."}, {"role": "assistant", "content": "Hi, Tom!"}]"#;
    std::fs::write(&path, messages).unwrap();
    let Some(mut command) = example("chat", &PLAIN) else { return };
    command.args(["--load", path.to_str().unwrap(), "--system", "Be kind.", "--prompt", "What is my name?"]);
    let said = text(command.output().unwrap());
    assert!(said.contains("Tom"), "{said}");
    std::fs::write(&path, "[{\"role\": \"king\"}]").unwrap();
    let Some(mut command) = example("chat", &PLAIN) else { return };
    command.args(["--load", path.to_str().unwrap(), "--prompt", "x"]);
    let said = error(command, 1);
    assert!(said.contains("king") && said.contains(path.to_str().unwrap()), "{said}");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_model_without_a_template_completes_text() {
    let model = model("llama.gguf");
    let start = ["--model", &model, "--prompt", "Once", "--max-tokens", "3"];
    let Some(mut command) = example("chat", &start) else { return };
    let completed = text(command.args(PLAIN).output().unwrap());
    let Some(mut command) = example("chat", &start) else { return };
    assert_eq!(text(command.args(PLAIN).arg("--raw").output().unwrap()), completed);
    let Some(mut command) = example("chat", &start) else { return };
    command.args(["--system", "Be kind."]);
    let said = error(command, 1);
    assert!(said.contains("no chat template") && said.contains("--template"), "{said}");
}

#[test]
fn mistakes_are_named() {
    for (arguments, code, words) in [
        (&["--model", "nope.gguf", "--prompt", "x"][..], 1, "nope.gguf"),
        (&["--raw"], 2, "--prompt"),
        (&["--think", "perhaps"], 2, "perhaps"),
        (&["--when-full", "never"], 2, "never"),
        (&["--template", "nope.jinja", "--prompt", "x"], 1, "nope.jinja"),
    ] {
        let Some(command) = example("chat", arguments) else { return };
        let said = error(command, code);
        assert!(said.contains(words), "{said}");
    }
    let Some(command) = example("chat", &PLAIN) else { return };
    let output = piped(command, " \n");
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("standard input"));
}

/// What a terminal shows of what is printed: moves to the left and wiped ends of lines are understood.
fn shown(printed: &str) -> Vec<String> {
    let (mut lines, mut column) = (vec![String::new()], 0);
    let mut rest = printed.chars().peekable();
    while let Some(c) = rest.next() {
        let line = lines.last_mut().unwrap();
        match c {
            '\n' => {
                lines.push(String::new());
                column = 0;
            }
            '\x1b' => {
                assert_eq!(rest.next(), Some('['));
                let mut number = String::new();
                while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                    number.push(digit);
                }
                match rest.next() {
                    Some('D') => column -= number.parse::<usize>().unwrap(),
                    Some('K') => *line = line.chars().take(column).collect(),
                    other => panic!("{other:?}"),
                }
            }
            c => {
                line.push(c);
                column += 1;
            }
        }
    }
    lines
}

#[test]
fn lines_break_between_words_however_the_text_comes() {
    let said = "The quick brown fox jumps over the lazy dog.\n\n  It is averyveryverylongword indeed, é and ünïcödé.";
    for letters in [1, 2, 5, 100] {
        for width in [10, 13, 24, 80] {
            let (mut wrap, mut out) = (wrap::Wrap::default(), vec![]);
            for part in said.chars().collect::<Vec<_>>().chunks(letters) {
                wrap.print(&mut out, &part.iter().collect::<String>(), width).unwrap();
            }
            wrap.finish(&mut out).unwrap();
            let lines = shown(&String::from_utf8(out).unwrap());
            assert!(lines.iter().all(|line| line.chars().count() < width), "{lines:?} in {width}");
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let found = words(&lines.join("\n"));
            if width >= 24 {
                assert_eq!(found, words(said), "{letters} letters in {width} columns");
            } else {
                assert_eq!(found.concat(), words(said).concat(), "{letters} letters in {width} columns");
            }
        }
    }
    // What steers terminals is not passed on.
    let mut out = vec![];
    wrap::Wrap::default().print(&mut out, "a\x1b[2Jb\u{7}", 80).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "a[2Jb");
}
