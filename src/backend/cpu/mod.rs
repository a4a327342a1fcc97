//! The CPU backend.
//!
//! [`ops`] specifies every op in plain Rust, and [`mod@reference`] runs whole programs with it, one row after the other. The
//! [`executor`] runs the same programs fast: weights are packed for the vector unit ([`matrix`]), activations rounded
//! once for all that they are multiplied with ([`activations`]), products and attention spread over the workers of a
//! [`pool`], and keys and values read page by page ([`memory`]).
//! [`bandwidth`] measures what all that is measured against.

pub mod activations;
mod attention;
pub mod bandwidth;
pub mod executor;
mod experts;
mod huge;
pub mod matmul;
pub mod matrix;
pub mod memory;
pub mod needs;
pub mod ops;
pub mod pool;
pub mod reference;
mod scan;
#[allow(unsafe_code)] // names the instructions of vector units
pub mod simd;
mod texts;
