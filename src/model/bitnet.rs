//! BitNet: llama with norms before the last matrices of attention and feed-forward.

use super::decoder::Decoder;
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::RopeStyle;

pub(super) fn flags(_: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.inner_norms = true;
    Ok(())
}
