//! The model in the box, which is a real one: what it answers on each device and in each quantization is known.
//!
//! Its file is Q8_0; the other quantizations are made of that here.
#![cfg(feature = "chat")]

use kiln::chat::{Chat, ContextPolicy};
use kiln::gguf::{Gguf, GgufWriter, TensorType};
use kiln::quant::{self, Format};
use kiln::session::Finish;
use kiln::tokenizer::Encode;
use kiln::{Device, Generate, LoadOptions, Model, Offload};
use serde_json::Value;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/model-in-the-box")
}

/// The model with its matrices in another format.
fn file(kind: TensorType) -> Gguf {
    let file = Gguf::open(folder().join("box.gguf")).unwrap();
    let mut writer = GgufWriter::new();
    for (key, value) in file.metadata().iter() {
        writer.set(key, value).unwrap();
    }
    for tensor in file.tensors() {
        let data = file.data(tensor).unwrap();
        if tensor.shape().len() == 1 {
            writer.tensor(tensor.name(), tensor.shape(), tensor.tensor_type(), data).unwrap();
            continue;
        }
        let mut values = vec![0.0; tensor.elements() as usize];
        quant::decode(tensor.tensor_type(), &data, &mut values).unwrap();
        let bytes = match kind {
            TensorType::Q4_K => values.as_chunks().0.iter().flat_map(q4_k).collect(),
            _ => {
                let mut bytes = vec![0; Format::of(kind).unwrap().bytes_for(values.len()).unwrap()];
                quant::encode(kind, &values, &mut bytes).unwrap();
                bytes
            }
        };
        writer.tensor(tensor.name(), tensor.shape(), kind, bytes).unwrap();
    }
    let mut bytes = vec![];
    writer.write(&mut bytes).unwrap();
    Gguf::from_bytes(bytes).unwrap()
}

/// A block of Q4_K in the plainest way: each 32 values between their least, or zero, and their greatest.
fn q4_k(values: &[f32; 256]) -> [u8; 144] {
    let least = |part: &[f32]| part.iter().fold(0f32, |least, &value| least.min(value));
    let most = |part: &[f32]| part.iter().fold(0f32, |most, &value| most.max(value));
    let parts: Vec<&[f32]> = values.chunks(32).collect();
    let scales: Vec<f32> = parts.iter().map(|part| (most(part) - least(part)) / 15.0).collect();
    let minima: Vec<f32> = parts.iter().map(|part| -least(part)).collect();
    let mut block = [0; 144];
    let mut whole = |values: &[f32], at: usize| -> (f32, Vec<u8>) {
        let unit = most(values) / 63.0;
        quant::encode(TensorType::F16, &[unit], &mut block[at..at + 2]).unwrap();
        (unit, values.iter().map(|value| if unit > 0.0 { (value / unit).round() as u8 } else { 0 }).collect())
    };
    let ((scale_unit, scales), (minimum_unit, minima)) = (whole(&scales, 0), whole(&minima, 2));
    for j in 0..4 {
        block[4 + j] = scales[j] | (scales[j + 4] >> 4) << 6;
        block[8 + j] = minima[j] | (minima[j + 4] >> 4) << 6;
        block[12 + j] = (scales[j + 4] & 15) | (minima[j + 4] & 15) << 4;
    }
    for (index, value) in values.iter().enumerate() {
        let (part, at) = (index / 32, index % 32);
        let (scale, minimum) = (scale_unit * f32::from(scales[part]), minimum_unit * f32::from(minima[part]));
        let level = if scale > 0.0 { ((value + minimum) / scale).round().clamp(0.0, 15.0) as u8 } else { 0 };
        block[16 + part / 2 * 32 + at] |= level << (part % 2 * 4);
    }
    block
}

const KINDS: [TensorType; 3] = [TensorType::F16, TensorType::Q8_0, TensorType::Q4_K];

fn on_cpu(kind: TensorType) -> Model {
    Model::load(file(kind), &LoadOptions::new().device(Device::Cpu)).unwrap()
}

/// A conversation whose replies are the likeliest.
fn chat(model: &Model) -> Chat {
    model.chat().policy(ContextPolicy::Stop).generate(Generate::new().greedy().max_tokens(200)).start().unwrap()
}

/// What is said, and what all quantizations answer on all devices.
const KNOWN: &[(&[&str], &str)] = &[
    (
        &["What is kiln?"],
        "Kiln is a library written in Rust. It runs GGUF language models on any GPU that WebGPU reaches, and on the CPU.",
    ),
    (
        &["What is GGUF?"],
        "GGUF is a file format for language models: one file that holds the weights, the vocabulary and the settings.",
    ),
    (&["What is 7 + 5?"], "7 + 5 = 12."),
    (&["My name is Tom.", "What is a token?", "What is my name?"], "You told me that your name is Tom."),
];

#[track_caller]
fn assert_answers(model: &Model, on: &str) {
    for (said, expected) in KNOWN {
        let mut chat = chat(model);
        let mut answer = String::new();
        for text in *said {
            answer = chat.say(*text).unwrap().text().unwrap();
        }
        assert_eq!(answer, *expected, "{said:?} on {on}");
    }
}

#[test]
fn known_answers_on_the_cpu() {
    for kind in KINDS {
        assert_answers(&on_cpu(kind), &format!("the CPU in {kind:?}"));
    }
}

