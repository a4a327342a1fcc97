//! The GPU backend: executes programs in WGSL, on any device that WebGPU reaches.
//!
//! | file | what |
//! |---|---|
//! | [`device`] | choosing and opening a device, what it has |
//! | [`tiers`] | what a device can do beyond plain WebGPU |
//! | [`shader`] | from the texts of `shaders/` to pipelines |
//! | [`sources`] | those texts |
//! | [`layout`] | how weights lie on the device |
//! | [`embed`] | rows of the embedding table |
//! | [`readback`] | results back from the device |

pub mod device;
pub mod embed;
pub mod layout;
pub mod readback;
pub mod shader;
pub mod sources;
pub mod tiers;

pub use device::{Gpu, GpuOptions, Requirements};
pub use tiers::{TIERS, Tier, Tiers};
pub use wgpu;
