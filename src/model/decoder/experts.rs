//! Mixtures of experts: what the metadata say of them, and the steps of a feed-forward that is one.
//!
//! A router chooses experts for each token; gate and up matrices of those that are chosen are multiplied as one step, and
//! so are their down matrices, whose results are mixed. Experts that are shared are an ordinary feed-forward beside
//! them, and where that has a router of its own, it is a mixture of one. [`Wiring`] says what some families do otherwise.

use super::{Stream, Writer};
use crate::Result;
use crate::error::Error;
use crate::model::hyper::Hyper;
use crate::program::{Activation, Gating, NormKind, Op, Product, Routing, Rows, SlotId};

const MOST_EXPERTS: usize = 4096;

/// The experts of a model.
pub(in crate::model) struct Experts {
    pub count: usize,
    pub used: usize,
    /// Rows of their gate and up matrices, per layer.
    pub inner: Vec<usize>,
    /// Which layers have them; the others have an ordinary feed-forward.
    pub on: Vec<bool>,
    pub gating: Gating,
    pub groups: usize,
    pub used_groups: usize,
    pub normalise: bool,
    pub scale: f32,
    /// Rows of the gate and up matrices of the shared experts.
    pub shared: usize,
    pub wiring: Wiring,
}

/// How a layer's mixture hangs together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Wiring {
    /// Weights multiply what experts come to.
    Plain,
    /// The weight multiplies what the one expert works on.
    WeighedInput,
    /// Experts stand beside the layer's ordinary feed-forward, each with norms of its own before and behind. The router
    /// has another, and weights are multiplied with a number of each expert.
    Beside,
}

impl Experts {
    /// What the metadata say, if there are experts. They may leave out the gating.
    pub fn read(hyper: &Hyper, gating: Gating) -> Result<Option<Self>> {
        let wrong =
            |name: &str, found: String, expected: String| Err(Error::metadata(hyper.key(name), found, expected));
        let count = hyper.optional("expert_count")?.unwrap_or(0);
        if count == 0 {
            return Ok(None);
        }
        if count > MOST_EXPERTS {
            return wrong("expert_count", count.to_string(), format!("at most {MOST_EXPERTS}"));
        }
        let used = hyper.optional("expert_used_count")?.unwrap_or(0);
        if used == 0 || used > count {
            return wrong("expert_used_count", used.to_string(), format!("1 to {count}"));
        }
        let gating = match hyper.optional("expert_gating_func")?.unwrap_or(0) {
            0 => gating,
            1 => Gating::Softmax,
            2 => Gating::Sigmoid,
            3 => Gating::SoftmaxOfChosen,
            4 => Gating::RootSoftplus,
            other => return wrong("expert_gating_func", other.to_string(), "1 to 4, or 0 for the usual".into()),
        };
        let groups = hyper.optional("expert_group_count")?.unwrap_or(1).max(1);
        let used_groups = if groups > 1 { hyper.optional("expert_group_used_count")?.unwrap_or(groups) } else { 1 };
        if count % groups != 0 {
            return wrong("expert_group_count", groups.to_string(), format!("a divisor of {count} experts"));
        }
        if used_groups > groups || used_groups * (count / groups) < used {
            let expected = format!("at most {groups} groups, which have {used} experts");
            return wrong("expert_group_used_count", used_groups.to_string(), expected);
        }
        let dense = hyper.optional("leading_dense_block_count")?.unwrap_or(0);
        let inner = hyper.per_layer("expert_feed_forward_length", Some(&hyper.feed_forward))?;
        let shared = match hyper.optional("expert_shared_feed_forward_length")?.unwrap_or(0) {
            0 => hyper.optional("expert_shared_count")?.unwrap_or(0) * inner.last().copied().unwrap_or(0),
            rows => rows,
        };
        Ok(Some(Experts {
            count,
            used,
            inner,
            on: (0..hyper.layers).map(|layer| layer >= dense).collect(),
            gating,
            groups,
            used_groups,
            normalise: hyper.flag("expert_weights_norm")?.unwrap_or(false),
            scale: hyper.positive("expert_weights_scale")?.unwrap_or(1.0),
            shared,
            wiring: Wiring::Plain,
        }))
    }
}