#[test]
fn known_answers_on_gpus_and_wherever_it_is_cut() {
    let names = std::env::var("KILN_TEST_GPU").unwrap_or("llvmpipe,SwiftShader".into());
    for (index, name) in names.split(',').enumerate() {
        // Of further drivers one case, since some take long to compile shaders.
        for kind in KINDS.into_iter().filter(|kind| index == 0 || *kind == TensorType::Q8_0) {
            // All of it, some layers of it, and none of what comes before and behind them.
            let cuts = [Offload::All, Offload::Layers(3), Offload::Ranges(vec![(1..3, 0)])];
            for offload in cuts.into_iter().take(if index == 0 { 3 } else { 1 }) {
                let on = format!("{name} in {kind:?}, {offload:?}");
                let options = LoadOptions::new().device(Device::Gpu(Some(name.into()))).offload(offload);
                match Model::load(file(kind), &options) {
                    Ok(model) => assert_answers(&model, &on),
                    Err(error) => println!("skipped: {on}: {error}"),
                }
            }
        }
    }
}

/// How many tokens a model is torn between where the assistant speaks in [`TALK`].
fn perplexity(model: &Model) -> f64 {
    let encode = |text: &str| model.tokenizer().encode(text, Encode::default().parse_special(true));
    let (mut session, mut surprise, mut count) = (model.session(), 0.0, 0);
    for (said, answer) in TALK {
        let prompt = encode(&format!("<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n"));
        let mut logits = session.logits(&prompt).unwrap();
        for token in encode(&format!("{answer}<|im_end|>")) {
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let all: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
            surprise += all.ln() - f64::from(logits[token as usize] - most);
            count += 1;
            logits = session.logits(&[token]).unwrap();
        }
        session.logits(&encode("\n")).unwrap();
    }
    (surprise / f64::from(count)).exp()
}

/// A talk from the generator of its corpus, with a seed that it was not trained on.
const TALK: &[(&str, &str)] = &[
    ("My job: I am a writer.", "Being a writer must be interesting."),
    ("Tell me what I just told you.", "You said: \"My job: I am a writer.\""),
    ("Could you tell me 7 + 11", "7 + 11 = 18."),
    (
        "How about a short tale about a hedgehog, please",
        "In those days, a hedgehog lived on a farm. One night, a great storm came, and the wind broke the roof. The \
         hedgehog held on to a stone so that the others would hear it. A fisherman saw it and was saved. In the morning \
         the sun shone again, and all were safe. They had a big breakfast together.",
    ),
    (
        "Will you tell me what a gpu is, in simple words?",
        "A GPU is a graphics processor. It does many simple calculations in parallel, which suits language models.",
    ),
    ("Please tell me what my job is.", "You are a writer."),
];

#[test]
fn perplexity_of_each_quantization_is_in_its_band() {
    let [f16, q8, q4] = KINDS.map(|kind| perplexity(&on_cpu(kind)));
    println!("F16 {f16:.4}, Q8_0 {q8:.4}, Q4_K {q4:.4}");
    assert!((F16_PERPLEXITY / f16 - 1.0).abs() < 0.005, "F16: {f16}");
    assert!((q8 / f16 - 1.0).abs() < 0.005, "Q8_0: {q8}, F16: {f16}");
    assert!((q4 / f16 - 1.0).abs() < 0.02, "Q4_K: {q4}, F16: {f16}");
}

/// What it was when this was written.
const F16_PERPLEXITY: f64 = 1.2451;

/// Whether enough of the words are in an answer, as whole words.
fn is_right(answer: &str, question: &Value) -> bool {
    let answer = answer.to_lowercase();
    let is_letter = |c: char| c.is_ascii_alphanumeric();
    let stands = |word: &str| {
        answer
            .match_indices(word)
            .any(|(at, _)| !answer[..at].ends_with(is_letter) && !answer[at + word.len()..].starts_with(is_letter))
    };
    let words = question["any"].as_array().unwrap();
    let found = words.iter().filter(|word| stands(word.as_str().unwrap())).count();
    found as u64 >= question["need"].as_u64().unwrap_or(1)
}

#[test]
fn questions_it_was_never_asked_are_answered() {
    let questions: Value = serde_json::from_slice(&std::fs::read(folder().join("questions.json")).unwrap()).unwrap();
    for kind in KINDS {
        let model = on_cpu(kind);
        let (mut right, mut wrong) = (0, vec![]);
        for question in questions.as_array().unwrap() {
            let mut chat = chat(&model);
            for earlier in question["earlier"].as_array().into_iter().flatten() {
                chat.say(earlier.as_str().unwrap()).unwrap().text().unwrap();
            }
            let mut reply = chat.say(question["question"].as_str().unwrap()).unwrap();
            let answer: String = reply.by_ref().map(|piece| piece.unwrap().to_string()).collect();
            assert!(matches!(reply.finish(), Some(Finish::End(_))), "{question}: {answer}");
            if is_right(&answer, question) {
                right += 1;
            } else {
                wrong.push(format!("{}: {answer}", question["question"]));
            }
        }
        println!("{kind:?}: {right} of 50");
        assert!(right >= 40, "{kind:?}: {right} of 50\n{}", wrong.join("\n"));
    }
}
