//! Runs programs on a GPU.
//!
//! Everything is made when the executor is: weights are repacked and uploaded, slots and pages get their buffers, and the
//! program is recorded for one token, for a few, and for a whole chunk of a prompt. A step then writes some small buffers,
//! encodes one pass, submits it, and reads back the logits that were asked for.

use super::choice::Chooser;
use super::device::Gpu;
use super::draft::Drafting;
use super::draft_attention::partial_words;
use super::flight::{Copy, Lane};
use super::memory::buffer;
use super::pages::Pages;
use super::plan::Plan;
use super::profile::{Profile, profile};
use super::readback::read;
use super::record::{Pipelines, Recording, Size};
use super::slots::{Slots, rows_that_fit};
use super::step::StepBuffers;
use super::store::Store;
use crate::backend::batch::Batch;
use crate::backend::weights::Weights;
use crate::cache::{Cache, PageCopy, Sequence};
use crate::gguf::Gguf;
use crate::options::CacheFormat;
use crate::program::{Program, Rows};
use crate::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use wgpu::BufferUsages;

/// How an executor works.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct GpuExecutorOptions {
    /// Tokens of a prompt that are run at once; fewer if activations of so many do not fit a binding.
    pub chunk_tokens: u32,
    /// How long a submission takes at most, by what was measured. One dispatch cannot be cut.
    pub submit_budget: Duration,
}

impl Default for GpuExecutorOptions {
    fn default() -> Self {
        GpuExecutorOptions { chunk_tokens: 512, submit_budget: Duration::from_millis(50) }
    }
}

/// A program on a GPU, with its weights and the pages of a cache.
pub struct GpuExecutor {
    pub(super) gpu: Gpu,
    pub(super) weights: Weights,
    pub(super) step: StepBuffers,
    slots: Slots,
    pages: Pages,
    store: Store,
    /// The program, recorded for several numbers of tokens, in ascending order.
    pub(super) lanes: Vec<Lane>,
    pipelines: Pipelines,
    pub(super) chooser: Option<Chooser>,
    chunk_tokens: u32,
    readback: Option<wgpu::Buffer>,
}

impl GpuExecutor {
    /// Brings a program to a GPU, and makes room there for the pages of a cache.
    pub async fn new(
        gpu: &Gpu,
        file: Arc<Gguf>,
        program: Program,
        cache: &Cache,
        format: CacheFormat,
        options: GpuExecutorOptions,
    ) -> Result<Self> {
        let weights = Weights::new(file, program)?;
        let program = &weights.program;
        let plan = Plan::new(program);
        let limits = cache.limits();
        let asked_tokens = options.chunk_tokens.clamp(1, limits.chunk_tokens);
        let chunk_tokens = rows_that_fit(gpu, &plan, Rows::Tokens, asked_tokens)?;
        let step =
            StepBuffers::new(gpu, chunk_tokens, limits.context_tokens, cache.groups().len(), &program.ropes).await?;
        let slots = Slots::new(gpu, program, &plan, chunk_tokens).await?;
        let pages = Pages::new(gpu, cache, format).await?;
        let store = Store::new(gpu, &weights, &plan).await?;
        let pipelines = Pipelines::default();
        let mut lanes: Vec<Lane> = vec![];
        let buckets = [1, 8, chunk_tokens];
        let words = buckets.map(|tokens| partial_words(program, cache, &pages, tokens)).into_iter().max().unwrap_or(0);
        let partials = buffer(gpu, "partial sums", words * 4, BufferUsages::STORAGE).await?;
        for tokens in buckets {
            if tokens <= chunk_tokens && lanes.last().is_none_or(|before| before.tokens < tokens) {
                let drafting = Drafting {
                    gpu,
                    program,
                    plan: &plan,
                    step: &step,
                    slots: &slots,
                    pages: &pages,
                    store: &store,
                    cache,
                    partials: &partials,
                    tokens,
                };
                let recording = Recording::new(gpu, &pipelines, &step.step, drafting.drafts()?).await?;
                lanes.push(Lane::new(tokens, recording, options.submit_budget));
            }
        }
        let chooser = Chooser::new(gpu, &pipelines, program, &slots, &step).await?;
        let gpu = gpu.clone();
        log::info!("{} pipelines on {} in {:.2} s", pipelines.len(), gpu.info().name, pipelines.seconds());
        let readback = None;
        Ok(GpuExecutor { gpu, weights, step, slots, pages, store, lanes, pipelines, chooser, chunk_tokens, readback })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.weights.program
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The most tokens that run at once.
    pub fn chunk_tokens(&self) -> u32 {
        self.chunk_tokens
    }

    /// Bytes of weights on the device.
    pub fn weight_bytes(&self) -> u64 {
        self.store.bytes()
    }

    /// Bytes of the cache's pages on the device.
    pub fn cache_bytes(&self) -> u64 {
        self.pages.bytes()
    }

    /// Pipelines that have been compiled.
    pub fn pipelines(&self) -> usize {
        self.pipelines.len()
    }

    /// How long it took to compile them, on all threads; 0 where there is no clock.
    pub fn pipeline_seconds(&self) -> f64 {
        self.pipelines.seconds()
    }

    /// The shaders that a step of one token dispatches, in order.
    pub fn token_dispatches(&self) -> impl Iterator<Item = &'static str> {
        self.lanes.iter().take(1).flat_map(|lane| lane.recording.names())
    }

