//! Mirostat (Basu and others, 2021): holds the surprise of the text near a target, by feedback from the tokens drawn.
//!
//! Both versions keep a bound `mu`, in bits, start it at twice the target, and after each token move it against the
//! error of the surprise.

use super::candidates::{Candidate, Candidates};
use super::options::{Mirostat, SamplerOptions};
use super::rng::Rng;

/// How many of the best candidates version 1 fits its power law to.
const FITTED: usize = 100;

/// Narrows the list by the bound, draws a token from it and moves the bound.
pub(super) fn draw(
    list: &mut Candidates,
    options: &SamplerOptions,
    n_vocab: usize,
    mu: &mut f32,
    rng: &mut Rng,
) -> Option<Candidate> {
    match options.mirostat {
        Mirostat::V1 => {
            let k = power_law_k(list, n_vocab, *mu);
            list.keep_front(k);
        }
        Mirostat::Off | Mirostat::V2 => {
            list.softmax();
            let least = (-*mu).exp2();
            let kept = list.as_slice().iter().filter(|item| item.probability >= least).count();
            list.keep_front(kept.max(1));
        }
    }
    let drawn = list.draw(rng.uniform())?;
    *mu -= options.mirostat_eta * (-drawn.probability.log2() - options.mirostat_tau);
    Some(drawn)
}

/// How many candidates to keep for a surprise of `mu`, if the probability of the i-th falls off like i to the power
/// of −s, with s fitted to the ratios of neighbours.
fn power_law_k(list: &mut Candidates, n_vocab: usize, mu: f32) -> usize {
    list.sort_front(FITTED);
    let (mut ratios, mut squares) = (0.0, 0.0);
    for (i, pair) in (1..FITTED).zip(list.as_slice().windows(2)) {
        let [better, worse] = pair else { continue };
        let step = ((i + 1) as f32 / i as f32).ln();
        // The logarithm of the ratio of two probabilities is the difference of their logits.
        ratios += step * (better.logit - worse.logit);
        squares += step * step;
    }
    let s = ratios / squares;
    let epsilon = s - 1.0;
    let n = n_vocab as f32;
    // As epsilon goes to 0 so does the denominator, and the quotient goes to 1 / ln n.
    let quotient = if epsilon.abs() < 1e-6 { n.ln().recip() } else { epsilon / (1.0 - n.powf(-epsilon)) };
    // A single candidate makes s NaN, and so k: the cast makes that 0.
    let k = (quotient * mu.exp2()).powf(s.recip());
    (k as usize).max(1)
}
