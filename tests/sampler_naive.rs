//! Each sampler against the plainest way to write it: everything sorted, everything in f64, nothing kept in mind.
//! Compared are the tokens that are left and their probabilities.

use kiln::sampler::{Mirostat, Sampler, SamplerOptions};

/// Tokens and logits in the running.
type List = Vec<(u32, f64)>;

const BREAKERS: [&[u32]; 4] = [&[0], &[1, 2], &[1, 3, 4], &[5, 5]];

/// What is left to choose from, and with which probabilities, by options and history. XTC acts if it is on at all.
fn naive(options: &SamplerOptions, logits: &[f32], said: &[u32]) -> Vec<(u32, f64)> {
    // Adding 0 makes the two zeros one.
    let mut all: List = (0..).zip(logits.iter().map(|&logit| f64::from(logit) + 0.0)).collect();
    for (token, logit) in &mut all {
        *logit += options.logit_bias.iter().filter(|bias| bias.0 == *token).map(|bias| f64::from(bias.1)).sum::<f64>();
    }
    if options.mirostat == Mirostat::Off {
        penalties(&mut all, options, said);
        dry(&mut all, options, said);
    }
    let mut list: List = all.into_iter().filter(|(_, logit)| *logit > f64::NEG_INFINITY).collect();
    list.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    match options.mirostat {
        Mirostat::Off => truncate(&mut list, options),
        version => mirostat(&mut list, options, logits.len(), version),
    }
    let chances = softmax(&list);
    list.iter().zip(chances).map(|(&(token, _), chance)| (token, chance)).collect()
}

fn softmax(list: &List) -> Vec<f64> {
    let max = list.iter().map(|item| item.1).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = list.iter().map(|item| (item.1 - max).exp()).sum();
    list.iter().map(|item| (item.1 - max).exp() / sum).collect()
}

fn penalties(list: &mut List, options: &SamplerOptions, said: &[u32]) {
    let window = &said[said.len().saturating_sub(options.repeat_last_n)..];
    for (token, logit) in list {
        let count = window.iter().filter(|said| *said == token).count() as f64;
        if count > 0.0 {
            let penalty = f64::from(options.repeat_penalty);
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            *logit -= count * f64::from(options.frequency_penalty) + f64::from(options.presence_penalty);
        }
    }
}

fn dry(list: &mut List, options: &SamplerOptions, said: &[u32]) {
    let window = &said[said.len().saturating_sub(options.dry_last_n)..];
    let allowed = options.dry_allowed_length;
    let mut longest = window.len();
    for start in (0..window.len()).rev() {
        let breakers = BREAKERS.iter().filter(|breaker| window[start..].starts_with(breaker));
        if let Some(length) = breakers.map(|breaker| breaker.len()).max() {
            longest = window.len() - start - length;
            break;
        }
    }
    if options.dry_multiplier == 0.0 || window.len() <= allowed || longest < allowed {
        return;
    }
    for (token, logit) in list.iter_mut().filter(|(token, _)| !BREAKERS.contains(&&[*token][..])) {
        // The first place continues nothing, not even if repetitions of no length count.
        let places = (1..window.len()).filter(|&place| window[place] == *token);
        let lengths = places.map(|place| {
            let fits = |length: &usize| window[place - length..place] == window[window.len() - length..];
            (0..=place.min(longest)).filter(fits).max().unwrap_or(0)
        });
        if let Some(length) = lengths.max().filter(|&length| length >= allowed) {
            let power = f64::from(options.dry_base).powi((length - allowed) as i32);
            *logit -= f64::from(options.dry_multiplier) * power;
        }
    }
}

/// Top-n-sigma to temperature, on a sorted list.
fn truncate(list: &mut List, options: &SamplerOptions) {
    let n = list.len() as f64;
    if options.top_n_sigma > 0.0 {
        let mean = list.iter().map(|item| item.1).sum::<f64>() / n;
        let deviation = (list.iter().map(|item| (item.1 - mean).powi(2)).sum::<f64>() / n).sqrt();
        let floor = list[0].1 - f64::from(options.top_n_sigma) * deviation;
        list.retain(|item| item.1 >= floor);
    }
    if options.top_k > 0 {
        list.truncate(options.top_k);
    }
    if options.typical_p < 1.0 {
        typical(list, options);
    }
    if options.top_p < 1.0 {
        let chances = softmax(list);
        let reached = |n: &usize| chances[..*n].iter().sum::<f64>() >= f64::from(options.top_p);
        let enough = (1..=list.len()).find(|n| reached(n) && *n >= options.min_keep);
        list.truncate(enough.unwrap_or(list.len()));
    }
    if options.min_p > 0.0 {
        let chances = softmax(list);
        let likely = chances.iter().filter(|&&chance| chance >= f64::from(options.min_p) * chances[0]).count();
        list.truncate(likely.max(options.min_keep));
    }
    if options.xtc_probability > 0.0 {
        let likely = softmax(list).iter().filter(|&&chance| chance >= f64::from(options.xtc_threshold)).count();
        if likely > 1 && list.len() - (likely - 1) >= options.min_keep {
            list.drain(..likely - 1);
        }
    }
    temperature(list, options);
}

