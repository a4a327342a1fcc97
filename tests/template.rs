//! Chat templates: what the golden ones make of conversations, what Python would print, and templates that are wrong or hostile.
#![cfg(feature = "chat")]

use kiln::Error;
use kiln::template::{Now, Template};
use serde_json::{Value, json};
use std::path::Path;

fn now() -> Now {
    Now::parse("2026-01-15T12:34:56").unwrap()
}

fn render(source: &str, context: Value) -> Result<String, Error> {
    Template::new(source)?.render(&context, now())
}

#[track_caller]
fn assert_renders(source: &str, context: Value, expected: &str) {
    assert_eq!(render(source, context).unwrap(), expected, "{source}");
}

/// The golden templates with their cases, where they are.
fn golden() -> Vec<Value> {
    let Some(root) = std::env::var_os("KILN_GOLDEN") else { return vec![] };
    let files = std::fs::read_dir(Path::new(&root).join("templates")).unwrap();
    files.map(|file| serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap()).collect()
}

#[test]
fn golden_conversations_render_to_the_same_bytes() {
    for file in golden() {
        let template = Template::new(file["template"].as_str().unwrap()).unwrap();
        let now = Now::parse(file["now"].as_str().unwrap()).unwrap();
        for case in file["cases"].as_array().unwrap() {
            let name = format!("{}, {}", file["name"], case["name"]);
            let found = template.render(&case["context"], now);
            match (case["output"].as_str(), case["error"].as_str()) {
                (Some(expected), None) => assert_eq!(found.unwrap(), expected, "{name}"),
                (_, Some(reason)) => {
                    let error = found.unwrap_err().to_string();
                    assert!(error.contains(reason), "{name}: {error}");
                }
                _ => panic!("{name} has neither output nor error"),
            }
        }
    }
}

