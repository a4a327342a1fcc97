//! GLM 4: norms behind the branches as well, and one tensor for gate and up. Models that also see pictures rotate by
//! several coordinates, which are all the same for text.

use super::decoder::Decoder;
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::RopeStyle;

pub(super) fn flags(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.post_norms = true;
    decoder.fused_gate_up = true;
    let sections = hyper.sections()?;
    if matches!(sections[..], [times, heights, ..] if times > 0 && heights > 0) {
        decoder.rope_style = RopeStyle::Halves;
    }
    Ok(())
}
