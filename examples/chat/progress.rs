//! How far a long task is, in one line on the terminal that is drawn over and over.
//!
//! Only a terminal gets a bar: where errors go into a file or a pipe, nothing is drawn. A bar wipes its line as it
//! ends, however it ends, so that what is printed next has the line for itself.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// As wide as a line gets: the width of a terminal is not asked for, and all have this many columns.
const WIDTH: usize = 79;
const CELLS: usize = 16;
const LABEL: usize = 22;
/// Often enough to be seen moving, seldom enough to cost nothing.
const BETWEEN_DRAWINGS: Duration = Duration::from_millis(100);
/// The rate is that of the last few seconds: what was done before says little about the time that remains.
const RATE_WINDOW: Duration = Duration::from_secs(8);

/// What a bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, in words such as 4.9 GB.
    Bytes,
    /// Things that are counted one by one, by their name, such as "tokens".
    #[allow(dead_code, reason = "for tasks that are not downloads")]
    Things(&'static str),
}

impl Unit {
    fn amount(self, count: u64) -> String {
        match self {
            Unit::Bytes => bytes(count),
            Unit::Things(name) => format!("{count} {name}"),
        }
    }

    fn rate(self, per_second: f64) -> String {
        match self {
            Unit::Bytes => format!("{}/s", bytes(per_second as u64)),
            Unit::Things(_) => format!("{per_second:.0}/s"),
        }
    }
}

/// A number of bytes as people say it.
pub fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let Some(power) = (1..=units.len()).rev().find(|&power| count >= 1000_u64.pow(power as u32)) else {
        return format!("{count} B");
    };
    let unit = units.get(power - 1).copied().unwrap_or_default();
    format!("{:.1} {unit}", count as f64 / 1000_f64.powi(power as i32))
}

/// One line on the terminal: a name, how much is done of how much, how fast, and how long the rest takes.
#[derive(Debug)]
pub struct Bar {
    label: String,
    unit: Unit,
    is_drawn: bool,
    drawn_at: Option<Instant>,
    /// What was done when, as far back as the rate goes.
    recent: VecDeque<(Instant, u64)>,
}

impl Bar {
    /// A bar that is not drawn yet.
    pub fn new(label: &str, unit: Unit) -> Self {
        Self { label: shortened(label), unit, is_drawn: false, drawn_at: None, recent: VecDeque::new() }
    }

    /// What is done by now; draws it, if that is due.
    pub fn set(&mut self, done: u64, total: u64) {
        let now = Instant::now();
        if self.drawn_at.is_some_and(|then| now - then < BETWEEN_DRAWINGS) || !io::stderr().is_terminal() {
            return;
        }
        self.drawn_at = Some(now);
        self.recent.push_back((now, done));
        while self.recent.front().is_some_and(|&(then, _)| now - then > RATE_WINDOW) {
            self.recent.pop_front();
        }
        let line: String = self.line(done, total).chars().take(WIDTH).collect();
        let mut out = io::stderr().lock();
        // What of a bar cannot be drawn is no reason to fail.
        _ = write!(out, "\r{line:<WIDTH$}").and_then(|()| out.flush());
        self.is_drawn = true;
    }

    /// Wipes it.
    pub fn finish(self) {}

    fn line(&self, done: u64, total: u64) -> String {
        let share = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
        let filled = (share * CELLS as f64) as usize;
        let (label, of) = (&self.label, self.unit.amount(total));
        let line = format!("{label} [{:-<CELLS$}] {:3.0}% of {of}", "#".repeat(filled), share * 100.0);
        match self.rate() {
            Some(per_second) if per_second >= 1.0 => {
                let left = total.saturating_sub(done) as f64 / per_second;
                format!("{line}, {}, {}", self.unit.rate(per_second), clock(left as u64))
            }
            _ => line,
        }
    }

    /// Per second, of late.
    fn rate(&self) -> Option<f64> {
        let (&(then, before), &(now, done)) = (self.recent.front()?, self.recent.back()?);
        let seconds = (now - then).as_secs_f64();
        (seconds > 0.5).then(|| done.saturating_sub(before) as f64 / seconds)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.is_drawn {
            let mut out = io::stderr().lock();
            _ = write!(out, "\r{:WIDTH$}\r", "").and_then(|()| out.flush());
        }
    }
}

/// Names that are long lose their middle: their ends tell them apart.
fn shortened(label: &str) -> String {
    let count = label.chars().count();
    if count <= LABEL {
        return label.to_owned();
    }
    let start: String = label.chars().take(LABEL / 2 - 1).collect();
    let end: String = label.chars().skip(count - (LABEL - LABEL / 2 - 1)).collect();
    format!("{start}..{end}")
}

/// As clocks show it: 1:05, or 1:00:05.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}
