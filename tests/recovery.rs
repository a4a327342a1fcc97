//! What fails is survived: layers that find no room on a GPU go to the CPU, and a GPU that is lost costs time and nothing
//! else.

#![cfg(feature = "gpu")]

mod gpu;

use gpu::open;
use kiln::backend::gpu::{Fault, Gpu, GpuOptions};
use kiln::gguf::Gguf;
use kiln::sampler::SamplerOptions;
use kiln::{CacheFormat, Device, Error, Generate, LoadOptions, Model, Offload, Recover, Result, Session};
use std::path::Path;

const PROMPT: &str = "The capital of France is";
const COUNT: usize = 24;

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/llama.gguf")
}

fn device() -> Option<Gpu> {
    open(&GpuOptions::default()).pop()
}

fn options() -> LoadOptions {
    let name = std::env::var("KILN_TEST_GPU").unwrap_or("llvmpipe".into());
    let device = Device::Gpu(name.split(',').next().map(String::from));
    LoadOptions::new().context(128).sessions(2).cache_format(CacheFormat::F32).threads(2).device(device)
}

fn load(gpu: &Gpu, options: &LoadOptions) -> Result<Model> {
    Model::load_on(Gguf::open(path()).unwrap(), options, std::slice::from_ref(gpu))
}

fn greedy() -> Generate {
    Generate::new().greedy().ignore_end(true).max_tokens(COUNT)
}

/// With a chance that depends on every token before.
fn sampled() -> Generate {
    let options = SamplerOptions::default().frequency_penalty(0.7);
    Generate::new().sampler(options).seed(7).ignore_end(true).max_tokens(COUNT)
}

/// The text that the CPU gives.
fn expected(how: Generate) -> String {
    let model = options().device(Device::Cpu).open(path()).unwrap();
    model.session().generate_with(PROMPT, how).unwrap().text().unwrap()
}

/// Pieces until the reply ends, and how often that was in an error.
fn pieces(reply: kiln::Reply<'_>) -> (String, Vec<Error>) {
    let (mut text, mut errors) = (String::new(), vec![]);
    for piece in reply {
        match piece {
            Ok(piece) => text.push_str(&piece),
            Err(error) => errors.push(error),
        }
    }
    (text, errors)
}

/// How far faults are apart: where time does not matter, none is left out.
fn steps(short: usize) -> usize {
    if std::env::var_os("KILN_GOLDEN").is_some() { 1 } else { short }
}

fn is_lost(error: &Error) -> bool {
    matches!(error, Error::GpuLost { .. })
}

#[test]
fn a_reply_reports_the_loss_once_and_resumes_with_the_same_text() {
    for how in [greedy(), sampled(), greedy().stop("no such text")] {
        let Some(gpu) = device() else { return };
        let expected = expected(how.clone());
        let model = load(&gpu, &options()).unwrap();
        let mut session = model.session();
        let mut reply = session.generate_with(PROMPT, how).unwrap();
        let mut text: String = (0..3).filter_map(|_| reply.next()?.ok()).collect();
        gpu.device().destroy();
        let (rest, errors) = pieces(reply);
        text.push_str(&rest);
        assert!(matches!(&errors[..], [error] if is_lost(error)), "{errors:?}");
        let (rest, errors) = pieces(session.resume().unwrap());
        text.push_str(&rest);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(text, expected);
        assert!(model.gpus()[0].check().is_ok() && gpu.check().is_err());
        assert!(session.resume().is_err());
    }
}

#[test]
fn models_recover_by_themselves_if_they_are_to() {
    for (recover, gpus) in [(Recover::Cpu, 0), (Recover::Reopen, 1)] {
        for offload in [Offload::All, Offload::Layers(1)] {
            for how in [greedy(), sampled()] {
                let Some(gpu) = device() else { return };
                let expected = expected(how.clone());
                let model = load(&gpu, &options().recover(recover).offload(offload.clone())).unwrap();
                let mut session = model.session();
                let mut reply = session.generate_with(PROMPT, how).unwrap();
                let mut text: String = (0..5).filter_map(|_| reply.next()?.ok()).collect();
                gpu.device().destroy();
                let (rest, errors) = pieces(reply);
                text.push_str(&rest);
                assert!(errors.is_empty(), "{recover:?}: {errors:?}");
                assert_eq!((text, model.gpus().len()), (expected, gpus), "{recover:?}");
            }
        }
    }
}

#[test]
fn all_sessions_of_a_model_go_on() {
    let Some(gpu) = device() else { return };
    let expected = expected(greedy());
    let model = load(&gpu, &options().recover(Recover::Reopen)).unwrap();
    let (mut first, mut second) = (model.session(), model.session());
    let begin = |session: &mut Session| session.generate_with(PROMPT, greedy().max_tokens(5)).unwrap().text().unwrap();
    let mut texts = [begin(&mut first), begin(&mut second)];
    gpu.device().destroy();
    let go_on =
        |session: &mut Session| session.generate_tokens(&[], greedy().max_tokens(COUNT - 5)).unwrap().text().unwrap();
    texts[0].push_str(&go_on(&mut first));
    texts[1].push_str(&go_on(&mut second));
    assert_eq!(texts, [expected.clone(), expected]);
    // One model, one recovery.
    assert_eq!(model.gpus().len(), 1);
}

#[test]
fn layers_that_find_no_room_go_to_the_cpu() {
    let expected = expected(greedy());
    let mut moved = 0;
    for nth in (1..).step_by(steps(7)) {
        let Some(gpu) = device() else { return };
        gpu.order_fault(nth, Fault::Memory);
        let before = gpu.objects_made();
        let offload = if nth % 2 == 0 { Offload::All } else { Offload::Ranges([(0..2, 0)].into()) };
        let model = load(&gpu, &options().offload(offload)).unwrap_or_else(|error| panic!("at object {nth}: {error}"));
        if gpu.objects_made() - before < nth {
            break;
        }
        let plan = model.plan();
        assert!(plan.gpu_layers < model.program().layers, "{plan}");
        assert!(plan.reasons.iter().any(|reason| reason.contains("no room")), "{plan}");
        moved += 1;
        let text = model.session().generate_with(PROMPT, greedy()).unwrap().text().unwrap();
        assert_eq!(text, expected, "at object {nth}: {plan}");
    }
    assert!(moved > 3, "{moved}");
}

/// A fault at each place of loading and generating in turn: the text is right, or there is an error that says what it is.
#[test]
fn every_fault_ends_in_the_right_text_or_an_error() {
    let expected = expected(greedy());
    for recover in [None, Some(Recover::Cpu), Some(Recover::Reopen)] {
        let (mut continued, mut refused) = (0, 0);
        for nth in (1..).step_by(steps(5)) {
            let Some(gpu) = device() else { return };
            let mut options = options().offload(Offload::Layers(1));
            options.recover = recover;
            gpu.order_loss(nth);
            let before = gpu.submissions();
            let run = || -> Result<String> {
                let model = load(&gpu, &options)?;
                model.session().generate_with(PROMPT, greedy())?.text()
            };
            match run() {
                Ok(text) => {
                    assert_eq!(text, expected, "{recover:?} at submission {nth}");
                    continued += 1;
                }
                Err(error) => {
                    assert!(is_lost(&error), "{recover:?} at submission {nth}: {error}");
                    refused += 1;
                }
            }
            if gpu.submissions() - before < nth {
                break;
            }
        }
        println!("{recover:?}: {continued} went on, {refused} were refused");
        assert!(recover.is_none() || continued > 3, "{recover:?}: {continued} of {}", continued + refused);
    }
}