    /// Runs a batch: the sequence, which is one of the cache that this was made for, grows by it. Returns the logits of
    /// the outputs, one row after the other.
    ///
    /// If this fails, the sequence is what it was before.
    pub async fn run(&mut self, batch: Batch<'_>, sequence: &mut Sequence) -> Result<Vec<f32>> {
        batch.check(self.program())?;
        let before = sequence.len();
        let mut logits = vec![];
        let mut rest = batch.tokens;
        while !rest.is_empty() {
            let first = batch.tokens.len() - rest.len();
            let outputs = batch.outputs.iter().filter_map(|output| output.checked_sub(first));
            let mut outputs: Vec<usize> = outputs.take_while(|output| *output < self.chunk_tokens as usize).collect();
            let mut count = rest.len().min(self.chunk_tokens as usize);
            if let Some(output) = outputs.get(self.slots.most_outputs()) {
                count = *output;
                outputs.truncate(self.slots.most_outputs());
            }
            let (tokens, later) = rest.split_at(count);
            match self.run_chunk(Batch { tokens, outputs: &outputs }, sequence).await {
                Ok(part) => logits.extend(part),
                Err(error) => {
                    sequence.truncate(before)?;
                    let asked_tokens = u32::try_from(batch.tokens.len()).unwrap_or(u32::MAX);
                    return Err(match error {
                        Error::ContextFull { limit_tokens, .. } => {
                            Error::ContextFull { used_tokens: before, asked_tokens, limit_tokens }
                        }
                        error => error,
                    });
                }
            }
            rest = later;
        }
        Ok(logits)
    }

    /// Runs a batch as [`GpuExecutor::run`] does, once, and says where the time went.
    pub async fn profile(&mut self, batch: Batch<'_>, sequence: &mut Sequence) -> Result<Profile> {
        let copies = batch.begin(self.program(), sequence)?;
        let size = Size::of(batch);
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        self.begin_step(&mut encoder, batch, sequence, &copies);
        self.gpu.queue().submit([encoder.finish()]);
        let lane = self.lane(size)?;
        let result = profile(&self.gpu, &self.lanes[lane].recording, size).await;
        batch.end(sequence, result)
    }

    /// Which lane takes a batch of a size.
    pub(super) fn lane(&self, size: Size) -> Result<usize> {
        self.lanes.iter().position(|lane| lane.tokens >= size.tokens).ok_or_else(|| Error::Gpu {
            subject: "batch".into(),
            found: format!("{} tokens", size.tokens),
            expected: format!("at most {}", self.chunk_tokens),
        })
    }

