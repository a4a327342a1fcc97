//! Who computes what: placement, from memory truth, and the loop that takes a batch through the devices.
//!
//! A program is cut where the device changes. Each device has an executor with its segments, and only what crosses a cut
//! is carried over: usually the residual stream, one row a token. A prompt goes through in pieces, so that one device
//! works on a piece while another works on the next.

mod engine;
mod fit;
mod pipeline;
mod placement;
mod plan;

pub use engine::{Engine, Holding};
pub use fit::{Fit, look, open};
pub use placement::{Placement, Site, Sites};
pub use plan::{Plan, PlanPart};

/// Prompts are run this many tokens at a time, so that cancelling takes effect in between.
pub const CHUNK_TOKENS: usize = 512;

/// Where devices can work side by side, each has so many tokens of a chunk at a time. With fewer they wait less for one
/// another, but read their weights more often.
const PIECE_TOKENS: usize = 128;
