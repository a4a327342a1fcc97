//! The steps of a decoder-only transformer, with a flag for everything in which families differ.

mod convolution;
mod experts;
mod latent;
mod layer_inputs;
mod recurrent;

use super::ProgramOptions;
use super::hyper::{Hyper, Scaling, ScalingKind};
use super::tensors::Tensors;
use crate::Result;
use crate::error::Error;
use crate::program::{
    Activation, KeyValues, KeyValuesId, NormKind, Op, Product, Program, Purpose, Reach, Rope, RopeId, RopeStyle, Rows,
    Runs, Sees, Slot, SlotId, Step, WeightId, Yarn,
};
pub(super) use experts::{Experts, Wiring};
pub(super) use latent::Latent;
pub(super) use recurrent::{Recurrent, RecurrentKind};

/// In what a family differs from plain llama.
pub(super) struct Decoder {
    options: ProgramOptions,
    /// What the program is for. One that embeds ends before the logits.
    pub purpose: Purpose,
    /// Whether tokens see only what is before them.
    pub causal: bool,
    pub rope_style: RopeStyle,
    /// Which layers rotate queries and keys.
    pub rotates: Vec<bool>,
    /// What sines and cosines are multiplied with, if it is not what the scaling says.
    pub rope_magnitude: Option<f32>,
    /// Latent attention, in place of heads with keys and values of their own.
    pub latent: Option<Latent>,
    /// Which layers see only a window, and how wide that is.
    pub window: Option<Window>,
    /// How all norms are computed. They have biases where the file has them.
    pub norm: NormKind,
    /// How queries and keys are normalised.
    pub query_key_norm: QueryKeyNorm,
    /// Whether that is after they have been rotated.
    pub norm_after_rotation: bool,
    /// Whether values are normalised, each head by itself without weights.
    pub value_norm: bool,
    /// Whether layers without a matrix for values take the keys, as they are before norm and rotation.
    pub keys_as_values: bool,
    /// How many of the last layers have no keys and values, and attend over those of earlier ones.
    pub shared_caches: usize,
    /// How many numbers each layer is given for a token, besides what the layers before it made.
    pub layer_inputs: usize,
    /// What queries are multiplied with at later positions.
    pub temper: Option<Temper>,
    /// Whether there are norms before attention and feed-forward.
    pub pre_norms: bool,
    /// What these are called. With one name for both there is one norm, if they are parallel.
    pub attention_norm: &'static str,
    pub feed_forward_norm: &'static str,
    /// Whether the feed-forward reads the residual stream as it was before attention.
    pub parallel: bool,
    /// Whether there are norms before the last matrix of attention and of feed-forward.
    pub inner_norms: bool,
    /// Whether there are norms behind them, before they join the residual stream.
    pub post_norms: bool,
    /// Mixtures of experts in place of feed-forward.
    pub experts: Option<Experts>,
    /// Each head has one more score, of nothing.
    pub sinks: bool,
    /// How many tokens the convolution counts that layers without heads of keys have in place of attention.
    pub convolution: Option<usize>,
    /// Recurrent layers in place of attention.
    pub recurrent: Option<Recurrent>,
    /// Whether attention's sums are gated: behind each head of queries is one of gates.
    pub gated_attention: bool,
    /// Whether layers have a feed-forward.
    pub feed_forward: bool,
    /// What the norm behind the last layer is called.
    pub final_norm: &'static str,
    pub activation: Activation,
    /// Whether what the activation gives is multiplied with another matrix's product.
    pub gated: bool,
    /// Gate and up matrices are one tensor, gate first, called `ffn_up`.
    pub fused_gate_up: bool,
    pub embedding_scale: Option<f32>,
    /// Multiplied with what joins the residual stream.
    pub residual_scale: Option<f32>,
    pub attention_scale: f32,
    pub attention_softcap: Option<f32>,
    pub logit_scale: Option<f32>,
    pub logit_softcap: Option<f32>,
}

/// Windows of attention on some layers.
pub(super) struct Window {
    pub reach: Reach,
    /// Which layers.
    pub on: Vec<bool>,
    /// The base and scaling of windowed layers, where they rotate otherwise than the others.
    pub rope: Option<(f32, Scaling)>,
    /// Numbers in a key or value of windowed layers, and how many of them are rotated, where that is not as in others.
    pub head: Option<(usize, usize)>,
}

