//! Imports go one way. Reads every `crate::` path in `src/` and fails on one that runs against the layers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the top down; a module may use those of the layers below its own, and itself.
const LAYERS: &[&[&str]] = &[
    &["lib"],
    &["chat", "embed"],
    &["session"],
    &["scheduler", "sampler", "grammar", "template"],
    &["tokenizer"],
    &["model", "backend"],
    &["cache"],
    &["program"],
    &["quant"],
    &["gguf"],
    &["options"],
    &["error"],
];

/// What every module may name from the crate's root.
const ROOT_NAMES: &[&str] = &["Result", "Error"];

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn source_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The source without comments and strings, so that prose and examples do not count.
fn code_only(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            code.push(c);
            c.len_utf8()
        };
        rest = &rest[skipped..];
    }
    code
}

/// The names that directly follow `crate::`, also those in braces.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    names.insert(name(group[start..i].trim()));
                    start = i + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn imports_go_only_downwards() {
    let mut files = Vec::new();
    source_files(Path::new("src"), &mut files);
    assert!(files.len() > 20, "the test must find the sources; it found {}", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix("src").unwrap().with_extension("");
        let module = relative.iter().next().unwrap().to_str().unwrap().to_owned();
        let Some(layer) = layer_of(&module) else {
            wrong.push(format!("{}: module `{module}` is in no layer", file.display()));
            continue;
        };
        for used in crate_paths(&code_only(&fs::read_to_string(&file).unwrap())) {
            let allowed = used == module
                || ROOT_NAMES.contains(&&used[..])
                || layer_of(&used).is_some_and(|used_layer| used_layer > layer);
            if !allowed {
                wrong.push(format!("{}: `{module}` may not use `crate::{used}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the layers:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_all_forms() {
    let code = r#"
        use crate::{Result, gguf::{Metadata, Value}, quant};
        fn f() -> crate::error::Error { crate :: never(); "crate::string" } // crate::comment
        /* crate::block */ use crate::
    "#;
    let names: Vec<String> = crate_paths(&code_only(code)).into_iter().collect();
    assert_eq!(names, ["Result", "error", "gguf", "quant"]);
}
