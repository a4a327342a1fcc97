//! Where activations lie on the device: buffers for slots, and for what is rounded to eight bits of them.

use super::device::Gpu;
use super::memory::buffer;
use super::plan::{Node, Plan, View};
use super::products::takes_integers;
use crate::Result;
use crate::program::{Program, Rows, SlotId};
use std::collections::HashMap;
use wgpu::BufferUsages;

/// The buffers of all slots.
pub struct Slots {
    views: Vec<View>,
    buffers: Vec<wgpu::Buffer>,
    /// Integers and scales of slots that products take in eight bits.
    rounded: HashMap<SlotId, (wgpu::Buffer, wgpu::Buffer)>,
}

/// Kernels for few tokens read this many rows whether or not they are there.
const ROWS_AT_ONCE: u32 = 8;

impl Slots {
    /// Buffers for batches of up to so many tokens.
    pub async fn new(gpu: &Gpu, program: &Program, plan: &Plan, tokens: u32) -> Result<Self> {
        let rows = u64::from(tokens.next_multiple_of(ROWS_AT_ONCE));
        let mut buffers = vec![];
        for (stride, kind) in &plan.buffers {
            let what = match kind {
                Rows::Tokens => "activations",
                Rows::Outputs => "activations of outputs",
            };
            buffers.push(buffer(gpu, what, u64::from(*stride) * rows * 4, BufferUsages::STORAGE).await?);
        }
        let mut rounded = HashMap::new();
        for node in &plan.nodes {
            let Node::Product(stack) = node else { continue };
            let is_rounded = stack.products.iter().any(|product| {
                super::layout::Layout::of(program.weights[product.weight.0].tensor_type)
                    .is_ok_and(|layout| takes_integers(gpu, &layout))
            });
            if is_rounded && !rounded.contains_key(&stack.input) {
                let units = program.slots[stack.input.0].width.div_ceil(32) as u64 * rows;
                let integers = buffer(gpu, "rounded activations", units * 32, BufferUsages::STORAGE).await?;
                let scales = buffer(gpu, "scales of activations", units * 16, BufferUsages::STORAGE).await?;
                rounded.insert(stack.input, (integers, scales));
            }
        }
        Ok(Slots { views: plan.views.clone(), buffers, rounded })
    }

    /// Where a slot lies.
    pub fn view(&self, slot: SlotId) -> View {
        self.views[slot.0]
    }

    /// The buffer that a slot lies in.
    pub fn buffer(&self, slot: SlotId) -> &wgpu::Buffer {
        &self.buffers[self.views[slot.0].buffer]
    }

    /// What a slot is rounded to, if products take it so.
    pub fn rounded(&self, slot: SlotId) -> Option<&(wgpu::Buffer, wgpu::Buffer)> {
        self.rounded.get(&slot)
    }
}
