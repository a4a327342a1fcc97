//! How long frames took.

use std::time::{Duration, Instant};

/// Frames at a steady rate, and what each of them took.
pub struct Frames {
    period: Duration,
    due: Instant,
    /// In milliseconds.
    times: Vec<f64>,
}

impl Frames {
    /// So many a second, from now on.
    pub fn per_second(rate: f64) -> Self {
        Frames { period: Duration::from_secs_f64(1.0 / rate), due: Instant::now(), times: vec![] }
    }

    /// Waits until it is time for the next frame, and draws it.
    pub fn next<E>(&mut self, draw: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        std::thread::sleep(self.due.saturating_duration_since(Instant::now()));
        let start = Instant::now();
        draw()?;
        self.times.push(start.elapsed().as_secs_f64() * 1e3);
        // Frames that have been missed are not made up for.
        self.due = (self.due + self.period).max(Instant::now());
        Ok(())
    }

    pub fn count(&self) -> usize {
        self.times.len()
    }

    /// The time that this share of the frames took at most, in milliseconds.
    pub fn within(&self, share: f64) -> f64 {
        let mut sorted = self.times.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
    }

    /// The share of the frames that took so many milliseconds at most.
    pub fn share(&self, limit: f64) -> f64 {
        let inside = self.times.iter().filter(|time| **time <= limit).count();
        inside as f64 / self.times.len().max(1) as f64
    }
}
