//! Nemotron: norms that subtract the mean, and feed-forwards without a gate whose curve is a squared ReLU. The one that is
//! added to the weights of norms is in the file. Arcee has that curve too, and is llama otherwise.

use super::decoder::Decoder;
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::{Activation, NormKind, RopeStyle};

pub(super) fn flags(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.norm = NormKind::Layer;
    arcee(hyper, tensors, decoder)
}

pub(super) fn arcee(_: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.gated = false;
    decoder.activation = Activation::SquaredRelu;
    Ok(())
}
