//! Plans tell the truth: the bytes that they name are the bytes that a device then holds, and they need no more of a file
//! than its header.

#![cfg(feature = "gpu")]

mod gguf_bytes;
mod gpu;
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use gguf_bytes::Folder;
use gguf_bytes::hollow::Hollow;
use gpu::open;
use kiln::backend::gpu::GpuOptions;
use kiln::gguf::{Gguf, TensorType};
use kiln::scheduler::{Fit, Plan, Site};
use kiln::{CacheFormat, Device, Generate, LoadOptions, Model, Offload, TensorClass};
use std::time::Instant;
use tiny::{Sizes, Tiny};

fn medium(format: TensorType) -> Tiny {
    medium_of("llama", format)
}

/// Some megabytes, so that what no plan counts is little against it.
fn medium_of(architecture: &str, format: TensorType) -> Tiny {
    let layers = 4;
    let sizes = Sizes {
        width: 512,
        heads: vec![8; layers],
        kv_heads: vec![4; layers],
        head_size: 64,
        inner: vec![1536; layers],
    };
    Tiny::with_sizes(architecture, sizes).store_matrices_as(format).tokenizer()
}

#[test]
fn planned_bytes_are_those_that_a_device_then_holds() {
    for (architecture, format, kept) in [
        ("llama", TensorType::Q4_0, CacheFormat::F16),
        ("llama", TensorType::F16, CacheFormat::Q8_0),
        ("llama", TensorType::Q8_0, CacheFormat::F32),
        ("gpt-oss", TensorType::Q8_0, CacheFormat::F16),
        ("deepseek2", TensorType::F16, CacheFormat::F32),
    ] {
        let bytes = medium_of(architecture, format).bytes();
        for offload in [Offload::All, Offload::Layers(2)] {
            for gpu in open(&GpuOptions::default()) {
                let held = || gpu.device().generate_allocator_report().unwrap().total_allocated_bytes;
                let before = held();
                let options = LoadOptions::new().context(2048).cache_format(kept).offload(offload.clone()).threads(2);
                let file = Gguf::from_bytes(bytes.clone()).unwrap();
                let model = Model::load_on(file, &options, std::slice::from_ref(&gpu)).unwrap();
                let how = Generate::new().greedy().ignore_end(true).max_tokens(4);
                model.session().generate_tokens(&[1; 40], how).unwrap().text().unwrap();
                let (planned, measured) = (model.plan().parts[0].bytes() as f64, (held() - before) as f64);
                println!(
                    "{architecture} {format:?} {kept:?} {offload:?}: planned {planned}, measured {measured}: {:.4}",
                    planned / measured
                );
                assert!((planned / measured - 1.0).abs() < 0.03, "{measured} bytes:\n{}", model.plan());
            }
        }
    }
}

