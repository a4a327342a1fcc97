//! From the nodes of a plan to dispatches: which kernel, with which parameters and buffers.

use super::device::Gpu;
use super::embed;
use super::pages::Pages;
use super::plan::{Node, Plan};
use super::record::{Draft, Size};
use super::rows::{
    self, CopyParams, GateParams, Kernel, NormParams, ScaleParams, SelectParams, SoftcapParams, TemperParams,
};
use super::slots::Slots;
use super::step::StepBuffers;
use super::store::Store;
use super::texts::{self, TextAttention, TextParams};
use crate::cache::Cache;
use crate::program::{Activation, Program, RowOf, Rows, Runs, SlotId, WeightId};
use crate::{Error, Result};
use bytemuck::{Pod, Zeroable};
use std::collections::HashSet;
use std::ops::Range;

/// All that dispatches are made of, for batches of up to so many tokens.
pub struct Drafting<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// What is computed.
    pub program: &'a Program,
    /// In which order.
    pub plan: &'a Plan,
    /// What changes from step to step.
    pub step: &'a StepBuffers,
    /// Activations.
    pub slots: &'a Slots,
    /// Keys and values.
    pub pages: &'a Pages,
    /// Weights.
    pub store: &'a Store,
    /// The books of the pages.
    pub cache: &'a Cache,
    /// For attention that is cut by pages.
    pub partials: &'a wgpu::Buffer,
    /// For choices of experts that are sorted.
    pub order: &'a wgpu::Buffer,
    /// The most tokens.
    pub tokens: u32,
}

/// The parameters of `embed.wgsl`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct EmbedParams {
    columns: u32,
    row_units: u32,
    first_row: u32,
    rows: u32,
    scale: f32,
    start: u32,
    stride: u32,
}

/// The dispatches so far.
pub(super) struct Drafts {
    pub list: Vec<Draft>,
    /// Slots whose eight-bit form is that of what they hold.
    pub rounded: HashSet<SlotId>,
    /// The routes whose choices are sorted.
    pub sorted: Option<SlotId>,
}

impl Drafts {
    /// A slot was written, and its eight-bit form as well or not.
    pub fn wrote(&mut self, slot: SlotId, rounded: bool) {
        match rounded {
            true => self.rounded.insert(slot),
            false => self.rounded.remove(&slot),
        };
        self.sorted = self.sorted.filter(|sorted| *sorted != slot);
    }
}

