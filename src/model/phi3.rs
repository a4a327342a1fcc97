//! Phi 3 and 4: fused tensors; a table of rotation factors for short contexts and one for long ones. The key for a
//! sliding window is ignored, as the reference does: published files have it wrong.

use super::decoder::Decoder;
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::RopeStyle;

pub(super) fn flags(_: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.fused_gate_up = true;
    Ok(())
}
