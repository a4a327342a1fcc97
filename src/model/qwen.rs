//! Qwen 2 and 3. The second has biases on queries, keys and values; the third normalises each head's queries and keys.
//! Those that also see pictures rotate by several coordinates, which are all the same for text.

use super::decoder::{Decoder, QueryKeyNorm};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::RopeStyle;

pub(super) fn qwen2(_: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    Ok(())
}

pub(super) fn qwen3(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.query_key_norm = QueryKeyNorm::Heads;
    qwen2(hyper, tensors, decoder)
}

pub(super) fn qwen2vl(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    hyper.sections()?;
    qwen2(hyper, tensors, decoder)
}

pub(super) fn qwen3vl(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    hyper.sections()?;
    qwen3(hyper, tensors, decoder)
}
