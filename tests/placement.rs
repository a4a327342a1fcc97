//! Models spread over devices: wherever a model is cut, it computes what it computes in one place.
//!
//! Golden models of the repository, those of the large set where `KILN_GOLDEN` names its folder, and quantized weights.

#![cfg(feature = "gpu")]

mod gpu;
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use gpu::{floats, nmse};
use kiln::backend::batch::Batch;
use kiln::backend::gpu::{Gpu, GpuOptions};
use kiln::gguf::{Gguf, TensorType};
use kiln::model::{self, ProgramOptions};
use kiln::program::Program;
use kiln::scheduler::{Engine, Fit, Site};
use kiln::{CacheFormat, Device, Generate, LoadOptions, Model, Offload, TensorClass};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tiny::{Sizes, Tiny};

/// The software devices of the machine, each in its fastest tier, as two GPUs.
fn gpus() -> Vec<Gpu> {
    let names = std::env::var("KILN_TEST_GPU").unwrap_or("llvmpipe,SwiftShader".into());
    let open = |name: &str| {
        let mut options = GpuOptions::default();
        options.name = Some(name.into());
        pollster::block_on(Gpu::open(&options)).inspect_err(|error| println!("skipped: no GPU {name}: {error}")).ok()
    };
    names.split(',').filter_map(open).collect()
}

struct World {
    name: String,
    file: Arc<Gguf>,
    program: Program,
    context: u32,
    tokens: Vec<u32>,
    /// Those that follow, as far as they are known.
    greedy: Vec<u32>,
    expected: Vec<f32>, // [tokens, vocabulary]
    most_error: f64,
}

/// Tokens that there is room for behind those of the file.
const MOST_FOLLOWING: usize = 16;

impl World {
    fn golden(folder: &Path, name: &str) -> World {
        let text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let facts: Value = serde_json::from_str(&text).unwrap();
        let ids = |value: &Value| -> Vec<u32> {
            value.as_array().into_iter().flatten().filter_map(Value::as_u64).map(|id| id as u32).collect()
        };
        let file = Arc::new(Gguf::open(folder.join(format!("{name}.gguf"))).unwrap());
        let context = facts["n_ctx"].as_u64().unwrap_or(512) as u32;
        let program = model::program(&file, ProgramOptions { context: context as usize }).unwrap();
        let mut greedy = ids(&facts["greedy"]["tokens"]);
        greedy.truncate(MOST_FOLLOWING);
        assert!(!greedy.is_empty(), "{name}: nothing follows");
        let expected = floats(&fs::read(folder.join(format!("{name}.logits.f32"))).unwrap());
        World {
            name: name.into(),
            file,
            program,
            context,
            tokens: ids(&facts["tokens"]),
            greedy,
            expected,
            most_error: 1e-8,
        }
    }

    /// A random model, whose truth is what the CPU computes.
    fn random(tiny: &Tiny, count: u32, most_error: f64) -> World {
        let (file, context) = (tiny.file(), 512);
        let program = model::program(&file, ProgramOptions { context: 512 }).unwrap();
        let tokens: Vec<u32> =
            (0..count).map(|i: u32| i.wrapping_mul(2_654_435_761) % Sizes::VOCABULARY as u32).collect();
        let name = tiny.architecture.clone();
        let mut world = World { name, file, program, context, tokens, greedy: vec![], expected: vec![], most_error };
        let engine = world.load(&LoadOptions::new().device(Device::Cpu), &[]);
        world.expected = world.logits(&engine, count as usize);
        world
    }

    fn load(&self, options: &LoadOptions, gpus: &[Gpu]) -> Engine {
        let options = options.clone().cache_format(CacheFormat::F32).threads(2).context(self.context);
        let fit = Fit::new(&self.file, &options, gpus.iter().map(|gpu| Site::of(gpu).unwrap()).collect()).unwrap();
        let engine = Engine::new(&self.file, fit, &options, gpus);
        engine.unwrap_or_else(|error| panic!("{}, {options:?}: {error}", self.name))
    }