impl Window {
    /// What the metadata say: windows on all layers but each `every`-th, if the file does not name the layers. There
    /// are none if the window has no positions.
    pub fn read(hyper: &Hyper, positions: usize, every: usize) -> Result<Option<Self>> {
        Self::read_from(hyper, positions, every, |layer, every| layer % every + 1 < every)
    }

    /// The same where other layers have them, if the file does not name those.
    pub fn read_from(
        hyper: &Hyper,
        positions: usize,
        every: usize,
        is_on: fn(usize, usize) -> bool,
    ) -> Result<Option<Self>> {
        const PATTERN: &str = "attention.sliding_window_pattern";
        let positions = hyper.optional("attention.sliding_window")?.unwrap_or(positions);
        let on = match hyper.flags(PATTERN)? {
            Some(layers) => layers,
            None => {
                let every = hyper.optional(PATTERN)?.unwrap_or(every);
                (0..hyper.layers).map(|layer| every == 0 || is_on(layer, every)).collect()
            }
        };
        Ok((positions > 0).then_some(Window { reach: Reach::Window(positions), on, rope: None, head: None }))
    }

    /// Layers that rotate, where those without a window do not.
    pub fn rotate_alone(window: Option<&Self>, layers: usize) -> Vec<bool> {
        window.map_or(vec![true; layers], |window| window.on.clone())
    }
}

/// As [`Op::Temper`].
pub(super) struct Temper {
    pub slope: f32,
    pub interval: usize,
    pub offset: usize,
    /// Which layers.
    pub on: Vec<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum QueryKeyNorm {
    None,
    /// Each head by itself, all with the same weights.
    Heads,
    /// Each head by itself, each with weights of its own.
    OwnHeads,
    /// All heads together.
    Whole,
    /// Each head by itself without weights, where they are rotated.
    Unweighted,
}

impl Decoder {
    pub fn new(hyper: &Hyper, options: ProgramOptions) -> Self {
        Decoder {
            options,
            purpose: Purpose::Generate,
            causal: true,
            rope_style: RopeStyle::Adjacent,
            rotates: vec![true; hyper.layers],
            rope_magnitude: None,
            latent: None,
            window: None,
            norm: NormKind::Rms,
            query_key_norm: QueryKeyNorm::None,
            norm_after_rotation: false,
            value_norm: false,
            keys_as_values: false,
            shared_caches: 0,
            layer_inputs: 0,
            temper: None,
            pre_norms: true,
            attention_norm: "attn_norm",
            feed_forward_norm: "ffn_norm",
            parallel: false,
            inner_norms: false,
            post_norms: false,
            experts: None,
            sinks: false,
            convolution: None,
            recurrent: None,
            gated_attention: false,
            feed_forward: true,
            final_norm: "output_norm",
            activation: Activation::Silu,
            gated: true,
            fused_gate_up: false,
            embedding_scale: None,
            residual_scale: None,
            attention_scale: 1.0 / (hyper.key_size as f32).sqrt(),
            attention_softcap: None,
            logit_scale: None,
            logit_softcap: None,
        }
    }

    /// Writes the program.
    pub fn write(&self, hyper: &Hyper, tensors: Tensors) -> Result<Program> {
        let mut writer = Writer { flags: self, hyper, tensors: &tensors, program: Program::default(), layer: None };
        writer.program.ropes = self.ropes(hyper, &tensors)?;
        writer.write()?;
        let program = writer.program;
        Ok(Program {
            architecture: hyper.architecture.clone(),
            purpose: self.purpose,
            layers: hyper.layers,
            vocabulary: hyper.vocabulary,
            context: hyper.context,
            weights: tensors.into_weights(),
            ..program
        })
    }

