//! Mamba 2: recurrent layers and nothing else; and Granite 4, which has attention in some of its layers.

use super::decoder::{Decoder, Recurrent, RecurrentKind};
use super::experts;
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;

pub(super) fn mamba2(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.recurrent = Some(Recurrent::read(hyper, RecurrentKind::Mamba, vec![true; hyper.layers])?);
    decoder.feed_forward = false;
    Ok(())
}

pub(super) fn granite_hybrid(hyper: &Hyper, tensors: &Tensors, decoder: &mut Decoder) -> Result<()> {
    let on = hyper.kv_heads.iter().map(|&heads| heads == 0).collect();
    decoder.recurrent = Some(Recurrent::read(hyper, RecurrentKind::Mamba, on)?);
    experts::granitemoe(hyper, tensors, decoder)
}
