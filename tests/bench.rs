//! The bench example, run as a person or a script runs it.

#![cfg(feature = "gpu")]

mod example;

use example::{error, example, model};
use serde_json::Value;

const SMALL: [&str; 8] = ["--synthetic", "llama-260k:f32", "--pp", "8", "--tg", "4", "--reps", "2"];

fn bench(more: &[&str]) -> Option<std::process::Command> {
    example("bench", &[&SMALL[..], more].concat())
}

#[track_caller]
fn text(mut command: std::process::Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn json_has_the_fields_of_llama_bench_and_its_own() {
    let Some(command) = bench(&["--output", "json", "--threads", "2"]) else { return };
    let rows: Vec<Value> = serde_json::from_str(&text(command)).unwrap();
    assert_eq!(rows.len(), 2);
    let number = |row: &Value, name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name}: {row}"));
    for (row, [prompt, generated]) in rows.iter().zip([[8, 0], [0, 4]]) {
        let counts = ["n_prompt", "n_gen", "n_depth", "n_threads", "n_gpu_layers", "model_n_params"];
        let found = counts.map(|name| row[name].as_u64().unwrap());
        assert_eq!(found, [prompt, generated, 0, 2, 0, 260_032]);
        assert!(row["model_type"].as_str().unwrap().starts_with("llama 260K"), "{row}");
        for text in ["cpu_info", "backends", "model_filename", "test_time"] {
            assert!(!row[text].as_str().unwrap().is_empty(), "{text}");
        }
        let time = row["test_time"].as_str().unwrap();
        assert!(time.len() == 20 && time.starts_with("20") && time.ends_with('Z'), "{time}");
        // The averages are those of the samples.
        let samples = |name: &str| serde_json::from_value::<Vec<f64>>(row[name].clone()).unwrap();
        let (times, speeds) = (samples("samples_ns"), samples("samples_ts"));
        assert_eq!((times.len(), speeds.len()), (2, 2));
        assert!((number(row, "avg_ns") - (times[0] + times[1]) / 2.0).abs() <= 1.0);
        assert!((number(row, "avg_ts") - (speeds[0] + speeds[1]) / 2.0).abs() < 1e-6 * speeds[0]);
        let spread = (speeds[0] - speeds[1]).abs() / f64::sqrt(2.0);
        assert!((number(row, "stddev_ts") - spread).abs() <= 1e-6 * speeds[0]);
        assert!((speeds[0] - (prompt + generated) as f64 / times[0] * 1e9).abs() < 1e-6 * speeds[0]);
    }
    let (prompt, single) = (&rows[0], &rows[1]);
    assert!(prompt["gb_per_s"].is_null() && prompt["read_share"].is_null());
    let expected = number(single, "avg_ts") * number(single, "token_bytes") / 1e9;
    assert!((number(single, "gb_per_s") / expected - 1.0).abs() < 1e-6);
    let share = number(single, "gb_per_s") / number(single, "read_gb_per_s");
    assert!((number(single, "read_share") / share - 1.0).abs() < 1e-6);
}

/// A profile on the GPU that is least trouble to test on, if it is there.
fn profile(more: &[&str]) -> Option<std::process::Command> {
    let name = std::env::var("KILN_TEST_GPU").unwrap_or("llvmpipe".into());
    let name = name.split(',').next().unwrap_or_default().to_owned();
    let mut options = kiln::backend::gpu::GpuOptions::default();
    options.name = Some(name.clone());
    if let Err(error) = pollster::block_on(kiln::backend::gpu::Gpu::open(&options)) {
        println!("skipped: no GPU {name}: {error}");
        return None;
    }
    let device = format!("gpu:{name}");
    let model = ["--synthetic", "llama-260k:f32", "--reps", "1", "--profile", "--device", &device];
    example("bench", &[&model, more].concat())
}

