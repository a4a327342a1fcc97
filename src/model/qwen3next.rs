//! Qwen 3 Next and 3.5: gated delta nets, and in each fourth layer attention whose sums are gated.

use super::decoder::{Decoder, Experts, Recurrent, RecurrentKind};
use super::hyper::Hyper;
use super::qwen;
use super::tensors::Tensors;
use crate::Result;
use crate::program::{Gating, Served};

pub(super) fn qwen3next(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    flags(hyper, tensors, decoder, Served::Neighbours)?;
    decoder.experts = experts(hyper)?;
    Ok(())
}

pub(super) fn qwen35(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    hyper.sections()?;
    flags(hyper, tensors, decoder, Served::Every)
}

pub(super) fn qwen35moe(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    qwen35(hyper, tensors, decoder)?;
    decoder.experts = experts(hyper)?;
    Ok(())
}

fn flags(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder, served: Served) -> Result<()> {
    let on = Recurrent::but_each_fourth(hyper)?;
    decoder.recurrent = Some(Recurrent::read(hyper, RecurrentKind::DeltaNet(served), on)?);
    decoder.gated_attention = true;
    decoder.feed_forward_norm = "post_attention_norm";
    qwen::qwen3(hyper, tensors, decoder)
}

fn experts(hyper: &Hyper) -> Result<Option<Experts>> {
    let experts = Experts::read(hyper, Gating::Softmax)?;
    Ok(experts.map(|experts| Experts { gating: Gating::Softmax, normalise: true, ..experts }))
}