#[test]
fn values_print_as_in_python() {
    let context = json!({
        "yes": true, "nothing": null, "float": 1.0, "small": 1.5e-7, "large": 1e20, "int": 3,
        "list": ["it's", "a \"b\"", 2, [null]], "map": {"b": 1, "a": [false]},
    });
    let print = |source: &str, expected: &str| assert_renders(source, context.clone(), expected);
    print("{{ yes }} {{ nothing }} {{ missing }}|", "True None |");
    print("{{ float }} {{ small }} {{ large }} {{ int }}", "1.0 1.5e-07 1e+20 3");
    print("{{ list }}", r#"["it's", 'a "b"', 2, [None]]"#);
    print("{{ map }}", "{'b': 1, 'a': [False]}");
}

#[test]
fn json_is_written_as_python_writes_it() {
    let context = json!({"x": {"b": [1, 2.0, null, true], "a": "<é> \"q\"\n\u{1}", "e": [], "f": {}}});
    let print = |source: &str, expected: &str| assert_renders(source, context.clone(), expected);
    print("{{ x | tojson }}", r#"{"b": [1, 2.0, null, true], "a": "<é> \"q\"\n\u0001", "e": [], "f": {}}"#);
    print("{{ x.b | tojson(indent=2) }}", "[\n  1,\n  2.0,\n  null,\n  true\n]");
    print("{{ x.a | tojson(ensure_ascii=true) }}", r#""<\u00e9> \"q\"\n\u0001""#);
    print(
        "{{ x | tojson(sort_keys=true, separators=(',', ':')) }}",
        r#"{"a":"<é> \"q\"\n\u0001","b":[1,2.0,null,true],"e":[],"f":{}}"#,
    );
}

#[test]
fn strings_have_pythons_methods() {
    let context = json!({"s": "  Some text, some more  ", "d": {"k": "v"}});
    let print = |source: &str, expected: &str| assert_renders(source, context.clone(), expected);
    print(
        "{{ s.strip() }}|{{ s.lstrip() }}|{{ s.rstrip() }}",
        "Some text, some more|Some text, some more  |  Some text, some more",
    );
    print("{{ s.strip().split(', ')[-1].upper() }}", "SOME MORE");
    print("{{ s.startswith('  S') }} {{ s.endswith('x') }} {{ 'a-b'.replace('-', '+') }}", "True False a+b");
    print("{{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.y'.removesuffix('.y') }}", "x x");
    print("{% for k, v in d.items() %}{{ k }}={{ v }}{% endfor %} {{ d.get('none', 'other') }}", "k=v other");
}

#[test]
fn strings_have_pythons_rarer_methods() {
    let print = |source: &str, expected: &str| assert_renders(source, json!({}), expected);
    print("{{ 'a,b,c'.rsplit(',', 1) }} {{ 'a,b,c'.rsplit(',') }}", "['a,b', 'c'] ['a', 'b', 'c']");
    print("{{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }}", "('a', '-', 'b-c') ('a-b', '-', 'c')");
    print(
        "{{ 'Ab'.swapcase() }} {{ 'ab'.ljust(4) }}|{{ 'ab'.rjust(4, '.') }} {{ '-7'.zfill(4) }}",
        "aB ab  |..ab -007",
    );
    // Where the room is uneven, as Python has it.
    print("{{ 'ab'.center(5,'*') }} {{ 'abc'.center(6,'*') }} {{ 'abc'.center(4,'*') }}", "**ab* *abc** abc*");
    print("{{ 'one two_three, four' | wordcount }}", "3");
}

#[test]
fn lines_are_indented_as_in_jinja2() {
    let print = |source: &str, expected: &str| assert_renders(source, json!({}), expected);
    print("{{ '{\n' | indent(4, first=true) }}|", "    {\n|");
    print("{{ 'a\n\nb' | indent }}|{{ 'a\n\nb' | indent(2, true, true) }}|", "a\n\n    b|  a\n  \n  b|");
    print("{{ 'a\nb\n' | indent('--') }}|{{ 'x' | indent(width=3, first=True) }}|", "a\n--b\n|   x|");
}

#[test]
fn tests_are_those_of_jinja2() {
    let print = |source: &str, expected: &str| assert_renders(source, json!({"tools": null}), expected);
    // What is undefined is an empty sequence to Python's engine; what is none is none.
    print(
        "{{ none is iterable }} {{ missing is iterable }} {{ 3 is iterable }} {{ 'a' is iterable }}",
        "False True False True",
    );
    print("{% if tools is iterable and tools | length > 0 %}some{% else %}none{% endif %}", "none");
    print(
        "{{ {} is sequence }} {{ range(3) is iterable }} {{ true is number }} {{ true is integer }}",
        "True True True False",
    );
    print("{{ (1, 'a') }} {{ (1,) }} {{ {'b': 1} | dictsort }}", "(1, 'a') (1,) [('b', 1)]");
}

#[test]
fn templates_know_the_time_and_can_refuse() {
    assert_renders("{{ strftime_now('%d %b %Y') }}", json!({}), "15 Jan 2026");
    let error = render("a\n{{ raise_exception('no ' ~ role ~ ' here') }}", json!({"role": "tool"})).unwrap_err();
    assert!(matches!(&error, Error::Template { line: Some(2), reason } if reason == "no tool here"), "{error}");
    assert_eq!(error.to_string(), "chat template, line 2: no tool here");
}

#[test]
fn blocks_are_trimmed_and_marks_for_training_are_left_out() {
    assert_renders("a\n  {% if true %}\nb\n  {% endif %}\nc\n", json!({}), "a\nb\nc");
    assert_renders("{%- generation -%} x {%- endgeneration %}y{% generation %}z{% endgeneration %}", json!({}), "xyz");
    assert_renders(
        "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        json!({}),
        "013",
    );
}

#[test]
fn templates_that_are_wrong_are_named() {
    for (source, words) in [
        ("{% if %}", &["line 1"][..]),
        ("a\nb {{ x.y.z }}", &["line 2", "undefined"]),
        ("{{ 'a'.explode() }}", &["line 1", "explode"]),
        ("{% include '/etc/passwd' %}", &["line 1"]),
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", &["steps"]),
        ("{% for i in range(90000) %}{{ s }}{% endfor %}", &["output"]),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", &["line 1"]),
    ] {
        let error = render(source, json!({"s": "x".repeat(1000)})).unwrap_err().to_string();
        assert!(error.starts_with("chat template"), "{error}");
        for word in words {
            assert!(error.contains(word), "`{word}` is not in `{error}`");
        }
    }
    let long = Template::new(&" ".repeat(5 << 20)).unwrap_err().to_string();
    assert!(long.contains("5242880 bytes"), "{long}");
}

/// Changes of one kind or another to a template, by a number.
fn mutate(source: &str, seed: u64) -> String {
    let mut letters: Vec<char> = source.chars().collect();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03;
    let mut pick = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most.max(1)
    };
    const PIECES: [&str; 16] =
        ["{{", "}}", "{%", "%}", "{#", "'", "|", "[", "]", "(", ")", ".", "-", "0", "messages", "~"];
    for _ in 0..1 + pick(4) {
        let at = pick(letters.len());
        match pick(4) {
            0 => _ = letters.drain(at..(at + 1 + pick(12)).min(letters.len())),
            1 => _ = letters.splice(at..at, PIECES[pick(PIECES.len())].chars()).count(),
            2 => {
                let (from, count) = (pick(letters.len()), pick(40));
                let copied: Vec<char> = letters.iter().skip(from).take(count).copied().collect();
                _ = letters.splice(at..at, copied).count();
            }
            _ => {
                let other = pick(letters.len());
                letters.swap(at, other);
            }
        }
        if letters.is_empty() {
            break;
        }
    }
    letters.into_iter().collect()
}

#[test]
fn mutated_templates_end_in_text_or_an_error() {
    let own = json!({
        "name": "own",
        "template": "{%- for m in messages %}\n{{- '<|im_start|>' + m.role + '\\n' + m.content | trim + '<|im_end|>' }}\n{%- endfor %}\n{%- if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}",
        "cases": [{"context": {"messages": [{"role": "user", "content": " Hello "}], "add_generation_prompt": true}}],
    });
    let (files, count) = match golden() {
        files if files.is_empty() => (vec![own], 2_000),
        files => (files.into_iter().chain([own]).collect(), 100_000),
    };
    let mut rendered = 0;
    for seed in 0..count {
        let file = &files[seed as usize % files.len()];
        let cases = file["cases"].as_array().unwrap();
        let context = &cases[seed as usize / files.len() % cases.len()]["context"];
        let source = mutate(file["template"].as_str().unwrap(), seed);
        rendered += usize::from(Template::new(&source).is_ok_and(|template| template.render(context, now()).is_ok()));
    }
    println!("{rendered} of {count} still rendered");
    assert!(rendered > count as usize / 100);
}