#[test]
fn a_profile_says_where_a_gpu_spends_its_time() {
    let Some(command) = profile(&["--pp", "8", "--tg", "4", "--output", "json"]) else { return };
    let rows: Vec<Value> = serde_json::from_str(&text(command)).unwrap();
    assert_eq!(rows.len(), 2);
    for (row, [tokens, depth]) in rows.iter().zip([[8, 0], [1, 8]]) {
        for text in ["gpu_info", "backends", "gpu_type", "gpu_driver", "gpu_tiers"] {
            assert!(!row[text].as_str().unwrap().is_empty(), "{text}");
        }
        for number in ["gpu_binding_bytes", "gpu_buffer_bytes", "gpu_workgroup_bytes", "gpu_workgroup_threads"] {
            assert!(row[number].as_u64().unwrap() >= 256, "{number}: {row}");
        }
        assert!(row["gpu_subgroup_min"].as_u64().unwrap() <= row["gpu_subgroup_max"].as_u64().unwrap());
        let profile = &row["profile"];
        if row["gpu_timestamps"] == false {
            assert!(profile["error"].as_str().unwrap().contains("timestamps"), "{profile}");
            continue;
        }
        assert_eq!([&profile["n_tokens"], &profile["n_depth"]].map(|count| count.as_u64().unwrap()), [tokens, depth]);
        assert!(profile["step_ns"].as_f64().unwrap() > 0.0);
        let kernels = profile["kernels"].as_array().unwrap();
        let sum = |name: &str| kernels.iter().map(|kernel| kernel[name].as_f64().unwrap()).sum::<f64>();
        assert!((sum("ns") / profile["kernels_ns"].as_f64().unwrap() - 1.0).abs() < 1e-6);
        let products: Vec<&Value> = kernels.iter().filter(|kernel| !kernel["weights"].is_null()).collect();
        assert!(products.len() < kernels.len() && products.iter().all(|kernel| kernel["kernel"] != ""));
        // Of the last of five layers, only queries, keys and values are computed for tokens without logits.
        let (first, rest) = (128 * 64, 64 * 64 + 344 * 64 + 172 * 64);
        let expected = (5 * first + 4 * rest) * tokens + rest + 512 * 64;
        assert_eq!(sum("flops"), 2.0 * expected as f64);
        assert!(sum("weight_bytes") > 0.95 * 4.0 * 260_032.0, "{profile}");
    }
    let Some(command) = profile(&["--pp", "4", "--tg", "0"]) else { return };
    let said = text(command);
    let has_table =
        said.contains("| all ") && said.contains("One token behind 4: ") && said.contains("| F32 512 x 64, outputs |");
    assert!(has_table || said.contains("has no timestamps"), "{said}");
}

#[test]
fn a_profile_of_the_cpu_counts_the_bytes_that_a_token_reads() {
    let model = ["--synthetic", "llama-260k:q8_0", "--reps", "1", "--profile", "--device", "cpu"];
    let Some(command) = example("bench", &[&model[..], &["--pp", "8", "--tg", "4", "--output", "json"]].concat())
    else {
        return;
    };
    let rows: Vec<Value> = serde_json::from_str(&text(command)).unwrap();
    for (row, tokens) in rows.iter().zip([8, 1]) {
        let steps = row["profile"]["kernels"].as_array().unwrap();
        let bytes = |step: &Value| step["weight_bytes"].as_u64().unwrap();
        let embedded: u64 = steps.iter().filter(|step| step["kernel"] == "embed").map(bytes).sum();
        let all: u64 = steps.iter().map(bytes).sum();
        // However many tokens there are, matrices are read once.
        assert_eq!(all - embedded + embedded / tokens, row["token_bytes"].as_u64().unwrap(), "{row}");
        assert!(steps.iter().all(|step| step["gb_per_s"].is_null() == (bytes(step) == 0)));
    }
}

#[test]
fn a_profile_needs_a_device_and_a_place() {
    for (more, named) in
        [(&["--profile"][..], "--device cpu"), (&["--device", "gpu", "--profile", "--output", "csv"], "json")]
    {
        let Some(command) = bench(more) else { return };
        let said = error(command, 1);
        assert!(said.contains("--profile") && said.contains(named), "{said}");
    }
}

