//! What computes for a model: the devices that its program is spread over, and the way of a batch through them.

use super::PIECE_TOKENS;
use super::fit::Fit;
use super::pipeline::pipeline;
use super::placement::{Placement, Site, matrix_options};
use super::plan::Plan;
use crate::backend::batch::{Batch, Positions};
use crate::backend::candidates::{Choice, Input, Wanted};
use crate::backend::cpu::executor::{Executor, ExecutorOptions};
use crate::backend::cpu::memory::PageMemory;
use crate::backend::gpu::{Gpu, GpuExecutor, GpuExecutorOptions, Ticket, wait};
use crate::backend::weights::Loading;
use crate::cache::{Cache, Held, PageId, Sequence};
use crate::gguf::Gguf;
use crate::options::LoadOptions;
use crate::program::{Program, Purpose, Segment, SlotId};
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The devices, with the pages of all sessions; whoever runs a batch holds them.
#[derive(Debug)]
pub struct Engine {
    program: Program,
    cache: Cache,
    /// The segments in order: which part runs each, and as which of its own.
    route: Vec<(usize, usize, Segment)>,
    parts: Vec<Part>,
    /// Whether pieces of a prompt can follow one another through the devices.
    pipelined: bool,
    /// Where there are several parts, slots stay on them between the segments of a batch: one batch at a time.
    turn: Mutex<()>,
    plan: Plan,
}

/// A device, with its segments.
#[derive(Debug)]
enum Part {
    Cpu(Box<Executor>, Box<Mutex<PageMemory>>),
    Gpu(GpuPart),
}

#[derive(Debug)]
struct GpuPart {
    gpu: Gpu,
    weight_bytes: u64,
    most_candidates: u32,
    most_tokens: usize,
    most_outputs: usize,
    executor: Box<Mutex<GpuExecutor>>,
}

/// What a device holds of one layer for a sequence.
#[derive(Debug)]
pub struct Holding {
    part: usize,
    /// The layer.
    pub layer: u32,
    /// Whether the device is a GPU: these lay things out in another way than the CPU does.
    pub on_gpu: bool,
    /// What it is.
    pub held: Held,
    ids: Vec<PageId>,
}

/// What crosses from one segment to another, by slot.
type Crossing = HashMap<SlotId, Arc<Vec<f32>>>;

/// Why there is no engine, and which GPU refused.
type Refusal = (Option<usize>, Error);

/// What an engine is made of.
struct Making<'a> {
    file: &'a Arc<Gguf>,
    program: &'a Program,
    cache: &'a Cache,
    options: &'a LoadOptions,
    gpus: &'a [Gpu],
    loading: Option<Arc<Loading>>,
}

impl Engine {
    /// Loads the model in a file.
    pub fn load(file: &Arc<Gguf>, options: &LoadOptions, gpus: &[Gpu]) -> Result<Self> {
        let fit = Fit::new(file, options, gpus.iter().map(Site::of).collect::<Result<_>>()?)?;
        Self::new(file, fit, options, gpus)
    }

    /// Loads a program onto the GPUs that it was fitted to. One that has no room for its layers gets fewer.
    pub fn new(file: &Arc<Gguf>, mut fit: Fit, options: &LoadOptions, gpus: &[Gpu]) -> Result<Self> {
        loop {
            let placement = Placement::new(fit.known(options), &options.offload, &options.on_cpu)?;
            let all_bytes = || file.tensors().iter().map(|tensor| tensor.size_bytes()).sum();
            let loading =
                options.progress.as_ref().map(|progress| Arc::new(Loading::new(progress.clone(), all_bytes())));
            let making = Making { file, program: &fit.program, cache: &fit.cache, options, gpus, loading };
            let made = making.parts(&placement);
            match made {
                Ok(parts) => {
                    // What was packed or uploaded is not read again.
                    file.release();
                    making.loading.iter().for_each(|loading| loading.end());
                    let plan = placement.plan(fit.known(options), options, fit.reasons.clone())?;
                    return Ok(making.engine(parts, &placement, plan));
                }
                Err((Some(gpu), Error::GpuMemory { what, bytes })) if placement.layers.contains(&(gpu + 1)) => {
                    let held = placement.layers.iter().filter(|device| **device == gpu + 1).count();
                    let site = &mut fit.sites[gpu];
                    site.most_layers = held - held.div_ceil(8);
                    let Site { name, most_layers, .. } = site;
                    let reason = format!(
                        "{name} had no room for {bytes} bytes of {what}, so it gets at most {most_layers} layers, not {held}."
                    );
                    log::warn!("{reason}");
                    fit.reasons.push(reason);
                    // What was dropped is given back when the device is polled.
                    gpus[gpu].check()?;
                }
                Err((_, error)) => return Err(error),
            }
        }
    }

