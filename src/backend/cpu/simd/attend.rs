//! Softmaxes that take in keys and values page by page.

use super::float::Product;
use super::rows::{exp, softcap};
use super::{Isa, LANES, Task};
use crate::cache::PAGE_POSITIONS;
use std::ops::Range;

/// Positions of a page.
pub(crate) const PAGE: usize = PAGE_POSITIONS as usize;
/// Queries for which values are added up at a time, and vectors of each sum: together as many as keep the unit busy.
const QUERIES: usize = 4;
const VECTORS: usize = 2;

/// The softmaxes of some queries, not finished: sums of values, weighted by exponentials of scores less the highest yet.
#[derive(Debug, Default)]
pub(crate) struct Softmaxes {
    scores: Vec<[f32; PAGE]>, // [queries], of the page at hand, then the weights
    highest: Vec<f32>,        // [queries]
    total: Vec<f32>,          // [queries]
    sum: Vec<f32>,            // [queries, value_size]
}

impl Softmaxes {
    /// Starts again with so many queries.
    pub fn reset(&mut self, queries: usize, value_size: usize) {
        self.scores.resize(queries, [0.0; PAGE]);
        for (numbers, count, start) in [
            (&mut self.highest, queries, f32::NEG_INFINITY),
            (&mut self.total, queries, 0.0),
            (&mut self.sum, queries * value_size, 0.0),
        ] {
            numbers.clear();
            numbers.resize(count, start);
        }
    }

    /// Each query's weighted sum of values, and the total of its weights.
    fn sums(&self, value_size: usize) -> impl Iterator<Item = (&[f32], f32)> {
        self.sum.chunks_exact(value_size.max(1)).zip(self.total.iter().copied())
    }

    /// Each query's weighted sum of values, and the factor that makes a mean of it. Of some there is one more score, of nothing.
    pub fn means(&self, value_size: usize, sink: impl Fn(usize) -> Option<f32>) -> impl Iterator<Item = (&[f32], f32)> {
        let highest = self.highest.iter();
        self.sums(value_size).zip(highest).enumerate().map(move |(query, ((sum, total), highest))| {
            // Where nothing comes near the sink, its exponential is too large for a number, and the mean zero.
            let nothing = sink(query).map_or(0.0, |sink| (sink - highest).exp());
            (sum, 1.0 / (total + nothing))
        })
    }

    /// Takes in what other pages gave the same queries.
    pub fn join(&mut self, other: &Softmaxes, value_size: usize) {
        if self.total.is_empty() {
            self.reset(other.total.len(), value_size);
        }
        for (query, (sum, total)) in other.sums(value_size).enumerate() {
            let highest = other.highest[query];
            let weight = self.raise(query, highest, value_size);
            self.total[query] += weight * total;
            let own = &mut self.sum[query * value_size..][..value_size];
            own.iter_mut().zip(sum).for_each(|(own, sum)| *own += weight * sum);
        }
    }

    /// Makes the highest score of a query at least `score`, scaling what there is. Returns what a weight under `score`
    /// as the highest is worth now.
    #[inline(always)]
    fn raise(&mut self, query: usize, score: f32, value_size: usize) -> f32 {
        let highest = self.highest[query];
        if score <= highest {
            return if score == f32::NEG_INFINITY { 0.0 } else { (score - highest).exp() };
        }
        if highest != f32::NEG_INFINITY {
            let shrink = (highest - score).exp();
            self.total[query] *= shrink;
            self.sum[query * value_size..][..value_size].iter_mut().for_each(|sum| *sum *= shrink);
        }
        self.highest[query] = score;
        1.0
    }
}

/// A page to be taken in.
pub(crate) struct Page<'a, Q, P> {
    /// The query of each softmax: `[key_size]`.
    pub query_of: Q,
    /// The positions of the page that it sees.
    pub seen_by: P,
    /// For each softmax, what is taken off scores for each step away from where it stands in the page, and where that is.
    pub fading_of: Option<&'a dyn Fn(usize) -> (f32, f32)>,
    pub keys: &'a [f32], // [PAGE, key_size]
    pub key_size: usize,
    pub values: &'a [f32], // [PAGE, value_stride]
    pub value_size: usize,
    pub value_stride: usize,
    pub scale: f32,
    pub softcap: Option<f32>,
    pub softmaxes: &'a mut Softmaxes,
}

