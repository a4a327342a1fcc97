//! Sessions that are saved and restored: with what was kept of them, elsewhere without, and files that are wrong.

#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use kiln::backend::gpu::Gpu;
use kiln::gguf::Gguf;
use kiln::scheduler;
use kiln::{CacheFormat, Device, Generate, LoadOptions, Model, Offload, Session};
use tiny::{Sizes, Tiny, random};

const FAMILIES: [&str; 6] = ["llama", "gemma2", "deepseek2", "lfm2", "qwen3next", "mamba2"];
const PROMPT: usize = 75;

fn device() -> Option<Gpu> {
    let names = std::env::var("KILN_TEST_GPU").unwrap_or("llvmpipe".into());
    let options = LoadOptions::new().device(Device::Gpu(names.split(',').next().map(String::from)));
    scheduler::open(&options).inspect_err(|error| println!("skipped: no GPU: {error}")).ok()?.pop()
}

fn file(family: &str) -> Gguf {
    Gguf::from_bytes(Tiny::new(family).tokenizer().bytes()).unwrap()
}

fn options(format: CacheFormat) -> LoadOptions {
    LoadOptions::new().cache_format(format).threads(2).sessions(2).context(200)
}

/// A family's tiny model, wherever it can run.
fn models(family: &str, format: CacheFormat) -> Vec<(&'static str, Model)> {
    let cpu = Model::load(file(family), &options(format).offload(Offload::None)).unwrap();
    let mut models = vec![("CPU", cpu)];
    if let Some(gpu) = device() {
        for (place, offload) in [("GPU", Offload::All), ("both", Offload::Layers(1))] {
            let options = options(format).offload(offload);
            models.push((place, Model::load_on(file(family), &options, std::slice::from_ref(&gpu)).unwrap()));
        }
    }
    models
}

fn greedy(count: usize) -> Generate {
    Generate::new().greedy().max_tokens(count).ignore_end(true)
}

/// A session with a prompt and some tokens that followed it.
fn session(model: &Model) -> Session {
    let mut session = model.session();
    let prompt = random("prompt", PROMPT).map(|value| ((value + 1.0) / 2.0 * Sizes::VOCABULARY as f32) as u32);
    session.generate_tokens(&prompt.collect::<Vec<u32>>(), greedy(10)).unwrap().text().unwrap();
    session
}

fn saved(session: &Session) -> Vec<u8> {
    let mut bytes = vec![];
    session.save(&mut bytes).unwrap();
    bytes
}

/// Goes on; returns the tokens that follow, and how many were run before the first of them.
fn go_on(session: &mut Session) -> (Vec<u32>, usize) {
    let held = session.tokens().len();
    let mut reply = session.generate_tokens(&[3, 4], greedy(8)).unwrap();
    assert_eq!(reply.by_ref().filter(Result::is_err).count(), 0);
    let run = reply.statistics().prompt_tokens;
    drop(reply);
    (session.tokens()[held..].to_vec(), run)
}

#[test]
fn restored_sessions_go_on_without_running_their_tokens_again() {
    for (family, format) in FAMILIES.iter().flat_map(|family| [(family, CacheFormat::F32), (family, CacheFormat::F16)])
    {
        for (place, model) in models(family, format) {
            let mut session = session(&model);
            let bytes = saved(&session);
            let mut restored = model.restore(&bytes[..]).unwrap();
            assert_eq!(restored.tokens(), session.tokens());
            let expected = go_on(&mut session);
            assert_eq!(go_on(&mut restored), expected, "{family} on {place}, {format:?}");
            assert!(expected.1 <= 4, "{} tokens are run again", expected.1);
            // And once more, from the same file: what was restored is nobody else's.
            assert_eq!(go_on(&mut model.restore(&bytes[..]).unwrap()), expected, "{family} on {place}, {format:?}");
        }
    }
}

#[test]
fn where_it_does_not_fit_tokens_are_run_again() {
    for family in FAMILIES {
        let models = models(family, CacheFormat::F32);
        let expected = go_on(&mut session(&models[0].1)).0;
        for (from, model) in &models {
            let bytes = saved(&session(model));
            for (to, other) in models.iter().filter(|(to, _)| to != from) {
                let mut restored = other.restore(&bytes[..]).unwrap();
                let (tokens, run) = go_on(&mut restored);
                assert_eq!(tokens, expected, "{family}, from {from} to {to}");
                assert!(run > PROMPT, "{run} tokens were run");
            }
        }
    }
    // Another format of the cache, and a file of an empty session.
    let [wide, narrow] =
        [CacheFormat::F32, CacheFormat::F16].map(|format| Model::load(file("llama"), &options(format)).unwrap());
    let bytes = saved(&session(&wide));
    assert!(go_on(&mut narrow.restore(&bytes[..]).unwrap()).1 > PROMPT);
    let empty = saved(&wide.session());
    assert!(wide.restore(&empty[..]).unwrap().tokens().is_empty());
}

#[test]
fn files_that_are_wrong_are_errors() {
    for family in ["llama", "gemma2", "qwen3next"] {
        let model = Model::load(file(family), &options(CacheFormat::F32).offload(Offload::None)).unwrap();
        let bytes = saved(&session(&model));
        let message =
            |bytes: &[u8]| model.restore(bytes).map(|session| session.tokens().len()).unwrap_err().to_string();
        // Cut anywhere.
        for end in (0..500.min(bytes.len())).chain((500..bytes.len()).step_by(1 + bytes.len() / 97)) {
            let message = message(&bytes[..end]);
            assert!(message.contains("cut short"), "{end}: {message}");
        }
        // Another byte anywhere is an error, or makes a session of other numbers; nothing panics, nothing huge is made.
        for (at, bit) in (0..600).flat_map(|at| [(at, 1u8), (at, 0x80)]) {
            let mut bytes = bytes.clone();
            bytes[at] ^= bit;
            if let Ok(mut session) = model.restore(&bytes[..]) {
                _ = session.truncate(5); // a window may have moved on
            }
        }
        assert!(message(b"not a session at all").contains("another file"));
    }
    let llama = Model::load(file("llama"), &options(CacheFormat::F32)).unwrap();
    let bytes = saved(&session(&llama));
    let qwen = Model::load(file("qwen2"), &options(CacheFormat::F32)).unwrap();
    let error = qwen.restore(&bytes[..]).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("another model"), "{error}");
    let short = Model::load(file("llama"), &options(CacheFormat::F32).context(64)).unwrap();
    let error = short.restore(&bytes[..]).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("85 tokens") && error.contains("at most 64"), "{error}");
}
