//! How much work is submitted at once: as much as takes a given time, by what was measured before.
//!
//! A submission cannot be interrupted. One that takes seconds trips the watchdogs of drivers and freezes whatever else
//! draws with the device; so a step that takes longer than the budget is cut between its dispatches, and no more than
//! two pieces of it are on their way at a time.

use std::ops::Range;
use std::time::Duration;

/// A point in time, where there is a clock.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    #[cfg(not(target_family = "wasm"))]
    instant: std::time::Instant,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Moment {
            #[cfg(not(target_family = "wasm"))]
            instant: std::time::Instant::now(),
        }
    }

    /// How long ago that was; `None` where there is no clock.
    pub fn seconds(self) -> Option<f64> {
        #[cfg(not(target_family = "wasm"))]
        return Some(self.instant.elapsed().as_secs_f64());
        #[cfg(target_family = "wasm")]
        return None;
    }
}

/// The measured speed of a recording, and what follows from it.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    budget_seconds: f64,
    /// Work a second.
    speed: f64,
}

/// What is believed of a device before anything was measured: a slow one, for work as [`super::record`] counts it.
const FIRST_SPEED: f64 = 1e11;

impl Pace {
    /// For submissions that take so long at most.
    pub fn new(budget: Duration) -> Self {
        Pace { budget_seconds: budget.as_secs_f64().max(1e-4), speed: FIRST_SPEED }
    }

    /// Whether so much work fits one submission.
    pub fn fits(&self, work: f64) -> bool {
        work <= self.budget_seconds * self.speed
    }

    /// Cuts dispatches of so much work each into pieces that fit, of at least one dispatch.
    pub fn pieces(&self, works: impl Iterator<Item = f64>) -> Vec<Range<usize>> {
        let mut pieces = vec![];
        let (mut start, mut sum, mut count) = (0, 0.0, 0);
        for (index, work) in works.enumerate() {
            if index > start && !self.fits(sum + work) {
                pieces.push(start..index);
                (start, sum) = (index, 0.0);
            }
            sum += work;
            count = index + 1;
        }
        pieces.push(start..count);
        pieces
    }

    /// Learns how long some work took.
    pub fn learn(&mut self, work: f64, seconds: Option<f64>) {
        if let Some(seconds) = seconds.filter(|seconds| *seconds > 0.0 && work > 0.0) {
            let measured = work / seconds;
            // What is slower than believed counts at once; a fast step may have been a lucky one.
            self.speed = if measured < self.speed { measured } else { 0.75 * self.speed + 0.25 * measured };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_cut_by_what_was_measured() {
        let mut pace = Pace::new(Duration::from_millis(50));
        let works = || [1.0, 2.0, 3.0, 10.0, 1.0, 1.0].into_iter();
        assert_eq!(pace.pieces(works()).len(), 1);
        pace.learn(18.0, Some(0.18)); // five in a submission
        assert_eq!(pace.pieces(works()), [0..2, 2..3, 3..4, 4..6]);
        assert!(pace.fits(5.0) && !pace.fits(5.1));
        (0..50).for_each(|_| pace.learn(1.0, Some(1e-6)));
        assert_eq!(pace.pieces(works()).len(), 1);
        pace.learn(1.0, None);
        pace.learn(0.0, Some(1.0));
        assert_eq!(pace.pieces(works()).len(), 1);
        assert_eq!(pace.pieces(std::iter::empty()).first(), Some(&(0..0)));
    }
}
