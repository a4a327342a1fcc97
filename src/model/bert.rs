//! BERT and what came of it: Nomic's rotates and has gated units, Jina's second lets attention fade with distance.

use super::encoder::{Encoder, FeedForward, Positions};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::{Activation, RopeStyle};

pub(super) fn bert(_: &Hyper, _: &Tensors, _: &mut Encoder) -> Result<()> {
    Ok(())
}

pub(super) fn nomic(_: &Hyper, _: &Tensors, encoder: &mut Encoder) -> Result<()> {
    encoder.positions = Positions::Rotation;
    encoder.base.rope_style = RopeStyle::Halves;
    encoder.feed_forward = FeedForward::Gated;
    encoder.base.activation = Activation::Silu;
    Ok(())
}

/// Its feed-forward is a gated unit, of two tensors or of one twice as high, or a plain one in models for code.
pub(super) fn jina_v2(hyper: &Hyper, tensors: &Tensors, encoder: &mut Encoder) -> Result<()> {
    encoder.positions = Positions::Fading(hyper.positive("attention.max_alibi_bias")?.unwrap_or(8.0));
    encoder.feed_forward = if tensors.has("blk.0.ffn_gate.weight") {
        FeedForward::Gated
    } else if tensors.rows("blk.0.ffn_up.weight") == Some(2 * hyper.feed_forward[0]) {
        FeedForward::Fused
    } else {
        FeedForward::Plain
    };
    Ok(())
}
