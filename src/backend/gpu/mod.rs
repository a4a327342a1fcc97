//! The GPU backend: executes programs in WGSL, on any device that WebGPU reaches.
//!
//! | file | what |
//! |---|---|
//! | [`device`] | choosing and opening a device, what it has |
//! | [`tiers`] | what a device can do beyond plain WebGPU |
//! | [`shader`] | from the texts of `shaders/` to pipelines |
//! | [`sources`] | those texts |
//! | [`rows`] | kernels over rows: norms, gates, sums, choices |
//! | [`variants`] | every shader that can be asked for |
//! | [`readback`] | results back from the device |

pub mod device;
mod plan;
mod memory;
mod products;
mod step;
mod record;
pub mod readback;
pub mod rows;
pub mod shader;
pub mod sources;
pub mod tiers;
pub mod variants;

pub use device::{Gpu, GpuOptions, Requirements};
pub use tiers::{TIERS, Tier, Tiers};
pub use wgpu;
