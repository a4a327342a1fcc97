//! Command R and Cohere's second: norms that subtract the mean, one for attention and feed-forward, which both read it;
//! logits scaled. The largest Command R normalises queries and keys, each head with weights of its own. The second has
//! windows on three of four layers, and rotates in those alone.

use super::decoder::{Decoder, QueryKeyNorm, Window};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::error::Error;
use crate::program::NormKind;

pub(super) fn command_r(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.norm = NormKind::Layer;
    decoder.parallel = true;
    decoder.feed_forward_norm = decoder.attention_norm;
    decoder.logit_scale = hyper.positive("logit_scale")?;
    if hyper.layers >= 64 {
        decoder.query_key_norm = QueryKeyNorm::OwnHeads;
    }
    Ok(())
}

pub(super) fn cohere2(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    command_r(hyper, tensors, decoder)?;
    decoder.query_key_norm = QueryKeyNorm::None;
    let missing = |name, expected: &str| Error::metadata(hyper.key(name), "nothing", expected);
    if decoder.logit_scale.is_none() {
        return Err(missing("logit_scale", "a number other than 0"));
    }
    decoder.window = Window::read(hyper, 0, 4)?;
    if decoder.window.is_none() {
        return Err(missing("attention.sliding_window", "a positive number"));
    }
    decoder.rotates = Window::rotate_alone(decoder.window.as_ref(), hyper.layers);
    Ok(())
}
