//! What each layer is given for a token besides the residual stream: a part of a second embedding, mixed with a part of
//! what a matrix makes of the first.

use super::{Stream, Writer};
use crate::Result;
use crate::program::{Activation, Op, Product, Rows, Runs, SlotId};

/// The name of the slot that holds the inputs of all layers.
const INPUTS: &str = "inputs";

impl Writer<'_, '_> {
    /// Computes the inputs of all layers, if layers have any.
    pub(super) fn begin_layer_inputs(&mut self, residual: SlotId) -> Result<()> {
        let (size, hyper) = (self.flags.layer_inputs, self.hyper);
        if size == 0 {
            return Ok(());
        }
        let width = size * hyper.layers;
        let inputs = self.slot(INPUTS, width, Rows::Tokens);
        let mixed = self.slot("mixed", width, Rows::Tokens);
        let table = self.tensors.matrix("per_layer_token_embd.weight", width, hyper.vocabulary)?;
        self.push(Op::Embed { table, out: inputs });
        self.push(Op::Scale { slot: inputs, factor: (size as f32).sqrt() });
        let weight = self.tensors.matrix("per_layer_model_proj.weight", hyper.width, width)?;
        self.push(Op::Linear {
            input: residual,
            products: vec![Product { weight, first_row: 0, bias: None, out: mixed }],
        });
        self.push(Op::Scale { slot: mixed, factor: 1.0 / (hyper.width as f32).sqrt() });
        self.norm("per_layer_proj_norm", mixed, mixed, size)?;
        self.push(Op::Add { from: mixed, to: inputs });
        self.push(Op::Scale { slot: inputs, factor: std::f32::consts::FRAC_1_SQRT_2 });
        Ok(())
    }

    /// Adds what a layer makes of its input to the residual stream.
    pub(super) fn add_layer_input(&mut self, layer: usize, stream: Stream) -> Result<()> {
        let (size, width) = (self.flags.layer_inputs, self.hyper.width);
        if size == 0 {
            return Ok(());
        }
        let rows = self.program.slots[stream.residual.0].rows;
        let mut inputs = self.slot(INPUTS, size * self.hyper.layers, Rows::Tokens);
        if rows == Rows::Outputs {
            let selected = self.slot(INPUTS, size * self.hyper.layers, rows);
            self.push(Op::Select { input: inputs, out: selected });
            inputs = selected;
        }
        let (gate, own) = (self.slot("input gate", size, rows), self.new_slot("input", size, rows));
        let product = self.product(layer, "inp_gate", width, gate)?;
        self.push(Op::Linear { input: stream.residual, products: vec![product] });
        let [from_stride, to_start, to_stride] = [0; 3];
        let part = Runs { from: inputs, from_start: layer * size, from_stride, to_start, to_stride, size, count: 1 };
        self.push(Op::Copy { parts: vec![part], out: own });
        self.push(Op::Gate { activation: Activation::Gelu, gate, up: own, out: gate });
        let product = self.product(layer, "proj", size, stream.branch)?;
        self.push(Op::Linear { input: gate, products: vec![product] });
        self.norm(&format!("blk.{layer}.post_norm"), stream.branch, stream.branch, width)?;
        self.push(Op::Add { from: stream.branch, to: stream.residual });
        Ok(())
    }
}
