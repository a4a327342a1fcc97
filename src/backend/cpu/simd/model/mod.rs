//! Instructions in plain Rust, so that a unit is tested on machines that do not have it.
//!
//! A unit is written against the names of intrinsics. Where the processor is another, tests take functions of the same
//! names and signatures from here. What they do is what the architecture manuals say the instructions do: order of
//! lanes, wrapping, widening. On a machine that has the instructions, tests hold each of these functions to its own.
//!
//! Only tests have this module. It tells what a unit makes of its intrinsics, not how fast they are.

#[cfg_attr(target_arch = "aarch64", allow(dead_code, reason = "loads and stores are compared by their use"))]
pub(super) mod aarch64;
#[cfg(target_arch = "aarch64")]
mod aarch64_tests;
#[cfg(target_arch = "x86_64")]
pub(super) mod x86_64;
