//! Granite 3: llama with multipliers for embeddings, branches, attention and logits, and models without rotation.

use super::decoder::Decoder;
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::error::Error;

pub(super) fn flags(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.embedding_scale = hyper.positive("embedding_scale")?;
    decoder.residual_scale = hyper.positive("residual_scale")?;
    if let Some(scale) = hyper.positive("attention.scale")? {
        decoder.attention_scale = scale;
    }
    let logit_scale = hyper.positive("logit_scale")?;
    let missing = || Error::metadata(hyper.key("logit_scale"), "nothing", "a number other than 0");
    decoder.logit_scale = Some(1.0 / logit_scale.ok_or_else(missing)?);
    // The key means something else by its name, but this is how files say that positions are not rotated.
    if hyper.flag("rope.scaling.finetuned")? == Some(false) {
        decoder.rotates.fill(false);
    }
    Ok(())
}