fn typical(list: &mut List, options: &SamplerOptions) {
    let chances = softmax(list);
    let entropy: f64 = chances.iter().filter(|&&chance| chance > 0.0).map(|chance| -chance * chance.ln()).sum();
    let distance = |i: usize| (-chances[i].ln() - entropy).abs();
    let mut order: Vec<usize> = (0..list.len()).collect();
    order.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)));
    let share = |n: usize| order[..n].iter().map(|&i| chances[i]).sum::<f64>();
    let enough = |n: &usize| share(*n) > f64::from(options.typical_p) && *n >= options.min_keep;
    order.truncate((1..=list.len()).find(enough).unwrap_or(list.len()));
    order.sort();
    *list = order.into_iter().map(|i| list[i]).collect();
}

fn temperature(list: &mut List, options: &SamplerOptions) {
    let mut temperature = f64::from(options.temperature);
    let range = f64::from(options.temperature_range);
    if range > 0.0 && list.len() > 1 {
        let chances = softmax(list);
        let entropy: f64 = chances.iter().filter(|&&chance| chance > 0.0).map(|chance| -chance * chance.ln()).sum();
        let share = (entropy / (list.len() as f64).ln()).powf(f64::from(options.temperature_exponent));
        let lowest = (temperature - range).max(0.0);
        temperature = lowest + (temperature + range - lowest) * share;
    }
    list.iter_mut().for_each(|item| item.1 /= temperature);
}

/// Mirostat at its first token, where the bound is twice the target.
fn mirostat(list: &mut List, options: &SamplerOptions, n_vocab: usize, version: Mirostat) {
    list.iter_mut().for_each(|item| item.1 /= f64::from(options.temperature));
    let bound = 2.0 * f64::from(options.mirostat_tau);
    let chances = softmax(list);
    let kept = if version == Mirostat::V2 {
        chances.iter().filter(|chance| -chance.log2() <= bound).count()
    } else {
        let fitted = &chances[..chances.len().min(100)];
        let step = |i: usize| ((i as f64 + 2.0) / (i as f64 + 1.0)).ln();
        let ratio = |i: usize| (fitted[i] / fitted[i + 1]).ln();
        let s = (0..fitted.len() - 1).map(|i| step(i) * ratio(i)).sum::<f64>()
            / (0..fitted.len() - 1).map(|i| step(i).powi(2)).sum::<f64>();
        let epsilon = s - 1.0;
        (epsilon * bound.exp2() / (1.0 - (n_vocab as f64).powf(-epsilon))).powf(1.0 / s) as usize
    };
    list.truncate(kept.max(1));
}

/// Numbers for cases, the same in each run.
struct Cases(u64);

impl Cases {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    fn share(&mut self) -> f32 {
        self.below(1 << 24) as f32 / (1 << 24) as f32
    }

    /// Bell-shaped logits of some deviation; now and then with equal ones, and with some that may not be chosen.
    fn logits(&mut self) -> Vec<f32> {
        let n = [1, 2, 5, 40, 300, 2000][self.below(6)];
        let deviation = [0.1, 1.0, 3.0, 8.0][self.below(4)];
        let coarse = self.below(4) == 0;
        let banned = self.below(3) == 0;
        let mut logits: Vec<f32> = (0..n)
            .map(|_| ((0..6).map(|_| self.share()).sum::<f32>() - 3.0) * 1.4 * deviation)
            .map(|logit| if coarse { (logit * 2.0).round() / 2.0 } else { logit })
            .collect();
        if banned {
            for _ in 0..n / 3 {
                let place = self.below(n);
                logits[place] = [f32::NEG_INFINITY, f32::NAN][self.below(2)];
            }
        }
        logits
    }

    /// A text in a small alphabet, so that it repeats itself.
    fn said(&mut self, n_vocab: usize) -> Vec<u32> {
        let alphabet = [2, 5, 9, n_vocab][self.below(4)].min(n_vocab);
        (0..self.below(150)).map(|_| self.below(alphabet) as u32).collect()
    }

    fn min_keep(&mut self) -> usize {
        [0, 1, 4, 30][self.below(4)]
    }
}

/// Nothing on but a temperature of 1, which changes nothing.
fn nothing() -> SamplerOptions {
    SamplerOptions::new().temperature(1.0).top_k(0).top_p(1.0).min_p(0.0)
}

