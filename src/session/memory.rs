//! What memory a model takes, told before anybody wonders.

use std::fmt;

/// The memory of a model, by what it is for. Shown, it is one line.
///
/// Weights are read from the file's map, or its copy in memory; packed ones lie beside it, and the map's pages can then
/// be dropped by the system at any time. The cache takes memory as sessions grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// Weights as they are in the file.
    pub weight_bytes: u64,
    /// Weights packed for the vector unit, beside the file; 0 without packing.
    pub packed_bytes: u64,
    /// Keys and values of all sessions that are certain to find room, when their contexts are full.
    pub cache_bytes: u64,
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let MemoryPlan { weight_bytes, packed_bytes, cache_bytes } = *self;
        write!(f, "weights {}, ", megabytes(weight_bytes))?;
        match packed_bytes {
            0 => write!(f, "not packed, ")?,
            _ => write!(f, "packed {} beside them, ", megabytes(packed_bytes))?,
        }
        write!(f, "cache {} at full context", megabytes(cache_bytes))
    }
}