impl Drafting<'_> {
    /// The dispatches of some of the plan's nodes: those of a segment.
    pub fn drafts(&self, nodes: Range<usize>) -> Result<Vec<Draft>> {
        let mut drafts = Drafts { list: vec![], rounded: HashSet::new(), sorted: None };
        for index in nodes {
            self.node(index, &self.plan.nodes[index], &mut drafts)?;
        }
        Ok(drafts.list)
    }

    fn node(&self, index: usize, node: &Node, drafts: &mut Drafts) -> Result<()> {
        match node {
            Node::Embed { table, out } => self.embed((*table, &self.step.ids, false), *out, drafts)?,
            Node::AddRow { table, row, to } => {
                let rows = if *row == RowOf::Position { &self.step.positions } else { &self.step.zeros };
                self.embed((*table, rows, true), *to, drafts)?;
            }
            Node::Select { input, out } => {
                let params = SelectParams {
                    outputs: rows::outputs(Rows::Outputs),
                    width: self.width(*out),
                    input: self.view(*input),
                    output: self.view(*out),
                };
                let buffers = [self.slots.buffer(*input), &self.step.outputs, self.slots.buffer(*out)];
                drafts.list.push(self.rows(params.kernel(1), params, &buffers, *out));
                drafts.wrote(*out, false);
            }
            Node::Norm { .. } => self.norm(node, drafts)?,
            Node::Product(stack) => self.product(index, stack, drafts)?,
            Node::Gate { activation, gate, up, out } => self.gate(*activation, *up, [*gate, *out], drafts),
            &Node::Temper { slot, slope, interval, offset } => {
                let params = TemperParams {
                    outputs: rows::outputs(Rows::Tokens),
                    width: self.width(slot),
                    values: self.view(slot),
                    slope,
                    interval: interval.max(1) as u32,
                    offset: offset as u32,
                };
                drafts.list.push(self.rows(params.kernel(1), params, &[self.slots.buffer(slot)], slot));
                drafts.wrote(slot, false);
            }
            Node::Route { logits, routing, out } => self.route(*logits, routing, *out, drafts)?,
            Node::Mix { parts, routes, out, add } => self.mix([*parts, *routes, *out], *add, drafts),
            &Node::Convolve { input, over, weight, bias, out } => {
                self.convolve([input, out], over, weight, bias, drafts)?;
            }
            Node::Scan(scan) => self.scan(scan, drafts)?,
            Node::Copy { parts, out } => {
                parts.iter().for_each(|runs| drafts.list.push(self.copy(runs, *out)));
                drafts.wrote(*out, false);
            }
            Node::Scale { slot, factor } => {
                let (outputs, width) = (self.outputs(*slot), self.width(*slot));
                let params = ScaleParams { outputs, width, values: self.view(*slot), factor: *factor };
                drafts.list.push(self.rows(params.kernel(1), params, &[self.slots.buffer(*slot)], *slot));
                drafts.wrote(*slot, false);
            }
            Node::Softcap { slot, cap } => {
                let (outputs, width) = (self.outputs(*slot), self.width(*slot));
                let params = SoftcapParams { outputs, width, values: self.view(*slot), cap: *cap };
                drafts.list.push(self.rows(params.kernel(1), params, &[self.slots.buffer(*slot)], *slot));
                drafts.wrote(*slot, false);
            }
            Node::Rotate(rotation) => {
                drafts.list.extend(self.rotation(rotation)?);
                for (slot, ..) in &rotation.turned {
                    drafts.wrote(*slot, false);
                }
            }
            Node::AttendTexts { .. } => self.attend_texts(node, drafts)?,
            Node::Attend { out, .. } => {
                let (list, is_rounded) = self.attention(index, node)?;
                drafts.list.extend(list);
                drafts.wrote(*out, is_rounded);
            }
        }
        Ok(())
    }

    fn copy(&self, runs: &Runs, out: SlotId) -> Draft {
        let within = |slot: SlotId, start: usize| {
            let view = self.view(slot);
            rows::View { start: view.start + start as u32, ..view }
        };
        let params = CopyParams {
            outputs: self.outputs(out),
            size: runs.size as u32,
            count: runs.count as u32,
            from: within(runs.from, runs.from_start),
            from_run: runs.from_stride as u32,
            to: within(out, runs.to_start),
            run: runs.to_stride as u32,
        };
        let buffers = [self.slots.buffer(runs.from), self.slots.buffer(out)];
        self.rows(params.kernel(1), params, &buffers, out)
    }

    fn attend_texts(&self, node: &Node, drafts: &mut Drafts) -> Result<()> {
        let &Node::AttendTexts { queries, keys, values, heads, sees, scale, softcap, most_bias, out } = node else {
            return Ok(());
        };
        let heads = heads as u32;
        let (key_size, value_size) = (self.width(queries) / heads, self.width(out) / heads);
        let group = self.width(queries) / self.width(keys).max(1);
        let (softcapped, fading) = (softcap.is_some(), most_bias.is_some());
        let attention = TextAttention { heads, group, key_size, value_size, softcap: softcapped, fading };
        let [query, key, value, result] = [queries, keys, values, out].map(|slot| self.slots.view(slot));
        let (back, ahead) = texts::reach(sees)?;
        let params = TextParams {
            query_start: query.start,
            query_stride: query.stride,
            key_start: key.start,
            key_stride: key.stride,
            value_start: value.start,
            value_stride: value.stride,
            out_start: result.start,
            out_stride: result.stride,
            back,
            ahead,
            scale,
            softcap: softcap.unwrap_or(0.0),
            most_bias: most_bias.unwrap_or(0.0),
            even_heads: 1 << heads.max(1).ilog2(),
        };
        let [queries, keys, values, sums] = [queries, keys, values, out].map(|slot| self.slots.buffer(slot));
        let buffers = [&self.step.texts, queries, keys, values, sums];
        let groups = move |size: Size| attention.groups(size.tokens);
        drafts.list.push(Draft::new(attention.variant()?.for_gpu(self.gpu), params, &buffers, groups));
        drafts.wrote(out, false);
        Ok(())
    }

    fn gate(&self, activation: Activation, up: Option<SlotId>, [gate, out]: [SlotId; 2], drafts: &mut Drafts) {
        let in_place = gate == out;
        let params = GateParams {
            outputs: self.outputs(out),
            width: self.width(out),
            gate: self.view(gate),
            up: up.map(|up| self.view(up)).unwrap_or_default(),
            output: self.view(out),
        };
        let is_gated = up.is_some();
        let kernel = params.kernel(rows::Gate { activation, is_gated, in_place, quantize: false }, 1);
        let buffer = |slot| self.slots.buffer(slot);
        // What is read comes first, and the gate is written if the result takes its place.
        let read = [(!in_place).then_some(gate), up].into_iter().flatten();
        let buffers: Vec<&wgpu::Buffer> = read.chain([out]).map(buffer).collect();
        drafts.list.push(self.rows(kernel, params, &buffers, out));
        drafts.wrote(out, false);
    }

    fn norm(&self, node: &Node, drafts: &mut Drafts) -> Result<()> {
        let Node::Norm { kind, addend, input, second, group, epsilon, weight, bias, out } = node else { return Ok(()) };
        let (width, in_place) = (self.width(*out), input == out);
        let length = weight.or(*bias).map_or(0, |id| self.program.weights[id.0].columns);
        let whole_row = length >= width as usize;
        let vector = |id: &Option<WeightId>| id.and_then(|id| self.store.vector(id));
        let (weight, bias) = (vector(weight), vector(bias));
        let rounded = self.slots.rounded(*out).filter(|_| *group == width as usize && second.is_none());
        let params = NormParams {
            outputs: self.outputs(*out),
            width,
            group: *group as u32,
            weight_stride: if whole_row { *group as u32 } else { 0 },
            epsilon: *epsilon,
            input: self.view(*input),
            addend: addend.map(|addend| self.view(addend.slot)).unwrap_or_default(),
            addend_factor: addend.map_or(1.0, |addend| addend.factor),
            second_start: second.map_or(0, |second| self.view(second.slot).start),
            second_width: second.map_or(0, |second| self.width(second.slot)),
            output: self.view(*out),
        };
        let norm = rows::Norm {
            kind: *kind,
            in_place,
            add: addend.is_some(),
            addend_norm: addend.is_some_and(|addend| addend.norm.is_some()),
            weight: weight.is_some(),
            bias: bias.is_some(),
            second: second.is_some(),
            quantize: rounded.is_some(),
        };
        let input_slot = input;
        let [input, output] = [input, out].map(|slot| self.slots.buffer(*slot));
        let mut buffers = vec![];
        // What is added to is written.
        buffers.extend((!in_place && addend.is_none()).then_some(input));
        buffers.extend(addend.map(|addend| self.slots.buffer(addend.slot)));
        buffers.extend(addend.and_then(|addend| self.store.vector(addend.norm?)));
        buffers.extend(weight);
        buffers.extend(second.and_then(|second| self.store.vector(second.weight)));
        buffers.extend(bias);
        buffers.extend((in_place || addend.is_some()).then_some(input));
        buffers.extend((!in_place).then_some(output));
        buffers.extend(rounded.iter().flat_map(|(integers, scales)| [integers, scales]));
        drafts.list.push(self.rows(params.kernel(norm, 1)?, params, &buffers, *out));
        if addend.is_some() {
            drafts.wrote(*input_slot, false);
        }
        if let Some(second) = second {
            drafts.wrote(second.slot, false);
        }
        drafts.wrote(*out, rounded.is_some());
        Ok(())
    }

    /// Writes a table's rows of these numbers, or adds them.
    fn embed(
        &self,
        (table, ids, add): (WeightId, &wgpu::Buffer, bool),
        out: SlotId,
        drafts: &mut Drafts,
    ) -> Result<()> {
        let matrix = self.store.table(self.program, table).ok_or_else(missing)?;
        let view = self.slots.view(out);
        for part in &matrix.parts {
            let params = EmbedParams {
                columns: matrix.columns as u32,
                row_units: matrix.row_units(),
                first_row: part.first_row,
                rows: part.rows,
                scale: 1.0,
                start: view.start,
                stride: view.stride,
            };
            let mut buffers = vec![ids, &part.quants];
            buffers.extend((!matrix.layout.is_float()).then_some(&part.scales));
            buffers.extend(&matrix.tables);
            buffers.push(self.slots.buffer(out));
            let groups = [(matrix.columns as u32).div_ceil(embed::COLUMNS), 1, 1];
            drafts.list.push(self.rows(
                Kernel { variant: embed::variant(&matrix.layout, add), groups },
                params,
                &buffers,
                out,
            ));
        }
        drafts.wrote(out, false);
        Ok(())
    }

    /// A kernel over rows, of as many rows as a slot has.
    pub(super) fn rows(
        &self,
        kernel: Kernel,
        params: impl bytemuck::Pod,
        buffers: &[&wgpu::Buffer],
        slot: SlotId,
    ) -> Draft {
        let ([along, ..], is_output) = (kernel.groups, self.outputs(slot) == 1);
        let groups = move |size: Size| [along, if is_output { size.outputs } else { size.tokens }, 1];
        Draft::new(kernel.variant.for_gpu(self.gpu), params, buffers, groups)
    }

    /// Numbers in a row of a slot.
    pub(super) fn width(&self, slot: SlotId) -> u32 {
        self.program.slots[slot.0].width as u32
    }

    pub(super) fn outputs(&self, slot: SlotId) -> u32 {
        rows::outputs(self.program.slots[slot.0].rows)
    }

    pub(super) fn view(&self, slot: SlotId) -> rows::View {
        let view = self.slots.view(slot);
        rows::View { start: view.start, stride: view.stride }
    }
}

pub(super) fn missing() -> Error {
    Error::Gpu {
        subject: "plan".into(),
        found: "a matrix that was not uploaded".into(),
        expected: "all of them".into(),
    }
}