#[test]
fn giants_are_planned_from_their_headers() {
    let folder = Folder::new("giant");
    // 70B parameters in 16 bits.
    let giant = Hollow {
        layers: 80,
        width: 8192,
        heads: 64,
        kv_heads: 8,
        inner: 28_672,
        vocabulary: 128_256,
        context: 131_072,
        format: TensorType::F16,
    };
    let (path, bytes) = giant.write(&folder, 8);
    assert!(bytes > 100_000_000_000);
    for (options, parts) in [
        (LoadOptions::new().device(Device::Cpu), 1),
        (LoadOptions::new().device(Device::Gpu(None)), 2),
        (LoadOptions::new().device(Device::Gpu(None)).offload(Offload::Layers(3)).on_cpu(TensorClass::FeedForward), 2),
    ] {
        let start = Instant::now();
        let plan = match options.plan(&path) {
            Err(kiln::Error::Gpu { subject, .. }) if subject == "adapter" => {
                println!("skipped: there is no GPU");
                continue;
            }
            plan => plan.unwrap(),
        };
        println!("{:.1} ms:\n{plan}", start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(plan.parts.len(), parts, "{plan}");
        let weights: u64 = plan.parts.iter().map(|part| part.weight_bytes).sum();
        assert!((weights as f64 / bytes as f64 - 1.0).abs() < 0.03, "{weights} of {bytes}:\n{plan}");
    }
}

fn plan(tiny: &Tiny, options: &LoadOptions, free_bytes: &[u64]) -> Plan {
    let gpu = |(index, &free_bytes): (usize, &u64)| {
        let traits = kiln::backend::gpu::Traits { binding_bytes: 128 << 20, integers: true };
        Site { name: format!("GPU {index}"), traits, free_bytes, most_layers: usize::MAX }
    };
    let sites = free_bytes.iter().enumerate().map(gpu).collect();
    Fit::new(&tiny.file(), options, sites).unwrap().plan(options).unwrap()
}

/// What is said of each device: its name and what it gets.
fn words(plan: &Plan) -> Vec<String> {
    plan.parts.iter().map(|part| format!("{}: {}", part.device, part.what)).collect()
}

#[test]
fn layers_go_where_they_fit() {
    let tiny = medium(TensorType::F16).set("context_length", 512);
    let options = LoadOptions::new().offload(Offload::Auto { reserve_bytes: 0 });
    let all = plan(&tiny, &options, &[u64::MAX]);
    assert_eq!(words(&all), ["GPU 0: embedding, layers 0 to 3, head"]);
    let bytes = all.parts[0].bytes();
    assert_eq!(words(&plan(&tiny, &options, &[bytes])), words(&all));
    assert_eq!(words(&plan(&tiny, &options, &[0])), ["CPU: embedding, layers 0 to 3, head"]);
    // The reserve is left free.
    let reserved = LoadOptions::new().offload(Offload::Auto { reserve_bytes: 1 });
    assert_eq!(words(&plan(&tiny, &reserved, &[bytes])), ["GPU 0: layers 0 to 3", "CPU: embedding, head"]);
    let mut seen = vec![];
    for free_bytes in (0..=bytes).step_by((bytes / 40) as usize) {
        let plan = plan(&tiny, &options, &[free_bytes]);
        plan.parts.iter().filter(|part| part.free_bytes.is_some()).for_each(|part| assert!(part.bytes() <= free_bytes));
        if seen.last() != Some(&plan.gpu_layers) {
            seen.push(plan.gpu_layers);
        }
    }
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    // The larger GPU comes first, and the rest goes on.
    assert_eq!(
        words(&plan(&tiny, &options, &[bytes / 2, bytes * 2 / 3])),
        ["GPU 0: layer 3, head", "GPU 1: embedding, layers 0 to 2"]
    );
    assert_eq!(words(&plan(&tiny, &options, &[bytes / 2, bytes])), ["GPU 1: embedding, layers 0 to 3, head"]);
}

#[test]
fn contexts_become_smaller_before_layers_move() {
    let tiny = medium(TensorType::F16).set("context_length", 65_536);
    let options = LoadOptions::new().offload(Offload::Auto { reserve_bytes: 0 });
    let whole = plan(&tiny, &options, &[u64::MAX]);
    assert_eq!((whole.context_tokens, whole.gpu_layers, whole.reasons.len()), (65_536, 4, 0));
    let bytes = whole.parts[0].bytes();
    let less = plan(&tiny, &options, &[bytes - whole.parts[0].cache_bytes / 2]);
    assert_eq!((less.context_tokens, less.gpu_layers), (32_768, 4), "{less}");
    assert!(less.to_string().contains("not the 65536"), "{less}");
    // Down to a point.
    let least = plan(&tiny, &options, &[bytes - whole.parts[0].cache_bytes]);
    assert_eq!(least.context_tokens, 4096, "{least}");
    assert!(least.gpu_layers < 4, "{least}");
    // Who asks for a context gets it.
    let asked = plan(&tiny, &options.clone().context(65_536), &[bytes - whole.parts[0].cache_bytes / 2]);
    assert_eq!(asked.context_tokens, 65_536);
    assert!(asked.gpu_layers < 4, "{asked}");
}
