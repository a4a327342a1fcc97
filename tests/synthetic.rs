//! The random models of the bench: as large as the real ones, the same everywhere, and with logits that are numbers.

#[path = "../examples/bench/synthetic/mod.rs"]
mod synthetic;

use kiln::backend::cpu::pool::Pool;
use kiln::gguf::{Gguf, TensorType};
use kiln::{LoadOptions, Model, model, quant};
use synthetic::blocks::Blocks;
use synthetic::shapes::{SHAPES, Shape};
use synthetic::{Quant, Synthetic, weight_types};

fn synthetic(name: &str) -> Synthetic {
    name.parse().unwrap()
}

fn spread(values: &[f32]) -> f64 {
    let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
    (squares / values.len() as f64).sqrt()
}

#[test]
fn blocks_of_every_type_have_the_size_that_is_asked_for() {
    for kind in weight_types() {
        for size in [1.0 / 8.0, 1.0 / 64.0, 1.0 / 120.0] {
            let blocks = Blocks::new(kind, size).unwrap();
            let count = 40_960 / kind.block_elements() as usize;
            let mut bytes = vec![0; count * kind.block_bytes() as usize];
            let mut values = vec![f32::NAN; count * kind.block_elements() as usize];
            blocks.fill(7, &mut bytes);
            quant::decode(kind, &bytes, &mut values).unwrap();
            assert!(values.iter().all(|value| value.is_finite()), "{kind}");
            let found = spread(&values) / f64::from(size);
            // Powers of two come no closer than half an octave.
            assert!((0.68..1.47).contains(&found), "{kind}: {found} times {size}");
            let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64;
            assert!(mean.abs() < 0.6 * f64::from(size), "{kind}: the mean is {mean}");
            let mut others = bytes.clone();
            blocks.fill(8, &mut others);
            assert!(others != bytes, "{kind}");
        }
    }
}

#[test]
fn every_quantization_of_the_smallest_shape_runs() {
    let pool = Pool::new(2);
    let mixes = ["Q4_K_M", "q5_k_m"].map(str::to_owned);
    for quant in weight_types().map(|kind| kind.name().to_lowercase()).chain(mixes) {
        let synthetic = synthetic(&format!("llama-260k:{quant}"));
        let file = synthetic.build(&pool).unwrap();
        let bytes: u64 = file.tensors().iter().map(|tensor| tensor.size_bytes().next_multiple_of(32)).sum();
        assert_eq!(bytes, synthetic.weight_bytes());
        let model = Model::load(file, &LoadOptions::new().threads(2)).unwrap();
        let mut session = model.session();
        let logits = session.logits(&[1, 2, 3, 500]).unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()), "{quant}");
        // They differ from token to token, and not wildly.
        assert!((0.3..5.0).contains(&spread(&logits)), "{quant}: {}", spread(&logits));
        let before = logits;
        assert_ne!(session.logits(&[17]).unwrap(), before, "{quant}");
    }
}

#[test]
fn a_model_is_the_same_bytes_everywhere() {
    let write = |threads, name: &str| {
        let mut bytes = vec![];
        synthetic(name).write(&mut bytes, &Pool::new(threads)).unwrap();
        bytes
    };
    let one = write(1, "llama-260k:q8_0");
    assert!(one == write(3, "llama-260k:q8_0") && one != write(1, "llama-260k:q4_0"));
    let file = Gguf::from_bytes(one).unwrap();
    let facts = model::facts(&file).unwrap();
    assert_eq!((facts.to_string().as_str(), facts.parameters), ("llama 260K Q8_0", 260_032));
}

#[test]
fn shapes_have_as_many_weights_as_the_real_models() {
    let published = [
        ("llama-260k", 260_032),
        ("llama-1b", 1_235_814_400),
        ("qwen3-0.6b", 596_049_920),
        ("llama-8b", 8_030_261_248),
        ("qwen3-30b-a3b", 30_532_122_624),
        ("gpt-oss-20b", 20_914_757_184),
    ];
    let is_cut = |shape: &&Shape| ["-cut", "-like"].iter().any(|end| shape.name.ends_with(end));
    assert_eq!(SHAPES.iter().filter(is_cut).count() + published.len(), SHAPES.len());
    for (shape, parameters) in published {
        assert_eq!(synthetic(&format!("{shape}:F32")).weight_bytes() / 4, parameters, "{shape}");
    }
}

#[test]
fn whether_a_model_can_run_is_known_without_its_weights() {
    for shape in &SHAPES {
        let file = synthetic(&format!("{}:q4_k", shape.name)).without_weights().unwrap();
        assert_eq!(model::trained_context(file.metadata()).unwrap(), shape.context);
    }
}

#[test]
fn rows_that_are_no_whole_number_of_blocks_fall_back() {
    use TensorType::*;
    let cases = [(Q4_K, 2048, Q4_K), (Q4_K, 2880, Q5_0), (Q6_K, 64, Q8_0), (IQ2_XS, 96, IQ4_NL), (Q2_K, 32, Q4_0)];
    let odd = [(Q4_K, 172, F16), (Q8_0, 172, F16), (F32, 172, F32), (Q1_0, 64, Q4_0), (NVFP4, 96, Q4_0)];
    for (kind, columns, expected) in cases.into_iter().chain(odd) {
        assert_eq!(Quant::Plain(kind).type_of(columns, true), expected, "{kind} of {columns}");
    }
    let mix: Quant = "q4_k_m".parse().unwrap();
    assert_eq!([true, false].map(|matters| mix.type_of(4096, matters)), [Q6_K, Q4_K]);
}

#[test]
fn wrong_names_are_told_what_there_is() {
    let error = |name: &str| name.parse::<Synthetic>().unwrap_err();
    assert!(error("llama-1b").contains("SHAPE:QUANT"));
    assert!(error("llama-9b:q4_0").contains("`llama-9b`") && error("llama-9b:q4_0").contains("gpt-oss-20b"));
    for quant in ["q9_9", "q8_1", "q8_k", "i32", ""] {
        let said = error(&format!("llama-1b:{quant}"));
        assert!(said.contains(&format!("`{quant}`")) && said.contains("NVFP4") && said.contains("Q4_K_M"), "{said}");
    }
    assert_eq!(synthetic("llama-1b:q4_k_m").to_string(), "llama-1b:Q4_K_M");
}
