//! Llama, Mistral and the many models converted as them: the plain case. Rotation factors and biases are used where the
//! file has them. Mixtral is the same with experts.

use super::decoder::{Decoder, Experts};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::Gating;

pub(super) fn flags(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    let experts = Experts::read(hyper, Gating::Softmax)?;
    decoder.experts = experts.map(|experts| Experts { normalise: true, ..experts });
    Ok(())
}
