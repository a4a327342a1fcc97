//! What a placement comes to, for people to read: who gets what, and how much memory that takes.

use std::fmt;

/// Where a model runs, and in how much memory. Shown, it is a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The most tokens of a session.
    pub context_tokens: u32,
    /// How many layers have a GPU to run on, but for what is to stay on the CPU.
    pub gpu_layers: usize,
    /// The devices that have something to do.
    pub parts: Vec<PlanPart>,
    /// Why it is so.
    pub reasons: Vec<String>,
}

/// What one device gets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanPart {
    /// The device.
    pub device: String,
    /// What runs there.
    pub what: String,
    /// Bytes of weights as they lie there. On the CPU those that are not packed lie in the file, and are in memory once they
    /// were read: all but the rows of an embedding that no token has asked for.
    pub weight_bytes: u64,
    /// Bytes of keys and values at full context.
    pub cache_bytes: u64,
    /// Bytes of activations and of what is kept between kernels.
    pub scratch_bytes: u64,
    /// What the device can give, if it is a GPU.
    pub free_bytes: Option<u64>,
}

impl PlanPart {
    /// All its bytes.
    pub fn bytes(&self) -> u64 {
        self.weight_bytes + self.cache_bytes + self.scratch_bytes
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let mut rows = vec![["device", "what", "weights", "cache", "scratch", "all", "of"].map(String::from)];
        for part in &self.parts {
            let [weights, cache, scratch, all] =
                [part.weight_bytes, part.cache_bytes, part.scratch_bytes, part.bytes()].map(megabytes);
            let free = part.free_bytes.map_or("-".into(), megabytes);
            rows.push([part.device.clone(), part.what.clone(), weights, cache, scratch, all, free]);
        }
        let widths: Vec<usize> =
            (0..7).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
        for (index, row) in rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if column < 2 { write!(f, "| {cell:width$} ")? } else { write!(f, "| {cell:>width$} ")? }
            }
            writeln!(f, "|")?;
            if index == 0 {
                widths.iter().try_for_each(|width| write!(f, "|{}", "-".repeat(width + 2)))?;
                writeln!(f, "|")?;
            }
        }
        writeln!(f, "A context of {} tokens.", self.context_tokens)?;
        self.reasons.iter().try_for_each(|reason| writeln!(f, "{reason}"))
    }
}