impl Writer<'_, '_> {
    /// A feed-forward of experts, from the normalised input to the branch.
    pub(super) fn mixture(&mut self, layer: usize, experts: &Experts, input: SlotId, stream: Stream) -> Result<()> {
        let (unit, out) = ((self.flags.activation, true), stream.branch);
        match experts.wiring {
            Wiring::Plain => self.mixed(layer, experts, unit, input, out)?,
            Wiring::WeighedInput => {
                let (width, rows) = (self.hyper.width, self.rows(out));
                let routes = self.route(layer, experts, input, rows)?;
                // Of one part the weighted sum is that part, weighted.
                let weighed = self.slot("weighed", width, rows);
                self.push(Op::Mix { parts: input, routes, out: weighed });
                self.chosen(layer, experts, unit, [weighed, routes, out])?;
            }
            Wiring::Beside => self.beside(layer, experts, input, stream)?,
        }
        if experts.shared > 0 {
            self.shared_experts(layer, experts.shared, input, stream)?;
        }
        Ok(())
    }

    /// The ordinary feed-forward, and experts beside it.
    fn beside(&mut self, layer: usize, experts: &Experts, input: SlotId, stream: Stream) -> Result<()> {
        let (width, rows) = (self.hyper.width, self.rows(stream.branch));
        let norm = |part: &str| format!("blk.{layer}.{part}");
        self.gated_unit(layer, "", self.hyper.feed_forward[layer], input, stream.branch)?;
        self.norm(&norm("post_ffw_norm_1"), stream.branch, stream.branch, width)?;

        // The router sees the residual stream divided by its length, not by the root of its mean square.
        let (epsilon, seen) = (self.hyper.epsilon, stream.normed);
        let weight = Some(self.tensors.vector(&norm("ffn_gate_inp.scale"), width)?);
        let (kind, bias) = (NormKind::Rms, None);
        self.push(Op::Norm { kind, input: stream.residual, group: width, epsilon, weight, bias, out: seen });
        self.push(Op::Scale { slot: seen, factor: 1.0 / (width as f32).sqrt() });
        let routes = self.route(layer, experts, seen, rows)?;

        self.norm(&norm("pre_ffw_norm_2"), stream.residual, stream.normed, width)?;
        let (parts, mixed) = (self.slot("parts", experts.used * width, rows), self.slot("mixed", width, rows));
        self.chosen(layer, experts, (self.flags.activation, true), [stream.normed, routes, parts])?;
        self.push(Op::Mix { parts, routes, out: mixed });
        self.norm(&norm("post_ffw_norm_2"), mixed, mixed, width)?;
        self.push(Op::Add { from: mixed, to: stream.branch });
        Ok(())
    }

    /// Experts that all tokens go through; where they have a router, it says how much they count.
    fn shared_experts(&mut self, layer: usize, inner: usize, input: SlotId, stream: Stream) -> Result<()> {
        let (width, rows) = (self.hyper.width, self.rows(stream.branch));
        let shared = self.slot("shared", width, rows);
        let mut mixed = None;
        if self.tensors.has(&format!("blk.{layer}.ffn_gate_inp_shexp.weight")) {
            let (logits, routes) = (self.slot("share", 1, rows), self.slot("shares", 2, rows));
            let router = self.product(layer, "ffn_gate_inp_shexp", width, logits)?;
            self.push(Op::Linear { input, products: vec![router] });
            let (gating, used) = (Gating::Sigmoid, 1);
            let (bias, scales, normalise) = (None, None, false);
            let routing = Routing { gating, bias, groups: 1, used_groups: 1, used, normalise, scale: 1.0, scales };
            self.push(Op::Route { logits, routing, out: routes });
            mixed = Some(routes);
        }
        let parts = mixed.map_or(shared, |_| self.slot("part", width, rows));
        self.gated_unit(layer, "_shexp", inner, input, parts)?;
        if let Some(routes) = mixed {
            self.push(Op::Mix { parts, routes, out: shared });
        }
        self.push(Op::Add { from: shared, to: stream.branch });
        Ok(())
    }
}

