//! Choosing on the GPU: the likeliest tokens, the guess at the sampler's choice, and steps that go ahead of it. What comes
//! out must be what a sampler chooses from all logits.

#![cfg(feature = "gpu")]

mod gpu;
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use gpu::open;
use kiln::backend::batch::Batch;
use kiln::backend::gpu::readback::wait;
use kiln::backend::gpu::{Choice, Draw, Gpu, GpuExecutor, GpuExecutorOptions, GpuOptions, Input, Ticket, Wanted};
use kiln::cache::{Cache, CacheFormat, CacheLimits, Sequence};
use kiln::gguf::Gguf;
use kiln::model::{self, ProgramOptions};
use kiln::sampler::{Sampler, SamplerOptions};
use kiln::session::Finish;
use kiln::{Generate, LoadOptions, Model, Session};
use std::time::Duration;
use tiny::{Sizes, Tiny};

const CONTEXT: u32 = 300;
const VOCABULARY: usize = 3001;

/// A vocabulary that takes several rounds to search.
fn tiny() -> Tiny {
    Tiny::with_sizes("llama", Sizes::thin(2)).vocabulary(VOCABULARY)
}

fn gpus() -> Vec<Gpu> {
    open(&GpuOptions::default())
}

fn load(gpu: &Gpu, budget: Duration) -> (GpuExecutor, Cache) {
    let file = tiny().file();
    let program = model::program(&file, ProgramOptions { context: CONTEXT as usize }).unwrap();
    let limits = CacheLimits { sequences: 4, chunk_tokens: 64, ..CacheLimits::new(CONTEXT) };
    let cache = Cache::of_program(&program, limits).unwrap();
    let mut options = GpuExecutorOptions::default();
    options.submit_budget = budget;
    (wait(gpu, GpuExecutor::new(gpu, file, program, &cache, CacheFormat::F32, options)).unwrap(), cache)
}

fn begin(executor: &mut GpuExecutor, input: Input, wanted: Wanted, sequence: &mut Sequence) -> Ticket {
    let gpu = executor.gpu().clone();
    let count = if let Input::Tokens(tokens) = input { tokens.len() as u32 } else { 1 };
    let ticket = wait(&gpu, executor.begin(input, wanted, sequence)).unwrap();
    sequence.commit(count).unwrap();
    ticket
}

fn finish(executor: &mut GpuExecutor, ticket: Ticket) -> Choice {
    let gpu = executor.gpu().clone();
    let (choice, arrival) = ticket.wait(&gpu).unwrap();
    executor.end(arrival);
    choice
}

#[test]
fn candidates_are_the_likeliest_and_guesses_what_a_sampler_draws() {
    for gpu in gpus() {
        let (mut executor, cache) = load(&gpu, Duration::from_millis(50));
        let (mut right, mut drawn) = (0, 0);
        for seed in 0..40 {
            let tokens: Vec<u32> = (0..1 + seed % 5).map(|i| ((seed * 31 + i * 7) % 3000) as u32).collect();
            let outputs = &[tokens.len() - 1];
            let batch = Batch { tokens: &tokens, outputs, texts: &[] };
            let mut logits = wait(&gpu, executor.run(batch, &mut cache.sequence())).unwrap();
            assert_eq!(logits.len(), VOCABULARY);
            let mut order: Vec<u32> = (0..VOCABULARY as u32).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));

            let best = Wanted { candidates: 1, draw: None };
            let ticket = begin(&mut executor, Input::Tokens(&tokens), best, &mut cache.sequence());
            let choice = finish(&mut executor, ticket);
            assert_eq!((choice.tokens, choice.guess), (vec![order[0]], order[0]));

            let (top_k, top_p, min_p, temperature) = (
                [64, 40, 5, 1][seed % 4],
                [1.0, 0.7][seed % 2],
                [0.0, 0.3][seed / 2 % 2],
                [1.0, 20.0, 0.4][seed / 3 % 3],
            );
            let options = SamplerOptions::new().top_k(top_k).top_p(top_p).min_p(min_p).temperature(temperature);
            let mut sampler = Sampler::new(&options, VOCABULARY, seed as u64).unwrap();
            let guess = sampler.guess().unwrap();
            assert_eq!((guess.keep as usize, guess.temperature), (top_k, temperature));
            let draw = Draw { keep: guess.keep, temperature, top_p, min_p, uniform: guess.uniform };
            let wanted = Wanted { candidates: sampler.candidates_wanted().unwrap() as u32, draw: Some(draw) };
            let ticket = begin(&mut executor, Input::Tokens(&tokens), wanted, &mut cache.sequence());
            let choice = finish(&mut executor, ticket);
            assert_eq!(choice.tokens, order[..top_k], "seed {seed}");
            assert!(choice.tokens.iter().zip(&choice.logits).all(|(&token, logit)| logits[token as usize] == *logit));
            let chosen = sampler.sample(&mut logits).unwrap();
            let mut sampler = Sampler::new(&options, VOCABULARY, seed as u64).unwrap();
            assert_eq!(sampler.sample_candidates(&choice.tokens, &choice.logits).unwrap(), chosen);
            right += usize::from(choice.guess == chosen);
            drawn += 1;
        }
        // Rounding may put a number that is drawn on the other side of a bound.
        assert!(right + 1 >= drawn, "{right} of {drawn} guesses on {gpu:?}");
    }
}

