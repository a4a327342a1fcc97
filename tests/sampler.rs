//! What the sampler promises, beyond each step being right: edges, errors, ties, candidate lists, chance, clones.

use kiln::sampler::{Mirostat, Sampler, SamplerOptions};
use proptest::prelude::*;

/// Nothing on but a temperature of 1, which changes nothing.
fn nothing() -> SamplerOptions {
    SamplerOptions::new().temperature(1.0).top_k(0).top_p(1.0).min_p(0.0)
}

/// Bell-shaped logits.
fn logits(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut share = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..n).map(|_| ((0..6).map(|_| share()).sum::<f32>() - 3.0) * 4.0).collect()
}

fn left(sampler: &Sampler) -> Vec<u32> {
    sampler.candidates().iter().map(|candidate| candidate.token).collect()
}

/// Samples once, and returns the token and what it was chosen from.
fn once(options: &SamplerOptions, logits: &[f32]) -> (u32, Vec<u32>) {
    let mut sampler = Sampler::new(options, logits.len(), 1).unwrap();
    let token = sampler.sample(&mut logits.to_vec()).unwrap();
    (token, left(&sampler))
}

#[test]
fn greedy_is_the_first_of_the_largest() {
    for n in [1, 5, 31, 32, 33, 64, 1000] {
        let mut logits = logits(n, 3);
        logits[n / 2] = 20.0;
        logits[n - 1] = 20.0;
        assert_eq!(once(&SamplerOptions::greedy(), &logits), (n as u32 / 2, vec![n as u32 / 2]));
        assert_eq!(once(&SamplerOptions::new().temperature(-1.0), &logits).0, n as u32 / 2);
        assert_eq!(once(&nothing().top_k(1), &logits).0, n as u32 / 2);
        assert_eq!(once(&nothing().top_p(0.0), &logits).0, n as u32 / 2);
    }
    // Truncation and chance have no say in it, penalties do.
    let options = SamplerOptions::greedy().xtc_probability(1.0).typical_p(0.1).temperature_range(1.0);
    let mut sampler = Sampler::new(&options.presence_penalty(2.0), 3, 1).unwrap();
    assert_eq!(sampler.sample(&mut [1.0, 5.0, 4.0]).unwrap(), 1);
    sampler.accept(1);
    assert_eq!(sampler.sample(&mut [1.0, 5.0, 4.0]).unwrap(), 2);
}

#[test]
fn equal_tokens_rank_by_id() {
    let equal = [2.0; 700];
    for k in [1, 2, 40, 300, 699] {
        assert_eq!(once(&nothing().top_k(k), &equal).1, (0..k as u32).collect::<Vec<_>>());
    }
    assert_eq!(once(&nothing().top_p(0.5), &equal[..10]).1.len(), 5);
    assert_eq!(once(&nothing().min_p(1.0), &equal).1.len(), 700);
    assert_eq!(once(&nothing().top_k(3), &[-0.0, 0.0, -0.0, 0.0]).1, [0, 1, 2]);
}

#[test]
fn rising_and_falling_logits_are_cut_right() {
    let rising: Vec<f32> = (0..5000).map(|i| i as f32 * 0.001).collect();
    let falling: Vec<f32> = rising.iter().rev().copied().collect();
    for k in [1, 40, 127, 128, 129, 2500, 4999, 5000, 9000, usize::MAX] {
        let kept = k.min(5000) as u32;
        assert_eq!(once(&nothing().top_k(k), &rising).1, (5000 - kept..5000).rev().collect::<Vec<_>>());
        assert_eq!(once(&nothing().top_k(k), &falling).1, (0..kept).collect::<Vec<_>>());
    }
}

#[test]
fn limits_of_probabilities_mean_all_or_one() {
    let logits = [1.0, 3.0, 2.0, 0.0];
    assert_eq!(once(&nothing(), &logits).1.len(), 4);
    assert_eq!(once(&nothing().top_p(0.0), &logits).1, [1]);
    assert_eq!(once(&nothing().min_p(1.0), &logits).1, [1]);
    assert_eq!(once(&nothing().typical_p(0.0), &logits).1.len(), 1);
    assert_eq!(once(&nothing().top_p(0.0).min_keep(3), &logits).1, [1, 2, 0]);
    assert_eq!(once(&nothing().min_p(1.0).min_keep(2), &logits).1, [1, 2]);
    assert_eq!(once(&nothing().top_p(0.0).min_keep(99), &logits).1.len(), 4);
    // All but the last that reaches the threshold; above a half none can have company.
    let certain = nothing().xtc_probability(1.0).top_k(4);
    assert_eq!(once(&certain.clone().xtc_threshold(0.0), &logits).1, [3]);
    assert_eq!(once(&certain.clone().xtc_threshold(0.1), &logits).1, [2, 0, 3]);
    assert_eq!(once(&certain.clone().xtc_threshold(0.1).min_keep(4), &logits).1.len(), 4);
    assert_eq!(once(&certain.xtc_threshold(0.6), &logits).1.len(), 4);
}