#[test]
fn tables_and_csv_have_a_row_a_test() {
    let lists = ["--pp", "8,0,16", "--tg", "4", "--depth", "0,40", "--reps", "1"];
    let with = |output: &str| {
        let source = ["--synthetic", "llama-260k:q4_k_m"];
        example("bench", &[&source[..], &lists, &["--output", output, "--no-pack"]].concat()).map(text)
    };
    let Some(table) = with("md") else { return };
    let tests = ["pp8", "pp16", "tg4", "pp8 @ d40", "pp16 @ d40", "tg4 @ d40"];
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2 + tests.len(), "{table}");
    let width = lines[0].chars().count();
    for (line, test) in lines[2..].iter().zip(tests) {
        assert!(line.contains(&format!(" {test} |")) && line.contains(" ± "), "{line}");
        assert!(line.chars().count() == width && line.matches('|').count() == 10, "{line}");
    }
    let Some(csv) = with("csv") else { return };
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line[1..line.len() - 1].split("\",\"").collect()).collect();
    assert_eq!(lines.len(), 1 + tests.len());
    let column = |name: &str| lines[0].iter().position(|found| *found == name).unwrap();
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{csv}");
    let (prompt, depth) = (column("n_prompt"), column("n_depth"));
    let found: Vec<[&str; 2]> = lines[1..].iter().map(|line| [line[prompt], line[depth]]).collect();
    assert_eq!(found, [["8", "0"], ["16", "0"], ["0", "0"], ["8", "40"], ["16", "40"], ["0", "40"]]);
    assert!(lines[1..].iter().all(|line| line[column("packed_bytes")] == "0"));
}

#[test]
fn a_model_that_is_written_runs_from_its_file() {
    let path = std::env::temp_dir().join(format!("kiln-bench-{}.gguf", std::process::id()));
    let path = path.to_str().unwrap();
    let arguments = ["--synthetic", "llama-260k:f32", "--write", path, "--pp", "0", "--tg", "0"];
    let Some(command) = example("bench", &arguments) else { return };
    assert_eq!(text(command), "", "no tests, no table");
    let arguments = ["--model", path, "--pp", "4", "--tg", "2", "--reps", "1", "--output", "json"];
    let rows: Vec<Value> = serde_json::from_str(&text(example("bench", &arguments).unwrap())).unwrap();
    assert_eq!(rows[0]["model_filename"].as_str(), Some(path));
    let arguments = ["--model", path, "--prompt", "w300 w301", "--max-tokens", "3"];
    let output = example("chat", &arguments).map(|mut command| command.output().unwrap());
    if let Some(output) = output {
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains("GB/s"), "{said}");
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn mistakes_are_named_and_show_the_usage() {
    let llama = model("llama.gguf");
    let mistakes: [(&[&str], &str); 8] = [
        (&[], "--synthetic"),
        (&["--model", &llama, "--synthetic", "llama-1b:q4_0"], "cannot be used with"),
        (&["--model", &llama, "--write", "x.gguf"], "--write"),
        (&["--synthetic", "llama-2b:q4_0"], "llama-8b"),
        (&["--synthetic", "llama-1b:q4"], "Q4_K_M"),
        (&["--model", &llama, "--reps", "0"], "--reps"),
        (&["--model", &llama, "--pp", "1,x"], "--pp"),
        (&["--model", &llama, "--output", "xml"], "csv"),
    ];
    for (arguments, named) in mistakes {
        let Some(command) = example("bench", arguments) else { return };
        let said = error(command, 2);
        assert!(said.contains(named) && said.contains("Usage: bench"), "{arguments:?}: {said}");
    }
    let Some(command) = bench(&["--ctx", "10", "--depth", "8"]) else { return };
    assert!(error(command, 1).contains("of at most 10"));
}
