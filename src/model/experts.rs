//! Families that are told from others by their experts, and little else.

use super::decoder::{Decoder, Experts, QueryKeyNorm};
use super::hyper::Hyper;
use super::tensors::Tensors;
use super::{granite, hunyuan, phi3, qwen};
use crate::Result;
use crate::error::Error;
use crate::program::{Gating, RopeStyle};

/// OLMoE: all heads' queries and keys are normalised together; experts' weights are not.
pub(super) fn olmoe(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.query_key_norm = QueryKeyNorm::Whole;
    let experts = Experts::read(hyper, Gating::Softmax)?;
    decoder.experts = experts.map(|experts| Experts { normalise: false, shared: 0, ..experts });
    Ok(())
}

/// Granite with experts, some of them shared.
pub(super) fn granitemoe(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    let experts = Experts::read(hyper, Gating::Softmax)?;
    decoder.experts = experts.map(|experts| Experts { normalise: true, ..experts });
    granite::flags(hyper, tensors, decoder)
}

/// GLM 4.5 and later: biases on queries, keys and values, norms of their heads in the large ones, and what other files
/// call the norm behind attention before feed-forward.
pub(super) fn glm4moe(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.feed_forward_norm = "post_attention_norm";
    if tensors.has("blk.0.attn_q_norm.weight") {
        decoder.query_key_norm = QueryKeyNorm::Heads;
    }
    decoder.experts = Experts::read(hyper, Gating::Sigmoid)?;
    Ok(())
}

/// ERNIE 4.5: llama with experts on every layer, or every few, and a bias of their choice.
pub(super) fn ernie(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    const STEP: &str = "interleave_moe_layer_step";
    let step = hyper.optional(STEP)?.unwrap_or(1);
    if step == 0 {
        return Err(Error::metadata(hyper.key(STEP), "0", "a positive number"));
    }
    decoder.experts = Experts::read(hyper, Gating::Softmax)?;
    if let Some(experts) = &mut decoder.experts {
        experts.normalise = true;
        experts.on.iter_mut().enumerate().for_each(|(layer, on)| *on &= (layer + 1) % step == 0);
    }
    Ok(())
}

/// MiniMax M2: all heads' queries and keys are normalised together; half of each head is rotated.
pub(super) fn minimax(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.query_key_norm = QueryKeyNorm::Whole;
    let experts = Experts::read(hyper, Gating::Sigmoid)?;
    decoder.experts = experts.map(|experts| Experts { normalise: true, shared: 0, ..experts });
    Ok(())
}

/// HunYuan with experts, one of them shared.
pub(super) fn hunyuan(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.experts = Experts::read(hyper, Gating::Softmax)?;
    if let Some(experts) = &mut decoder.experts {
        experts.normalise = true;
        experts.inner.clone_from(&hyper.feed_forward);
        let shared = hyper.optional("expert_shared_feed_forward_length")?.filter(|&rows| rows > 0);
        experts.shared = shared.unwrap_or(hyper.feed_forward[0]);
    }
    hunyuan::flags(hyper, tensors, decoder)
}

/// Phi 3.5 with experts.
pub(super) fn phimoe(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    let experts = Experts::read(hyper, Gating::Softmax)?;
    decoder.experts = experts.map(|experts| Experts { normalise: true, shared: 0, ..experts });
    phi3::flags(hyper, tensors, decoder)
}

/// Ling and Ring 2: Qwen 3 with experts chosen from groups, shared ones, and some layers without at the beginning.
pub(super) fn bailing(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.experts = Experts::read(hyper, Gating::Softmax)?;
    let shared = hyper.optional("expert_shared_feed_forward_length")?.filter(|&rows| rows > 0);
    if let (Some(experts), Some(rows)) = (&mut decoder.experts, shared) {
        experts.shared = rows * hyper.optional("expert_shared_count")?.unwrap_or(0);
    }
    qwen::qwen3(hyper, tensors, decoder)
}
