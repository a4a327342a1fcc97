//! The GPU backend: executes programs in WGSL, on any device that WebGPU reaches.
//!
//! | file | what |
//! |---|---|
//! | [`device`], `find`, [`tiers`] | choosing and opening a device, and what it can do beyond plain WebGPU |
//! | `selfcheck`, `trials`, [`report`] | which of that a device is trusted with: what is tried, and what came out |
//! | `room` | how much memory a device can give |
//! | `ledger` | what has been made on a device, and how what fails is heard |
//! | [`shader`], [`sources`], [`variants`] | from the texts of `shaders/` to pipelines; every shader that can be asked for |
//! | [`layout`], [`memory`], `store` | how weights lie on the device, and their way there |
//! | `slots`, `pages`, `step` | where activations, keys and values, and what changes from step to step are |
//! | `plan` | from a program to what one kernel can do together |
//! | [`products`], [`rows`], [`rotate`], [`attention`], [`embed`] | the kernels: shaders, parameters, workgroups |
//! | [`experts`] | those of mixtures of experts |
//! | `draft`, `draft_products`, `draft_experts`, `draft_attention` | from a plan to dispatches |
//! | `record` | dispatches, recorded once and replayed |
//! | `pace`, `flight` | how much is submitted at once, and steps on their way |
//! | `executor` | runs batches, or the segments of a program that are on this device |
//! | `needs` | what segments take on a device, before anything is made there |
//! | `choice` | the likeliest tokens, and a guess at the one that will be chosen |
//! | [`profile`] | where the time goes |
//! | [`readback`] | results back from the device |

pub mod attention;
mod choice;
pub mod device;
mod draft;
mod draft_attention;
mod draft_experts;
mod draft_products;
pub mod embed;
mod executor;
pub mod experts;
mod find;
mod flight;
pub mod layout;
mod ledger;
pub mod memory;
mod needs;
mod pace;
mod pages;
mod plan;
pub mod products;
pub mod profile;
pub mod readback;
mod record;
pub mod recurrent;
pub mod report;
mod room;
pub mod rotate;
pub mod rows;
mod selfcheck;
pub mod shader;
mod slots;
pub mod sources;
mod step;
mod store;
pub mod texts;
pub mod tiers;
mod trials;
pub mod variants;

pub use super::candidates::{Choice, Draw, Input, Wanted};
pub use choice::{Arrival, Ticket};
pub use device::{Gpu, GpuOptions, Requirements};
pub use executor::{GpuExecutor, GpuExecutorOptions};
pub use find::{look, open};
#[doc(hidden)]
pub use ledger::Fault;
pub use needs::Traits;
pub use readback::wait;
pub use report::{Report, TierState};
pub use room::{Room, RoomSource, Sight};
#[doc(hidden)]
pub use selfcheck::Spoil;
pub use tiers::{TIERS, Tier, Tiers};
pub use wgpu;
