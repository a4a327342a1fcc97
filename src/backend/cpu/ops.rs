//! Every op in plain Rust: the executable specification.
//!
//! One function an op, in `f32`, one row at a time, without tricks. The fast kernels of the CPU and the shaders of the
//! GPU are held to these, and the program of a golden model run by them is held to the reference's logits. Functions
//! know nothing of programs or slots; shapes stand in the comments.

use crate::program::{Activation, Gating, NormKind, RopeStyle, Routing, Runs, Scan, State};

/// The dot product of two vectors of one length.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums side by side: rounding errors grow more slowly than in one, and processors like it.
    let (a_chunks, a_rest) = a.as_chunks::<8>();
    let (b_chunks, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Normalises each group of a row, then multiplies and adds. Weights are as long as a group, or as the whole row.
pub fn norm(
    kind: NormKind,
    row: &mut [f32], // [width]
    group: usize,
    epsilon: f32,
    weight: Option<&[f32]>, // [group] or [width]
    bias: Option<&[f32]>,   // as weight
) {
    for values in row.chunks_mut(group) {
        let count = values.len() as f32;
        if kind == NormKind::Layer {
            let mean = values.iter().sum::<f32>() / count;
            values.iter_mut().for_each(|value| *value -= mean);
        }
        let squares: f32 = values.iter().map(|value| value * value).sum();
        let scale = match kind {
            NormKind::Rms | NormKind::Layer => 1.0 / (squares / count + epsilon).sqrt(),
            NormKind::L2 => 1.0 / squares.sqrt().max(epsilon),
        };
        values.iter_mut().for_each(|value| *value *= scale);
    }
    for (i, value) in row.iter_mut().enumerate() {
        if let Some(weight) = weight {
            *value *= weight[i % weight.len()];
        }
        if let Some(bias) = bias {
            *value += bias[i % bias.len()];
        }
    }
}

/// Turns the first `2 * angles.len()` numbers of each head.
pub fn rotate(
    row: &mut [f32], // [heads, head_size]
    head_size: usize,
    style: RopeStyle,
    angles: &[f32], // [pairs], of one position
    magnitude: f32,
    position: usize,
) {
    let pairs = angles.len();
    for head in row.chunks_mut(head_size) {
        for (pair, angle) in angles.iter().enumerate() {
            let (first, second) = match style {
                RopeStyle::Adjacent => (2 * pair, 2 * pair + 1),
                RopeStyle::Halves => (pair, pair + pairs),
            };
            let (sin, cos) = (position as f32 * angle).sin_cos();
            let (x, y) = (head[first], head[second]);
            head[first] = (x * cos - y * sin) * magnitude;
            head[second] = (x * sin + y * cos) * magnitude;
        }
    }
}

/// What distance takes off scores: so much a step, from where the token stands among those it sees.
#[derive(Debug, Clone, Copy)]
pub struct Fading {
    /// How much for each step.
    pub slope: f32,
    /// The index of the token itself among the keys.
    pub own: usize,
}

/// Attention of one head of one token: the sum of the values, weighted by how well the keys fit the query.
///
/// `keys` and `values` go through the positions that the token sees, in the same order. A sink is one more score, of
/// nothing.
pub fn attend<'a>(
    query: &[f32], // [key_size]
    keys: impl Iterator<Item = &'a [f32]>,
    values: impl Iterator<Item = &'a [f32]>,
    scale: f32,
    softcap: Option<f32>,
    sink: Option<f32>,
    sum: &mut [f32], // [value_size]
) {
    attend_fading(query, keys, values, (scale, softcap, sink), None, sum);
}