#[test]
fn steps_that_go_ahead_give_what_steps_in_turn_give() {
    let wanted = Wanted { candidates: 1, draw: None };
    for gpu in gpus() {
        // A budget that cuts every step into many submissions, and one that cuts none.
        for budget in [Duration::from_nanos(1), Duration::from_secs(10)] {
            let (mut executor, cache) = load(&gpu, budget);
            let prompts = [[3u32, 1, 4], [1, 5, 9]];
            let in_turn = prompts.map(|prompt| {
                let mut sequence = cache.sequence();
                let mut tokens = prompt.to_vec();
                let mut next = prompt.to_vec();
                for _ in 0..40 {
                    let outputs = &[next.len() - 1];
                    let logits =
                        wait(&gpu, executor.run(Batch { tokens: &next, outputs, texts: &[] }, &mut sequence)).unwrap();
                    let sampler = &mut Sampler::new(&SamplerOptions::greedy(), VOCABULARY, 0).unwrap();
                    next = vec![sampler.sample(&mut logits.clone()).unwrap()];
                    tokens.extend(&next);
                }
                tokens
            });
            // Two sequences take turns, and each has a step ahead.
            let mut sequences = [cache.sequence(), cache.sequence()];
            let mut all = prompts.map(Vec::from);
            let mut tickets: Vec<Ticket> = prompts
                .iter()
                .zip(&mut sequences)
                .map(|(prompt, sequence)| begin(&mut executor, Input::Tokens(prompt), wanted, sequence))
                .collect();
            for _ in 0..40 {
                let ahead: Vec<Ticket> = tickets
                    .iter()
                    .zip(&mut sequences)
                    .map(|(ticket, sequence)| begin(&mut executor, Input::Guess(ticket), wanted, sequence))
                    .collect();
                for (ticket, tokens) in tickets.drain(..).zip(&mut all) {
                    tokens.push(finish(&mut executor, ticket).guess);
                }
                tickets = ahead;
            }
            assert_eq!(all, in_turn, "{gpu:?}, {budget:?}");
            tickets.into_iter().for_each(|ticket| executor.forget(ticket));
        }
    }
}

fn model(gpu: &Gpu) -> Model {
    let options = LoadOptions::new().context(CONTEXT).sessions(4).cache_format(CacheFormat::F32);
    Model::load_on(Gguf::from_bytes(tiny().tokenizer().bytes()).unwrap(), &options, std::slice::from_ref(gpu)).unwrap()
}

/// What choosing from all logits gives.
fn by_hand(session: &mut Session, prompt: &[u32], options: &SamplerOptions, seed: u64, count: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(options, VOCABULARY, seed).unwrap();
    prompt.iter().for_each(|&token| sampler.accept(token));
    let mut next = prompt.to_vec();
    let mut chosen = vec![];
    for _ in 0..count {
        let mut logits = session.logits(&next).unwrap();
        let token = sampler.sample(&mut logits).unwrap();
        sampler.accept(token);
        chosen.push(token);
        next = vec![token];
    }
    chosen
}

#[test]
fn replies_are_what_choosing_from_all_logits_gives() {
    for gpu in gpus() {
        let model = model(&gpu);
        // The device expects the likeliest token, and does not know that it may not be chosen.
        let likely = by_hand(&mut model.session(), &[5], &SamplerOptions::greedy(), 0, 40);
        let samplers = [
            SamplerOptions::greedy(),
            SamplerOptions::greedy().suppress(likely.iter().copied()),
            SamplerOptions::new().top_k(8).suppress(likely),
            SamplerOptions::new().top_k(40).temperature(1.5),
            SamplerOptions::new().top_k(0).temperature(1.5),
            SamplerOptions::new().top_k(20).repeat_penalty(1.3),
            SamplerOptions::new().top_k(20).xtc_probability(0.5),
        ];
        for (seed, options) in samplers.iter().enumerate() {
            let prompt: Vec<u32> = (0..20).map(|i| i * 17 + seed as u32).collect();
            let expected = by_hand(&mut model.session(), &prompt, options, seed as u64, 60);
            let how =
                |count| Generate::new().sampler(options.clone()).seed(seed as u64).ignore_end(true).max_tokens(count);
            let mut session = model.session();
            let mut reply = session.generate_tokens(&prompt, how(60)).unwrap();
            reply.by_ref().for_each(|piece| drop(piece.unwrap()));
            assert_eq!(reply.finish(), Some(Finish::MaxTokens));
            drop(reply);
            assert_eq!(session.tokens()[20..], expected, "{options:?}");

            // One that is cut off holds what it has chosen, and goes on from there.
            let mut session = model.session();
            let mut reply = session.generate_tokens(&prompt, how(60)).unwrap();
            reply.next().unwrap().unwrap();
            drop(reply);
            let held = session.tokens().len() - 20;
            assert_eq!(session.tokens()[20..], expected[..held]);
            let logits = session.logits(&[7]).unwrap();
            let all = [&prompt[..], &expected[..held], &[7]].concat();
            assert!(gpu::nmse(&logits, &model.session().logits(&all).unwrap()) < 1e-9);
        }
    }
}
