//! The tokens that are still in the running, and as much of their order as somebody asked for.
//!
//! Sorting a vocabulary costs milliseconds, and no sampler looks at more than the front of the order, so the list is
//! sorted from the front only as far as needed.
//!
//! Invariants: logits are finite; the first `sorted` items are in order, and no item after them ranks before one of
//! them. The order is total (larger logits first, equal ones by token), so that a choice depends on nothing else.

use std::cmp::Ordering;

/// A token in the running.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token's id.
    pub token: u32,
    /// Its logit after biases, penalties and temperature; the latter shifts the largest to 0.
    pub logit: f32,
    /// Its probability among the candidates.
    pub probability: f32,
}

impl Candidate {
    /// Likelier first, then by token.
    fn rank(&self, other: &Self) -> Ordering {
        // Logits are finite, so they always compare; unlike `total_cmp` this takes the two zeros for equal.
        other.logit.partial_cmp(&self.logit).unwrap_or(Ordering::Equal).then(self.token.cmp(&other.token))
    }
}

/// The list. See the module for its invariants.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    items: Vec<Candidate>,
    sorted: usize,
}

/// Logits looked at together: wide enough that a vector unit compares them in a few instructions.
const BLOCK: usize = 32;

impl Candidates {
    pub(super) fn as_slice(&self) -> &[Candidate] {
        &self.items
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.sorted = 0;
    }

    /// Adds a token, unless its logit is NaN or negative infinity. Positive infinity counts as the largest number.
    pub(super) fn push(&mut self, token: u32, logit: f32) {
        if logit > f32::NEG_INFINITY {
            self.items.push(Candidate { token, logit: logit.min(f32::MAX), probability: 0.0 });
        }
    }

    /// Takes the `k` best of a vocabulary's logits, those below `floor` left out.
    ///
    /// One pass: a token enters if it beats the worst of the best `k` so far, and whenever twice that many have
    /// gathered, the lower half goes. Of random logits only some hundreds ever enter.
    pub(super) fn gather(&mut self, logits: &[f32], k: usize, floor: f32) {
        self.clear();
        let room = k.saturating_mul(2).max(256);
        let mut bar = floor.next_down();
        let (blocks, rest) = logits.as_chunks::<BLOCK>();
        let blocks = blocks.iter().map(|block| &block[..]).chain([rest]);
        for (block, first) in blocks.zip((0..).step_by(BLOCK)) {
            // No early exit, so that this becomes vector code. NaN is never above the bar.
            if !block.iter().fold(false, |any, &logit| any | (logit > bar)) {
                continue;
            }
            for (&logit, token) in block.iter().zip(first..) {
                if logit > bar {
                    self.push(token, logit);
                }
            }
            if self.items.len() >= room {
                // Tokens come in rising order, so that one equal to the bar ranks behind those that are in.
                bar = bar.max(self.keep_best(k));
            }
        }
        self.keep_best(k);
    }

    /// Drops all but the `k` best, in no order. Returns the worst logit kept, if any were dropped.
    fn keep_best(&mut self, k: usize) -> f32 {
        if k >= self.items.len() || k == 0 {
            return f32::NEG_INFINITY;
        }
        let (_, worst, _) = self.items.select_nth_unstable_by(k - 1, Candidate::rank);
        let bar = worst.logit;
        self.items.truncate(k);
        bar
    }

    /// The likeliest token of a vocabulary, if any has a logit above negative infinity.
    pub(super) fn gather_best(&mut self, logits: &[f32]) {
        self.clear();
        let mut best = (0, f32::NEG_INFINITY);
        let (blocks, rest) = logits.as_chunks::<BLOCK>();
        let blocks = blocks.iter().map(|block| &block[..]).chain([rest]);
        for (block, first) in blocks.zip((0..).step_by(BLOCK)) {
            if block.iter().fold(false, |any, &logit| any | (logit > best.1)) {
                for (&logit, token) in block.iter().zip(first..) {
                    if logit > best.1 {
                        best = (token, logit);
                    }
                }
            }
        }
        self.push(best.0, best.1);
    }

    /// Puts the best `n` in order at the front. Nothing to do if they are there already.
    pub(super) fn sort_front(&mut self, n: usize) {
        let n = n.min(self.items.len());
        let Some(rest) = self.items.get_mut(self.sorted..) else { return };
        let Some(wanted) = n.checked_sub(self.sorted).filter(|&wanted| wanted > 0) else { return };
        if wanted < rest.len() {
            rest.select_nth_unstable_by(wanted - 1, Candidate::rank);
        }
        if let Some(front) = rest.get_mut(..wanted) {
            front.sort_unstable_by(Candidate::rank);
        }
        self.sorted = n;
    }

    /// Keeps the `n` best, in order.
    pub(super) fn keep_front(&mut self, n: usize) {
        self.sort_front(n);
        self.items.truncate(n);
    }

    /// Drops the `n` best.
    pub(super) fn drop_front(&mut self, n: usize) {
        self.sort_front(n);
        self.items.drain(..n.min(self.items.len()));
        self.sorted = self.sorted.saturating_sub(n);
    }