    /// What it computes.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The books of its pages.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Who computes what.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of weights beside the file.
    pub fn packed_bytes(&self) -> u64 {
        let bytes = |part: &Part| match part {
            Part::Cpu(executor, _) => executor.packed_bytes(),
            Part::Gpu(part) => part.weight_bytes,
        };
        self.parts.iter().map(bytes).sum()
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        let threads = |part: &Part| match part {
            Part::Cpu(executor, _) => executor.threads(),
            Part::Gpu(_) => 1,
        };
        self.parts.iter().map(threads).max().unwrap_or(1)
    }

    /// The GPUs that have something to do.
    pub fn gpus(&self) -> impl Iterator<Item = &Gpu> {
        self.parts.iter().filter_map(|part| match part {
            Part::Cpu(..) => None,
            Part::Gpu(part) => Some(&part.gpu),
        })
    }

    /// In some words.
    pub fn name(&self) -> String {
        let name = |part: &Part| match part {
            Part::Cpu(executor, _) => format!("{} threads of the CPU", executor.threads()),
            Part::Gpu(part) => format!("{:?}", part.gpu),
        };
        self.parts.iter().map(name).collect::<Vec<_>>().join(" and ")
    }

    /// The most tokens that run at once.
    pub fn chunk_tokens(&self) -> usize {
        self.gpu_parts().map(|part| part.most_tokens).min().unwrap_or(usize::MAX)
    }

    /// The most of them whose rows can be asked for at once.
    pub fn most_outputs(&self) -> usize {
        self.gpu_parts().map(|part| part.most_outputs).min().unwrap_or(usize::MAX)
    }

    fn gpu_parts(&self) -> impl Iterator<Item = &GpuPart> {
        self.parts.iter().filter_map(|part| match part {
            Part::Cpu(..) => None,
            Part::Gpu(part) => Some(part),
        })
    }

    /// The GPU that all runs on, if there is one.
    fn only_gpu(&self) -> Option<&GpuPart> {
        match &self.parts[..] {
            [Part::Gpu(part)] if self.route.len() == 1 => Some(part),
            _ => None,
        }
    }

    /// As many candidates as are wanted, if the engine can find so many of them.
    pub fn candidates(&self, wanted: Option<usize>) -> Option<u32> {
        let most = self.only_gpu()?.most_candidates;
        let wanted = u32::try_from(wanted?).ok()?;
        (wanted <= most).then_some(wanted)
    }

    /// Whether steps may go ahead.
    pub fn is_short(&self) -> bool {
        self.only_gpu().is_some_and(|part| lock(&part.executor).is_short())
    }

    /// Begins a step that chooses; only where [`Engine::candidates`] are to be had.
    pub fn begin(&self, input: Input, wanted: Wanted, sequence: &mut Sequence) -> Result<Ticket> {
        let part = self.only_gpu().ok_or_else(no_gpu)?;
        wait(&part.gpu, lock(&part.executor).begin(input, wanted, sequence))
    }

    /// Gives up a step.
    pub fn forget(&self, ticket: Ticket) {
        if let Some(part) = self.only_gpu() {
            lock(&part.executor).forget(ticket);
        }
    }

    /// Waits for a step.
    pub fn finish(&self, ticket: Ticket) -> Result<Choice> {
        let part = self.only_gpu().ok_or_else(no_gpu)?;
        let (choice, arrival) = ticket.wait(&part.gpu)?;
        lock(&part.executor).end(arrival);
        Ok(choice)
    }

    /// Runs a batch: the sequence grows by it. Returns the logits of the outputs, one row after the other.
    ///
    /// If this fails, the sequence is what it was before.
    pub fn run(&self, batch: Batch, sequence: &mut Sequence) -> Result<Vec<f32>> {
        batch.check(&self.program)?;
        let _turn = lock(&self.turn);
        if self.program.purpose == Purpose::Embed {
            return self.run_chunk(batch, sequence); // texts are never cut
        }
        let before = sequence.len();
        let mut logits = vec![];
        for (tokens, outputs) in batch.chunks(self.chunk_tokens(), self.most_outputs()) {
            match self.run_chunk(Batch { tokens, outputs: &outputs, texts: &[] }, sequence) {
                Ok(part) => logits.extend(part),
                Err(error) => return Err(batch.undo(sequence, before, error)),
            }
        }
        Ok(logits)
    }

