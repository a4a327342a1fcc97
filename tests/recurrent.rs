//! Sessions of models with recurrent layers: going back, branching and guessing ahead, on the CPU, on a GPU, and on both.

#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use kiln::backend::gpu::Gpu;
use kiln::gguf::Gguf;
use kiln::sampler::SamplerOptions;
use kiln::scheduler;
use kiln::{CacheFormat, Device, Generate, LoadOptions, Model, Offload};
use tiny::{Sizes, Tiny, random};

const FAMILIES: [&str; 5] = ["mamba2", "granitehybrid", "qwen3next", "qwen35", "lfm2"];
const PROMPT: usize = 45;

fn device() -> Option<Gpu> {
    let names = std::env::var("KILN_TEST_GPU").unwrap_or("llvmpipe".into());
    let options = LoadOptions::new().device(Device::Gpu(names.split(',').next().map(String::from)));
    scheduler::open(&options).inspect_err(|error| println!("skipped: no GPU: {error}")).ok()?.pop()
}

/// A family's tiny model, wherever it can run.
fn models(family: &str) -> Vec<(&'static str, Model)> {
    let options = LoadOptions::new().cache_format(CacheFormat::F32).threads(2).sessions(3);
    let file = || Gguf::from_bytes(Tiny::new(family).tokenizer().bytes()).unwrap();
    let mut models = vec![("CPU", Model::load(file(), &options.clone().offload(Offload::None)).unwrap())];
    if let Some(gpu) = device() {
        for (place, offload) in [("GPU", Offload::All), ("both", Offload::Layers(2))] {
            let options = options.clone().offload(offload);
            models.push((place, Model::load_on(file(), &options, std::slice::from_ref(&gpu)).unwrap()));
        }
    }
    models
}

fn prompt() -> Vec<u32> {
    random("prompt", PROMPT).map(|value| ((value + 1.0) / 2.0 * Sizes::VOCABULARY as f32) as u32).collect()
}

fn greedy(count: usize) -> Generate {
    Generate::new().greedy().max_tokens(count).ignore_end(true)
}

/// The tokens that follow, in a session of their own.
fn following(model: &Model, tokens: &[u32], how: Generate) -> Vec<u32> {
    let mut session = model.session();
    session.generate_tokens(tokens, how).unwrap().text().unwrap();
    session.tokens()[tokens.len()..].to_vec()
}

#[test]
fn all_places_say_the_same() {
    for family in FAMILIES {
        let models = models(family);
        let expected = following(&models[0].1, &prompt(), greedy(40));
        for (place, model) in &models[1..] {
            assert_eq!(following(model, &prompt(), greedy(40)), expected, "{family} on {place}");
        }
    }
}

#[test]
fn a_session_that_goes_back_goes_on_as_if_it_had_not_been_farther() {
    for (family, (place, model)) in
        FAMILIES.iter().flat_map(|family| models(family).into_iter().map(move |m| (family, m)))
    {
        let mut session = model.session();
        session.generate_tokens(&prompt(), greedy(30)).unwrap().text().unwrap();
        let whole = session.tokens().to_vec();
        for kept in [74, 70, 50, 46, 20, 1] {
            session.truncate(kept).unwrap();
            let other = [whole[kept - 1] ^ 1, 5, 17];
            session.generate_tokens(&other, greedy(6)).unwrap().text().unwrap();
            let expected = following(&model, &[&whole[..kept], &other].concat(), greedy(6));
            assert_eq!(session.tokens()[kept + 3..], expected, "{family} on {place}, back to {kept}");
            // Back on the old way, from what is left.
            session.truncate(kept).unwrap();
            session.generate_tokens(&whole[kept..], greedy(1)).unwrap().text().unwrap();
            session.truncate(whole.len()).unwrap();
            assert_eq!(session.tokens(), whole, "{family} on {place}");
        }
    }
}

#[test]
fn forks_go_their_own_ways() {
    for (family, (place, model)) in
        FAMILIES.iter().flat_map(|family| models(family).into_iter().map(move |m| (family, m)))
    {
        let expected = following(&model, &prompt(), greedy(12));
        let mut trunk = model.session();
        trunk.generate_tokens(&prompt(), greedy(4)).unwrap().text().unwrap();
        let mut branch = trunk.fork().unwrap();
        branch.generate_tokens(&[7, 8, 9], greedy(5)).unwrap().text().unwrap();
        let tokens = [trunk.tokens(), &[7, 8, 9]].concat();
        assert_eq!(branch.tokens()[tokens.len()..], following(&model, &tokens, greedy(5)), "{family} on {place}");
        trunk.generate_tokens(&[], greedy(8)).unwrap().text().unwrap();
        assert_eq!(trunk.tokens()[PROMPT..], expected, "{family} on {place}");
    }
}

#[test]
fn what_is_computed_again_is_little() {
    for family in FAMILIES {
        for (place, model) in models(family) {
            let mut session = model.session();
            session.generate_tokens(&prompt(), greedy(100)).unwrap().text().unwrap();
            session.truncate(PROMPT + 90).unwrap();
            let mut reply = session.generate_tokens(&[3], greedy(1)).unwrap();
            assert_eq!(reply.by_ref().filter(Result::is_err).count(), 0);
            let again = reply.statistics().prompt_tokens;
            assert!((1..=40).contains(&again), "{family} on {place}: {again}");
        }
    }
}

#[test]
fn wrong_guesses_are_forgotten() {
    // A device does not know what is suppressed, so many of its guesses are wrong.
    let how = || {
        let sampler = SamplerOptions::new().temperature(1.0).suppress((0..Sizes::VOCABULARY as u32).step_by(2));
        Generate::new().sampler(sampler).max_tokens(40).ignore_end(true).seed(7)
    };
    for family in FAMILIES {
        let models = models(family);
        let expected = following(&models[0].1, &prompt(), how());
        for (place, model) in &models[1..] {
            assert_eq!(following(model, &prompt(), how()), expected, "{family} on {place}");
        }
    }
}
