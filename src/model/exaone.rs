//! EXAONE: the third is llama; the fourth has norms only behind the branches and normalises each head's queries and keys.
//! Its large model, known by its layers, has windows on three of four layers, and rotates in those alone.

use super::decoder::{Decoder, QueryKeyNorm, Window};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::RopeStyle;

pub(super) fn exaone(_: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    Ok(())
}

pub(super) fn exaone4(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    exaone(hyper, tensors, decoder)?;
    decoder.pre_norms = false;
    decoder.post_norms = true;
    decoder.query_key_norm = QueryKeyNorm::Heads;
    if hyper.layers == 64 {
        decoder.window = Window::read(hyper, 4096, 4)?;
        decoder.rotates = Window::rotate_alone(decoder.window.as_ref(), hyper.layers);
    }
    Ok(())
}
