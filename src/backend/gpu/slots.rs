//! Where activations lie on the device: buffers for slots, and for what is rounded to eight bits of them.

use super::device::Gpu;
use super::draft_products::takes_integers_as;
use super::memory::buffer;
use super::plan::{Node, Plan, View};
use super::tiers::Tier;
use crate::program::{Program, Rows, SlotId};
use crate::{Error, Result};
use std::collections::HashMap;
use wgpu::BufferUsages;

/// The buffers of all slots.
pub struct Slots {
    views: Vec<View>,
    widths: Vec<usize>,
    buffers: Vec<wgpu::Buffer>,
    /// Integers and scales of slots that products take in eight bits.
    rounded: HashMap<SlotId, (wgpu::Buffer, wgpu::Buffer)>,
    most_outputs: u32,
}

/// Kernels for few tokens read this many rows whether or not they are there.
pub const ROWS_AT_ONCE: u32 = 8;
/// Logits of a large vocabulary for a whole chunk would take as much memory as some models do.
const MOST_OUTPUT_BYTES: u64 = 64 << 20;

/// How many rows, of at most `asked`, fit a binding of so many bytes in every buffer of a kind.
pub fn most_rows(binding_bytes: u64, plan: &Plan, kind: Rows, asked: u32) -> Result<u32> {
    let strides = plan.buffers.iter().filter(|(_, rows)| *rows == kind).map(|(stride, _)| *stride);
    let row_bytes = u64::from(strides.max().unwrap_or(0)).max(1) * 4;
    let most_bytes = match kind {
        Rows::Tokens => binding_bytes,
        Rows::Outputs => binding_bytes.min(MOST_OUTPUT_BYTES),
    };
    let rows = (most_bytes / row_bytes).min(asked.next_multiple_of(ROWS_AT_ONCE).into()) as u32;
    match rows / ROWS_AT_ONCE * ROWS_AT_ONCE {
        0 => Err(Error::Gpu {
            subject: "binding for activations".into(),
            found: format!("a limit of {most_bytes} bytes"),
            expected: format!("at least {}, for {ROWS_AT_ONCE} rows", row_bytes * u64::from(ROWS_AT_ONCE)),
        }),
        rows => Ok(rows.min(asked)),
    }
}

impl Slots {
    /// Buffers for batches of up to so many tokens.
    pub async fn new(gpu: &Gpu, program: &Program, plan: &Plan, tokens: u32) -> Result<Self> {
        let rows = u64::from(tokens.next_multiple_of(ROWS_AT_ONCE));
        let most_outputs = most_rows(gpu.binding_bytes(), plan, Rows::Outputs, tokens)?;
        let mut buffers = vec![];
        for (stride, kind) in &plan.buffers {
            let (what, rows) = match kind {
                Rows::Tokens => ("activations", rows),
                Rows::Outputs => ("activations of outputs", most_outputs.next_multiple_of(ROWS_AT_ONCE).into()),
            };
            buffers.push(buffer(gpu, what, u64::from(*stride) * rows * 4, BufferUsages::STORAGE).await?);
        }
        let mut rounded = HashMap::new();
        for node in &plan.nodes {
            let Node::Product(stack) = node else { continue };
            if takes_integers_as(gpu.has(Tier::Dot), program, stack) && !rounded.contains_key(&stack.input) {
                let units = program.slots[stack.input.0].width.div_ceil(32) as u64 * rows;
                let integers = buffer(gpu, "rounded activations", units * 32, BufferUsages::STORAGE).await?;
                let scales = buffer(gpu, "scales of activations", units * 16, BufferUsages::STORAGE).await?;
                rounded.insert(stack.input, (integers, scales));
            }
        }
        let widths = program.slots.iter().map(|slot| slot.width).collect();
        Ok(Slots { views: plan.views.clone(), widths, buffers, rounded, most_outputs })
    }

    /// How many outputs there is room for.
    pub fn most_outputs(&self) -> usize {
        self.most_outputs as usize
    }

    /// Where a slot lies.
    pub fn view(&self, slot: SlotId) -> View {
        self.views[slot.0]
    }

    /// The buffer that a slot lies in.
    pub fn buffer(&self, slot: SlotId) -> &wgpu::Buffer {
        &self.buffers[self.views[slot.0].buffer]
    }

    /// Writes rows of a slot.
    pub fn write(&self, gpu: &Gpu, slot: SlotId, values: &[f32]) {
        let (view, width) = (self.views[slot.0], self.widths[slot.0]);
        let rows = if view.stride as usize == width { values.len() } else { width };
        for (index, row) in values.chunks(rows.max(1)).enumerate() {
            let at = u64::from(view.start) + index as u64 * u64::from(view.stride);
            gpu.queue().write_buffer(self.buffer(slot), at * 4, bytemuck::cast_slice(row));
        }
    }

    /// What a slot is rounded to, if products take it so.
    pub fn rounded(&self, slot: SlotId) -> Option<&(wgpu::Buffer, wgpu::Buffer)> {
        self.rounded.get(&slot)
    }
}
