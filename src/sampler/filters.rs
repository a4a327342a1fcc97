//! The samplers that narrow the choice, and the temperature. Each takes the list and leaves fewer candidates in it,
//! never none.

use super::candidates::Candidates;
use super::rng::Rng;

/// The least logit that top-n-sigma keeps: `n` standard deviations under the largest. Tokens that are out of the
/// running (negative infinity or NaN) do not count.
pub(super) fn sigma_floor(logits: &[f32], n: f32) -> f32 {
    // Eight sums side by side, so that they become vector code; f64, so that the variance does not drown in rounding.
    const LANES: usize = 8;
    let (mut count, mut sum, mut squares) = ([0u32; LANES], [0f64; LANES], [0f64; LANES]);
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut add = |block: &[f32; LANES]| {
        for (lane, &logit) in block.iter().enumerate() {
            let counts = logit > f32::NEG_INFINITY;
            let x = if counts { logit.min(f32::MAX) } else { 0.0 };
            count[lane] += u32::from(counts);
            sum[lane] += f64::from(x);
            squares[lane] += f64::from(x) * f64::from(x);
            max[lane] = if logit > max[lane] { x } else { max[lane] };
        }
    };
    let (blocks, rest) = logits.as_chunks::<LANES>();
    blocks.iter().for_each(&mut add);
    let mut last = [f32::NAN; LANES];
    last.iter_mut().zip(rest).for_each(|(place, &logit)| *place = logit);
    add(&last);
    let max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let count = f64::from(count.iter().sum::<u32>().max(1));
    let mean = sum.iter().sum::<f64>() / count;
    let variance = (squares.iter().sum::<f64>() / count - mean * mean).max(0.0);
    (f64::from(max) - f64::from(n) * variance.sqrt()) as f32
}

/// Keeps the candidates whose surprise is nearest to the entropy, until they hold more than `p`.
///
/// A candidate's surprise is `ln Σe^l − l`, and the entropy is the mean of that: so the distance between the two is the
/// distance of the logit from the mean logit.
pub(super) fn typical_p(list: &mut Candidates, p: f32, min_keep: usize) {
    if p >= 1.0 {
        return;
    }
    list.softmax();
    let mean: f64 = list.as_slice().iter().map(|item| f64::from(item.probability) * f64::from(item.logit)).sum();
    let mean = mean as f32;
    list.keep_nearest(|logit| (logit - mean).abs(), |share, kept| share > f64::from(p) && kept >= min_keep);
}

/// Keeps the best candidates until they hold at least `p`.
pub(super) fn top_p(list: &mut Candidates, p: f32, min_keep: usize) {
    if p >= 1.0 {
        return;
    }
    let likeliest = list.softmax();
    // All candidates together that are less likely than this hold less than half of what may go: so they all go.
    let least = 0.5 * (1.0 - p) / list.len() as f32;
    list.keep_from(list.max_logit() + (least / likeliest).ln(), min_keep);
    let mut share = 0.0;
    let mut kept = 0;
    let mut sorted = 0;
    while sorted < list.len() {
        // Sorted in growing stretches: the first is usually enough.
        sorted = (sorted * 8).max(64).min(list.len());
        list.sort_front(sorted);
        for item in list.as_slice().iter().take(sorted).skip(kept) {
            share += f64::from(item.probability);
            kept += 1;
            if share >= f64::from(p) && kept >= min_keep {
                list.keep_front(kept);
                return;
            }
        }
    }
}

/// Keeps the candidates at least `p` times as likely as the best.
pub(super) fn min_p(list: &mut Candidates, p: f32, min_keep: usize) {
    if p <= 0.0 {
        return;
    }
    list.keep_from(min_p_floor(list, p), min_keep.max(1));
    list.sort_front(list.len());
}

/// The least logit that min-p keeps: that of a token `p` times as likely as the best.
pub(super) fn min_p_floor(list: &Candidates, p: f32) -> f32 {
    list.max_logit() + p.ln()
}

/// With `probability`, removes all candidates of at least `threshold` but the last of them.
pub(super) fn xtc(list: &mut Candidates, probability: f32, threshold: f32, min_keep: usize, rng: &mut Rng) {
    if probability <= 0.0 || threshold > 0.5 || list.len() < 2 || rng.uniform() > f64::from(probability) {
        return;
    }
    list.softmax();
    let likely = list.as_slice().iter().filter(|item| item.probability >= threshold).count();
    let removed = likely.saturating_sub(1);
    if list.len() - removed >= min_keep {
        list.drop_front(removed);
    }
}

/// Divides the logits by a temperature: a fixed one, or one that follows the entropy within `range` to either side.
pub(super) fn temperature(list: &mut Candidates, temperature: f32, range: f32, exponent: f32) {
    let mut temperature = temperature;
    if range > 0.0 && list.len() > 1 {
        list.softmax();
        let surprise = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
        let entropy: f64 = list.as_slice().iter().map(|item| surprise(f64::from(item.probability))).sum();
        let indecision = (entropy / (list.len() as f64).ln()).clamp(0.0, 1.0) as f32;
        let lowest = (temperature - range).max(0.0);
        temperature = lowest + (temperature + range - lowest) * indecision.powf(exponent);
    }
    if temperature > 0.0 {
        list.scale(temperature);
    } else {
        list.keep_front(1);
    }
}