/// What encoders write, too.
impl<F> Writer<'_, '_, F> {
    /// The weighted sum of what the experts come to that are chosen for an input. With `gated` units, the curve is for what
    /// multiplies the up matrix's product.
    pub fn mixed(
        &mut self,
        layer: usize,
        experts: &Experts,
        unit: (Activation, bool),
        input: SlotId,
        out: SlotId,
    ) -> Result<()> {
        let rows = self.rows(out);
        let routes = self.route(layer, experts, input, rows)?;
        let parts = self.slot("parts", experts.used * self.hyper.width, rows);
        self.chosen(layer, experts, unit, [input, routes, parts])?;
        self.push(Op::Mix { parts, routes, out });
        Ok(())
    }

    /// Chooses experts, and says where their numbers and weights are.
    fn route(&mut self, layer: usize, experts: &Experts, input: SlotId, rows: Rows) -> Result<SlotId> {
        let &Experts { count, used, .. } = experts;
        let logits = self.slot("router", count, rows);
        let router = self.product(layer, "ffn_gate_inp", self.hyper.width, logits)?;
        self.push(Op::Linear { input, products: vec![router] });
        let vector = |part: &str| self.tensors.optional_vector(&format!("blk.{layer}.{part}"), count);
        let routing = Routing {
            gating: experts.gating,
            bias: vector("exp_probs_b.bias")?,
            groups: experts.groups,
            used_groups: experts.used_groups,
            used,
            normalise: experts.normalise,
            scale: experts.scale,
            scales: if experts.wiring == Wiring::Beside { vector("ffn_down_exps.scale")? } else { None },
        };
        let routes = self.slot("routes", 2 * used, rows);
        self.push(Op::Route { logits, routing, out: routes });
        Ok(routes)
    }

    /// What the experts come to that are chosen, side by side.
    fn chosen(
        &mut self,
        layer: usize,
        experts: &Experts,
        (activation, gated): (Activation, bool),
        [input, routes, out]: [SlotId; 3],
    ) -> Result<()> {
        let &Experts { count, used, ref inner, .. } = experts;
        let (width, inner, rows) = (self.hyper.width, inner[layer], self.rows(out));
        let (gate, up) = (self.slot("gates", used * inner, rows), self.slot("ups", used * inner, rows));
        let shape = (width, inner, count);
        let products = if !gated {
            vec![self.expert_product(layer, "ffn_up_exps", shape, gate)?]
        } else if self.tensors.has(&format!("blk.{layer}.ffn_gate_up_exps.weight")) {
            let merged = self.expert_product(layer, "ffn_gate_up_exps", (width, 2 * inner, count), gate)?;
            vec![merged.clone(), Product { first_row: inner, out: up, ..merged }]
        } else {
            vec![
                self.expert_product(layer, "ffn_gate_exps", shape, gate)?,
                self.expert_product(layer, "ffn_up_exps", shape, up)?,
            ]
        };
        self.push(Op::Experts { input, routes: Some(routes), experts: count, products });
        self.push(match gated {
            true => Op::Gate { activation, gate, up, out: gate },
            false => Op::Activate { activation, slot: gate },
        });
        let product = self.expert_product(layer, "ffn_down_exps", (inner, width, count), out)?;
        self.push(Op::Experts { input: gate, routes: Some(routes), experts: count, products: vec![product] });
        Ok(())
    }

    /// Matrices of all experts, `rows` rows of `columns` each, and their biases if there are any.
    fn expert_product(
        &self,
        layer: usize,
        name: &str,
        (columns, rows, count): (usize, usize, usize),
        out: SlotId,
    ) -> Result<Product> {
        let weight = self.tensors.matrix(&format!("blk.{layer}.{name}.weight"), columns, rows * count)?;
        let bias = self.tensors.optional(&format!("blk.{layer}.{name}.bias"), rows, count)?;
        Ok(Product { weight, first_row: 0, bias, out })
    }
}
