//! Plans tell the truth: the bytes that they name are the bytes that a device then holds, and they need no more of a file
//! than its header.

mod gguf_bytes;
mod gpu;
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use gguf_bytes::{Folder, Raw};
use gpu::open;
use kiln::backend::gpu::GpuOptions;
use kiln::gguf::{Gguf, TensorType};
use kiln::scheduler::{Fit, Plan, Site};
use kiln::{CacheFormat, Device, Generate, LoadOptions, Model, Offload, TensorClass};
use std::time::Instant;
use tiny::{Sizes, Tiny};

/// Some megabytes, so that what no plan counts is little against it.
fn medium(format: TensorType) -> Tiny {
    let layers = 4;
    let sizes = Sizes {
        width: 512,
        heads: vec![8; layers],
        kv_heads: vec![4; layers],
        head_size: 64,
        inner: vec![1536; layers],
    };
    Tiny::with_sizes("llama", sizes).store_matrices_as(format).tokenizer()
}

#[test]
fn planned_bytes_are_those_that_a_device_then_holds() {
    for (format, kept) in [
        (TensorType::Q4_0, CacheFormat::F16),
        (TensorType::F16, CacheFormat::Q8_0),
        (TensorType::Q8_0, CacheFormat::F32),
    ] {
        let bytes = medium(format).bytes();
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
                    "{format:?} {kept:?} {offload:?}: planned {planned}, measured {measured}: {:.4}",
                    planned / measured
                );
                assert!((planned / measured - 1.0).abs() < 0.03, "{measured} bytes:\n{}", model.plan());
            }
        }
    }
}

/// A model of 70B parameters in 16 bits, in so many files, of which only the headers are there.
fn write_giant(folder: &Folder, shards: usize) -> (std::path::PathBuf, u64) {
    let (layers, width, keys, inner, vocabulary) = (80_u64, 8192_u64, 1024_u64, 28_672_u64, 128_256_u64);
    let of_layer = |layer: u64| -> Vec<(String, Vec<u64>)> {
        [
            ("attn_norm", vec![width]),
            ("attn_q", vec![width, width]),
            ("attn_k", vec![width, keys]),
            ("attn_v", vec![width, keys]),
            ("attn_output", vec![width, width]),
            ("ffn_norm", vec![width]),
            ("ffn_gate", vec![width, inner]),
            ("ffn_up", vec![width, inner]),
            ("ffn_down", vec![inner, width]),
        ]
        .map(|(name, shape)| (format!("blk.{layer}.{name}.weight"), shape))
        .into()
    };
    let mut paths = vec![];
    let mut all = 0;
    for shard in 0..shards {
        let own = (0..layers).filter(|layer| *layer as usize % shards == shard);
        let mut tensors: Vec<_> = own.flat_map(of_layer).collect();
        if shard == 0 {
            tensors.push(("token_embd.weight".into(), vec![width, vocabulary]));
            tensors.push(("output.weight".into(), vec![width, vocabulary]));
            tensors.push(("output_norm.weight".into(), vec![width]));
        }
        let facts: &[(&str, u64)] = &[
            ("vocab_size", vocabulary),
            ("context_length", 131_072),
            ("embedding_length", width),
            ("block_count", layers),
            ("attention.head_count", 64),
            ("attention.head_count_kv", 8),
            ("feed_forward_length", inner),
        ];
        let keys = if shard == 0 { 6 + facts.len() as u64 } else { 2 };
        let mut raw =
            Raw::v3(tensors.len() as u64, keys).key_u16("split.no", shard as u16).key_u16("split.count", shards as u16);
        if shard == 0 {
            raw = raw.key("split.tensors.count", gguf_bytes::kind::I32).u32(layers as u32 * 9 + 3);
            raw = raw.key_string("general.architecture", "llama").key_string("tokenizer.ggml.model", "none");
            raw = raw.key("llama.attention.layer_norm_rms_epsilon", gguf_bytes::kind::F32).u32(1e-5_f32.to_bits());
            for (name, value) in facts {
                raw = raw.key(&format!("llama.{name}"), gguf_bytes::kind::U32).u32(*value as u32);
            }
        }
        let mut offset = 0;
        for (name, shape) in &tensors {
            let is_vector = shape.len() == 1;
            raw = raw.tensor(name, shape, if is_vector { 0 } else { 1 }, offset);
            let bytes = shape.iter().product::<u64>() * if is_vector { 4 } else { 2 };
            offset += bytes.next_multiple_of(32);
        }
        let raw = raw.pad(32);
        let path = folder.write(&format!("giant-{:05}-of-{shards:05}.gguf", shard + 1), &raw.bytes);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(raw.bytes.len() as u64 + offset).unwrap();
        all += offset;
        paths.push(path);
    }
    (paths.swap_remove(0), all)
}

#[test]
fn giants_are_planned_from_their_headers() {
    let folder = Folder::new("giant");
    let (path, bytes) = write_giant(&folder, 8);
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
