//! How much work is submitted at once: as much as takes a given time, by what was measured before.
//!
//! A submission cannot be interrupted. One that takes seconds trips the watchdogs of drivers and freezes whatever else
//! draws with the device: that waits for all that is in the queue before it. So the budget is for what is on its way
//! together. A step within it is one piece. Of a longer one two pieces are, so that the device goes from one to the next
//! without waiting; it is cut between its dispatches into pieces of half the budget, and a dispatch that alone takes longer than that is on its way alone. So are
//! all of them where that is how the device is to be used: see `Gpu::submits_alone`.
//!
//! What dispatches take is believed of each of them, since their work, as it is counted, says little: on a processor that
//! emulates a GPU, an attention can take a hundred times as long as a product. Only pieces are timed. What one took beside
//! what was believed is held against all dispatches in it alike; as pieces come to be cut elsewhere, that sorts itself out.

use std::ops::Range;
use std::time::Duration;

/// A point in time, where there is a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

    /// How long before another that was; 0 if it came later, `None` where there is no clock.
    pub fn seconds_until(self, later: Moment) -> Option<f64> {
        #[cfg(not(target_family = "wasm"))]
        return Some(later.instant.saturating_duration_since(self.instant).as_secs_f64());
        #[cfg(target_family = "wasm")]
        return None;
    }
}

/// What the dispatches of a recording are believed to take, and what follows from it.
#[derive(Debug)]
pub struct Pace {
    budget_seconds: f64,
    /// Whether pieces are on their way alone.
    alone: bool,
    dispatches: Vec<Belief>,
    /// How many pieces were sent.
    sent: u64,
    /// The number of the last piece that was found to be done, and when.
    last: (u64, Option<Moment>),
}

/// A piece that was sent.
#[derive(Debug)]
pub struct Sent {
    dispatches: Range<usize>,
    number: u64,
    at: Moment,
}

#[derive(Debug, Clone, Copy)]
struct Belief {
    seconds_per_work: f64,
    is_measured: bool,
}

/// Work a second, as [`super::record`] counts it, before anything was measured: that of a processor that emulates a GPU.
/// So what is dispatched for the first time goes in small pieces, some of which drivers take to compile.
const FIRST_SPEED: f64 = 1e9;

impl Pace {
    /// For so many dispatches, and no more on its way than takes about so long.
    pub fn new(budget: Duration, dispatches: usize) -> Self {
        let belief = Belief { seconds_per_work: 1.0 / FIRST_SPEED, is_measured: false };
        let budget_seconds = budget.as_secs_f64().max(1e-4);
        Pace { budget_seconds, alone: false, dispatches: vec![belief; dispatches], sent: 0, last: (0, None) }
    }

    /// From now on pieces are on their way alone, or not.
    pub fn go_alone(&mut self, alone: bool) {
        self.alone = alone;
    }

    /// Whether two pieces can be on their way together that take so long together.
    pub fn allows_both(&self, seconds: f64) -> bool {
        !self.alone && seconds <= self.budget_seconds
    }

