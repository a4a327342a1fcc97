//! Short convolutions in place of attention: what a layer remembers are the inputs of its last few tokens.

use super::{Stream, Writer};
use crate::Result;
use crate::program::{Activation, Op, Rows, State, StateId};

impl Writer<'_, '_> {
    /// A convolution of `kernel` tokens between two products, in place of attention. In the last layer, only rows with
    /// outputs go on behind it.
    pub(super) fn convolution(&mut self, layer: usize, kernel: usize, stream: Stream, is_last: bool) -> Result<Stream> {
        let width = self.hyper.width;
        let [before, mut behind, input, sums] = ["b", "c", "z", "s"].map(|name| self.slot(name, width, Rows::Tokens));
        let normed = self.pre_norm(layer, self.flags.attention_norm, stream)?;
        let products = self.stacked(layer, "shortconv.in_proj", width, &[before, behind, input])?;
        self.push(Op::Linear { input: normed, products });
        self.push(Op::Gate { activation: Activation::Identity, gate: before, up: input, out: before });
        let over = StateId(self.program.states.len());
        let (heads, key_size, value_size) = (0, 0, 0);
        self.program.states.push(State { layer, inputs: kernel - 1, width, heads, key_size, value_size });
        let weight = self.tensors.shaped(&format!("blk.{layer}.shortconv.conv.weight"), &[kernel, width])?;
        self.push(Op::Convolve { input: before, over, weight, bias: None, out: sums });
        self.push(Op::Gate { activation: Activation::Identity, gate: behind, up: sums, out: behind });
        let mut after = stream;
        if is_last {
            after = self.stream(Rows::Outputs);
            let selected = self.slot("c", width, Rows::Outputs);
            self.push(Op::Select { input: behind, out: selected });
            self.push(Op::Select { input: stream.residual, out: after.residual });
            behind = selected;
        }
        let product = self.product(layer, "shortconv.out_proj", width, after.branch)?;
        self.push(Op::Linear { input: behind, products: vec![product] });
        self.join(layer, "post_attention_norm", after)?;
        Ok(after)
    }
}