    /// The logits of all tokens, so many at a time.
    fn logits(&self, engine: &Engine, chunk: usize) -> Vec<f32> {
        let mut sequence = engine.cache().sequence();
        let mut logits = vec![];
        for tokens in self.tokens.chunks(chunk) {
            let outputs: Vec<usize> = (0..tokens.len()).collect();
            logits.extend(engine.run(Batch { tokens, outputs: &outputs, texts: &[] }, &mut sequence).unwrap());
        }
        logits
    }

    /// The tokens that follow, each the likeliest. The prompt's chunks but for the last want no logits.
    fn follow(&self, engine: &Engine) -> Vec<u32> {
        let mut sequence = engine.cache().sequence();
        let (first, last) = self.tokens.split_at(self.tokens.len() / 2);
        engine.run(Batch { tokens: first, outputs: &[], texts: &[] }, &mut sequence).unwrap();
        let (mut fresh, mut found) = (last.to_vec(), vec![]);
        for _ in &self.greedy {
            let logits =
                engine.run(Batch { tokens: &fresh, outputs: &[fresh.len() - 1], texts: &[] }, &mut sequence).unwrap();
            let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap().0 as u32;
            found.push(best);
            fresh = vec![best];
        }
        found
    }

    /// Runs the model with some options, and compares.
    fn check(&self, options: &LoadOptions, gpus: &[Gpu], parts: usize) {
        let engine = self.load(options, gpus);
        let of = format!("{}, {:?}, {:?}:\n{}", self.name, options.offload, options.on_cpu, engine.plan());
        assert_eq!(engine.plan().parts.len(), parts, "{of}");
        let chunks = [self.tokens.len(), 7, 1];
        let count = if self.tokens.len() < 200 { 3 } else { 1 };
        for chunk in chunks.into_iter().take(count) {
            let error = nmse(&self.logits(&engine, chunk), &self.expected);
            assert!(error <= self.most_error, "NMSE {error:e} by {chunk}: {of}");
        }
        assert_eq!(self.follow(&engine), self.greedy, "{of}");
    }

    /// Cuts the model everywhere.
    fn check_all(&self, gpus: &[Gpu]) {
        let (layers, options) = (self.program.layers as u32, LoadOptions::new);
        let Some(gpu) = gpus.get(..1) else { return };
        for count in 0..=layers {
            let parts = if (1..layers).contains(&count) { 2 } else { 1 };
            self.check(&options().offload(Offload::Layers(count)), gpu, parts);
        }
        let all = || options().offload(Offload::All);
        self.check(&all().on_cpu(TensorClass::FeedForward), gpu, 2);
        self.check(&all().on_cpu_from(TensorClass::FeedForward, layers / 2), gpu, 2);
        self.check(&all().on_cpu(TensorClass::Embedding).on_cpu(TensorClass::Head), gpu, 2);
        self.check(&all().on_cpu(TensorClass::Head), gpu, 2);
        self.check(&options().offload(Offload::Ranges(vec![(1..layers, 0)])), gpu, 2);
    }
}

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models")
}

#[test]
fn committed_models_cut_everywhere() {
    let gpus = gpus();
    for name in ["llama", "qwen2", "phi3", "gemma", "olmo2", "olmo3"] {
        World::golden(&committed(), name).check_all(&gpus);
    }
}

/// Some of the large set.
fn check_families(names: &[&str]) {
    let Some(folder) = std::env::var_os("KILN_GOLDEN").map(|root| PathBuf::from(root).join("models")) else {
        println!("skipped: KILN_GOLDEN is not set");
        return;
    };
    let gpus = gpus();
    for name in names {
        World::golden(&folder, name).check_all(&gpus);
    }
}

#[test]
fn other_families_cut_everywhere() {
    check_families(&[
        "llama-rope3",
        "llama-yarn",
        "llama-bias",
        "qwen3",
        "gemma2",
        "gemma3",
        "granite",
        "smollm3",
        "glm4",
    ]);
}

#[test]
fn mixtures_of_experts_cut_everywhere() {
    check_families(&["mixtral", "qwen3moe", "gpt-oss", "deepseek2", "deepseek2-lite"]);
}

