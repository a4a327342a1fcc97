//! StarCoder 2: norms that subtract the mean, feed-forwards without a gate, and biases everywhere. The key for a sliding
//! window is ignored, as the reference does.

use super::decoder::Decoder;
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::{Activation, NormKind, RopeStyle};

pub(super) fn flags(_: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.norm = NormKind::Layer;
    decoder.gated = false;
    decoder.activation = Activation::Gelu;
    Ok(())
}
