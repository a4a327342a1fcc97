//! Gemma 1 to 3: embeddings scaled by the root of the width, GELU. The second adds norms behind the branches, softcaps,
//! and windows on every other layer; the third drops the softcaps, normalises queries and keys, and has five windowed
//! layers, which rotate faster, to each global one. A fourth is the third as an encoder.

use super::decoder::{Decoder, QueryKeyNorm, Window};
use super::hyper::{Hyper, Scaling};
use super::tensors::Tensors;
use crate::Result;
use crate::program::{Activation, Purpose, RopeStyle};

pub(super) fn gemma(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.activation = Activation::Gelu;
    decoder.embedding_scale = Some((hyper.width as f32).sqrt());
    Ok(())
}

pub(super) fn gemma2(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    gemma(hyper, tensors, decoder)?;
    decoder.post_norms = true;
    decoder.window = Window::read(hyper, 4096, 2)?;
    if let Some(window) = &mut decoder.window {
        let base = hyper.positive("rope.freq_base_swa")?;
        window.rope = base.map(|base| (base, hyper.scaling.clone()));
    }
    let softcap = |name, default| -> Result<Option<f32>> {
        let cap = hyper.number(name)?.unwrap_or(default);
        Ok((cap != 0.0).then_some(cap))
    };
    decoder.attention_softcap = softcap("attn_logit_softcapping", 50.0)?;
    decoder.logit_softcap = softcap("final_logit_softcapping", 30.0)?;
    if hyper.layers == 46 {
        decoder.attention_scale = scale_of_27b(hyper);
    }
    Ok(())
}

pub(super) fn gemma3(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    gemma(hyper, tensors, decoder)?;
    decoder.post_norms = true;
    decoder.query_key_norm = QueryKeyNorm::Heads;
    decoder.window = Window::read(hyper, 0, 6)?;
    if let Some(window) = &mut decoder.window {
        let scaling = Scaling { attention_factor: hyper.scaling.attention_factor, ..Scaling::NONE };
        window.rope = Some((hyper.positive("rope.freq_base_swa")?.unwrap_or(10_000.0), scaling));
    }
    decoder.logit_softcap = hyper.positive("final_logit_softcapping")?;
    if hyper.layers == 62 {
        decoder.attention_scale = scale_of_27b(hyper);
    }
    Ok(())
}

/// Gemma 3 for embeddings: tokens see those around them, and the program ends before the logits.
pub(super) fn embedding(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    gemma3(hyper, tensors, decoder)?;
    decoder.purpose = Purpose::Embed;
    decoder.causal = false;
    decoder.attention_scale = 1.0 / (hyper.key_size as f32).sqrt();
    Ok(())
}

/// The models of 27 billion parameters, known by their layers, scale by width and heads, not by the size of a head.
fn scale_of_27b(hyper: &Hyper) -> f32 {
    1.0 / ((hyper.width / hyper.heads[0]) as f32).sqrt() // rounded down, as in the reference
}