impl<'q, Q: Fn(usize) -> &'q [f32], P: Fn(usize) -> Range<usize>> Task for Page<'_, Q, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        let queries = self.softmaxes.scores.len();
        let scores = self.softmaxes.scores.as_flattened_mut();
        scores.fill(0.0);
        Product { rows: self.keys, columns: self.key_size, x: &self.query_of, tokens: queries, out: scores }.run(s);
        for query in 0..queries {
            self.weigh(query);
        }
        let mut query = 0;
        while query + QUERIES <= queries {
            self.add_values::<S, QUERIES>(s, query);
            query += QUERIES;
        }
        while query < queries {
            self.add_values::<S, 1>(s, query);
            query += 1;
        }
    }
}

impl<Q, P: Fn(usize) -> Range<usize>> Page<'_, Q, P> {
    /// Makes weights of the scores of a query.
    #[inline(always)]
    fn weigh(&mut self, query: usize) {
        let seen = (self.seen_by)(query);
        let mut scores = self.softmaxes.scores[query];
        match self.softcap {
            Some(cap) => scores.iter_mut().for_each(|score| *score = softcap(*score * self.scale, cap)),
            None => scores.iter_mut().for_each(|score| *score *= self.scale),
        }
        if let Some(fading_of) = self.fading_of {
            let (slope, own) = fading_of(query);
            scores.iter_mut().enumerate().for_each(|(at, score)| *score -= slope * (at as f32 - own).abs());
        }
        scores[..seen.start].fill(f32::NEG_INFINITY);
        scores[seen.end.max(seen.start)..].fill(f32::NEG_INFINITY);
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for eight in scores.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                lanes[lane] = if eight[lane] > lanes[lane] { eight[lane] } else { lanes[lane] };
            }
        }
        let highest = lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if seen.is_empty() {
            self.softmaxes.scores[query] = [0.0; PAGE];
            return;
        }
        self.softmaxes.raise(query, highest, self.value_size);
        let highest = self.softmaxes.highest[query];
        scores.iter_mut().for_each(|score| *score = exp(*score - highest));
        let mut lanes = [0.0; LANES];
        for eight in scores.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                lanes[lane] += eight[lane];
            }
        }
        self.softmaxes.total[query] += lanes.iter().sum::<f32>();
        self.softmaxes.scores[query] = scores;
    }

    /// Adds the page's values to the sums of N queries.
    #[inline(always)]
    fn add_values<S: Isa, const N: usize>(&mut self, s: S, query: usize) {
        let (size, stride) = (self.value_size, self.value_stride);
        let Softmaxes { scores, sum, .. } = &mut *self.softmaxes;
        let Some(weights) = scores.get(query..).and_then(|scores| scores.first_chunk::<N>()) else { return };
        let seen = (0..N).map(|i| (self.seen_by)(query + i)).filter(|seen| !seen.is_empty());
        let Some(seen) = seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)) else { return };
        let values = &self.values[seen.start * stride..seen.end * stride];
        let mut column = 0;
        while column + VECTORS * LANES <= size {
            let mut sums = [[s.splat_f32(0.0); VECTORS]; N];
            for i in 0..N {
                for v in 0..VECTORS {
                    sums[i][v] = s.load_f32(&sum[(query + i) * size + column + v * LANES..]);
                }
            }
            for (position, value) in values.chunks_exact(stride).enumerate() {
                let position = (seen.start + position) % PAGE;
                for v in 0..VECTORS {
                    let value = s.load_f32(&value[column + v * LANES..]);
                    for i in 0..N {
                        sums[i][v] = s.mul_add_f32(s.splat_f32(weights[i][position]), value, sums[i][v]);
                    }
                }
            }
            for i in 0..N {
                for v in 0..VECTORS {
                    if let Some(out) = sum[(query + i) * size + column + v * LANES..].first_chunk_mut() {
                        *out = s.lanes(sums[i][v]);
                    }
                }
            }
            column += VECTORS * LANES;
        }
        for i in 0..N {
            let sum = &mut sum[(query + i) * size..][..size];
            for (position, value) in values.chunks_exact(stride).enumerate().filter(|_| column < size) {
                let weight = weights[i][(seen.start + position) % PAGE];
                sum[column..].iter_mut().zip(&value[column..size]).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }
}
