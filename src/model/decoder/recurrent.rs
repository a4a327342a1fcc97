//! Recurrent layers, in place of attention: a short convolution, and a matrix for each head that tokens change and read.
//! What is kept of a sequence does not grow with it.

use super::{Stream, Writer};
use crate::Result;
use crate::error::Error;
use crate::model::hyper::{Hyper, MOST_CONVOLVED};
use crate::program::{Activation, Op, Rows, Runs, Scan, Served, SlotId, State, StateId};

const MOST_HEAD_SIZE: usize = 1024;

/// The recurrent layers of a model.
pub(in crate::model) struct Recurrent {
    pub kind: RecurrentKind,
    /// Which layers they are.
    pub on: Vec<bool>,
    /// How many tokens the convolution counts.
    kernel: usize,
    /// Heads of values.
    heads: usize,
    /// Heads of queries and keys.
    key_heads: usize,
    key_size: usize,
    value_size: usize,
}

/// How their heads are written to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum RecurrentKind {
    /// Gated delta nets: a head's key first reads what it will write. It says which heads a head of keys serves.
    DeltaNet(Served),
    /// Mamba 2: values are added.
    Mamba,
}

impl Recurrent {
    /// What the metadata say. `on` says which layers are recurrent.
    pub fn read(hyper: &Hyper, kind: RecurrentKind, on: Vec<bool>) -> Result<Self> {
        let required = |name: &str, most: usize| match hyper.optional(name)? {
            Some(value) if (1..=most).contains(&value) => Ok(value),
            found => {
                let found = found.map_or("nothing".into(), |value| value.to_string());
                Err(Error::metadata(hyper.key(name), found, format!("1 to {most}")))
            }
        };
        let kernel = required("ssm.conv_kernel", MOST_CONVOLVED)?;
        let inner = required("ssm.inner_size", u32::MAX as usize)?;
        let heads = required("ssm.time_step_rank", inner)?;
        let key_heads = required("ssm.group_count", heads)?;
        let key_size = required("ssm.state_size", MOST_HEAD_SIZE)?;
        for (name, part, of, whole) in [
            ("ssm.time_step_rank", heads, "numbers of ssm.inner_size", inner),
            ("ssm.group_count", key_heads, "heads of ssm.time_step_rank", heads),
        ] {
            if whole % part != 0 {
                let expected = format!("a divisor of the {whole} {of}");
                return Err(Error::metadata(hyper.key(name), part.to_string(), expected));
            }
        }
        if inner / heads > MOST_HEAD_SIZE {
            let expected = format!("at most {MOST_HEAD_SIZE} for each of {heads} heads");
            return Err(Error::metadata(hyper.key("ssm.inner_size"), inner.to_string(), expected));
        }
        Ok(Recurrent { kind, on, kernel, heads, key_heads, key_size, value_size: inner / heads })
    }

    /// Recurrent layers where the file says so, or all but each `full_attention_interval`-th, which is the fourth unless
    /// the file says otherwise.
    pub fn but_each_fourth(hyper: &Hyper) -> Result<Vec<bool>> {
        const EVERY: &str = "full_attention_interval";
        if let Some(layers) = hyper.flags("attention.recurrent_layers")? {
            return Ok(layers);
        }
        match hyper.optional(EVERY)?.unwrap_or(4) {
            0 => Err(Error::metadata(hyper.key(EVERY), "0", "a positive number")),
            every => Ok((0..hyper.layers).map(|layer| (layer + 1) % every != 0).collect()),
        }
    }
}

/// The slots between a recurrent layer's first products and its last.
struct Inner {
    /// Queries, keys and values, all of which are convolved.
    mixed: SlotId,
    /// What its output is gated with.
    gate: SlotId,
    steps: SlotId,
    writes: Option<SlotId>,
}

