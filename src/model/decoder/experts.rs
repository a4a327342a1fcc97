//! Mixtures of experts: what the metadata say of them, and the steps of a feed-forward that is one.
//!
//! A router chooses experts for each token; gate and up matrices of those that are chosen are multiplied as one step, and
//! so are their down matrices, whose results are mixed. Experts that are shared are an ordinary feed-forward beside
//! them, and where that has a router of its own, it is a mixture of one.

use super::{Stream, Writer};
use crate::Result;
use crate::error::Error;
use crate::model::hyper::Hyper;
use crate::program::{Gating, Op, Product, Routing, SlotId};

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
        }))
    }
}

impl Writer<'_, '_> {
    /// A feed-forward of experts, from the normalised input to the branch.
    pub(super) fn mixture(&mut self, layer: usize, experts: &Experts, input: SlotId, stream: Stream) -> Result<()> {
        let &Experts { count, used, ref inner, .. } = experts;
        let (width, inner, rows) = (self.hyper.width, inner[layer], self.rows(stream.branch));
        let logits = self.slot("router", count, rows);
        let router = self.product(layer, "ffn_gate_inp", width, logits)?;
        self.push(Op::Linear { input, products: vec![router] });
        let routes = self.slot("routes", 2 * used, rows);
        let routing = Routing {
            gating: experts.gating,
            bias: self.tensors.optional_vector(&format!("blk.{layer}.exp_probs_b.bias"), count)?,
            groups: experts.groups,
            used_groups: experts.used_groups,
            used,
            normalise: experts.normalise,
            scale: experts.scale,
        };
        self.push(Op::Route { logits, routing, out: routes });

        let (gate, up) = (self.slot("gates", used * inner, rows), self.slot("ups", used * inner, rows));
        let products = if self.tensors.has(&format!("blk.{layer}.ffn_gate_up_exps.weight")) {
            let merged = self.expert_product(layer, "ffn_gate_up_exps", (width, 2 * inner, count), gate)?;
            vec![merged.clone(), Product { first_row: inner, out: up, ..merged }]
        } else {
            let shape = (width, inner, count);
            vec![
                self.expert_product(layer, "ffn_gate_exps", shape, gate)?,
                self.expert_product(layer, "ffn_up_exps", shape, up)?,
            ]
        };
        self.push(Op::Experts { input, routes: Some(routes), experts: count, products });
        self.push(Op::Gate { activation: self.flags.activation, gate, up, out: gate });
        let parts = self.slot("parts", used * width, rows);
        let product = self.expert_product(layer, "ffn_down_exps", (inner, width, count), parts)?;
        self.push(Op::Experts { input: gate, routes: Some(routes), experts: count, products: vec![product] });
        self.push(Op::Mix { parts, routes, out: stream.branch });
        if experts.shared > 0 {
            self.shared_experts(layer, experts.shared, input, stream)?;
        }
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
            let routing = Routing { gating, bias: None, groups: 1, used_groups: 1, used, normalise: false, scale: 1.0 };
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
