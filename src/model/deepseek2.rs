//! DeepSeek 2 and 3, and the many models converted as them (Kimi K2, GLM 4.7 Flash, Mistral Large 3): latent attention;
//! experts chosen from the best groups, with shared ones beside them, behind some layers without.
//!
//! YaRN is told apart from other families': a multiplier in the file says that what it makes up for attention that
//! spreads is not in the rotation, but in the scale of all of attention.

use super::decoder::{Decoder, Experts, Latent, Temper};
use super::hyper::{Hyper, ScalingKind};
use super::tensors::Tensors;
use crate::Result;
use crate::error::Error;
use crate::program::Gating;

pub(super) fn flags(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    let latent = Latent::read(hyper)?;
    let scaling = &hyper.scaling;
    // The reference's way, which other kinds of scaling go as well.
    let grown = |multiplier: f32| 1.0 + multiplier * scaling.factor.ln();
    let mut magnitude = scaling.attention_factor * grown(scaling.log_multiplier);
    if scaling.kind == ScalingKind::Yarn && scaling.log_multiplier != 0.0 {
        decoder.rope_magnitude = Some(scaling.attention_factor);
    } else {
        magnitude *= grown(0.1);
    }
    decoder.attention_scale = magnitude * magnitude / (latent.key_size as f32).sqrt();
    decoder.latent = Some(latent);
    if let Some(slope) = hyper.positive("attention.temperature_scale")? {
        const INTERVAL: &str = "attention.temperature_length";
        let interval = hyper.optional(INTERVAL)?.filter(|&positions| positions > 0);
        let interval = interval.ok_or_else(|| Error::metadata(hyper.key(INTERVAL), "nothing", "a positive number"))?;
        decoder.temper = Some(Temper { slope, interval, offset: 0, on: vec![true; hyper.layers] });
    }
    // Files that do not say how experts are chosen are DeepSeek 2's, or GLM 4.7 Flash's, known by its sizes.
    let is_glm = matches!((hyper.layers, hyper.vocabulary), (47 | 48, 154_880));
    decoder.experts = Experts::read(hyper, if is_glm { Gating::Sigmoid } else { Gating::Softmax })?;
    Ok(())
}