    fn run_chunk(&self, batch: Batch, sequence: &mut Sequence) -> Result<Vec<f32>> {
        let copies = batch.begin(&self.program, sequence)?;
        for part in &self.parts {
            match part {
                Part::Cpu(_, memory) => copies.iter().for_each(|copy| lock(memory).copy(copy)),
                Part::Gpu(part) => lock(&part.executor).copy_pages(&copies),
            }
        }
        let result = self.pieces(batch, sequence);
        batch.end(&self.program, sequence, result)
    }

    /// What a sequence holds on the devices, layer by layer, handed over one after the other.
    pub fn save(&self, sequence: &Sequence, mut keep: impl FnMut(&Holding, &[u8]) -> Result<()>) -> Result<()> {
        for holding in self.holdings(sequence) {
            let bytes = match &self.parts[holding.part] {
                Part::Cpu(_, memory) => lock(memory).read(holding.held, &holding.ids),
                Part::Gpu(part) => wait(&part.gpu, lock(&part.executor).read(holding.held, &holding.ids))?,
            };
            keep(&holding, &bytes)?;
        }
        Ok(())
    }

    /// Writes what was saved of a sequence that is alike: see [`Sequence::restore`].
    pub fn restore(&self, holding: &Holding, bytes: &[u8]) {
        match &self.parts[holding.part] {
            Part::Cpu(_, memory) => {
                let state = self.program.states.iter().find(|state| state.layer as u32 == holding.layer);
                lock(memory).write(holding.held, &holding.ids, bytes, state);
            }
            Part::Gpu(part) => lock(&part.executor).write(holding.held, &holding.ids, bytes),
        }
    }

    /// How many bytes those are.
    pub fn holding_bytes(&self, holding: &Holding) -> u64 {
        let count = holding.ids.len() as u64;
        count
            * match &self.parts[holding.part] {
                Part::Cpu(_, memory) => lock(memory).bytes_of(holding.held),
                Part::Gpu(part) => lock(&part.executor).bytes_of(holding.held),
            }
    }

    /// All that the devices hold of a sequence.
    pub fn holdings(&self, sequence: &Sequence) -> Vec<Holding> {
        let own = |part: usize| {
            let segments: Vec<Segment> =
                self.route.iter().filter(|(own, ..)| *own == part).map(|(.., segment)| segment.clone()).collect();
            self.program.cached_layers(&segments)
        };
        let own: Vec<_> = (0..self.parts.len()).map(own).collect();
        let holdings = sequence.holdings().into_iter().filter_map(|(layer, held, ids)| {
            let part = own.iter().position(|layers| layers.contains(&layer))?;
            let on_gpu = matches!(self.parts[part], Part::Gpu(_));
            Some(Holding { part, layer, on_gpu, held, ids })
        });
        holdings.collect()
    }

    /// Takes a batch through the segments, in pieces if devices can work side by side.
    fn pieces(&self, batch: Batch, sequence: &Sequence) -> Result<Vec<f32>> {
        let (piece_tokens, texts) = match self.program.purpose {
            Purpose::Embed => (usize::MAX, batch.texts), // texts are never cut
            Purpose::Generate => (if self.pipelined { PIECE_TOKENS } else { usize::MAX }, &[][..]),
        };
        let mut start = sequence.len();
        let piece = |(tokens, outputs): (_, Vec<usize>)| {
            let positions = Positions { sequence, start };
            start += <[u32]>::len(tokens) as u32;
            (tokens, outputs, positions, Mutex::default())
        };
        let pieces: Vec<(_, _, _, Mutex<Crossing>)> = batch.chunks(piece_tokens, usize::MAX).map(piece).collect();
        let workers: Vec<usize> = self.route.iter().map(|(part, ..)| *part).collect();
        let run = |piece: usize, stage: usize| {
            let (tokens, outputs, positions, crossing) = &pieces[piece];
            // Another batch may have been where a segment runs since the last one there.
            let begins = self.route[stage].1 == 0 || pieces.len() > 1;
            self.segment(stage, (Batch { tokens, outputs, texts }, *positions, begins), &mut lock(crossing))
        };
        match pieces.len() {
            1 => (0..workers.len()).try_for_each(|stage| run(0, stage))?,
            count => pipeline(count, &workers, run)?,
        }
        let mut logits = vec![];
        for (.., crossing) in &pieces {
            let rows = self.program.output.and_then(|output| lock(crossing).remove(&output));
            let rows = rows.map(Arc::unwrap_or_clone).unwrap_or_default();
            if logits.is_empty() { logits = rows } else { logits.extend(rows) }
        }
        Ok(logits)
    }

