//! The CPU backend.
//!
//! [`ops`] specifies every op in plain Rust, and [`reference`] runs whole programs with it. The worker pool, SIMD
//! kernels and packed weights that make it fast are not built yet.

pub mod memory;
pub mod ops;
pub mod reference;
