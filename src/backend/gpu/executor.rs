//! Runs programs on a GPU.
//!
//! Everything is made when the executor is: weights are repacked and uploaded, slots and pages get their buffers, and the
//! program is recorded for one token, for a few, and for a whole chunk of a prompt. A step then writes some small buffers,
//! encodes one pass, submits it, and reads back the logits that were asked for.

use super::choice::Chooser;
use super::device::Gpu;
use super::draft::Drafting;
use super::draft_attention::partial_words;
use super::draft_experts::order_words;
use super::flight::{Copy, Lane};
use super::memory::buffer;
use super::pages::Pages;
use super::plan::Plan;
use super::profile::{Profile, profile};
use super::readback::read;
use super::record::{Pipelines, Recording, Size};
use super::slots::{Slots, most_rows};
use super::step::StepBuffers;
use super::store::Store;
use crate::backend::batch::{Batch, Positions};
use crate::backend::weights::{Loading, Weights};
use crate::cache::{Cache, Held, PageCopy, PageId, Sequence};
use crate::gguf::Gguf;
use crate::options::CacheFormat;
use crate::program::{Program, Purpose, Rows, Segment, SlotId};
use crate::{Error, Result};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use wgpu::BufferUsages;

/// How an executor works.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GpuExecutorOptions {
    /// Tokens of a prompt that are run at once; fewer if activations of so many do not fit a binding.
    pub chunk_tokens: u32,
    /// How long what is on its way takes at most, by what was measured. One dispatch cannot be cut.
    pub submit_budget: Duration,
    /// Counts the weights that are ready.
    pub loading: Option<Arc<Loading>>,
}

impl Default for GpuExecutorOptions {
    fn default() -> Self {
        GpuExecutorOptions { chunk_tokens: 512, submit_budget: Duration::from_millis(50), loading: None }
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
    segments: Vec<Segment>,
    /// The segments, recorded for several numbers of tokens, in ascending order.
    pub(super) lanes: Vec<Vec<Lane>>,
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
        let segments = program.whole();
        Self::of_segments(gpu, file, program, segments, cache, format, options).await
    }