#[test]
fn a_vocabulary_of_one_has_one_choice() {
    for mirostat in [Mirostat::Off, Mirostat::V1, Mirostat::V2] {
        let options = SamplerOptions::new().mirostat(mirostat).top_n_sigma(1.0).typical_p(0.5).temperature_range(0.5);
        assert_eq!(once(&options.xtc_probability(1.0), &[-3.0]), (0, vec![0]));
    }
}

#[test]
fn what_is_not_a_number_is_never_chosen() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for options in [SamplerOptions::greedy(), SamplerOptions::new(), nothing(), nothing().mirostat(Mirostat::V2)] {
        assert_eq!(once(&options, &[nan, -inf, -5.0, nan]), (2, vec![2]));
        assert_eq!(once(&options, &[0.0, inf, nan]).0, 1);
        assert_eq!(once(&options, &[f32::MIN, f32::MAX, nan]).0, 1);
        let mut sampler = Sampler::new(&options, 3, 1).unwrap();
        let error = sampler.sample(&mut [nan, -inf, nan]).unwrap_err().to_string();
        assert_eq!(
            error,
            "sampler's logits: found no token above negative infinity, expected at least one that may be chosen"
        );
        assert_eq!(sampler.sample(&mut [nan, 1.0, nan]).unwrap(), 1, "an error must not spoil the sampler");
    }
}

#[test]
fn suppressed_tokens_and_biases_decide() {
    let options = nothing().suppress([0, 2]).bias(3, 40.0).bias(3, 60.0);
    assert_eq!(once(&options, &[90.0, 1.0, 90.0, 0.0]).0, 3);
    let mut sampler = Sampler::new(&nothing().suppress([0, 2]), 3, 9).unwrap();
    assert!((0..100).all(|_| sampler.sample(&mut [5.0, -5.0, 5.0]).unwrap() == 1));
}

#[test]
fn penalties_need_a_history_and_forget() {
    let options = SamplerOptions::greedy().presence_penalty(3.0).repeat_last_n(2);
    let mut sampler = Sampler::new(&options, 3, 1).unwrap();
    let mut next = |accepted: Option<u32>| {
        accepted.into_iter().for_each(|token| sampler.accept(token));
        sampler.sample(&mut [2.0, 1.0, 0.0]).unwrap()
    };
    assert_eq!([None, Some(0), Some(1), Some(2), Some(2)].map(&mut next), [0, 1, 2, 0, 0]);
    // A history of ids that no logit has is none of the sampler's business.
    assert_eq!(next(Some(u32::MAX)), 0);
}

#[test]
fn dry_stops_a_loop_and_spares_breakers() {
    let options = SamplerOptions::greedy().dry_multiplier(1.0).dry_breakers(Vec::new());
    let mut logits = [0.0, 0.0, 0.0, 1.5, 1.0];
    let said = [1, 2, 3, 1, 2];
    let run = |breakers: Vec<Vec<u32>>, logits: &mut [f32]| {
        let mut sampler = Sampler::with_breakers(&options, 5, 1, breakers).unwrap();
        said.iter().for_each(|&token| sampler.accept(token));
        sampler.sample(logits).unwrap()
    };
    assert_eq!(run(vec![], &mut logits), 4, "3 would go on with the repetition of 1 2");
    assert_eq!(run(vec![vec![3]], &mut logits), 3, "a breaker itself costs nothing");
    assert_eq!(run(vec![vec![1]], &mut logits), 3, "only 2 stands after the breaker");
    assert_eq!(run(vec![vec![1, 2]], &mut logits), 3);
    assert_eq!(run(vec![vec![2, 1]], &mut logits), 4);
}

