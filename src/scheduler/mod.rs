//! Who computes what: placement, from memory truth, and the loop that takes a batch through the devices.
//!
//! A program is cut where the device changes. Each device has an executor with its segments, and only what crosses a cut
//! is carried over: usually the residual stream, one row a token.

mod engine;
mod placement;
mod plan;

pub use engine::Engine;
pub use placement::{Placement, Room, Rooms};
pub use plan::{Plan, PlanPart};