    /// The rotation of global layers and, if it is another, of windowed ones.
    pub fn ropes(&self, hyper: &Hyper, tensors: &Tensors) -> Result<Vec<Rope>> {
        let long = self.options.context > hyper.scaling.original_context;
        let table = if long { "rope_factors_long.weight" } else { "rope_factors_short.weight" };
        let mut factors = tensors.optional_vector("rope_freqs.weight", hyper.rope_dimensions / 2)?;
        if factors.is_none() {
            factors = tensors.optional_vector(table, hyper.rope_dimensions / 2)?;
        }
        let rope = |base: f32, scaling: &Scaling, dimensions: usize, factors: Option<WeightId>| Rope {
            style: self.rope_style,
            dimensions,
            base,
            scale: 1.0 / scaling.factor,
            factors,
            yarn: (scaling.kind == ScalingKind::Yarn).then_some(Yarn {
                beta_fast: scaling.beta_fast,
                beta_slow: scaling.beta_slow,
                original_context: scaling.original_context,
            }),
            magnitude: self.rope_magnitude.unwrap_or(scaling.magnitude()),
        };
        let all = hyper.rope_dimensions;
        let local = self.window.as_ref().and_then(|window| {
            let (base, scaling) = window.rope.as_ref()?;
            Some(rope(*base, scaling, window.head.map_or(all, |(_, rotated)| rotated), None))
        });
        Ok([rope(hyper.rope_base, &hyper.scaling, all, factors)].into_iter().chain(local).collect())
    }
}

/// Writes steps in order.
pub(super) struct Writer<'a, 'f, F = Decoder> {
    pub flags: &'a F,
    pub hyper: &'a Hyper<'a>,
    pub tensors: &'a Tensors<'f>,
    pub program: Program,
    pub layer: Option<usize>,
}

/// The slots of one number of rows.
#[derive(Clone, Copy)]
pub(super) struct Stream {
    pub residual: SlotId,
    pub normed: SlotId,
    /// What attention or feed-forward adds to the residual stream.
    pub branch: SlotId,
}

impl Writer<'_, '_> {
    fn write(&mut self) -> Result<()> {
        let (flags, hyper) = (self.flags, self.hyper);
        let table = self.tensors.matrix("token_embd.weight", hyper.width, hyper.vocabulary)?;
        let mut stream = self.stream(Rows::Tokens);
        self.push(Op::Embed { table, out: stream.residual });
        if let Some(factor) = flags.embedding_scale {
            self.push(Op::Scale { slot: stream.residual, factor });
        }
        self.begin_layer_inputs(stream.residual)?;
        for layer in 0..hyper.layers {
            self.layer = Some(layer);
            let last = layer + 1 == hyper.layers;
            let recurrent = flags.recurrent.as_ref().filter(|recurrent| recurrent.on.get(layer) == Some(&true));
            stream = match (recurrent, flags.convolution.filter(|_| hyper.kv_heads[layer] == 0)) {
                (Some(recurrent), _) => self.recurrence(layer, recurrent, stream, last)?,
                (None, Some(kernel)) => self.convolution(layer, kernel, stream, last)?,
                (None, None) => self.attention(layer, stream, last)?,
            };
            if flags.feed_forward {
                self.feed_forward(layer, stream)?;
            }
            self.add_layer_input(layer, stream)?;
            if let Some(factor) = self.tensors.number(&format!("blk.{layer}.layer_output_scale.weight"))? {
                self.push(Op::Scale { slot: stream.residual, factor });
            }
        }
        self.layer = None;
        self.norm(flags.final_norm, stream.residual, stream.normed, hyper.width)?;
        if flags.purpose == Purpose::Embed {
            self.program.output = Some(stream.normed);
            return Ok(());
        }
        // Many models multiply with the embedding table once more at the end.
        let output = self.tensors.optional("output.weight", hyper.width, hyper.vocabulary)?;
        let bias = self.tensors.optional_vector("output.bias", hyper.vocabulary)?;
        let logits = self.slot("logits", hyper.vocabulary, Rows::Outputs);
        let product = Product { weight: output.unwrap_or(table), first_row: 0, bias, out: logits };
        self.push(Op::Linear { input: stream.normed, products: vec![product] });
        if let Some(factor) = flags.logit_scale {
            self.push(Op::Scale { slot: logits, factor });
        }
        if let Some(cap) = flags.logit_softcap {
            self.push(Op::Softcap { slot: logits, cap });
        }
        self.program.output = Some(logits);
        Ok(())
    }

