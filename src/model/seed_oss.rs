//! Seed-OSS: as the second Qwen, with another name for the norm before the feed-forward.

use super::decoder::Decoder;
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::RopeStyle;

pub(super) fn flags(_: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.feed_forward_norm = "post_attention_norm";
    Ok(())
}
