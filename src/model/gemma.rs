//! Gemma 1 to 3: embeddings scaled by the root of the width, GELU. The second adds norms behind the branches, softcaps,
//! and windows on every other layer; the third drops the softcaps, normalises queries and keys, and has five windowed
//! layers, which rotate faster, to each global one.

use super::decoder::{Decoder, QueryKeyNorm, Window};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::{Activation, RopeStyle};

pub(super) fn gemma(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.activation = Activation::Gelu;
    decoder.embedding_scale = Some((hyper.width as f32).sqrt());
    Ok(())
}

pub(super) fn gemma2(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    gemma(hyper, tensors, decoder)?;
    decoder.post_norms = true;
    decoder.window = window(hyper, 4096, 2)?;
    decoder.attention_softcap = Some(hyper.number("attn_logit_softcapping")?.unwrap_or(50.0));
    decoder.logit_softcap = Some(hyper.number("final_logit_softcapping")?.unwrap_or(30.0));
    // The 27B model scales by width and heads rather than by the size of a head.
    if hyper.layers == 46 {
        decoder.attention_scale = 1.0 / (hyper.width as f32 / hyper.heads[0] as f32).sqrt();
    }
    Ok(())
}

pub(super) fn gemma3(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    gemma(hyper, tensors, decoder)?;
    decoder.post_norms = true;
    decoder.query_key_norm = QueryKeyNorm::Heads;
    decoder.window = window(hyper, 0, 6)?;
    if let Some(window) = &mut decoder.window {
        window.rope = Some((hyper.number("rope.freq_base_swa")?.unwrap_or(10_000.0), 1.0));
    }
    decoder.logit_softcap = hyper.positive("final_logit_softcapping")?;
    if hyper.layers == 62 {
        decoder.attention_scale = 1.0 / (hyper.width as f32 / hyper.heads[0] as f32).sqrt();
    }
    Ok(())
}

/// Windows on all layers but each `every`-th.
fn window(hyper: &Hyper, default: usize, every: usize) -> Result<Option<Window>> {
    let positions = hyper.optional("attention.sliding_window")?.unwrap_or(default);
    let every = hyper.optional("attention.sliding_window_pattern")?.unwrap_or(every).max(1);
    let on = (0..hyper.layers).map(|layer| layer % every + 1 < every).collect();
    Ok((positions > 0).then_some(Window { positions, on, rope: None }))
}
