//! ModernBERT: norms before attention and feed-forward, fused gated units, and on two of three layers a window to both
//! sides, which rotates faster.

use super::decoder::Window;
use super::encoder::{Encoder, FeedForward, Positions};
use super::hyper::{Hyper, Scaling};
use super::tensors::Tensors;
use crate::Result;
use crate::error::Error;
use crate::program::{Activation, RopeStyle};

pub(super) fn flags(hyper: &Hyper, _: &Tensors, encoder: &mut Encoder) -> Result<()> {
    encoder.positions = Positions::Rotation;
    encoder.pre_norms = true;
    encoder.feed_forward = FeedForward::Fused;
    encoder.base.rope_style = RopeStyle::Halves;
    encoder.base.activation = match hyper.text("hidden_activation")? {
        None | Some("gelu" | "geglu") => Activation::Gelu,
        Some("silu" | "swish" | "swiglu") => Activation::Silu,
        Some(other) => {
            return Err(Error::metadata(hyper.key("hidden_activation"), format!("`{other}`"), "gelu or silu"));
        }
    };
    encoder.base.window = Window::read_from(hyper, 0, 3, |layer, every| layer % every != 0)?;
    if let Some(window) = &mut encoder.base.window {
        window.rope = Some((hyper.positive("rope.freq_base_swa")?.unwrap_or(10_000.0), Scaling::NONE));
    }
    Ok(())
}
