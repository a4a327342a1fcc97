//! The GGUF container.

/// Placeholder for the type table.
#[derive(Debug)]
pub struct TensorType;
