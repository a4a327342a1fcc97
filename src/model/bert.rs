//! BERT and what came of it: Nomic's rotates and has gated units, or experts without gates on some layers; Jina's second
//! lets attention fade with distance.

use super::decoder::{Experts, Wiring};
use super::encoder::{Encoder, FeedForward, Positions};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::{Activation, Gating, RopeStyle};

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

/// Layers without experts are BERT's.
pub(super) fn nomic_moe(hyper: &Hyper, _: &Tensors, encoder: &mut Encoder) -> Result<()> {
    encoder.positions = Positions::Rotation;
    encoder.base.rope_style = RopeStyle::Halves;
    let every = hyper.optional("moe_every_n_layers")?.unwrap_or(0);
    let experts = Experts::read(hyper, Gating::Softmax)?;
    encoder.base.experts = experts.map(|experts| Experts {
        on: (0..hyper.layers).map(|layer| every > 0 && layer % every == 1).collect(),
        gating: Gating::Softmax,
        normalise: false,
        scale: 1.0,
        shared: 0,
        wiring: Wiring::Plain,
        ..experts
    });
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
