//! What was said lately, and what that costs a token: the repeat, frequency and presence penalties.

use super::options::SamplerOptions;
use std::collections::VecDeque;

/// The last accepted tokens, as many as any penalty looks at, and how often each stands in the window of the
/// repetition penalties.
///
/// Invariant: `counts` is sorted by token, has no zero, and counts the last `counted` of `tokens`.
#[derive(Debug, Clone)]
pub(super) struct History {
    tokens: VecDeque<u32>,
    capacity: usize,
    counts: Vec<(u32, u32)>,
    counted: usize,
}

impl History {
    pub(super) fn new(options: &SamplerOptions) -> Self {
        let counted = if options.has_penalties() { options.repeat_last_n } else { 0 };
        let dry = if options.has_dry() { options.dry_last_n } else { 0 };
        Self { tokens: VecDeque::new(), capacity: counted.max(dry), counts: Vec::new(), counted }
    }

    /// The last accepted tokens, the oldest first.
    pub(super) fn tokens(&self) -> &VecDeque<u32> {
        &self.tokens
    }

    /// The distinct tokens of the window of the repetition penalties, and how often each stands there.
    pub(super) fn counts(&self) -> &[(u32, u32)] {
        &self.counts
    }

    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.counts.clear();
    }

    pub(super) fn accept(&mut self, token: u32) {
        if self.capacity == 0 {
            return;
        }
        if self.counted > 0 {
            let leaving = self.tokens.len().checked_sub(self.counted).and_then(|i| self.tokens.get(i)).copied();
            if let Some(leaving) = leaving {
                self.uncount(leaving);
            }
            self.count(token);
        }
        if self.tokens.len() == self.capacity {
            self.tokens.pop_front();
        }
        self.tokens.push_back(token);
    }

    fn count(&mut self, token: u32) {
        match self.counts.binary_search_by_key(&token, |&(token, _)| token) {
            Ok(i) => self.counts.iter_mut().skip(i).take(1).for_each(|(_, count)| *count += 1),
            Err(i) => self.counts.insert(i, (token, 1)),
        }
    }

    fn uncount(&mut self, token: u32) {
        let Ok(i) = self.counts.binary_search_by_key(&token, |&(token, _)| token) else { return };
        match self.counts.get_mut(i) {
            Some((_, count)) if *count > 1 => *count -= 1,
            _ => drop(self.counts.remove(i)),
        }
    }
}

/// The logit of a token that stands `count` times in the window.
pub(super) fn penalized(logit: f32, count: u32, options: &SamplerOptions) -> f32 {
    // Dividing a negative logit would make the token likelier, so those are multiplied.
    let repeated = if logit <= 0.0 { logit * options.repeat_penalty } else { logit / options.repeat_penalty };
    repeated - (count as f32 * options.frequency_penalty + options.presence_penalty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_window() {
        let options = SamplerOptions::new().repeat_penalty(1.1).repeat_last_n(3);
        let longer = options.clone().dry_multiplier(1.0).dry_last_n(5);
        for options in [options, longer] {
            let mut history = History::new(&options);
            let mut said = Vec::new();
            for token in [4, 4, 1, 9, 4, 4, 4, 2, 2, 0, 9, 9, 1] {
                said.push(token);
                history.accept(token);
                let mut window = said[said.len().saturating_sub(3)..].to_vec();
                window.sort();
                let counted = window.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as u32));
                assert_eq!(history.counts(), counted.collect::<Vec<_>>());
                assert!(said.iter().rev().zip(history.tokens().iter().rev()).all(|(a, b)| a == b));
            }
            history.clear();
            assert_eq!((history.counts().len(), history.tokens().len()), (0, 0));
        }
    }
}