impl Writer<'_, '_> {
    /// A recurrent layer's part before its feed-forward. In the last layer, only rows with outputs go on behind it.
    pub(super) fn recurrence(
        &mut self,
        layer: usize,
        recurrent: &Recurrent,
        stream: Stream,
        is_last: bool,
    ) -> Result<Stream> {
        let &Recurrent { kind, kernel, heads, key_heads, key_size, value_size, .. } = recurrent;
        let (keys, values) = (key_heads * key_size, heads * value_size);
        let input = self.pre_norm(layer, self.flags.attention_norm, stream)?;
        let inner = self.recurrence_inputs(layer, recurrent, input)?;
        let Inner { mixed, mut gate, steps, writes } = inner;
        let width = self.width(mixed);
        let over = StateId(self.program.states.len());
        self.program.states.push(State { layer, inputs: kernel - 1, width, heads, key_size, value_size });

        let convolved = self.slot("c", width, Rows::Tokens);
        let weight = self.tensors.shaped(&format!("blk.{layer}.ssm_conv1d.weight"), &[kernel, width])?;
        let bias = self.tensors.optional_vector(&format!("blk.{layer}.ssm_conv1d.bias"), width)?;
        self.push(Op::Convolve { input: mixed, over, weight, bias, out: convolved });
        self.push(Op::Activate { activation: Activation::Silu, slot: convolved });

        let sums = self.slot("s", values, Rows::Tokens);
        let of_heads = |name: &str| self.tensors.shaped(&format!("blk.{layer}.{name}"), &[1, heads]);
        let scan = Scan {
            input: convolved,
            queries: 0,
            keys,
            values: 2 * keys,
            key_heads,
            served: Served::Neighbours,
            normalise: None,
            scale: 1.0,
            steps,
            step_bias: self.tensors.vector(&format!("blk.{layer}.ssm_dt.bias"), heads)?,
            decay: match kind {
                RecurrentKind::Mamba => of_heads("ssm_a")?,
                RecurrentKind::DeltaNet(_) => self.tensors.vector(&format!("blk.{layer}.ssm_a"), heads)?,
            },
            writes,
            skip: None,
            over,
            out: sums,
        };
        let gated = Op::Gate { activation: Activation::Silu, gate, up: sums, out: gate };
        match kind {
            RecurrentKind::Mamba => {
                let skip = Some(of_heads("ssm_d")?);
                self.push(Op::Scan(Scan { values: 0, keys: values, queries: values + keys, skip, ..scan }));
                self.push(gated);
                let group = values / key_heads;
                let name = format!("blk.{layer}.ssm_norm.weight");
                let weight = self.tensors.shaped(&name, &[group, key_heads])?;
                self.push_norm(gate, gate, group, [Some(weight), None]);
            }
            RecurrentKind::DeltaNet(served) => {
                let (normalise, scale) = (Some(self.hyper.epsilon), 1.0 / (key_size as f32).sqrt());
                self.push(Op::Scan(Scan { served, normalise, scale, ..scan }));
                self.norm(&format!("blk.{layer}.ssm_norm"), sums, sums, value_size)?;
                self.push(gated);
            }
        }
        let mut after = stream;
        if is_last {
            after = self.stream(Rows::Outputs);
            let selected = self.slot("z", values, Rows::Outputs);
            self.push(Op::Select { input: gate, out: selected });
            self.push(Op::Select { input: stream.residual, out: after.residual });
            gate = selected;
        }
        let product = self.product(layer, "ssm_out", values, after.branch)?;
        self.push(Op::Linear { input: gate, products: vec![product] });
        self.join(layer, "post_attention_norm", after)?;
        Ok(after)
    }

    /// The products that a recurrent layer begins with.
    fn recurrence_inputs(&mut self, layer: usize, recurrent: &Recurrent, input: SlotId) -> Result<Inner> {
        let &Recurrent { kind, heads, key_heads, key_size, value_size, .. } = recurrent;
        let width = self.hyper.width;
        let mixed = self.slot("qkv", 2 * key_heads * key_size + heads * value_size, Rows::Tokens);
        let gate = self.slot("z", heads * value_size, Rows::Tokens);
        let [steps, writes] = ["dt", "beta"].map(|name| self.slot(name, heads, Rows::Tokens));
        if kind == RecurrentKind::Mamba {
            let products = self.stacked(layer, "ssm_in", width, &[gate, mixed, steps])?;
            self.push(Op::Linear { input, products });
            return Ok(Inner { mixed, gate, steps, writes: None });
        }
        // One product with the numbers of both, those of a head of keys side by side, or two.
        let both = self.tensors.has(&format!("blk.{layer}.ssm_ba.weight"));
        let numbers = self.slot("ba", 2 * heads, Rows::Tokens);
        let mut products =
            vec![self.product(layer, "attn_qkv", width, mixed)?, self.product(layer, "attn_gate", width, gate)?];
        match both {
            true => products.push(self.product(layer, "ssm_ba", width, numbers)?),
            false => products.extend([
                self.product(layer, "ssm_alpha", width, steps)?,
                self.product(layer, "ssm_beta", width, writes)?,
            ]),
        }
        self.push(Op::Linear { input, products });
        if both {
            let size = heads / key_heads;
            let run = |from_start| Runs {
                from: numbers,
                from_start,
                from_stride: 2 * size,
                to_start: 0,
                to_stride: size,
                size,
                count: key_heads,
            };
            self.push(Op::Copy { parts: vec![run(0)], out: writes });
            self.push(Op::Copy { parts: vec![run(size)], out: steps });
        }
        Ok(Inner { mixed, gate, steps, writes: Some(writes) })
    }
}
