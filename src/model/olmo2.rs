//! OLMo 2 and 3: norms only behind the branches; queries and keys are normalised over all heads. The third has windows
//! on three of four layers, which rotate as if the context had never been extended.

use super::decoder::{Decoder, QueryKeyNorm, Window};
use super::hyper::{Hyper, Scaling};
use super::tensors::Tensors;
use crate::Result;
use crate::program::RopeStyle;

pub(super) fn flags(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.pre_norms = false;
    decoder.post_norms = true;
    decoder.query_key_norm = QueryKeyNorm::Whole;
    decoder.window = Window::read(hyper, 0, 4)?;
    if let Some(window) = &mut decoder.window {
        window.rope = Some((hyper.rope_base, Scaling::NONE));
    }
    Ok(())
}
