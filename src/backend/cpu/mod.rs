//! The CPU backend: worker pool, SIMD dots chosen at run time, packed weights, and the plain-Rust `ops` that specify
//! every op for the shaders too. Not built yet.