/// The same, with scores that fade with distance.
pub fn attend_fading<'a>(
    query: &[f32], // [key_size]
    keys: impl Iterator<Item = &'a [f32]>,
    values: impl Iterator<Item = &'a [f32]>,
    (scale, softcap, sink): (f32, Option<f32>, Option<f32>),
    fading: Option<Fading>,
    sum: &mut [f32], // [value_size]
) {
    let score = |(index, key): (usize, &[f32])| {
        let score = dot(query, key) * scale;
        let score = softcap.map_or(score, |cap| self::softcap(score, cap));
        score - fading.map_or(0.0, |fading| fading.slope * index.abs_diff(fading.own) as f32)
    };
    let mut weights: Vec<f32> = keys.enumerate().map(score).chain(sink).collect();
    softmax(&mut weights);
    sum.fill(0.0);
    for (weight, value) in weights.iter().zip(values) {
        for (sum, value) in sum.iter_mut().zip(value) {
            *sum += weight * value;
        }
    }
}

/// What a step of a linear recurrence does to one head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fade {
    /// What is left of the matrix.
    pub keep: f32,
    /// How much is written to it.
    pub write: f32,
    /// How much of the value is added to what is read.
    pub skip: f32,
}

impl Fade {
    /// From the head's own numbers.
    pub fn new(step: f32, decay: f32, write: Option<f32>, skip: Option<f32>) -> Self {
        // Beyond 20 nothing is added any more.
        let step = if step > 20.0 { step } else { step.exp().ln_1p() };
        Fade {
            keep: (step * decay).exp(),
            write: write.map_or(step, |write| activate(Activation::Sigmoid, write)),
            skip: skip.unwrap_or(0.0),
        }
    }
}

/// One step of one head of a linear recurrence.
pub fn scan(
    scan: &Scan,
    state: &State,
    head: usize,
    row: &[f32], // a row of the input
    fade: Fade,
    matrix: &mut [f32], // [value_size, key_size]
    out: &mut [f32],    // [value_size]
) {
    let (mut query, mut key) = (vec![], vec![]);
    let value = scanned(scan, state, head, row, [&mut query, &mut key]);
    for ((cells, value), out) in matrix.chunks_mut(state.key_size.max(1)).zip(value).zip(out) {
        cells.iter_mut().for_each(|cell| *cell *= fade.keep);
        let known = if scan.writes.is_some() { dot(cells, &key) } else { 0.0 };
        let write = fade.write * (value - known);
        cells.iter_mut().zip(&key).for_each(|(cell, key)| *cell += write * key);
        *out = dot(cells, &query) + fade.skip * value;
    }
}

/// Fills in a head's query and key, as they are used; returns its value.
pub fn scanned<'a>(
    scan: &Scan,
    state: &State,
    head: usize,
    row: &'a [f32], // a row of the input
    [query, key]: [&mut Vec<f32>; 2],
) -> &'a [f32] {
    let State { heads, key_size, value_size, .. } = *state;
    let key_head = scan.served.by(head, heads, scan.key_heads);
    for (out, start, factor) in [(query, scan.queries, scan.scale), (key, scan.keys, 1.0)] {
        let part = &row[start + key_head * key_size..][..key_size];
        let squares: f32 = part.iter().map(|x| x * x).sum();
        let factor = scan.normalise.map_or(factor, |epsilon| factor / (squares + epsilon).sqrt());
        out.clear();
        out.extend(part.iter().map(|x| x * factor));
    }
    &row[scan.values + head * value_size..][..value_size]
}

/// A causal convolution of each column by itself. Tokens before the first are zero.
pub fn convolve<'a>(
    rows: impl DoubleEndedIterator<Item = &'a [f32]>, // [width] each, of the last tokens, the latest last
    weight: &[f32],                                   // [width, kernel]
    sums: &mut [f32],                                 // [width]
) {
    let kernel = weight.len() / sums.len().max(1);
    sums.fill(0.0);
    for (tap, row) in (0..kernel).rev().zip(rows.rev()) {
        for ((sum, x), weights) in sums.iter_mut().zip(row).zip(weight.chunks(kernel)) {
            *sum += x * weights[tap];
        }
    }
}