    /// Attention of one layer. In the last one, only rows with outputs go on behind it.
    fn attention(&mut self, layer: usize, stream: Stream, last: bool) -> Result<Stream> {
        let (flags, hyper) = (self.flags, self.hyper);
        if let Some(latent) = &flags.latent {
            let sums = self.latent_attention(layer, latent, stream)?;
            return self.leave_attention(layer, sums, stream, last);
        }
        let (heads, kv_heads) = (hyper.heads[layer], hyper.kv_heads[layer]);
        hyper.check_heads(layer, heads, kv_heads)?;
        let windowed = flags.window.as_ref().filter(|window| window.on.get(layer) == Some(&true));
        let own_head = windowed.and_then(|window| window.head);
        let (key_size, value_size) = own_head.map_or((hyper.key_size, hyper.value_size), |(size, _)| (size, size));
        let earlier = self.earlier_cache(layer, heads)?;
        // Slots that are written by steps of one form can lie side by side.
        let names = match (earlier, own_head) {
            (Some(_), _) => ["other q", "other k", "other v"],
            (None, Some(_)) => ["near q", "near k", "near v"],
            (None, None) => ["q", "k", "v"],
        };
        let queries = self.slot(names[0], heads * key_size, Rows::Tokens);
        let keys = self.slot(names[1], kv_heads * key_size, Rows::Tokens);
        let values = self.slot(names[2], kv_heads * value_size, Rows::Tokens);
        let sums = self.slot("a", heads * value_size, Rows::Tokens);
        let own = [queries, keys].map(|slot| (earlier.is_none() || slot == queries).then_some(slot));

        let input = self.pre_norm(layer, flags.attention_norm, stream)?;
        let both = flags.gated_attention.then(|| self.slot("q and gate", 2 * heads * key_size, Rows::Tokens));
        let asking = both.unwrap_or(queries);
        let products = match earlier {
            None => {
                let has_values = !flags.keys_as_values || self.tensors.has(&format!("blk.{layer}.attn_v.weight"));
                let made_by = if has_values { "attn_v" } else { "attn_k" };
                self.query_key_value(layer, [("attn_q", asking), ("attn_k", keys), (made_by, values)])?
            }
            Some(_) => vec![self.product(layer, "attn_q", hyper.width, asking)?],
        };
        self.push(Op::Linear { input, products });
        let gate = both.map(|both| self.part_queries(both, queries, key_size));
        if flags.value_norm && earlier.is_none() {
            self.push_norm(values, values, value_size, [None; 2]);
        }
        if !flags.norm_after_rotation {
            self.query_key_norm(layer, own, key_size)?;
        }
        if flags.rotates.get(layer) == Some(&true) && hyper.rope_dimensions > 0 {
            let rope = RopeId(if windowed.is_some_and(|window| window.rope.is_some()) { 1 } else { 0 });
            for slot in own.into_iter().flatten() {
                self.push(Op::Rotate { slot, head_size: key_size, rope });
            }
        }
        if flags.norm_after_rotation {
            self.query_key_norm(layer, own, key_size)?;
        }
        let reach = windowed.map_or(Reach::All, |window| window.reach);
        let kept = KeyValues { layer, heads: kv_heads, key_size, value_size, values_in_keys: false, reach };
        self.attend([queries, keys, values, sums], kept, earlier)?;
        let sums = gate.unwrap_or(sums);
        if gate.is_some() {
            let up = self.slot("a", heads * value_size, Rows::Tokens);
            self.push(Op::Gate { activation: Activation::Sigmoid, gate: sums, up, out: sums });
        }
        self.leave_attention(layer, sums, stream, last)
    }

    /// Takes apart what holds a head of queries and a head of gates in turns. Returns the gates.
    fn part_queries(&mut self, both: SlotId, queries: SlotId, head_size: usize) -> SlotId {
        let gate = self.slot("gate of a", self.width(queries), Rows::Tokens);
        for (out, from_start) in [(queries, 0), (gate, head_size)] {
            let (from_stride, count) = (2 * head_size, self.width(out) / head_size);
            let (to_start, to_stride, size) = (0, head_size, head_size);
            let part = Runs { from: both, from_start, from_stride, to_start, to_stride, size, count };
            self.push(Op::Copy { parts: vec![part], out });
        }
        gate
    }

