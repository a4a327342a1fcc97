//! GLM 4: norms behind the branches as well, and one tensor for gate and up.

use super::decoder::Decoder;
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;

pub(super) fn flags(_: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.post_norms = true;
    decoder.fused_gate_up = true;
    Ok(())
}
