//! HunYuan, dense: llama that normalises each head's queries and keys after it has rotated them.

use super::decoder::{Decoder, QueryKeyNorm};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::RopeStyle;

pub(super) fn flags(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    hyper.sections()?;
    decoder.rope_style = RopeStyle::Halves;
    decoder.query_key_norm = QueryKeyNorm::Heads;
    decoder.norm_after_rotation = true;
    Ok(())
}
