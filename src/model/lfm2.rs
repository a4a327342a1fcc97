//! LFM 2: short convolutions, and attention in those layers that have heads of keys; and the same with experts.

use super::decoder::{Decoder, Experts, QueryKeyNorm};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::{Gating, RopeStyle};

pub(super) fn flags(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.query_key_norm = QueryKeyNorm::Heads;
    decoder.convolution = hyper.convolution()?;
    decoder.final_norm = "token_embd_norm";
    Ok(())
}

pub(super) fn with_experts(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    let experts = Experts::read(hyper, Gating::Sigmoid)?;
    decoder.experts = experts.map(|experts| Experts { normalise: true, shared: 0, ..experts });
    flags(hyper, tensors, decoder)
}
