//! Applications with several threads: models, sessions and replies that share a device.

#![cfg(feature = "gpu")]

mod gpu;

use gpu::open;
use kiln::backend::gpu::{Gpu, GpuOptions};
use kiln::gguf::Gguf;
use kiln::{CacheFormat, Generate, LoadOptions, Model, Offload};
use std::path::Path;
use std::thread;

const PROMPT: &str = "The capital of France is";

fn load(gpu: &Gpu, name: &str, offload: Offload) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name);
    let options =
        LoadOptions::new().context(128).sessions(4).cache_format(CacheFormat::F32).threads(2).offload(offload);
    Model::load_on(Gguf::open(path).unwrap(), &options, std::slice::from_ref(gpu)).unwrap()
}

fn text(model: &Model, tokens: usize) -> String {
    let how = Generate::new().greedy().ignore_end(true).max_tokens(tokens);
    model.session().generate_with(PROMPT, how).unwrap().text().unwrap()
}

#[test]
fn two_models_on_one_device() {
    for gpu in open(&GpuOptions::default()) {
        let names = ["llama.gguf", "qwen2.gguf"];
        let expected = names.map(|name| text(&load(&gpu, name, Offload::All), 30));
        let gpu = &gpu;
        let run = |name: &'static str, offload: Offload| move || text(&load(gpu, name, offload), 30);
        let found = thread::scope(|scope| {
            let threads = [
                scope.spawn(run(names[0], Offload::All)),
                scope.spawn(run(names[1], Offload::All)),
                scope.spawn(run(names[1], Offload::Layers(1))),
            ];
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(found, [&expected[0], &expected[1], &expected[1]].map(String::clone));
    }
}

#[test]
fn two_sessions_of_one_model_from_two_threads() {
    for gpu in open(&GpuOptions::default()) {
        for offload in [Offload::All, Offload::Layers(1)] {
            let model = load(&gpu, "llama.gguf", offload);
            let expected = text(&model, 40);
            let found = thread::scope(|scope| {
                let threads = [(); 3].map(|()| scope.spawn(|| text(&model, 40)));
                threads.map(|thread| thread.join().unwrap())
            });
            assert_eq!(found, [(); 3].map(|()| expected.clone()));
        }
    }
}

/// The reply holds on to what it needs, and lets go of it when it is dropped or done.
#[test]
fn a_model_that_is_dropped_while_it_generates() {
    for gpu in open(&GpuOptions::default()) {
        let expected = text(&load(&gpu, "llama.gguf", Offload::All), 30);
        for offload in [Offload::All, Offload::Layers(1)] {
            let held = || gpu.device().generate_allocator_report().unwrap().total_allocated_bytes;
            let before = held();
            let how = Generate::new().greedy().ignore_end(true).max_tokens(30);
            let model = load(&gpu, "llama.gguf", offload);
            let mut session = model.session();
            let mut reply = session.generate_with(PROMPT, how.clone()).unwrap();
            let first = reply.next().unwrap().unwrap();
            drop(model);
            let rest: String = reply.map(Result::unwrap).collect();
            assert_eq!(first + &rest, expected);
            let model = session.model().clone();
            drop(session);
            let mut session = model.session();
            drop(model);
            let mut reply = session.generate_with(PROMPT, how).unwrap();
            reply.next().unwrap().unwrap();
            drop(reply);
            drop(session);
            gpu.check().unwrap();
            assert!(held() <= before, "{} bytes are held, not {before}", held());
        }
    }
}