/// Compares many cases of one kind.
fn compare(seed: u64, make: impl Fn(&mut Cases, usize) -> SamplerOptions) {
    let mut cases = Cases(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut narrowed = 0;
    for case in 0..400 {
        let mut logits = cases.logits();
        let options = make(&mut cases, logits.len());
        let said = cases.said(logits.len());
        let breakers = BREAKERS.map(<[u32]>::to_vec).to_vec();
        let mut sampler = Sampler::with_breakers(&options, logits.len(), case, breakers).unwrap();
        said.iter().for_each(|&token| sampler.accept(token));
        let before: Vec<u32> = logits.iter().map(|logit| logit.to_bits()).collect();
        let drawn = sampler.sample(&mut logits).unwrap();
        assert!(logits.iter().map(|logit| logit.to_bits()).eq(before), "logits must come back as they were");

        let mut expected = naive(&options, &logits, &said);
        let mut left: Vec<_> = sampler.candidates().iter().map(|c| (c.token, f64::from(c.probability))).collect();
        expected.sort_by_key(|item| item.0);
        left.sort_by_key(|item| item.0);
        let tokens = |list: &[(u32, f64)]| list.iter().map(|item| item.0).collect::<Vec<_>>();
        assert_eq!(tokens(&left), tokens(&expected), "case {case}: {options:?}\nsaid {said:?}\n{logits:?}");
        for (left, expected) in left.iter().zip(&expected) {
            let error = (left.1 - expected.1).abs();
            assert!(error <= 1e-6 + 3e-4 * expected.1, "case {case}: {left:?} not {expected:?}: {options:?}");
        }
        assert!(left.iter().any(|item| item.0 == drawn));
        narrowed += usize::from(left.len() < logits.len());
    }
    assert!(narrowed > 50, "only {narrowed} cases narrowed the choice: they test nothing");
}

#[test]
fn biases() {
    compare(1, |cases, n| {
        let some: Vec<u32> = (0..cases.below(n)).map(|_| cases.below(n) as u32).collect();
        let first = (cases.below(n) as u32 + 1) % n as u32;
        let keep = |token: &u32| n == 1 || *token != first;
        let options = nothing().min_p(0.3).bias(first, 30.0).bias(first, 10.0 * cases.share());
        some.iter()
            .fold(options, |options, &token| options.bias(token, -1.5))
            .suppress(some.into_iter().filter(keep).filter(|_| n > 1))
    });
}

#[test]
fn penalties_of_repetition() {
    compare(2, |cases, _| {
        let options = nothing().repeat_penalty(0.7 + cases.share()).frequency_penalty(cases.share() - 0.3);
        options.presence_penalty(cases.share() - 0.3).repeat_last_n(cases.below(100)).min_p(0.1)
    });
}

#[test]
fn dry_repetitions() {
    compare(3, |cases, _| {
        let options = nothing().dry_multiplier(cases.share() + 0.1).dry_base(1.0 + cases.share());
        options.dry_allowed_length(cases.below(4)).dry_last_n(cases.below(120)).min_p(0.1)
    });
}

#[test]
fn top_n_sigma() {
    compare(4, |cases, _| nothing().top_n_sigma(0.1 + 3.0 * cases.share()));
}

#[test]
fn top_k() {
    compare(5, |cases, n| {
        let k = if cases.below(2) == 0 { cases.below(60) } else { cases.below(2 * n) };
        nothing().top_k(k + 1)
    });
}

#[test]
fn typical_p() {
    compare(6, |cases, _| nothing().typical_p(cases.share()).min_keep(cases.min_keep()));
}

#[test]
fn top_p() {
    compare(7, |cases, _| nothing().top_p(cases.share()).min_keep(cases.min_keep()));
}

#[test]
fn min_p() {
    compare(8, |cases, _| nothing().min_p(cases.share().powi(3)).min_keep(cases.min_keep()));
}

#[test]
fn xtc() {
    compare(9, |cases, _| {
        nothing().xtc_probability(1.0).xtc_threshold(cases.share() * 0.5).min_keep(cases.min_keep()).top_k(300)
    });
}

#[test]
fn temperatures() {
    compare(10, |cases, _| {
        let range = if cases.below(2) == 0 { 0.0 } else { cases.share() };
        let options = nothing().temperature(cases.share() * 2.0 + 0.2).temperature_range(range).top_k(300);
        options.temperature_exponent(cases.share() * 2.0)
    });
}

#[test]
fn mirostat_versions() {
    for (seed, version) in [(11, Mirostat::V1), (12, Mirostat::V2)] {
        compare(seed, |cases, _| {
            // What has no effect then must have none.
            let options = SamplerOptions::new().repeat_penalty(1.5).top_n_sigma(0.1).top_k(1).dry_multiplier(1.0);
            options.mirostat(version).mirostat_tau(6.0 * cases.share()).temperature(0.3 + cases.share())
        });
    }
}

#[test]
fn the_default_chain() {
    compare(13, |_, _| SamplerOptions::new());
}

#[test]
fn the_chain_with_everything_on() {
    compare(14, |cases, n| {
        let options = SamplerOptions::new().bias(cases.below(n) as u32, 2.0).repeat_penalty(1.1).dry_multiplier(0.8);
        let options = options.frequency_penalty(0.1).presence_penalty(0.2).top_n_sigma(0.5 + 3.0 * cases.share());
        let options = options.top_k(1 + cases.below(60)).typical_p(0.5 + 0.5 * cases.share());
        let options = options.top_p(0.5 + 0.5 * cases.share()).min_keep(cases.min_keep()).xtc_probability(1.0);
        options.temperature_range(0.3).temperature_exponent(1.2)
    });
}
