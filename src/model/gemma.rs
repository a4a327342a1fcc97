//! Gemma 1 to 4: embeddings scaled by the root of the width, GELU. The second adds norms behind the branches, softcaps,
//! and windows on every other layer; the third drops the softcaps, normalises queries and keys, and has five windowed
//! layers, which rotate faster, to each global one. In the fourth those have smaller heads too, values are normalised,
//! the last layers may go without keys and values of their own, each layer may be given an input of its own, and experts
//! may stand beside its feed-forward. Gemma 3 is an encoder, too.

use super::decoder::{Decoder, Experts, QueryKeyNorm, Window, Wiring};
use super::hyper::{Hyper, Scaling};
use super::tensors::Tensors;
use crate::Result;
use crate::error::Error;
use crate::program::{Activation, Gating, Purpose, RopeStyle};

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
    decoder.attention_softcap = softcap(hyper, "attn_logit_softcapping", 50.0)?;
    decoder.logit_softcap = softcap(hyper, "final_logit_softcapping", 30.0)?;
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

pub(super) fn gemma4(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    gemma(hyper, tensors, decoder)?;
    let experts = Experts::read(hyper, Gating::Softmax)?;
    decoder.experts = experts.map(|experts| Experts {
        on: (0..hyper.layers).map(|layer| tensors.has(&format!("blk.{layer}.ffn_gate_inp.weight"))).collect(),
        gating: Gating::Softmax,
        normalise: true,
        scale: 1.0,
        shared: 0,
        wiring: Wiring::Beside,
        ..experts
    });
    decoder.post_norms = true;
    decoder.query_key_norm = QueryKeyNorm::Heads;
    decoder.value_norm = true;
    decoder.keys_as_values = true;
    decoder.attention_scale = 1.0;
    decoder.logit_softcap = softcap(hyper, "final_logit_softcapping", 30.0)?;
    // Layers that see everything turn only some of their pairs: factors say so.
    tensors.vector("rope_freqs.weight", hyper.rope_dimensions / 2)?;
    decoder.shared_caches = hyper.optional("attention.shared_kv_layers")?.unwrap_or(0);
    decoder.layer_inputs = hyper.optional("embedding_length_per_layer_input")?.unwrap_or(0);
    const PATTERN: &str = "attention.sliding_window_pattern";
    let missing = |name, expected: &str| Error::metadata(hyper.key(name), "nothing", expected);
    hyper.flags(PATTERN)?.ok_or_else(|| missing(PATTERN, "an array with a bool for each layer"))?;
    let window = Window::read(hyper, 0, 0)?;
    let mut window = window.ok_or_else(|| missing("attention.sliding_window", "a positive number"))?;
    window.rope = Some((hyper.positive("rope.freq_base_swa")?.unwrap_or(10_000.0), Scaling::NONE));
    window.head = Some(near_head(hyper)?);
    decoder.window = Some(window);
    Ok(())
}

/// The size of keys and values of windowed layers, and how many numbers of them are rotated.
fn near_head(hyper: &Hyper) -> Result<(usize, usize)> {
    let size = hyper.optional("attention.key_length_swa")?.unwrap_or(hyper.key_size);
    let rotated = hyper.optional("rope.dimension_count_swa")?.unwrap_or(hyper.rope_dimensions.min(size));
    let wrong = |name, found: usize, expected| Err(Error::metadata(hyper.key(name), found.to_string(), expected));
    if size == 0 || size > hyper.key_size {
        return wrong("attention.key_length_swa", size, format!("1 to {}, the keys of other layers", hyper.key_size));
    }
    for (name, other) in [("attention.value_length_swa", size), ("attention.value_length", hyper.key_size)] {
        let found = hyper.optional(name)?.unwrap_or(other);
        if found != other {
            return Err(Error::metadata(hyper.key(name), found.to_string(), format!("{other}, as long as keys")));
        }
    }
    if rotated > size || !rotated.is_multiple_of(2) {
        return wrong("rope.dimension_count_swa", rotated, format!("an even number up to {size}"));
    }
    Ok((size, rotated))
}

/// A bound for scores or logits; files write 0 for none.
fn softcap(hyper: &Hyper, name: &str, default: f32) -> Result<Option<f32>> {
    let cap = hyper.number(name)?.unwrap_or(default);
    Ok((cap != 0.0).then_some(cap))
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
