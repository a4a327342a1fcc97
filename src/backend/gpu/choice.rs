//! Choosing on the device: the likeliest tokens of a step, and a guess at which of them the sampler will take.
//!
//! A whole vocabulary of logits is much to read back for one token. Where a sampler wants no more than the likeliest,
//! [`GpuExecutor::begin`] lets the device find these, and draw one of them as the sampler would. That one stays there:
//! the next step can begin with it, and be on its way while the host still waits for the first. The host's choice is
//! what counts; if it is another, the step that went ahead is forgotten.

use super::device::Gpu;
use super::draft::missing;
use super::executor::GpuExecutor;
use super::flight::{Copy, Flight, Landed};
use super::memory::buffer;
use super::readback::{Reading, wait_until};
use super::record::{Draft, Pipelines, Recording, Size};
use super::rows::{ArgmaxParams, DrawParams, Kernel, MOST_OF_A_ROW, TopKParams, View, outputs};
use super::slots::Slots;
use super::step::StepBuffers;
use crate::backend::batch::{Batch, Positions};
use crate::backend::candidates::{Choice, Draw, Input, Wanted};
use crate::cache::Sequence;
use crate::program::{Program, Rows, SlotId};
use crate::{Error, Result};
use wgpu::BufferUsages;

/// A step on its way.
pub struct Ticket {
    flight: Flight,
    reading: Reading,
    buffers: TicketBuffers,
    candidates: u32,
    size: Size,
}

/// Where a step leaves what is of use behind it.
#[derive(Debug)]
struct TicketBuffers {
    guess: wgpu::Buffer,
    target: wgpu::Buffer,
}

/// Where the guess is in what is read back, behind the candidates.
const GUESS_AT: u64 = MOST_OF_A_ROW as u64 * 8;

/// What is recorded to choose.
pub(super) struct Chooser {
    /// The likeliest token.
    best: Recording,
    /// The likeliest tokens, and one that is drawn of them.
    several: Recording,
    draw: wgpu::Buffer,
    candidates: wgpu::Buffer,
    guess: wgpu::Buffer,
    most: u32,
    /// Buffers of steps that are done.
    spare: Vec<TicketBuffers>,
}

impl Chooser {
    /// For the logits of a program.
    pub async fn new(
        gpu: &Gpu,
        pipelines: &Pipelines,
        program: &Program,
        output: SlotId,
        slots: &Slots,
        step: &StepBuffers,
    ) -> Result<Self> {
        let (row, view) = (outputs(Rows::Outputs), slots.view(output));
        let view = View { start: view.start, stride: view.stride };
        let width = program.slots[output.0].width as u32;
        let most = MOST_OF_A_ROW.min(width);
        let storage = async |what, pairs: u32| buffer(gpu, what, u64::from(pairs) * 8, BufferUsages::STORAGE).await;
        let candidates = storage("likeliest tokens", MOST_OF_A_ROW).await?;
        let draw = buffer(gpu, "draw", size_of::<Draw>() as u64, BufferUsages::UNIFORM).await?;
        let guess = storage("guess", 1).await?;

        let params = ArgmaxParams::new(row, width, view);
        let parts = storage("parts of rows", params.parts).await?;
        let [first, second] = params.kernels(1);
        let drafts = vec![
            draft(gpu, first, params, &[slots.buffer(output), &parts]),
            draft(gpu, second, params, &[&parts, &candidates]),
        ];
        let best = Recording::new(gpu, pipelines, &step.step, drafts).await?;

        let mut drafts = vec![];
        let mut source = slots.buffer(output).clone();
        let rounds = TopKParams::rounds(row, width, view, most, 1);
        let last = rounds.len() - 1;
        for (round, (params, kernel)) in rounds.into_iter().enumerate() {
            let kept = match round == last {
                true => candidates.clone(),
                false => storage("parts of rows", params.parts * params.k).await?,
            };
            drafts.push(draft(gpu, kernel, params, &[&source, &kept]));
            source = kept;
        }
        let params = DrawParams { candidates: most };
        drafts.push(draft(gpu, params.kernel(), params, &[&draw, &candidates, &guess]));
        let several = Recording::new(gpu, pipelines, &step.step, drafts).await?;
        // One step at hand, and one ahead.
        let spare = vec![TicketBuffers::new(gpu).await?, TicketBuffers::new(gpu).await?];
        Ok(Chooser { best, several, draw, candidates, guess, most, spare })
    }

    /// What finds the candidates, and draws one.
    fn recording(&self, wanted: Wanted) -> &Recording {
        if wanted.candidates == 1 && wanted.draw.is_none() { &self.best } else { &self.several }
    }

    /// What is kept of a step.
    fn copies<'a>(&'a self, wanted: Wanted, buffers: &'a TicketBuffers) -> [Copy<'a>; 3] {
        let copy = |(source, start), target, at, bytes| Copy { source, start, target, at, bytes };
        // The likeliest is the first candidate, whose token lies behind the bits of its logit.
        let guess = if wanted.draw.is_some() { (&self.guess, 0) } else { (&self.candidates, 4) };
        [
            copy(guess, &buffers.guess, 0, 4),
            copy(guess, &buffers.target, GUESS_AT, 4),
            copy((&self.candidates, 0), &buffers.target, 0, u64::from(wanted.candidates) * 8),
        ]
    }
}