    /// Keeps the candidates whose key is smallest, until `enough` says so of the share of probability and the number
    /// kept. Equal keys go by rank. The probabilities must be up to date.
    pub(super) fn keep_nearest(&mut self, key: impl Fn(f32) -> f32, enough: impl Fn(f64, usize) -> bool) {
        let nearer = |a: &Candidate, b: &Candidate| key(a.logit).total_cmp(&key(b.logit)).then(a.rank(b));
        let mut share = 0.0;
        let mut kept = 0;
        let mut sorted = 0;
        // Sorted in growing stretches: the first is usually enough.
        while let Some(rest) = self.items.get_mut(sorted..).filter(|rest| !rest.is_empty()) {
            let stretch = (sorted * 7).max(64).min(rest.len());
            if stretch < rest.len() {
                rest.select_nth_unstable_by(stretch - 1, nearer);
            }
            let (front, _) = rest.split_at_mut(stretch);
            front.sort_unstable_by(nearer);
            sorted += stretch;
            for candidate in front {
                share += f64::from(candidate.probability);
                kept += 1;
                if enough(share, kept) {
                    self.items.truncate(kept);
                    self.sorted = 0;
                    return;
                }
            }
        }
        self.sorted = 0;
    }

    /// The largest logit; negative infinity if there is none.
    pub(super) fn max_logit(&self) -> f32 {
        let known = if self.sorted > 0 { 1 } else { self.items.len() };
        self.items.iter().take(known).fold(f32::NEG_INFINITY, |max, item| max.max(item.logit))
    }

    /// Keeps the candidates whose logits are at or above `floor`, but the `at_least` best in any case.
    pub(super) fn keep_from(&mut self, floor: f32, at_least: usize) {
        if self.items.iter().filter(|item| item.logit >= floor).count() < at_least {
            return self.keep_front(at_least);
        }
        // What goes ranks behind what stays, so the sorted front stays in front.
        self.items.retain(|item| item.logit >= floor);
        self.sorted = self.sorted.min(self.items.len());
    }

    /// Brings the probabilities up to date. Returns the largest.
    pub(super) fn softmax(&mut self) -> f32 {
        let max = self.max_logit();
        let mut sum = 0.0;
        for item in &mut self.items {
            item.probability = exp(item.logit - max);
            sum += f64::from(item.probability);
        }
        let scale = (1.0 / sum) as f32;
        for item in &mut self.items {
            item.probability *= scale;
        }
        scale
    }

    /// Divides the logits by `temperature`, after shifting the largest to 0, which changes no probability and keeps
    /// quotients in range. Keeps the order.
    pub(super) fn scale(&mut self, temperature: f32) {
        let max = self.max_logit();
        for item in &mut self.items {
            item.logit = ((item.logit - max) / temperature).max(f32::MIN);
        }
    }

    /// Draws a token by the probabilities of the list, with `uniform` from `0.0..1.0`.
    pub(super) fn draw(&mut self, uniform: f64) -> Option<Candidate> {
        self.softmax();
        let total: f64 = self.items.iter().map(|item| f64::from(item.probability)).sum();
        let target = total * uniform;
        let mut sum = 0.0;
        let passes = |item: &&Candidate| {
            sum += f64::from(item.probability);
            sum > target
        };
        // The sum ends above every target there can be; should rounding say otherwise, the likeliest token stands in.
        let found = self.items.iter().find(passes);
        found.or_else(|| self.items.iter().max_by(|a, b| b.rank(a))).copied()
    }
}

/// e to the power of a number that is not positive, within two units in the last place.
///
/// Written out because it is the same on every platform to the bit, which a system's `expf` is not.
pub(super) fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5 x 2^23 rounds to whole numbers, and leaves that number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with few enough bits that its product with a whole number is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x.max(-88.0) * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let r = x - whole * LN2_HIGH - whole * LN2_LOW; // |r| <= ln 2 / 2
    let series = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r / 720.0)))));
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { series * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere_and_ends_in_zero() {
        for i in 0..870_000 {
            let x = i as f32 * -1e-4;
            let right = f64::from(x).exp();
            let error = (f64::from(exp(x)) - right).abs() / right;
            assert!(error < 2.5e-7, "exp({x}) = {}, expected {right}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        for x in [-87.1, -100.0, -1e9, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(exp(x), 0.0);
        }
    }

    #[test]
    fn the_front_is_sorted_as_far_as_asked_and_no_further_than_needed() {
        let mut list = Candidates::default();
        list.gather(&[1.0, 5.0, -0.0, 5.0, 0.0, f32::NAN, 3.0], usize::MAX, f32::NEG_INFINITY);
        assert_eq!(list.len(), 6);
        list.sort_front(2);
        list.sort_front(1);
        assert_eq!(list.sorted, 2);
        list.sort_front(9);
        let tokens: Vec<u32> = list.as_slice().iter().map(|item| item.token).collect();
        assert_eq!(tokens, [1, 3, 6, 0, 2, 4]);
        list.drop_front(2);
        assert_eq!((list.sorted, list.max_logit()), (4, 3.0));
    }

    #[test]
    fn a_target_at_either_end_finds_a_token_that_can_be() {
        let mut list = Candidates::default();
        list.gather(&[-200.0, 0.0, -200.0], usize::MAX, f32::NEG_INFINITY);
        assert_eq!(list.draw(0.0).map(|item| item.token), Some(1));
        assert_eq!(list.draw(1.0 - f64::EPSILON / 2.0).map(|item| item.token), Some(1));
        list.clear();
        assert_eq!(list.draw(0.5), None);
    }
}