    /// From the sums of all heads' values to the residual stream.
    fn leave_attention(&mut self, layer: usize, mut sums: SlotId, stream: Stream, last: bool) -> Result<Stream> {
        let (flags, mut after) = (self.flags, stream);
        if last {
            after = self.stream(Rows::Outputs);
            let selected = self.slot("a", self.width(sums), Rows::Outputs);
            self.push(Op::Select { input: sums, out: selected });
            self.push(Op::Select { input: stream.residual, out: after.residual });
            sums = selected;
        }
        // A feed-forward that does not wait for attention reads the same norm, or another of the same.
        if flags.parallel && flags.feed_forward_norm != flags.attention_norm {
            self.pre_norm(layer, flags.feed_forward_norm, after)?;
        } else if flags.parallel && last {
            self.push(Op::Select { input: stream.normed, out: after.normed });
        }
        if flags.inner_norms {
            let width = self.width(sums);
            self.norm(&format!("blk.{layer}.attn_sub_norm"), sums, sums, width)?;
        }
        let product = self.product(layer, "attn_output", self.width(sums), after.branch)?;
        self.push(Op::Linear { input: sums, products: vec![product] });
        self.join(layer, "post_attention_norm", after)?;
        Ok(after)
    }

    /// The cache of an earlier layer that a layer attends over, if it has none of its own: that of the last layer with as
    /// long a view.
    fn earlier_cache(&self, layer: usize, heads: usize) -> Result<Option<KeyValuesId>> {
        let own = self.hyper.layers.saturating_sub(self.flags.shared_caches);
        if layer < own {
            return Ok(None);
        }
        let sees = |layer: usize| self.flags.window.as_ref().and_then(|window| window.on.get(layer)) == Some(&true);
        let is_alike = |kept: &KeyValues| sees(kept.layer) == sees(layer) && heads.is_multiple_of(kept.heads);
        match self.program.key_values.iter().rposition(is_alike) {
            Some(index) => Ok(Some(KeyValuesId(index))),
            None => {
                let expected = format!("an earlier layer with keys and values for layer {layer}");
                Err(Error::metadata(self.hyper.key("attention.shared_kv_layers"), "none", expected))
            }
        }
    }

    /// Sums of the values that tokens see: over what is kept from batch to batch, perhaps by an earlier layer, or over the
    /// batch's texts.
    fn attend(
        &mut self,
        [queries, keys, values, out]: [SlotId; 4],
        kept: KeyValues,
        earlier: Option<KeyValuesId>,
    ) -> Result<()> {
        let (flags, KeyValues { layer, reach, .. }) = (self.flags, kept);
        let (heads, scale, softcap) = (self.hyper.heads[layer], flags.attention_scale, flags.attention_softcap);
        let over = earlier.unwrap_or(KeyValuesId(self.program.key_values.len()));
        if flags.purpose == Purpose::Generate && earlier.is_none() {
            self.program.key_values.push(kept);
            self.push(Op::Store { keys, values: Some(values), to: over });
        }
        self.temper(layer, queries);
        let sinks = match flags.sinks {
            true => Some(self.tensors.vector(&format!("blk.{layer}.attn_sinks.weight"), heads)?),
            false => None,
        };
        if flags.purpose == Purpose::Generate {
            self.push(Op::Attend { queries, over, heads, scale, softcap, sinks, out });
            return Ok(());
        }
        if sinks.is_some() || earlier.is_some() || flags.temper.is_some() {
            return Err(Error::Model {
                subject: format!("{} as an embedder", self.hyper.architecture),
                found: "sinks of attention, queries that are tempered, or layers that share keys and values".into(),
                expected: "none: embedders do without, for now".into(),
            });
        }
        let sees = match reach {
            Reach::Window(positions) if !flags.causal => Sees::Around(positions / 2),
            _ if !flags.causal => Sees::All,
            reach => Sees::Before(reach),
        };
        self.push(Op::AttendTexts { queries, keys, values, heads, sees, scale, softcap, most_bias: None, out });
        Ok(())
    }

