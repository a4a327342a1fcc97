//! The GPU backend: executes programs in WGSL, on any device that WebGPU reaches.
//!
//! | file | what |
//! |---|---|
//! | [`device`] | choosing and opening a device, what it has |
//! | [`tiers`] | what a device can do beyond plain WebGPU |
//! | [`shader`] | from the texts of `shaders/` to pipelines |
//! | [`sources`] | those texts |
//! | [`readback`] | results back from the device |
//! | [`attention`] | attention over pages of keys and values, and how those are laid out |
//! | [`rotate`] | normalising and rotating queries and keys, storing keys and values |

pub mod attention;
pub mod device;
pub mod readback;
pub mod rotate;
pub mod shader;
pub mod sources;
pub mod tiers;

pub use device::{Gpu, GpuOptions, Requirements};
pub use tiers::{TIERS, Tier, Tiers};
pub use wgpu;
