//! The dispatches of mixtures of experts: who is chosen, the order that many choices are brought in, their products, and
//! the sum of what came out.

use super::draft::{Drafting, Drafts};
use super::draft_products::Product;
use super::experts::{self, MixParams, Mixture, RouteParams, SortParams};
use super::memory::Part;
use super::plan::{Node, Plan};
use super::products::{CHOICES_TILE, FEW_TOKENS, ProductParams};
use super::profile::ProductShape;
use super::record::{Draft, Size};
use crate::program::{Routing, SlotId};
use crate::{Error, Result};

/// The words that lists of choices in order need, with batches of up to so many tokens. There is one such list at a time.
pub fn order_words(plan: &Plan, tokens: u32) -> u64 {
    let words = plan.nodes.iter().filter_map(|node| {
        let Node::Product(stack) = node else { return None };
        let mixture = stack.mixture.filter(|mixture| mixture.routes.is_some() && tokens > FEW_TOKENS)?;
        Some(experts::order_words(tokens * mixture.choices as u32, mixture.matrices as u32, CHOICES_TILE))
    });
    words.max().unwrap_or(0)
}

impl Drafting<'_> {
    /// Chooses experts.
    pub(super) fn route(&self, logits: SlotId, routing: &Routing, out: SlotId, drafts: &mut Drafts) -> Result<()> {
        let params = RouteParams {
            outputs: self.outputs(logits),
            logits: self.view(logits),
            routes: self.view(out),
            ..RouteParams::new(routing, self.width(logits) as usize)?
        };
        let mut buffers = vec![self.slots.buffer(logits)];
        let vectors = [routing.bias, routing.scales].into_iter().flatten();
        buffers.extend(vectors.filter_map(|vector| self.store.vector(vector)));
        buffers.push(self.slots.buffer(out));
        drafts.list.push(self.rows(params.kernel(routing, 1), params, &buffers, out));
        drafts.wrote(out, false);
        Ok(())
    }

    /// Adds up what experts came to; with `add`, to what is there.
    pub(super) fn mix(&self, [parts, routes, out]: [SlotId; 3], add: bool, drafts: &mut Drafts) {
        let params = MixParams {
            outputs: self.outputs(out),
            width: self.width(out),
            choices: self.width(routes) / 2,
            parts: self.view(parts),
            routes: self.view(routes),
            output: self.view(out),
        };
        let buffers = [parts, routes, out].map(|slot| self.slots.buffer(slot));
        drafts.list.push(self.rows(params.kernel(add, 1), params, &buffers, out));
        drafts.wrote(out, false);
    }

    /// Brings the choices of many tokens in order, if they are not yet.
    pub(super) fn sort(&self, mixture: &Mixture, drafts: &mut Drafts) {
        let Some(routes) = mixture.routes.filter(|_| self.tokens > FEW_TOKENS) else { return };
        if drafts.sorted == Some(routes) {
            return;
        }
        drafts.sorted = Some(routes);
        let outputs = self.outputs(routes);
        let params = SortParams {
            outputs,
            choices: mixture.choices as u32,
            matrices: mixture.matrices as u32,
            tile: CHOICES_TILE,
            routes: self.view(routes),
            tiles_start: self.tiles_start(mixture),
        };
        let kernel = params.kernel();
        // Few outputs are not sorted.
        let groups = move |size: Size| if outputs == 1 && size.outputs <= FEW_TOKENS { [0; 3] } else { kernel.groups };
        let buffers = [self.slots.buffer(routes), self.order];
        drafts.list.push(Draft::new(kernel.variant.for_gpu(self.gpu), params, &buffers, groups));
    }

    /// Where the tiles begin in the list of choices.
    fn tiles_start(&self, mixture: &Mixture) -> u32 {
        self.tokens * mixture.choices as u32
    }

    /// The dispatches of one part of the matrices of a product.
    pub(super) fn part_of_experts(
        &self,
        product: &Product,
        mixture: &Mixture,
        part: &Part,
        list: &mut Vec<Draft>,
    ) -> Result<()> {
        let Product { stack, matrix, bias, result, .. } = product;
        let (x, out) = (self.slots.view(stack.input), self.slots.view(stack.out));
        let (choices, columns) = (mixture.choices as u32, matrix.columns as u32);
        if mixture.own_inputs && !columns.is_multiple_of(4) {
            let (found, expected) = (format!("inputs of {columns} numbers side by side"), "a multiple of 4".into());
            return Err(Error::Gpu { subject: "experts".into(), found, expected });
        }
        let rows = (matrix.rows() / mixture.matrices as u32).max(1);
        let (outputs, choice_width) = (self.outputs(stack.input), self.width(stack.out) / choices);
        let routes = mixture.routes.map(|routes| self.view(routes)).unwrap_or_default();
        let params = ProductParams {
            columns,
            row_units: matrix.row_units(),
            rows,
            x_start: x.start,
            x_stride: if mixture.own_inputs { columns } else { x.stride },
            out_start: out.start,
            out_stride: if result.is_some() { choice_width.div_ceil(32) } else { out.stride },
            outputs,
            choices,
            choice_width,
            own_inputs: mixture.own_inputs.into(),
            first_matrix: part.first_row / rows,
            matrices: part.rows / rows,
            ..ProductParams::default()
        };
        let is_output = outputs == 1;
        let shape = ProductShape { kind: matrix.layout.kind(), rows: rows * choices, columns, of_outputs: is_output };
        // What a part holds of all experts, it also holds of those that are chosen, on the average.
        let part_bytes = u64::from(part.rows) * matrix.row_bytes();
        let all = (mixture.matrices as u64).max(1);
        let mut fewer = 0;
        // As for other products: a long batch mostly has one output.
        for most in [FEW_TOKENS].into_iter().filter(|&few| is_output && few < self.tokens).chain([self.tokens]) {
            let kernel = self.kernel(product, most);
            let (choosing, start, stride) = match mixture.routes {
                None => (&self.store.nothing, 0, 0),
                Some(_) if most > FEW_TOKENS => (self.order, self.tiles_start(mixture), 0),
                Some(slot) => (self.slots.buffer(slot), routes.start, routes.stride),
            };
            let params = ProductParams { routes_start: start, routes_stride: stride, ..params };
            let mut buffers = self.product_buffers(product, part);
            buffers.push(choosing);
            buffers.extend(*bias);
            buffers.extend(result.map(|(_, scales)| scales));
            let variant = kernel.variant.clone().for_gpu(self.gpu);
            let mixture = *mixture;
            let groups = move |size: Size| {
                let count = if is_output { size.outputs } else { size.tokens };
                let is_own = (fewer + 1..=most).contains(&count);
                if is_own { kernel.groups_of_experts(rows, count, &mixture) } else { [0; 3] }
            };
            let weight_bytes = part_bytes * all.min(u64::from(most * choices)) / all;
            list.push(Draft { weight_bytes, product: Some(shape), ..Draft::new(variant, params, &buffers, groups) });
            fewer = most;
        }
        Ok(())
    }
}
