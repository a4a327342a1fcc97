//! Qwen 2 and 3. The second has biases on queries, keys and values; the third normalises each head's queries and keys.
//! Both come with experts too: the second's have a shared one beside them, the third's weights are normalised.
//! Those that also see pictures rotate by several coordinates, which are all the same for text.

use super::decoder::{Decoder, Experts, QueryKeyNorm};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::{Gating, RopeStyle};

pub(super) fn qwen2(_: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    Ok(())
}

pub(super) fn qwen2moe(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.experts = experts(hyper)?;
    if let Some(experts) = decoder.experts.as_mut().filter(|experts| experts.shared == 0) {
        experts.shared = hyper.feed_forward[0];
    }
    qwen2(hyper, tensors, decoder)
}

pub(super) fn qwen3(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.query_key_norm = QueryKeyNorm::Heads;
    qwen2(hyper, tensors, decoder)
}

pub(super) fn qwen3moe(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    let experts = experts(hyper)?;
    decoder.experts = experts.map(|experts| Experts { normalise: true, shared: 0, ..experts });
    qwen3(hyper, tensors, decoder)
}

fn experts(hyper: &Hyper) -> Result<Option<Experts>> {
    let Some(mut experts) = Experts::read(hyper, Gating::Softmax)? else { return Ok(None) };
    if hyper.optional("expert_feed_forward_length")?.is_none() {
        experts.inner.iter_mut().for_each(|rows| *rows /= experts.used);
    }
    Ok(Some(Experts { gating: Gating::Softmax, normalise: false, ..experts }))
}

pub(super) fn qwen2vl(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    hyper.sections()?;
    qwen2(hyper, tensors, decoder)
}

pub(super) fn qwen3vl(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    hyper.sections()?;
    qwen3(hyper, tensors, decoder)
}
