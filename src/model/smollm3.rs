//! SmolLM 3: llama without rotation in every fourth layer.

use super::decoder::Decoder;
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;

pub(super) fn flags(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rotates = (0..hyper.layers).map(|layer| (layer + 1) % 4 != 0).collect();
    Ok(())
}
