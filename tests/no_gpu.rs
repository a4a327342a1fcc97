//! Without the feature `gpu`: whoever asks for a GPU hears why there is none, and whoever does not, gets the CPU.

#![cfg(not(feature = "gpu"))]

use kiln::{Device, Generate, LoadOptions, Offload};
use std::path::PathBuf;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/llama.gguf")
}

#[test]
fn a_gpu_that_is_asked_for_is_an_error_that_names_the_feature() {
    let named = |name: &str| Some(name.to_owned());
    for (device, name) in [
        (Device::Gpu(None), "adapter"),
        (Device::Gpu(named("Radeon")), "`Radeon`"),
        (Device::Gpus(vec!["Arc".into(), "Radeon".into()]), "`Arc`"),
    ] {
        let options = LoadOptions::new().device(device);
        for error in [options.open(path()).unwrap_err(), options.plan(path()).unwrap_err()] {
            let said = error.to_string();
            assert!(said.contains(name) && said.contains("the feature `gpu`"), "{said}");
            assert!(said.contains("llama.gguf"), "{said}");
        }
    }
}

#[test]
fn the_cpu_computes_what_nobody_else_is_asked_to() {
    for options in [LoadOptions::new(), LoadOptions::new().device(Device::Gpu(None)).offload(Offload::None)] {
        let model = options.open(path()).unwrap();
        assert!(model.gpus().is_empty());
        let parts: Vec<_> = model.plan().parts.into_iter().map(|part| part.device).collect();
        assert_eq!(parts, ["CPU"]);
        assert_eq!(options.plan(path()).unwrap().gpu_layers, 0);
        let mut session = model.session();
        let reply = session.generate_with("The capital of France is", Generate::new().max_tokens(4)).unwrap();
        assert!(!reply.text().unwrap().is_empty());
    }
    // All layers on GPUs of which there are none: that is what options say when a machine has none, too.
    let all = LoadOptions::new().offload(Offload::All).open(path()).unwrap();
    assert_eq!(all.plan().gpu_layers, 0);
}
