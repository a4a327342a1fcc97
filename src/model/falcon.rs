//! Falcon, and families that differ from it little: norms that subtract the mean, feed-forwards without a gate that do
//! not wait for attention. Falcon's large model has a norm for each; in GPT-NeoX that is the rule, and parallelism is not.
//! Phi 2 has one norm for both, and rotates a part of each head.

use super::decoder::Decoder;
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::error::Error;
use crate::program::{Activation, NormKind, RopeStyle};

pub(super) fn falcon(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    phi2(hyper, tensors, decoder)?;
    if (0..hyper.layers).any(|layer| tensors.has(&format!("blk.{layer}.attn_norm_2.weight"))) {
        decoder.attention_norm = "attn_norm_2";
    }
    Ok(())
}

pub(super) fn phi2(_: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.norm = NormKind::Layer;
    decoder.parallel = true;
    decoder.feed_forward_norm = "attn_norm";
    decoder.gated = false;
    decoder.activation = Activation::Gelu;
    Ok(())
}

pub(super) fn gptneox(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    phi2(hyper, tensors, decoder)?;
    decoder.feed_forward_norm = "ffn_norm";
    let missing = || Error::metadata(hyper.key("use_parallel_residual"), "nothing", "true or false");
    decoder.parallel = hyper.flag("use_parallel_residual")?.ok_or_else(missing)?;
    Ok(())
}
