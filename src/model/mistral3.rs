//! Ministral 3: llama whose queries grow with their position, once it is beyond the context that the model was first
//! trained for.

use super::decoder::{Decoder, Temper};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;

pub(super) fn flags(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    let (interval, on) = (hyper.scaling.original_context, vec![true; hyper.layers]);
    let slope = hyper.positive("attention.temperature_scale")?;
    decoder.temper = slope.map(|slope| Temper { slope, interval, offset: 0, on });
    Ok(())
}
