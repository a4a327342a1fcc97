//! Llama, Mistral and the many models converted as them: the plain case. Rotation factors and biases are used where the
//! file has them.

use super::decoder::Decoder;
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;

pub(super) fn flags(_: &Hyper, _: &Tensors, _: &mut Decoder) -> Result<()> {
    Ok(())
}
