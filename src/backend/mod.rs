//! Backends execute programs: [`cpu`] in plain Rust and SIMD, [`gpu`] in WGSL. A backend knows nothing of models.

pub mod batch;
pub mod cpu;
pub mod gpu;
pub mod needs;
pub mod profile;
pub mod weights;
