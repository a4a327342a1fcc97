//! Llama 4: three of four layers see chunks of the text, rotate, and normalise what they have rotated, without weights; in
//! the fourth, which sees everything, queries grow with their position instead. Some layers have experts, of which a token
//! goes through the best one and a shared one; how good it is weighs what the expert works on, not what it comes to.

use super::decoder::{Decoder, Experts, QueryKeyNorm, Temper, Window, Wiring};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::error::Error;
use crate::program::{Gating, Reach};

/// Positions of a chunk, where the file does not say, and of what shares a factor of queries.
const CHUNK: usize = 8192;
const SLOPE: f32 = 0.1;
/// The model with so many experts has no norms of queries and keys.
const EXPERTS_WITHOUT_NORM: usize = 128;

pub(super) fn flags(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.window = Window::read(hyper, CHUNK, 4)?;
    if let Some(Window { reach, .. }) = &mut decoder.window {
        *reach = Reach::Chunk(reach.most_seen().unwrap_or(CHUNK));
        decoder.rotates = (0..hyper.layers).map(|layer| (layer + 1) % 4 != 0).collect();
        let on = decoder.rotates.iter().map(|rotates| !rotates).collect();
        decoder.temper = Some(Temper { slope: SLOPE, interval: CHUNK, offset: 1, on });
    }
    if hyper.optional("expert_count")? != Some(EXPERTS_WITHOUT_NORM) {
        decoder.query_key_norm = QueryKeyNorm::Unweighted;
        decoder.norm_after_rotation = true;
    }
    decoder.experts = experts(hyper)?;
    Ok(())
}

/// Experts on every so many layers, and a shared one of their size.
fn experts(hyper: &Hyper) -> Result<Option<Experts>> {
    const STEP: &str = "interleave_moe_layer_step";
    let Some(experts) = Experts::read(hyper, Gating::SigmoidOfChosen)? else { return Ok(None) };
    if experts.used != 1 {
        let expected = "1: the weight of the one expert is for its input";
        return Err(Error::metadata(hyper.key("expert_used_count"), experts.used.to_string(), expected));
    }
    let missing = || Error::metadata(hyper.key(STEP), "nothing", "a number: 0 if no layer has experts");
    let step = hyper.optional(STEP)?.ok_or_else(missing)?;
    Ok(Some(Experts {
        on: (1..=hyper.layers).map(|layer| step > 0 && layer % step == 0).collect(),
        gating: Gating::SigmoidOfChosen,
        normalise: false,
        scale: 1.0,
        shared: experts.inner[0],
        wiring: Wiring::WeighedInput,
        ..experts
    }))
}
