//! The flags that examples share mean the same in all of them, and mistakes are refused with the usage.

mod example;

use example::{error, example, model as model_path};

/// The examples, each with the arguments that it cannot do without.
fn commands() -> Vec<(&'static str, Vec<String>)> {
    let out = std::env::temp_dir().join(format!("kiln-flags-{}.f32", std::process::id()));
    let model = ["--model".to_owned(), model_path("llama.gguf")];
    let with = |more: &[&str]| model.iter().cloned().chain(more.iter().map(|&s| s.to_owned())).collect();
    vec![
        ("chat", with(&["--prompt", "the fox", "--max-tokens", "2"])),
        ("logits", with(&["--tokens", "1 2 3", "--out", out.to_str().unwrap()])),
        ("embed", vec!["--model".into(), model_path("bert.gguf"), "the fox".into()]),
        ("bench", with(&["--pp", "3", "--tg", "2", "--reps", "1"])),
    ]
}

fn with(name: &str, arguments: &[String], more: &[&str]) -> Option<std::process::Command> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
    example(name, &arguments)
}

#[test]
fn what_this_build_can_do_is_accepted() {
    for (name, arguments) in commands() {
        let accepted = ["--device", "cpu", "--gpu-layers", "0", "--threads", "2", "--ctx", "64", "--cpu-experts"];
        let Some(mut command) = with(name, &arguments, &accepted) else { return };
        let output = command.output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        let Some(mut command) = with(name, &arguments, &["--device", "auto", "--gpu-layers", "auto"]) else { return };
        assert!(command.output().unwrap().status.success());
    }
}

#[test]
fn what_cannot_be_had_is_refused_in_words() {
    let refusals = [
        ("--device gpu:no-such-adapter", "no-such-adapter"),
        ("--device cpu --gpu-layers all", "--gpu-layers all"),
        ("--device gpu --gpu-layers 0", "--gpu-layers 0"),
        ("--device cpu --gpu-layers 3", "--gpu-layers 3"),
    ];
    for (name, arguments) in commands() {
        for (asked, named) in refusals {
            let more: Vec<&str> = asked.split(' ').collect();
            let Some(command) = with(name, &arguments, &more) else { return };
            let said = error(command, 1);
            assert!(said.contains(named) && said.contains("expected"), "{name} {asked}: {said}");
        }
    }
}

#[test]
fn unknown_flags_and_bad_values_show_the_usage() {
    let mistakes = [
        ("--threads 0", "--threads"),
        ("--threads many", "many"),
        ("--ctx 0", "--ctx"),
        ("--ctx -1", "-1"),
        ("--device tpu", "gpu:NAME"),
        ("--device gpu:", "gpu:NAME"),
        ("--gpu-layers some", "all or auto"),
        ("--frobnicate", "--frobnicate"),
    ];
    for (name, arguments) in commands() {
        for (mistake, named) in mistakes {
            let more: Vec<&str> = mistake.split(' ').collect();
            let Some(command) = with(name, &arguments, &more) else { return };
            let said = error(command, 2);
            assert!(said.contains(named) && said.contains(&format!("Usage: {name}")), "{name} {mistake}: {said}");
        }
        // Without any, chat has a model of its own and asks what to say.
        if name != "chat" {
            let Some(command) = example(name, &[]) else { return };
            assert!(error(command, 2).contains("Usage"), "{name}");
        }
    }
}

#[test]
fn only_encoders_have_vectors_to_pool() {
    let (name, arguments) = commands().remove(1);
    for pool in ["mean", "cls", "last"] {
        let Some(command) = with(name, &arguments, &["--pool", pool]) else { return };
        let said = error(command, 1);
        assert!(said.contains(&format!("--pool {pool}")) && said.contains("`llama`"), "{said}");
    }
    let Some(mut command) = with(name, &arguments, &["--pool", "none", "--kv", "q8_0", "--batch", "2"]) else { return };
    assert!(command.output().unwrap().status.success());
    let Some(command) = with(name, &arguments, &["--pool", "median"]) else { return };
    assert!(error(command, 2).contains("mean"));
}
