//! Backends execute programs: [`cpu`] in plain Rust and SIMD, [`gpu`] in WGSL. A backend knows nothing of models.
//!
//! Without the feature `gpu`, another module stands in for [`gpu`]: one of no GPUs, so that what is above does not change.

pub mod batch;
pub mod candidates;
pub mod cpu;
#[cfg_attr(not(feature = "gpu"), path = "no_gpu.rs")]
pub mod gpu;
pub mod needs;
pub mod profile;
pub mod weights;