/// Exponentials, scaled so that they add up to one.
pub fn softmax(values: &mut [f32]) {
    let highest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|value| *value = (*value - highest).exp());
    let scale = 1.0 / values.iter().sum::<f32>();
    values.iter_mut().for_each(|value| *value *= scale);
}

/// Where [`Activation::ClampedSilu`] ends.
const CLAMP: f32 = 7.0;

/// A gated unit.
pub fn gate(activation: Activation, gate: f32, up: f32) -> f32 {
    let up = if activation == Activation::ClampedSilu { up.clamp(-CLAMP, CLAMP) + 1.0 } else { up };
    activate(activation, gate) * up
}

/// What queries are multiplied with at a position, in models that temper them.
pub fn temper(position: usize, slope: f32, interval: usize, offset: usize) -> f32 {
    let intervals = (position + offset) / interval.max(1);
    1.0 + slope * (1.0 + intervals as f32).ln()
}

/// The curve between the matrices of a feed-forward.
pub fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::ClampedSilu => {
            let x = x.min(CLAMP);
            x / (1.0 + (-1.702 * x).exp())
        }
        Activation::Identity => x,
        Activation::Gelu => {
            const ROOT_2_OVER_PI: f32 = 0.797_884_6;
            0.5 * x * (1.0 + (ROOT_2_OVER_PI * x * (1.0 + 0.044_715 * x * x)).tanh())
        }
        Activation::SquaredRelu => x.max(0.0) * x.max(0.0),
        Activation::Tanh => x.tanh(),
    }
}

/// Chooses experts by their logits: the numbers of those that are chosen, the best first, then their weights. Of equals
/// the first is better. There may be a bias and scales: see [`Routing`].
pub fn route(
    logits: &[f32], // [experts]
    routing: &Routing,
    [bias, scales]: [Option<&[f32]>; 2], // [experts]
    routes: &mut [f32],                  // [2, used]
) {
    let sigmoid = |x: &mut f32| *x = 1.0 / (1.0 + (-*x).exp());
    let mut weights = logits.to_vec();
    match routing.gating {
        Gating::Softmax => softmax(&mut weights),
        Gating::Sigmoid => weights.iter_mut().for_each(sigmoid),
        Gating::RootSoftplus => weights.iter_mut().for_each(|x| *x = (x.max(0.0) + (-x.abs()).exp().ln_1p()).sqrt()),
        Gating::SoftmaxOfChosen | Gating::SigmoidOfChosen => {}
    }
    let mut scores = weights.clone();
    for (score, bias) in scores.iter_mut().zip(bias.unwrap_or_default()) {
        *score += bias;
    }
    let (chosen, chosen_weights) = routes.split_at_mut(routing.used);
    let experts = best(&allowed(&scores, routing), routing.used);
    for ((number, weight), &expert) in chosen.iter_mut().zip(&mut *chosen_weights).zip(&experts) {
        (*number, *weight) = (expert as f32, weights[expert]);
    }
    match routing.gating {
        Gating::SoftmaxOfChosen => softmax(chosen_weights),
        Gating::SigmoidOfChosen => chosen_weights.iter_mut().for_each(sigmoid),
        _ => {}
    }
    // Sums of nearly nothing are not divided by: the smallest number of 16 bits that is not subnormal.
    const SMALLEST_SUM: f32 = 6.103_515_6e-5;
    let sum: f32 = chosen_weights.iter().sum();
    let divisor = if routing.normalise { sum.max(SMALLEST_SUM) } else { 1.0 };
    chosen_weights.iter_mut().for_each(|weight| *weight = *weight / divisor * routing.scale);
    if let Some(scales) = scales {
        chosen_weights.iter_mut().zip(&experts).for_each(|(weight, &expert)| *weight *= scales[expert]);
    }
}

