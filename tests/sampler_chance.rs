//! The random side of the sampler: seeds, clones, and whether tokens come as often as they should.

use kiln::sampler::{Mirostat, Sampler, SamplerOptions};

const DRAWS: usize = 40_000;

/// Nothing on but a temperature of 1, which changes nothing.
fn nothing() -> SamplerOptions {
    SamplerOptions::new().temperature(1.0).top_k(0).top_p(1.0).min_p(0.0)
}

fn draws(sampler: &mut Sampler, logits: &mut [f32], n: usize) -> Vec<u32> {
    (0..n).map(|_| sampler.sample(logits).unwrap()).collect()
}

/// The chi-square statistic of draws against the chances of each token. A chance of 0 must not be drawn at all.
fn chi_square(drawn: &[u32], chances: &[f64]) -> f64 {
    let mut counts = vec![0usize; chances.len()];
    drawn.iter().for_each(|&token| counts[token as usize] += 1);
    let mut sum = 0.0;
    for (token, (&count, &chance)) in counts.iter().zip(chances).enumerate() {
        if chance == 0.0 {
            assert_eq!(count, 0, "token {token} has no chance");
        } else {
            let expected = chance * drawn.len() as f64;
            sum += (count as f64 - expected).powi(2) / expected;
        }
    }
    sum
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
    logits.iter().map(|logit| logit.exp() / sum).collect()
}

#[test]
fn tokens_come_as_often_as_they_should() {
    let logits = [1.0f32, 0.0, -1.0, 2.0, 0.5, -2.0, 1.5, 0.25];
    let exact = |scale: f64| softmax(&logits.map(|logit| f64::from(logit) * scale));
    // Top-3 keeps tokens 3, 6 and 0.
    let mut top3 = exact(1.0);
    let kept = top3[3] + top3[6] + top3[0];
    top3.iter_mut().enumerate().for_each(|(i, p)| *p = if [0, 3, 6].contains(&i) { *p / kept } else { 0.0 });
    // Chi-square is passed once in ten thousand at 29.9 for 7 degrees of freedom, at 18.4 for 2.
    for (options, chances, limit) in [
        (nothing(), exact(1.0), 29.9),
        (nothing().temperature(0.5), exact(2.0), 29.9),
        (nothing().temperature(3.0), exact(1.0 / 3.0), 29.9),
        (nothing().top_k(8), exact(1.0), 29.9),
        (nothing().top_k(3), top3, 18.4),
    ] {
        let mut sampler = Sampler::new(&options, 8, 11).unwrap();
        let found = chi_square(&draws(&mut sampler, &mut logits.clone(), DRAWS), &chances);
        assert!(found < limit, "chi-square {found}, at most {limit}: {options:?}");
        let wrong = chi_square(&draws(&mut sampler, &mut logits.clone(), DRAWS), &exact(1.1));
        assert!(wrong > limit, "the test must be able to fail: {wrong}");
    }
}

#[test]
fn xtc_acts_as_often_as_it_should() {
    // Probabilities 0.4, 0.3, 0.2, 0.1: with a threshold of 0.15 the first two go, in 30 % of the draws.
    let mut logits = [0.4f32, 0.3, 0.2, 0.1].map(f32::ln);
    let options = nothing().xtc_probability(0.3).xtc_threshold(0.15);
    let mut sampler = Sampler::new(&options, 4, 5).unwrap();
    let chances = [0.7 * 0.4, 0.7 * 0.3, 0.7 * 0.2 + 0.3 * 2.0 / 3.0, 0.7 * 0.1 + 0.3 / 3.0];
    let found = chi_square(&draws(&mut sampler, &mut logits, DRAWS), &chances);
    assert!(found < 21.1, "chi-square {found}, at most 21.1 for 3 degrees of freedom");
}

