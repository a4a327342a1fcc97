//! gpt-oss: windows on every second layer from the first on, sinks, biases everywhere, experts with a clamped curve whose
//! weights are a softmax over those that are chosen. What other files call the norm behind attention is the one before
//! feed-forward.

use super::decoder::{Decoder, Experts, Window};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::{Activation, Gating, RopeStyle};

pub(super) fn flags(hyper: &Hyper, _: &Tensors, decoder: &mut Decoder) -> Result<()> {
    let gating = Gating::SoftmaxOfChosen;
    decoder.rope_style = RopeStyle::Halves;
    decoder.window = Window::read(hyper, 0, 2)?;
    if let Some(window) = &mut decoder.window {
        let base = hyper.positive("rope.freq_base_swa")?;
        window.rope = base.map(|base| (base, hyper.scaling.clone()));
    }
    decoder.sinks = true;
    decoder.feed_forward_norm = "post_attention_norm";
    decoder.activation = Activation::ClampedSilu;
    let experts = Experts::read(hyper, gating)?;
    decoder.experts = experts.map(|experts| Experts { gating, normalise: false, ..experts });
    Ok(())
}
