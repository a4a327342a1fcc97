//! StableLM: llama with norms that subtract the mean. The largest has no norm before its feed-forward, which reads that of
//! attention instead, and normalises queries and keys, each head with weights of its own.

use super::decoder::{Decoder, QueryKeyNorm};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::{NormKind, RopeStyle};

pub(super) fn flags(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    let has = |part| (0..hyper.layers).any(|layer| tensors.has(&format!("blk.{layer}.{part}.weight")));
    decoder.rope_style = RopeStyle::Halves;
    decoder.norm = NormKind::Layer;
    if !has("ffn_norm") {
        decoder.parallel = true;
        decoder.feed_forward_norm = decoder.attention_norm;
    }
    if has("attn_q_norm") || has("attn_k_norm") {
        decoder.query_key_norm = QueryKeyNorm::OwnHeads;
    }
    Ok(())
}