    fn feed_forward(&mut self, layer: usize, stream: Stream) -> Result<()> {
        let flags = self.flags;
        let input = match flags.parallel {
            true => stream.normed,
            false => self.pre_norm(layer, flags.feed_forward_norm, stream)?,
        };
        match flags.experts.as_ref().filter(|experts| experts.on.get(layer) == Some(&true)) {
            Some(experts) => self.mixture(layer, experts, input, stream)?,
            None => self.gated_unit(layer, "", self.hyper.feed_forward[layer], input, stream.branch)?,
        }
        self.join(layer, "post_ffw_norm", stream)
    }

    /// Gate and up matrices, what becomes of their results, and the down matrix. `suffix` is behind their names.
    fn gated_unit(&mut self, layer: usize, suffix: &str, inner: usize, input: SlotId, out: SlotId) -> Result<()> {
        let (flags, width, rows) = (self.flags, self.hyper.width, self.rows(out));
        let (gate, up) = (self.slot("gate", inner, rows), self.slot("up", inner, rows));
        let name = |part: &str| format!("ffn_{part}{suffix}");
        let products = match (flags.gated, flags.fused_gate_up) {
            (false, _) => vec![self.product(layer, &name("up"), width, gate)?],
            (true, true) => self.stacked(layer, &name("up"), width, &[gate, up])?,
            (true, false) => {
                vec![self.product(layer, &name("gate"), width, gate)?, self.product(layer, &name("up"), width, up)?]
            }
        };
        self.push(Op::Linear { input, products });
        self.push(match flags.gated {
            true => Op::Gate { activation: flags.activation, gate, up, out: gate },
            false => Op::Activate { activation: flags.activation, slot: gate },
        });
        if flags.inner_norms {
            self.norm(&format!("blk.{layer}.ffn_sub_norm"), gate, gate, inner)?;
        }
        let product = self.product(layer, &name("down"), inner, out)?;
        self.push(Op::Linear { input: gate, products: vec![product] });
        Ok(())
    }

    /// A norm by a weight of this name, and its bias if there is one.
    fn norm(&mut self, name: &str, input: SlotId, out: SlotId, group: usize) -> Result<()> {
        let weight = self.tensors.vector(&format!("{name}.weight"), group)?;
        let bias = self.tensors.optional_vector(&format!("{name}.bias"), group)?;
        self.push_norm(input, out, group, [Some(weight), bias]);
        Ok(())
    }

    fn push_norm(&mut self, input: SlotId, out: SlotId, group: usize, [weight, bias]: [Option<WeightId>; 2]) {
        let (kind, hyper) = (self.flags.norm, self.hyper);
        let epsilon = if kind == NormKind::Layer { hyper.layer_epsilon } else { hyper.epsilon };
        self.push(Op::Norm { kind, input, group, epsilon, weight, bias, out });
    }

    /// Normalises the residual stream, where the family does, and says which slot to go on with.
    fn pre_norm(&mut self, layer: usize, name: &str, stream: Stream) -> Result<SlotId> {
        if !self.flags.pre_norms {
            return Ok(stream.residual);
        }
        self.norm(&format!("blk.{layer}.{name}"), stream.residual, stream.normed, self.hyper.width)?;
        Ok(stream.normed)
    }

    /// Normalises queries, and keys if there are any.
    fn query_key_norm(&mut self, layer: usize, slots: [Option<SlotId>; 2], head: usize) -> Result<()> {
        let flags = self.flags;
        for (name, slot) in ["attn_q_norm", "attn_k_norm"].into_iter().zip(slots) {
            let Some(slot) = slot else { continue };
            let (name, row) = (format!("blk.{layer}.{name}"), self.width(slot));
            match flags.query_key_norm {
                QueryKeyNorm::Heads => self.norm(&name, slot, slot, head)?,
                QueryKeyNorm::Whole => self.norm(&name, slot, slot, row)?,
                QueryKeyNorm::OwnHeads => {
                    let weight = Some(self.tensors.shaped(&format!("{name}.weight"), &[head, row / head])?);
                    self.push_norm(slot, slot, head, [weight, None]);
                }
                QueryKeyNorm::Unweighted if flags.rotates.get(layer) == Some(&true) => {
                    self.push_norm(slot, slot, head, [None; 2]);
                }
                QueryKeyNorm::Unweighted | QueryKeyNorm::None => (),
            }
        }
        Ok(())
    }

