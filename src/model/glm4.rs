//! GLM 4: norms behind the branches as well, and one tensor for gate and up. Models that also see pictures rotate by
//! several coordinates, which are all the same for text.

use super::decoder::Decoder;
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::error::Error;
use crate::program::RopeStyle;

pub(super) fn flags(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.post_norms = true;
    decoder.fused_gate_up = true;
    let sections = hyper.counts("rope.dimension_sections")?;
    if matches!(sections[..], [times, heights, ..] if times > 0 && heights > 0) {
        decoder.rope_style = RopeStyle::Halves;
    }
    // A fourth coordinate would be 0 for text, and its pairs not rotated.
    if let Some(other) = sections.get(3).filter(|&&other| other > 0) {
        let found = format!("{other} in the fourth section");
        return Err(Error::metadata(hyper.key("rope.dimension_sections"), found, "nothing in it"));
    }
    Ok(())
}