    /// Takes a batch through one segment.
    fn segment(
        &self,
        stage: usize,
        (batch, positions, begins): (Batch, Positions, bool),
        crossing: &mut Crossing,
    ) -> Result<()> {
        let (part, index, segment) = &self.route[stage];
        let given: Vec<_> = segment.given.iter().filter_map(|slot| crossing.get(slot).cloned()).collect();
        let rows: Vec<Arc<Vec<f32>>> = match &self.parts[*part] {
            Part::Cpu(executor, memory) => {
                executor.run_segment(*index, batch, positions, &mut lock(memory), (begins, &given))?
            }
            Part::Gpu(part) => {
                let mut executor = lock(&part.executor);
                let rows = wait(&part.gpu, executor.run_segment(*index, batch, positions, (begins, &given)))?;
                rows.into_iter().map(Arc::new).collect()
            }
        };
        crossing.extend(segment.wanted.iter().copied().zip(rows));
        Ok(())
    }
}

impl Making<'_> {
    /// The devices, loaded; an error says which GPU it is about.
    fn parts(&self, placement: &Placement) -> Result<Vec<(usize, Part)>, Refusal> {
        let segments = self.program.segments(&placement.devices(self.program));
        let own = |device| segments.iter().filter(move |segment| segment.device == device).cloned().collect::<Vec<_>>();
        let mut parts = vec![];
        for (index, gpu) in self.gpus.iter().enumerate() {
            let own = own(index + 1);
            if !own.is_empty() {
                parts.push((index + 1, self.gpu(gpu, own).map_err(|error| (Some(index), error))?));
            }
        }
        let own = own(0);
        if !own.is_empty() {
            parts.push((0, self.cpu(own).map_err(|error| (None, error))?));
        }
        Ok(parts)
    }

    fn cpu(&self, own: Vec<Segment>) -> Result<Part> {
        let mut how = ExecutorOptions { loading: self.loading.clone(), ..ExecutorOptions::default() };
        how.matrices = matrix_options(self.options);
        how.threads = self.options.threads.unwrap_or(how.threads);
        let layers = self.program.cached_layers(&own);
        let memory = PageMemory::of_layers(self.cache, &layers, self.options.cache_format)?;
        let executor = Executor::of_segments(self.file.clone(), self.program.clone(), own, how)?;
        Ok(Part::Cpu(Box::new(executor), Box::new(Mutex::new(memory))))
    }

    fn gpu(&self, gpu: &Gpu, own: Vec<Segment>) -> Result<Part> {
        let submit_budget = Duration::from_millis(self.options.submit_budget_ms.into());
        let how = GpuExecutorOptions { submit_budget, loading: self.loading.clone(), ..GpuExecutorOptions::default() };
        let (file, program, format) = (self.file.clone(), self.program.clone(), self.options.cache_format);
        let executor = wait(gpu, GpuExecutor::of_segments(gpu, file, program, own, self.cache, format, how))?;
        Ok(Part::Gpu(GpuPart {
            gpu: gpu.clone(),
            weight_bytes: executor.weight_bytes(),
            most_candidates: executor.most_candidates(),
            most_tokens: executor.chunk_tokens() as usize,
            most_outputs: executor.most_outputs(),
            executor: Box::new(Mutex::new(executor)),
        }))
    }

    fn engine(&self, parts: Vec<(usize, Part)>, placement: &Placement, plan: Plan) -> Engine {
        let mut seen = vec![0; parts.len()];
        let mut route = vec![];
        let segments = self.program.segments(&placement.devices(self.program));
        // A recurrent layer reads what one batch has left and writes what the next will read: its pieces are whole batches.
        let is_recurrent = !self.program.states.is_empty();
        let pipelined = parts.len() > 1 && !is_recurrent && !self.program.keeps_slots(&segments);
        for segment in segments {
            if let Some(part) = parts.iter().position(|(device, _)| *device == segment.device) {
                route.push((part, seen[part], segment));
                seen[part] += 1;
            }
        }
        let parts = parts.into_iter().map(|(_, part)| part).collect();
        let (program, cache, turn) = (self.program.clone(), self.cache.clone(), Mutex::new(()));
        Engine { program, cache, route, parts, pipelined, turn, plan }
    }
}

fn no_gpu() -> Error {
    Error::Gpu { subject: "step".into(), found: "a model that is not all on one GPU".into(), expected: "one".into() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
