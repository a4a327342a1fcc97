//! The CPU backend: worker pool, SIMD dots chosen at run time, packed weights, and the plain-Rust `ops` that specify
//! every op for the shaders too.

pub mod activations;
pub mod matmul;
pub mod matrix;
pub mod pool;
pub mod simd;
