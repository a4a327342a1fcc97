//! What changes from step to step, in buffers that all recordings share: token ids, positions, page tables, rotations.

use super::device::Gpu;
use super::memory::buffer;
use super::record::Size;
use crate::Result;
use crate::backend::batch::{Batch, Positions};
use crate::cache::{PAGE_POSITIONS, StateSlots};
use crate::program::Rope;
use bytemuck::{Pod, Zeroable};
use wgpu::BufferUsages;

/// The step, as `shared/step.wgsl` has it.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Step {
    tokens: u32,
    start: u32,
    outputs: u32,
    unused: u32,
}

/// What a page table says where there is no page, or no slot.
const NO_PAGE: u32 = u32::MAX;

/// The buffers.
#[derive(Debug)]
pub struct StepBuffers {
    /// The step.
    pub step: wgpu::Buffer,
    /// Token ids.
    pub ids: wgpu::Buffer,
    /// The indices of tokens whose logits are asked for.
    pub outputs: wgpu::Buffer,
    /// The position of each token in its text.
    pub positions: wgpu::Buffer,
    /// A zero for each token.
    pub zeros: wgpu::Buffer,
    /// The first token and the end of each token's text.
    pub texts: wgpu::Buffer,
    /// The page tables of all groups, one after the other.
    pub tables: wgpu::Buffer,
    /// Cosines and sines, of each rope, token and pair.
    pub turns: wgpu::Buffer,
    /// Where the table of each group begins.
    pub table_starts: Vec<u32>,
    table_pages: u32,
    /// Where the slots of states stand behind them: the one to read, and the one to write.
    pub slots_start: u32,
    /// Where the turns of each rope begin, in pairs.
    pub turn_starts: Vec<u32>,
}

impl StepBuffers {
    /// For batches of at most `chunk` tokens and sequences of at most `context`.
    pub async fn new(gpu: &Gpu, chunk: u32, context: u32, groups: usize, ropes: &[Rope]) -> Result<Self> {
        // A table also has the pages of the batch that is reserved.
        let table_pages = (context + chunk).div_ceil(PAGE_POSITIONS) + 1;
        let mut turn_starts = vec![];
        let mut pairs = 0;
        for rope in ropes {
            turn_starts.push(pairs);
            pairs += (rope.dimensions / 2) as u32 * chunk;
        }
        let storage = |what, words: u64| buffer(gpu, what, words * 4, BufferUsages::STORAGE);
        Ok(StepBuffers {
            step: buffer(gpu, "step", 16, BufferUsages::UNIFORM).await?,
            ids: storage("token ids", u64::from(chunk)).await?,
            outputs: storage("outputs", u64::from(chunk)).await?,
            positions: storage("positions", u64::from(chunk)).await?,
            zeros: storage("zeros", u64::from(chunk)).await?,
            texts: storage("texts", u64::from(chunk) * 2).await?,
            tables: storage("page tables", u64::from(table_pages) * groups as u64 + 2).await?,
            turns: storage("rotations", u64::from(pairs) * 2).await?,
            table_starts: (0..groups as u32).map(|group| group * table_pages).collect(),
            table_pages,
            slots_start: groups as u32 * table_pages,
            turn_starts,
        })
    }

    /// Writes what a batch needs.
    pub fn write(&self, gpu: &Gpu, batch: Batch, at: Positions, ropes: &[Rope], angles: &[Vec<f32>]) {
        let size = Size::of(batch);
        let queue = gpu.queue();
        let step = Step { tokens: size.tokens, start: at.start, outputs: size.outputs, unused: 0 };
        queue.write_buffer(&self.step, 0, bytemuck::bytes_of(&step));
        queue.write_buffer(&self.ids, 0, bytemuck::cast_slice(batch.tokens));
        let outputs: Vec<u32> = batch.outputs.iter().map(|&output| output as u32).collect();
        queue.write_buffer(&self.outputs, 0, bytemuck::cast_slice(&outputs));
        for (group, &start) in self.table_starts.iter().enumerate() {
            let pages = at.sequence.table(group).iter().take(self.table_pages as usize);
            let table: Vec<u32> = pages.map(|page| page.map_or(NO_PAGE, |page| page.index() as u32)).collect();
            queue.write_buffer(&self.tables, u64::from(start) * 4, bytemuck::cast_slice(&table));
        }
        if let Some(StateSlots { from, to }) = at.sequence.states() {
            let slots = [from.map_or(NO_PAGE, |slot| slot.get()), to.get()];
            queue.write_buffer(&self.tables, u64::from(self.slots_start) * 4, bytemuck::cast_slice(&slots));
        }
        if self.table_starts.is_empty() {
            self.write_texts(gpu, batch, at);
        }
        for ((rope, angles), &start) in ropes.iter().zip(angles).zip(&self.turn_starts) {
            let turns: Vec<[f32; 2]> = batch
                .positions(at.start as usize)
                .flat_map(|position| {
                    angles.iter().map(move |angle| {
                        let (sin, cos) = (position as f32 * angle).sin_cos();
                        [cos * rope.magnitude, sin * rope.magnitude]
                    })
                })
                .collect();
            queue.write_buffer(&self.turns, u64::from(start) * 8, bytemuck::cast_slice(&turns));
        }
    }
    /// Writes where the texts of a batch are: only programs that keep nothing ask.
    fn write_texts(&self, gpu: &Gpu, batch: Batch, at: Positions) {
        let positions: Vec<u32> = batch.positions(at.start as usize).map(|position| position as u32).collect();
        let texts = batch.text_ranges().flat_map(|text| vec![[text.start as u32, text.end as u32]; text.len()]);
        let texts: Vec<[u32; 2]> = texts.collect();
        gpu.queue().write_buffer(&self.positions, 0, bytemuck::cast_slice(&positions));
        gpu.queue().write_buffer(&self.texts, 0, bytemuck::cast_slice(&texts));
    }
}
