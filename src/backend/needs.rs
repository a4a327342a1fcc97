//! What some segments of a program take on a device.

/// Bytes on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Weights, as they are packed there.
    pub weight_bytes: u64,
    /// Keys and values of all pages.
    pub cache_bytes: u64,
    /// Activations, and what is kept between kernels.
    pub scratch_bytes: u64,
}

impl Needs {
    /// All together.
    pub fn bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.cache_bytes).saturating_add(self.scratch_bytes)
    }
}