    /// What each dispatch takes, if it has so much work.
    fn each<'a>(&'a self, works: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        self.dispatches.iter().zip(works).map(|(belief, work)| belief.seconds_per_work * work)
    }

    /// What some dispatches of a step take together.
    pub fn seconds(&self, works: &[f64], range: Range<usize>) -> f64 {
        self.each(works).skip(range.start).take(range.len()).sum()
    }

    /// Cuts the dispatches of a step, of so much work each, into pieces of half the budget, or of one dispatch. A step
    /// that takes no longer than the budget stays whole.
    pub fn pieces(&self, works: &[f64]) -> Vec<Range<usize>> {
        if self.seconds(works, 0..works.len()) <= self.budget_seconds {
            return std::iter::once(0..works.len()).collect();
        }
        let mut pieces = vec![];
        let (mut start, mut sum) = (0, 0.0);
        for (index, seconds) in self.each(works).enumerate() {
            if index > start && 2.0 * (sum + seconds) > self.budget_seconds {
                pieces.push(start..index);
                (start, sum) = (index, 0.0);
            }
            sum += seconds;
        }
        pieces.push(start..works.len());
        pieces
    }

    /// A piece that is sent now.
    pub fn send(&mut self, dispatches: Range<usize>) -> Sent {
        self.sent += 1;
        Sent { dispatches, number: self.sent, at: Moment::now() }
    }

    /// Learns from a piece that was found to be done. It began when that before it was done; if nobody knows when that
    /// was, since its step was given up or nothing was read of it, there is nothing to learn.
    pub fn learn(&mut self, works: &[f64], piece: &Sent, done: Moment) {
        let (number, before) = std::mem::replace(&mut self.last, (piece.number, Some(done)));
        let began = before.map_or(piece.at, |before| before.max(piece.at));
        if let Some(seconds) = began.seconds_until(done)
            && number + 1 == piece.number
        {
            self.learn_seconds(works, piece.dispatches.clone(), seconds);
        }
    }

    fn learn_seconds(&mut self, works: &[f64], range: Range<usize>, seconds: f64) {
        let ratio = seconds / self.seconds(works, range.clone());
        if !(ratio > 0.0 && ratio.is_finite()) {
            return;
        }
        for belief in self.dispatches.get_mut(range).into_iter().flatten() {
            // What is slower than believed counts at once; a fast piece may have been a lucky one.
            let is_first = !std::mem::replace(&mut belief.is_measured, true);
            belief.seconds_per_work *= if ratio > 1.0 || is_first { ratio } else { ratio.sqrt() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What dispatches really take, in seconds; their works are all the same.
    const REAL: [f64; 6] = [0.001, 0.001, 0.070, 0.001, 0.001, 0.020];
    const WORKS: [f64; 6] = [1.0; 6];

    fn run(pace: &mut Pace, real: &[f64]) -> Vec<Range<usize>> {
        let pieces = pace.pieces(&WORKS);
        for piece in &pieces {
            pace.learn_seconds(&WORKS, piece.clone(), real[piece.clone()].iter().sum());
        }
        pieces
    }

    #[test]
    fn steps_are_cut_by_what_was_measured() {
        let mut pace = Pace::new(Duration::from_millis(50), WORKS.len());
        assert_eq!(run(&mut pace, &REAL).len(), 1);
        // All were too slow: each is on its own, and so it is found which ones were not.
        (0..20).for_each(|_| _ = run(&mut pace, &REAL));
        assert_eq!(run(&mut pace, &REAL), [0..2, 2..3, 3..6]);
        assert!(!pace.allows_both(2.0 * pace.seconds(&WORKS, 2..3)));
        assert!(pace.allows_both(2.0 * pace.seconds(&WORKS, 3..6)));
        // Within the budget there is nothing to cut, though it is more than half of it.
        let mut whole = Pace::new(Duration::from_millis(50), WORKS.len());
        (0..20).for_each(|_| _ = run(&mut whole, &REAL.map(|seconds| seconds * 0.5)));
        assert_eq!(whole.pieces(&WORKS).len(), 1);
        pace.go_alone(true);
        assert!(!pace.allows_both(0.0));
        pace.go_alone(false);
        (0..20).for_each(|_| _ = run(&mut pace, &REAL.map(|seconds| seconds / 10.0)));
        assert_eq!(pace.pieces(&WORKS).len(), 1);
        // Slower counts at once.
        run(&mut pace, &REAL);
        assert!(pace.pieces(&WORKS).len() > 2);
    }

    #[test]
    fn what_was_not_measured_changes_nothing() {
        let mut pace = Pace::new(Duration::from_millis(50), WORKS.len());
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            pace.learn_seconds(&WORKS, 0..6, seconds);
            pace.learn_seconds(&[0.0; 6], 0..6, seconds);
        }
        pace.learn_seconds(&WORKS, 3..9, 1.0);
        assert_eq!(pace.seconds(&WORKS, 0..6), 6.0 / FIRST_SPEED);
        assert_eq!(pace.pieces(&[]).first(), Some(&(0..0)));
    }

    #[test]
    #[cfg(not(target_family = "wasm"))]
    fn a_piece_begins_when_that_before_it_is_done() {
        let now = Moment::now();
        let later = |milliseconds| Moment { instant: now.instant + Duration::from_millis(milliseconds) };
        let mut pace = Pace::new(Duration::from_millis(50), WORKS.len());
        let sent = [0..3, 3..6, 0..3, 0..3].map(|dispatches| Sent { at: now, ..pace.send(dispatches) });
        pace.learn(&WORKS, &sent[0], later(30));
        pace.learn(&WORKS, &sent[1], later(60));
        // The third was given up.
        pace.learn(&WORKS, &sent[3], later(200));
        assert!((pace.seconds(&WORKS, 0..3) - 0.030).abs() < 1e-9);
        assert!((pace.seconds(&WORKS, 3..6) - 0.030).abs() < 1e-9);
    }
}