    /// Multiplies queries at later positions.
    fn temper(&mut self, layer: usize, slot: SlotId) {
        let temper = self.flags.temper.as_ref().filter(|temper| temper.on.get(layer) == Some(&true));
        if let Some(&Temper { slope, interval, offset, .. }) = temper {
            self.push(Op::Temper { slot, slope, interval, offset });
        }
    }

    /// Adds the branch to the residual stream.
    fn join(&mut self, layer: usize, post_norm: &str, stream: Stream) -> Result<()> {
        if self.flags.post_norms {
            self.norm(&format!("blk.{layer}.{post_norm}"), stream.branch, stream.branch, self.hyper.width)?;
        }
        if let Some(factor) = self.flags.residual_scale {
            self.push(Op::Scale { slot: stream.branch, factor });
        }
        self.push(Op::Add { from: stream.branch, to: stream.residual });
        Ok(())
    }
}

/// What all programs are written with.
impl<F> Writer<'_, '_, F> {
    /// The three matrices of attention, in one tensor or three.
    pub fn query_key_value(&self, layer: usize, parts: [(&str, SlotId); 3]) -> Result<Vec<Product>> {
        if self.tensors.has(&format!("blk.{layer}.attn_qkv.weight")) {
            for (name, _) in &parts {
                self.tensors.refuse(&format!("blk.{layer}.{name}.bias"), "`attn_qkv.bias` beside a fused weight")?;
            }
            return self.stacked(layer, "attn_qkv", self.hyper.width, &parts.map(|(_, slot)| slot));
        }
        parts.iter().map(|(name, slot)| self.product(layer, name, self.hyper.width, *slot)).collect()
    }

    /// A tensor that holds several matrices one above the other.
    pub fn stacked(&self, layer: usize, name: &str, columns: usize, outs: &[SlotId]) -> Result<Vec<Product>> {
        let rows = outs.iter().map(|&out| self.width(out)).sum();
        let weight = self.tensors.matrix(&format!("blk.{layer}.{name}.weight"), columns, rows)?;
        let bias = self.tensors.optional_vector(&format!("blk.{layer}.{name}.bias"), rows)?;
        let mut first_row = 0;
        let product = |&out: &SlotId| {
            let product = Product { weight, first_row, bias, out };
            first_row += self.width(out);
            product
        };
        Ok(outs.iter().map(product).collect())
    }

    /// A matrix, and its bias if there is one.
    pub fn product(&self, layer: usize, name: &str, columns: usize, out: SlotId) -> Result<Product> {
        let rows = self.width(out);
        let weight = self.tensors.matrix(&format!("blk.{layer}.{name}.weight"), columns, rows)?;
        let bias = self.tensors.optional_vector(&format!("blk.{layer}.{name}.bias"), rows)?;
        Ok(Product { weight, first_row: 0, bias, out })
    }

    pub fn stream(&mut self, rows: Rows) -> Stream {
        let width = self.hyper.width;
        Stream {
            residual: self.slot("x", width, rows),
            normed: self.slot("h", width, rows),
            branch: self.slot("y", width, rows),
        }
    }

    /// The slot of this name and these sizes, which all layers share.
    pub fn slot(&mut self, name: &'static str, width: usize, rows: Rows) -> SlotId {
        let slot = Slot { name, width, rows };
        let slots = &mut self.program.slots;
        SlotId(slots.iter().position(|known| *known == slot).unwrap_or_else(|| {
            slots.push(slot);
            slots.len() - 1
        }))
    }

    fn rows(&self, slot: SlotId) -> Rows {
        self.program.slots[slot.0].rows
    }

    /// A slot that no layer shares.
    fn new_slot(&mut self, name: &'static str, width: usize, rows: Rows) -> SlotId {
        self.program.slots.push(Slot { name, width, rows });
        SlotId(self.program.slots.len() - 1)
    }

    pub fn width(&self, slot: SlotId) -> usize {
        self.program.slots[slot.0].width
    }

    pub fn push(&mut self, op: Op) {
        self.program.steps.push(Step { layer: self.layer, op });
    }
}
