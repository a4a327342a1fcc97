//! Llama 4: three of four layers see chunks of the text, rotate, and normalise what they have rotated, without weights; in
//! the fourth, which sees everything, queries grow with their position instead.

use super::decoder::{Decoder, QueryKeyNorm, Temper, Window};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::Reach;

/// Positions of a chunk, where the file does not say, and of what shares a factor of queries.
const CHUNK: usize = 8192;
const SLOPE: f32 = 0.1;
/// The model with so many experts has no norms of queries and keys.
const EXPERTS_WITHOUT_NORM: usize = 128;

pub(super) fn flags(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    for layer in 0..hyper.layers {
        let expected = "no experts: those of Llama 4, whose inputs are weighted, are not supported yet";
        tensors.refuse(&format!("blk.{layer}.ffn_gate_inp.weight"), expected)?;
    }
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
    Ok(())
}
