//! Steps on their way: from what was recorded to what the device has done.

use super::device::Gpu;
use super::pace::{Moment, Pace};
use super::record::{Recording, Size};
use crate::{Error, Result};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, join, join_all};
use std::time::Duration;

/// The program, recorded for up to so many tokens, and how fast it goes.
pub struct Lane {
    /// The most tokens.
    pub tokens: u32,
    /// The segments of the program.
    pub recordings: Vec<Recording>,
    pace: Pace,
    /// When a step was last found to be done.
    last: Option<Moment>,
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
    work: f64,
    sent: Moment,
}

impl Lane {
    /// For submissions that take about so long at most.
    pub fn new(tokens: u32, recordings: Vec<Recording>, budget: Duration) -> Self {
        Lane { tokens, recordings, pace: Pace::new(budget), last: None }
    }

    /// Whether a step of this size is one submission.
    pub fn is_short(&self, size: Size) -> bool {
        self.pace.fits(self.recordings.iter().flat_map(|recording| recording.works(size)).sum())
    }

    /// Submits a segment: what `begin` writes and encodes, the segment, what was recorded to follow, and copies. Until the
    /// first submission, nothing waits.
    pub async fn submit(
        &self,
        gpu: &Gpu,
        recording: &Recording,
        size: Size,
        begin: impl FnOnce(&mut wgpu::CommandEncoder),
        next: Option<&Recording>,
        copies: &[Copy<'_>],
    ) -> Result<Flight> {
        let sent = Moment::now();
        let fresh = || gpu.device().create_command_encoder(&Default::default());
        let (mut encoder, complaint) = observed(gpu, || {
            let mut encoder = fresh();
            begin(&mut encoder);
            encoder
        });
        let pieces = self.pace.pieces(recording.works(size));
        let (mut complaints, mut before) = (vec![complaint], None);
        for piece in pieces.iter().take(pieces.len() - 1) {
            let (done, hears) = oneshot::channel();
            let (_, complaint) = observed(gpu, || {
                recording.encode(&mut encoder, piece.clone(), size);
                let full = std::mem::replace(&mut encoder, fresh());
                let submission = gpu.queue().submit([full.finish()]);
                gpu.queue().on_submitted_work_done(move || _ = done.send(()));
                submission
            });
            complaints.push(complaint);
            if let Some(earlier) = before.replace(hears) {
                gpu.hear(earlier).await?;
            }
        }
        let last = pieces.last().cloned().unwrap_or(0..0);
        let (submission, complaint) = observed(gpu, || {
            recording.encode(&mut encoder, last, size);
            if let Some(next) = next {
                next.encode(&mut encoder, 0..next.len(), size);
            }
            for Copy { source, start, target, at, bytes } in copies {
                encoder.copy_buffer_to_buffer(source, *start, target, *at, *bytes);
            }
            gpu.queue().submit([encoder.finish()])
        });
        complaints.push(complaint);
        let complaint = join_all(complaints).map(|all| all.into_iter().flatten().next()).boxed();
        Ok(Flight { submission, complaint, work: recording.works(size).sum(), sent })
    }

    /// Learns from a flight that has just landed. One that was sent before another had landed did not begin until then.
    pub fn learn(&mut self, flight: &Landed) {
        let since = [Some(flight.sent), self.last.replace(Moment::now())].into_iter().flatten().map(Moment::seconds);
        self.pace.learn(flight.work, since.flatten().reduce(f64::min));
    }
}

/// A step that is done.
#[derive(Debug, Clone, Copy)]
pub struct Landed {
    work: f64,
    sent: Moment,
}

impl Flight {
    /// What is read when the step is done, or what went wrong.
    pub async fn land<T>(self, gpu: &Gpu, reading: impl Future<Output = Result<T>>) -> Result<(T, Landed)> {
        let (complaint, result) = join(self.complaint, reading).await;
        if let Some(error) = complaint {
            let (found, expected) = (error.to_string(), "what the device accepts".into());
            return Err(gpu.blame(Error::Gpu { subject: "step".into(), found, expected }));
        }
        Ok((result?, Landed { work: self.work, sent: self.sent }))
    }
}

/// Does something on the device, and tells later what that says. Scopes are closed in the order that they are opened in, so
/// nothing may wait within one.
fn observed<T>(gpu: &Gpu, act: impl FnOnce() -> T) -> (T, BoxFuture<'static, Option<wgpu::Error>>) {
    let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
    let result = act();
    (result, scope.pop().boxed())
}