    /// Brings some segments of a program to a GPU.
    pub async fn of_segments(
        gpu: &Gpu,
        file: Arc<Gguf>,
        program: Program,
        segments: Vec<Segment>,
        cache: &Cache,
        format: CacheFormat,
        options: GpuExecutorOptions,
    ) -> Result<Self> {
        let weights = Weights::new(file, program, options.loading)?;
        let program = &weights.program;
        let plan = Plan::new(program, &segments);
        let limits = cache.limits();
        let asked_tokens = options.chunk_tokens.clamp(1, limits.chunk_tokens);
        let chunk_tokens = most_rows(gpu.binding_bytes(), &plan, Rows::Tokens, asked_tokens)?;
        let step =
            StepBuffers::new(gpu, chunk_tokens, limits.context_tokens, cache.groups().len(), &program.ropes).await?;
        let slots = Slots::new(gpu, program, &plan, chunk_tokens).await?;
        let pages = Pages::new(gpu, cache, &program.cached_layers(&segments), format).await?;
        let store = Store::new(gpu, &weights, &plan).await?;
        let pipelines = Pipelines::default();
        let mut lanes: Vec<Vec<Lane>> = vec![];
        let buckets = [1, 8, chunk_tokens];
        let words = partial_words(program, cache, &pages, &buckets);
        let partials = buffer(gpu, "partial sums", words * 4, BufferUsages::STORAGE).await?;
        let words = order_words(&plan, chunk_tokens);
        let order = buffer(gpu, "order of choices", words * 4, BufferUsages::STORAGE).await?;
        for tokens in buckets {
            if tokens <= chunk_tokens
                && lanes.last().and_then(|before| before.first()).is_none_or(|before| before.tokens < tokens)
            {
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
                    order: &order,
                    tokens,
                };
                let mut segments = vec![];
                for part in &plan.parts {
                    let drafts = drafting.drafts(part.nodes.clone())?;
                    let recording = Recording::new(gpu, &pipelines, &step.step, drafts).await?;
                    segments.push(Lane::new(tokens, recording, options.submit_budget));
                }
                lanes.push(segments);
            }
        }
        let is_whole = matches!(&segments[..], [segment] if segment.steps == (0..program.steps.len()))
            && program.purpose == Purpose::Generate;
        let chooser = match program.output.filter(|_| is_whole) {
            Some(output) => Some(Chooser::new(gpu, &pipelines, program, output, &slots, &step).await?),
            None => None,
        };
        let gpu = gpu.clone();
        log::info!("{} pipelines on {} in {:.2} s", pipelines.len(), gpu.info().name, pipelines.seconds());
        let readback = None;
        Ok(GpuExecutor {
            gpu,
            weights,
            step,
            slots,
            pages,
            store,
            segments,
            lanes,
            pipelines,
            chooser,
            chunk_tokens,
            readback,
        })
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
        self.lanes.iter().take(1).flatten().flat_map(|lane| lane.recording.names())
    }

    /// The most tokens whose logits can be asked for at once.
    pub fn most_outputs(&self) -> usize {
        self.slots.most_outputs()
    }

    /// Runs a batch: the sequence, which is one of the cache that this was made for, grows by it. Returns the logits of
    /// the outputs, one row after the other. Only if all of the program is here.
    ///
    /// If this fails, the sequence is what it was before.
    pub async fn run(&mut self, batch: Batch<'_>, sequence: &mut Sequence) -> Result<Vec<f32>> {
        batch.check(self.program())?;
        if self.program().purpose == Purpose::Embed {
            return self.run_chunk(batch, sequence).await; // texts are never cut
        }
        let before = sequence.len();
        let mut logits = vec![];
        for (tokens, outputs) in batch.chunks(self.chunk_tokens as usize, self.most_outputs()) {
            match self.run_chunk(Batch { tokens, outputs: &outputs, texts: &[] }, sequence).await {
                Ok(part) => logits.extend(part),
                Err(error) => return Err(batch.undo(sequence, before, error)),
            }
        }
        Ok(logits)
    }

    /// Runs a batch as [`GpuExecutor::run`] does, once, and says where the time went.
    pub async fn profile(&mut self, batch: Batch<'_>, sequence: &mut Sequence) -> Result<Profile> {
        let copies = batch.begin(self.program(), sequence)?;
        let size = Size::of(batch);
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        self.begin_step(&mut encoder, batch, Positions::next(sequence), &copies);
        self.gpu.submit(Some(encoder.finish()));
        let lane = self.lane(size)?;
        let result = match &self.lanes[lane][..] {
            [whole] => profile(&self.gpu, &whole.recording, size).await,
            segments => Err(Error::Gpu {
                subject: "profile".into(),
                found: format!("a program cut into {} segments", segments.len()),
                expected: "all of it in one".into(),
            }),
        };
        batch.end(self.program(), sequence, result)
    }

    /// Which lane takes a batch of a size.
    pub(super) fn lane(&self, size: Size) -> Result<usize> {
        self.lanes.iter().position(|lanes| lanes.iter().all(|lane| lane.tokens >= size.tokens)).ok_or_else(|| {
            Error::Gpu {
                subject: "batch".into(),
                found: format!("{} tokens", size.tokens),
                expected: format!("at most {}", self.chunk_tokens),
            }
        })
    }

    async fn run_chunk(&mut self, batch: Batch<'_>, sequence: &mut Sequence) -> Result<Vec<f32>> {
        self.gpu.check()?;
        // From the reservation of pages to the first submission nothing waits, so that no copy of a page is left out.
        let target = self.target(0, batch).await?;
        let copies = batch.begin(self.program(), sequence)?;
        let beginning = Some((Positions::next(sequence), &copies[..]));
        let result = self.submit(0, batch, beginning, &[], target).await;
        batch.end(self.program(), sequence, result).map(|mut slots| slots.pop().unwrap_or_default())
    }

    /// Copies pages that a sequence is about to write and others still read: to be done before the first segment of a
    /// batch runs.
    pub fn copy_pages(&self, copies: &[PageCopy]) {
        if !copies.is_empty() {
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            copies.iter().for_each(|copy| self.pages.copy(&mut encoder, copy));
            self.gpu.submit(Some(encoder.finish()));
        }
    }

    /// The bytes of something that the device holds for a sequence.
    pub async fn read(&self, held: Held, ids: &[PageId]) -> Result<Vec<u8>> {
        self.gpu.check()?;
        self.pages.read(&self.gpu, held, ids).await
    }

    /// The bytes of one page or slot of it.
    pub fn bytes_of(&self, held: Held) -> u64 {
        self.pages.bytes_of(held)
    }

    /// Writes what [`read`](Self::read) gave, of a cache that is alike.
    pub fn write(&self, held: Held, ids: &[PageId], bytes: &[u8]) {
        self.pages.write(&self.gpu, held, ids, bytes);
    }

    /// Runs one of the segments, for a batch that the sequence has pages for. `given` and the result are rows of the
    /// segment's slots of these names. `begins` says that the batch, or its positions, are not those of the segment that
    /// ran before.
    pub async fn run_segment(
        &mut self,
        index: usize,
        batch: Batch<'_>,
        positions: Positions<'_>,
        (begins, given): (bool, &[Arc<Vec<f32>>]),
    ) -> Result<Vec<Vec<f32>>> {
        self.gpu.check()?;
        let target = self.target(index, batch).await?;
        self.submit(index, batch, begins.then_some((positions, &[])), given, target).await
    }

    async fn submit(
        &mut self,
        index: usize,
        batch: Batch<'_>,
        beginning: Option<(Positions<'_>, &[PageCopy])>,
        given: &[Arc<Vec<f32>>],
        target: Option<wgpu::Buffer>,
    ) -> Result<Vec<Vec<f32>>> {
        if target.is_some() {
            // Back when it has been read: one that is given up before may stay mapped, and is of no more use.
            self.readback = None;
        }
        let segment = &self.segments[index];
        let places = self.places(segment, batch);
        let bytes = places.last().map_or(0, |place| place.end);
        let wanted: Vec<Copy> = segment
            .wanted
            .iter()
            .zip(&places)
            .filter_map(|(&slot, place)| {
                let (target, start) = (target.as_ref()?, u64::from(self.slots.view(slot).start) * 4);
                let (source, bytes) = (self.slots.buffer(slot), place.end - place.start);
                (bytes > 0).then_some(Copy { source, start, target, at: place.start, bytes })
            })
            .collect();
        let size = Size::of(batch);
        let lane = self.lane(size)?;
        let begin = |encoder: &mut wgpu::CommandEncoder| {
            // What one segment of a batch is told holds for all.
            if let Some((positions, copies)) = beginning {
                self.begin_step(encoder, batch, positions, copies);
            }
            segment.given.iter().zip(given).for_each(|(&slot, values)| self.slots.write(&self.gpu, slot, values));
        };
        let flight = self.lanes[lane][index].submit(&self.gpu, size, begin, None, &wanted).await?;
        let Some(buffer) = target else {
            self.gpu.check()?;
            let nothing = segment.wanted.iter().map(|_| vec![]).collect();
            return flight.land(&self.gpu, async { Ok(nothing) }).await.map(|(nothing, _)| nothing);
        };
        let (read, landed) = flight.land(&self.gpu, read(&self.gpu, &buffer, bytes)).await?;
        self.lanes[lane][index].learn(&landed);
        self.readback = Some(buffer);
        let numbers: Vec<f32> = bytemuck::pod_collect_to_vec(&read);
        let rows = self.segments[index].wanted.iter().zip(&places).map(|(&slot, place)| {
            let numbers = numbers.get(place.start as usize / 4..place.end as usize / 4).unwrap_or_default();
            self.without_padding(slot, numbers)
        });
        Ok(rows.collect())
    }

    /// Writes what a step needs, and encodes the copies of pages.
    pub(super) fn begin_step(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        batch: Batch,
        positions: Positions,
        copies: &[PageCopy],
    ) {
        let Weights { program, angles, .. } = &self.weights;
        self.step.write(&self.gpu, batch, positions, &program.ropes, angles);
        copies.iter().for_each(|copy| self.pages.copy(encoder, copy));
    }

    /// Rows of a slot one after the other: on the device each begins at a multiple of four numbers, or beside others.
    fn without_padding(&self, slot: SlotId, numbers: &[f32]) -> Vec<f32> {
        let (width, stride) = (self.weights.program.slots[slot.0].width, self.slots.view(slot).stride as usize);
        if width == stride {
            return numbers.to_vec();
        }
        numbers.chunks(stride.max(1)).flat_map(|row| row.iter().take(width)).copied().collect()
    }

    /// Where the wanted slots of a segment are, in bytes of what is read back.
    fn places(&self, segment: &Segment, batch: Batch) -> Vec<Range<u64>> {
        let mut end = 0;
        let place = |&slot: &SlotId| {
            let (width, stride) = (self.weights.program.slots[slot.0].width, self.slots.view(slot).stride as usize);
            let rows = batch.rows(self.weights.program.slots[slot.0].rows);
            let start = end;
            end += rows.checked_sub(1).map_or(0, |before| before * stride + width) as u64 * 4;
            start..end
        };
        segment.wanted.iter().map(place).collect()
    }

    /// Where what is wanted of a segment can be read, if anything is. There is one such buffer, as large as was ever
    /// needed.
    async fn target(&mut self, index: usize, batch: Batch<'_>) -> Result<Option<wgpu::Buffer>> {
        let places = self.places(&self.segments[index], batch);
        let bytes = places.last().map_or(0, |place| place.end);
        if bytes == 0 {
            return Ok(None);
        }
        Ok(Some(match self.readback.clone().filter(|buffer| buffer.size() >= bytes) {
            Some(buffer) => buffer,
            None => buffer(&self.gpu, "results of a step", bytes.next_power_of_two(), BufferUsages::MAP_READ).await?,
        }))
    }
}

impl std::fmt::Debug for GpuExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GpuExecutor({:?}, {} bytes of weights)", self.gpu, self.store.bytes())
    }
}