/// The scores, less than all others where the expert's group is not among the best.
fn allowed(scores: &[f32], routing: &Routing) -> Vec<f32> {
    if routing.groups <= 1 {
        return scores.to_vec();
    }
    let size = (scores.len() / routing.groups).max(1);
    let of_group = |group: &[f32]| best(group, 2).iter().map(|&expert| group[expert]).sum();
    let groups = best(&scores.chunks(size).map(of_group).collect::<Vec<f32>>(), routing.used_groups);
    let allowed = |(expert, &score)| if groups.contains(&(expert / size)) { score } else { f32::NEG_INFINITY };
    scores.iter().enumerate().map(allowed).collect()
}

/// Where the highest scores are, the highest first.
fn best(scores: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a])); // keeps the order of equals
    order.truncate(count);
    order
}

/// The weighted sum of what experts came to.
pub fn mix(
    parts: &[f32],   // [used, width]
    weights: &[f32], // [used]
    sum: &mut [f32], // [width]
) {
    sum.fill(0.0);
    for (part, weight) in parts.chunks(sum.len().max(1)).zip(weights) {
        sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += weight * value);
    }
}

/// Takes runs of numbers from one row to another.
pub fn copy(runs: &Runs, from: &[f32], to: &mut [f32]) {
    for i in 0..runs.count {
        let source = &from[runs.from_start + i * runs.from_stride..][..runs.size];
        to[runs.to_start + i * runs.to_stride..][..runs.size].copy_from_slice(source);
    }
}