    async fn run_chunk(&mut self, batch: Batch<'_>, sequence: &mut Sequence) -> Result<Vec<f32>> {
        self.gpu.check()?;
        // From the reservation of pages to the first submission nothing waits, so that no copy of a page is left out.
        let target = self.target(batch.outputs.len()).await?;
        let copies = batch.begin(self.program(), sequence)?;
        let result = self.steps(batch, sequence, &copies, target).await;
        batch.end(sequence, result)
    }

    async fn steps(
        &mut self,
        batch: Batch<'_>,
        sequence: &Sequence,
        copies: &[PageCopy],
        target: Option<(wgpu::Buffer, u64)>,
    ) -> Result<Vec<f32>> {
        if target.is_some() {
            // Back when it has been read: one that is given up before may stay mapped, and is of no more use.
            self.readback = None;
        }
        let logits = self.weights.program.output.zip(target.as_ref()).map(|(output, (target, bytes))| Copy {
            source: self.slots.buffer(output),
            start: 0,
            target,
            at: 0,
            bytes: *bytes,
        });
        let size = Size::of(batch);
        let lane = self.lane(size)?;
        let begin = |encoder: &mut wgpu::CommandEncoder| self.begin_step(encoder, batch, sequence, copies);
        let flight = self.lanes[lane].submit(&self.gpu, size, begin, None, logits.as_slice()).await?;
        let Some((buffer, bytes)) = target else {
            self.gpu.check()?;
            return flight.land(&self.gpu, async { Ok(vec![]) }).await.map(|(nothing, _)| nothing);
        };
        let (logits, landed) = flight.land(&self.gpu, read(&self.gpu, &buffer, bytes)).await?;
        self.lanes[lane].learn(&landed);
        self.readback = Some(buffer);
        Ok(self.without_padding(bytemuck::pod_collect_to_vec(&logits)))
    }

    /// Writes what a step needs, and encodes the copies of pages.
    pub(super) fn begin_step(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        batch: Batch,
        sequence: &Sequence,
        copies: &[PageCopy],
    ) {
        let Weights { program, angles, .. } = &self.weights;
        self.step.write(&self.gpu, batch, sequence, &program.ropes, angles);
        copies.iter().for_each(|copy| self.pages.copy(encoder, copy));
    }

    /// Rows of logits one after the other: on the device each begins at a multiple of four numbers.
    fn without_padding(&self, logits: Vec<f32>) -> Vec<f32> {
        let Some(output) = self.weights.program.output else { return logits };
        let (width, stride) = (self.weights.program.slots[output.0].width, self.slots.view(output).stride as usize);
        if width == stride {
            return logits;
        }
        logits.chunks(stride).flat_map(|row| row.iter().take(width)).copied().collect()
    }

    /// Where so many rows of logits can be read, and their bytes. There is one such buffer, as large as was ever needed.
    async fn target(&mut self, rows: usize) -> Result<Option<(wgpu::Buffer, u64)>> {
        let Some(output) = self.weights.program.output else { return Ok(None) };
        let row_bytes = u64::from(self.slots.view(output).stride) * 4;
        let bytes = rows as u64 * row_bytes;
        if bytes == 0 {
            return Ok(None);
        }
        let target = match self.readback.clone().filter(|buffer| buffer.size() >= bytes) {
            Some(buffer) => buffer,
            None => {
                let rows = rows.next_power_of_two().min(self.slots.most_outputs()).max(rows) as u64;
                buffer(&self.gpu, "logits", rows * row_bytes, BufferUsages::MAP_READ).await?
            }
        };
        Ok(Some((target, bytes)))
    }
}

impl std::fmt::Debug for GpuExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GpuExecutor({:?}, {} bytes of weights)", self.gpu, self.store.bytes())
    }
}
