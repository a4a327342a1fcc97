//! OLMo 2: norms only behind the branches; queries and keys are normalised over all heads.

use super::decoder::{Decoder, QueryKeyNorm};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::error::Error;
use crate::program::RopeStyle;

pub(super) fn flags(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    decoder.rope_style = RopeStyle::Halves;
    decoder.pre_norms = false;
    decoder.post_norms = true;
    decoder.query_key_norm = QueryKeyNorm::Whole;
    match hyper.optional("attention.sliding_window")? {
        None | Some(0) => Ok(()),
        Some(window) => {
            let found = format!("{window} (OLMo 3)");
            Err(Error::metadata(hyper.key("attention.sliding_window"), found, "0: windows are not supported here yet"))
        }
    }
}
