//! Steps on their way: from what was recorded to what the device has done.

use super::device::Gpu;
use super::pace::{Moment, Pace, Sent};
use super::readback::hear_of;
use super::record::{Recording, Size};
use crate::{Error, Result};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, join, join_all};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The program, recorded for up to so many tokens, and how fast it goes.
pub struct Lane {
    /// The most tokens.
    pub tokens: u32,
    /// The program.
    pub recording: Recording,
    pace: Mutex<Pace>,
}

/// Bytes that are copied when a step is done.
pub struct Copy<'a> {
    /// From where.
    pub source: &'a wgpu::Buffer,
    /// The first byte there.
    pub start: u64,
    /// To where.
    pub target: &'a wgpu::Buffer,
    /// The first byte there.
    pub at: u64,
    /// How many.
    pub bytes: u64,
}

/// A step that was submitted.
pub struct Flight {
    /// The last of its submissions.
    pub submission: wgpu::SubmissionIndex,
    complaint: BoxFuture<'static, Option<wgpu::Error>>,
    works: Vec<f64>,
    /// Those that were not known to be done when the last was sent; that is one of them.
    pieces: VecDeque<Piece>,
}

/// A part of a step that was submitted by itself.
struct Piece {
    sent: Sent,
    /// What it is believed to take.
    seconds: f64,
    submission: wgpu::SubmissionIndex,
    done: oneshot::Receiver<Moment>,
}

impl Lane {
    /// With so much on its way at a time as takes about so long at most.
    pub fn new(tokens: u32, recording: Recording, budget: Duration) -> Self {
        // Behind the program stands what follows it, as if it were one dispatch.
        let pace = Mutex::new(Pace::new(budget, recording.len() + 1));
        Lane { tokens, recording, pace }
    }

    /// Whether two steps of this size can be on their way together.
    pub fn is_short(&self, size: Size) -> bool {
        let works = self.works(size, None);
        let pace = self.pace();
        pace.allows_both(2.0 * pace.seconds(&works, 0..works.len()))
    }

    fn works(&self, size: Size, next: Option<&Recording>) -> Vec<f64> {
        let next = next.map_or(0.0, |next| next.works(size).sum());
        self.recording.works(size).chain([next]).collect()
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Submits a step: what `begin` writes and encodes, the program, what was recorded to follow, and copies. Until the
    /// first submission, nothing waits.
    pub async fn submit(
        &self,
        gpu: &Gpu,
        size: Size,
        begin: impl FnOnce(&mut wgpu::CommandEncoder),
        next: Option<&Recording>,
        copies: &[Copy<'_>],
    ) -> Result<Flight> {
        let fresh = || gpu.device().create_command_encoder(&Default::default());
        let (encoder, complaint) = observed(gpu, || {
            let mut encoder = fresh();
            begin(&mut encoder);
            encoder
        });
        let works = self.works(size, next);
        let cuts = {
            let mut pace = self.pace();
            pace.go_alone(gpu.submits_alone());
            pace.pieces(&works)
        };
        let (mut encoder, mut complaints, mut pieces) = (Some(encoder), vec![complaint], VecDeque::new());
        for dispatches in cuts {
            let seconds = self.pace().seconds(&works, dispatches.clone());
            self.make_room(gpu, seconds, &works, &mut pieces).await?;
            let is_last = dispatches.end == works.len();
            let ((submission, sent, done), complaint) = observed(gpu, || {
                let mut encoder = encoder.take().unwrap_or_else(fresh);
                self.recording.encode(&mut encoder, dispatches.start..dispatches.end.min(self.recording.len()), size);
                if is_last {
                    finish(&mut encoder, next, size, copies);
                }
                let (done, hears) = oneshot::channel();
                let sent = self.pace().send(dispatches);
                let submission = gpu.submit(Some(encoder.finish()));
                gpu.queue().on_submitted_work_done(move || _ = done.send(Moment::now()));
                (submission, sent, hears)
            });
            complaints.push(complaint);
            pieces.push_back(Piece { sent, seconds, submission, done });
        }
        let submission = pieces.back().map(|piece| piece.submission.clone()).ok_or_else(|| Error::Gpu {
            subject: "step".into(),
            found: "nothing that was submitted".into(),
            expected: "one piece or more".into(),
        })?;
        let complaint = join_all(complaints).map(|all| all.into_iter().flatten().next()).boxed();
        Ok(Flight { submission, complaint, works, pieces })
    }

    /// Waits until so many seconds of work may be sent: behind one piece at most, and one that leaves time for it.
    async fn make_room(&self, gpu: &Gpu, seconds: f64, works: &[f64], pieces: &mut VecDeque<Piece>) -> Result<()> {
        while let Some(first) = pieces.front()
            && (pieces.len() > 1 || !self.pace().allows_both(first.seconds + seconds))
            && let Some(Piece { sent, submission, done, .. }) = pieces.pop_front()
        {
            let done = hear_of(gpu, &submission, done).await?;
            self.pace().learn(works, &sent, done);
        }
        Ok(())
    }

    /// Learns from a flight that has just landed.
    pub fn learn(&mut self, flight: &Landed) {
        let pace = self.pace.get_mut().unwrap_or_else(PoisonError::into_inner);
        flight.pieces.iter().for_each(|(sent, done)| pace.learn(&flight.works, sent, *done));
    }
}

/// Encodes what comes behind the program.
fn finish(encoder: &mut wgpu::CommandEncoder, next: Option<&Recording>, size: Size, copies: &[Copy<'_>]) {
    if let Some(next) = next {
        next.encode(encoder, 0..next.len(), size);
    }
    for Copy { source, start, target, at, bytes } in copies {
        encoder.copy_buffer_to_buffer(source, *start, target, *at, *bytes);
    }
}

/// A step that is done.
#[derive(Debug)]
pub struct Landed {
    works: Vec<f64>,
    /// Its pieces that were not learned from, and when they were done.
    pieces: Vec<(Sent, Moment)>,
}

impl Flight {
    /// What is read when the step is done, or what went wrong.
    pub async fn land<T>(self, gpu: &Gpu, reading: impl Future<Output = Result<T>>) -> Result<(T, Landed)> {
        let (complaint, result) = join(self.complaint, reading).await;
        if let Some(error) = complaint {
            let (found, expected) = (error.to_string(), "what the device accepts".into());
            return Err(gpu.blame(Error::Gpu { subject: "step".into(), found, expected }));
        }
        let result = result?;
        let now = Moment::now();
        let landed = self.pieces.into_iter().map(|mut piece| {
            // One that nobody told about can have been done at any time.
            let done = piece.done.try_recv().ok().flatten().unwrap_or(now);
            (piece.sent, done)
        });
        Ok((result, Landed { works: self.works, pieces: landed.collect() }))
    }
}

/// Does something on the device, and tells later what that says. Scopes are closed in the order that they are opened in, so
/// nothing may wait within one.
fn observed<T>(gpu: &Gpu, act: impl FnOnce() -> T) -> (T, BoxFuture<'static, Option<wgpu::Error>>) {
    let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
    let result = act();
    (result, scope.pop().boxed())
}
