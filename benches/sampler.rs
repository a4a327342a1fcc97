//! How many microseconds it takes to choose a token, on one core, by vocabulary and by which samplers are on.
//!
//! ```text
//! cargo bench --bench sampler
//! ```
//!
//! The logits are normally distributed with a deviation of 3, a new set for each token, so that nothing can be learned
//! from the last one; eight sets take turns. A history of some hundred tokens has been accepted, and each choice is.

use kiln::sampler::{Mirostat, Sampler, SamplerOptions};
use std::hint::black_box;
use std::time::Instant;

const SETS: usize = 8;
const VOCABULARIES: [usize; 3] = [32_000, 128_256, 262_144];
/// Batches of choices, whose median counts.
const BATCHES: usize = 21;
const CHOICES: usize = 40;

fn main() {
    println!("| microseconds a token | {} |", VOCABULARIES.map(|count| count.to_string()).join(" | "));
    println!("|---|---|---|---|");
    for (name, options) in chains() {
        let cells = VOCABULARIES.map(|n_vocab| {
            let [least, median, most] = microseconds(&options, n_vocab);
            format!("{median:.1} ({least:.1} to {most:.1})")
        });
        println!("| {name} | {} |", cells.join(" | "));
    }
}

/// The least, the median and the most of some batches; one before them warms up.
fn microseconds(options: &SamplerOptions, n_vocab: usize) -> [f64; 3] {
    let mut sets: Vec<Vec<f32>> = (0..SETS as u64).map(|seed| normal_logits(n_vocab, seed)).collect();
    let breakers = vec![vec![198], vec![25], vec![1], vec![9, 198]];
    let mut sampler = Sampler::with_breakers(options, n_vocab, 1, breakers).expect("valid options");
    (0..300).for_each(|i| sampler.accept(i * i % 97 + 100));
    let mut batch = || {
        let start = Instant::now();
        for choice in 0..CHOICES {
            let token = sampler.sample(black_box(&mut sets[choice % SETS])).expect("a token");
            sampler.accept(token);
        }
        start.elapsed().as_secs_f64() * 1e6 / CHOICES as f64
    };
    batch();
    let mut times: Vec<f64> = (0..BATCHES).map(|_| batch()).collect();
    times.sort_by(f64::total_cmp);
    [times[0], times[BATCHES / 2], times[BATCHES - 1]]
}

fn chains() -> Vec<(&'static str, SamplerOptions)> {
    let penalties = SamplerOptions::new().repeat_penalty(1.1).frequency_penalty(0.1).presence_penalty(0.1);
    let all_on = penalties
        .clone()
        .suppress(0..100)
        .repeat_last_n(256)
        .dry_multiplier(0.8)
        .dry_last_n(256)
        .top_n_sigma(2.0)
        .typical_p(0.95)
        .xtc_probability(0.5)
        .temperature_range(0.3);
    vec![
        ("default", SamplerOptions::new()),
        ("greedy", SamplerOptions::greedy()),
        ("penalties", penalties),
        ("all_on", all_on),
        ("min_p_only", SamplerOptions::new().top_k(0).top_p(1.0)),
        ("no_top_k", SamplerOptions::new().top_k(0)),
        ("temperature_only", SamplerOptions::new().top_k(0).top_p(1.0).min_p(0.0)),
        ("mirostat_1", SamplerOptions::new().mirostat(Mirostat::V1)),
        ("mirostat_2", SamplerOptions::new().mirostat(Mirostat::V2)),
    ]
}

/// Logits as random as a bench needs: sums of uniform numbers.
fn normal_logits(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n).map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * 3.0).collect()
}
