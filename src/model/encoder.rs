//! The steps of an encoder: each token sees the whole of its text, nothing is kept, and the end are rows that describe
//! tokens. Flags say in what families differ; what they share with decoders, those of `decoder` say.

use super::decoder::{Decoder, Stream, Writer};
use super::hyper::Hyper;
use super::tensors::Tensors;
use crate::Result;
use crate::program::{
    Activation, NormKind, Op, Product, Program, Purpose, Reach, RopeId, RowOf, Rows, Sees, SlotId, WeightId,
};

/// What is added before the root is taken, where a file does not say.
pub(super) const ENCODERS_EPSILON: f32 = 1e-12;

/// In what a family differs from BERT.
pub(super) struct Encoder {
    /// Rotation, windows, the curve and the scale of attention.
    pub base: Decoder,
    pub epsilon: f32,
    /// How a token knows where it stands.
    pub positions: Positions,
    /// Norms come before attention and feed-forward, and the sum is left as it is; otherwise the sum is normalised.
    pub pre_norms: bool,
    pub feed_forward: FeedForward,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Positions {
    /// A table has a row for each.
    Table,
    /// Queries and keys are rotated.
    Rotation,
    /// Attention fades with distance, by so much at most: see [`slope`](crate::program::slope).
    Fading(f32),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FeedForward {
    /// A curve between two matrices.
    Plain,
    /// A gated unit.
    Gated,
    /// The same, of one tensor called `ffn_up`, gate first.
    Fused,
}

impl Encoder {
    /// BERT. `base` is what a decoder would have.
    pub fn new(hyper: &Hyper, mut base: Decoder) -> Result<Self> {
        let epsilon = hyper.number("attention.layer_norm_epsilon")?.unwrap_or(ENCODERS_EPSILON);
        base.activation = Activation::Gelu;
        Ok(Encoder { base, epsilon, positions: Positions::Table, pre_norms: false, feed_forward: FeedForward::Plain })
    }

    /// Writes the program.
    pub fn write(&self, hyper: &Hyper, tensors: Tensors) -> Result<Program> {
        let mut writer = Writer { flags: self, hyper, tensors: &tensors, program: Program::default(), layer: None };
        if self.positions == Positions::Rotation {
            writer.program.ropes = self.base.ropes(hyper, &tensors)?;
        }
        writer.encode()?;
        let program = writer.program;
        Ok(Program {
            architecture: hyper.architecture.clone(),
            purpose: Purpose::Embed,
            layers: hyper.layers,
            vocabulary: hyper.vocabulary,
            context: hyper.context,
            weights: tensors.into_weights(),
            ..program
        })
    }
}

impl Writer<'_, '_, Encoder> {
    fn encode(&mut self) -> Result<()> {
        let (flags, hyper) = (self.flags, self.hyper);
        let table = self.tensors.matrix("token_embd.weight", hyper.width, hyper.vocabulary)?;
        let mut stream = self.stream(Rows::Tokens);
        self.push(Op::Embed { table, out: stream.normed });
        // Texts are all of the first type: the second is for pairs of texts, which are not told apart.
        if self.tensors.has("token_types.weight") {
            let table = self.tensors.matrix("token_types.weight", hyper.width, hyper.token_types()?)?;
            self.push(Op::AddRow { table, row: RowOf::First, to: stream.normed });
        }
        if flags.positions == Positions::Table {
            let table = self.tensors.matrix("position_embd.weight", hyper.width, hyper.context)?;
            self.push(Op::AddRow { table, row: RowOf::Position, to: stream.normed });
        }
        self.layer_norm("token_embd_norm", stream.normed, stream.residual)?;
        for layer in 0..hyper.layers {
            self.layer = Some(layer);
            stream = self.attention(layer, stream)?;
            self.feed_forward(layer, stream)?;
        }
        self.layer = None;
        self.program.output = Some(stream.residual);
        if flags.pre_norms {
            self.layer_norm("output_norm", stream.residual, stream.normed)?;
            self.program.output = Some(stream.normed);
        }
        Ok(())
    }

    /// Attention of one layer. In the last one, only rows with outputs go on behind it. What it comes to, with the sum
    /// normalised where the family does that, is `normed`, or with pre-norms the residual stream.
    fn attention(&mut self, layer: usize, stream: Stream) -> Result<Stream> {
        let (flags, hyper) = (self.flags, self.hyper);
        let (heads, kv_heads) = (hyper.heads[layer], hyper.kv_heads[layer]);
        let queries = self.slot("q", heads * hyper.key_size, Rows::Tokens);
        let keys = self.slot("k", kv_heads * hyper.key_size, Rows::Tokens);
        let values = self.slot("v", kv_heads * hyper.value_size, Rows::Tokens);
        let mut sums = self.slot("a", heads * hyper.value_size, Rows::Tokens);

        // The first layer of some has no norm: what it would normalise is just that.
        let norm = format!("blk.{layer}.attn_norm");
        let has_norm = flags.pre_norms && (layer > 0 || self.tensors.has(&format!("{norm}.weight")));
        let input = if has_norm { self.layer_norm(&norm, stream.residual, stream.normed)? } else { stream.residual };
        let products = self.query_key_value(layer, [("attn_q", queries), ("attn_k", keys), ("attn_v", values)])?;
        self.push(Op::Linear { input, products });
        for (name, slot) in [("attn_q_norm", queries), ("attn_k_norm", keys)] {
            let name = format!("blk.{layer}.{name}");
            if self.tensors.has(&format!("{name}.weight")) {
                self.layer_norm(&name, slot, slot)?;
            }
        }
        let windowed = flags.base.window.as_ref().filter(|window| window.on.get(layer) == Some(&true));
        if flags.positions == Positions::Rotation {
            let rope = RopeId(if windowed.is_some_and(|window| window.rope.is_some()) { 1 } else { 0 });
            self.push(Op::Rotate { slot: queries, head_size: hyper.key_size, rope });
            self.push(Op::Rotate { slot: keys, head_size: hyper.key_size, rope });
        }
        let sees = match windowed.map(|window| window.reach) {
            Some(Reach::Window(positions)) => Sees::Around(positions / 2),
            _ => Sees::All,
        };
        let most_bias = if let Positions::Fading(most) = flags.positions { Some(most) } else { None };
        let (scale, out) = (flags.base.attention_scale, sums);
        self.push(Op::AttendTexts { queries, keys, values, heads, sees, scale, softcap: None, most_bias, out });

        let mut after = stream;
        if layer + 1 == hyper.layers {
            after = self.stream(Rows::Outputs);
            let selected = self.slot("a", heads * hyper.value_size, Rows::Outputs);
            self.push(Op::Select { input: sums, out: selected });
            self.push(Op::Select { input: stream.residual, out: after.residual });
            sums = selected;
        }
        let product = self.product(layer, "attn_output", self.width(sums), after.branch)?;
        self.push(Op::Linear { input: sums, products: vec![product] });
        if flags.pre_norms {
            self.push(Op::Add { from: after.branch, to: after.residual });
            return Ok(after);
        }
        self.push(Op::Add { from: after.residual, to: after.branch });
        self.layer_norm(&format!("blk.{layer}.attn_output_norm"), after.branch, after.normed)?;
        let second = format!("blk.{layer}.attn_norm_2");
        if self.tensors.has(&format!("{second}.weight")) {
            self.push(Op::Add { from: after.residual, to: after.normed });
            self.layer_norm(&second, after.normed, after.normed)?;
        }
        Ok(after)
    }

    fn feed_forward(&mut self, layer: usize, stream: Stream) -> Result<()> {
        let flags = self.flags;
        if flags.pre_norms {
            self.layer_norm(&format!("blk.{layer}.ffn_norm"), stream.residual, stream.normed)?;
        }
        let experts = flags.base.experts.as_ref();
        match experts.filter(|experts| experts.on.get(layer) == Some(&true)) {
            Some(experts) => {
                self.mixed(layer, experts, (flags.base.activation, false), stream.normed, stream.branch)?;
            }
            None => self.unit(layer, stream)?,
        }
        if flags.pre_norms {
            self.push(Op::Add { from: stream.branch, to: stream.residual });
            return Ok(());
        }
        self.push(Op::Add { from: stream.normed, to: stream.branch });
        self.layer_norm(&format!("blk.{layer}.layer_output_norm"), stream.branch, stream.residual)?;
        Ok(())
    }

    /// The matrices of an ordinary feed-forward, and what is between them.
    fn unit(&mut self, layer: usize, stream: Stream) -> Result<()> {
        let (flags, width, inner) = (self.flags, self.hyper.width, self.hyper.feed_forward[layer]);
        let rows = self.program.slots[stream.residual.0].rows;
        let (gate, up) = (self.slot("gate", inner, rows), self.slot("up", inner, rows));
        let (activation, input) = (flags.base.activation, stream.normed);
        let (products, inner_slot) = match flags.feed_forward {
            FeedForward::Plain => (vec![self.product(layer, "ffn_up", width, up)?], up),
            FeedForward::Gated => {
                let gate_product = self.product(layer, "ffn_gate", width, gate)?;
                (vec![gate_product, self.product(layer, "ffn_up", width, up)?], gate)
            }
            FeedForward::Fused => (self.stacked(layer, "ffn_up", width, &[gate, up])?, gate),
        };
        self.push(Op::Linear { input, products });
        self.push(match flags.feed_forward {
            FeedForward::Plain => Op::Activate { activation, slot: up },
            _ => Op::Gate { activation, gate, up, out: gate },
        });
        let product: Product = self.product(layer, "ffn_down", inner, stream.branch)?;
        self.push(Op::Linear { input: inner_slot, products: vec![product] });
        Ok(())
    }

    /// Normalises all of a row, and says where the result is. There may be a bias.
    fn layer_norm(&mut self, name: &str, input: SlotId, out: SlotId) -> Result<SlotId> {
        let group = self.width(out);
        let weight: WeightId = self.tensors.vector(&format!("{name}.weight"), group)?;
        let bias = self.tensors.optional_vector(&format!("{name}.bias"), group)?;
        let (kind, epsilon, weight) = (NormKind::Layer, self.flags.epsilon, Some(weight));
        self.push(Op::Norm { kind, input, group, epsilon, weight, bias, out });
        Ok(out)
    }
}