#[test]
fn two_gpus_and_the_cpu() {
    let gpus = gpus();
    if gpus.len() < 2 {
        println!("skipped: there are no two GPUs");
        return;
    }
    let ranges =
        |ranges: &[(std::ops::Range<u32>, usize)]| LoadOptions::new().offload(Offload::Ranges(ranges.to_vec()));
    for name in ["llama", "olmo3"] {
        let world = World::golden(&committed(), name);
        let layers = world.program.layers as u32;
        world.check(&ranges(&[(0..1, 0), (1..layers, 1)]), &gpus, 2);
        world.check(&ranges(&[(0..1, 1), (1..layers, 0)]), &gpus, 2);
    }
    let world = World::random(&Tiny::with_sizes("llama", Sizes::new(4)), 70, 1e-8);
    world.check(&ranges(&[(0..1, 0), (2..3, 1)]), &gpus, 3);
    world.check(&ranges(&[(0..1, 1), (1..2, 0), (2..3, 1), (3..4, 0)]), &gpus, 2);
}

#[test]
fn quantized_weights_cut_everywhere() {
    let gpus = gpus();
    for (architecture, format) in [("llama", TensorType::Q4_0), ("gemma2", TensorType::Q8_0)] {
        let tiny = Tiny::new(architecture).store_matrices_as(format);
        World::random(&tiny, 70, 5e-4).check_all(&gpus);
    }
}

/// Prompts so long that devices work side by side on pieces of them, windows among the layers.
#[test]
fn long_prompts_cut_everywhere() {
    let gpus = gpus();
    let cuts = [vec![(0..2, 0)], vec![(2..4, 0)], vec![(0..1, 0), (2..3, 0)]];
    for architecture in ["llama", "gemma2"] {
        let world = World::random(&Tiny::with_sizes(architecture, Sizes::new(4)), 419, 1e-8);
        for cut in &cuts {
            let options = LoadOptions::new().offload(Offload::Ranges(cut.clone()));
            gpus.iter().take(1).for_each(|gpu| world.check(&options, std::slice::from_ref(gpu), 2));
        }
        if gpus.len() > 1 {
            let options = LoadOptions::new().offload(Offload::Ranges(vec![(0..1, 0), (1..3, 1)]));
            world.check(&options, &gpus, 3);
        }
    }
}

/// Sessions that fork on a model that is cut: pages are copied wherever they are.
#[test]
fn forks_of_models_that_are_cut() {
    let gpus = gpus();
    let Some(gpu) = gpus.get(..1) else { return };
    let tiny = Tiny::with_sizes("llama", Sizes::new(3)).tokenizer();
    let model = |offload: Offload| {
        let options = LoadOptions::new().sessions(3).context(128).offload(offload).threads(2);
        Model::load_on(Gguf::from_bytes(tiny.bytes()).unwrap(), &options, gpu).unwrap()
    };
    let replies = |model: &Model| {
        let how = || Generate::new().greedy().ignore_end(true).max_tokens(20);
        let mut session = model.session();
        session.logits(&[5, 80, 17, 33, 9]).unwrap();
        let mut forks: Vec<_> = (0..2).map(|_| session.fork().unwrap()).collect();
        let reply =
            |(fork, token): (&mut kiln::Session, u32)| fork.generate_tokens(&[token], how()).unwrap().text().unwrap();
        let texts: Vec<String> = forks.iter_mut().zip([40, 90]).map(reply).collect();
        let own = session.generate_tokens(&[7], how()).unwrap().text().unwrap();
        (texts, own)
    };
    let expected = replies(&model(Offload::None));
    for offload in [Offload::Layers(1), Offload::Layers(2), Offload::All] {
        let model = model(offload);
        assert_eq!(replies(&model), expected, "{}", model.plan());
    }
}

#[test]
fn ranges_that_cannot_be_are_errors() {
    let gpus = gpus();
    let Some(gpu) = gpus.get(..1) else { return };
    let tiny = Tiny::with_sizes("llama", Sizes::new(3)).tokenizer();
    for (ranges, words) in [
        (vec![(0..4, 0)], "0..4"),
        (vec![(0..2, 1)], "GPU 1"),
        (vec![(0..2, 0), (1..3, 0)], "overlaps"),
        (vec![(2..2, 0)], "2..2"),
    ] {
        let options = LoadOptions::new().offload(Offload::Ranges(ranges));
        let error = Model::load_on(Gguf::from_bytes(tiny.bytes()).unwrap(), &options, gpu).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