#[test]
fn bad_options_are_named() {
    let nan = f32::NAN;
    let cases = [
        ("temperature", nothing().temperature(nan)),
        ("temperature_range", nothing().temperature_range(-0.1)),
        ("temperature_exponent", nothing().temperature_exponent(f32::INFINITY)),
        ("top_p", nothing().top_p(1.5)),
        ("min_p", nothing().min_p(-0.1)),
        ("typical_p", nothing().typical_p(nan)),
        ("top_n_sigma", nothing().top_n_sigma(nan)),
        ("xtc_probability", nothing().xtc_probability(2.0)),
        ("xtc_threshold", nothing().xtc_threshold(-1.0)),
        ("repeat_penalty", nothing().repeat_penalty(0.0)),
        ("repeat_penalty", nothing().repeat_penalty(1e-45)),
        ("frequency_penalty", nothing().frequency_penalty(nan)),
        ("presence_penalty", nothing().presence_penalty(f32::INFINITY)),
        ("dry_multiplier", nothing().dry_multiplier(-1.0)),
        ("dry_base", nothing().dry_base(0.5)),
        ("dry_breakers", nothing().dry_multiplier(1.0)),
        ("mirostat_tau", nothing().mirostat_tau(-1.0)),
        ("mirostat_eta", nothing().mirostat_eta(nan)),
        ("logit_bias", nothing().bias(10, 1.0)),
        ("logit_bias", nothing().bias(3, nan)),
        ("logit_bias", nothing().bias(3, f32::INFINITY)),
    ];
    for (name, options) in cases {
        let error = Sampler::new(&options, 10, 1).unwrap_err().to_string();
        assert!(error.starts_with(&format!("sampler's {name}: found ")), "{name}: {error}");
    }
    let error = Sampler::new(&nothing().top_p(1.5), 10, 1).unwrap_err().to_string();
    assert_eq!(error, "sampler's top_p: found 1.5, expected 0 to 1");
    assert!(Sampler::new(&nothing(), 0, 1).is_err());
    assert!(Sampler::with_breakers(&nothing(), 10, 1, vec![vec![]]).is_err());
    let mut sampler = Sampler::new(&nothing(), 10, 1).unwrap();
    assert!(sampler.sample(&mut [0.0; 9]).is_err());
    assert!(sampler.sample_candidates(&[1, 2], &[0.0]).is_err());
    assert!(sampler.sample_candidates(&[1, 1], &[0.0, 0.0]).is_err());
    assert!(sampler.sample_candidates(&[1, 10], &[0.0, 0.0]).is_err());
    assert!(sampler.sample_candidates(&[], &[]).is_err());
}

#[test]
fn the_defaults_are_those_of_the_reference() {
    let o = SamplerOptions::default();
    assert_eq!((o.top_k, o.top_p, o.min_p, o.temperature, o.typical_p), (40, 0.95, 0.05, 0.8, 1.0));
    assert_eq!((o.xtc_probability, o.xtc_threshold, o.top_n_sigma, o.min_keep), (0.0, 0.1, -1.0, 0));
    assert_eq!((o.repeat_last_n, o.repeat_penalty, o.frequency_penalty, o.presence_penalty), (64, 1.0, 0.0, 0.0));
    assert_eq!((o.dry_multiplier, o.dry_base, o.dry_allowed_length, o.dry_last_n), (0.0, 1.75, 2, 64));
    assert_eq!(o.dry_breakers, ["\n", ":", "\"", "*"]);
    assert_eq!((o.temperature_range, o.temperature_exponent), (0.0, 1.0));
    assert_eq!((o.mirostat, o.mirostat_tau, o.mirostat_eta), (Mirostat::Off, 5.0, 0.1));
}

/// The likeliest `n` tokens as a GPU would hand them over: in no order that matters.
fn cut(logits: &[f32], n: usize) -> (Vec<u32>, Vec<f32>) {
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    tokens.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    tokens.truncate(n);
    tokens.sort_by_key(|token| token.wrapping_mul(2_654_435_761));
    let values = tokens.iter().map(|&token| logits[token as usize]).collect();
    (tokens, values)
}