#[test]
fn mirostat_holds_the_surprise_at_its_target() {
    // Zipf's law: about 8 bits of entropy.
    let mut logits: Vec<f32> = (1..=2000).map(|rank| -(rank as f32).ln()).collect();
    for version in [Mirostat::V1, Mirostat::V2] {
        for target in [2.0, 4.0] {
            let options = nothing().mirostat(version).mirostat_tau(target);
            let mut sampler = Sampler::new(&options, 2000, 3).unwrap();
            let mut bits = 0.0;
            for step in 0..3000 {
                let token = sampler.sample(&mut logits).unwrap();
                let chance =
                    sampler.candidates().iter().find(|candidate| candidate.token == token).unwrap().probability;
                bits += if step >= 1000 { -f64::from(chance).log2() / 2000.0 } else { 0.0 };
            }
            assert!((bits - f64::from(target)).abs() < 0.1, "{version:?}: {bits} bits, target {target}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_tokens_always() {
    // Written down once: people keep seeds, so these must not change.
    let mut logits: Vec<f32> = (0..100).map(|i| (i * 37 % 100) as f32 / 16.0).collect();
    let mut sampler = Sampler::new(&SamplerOptions::new(), 100, 1234).unwrap();
    let first = draws(&mut sampler, &mut logits, 12);
    assert_eq!(first, GOLDEN);
    sampler.reset();
    assert_eq!(draws(&mut sampler, &mut logits, 12), first);
    let mut other = Sampler::new(&SamplerOptions::new(), 100, 1235).unwrap();
    assert_ne!(draws(&mut other, &mut logits, 12), first);
}

const GOLDEN: [u32; 12] = [32, 89, 56, 27, 78, 62, 8, 48, 48, 54, 21, 8];

#[test]
fn reset_forgets_history_and_bound() {
    let mut logits: Vec<f32> = (0..50).map(|i| (i as f32).cos() * 3.0).collect();
    let penalized = SamplerOptions::new().repeat_penalty(1.5).dry_multiplier(1.0).dry_breakers(vec![]);
    for options in [penalized, SamplerOptions::new().mirostat(Mirostat::V2)] {
        let mut sampler = Sampler::new(&options, 50, 8).unwrap();
        let mut run = |sampler: &mut Sampler| -> Vec<u32> {
            let step = |_| {
                let token = sampler.sample(&mut logits).unwrap();
                sampler.accept(token);
                token
            };
            (0..60).map(step).collect()
        };
        let first = run(&mut sampler);
        assert_ne!(run(&mut sampler), first);
        sampler.reset();
        assert!(sampler.candidates().is_empty());
        assert_eq!(run(&mut sampler), first);
    }
}

#[test]
fn clones_go_on_from_the_same_place_and_apart() {
    let mut logits: Vec<f32> = (0..80).map(|i| (i as f32).sin() * 4.0).collect();
    let options = SamplerOptions::new().frequency_penalty(0.5).xtc_probability(0.5).temperature_range(0.5);
    let mut sampler = Sampler::new(&options, 80, 21).unwrap();
    (0..20).for_each(|token| sampler.accept(token % 7));
    draws(&mut sampler, &mut logits, 5);
    let mut twin = sampler.clone();
    let mut other = sampler.clone();
    assert!(twin.candidates().is_empty());
    // What one of them does the others do not see.
    (0..30).for_each(|_| other.accept(3));
    draws(&mut other, &mut logits, 100);
    let expected = draws(&mut sampler, &mut logits, 50);
    assert_eq!(draws(&mut twin, &mut logits, 50), expected);
}

#[test]
fn one_number_is_drawn_for_each_choice() {
    // A choice without alternative draws as well, so that later ones do not depend on how many there were.
    let mut open = [0.0f32; 16];
    let mut forced = [f32::NEG_INFINITY; 16];
    forced[3] = 0.0;
    let mut one = Sampler::new(&nothing(), 16, 2).unwrap();
    let mut two = one.clone();
    draws(&mut one, &mut open, 1);
    assert_eq!(draws(&mut two, &mut forced, 1), [3]);
    assert_eq!(draws(&mut one, &mut open, 20), draws(&mut two, &mut open, 20));
}