/// Squeezes between plus and minus `cap`.
pub fn softcap(x: f32, cap: f32) -> f32 {
    cap * (x / cap).tanh()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{SlotId, WeightId};

    #[track_caller]
    fn assert_near(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} is not {expected:?}");
    }

    #[test]
    fn dots_count_every_element() {
        for length in 0..40 {
            let a: Vec<f32> = (0..length).map(|i| i as f32).collect();
            assert_eq!(dot(&a, &vec![1.0; length]), (0..length).sum::<usize>() as f32);
        }
    }

    #[test]
    fn norms_work_by_group() {
        let mut row = [3.0, 4.0, 0.0, 2.0];
        norm(NormKind::L2, &mut row, 2, 1e-6, None, None);
        assert_near(&row, &[0.6, 0.8, 0.0, 1.0]);
        let mut row = [1.0, 7.0, 2.0, 2.0];
        norm(NormKind::Rms, &mut row, 2, 0.0, Some(&[1.0, 10.0]), Some(&[0.5, 0.0]));
        assert_near(&row, &[0.7, 14.0, 1.5, 10.0]);
        let mut row = [1.0, 3.0];
        norm(NormKind::Layer, &mut row, 2, 0.0, None, None);
        assert_near(&row, &[-1.0, 1.0]);
    }

    #[test]
    fn rotations_turn_pairs_and_leave_the_rest() {
        let quarter = std::f32::consts::FRAC_PI_2;
        let mut row = [1.0, 2.0, 3.0, 4.0, 9.0];
        rotate(&mut row, 5, RopeStyle::Adjacent, &[quarter, 0.0], 1.0, 1);
        assert_near(&row, &[-2.0, 1.0, 3.0, 4.0, 9.0]);
        let mut row = [1.0, 2.0, 3.0, 4.0, 9.0];
        rotate(&mut row, 5, RopeStyle::Halves, &[quarter, 0.0], 2.0, 2);
        assert_near(&row, &[-2.0, 4.0, -6.0, 8.0, 9.0]);
    }

    #[test]
    fn attention_weighs_values_by_softmax() {
        let (keys, values): ([&[f32]; 2], [&[f32]; 2]) = ([&[0.0], &[1.0]], [&[1.0, 0.0], &[0.0, 1.0]]);
        let mut sum = [7.0; 2];
        attend(&[3f32.ln()], keys.into_iter(), values.into_iter(), 1.0, None, None, &mut sum);
        assert_near(&sum, &[0.25, 0.75]);
        attend(&[1e9], keys.into_iter(), values.into_iter(), 1.0, Some(3f32.ln()), None, &mut sum);
        assert_near(&sum, &[0.25, 0.75]); // the cap holds the score at ln 3
        attend(&[3f32.ln()], keys.into_iter(), values.into_iter(), 1.0, None, Some(4f32.ln()), &mut sum);
        assert_near(&sum, &[0.125, 0.375]); // half of the weight goes into the sink
    }

    #[test]
    fn far_tokens_fade() {
        let (keys, values): ([&[f32]; 3], [&[f32]; 3]) = ([&[0.0]; 3], [&[1.0, 0.0], &[0.0, 1.0], &[0.0, 0.0]]);
        let (mut sum, fading) = ([7.0; 2], Fading { slope: 2f32.ln(), own: 1 });
        attend_fading(&[1.0], keys.into_iter(), values.into_iter(), (1.0, None, None), Some(fading), &mut sum);
        assert_near(&sum, &[0.25, 0.5]); // halves on either side
    }

    #[test]
    fn curves_have_their_known_values() {
        assert_near(&[activate(Activation::Silu, 1.0), activate(Activation::Gelu, 1.0)], &[0.731_058_6, 0.841_192]);
        assert_near(
            &[activate(Activation::Gelu, -10.0), softcap(2.0, 2.0), softcap(-500.0, 30.0)],
            &[0.0, 1.523_188_3, -30.0],
        );
        let clamped = |gate, up| self::gate(Activation::ClampedSilu, gate, up);
        assert_near(&[clamped(1.0, 0.5), clamped(-1.0, -9.0)], &[0.845_795_8 * 1.5, -0.154_204_2 * -6.0]);
        assert_eq!([clamped(9.0, 9.0), clamped(7.0, 7.0)], [clamped(100.0, 8.0); 2]);
        assert_near(&[self::gate(Activation::Silu, 1.0, 2.0)], &[2.0 * 0.731_058_6]);
    }

    /// Routes by 0, ln 2, ln 3 and ln 4: by softmax, tenths.
    #[track_caller]
    fn assert_routes(routing: Routing, bias: Option<&[f32]>, experts: &[f32], weights: &[f32]) {
        let logits = [1f32, 2.0, 3.0, 4.0].map(f32::ln);
        let mut routes = vec![7.0; 2 * routing.used];
        let scales = routing.scales.map(|_| &[10.0f32, 20.0, 30.0, 40.0][..]);
        route(&logits, &routing, [bias, scales], &mut routes);
        assert_eq!(&routes[..routing.used], experts);
        assert_near(&routes[routing.used..], weights);
    }

    #[test]
    fn routers_choose_the_best() {
        let gating = Gating::Softmax;
        let (used, normalise, scale) = (2, false, 1.0);
        let plain = Routing { gating, bias: None, groups: 1, used_groups: 1, used, normalise, scale, scales: None };
        assert_routes(plain, None, &[3.0, 2.0], &[0.4, 0.3]);
        assert_routes(Routing { scale: 2.5, ..plain }, None, &[3.0, 2.0], &[1.0, 0.75]);
        let normalised = Routing { normalise: true, ..plain };
        assert_routes(normalised, None, &[3.0, 2.0], &[4.0 / 7.0, 3.0 / 7.0]);
        assert_routes(Routing { gating: Gating::SoftmaxOfChosen, ..plain }, None, &[3.0, 2.0], &[4.0 / 7.0, 3.0 / 7.0]);
        assert_routes(Routing { gating: Gating::Sigmoid, ..plain }, None, &[3.0, 2.0], &[0.8, 0.75]);
        assert_routes(Routing { gating: Gating::SigmoidOfChosen, ..plain }, None, &[3.0, 2.0], &[0.8, 0.75]);
        assert_routes(Routing { scales: Some(WeightId(0)), ..plain }, None, &[3.0, 2.0], &[16.0, 9.0]);
        let roots = [5f32.ln().sqrt(), 4f32.ln().sqrt()]; // ln(1 + e^(ln 4))
        assert_routes(Routing { gating: Gating::RootSoftplus, ..plain }, None, &[3.0, 2.0], &roots);
        // A bias chooses and does not weigh; of equals the first is chosen.
        assert_routes(plain, Some(&[1.0, 0.0, 0.1, 0.0]), &[0.0, 2.0], &[0.1, 0.3]);
        // Weights of nearly nothing stay that.
        let mut routes = [0.0; 4];
        route(&[-50.0; 3], &Routing { gating: Gating::Sigmoid, ..normalised }, [None; 2], &mut routes);
        assert!(routes[2] < 1e-10 && routes[..2] == [0.0, 1.0], "{routes:?}");
        // Logits tell experts apart that all count fully.
        let plain = Routing { used: 1, ..plain };
        for (gating, best) in [(Gating::Sigmoid, 0.0), (Gating::SigmoidOfChosen, 1.0)] {
            route(&[30.0, 31.0], &Routing { gating, ..plain }, [None; 2], &mut routes[..2]);
            assert_eq!(routes[..2], [best, 1.0]);
        }
    }

    #[test]
    fn routers_choose_among_the_best_groups() {
        let routing = Routing {
            gating: Gating::Softmax,
            bias: None,
            groups: 2,
            used_groups: 1,
            used: 2,
            normalise: false,
            scale: 1.0,
            scales: None,
        };
        assert_routes(routing, None, &[3.0, 2.0], &[0.4, 0.3]);
        // The group with the best two, not that with the best one.
        assert_routes(routing, Some(&[0.35, 0.3, 0.0, 0.1]), &[1.0, 0.0], &[0.2, 0.1]);
        assert_routes(Routing { used_groups: 2, ..routing }, Some(&[0.35, 0.0, 0.0, 0.0]), &[0.0, 3.0], &[0.1, 0.4]);
    }

    #[test]
    fn mixtures_are_weighted_sums() {
        let mut sum = [9.0; 2];
        mix(&[1.0, 2.0, 10.0, 20.0], &[0.5, 0.1], &mut sum);
        assert_near(&sum, &[1.5, 3.0]);
    }

    #[test]
    fn convolutions_weigh_the_last_tokens() {
        let rows: [&[f32]; 3] = [&[1.0, 10.0], &[2.0, 20.0], &[3.0, 30.0]];
        let (mut sums, weight) = ([7.0; 2], [100.0, 10.0, 1.0, 0.0, 0.0, 1.0]);
        convolve(rows.into_iter(), &weight, &mut sums);
        assert_near(&sums, &[123.0, 30.0]);
        convolve(rows[1..].iter().copied(), &weight, &mut sums);
        assert_near(&sums, &[23.0, 30.0]); // nothing stands before the first
    }

    #[test]
    fn copies_take_runs() {
        let runs =
            Runs { from: SlotId(0), from_start: 1, from_stride: 3, to_start: 0, to_stride: 2, size: 2, count: 2 };
        let mut to = [0.0; 5];
        copy(&runs, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &mut to);
        assert_eq!(to, [1.0, 2.0, 4.0, 5.0, 0.0]);
        copy(&Runs { from_stride: 0, ..runs }, &[0.0, 1.0, 2.0], &mut to);
        assert_eq!(to, [1.0, 2.0, 1.0, 2.0, 0.0]);
    }

    #[test]
    fn squares_of_what_is_positive() {
        assert_near(&[-2.0, 0.0, 3.0].map(|x| activate(Activation::SquaredRelu, x)), &[0.0, 0.0, 9.0]);
    }

    #[test]
    fn tempering_grows_by_intervals() {
        let factors = [0, 6, 7, 8, 15].map(|position| temper(position, 0.5, 8, 1));
        assert_near(&factors, &[1.0, 1.0, 1.0 + 0.5 * 2f32.ln(), 1.0 + 0.5 * 2f32.ln(), 1.0 + 0.5 * 3f32.ln()]);
        assert_near(&[temper(7, 0.5, 8, 0), temper(8, 0.5, 8, 0)], &[1.0, 1.0 + 0.5 * 2f32.ln()]);
    }
}