#[test]
fn candidates_cut_elsewhere_give_the_same_tokens() {
    let plain = SamplerOptions::new();
    let penalized = SamplerOptions::new().repeat_penalty(1.3).frequency_penalty(0.5).suppress([1, 2, 3]);
    let everything = penalized.clone().dry_multiplier(1.0).dry_breakers(vec![]).typical_p(0.9).xtc_probability(0.5);
    let greedy = SamplerOptions::greedy().presence_penalty(5.0).suppress([7]);
    for options in [plain, penalized, everything, greedy] {
        let mut whole = Sampler::new(&options, 300, 5).unwrap();
        let mut listed = whole.clone();
        for step in 0..200 {
            // A few sets take turns, so that the likeliest tokens come back and are penalized.
            let mut logits = logits(300, step % 3);
            let wanted = listed.candidates_wanted().unwrap();
            let (tokens, values) = cut(&logits, wanted);
            let token = whole.sample(&mut logits).unwrap();
            assert_eq!(listed.sample_candidates(&tokens, &values).unwrap(), token, "step {step}: {options:?}");
            assert_eq!(left(&listed), left(&whole));
            whole.accept(token);
            listed.accept(token);
        }
    }
}

#[test]
fn candidates_are_only_wanted_where_they_can_be_enough() {
    let wanted = |options: SamplerOptions| Sampler::new(&options, 1000, 1).unwrap().candidates_wanted();
    assert_eq!(wanted(SamplerOptions::greedy()), Some(1));
    assert_eq!(wanted(SamplerOptions::new()), Some(40));
    assert_eq!(wanted(SamplerOptions::new().top_k(5000)), Some(1000));
    assert_eq!(wanted(SamplerOptions::new().suppress([1, 2, 2])), Some(42));
    assert_eq!(wanted(SamplerOptions::new().top_k(0)), None);
    assert_eq!(wanted(SamplerOptions::new().bias(1, 0.5)), None);
    assert_eq!(wanted(SamplerOptions::new().top_n_sigma(1.0)), None);
    assert_eq!(wanted(SamplerOptions::greedy().top_n_sigma(1.0)), Some(1));
    assert_eq!(wanted(SamplerOptions::new().repeat_penalty(0.9)), None);
    assert_eq!(wanted(SamplerOptions::new().mirostat(Mirostat::V2)), None);
    // Without the whole vocabulary these still choose among what they are given.
    let options = SamplerOptions::new().top_n_sigma(1.0).top_k(0);
    let mut sampler = Sampler::new(&options, 1000, 1).unwrap();
    assert_eq!(sampler.sample_candidates(&[900, 3, 4], &[9.0, -5.0, f32::NAN]).unwrap(), 900);
}

proptest! {
    #[test]
    fn nothing_panics_and_the_token_can_be(
        raw in proptest::collection::vec(any::<u32>(), 1..200),
        said in proptest::collection::vec(0u32..8, 0..80),
        shares in proptest::array::uniform8(0.0f32..=1.0),
        k in 0usize..50,
        min_keep in 0usize..10,
        which in 0u8..3,
    ) {
        let mut logits: Vec<f32> = raw.into_iter().map(f32::from_bits).collect();
        let [temperature, top_p, min_p, typical_p, sigma, xtc, repeat, dry] = shares;
        let mirostat = [Mirostat::Off, Mirostat::V1, Mirostat::V2][which as usize];
        let options = SamplerOptions::new().temperature(temperature).top_p(top_p).min_p(min_p).typical_p(typical_p);
        let options = options.top_n_sigma(sigma).xtc_probability(xtc).repeat_penalty(repeat + 0.5).top_k(k);
        let options = options.dry_multiplier(dry).dry_base(1.0 + dry * 100.0).temperature_range(sigma);
        let options = options.min_keep(min_keep).mirostat(mirostat).temperature_exponent(repeat);
        let mut sampler = Sampler::with_breakers(&options, logits.len(), 1, vec![vec![1]]).unwrap();
        said.into_iter().for_each(|token| sampler.accept(token));
        let possible = |logit: &f32| *logit > f32::NEG_INFINITY;
        match sampler.sample(&mut logits) {
            Ok(token) => {
                prop_assert!(possible(&logits[token as usize]));
                let sum: f32 = sampler.candidates().iter().map(|candidate| candidate.probability).sum();
                prop_assert!((sum - 1.0).abs() < 1e-3, "probabilities add up to {}", sum);
                prop_assert!(sampler.candidates().iter().any(|candidate| candidate.token == token));
            }
            Err(_) => prop_assert!(!logits.iter().any(possible)),
        }
    }
}
