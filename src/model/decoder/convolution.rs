//! Short convolutions in place of attention: what a layer remembers are the inputs of its last few tokens, which are kept in
//! pages like keys, so that they can be forked and taken back like those.

use super::{Stream, Writer};
use crate::Result;
use crate::program::{Activation, KeyValues, KeyValuesId, Op, Reach, Rows};

/// How many columns are kept together.
const HEAD_SIZE: usize = 64;

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
        // No kernel takes a key as wide as a large model's residual stream.
        let head_size = if width.is_multiple_of(HEAD_SIZE) { HEAD_SIZE } else { width };
        let over = KeyValuesId(self.program.key_values.len());
        self.program.key_values.push(KeyValues {
            layer,
            heads: width / head_size,
            key_size: head_size,
            value_size: head_size,
            values_in_keys: true,
            exact: true,
            reach: Reach::Window(kernel),
        });
        self.push(Op::Store { keys: before, values: None, to: over });
        let weight = self.tensors.shaped(&format!("blk.{layer}.shortconv.conv.weight"), &[kernel, width])?;
        self.push(Op::Convolve { input: before, over, weight, out: sums });
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