impl TicketBuffers {
    async fn new(gpu: &Gpu) -> Result<Self> {
        Ok(TicketBuffers {
            guess: buffer(gpu, "guess of a step", 4, BufferUsages::empty()).await?,
            target: buffer(gpu, "choice of a step", GUESS_AT + 4, BufferUsages::MAP_READ).await?,
        })
    }
}

fn draft(gpu: &Gpu, kernel: Kernel, params: impl bytemuck::Pod, buffers: &[&wgpu::Buffer]) -> Draft {
    Draft::new(kernel.variant.for_gpu(gpu), params, buffers, move |_| kernel.groups)
}

impl GpuExecutor {
    /// How many candidates a step can give.
    pub fn most_candidates(&self) -> u32 {
        self.chooser.as_ref().map_or(0, |chooser| chooser.most)
    }

    /// Whether a step of one token is one submission: only then others may go ahead of what is known.
    pub fn is_short(&self) -> bool {
        self.lanes.iter().take(1).flatten().all(|lane| lane.is_short(Size { tokens: 1, outputs: 1 }))
    }

    /// Submits a step of at most as many tokens as run at once, and asks for candidates behind the last of them.
    ///
    /// The sequence has pages for these tokens then, and does not hold them: [`Sequence::commit`] makes it so, and
    /// [`Sequence::truncate`] to its own length gives them up.
    pub async fn begin(&mut self, input: Input<'_>, wanted: Wanted, sequence: &mut Sequence) -> Result<Ticket> {
        self.gpu.check()?;
        let tokens = match input {
            Input::Tokens(tokens) => tokens,
            Input::Guess(_) => &[0],
        };
        let batch = Batch { tokens, outputs: &[tokens.len().saturating_sub(1)], texts: &[] };
        let size = Size::of(batch);
        let lane = self.lane(size)?;
        let gpu = self.gpu.clone();
        let most = self.most_candidates();
        if !(1..=most).contains(&wanted.candidates) {
            let (found, expected) = (wanted.candidates.to_string(), format!("1 to {most}"));
            return Err(Error::Gpu { subject: "candidates".into(), found, expected });
        }
        let spare = self.chooser.as_mut().and_then(|chooser| chooser.spare.pop());
        let buffers = match spare {
            Some(buffers) => buffers,
            None => TicketBuffers::new(&gpu).await?,
        };
        let Some(chooser) = self.chooser.as_ref() else { return Err(missing()) };
        let (next, copies, draw) = (chooser.recording(wanted), chooser.copies(wanted, &buffers), &chooser.draw);
        let page_copies = batch.begin(&self.weights.program, sequence)?;
        let prepare = |encoder: &mut wgpu::CommandEncoder| {
            self.begin_step(encoder, batch, Positions::next(sequence), &page_copies);
            if let Input::Guess(ticket) = input {
                encoder.copy_buffer_to_buffer(&ticket.buffers.guess, 0, &self.step.ids, 0, 4);
            }
            if let Some(wanted) = wanted.draw {
                gpu.queue().write_buffer(draw, 0, bytemuck::bytes_of(&wanted));
            }
        };
        let [whole] = &self.lanes[lane][..] else { return Err(missing()) };
        match whole.submit(&gpu, size, prepare, Some(next), &copies).await {
            Ok(flight) => {
                let reading = Reading::start(&buffers.target, GUESS_AT + 4);
                Ok(Ticket { flight, reading, buffers, candidates: wanted.candidates, size })
            }
            Err(error) => {
                sequence.truncate(sequence.len())?;
                Err(error)
            }
        }
    }

    /// Gives up a step whose results nobody wants.
    pub fn forget(&mut self, ticket: Ticket) {
        // Takes back that it was to be read; what the step still writes comes before what others will.
        ticket.buffers.target.unmap();
        if let Some(chooser) = &mut self.chooser {
            chooser.spare.push(ticket.buffers);
        }
    }

    /// Keeps what a step that is done has used.
    pub fn end(&mut self, arrival: Arrival) {
        if let Some(chooser) = &mut self.chooser {
            chooser.spare.push(arrival.buffers);
        }
        if let Ok(lane) = self.lane(arrival.size) {
            self.lanes[lane].iter_mut().for_each(|whole| whole.learn(&arrival.landed));
        }
    }
}

/// What is left of a step that is done.
pub struct Arrival {
    buffers: TicketBuffers,
    landed: Landed,
    size: Size,
}

impl Ticket {
    /// Waits for what the step gave, and what [`GpuExecutor::end`] wants to have; not for steps that follow.
    pub fn wait(self, gpu: &Gpu) -> Result<(Choice, Arrival)> {
        let submission = self.flight.submission.clone();
        wait_until(gpu, &submission, self.finish(gpu))
    }

    /// The same for callers that are asynchronous, while somebody polls the device.
    pub async fn finish(self, gpu: &Gpu) -> Result<(Choice, Arrival)> {
        let Ticket { flight, reading, buffers, candidates, size } = self;
        let (bytes, landed) = flight.land(gpu, reading.finish(gpu)).await?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
        let guess = words.get(GUESS_AT as usize / 4).copied().unwrap_or_default();
        let pairs = words.as_chunks::<2>().0.iter().take(candidates as usize).filter(|[_, token]| *token != u32::MAX);
        let (logits, tokens) = pairs.map(|&[bits, token]| (f32::from_bits(bits), token)).unzip();
        Ok((Choice { tokens, logits, guess }, Arrival { buffers, landed, size }))
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({} candidates behind {:?})", self.candidates, self.size)
    }
}
