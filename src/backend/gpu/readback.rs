//! Results back from the device.

use super::device::Gpu;
use crate::{Error, Result};
use futures::channel::oneshot;
use std::time::Duration;

/// The bytes of a buffer that has been mapped to be read, when the work that was submitted before is done.
///
/// On native devices somebody has to poll for the future to complete: [`wait`] does both.
pub async fn read(gpu: &Gpu, buffer: &wgpu::Buffer, bytes: u64) -> Result<Vec<u8>> {
    Reading::start(buffer, bytes).finish(gpu).await
}

/// The same in two steps: the bytes of a buffer, asked for when what fills it has been submitted, and there later.
#[derive(Debug)]
pub struct Reading {
    buffer: wgpu::Buffer,
    bytes: u64,
    mapped: oneshot::Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
}

impl Reading {
    /// Asks for the first so many bytes.
    pub fn start(buffer: &wgpu::Buffer, bytes: u64) -> Self {
        let (sender, mapped) = oneshot::channel();
        buffer.slice(..bytes).map_async(wgpu::MapMode::Read, move |result| _ = sender.send(result));
        Reading { buffer: buffer.clone(), bytes, mapped }
    }

    /// The bytes, when they are there.
    pub async fn finish(self, gpu: &Gpu) -> Result<Vec<u8>> {
        let failed =
            |found: String| Error::Gpu { subject: "reading a buffer".into(), found, expected: "its bytes".into() };
        gpu.hear(self.mapped).await?.map_err(|error| gpu.blame(failed(error.to_string())))?;
        let slice = self.buffer.slice(..self.bytes);
        // The device may have gone since.
        let copy = slice.get_mapped_range().map_err(|error| gpu.blame(failed(error.to_string())))?.to_vec();
        self.buffer.unmap();
        Ok(copy)
    }
}

/// The same for callers that are asynchronous, while nobody polls the device for them.
pub(super) async fn read_polling(gpu: &Gpu, buffer: &wgpu::Buffer, bytes: u64) -> Result<Vec<u8>> {
    let reading = Reading::start(buffer, bytes).finish(gpu);
    #[cfg(not(target_family = "wasm"))]
    return wait(gpu, reading);
    // The browser polls.
    #[cfg(target_family = "wasm")]
    reading.await
}

/// What a callback sends when a submission is done, for callers that are asynchronous, while nobody polls for them.
pub(super) async fn hear_of<T>(
    gpu: &Gpu,
    submission: &wgpu::SubmissionIndex,
    receiver: oneshot::Receiver<T>,
) -> Result<T> {
    #[cfg(not(target_family = "wasm"))]
    return wait_until(gpu, submission, gpu.hear(receiver));
    #[cfg(target_family = "wasm")]
    gpu.hear(receiver).await
}

/// Waits for what a future asks of the device: for callers that are not asynchronous themselves.
pub fn wait<T>(gpu: &Gpu, future: impl Future<Output = T>) -> T {
    wait_as(gpu, future, wgpu::PollType::wait_indefinitely)
}

/// The same where the future asks for no more than one submission and those before it, while others may follow.
pub(super) fn wait_until<T>(gpu: &Gpu, submission: &wgpu::SubmissionIndex, future: impl Future<Output = T>) -> T {
    wait_as(gpu, future, || wgpu::PollType::Wait { submission_index: Some(submission.clone()), timeout: None })
}

fn wait_as<T>(gpu: &Gpu, future: impl Future<Output = T>, how: impl Fn() -> wgpu::PollType) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut pauses = Pauses::default();
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        // Has called the callbacks of what is done, when it returns.
        gpu.await_work(how(), &mut pauses);
    }
}

/// Pauses between questions whether work is done: none at first, then an eighth of what they have taken so far, so that
/// they add little to it.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    count: u32,
    total: Duration,
}

impl Pauses {
    const SPINS: u32 = 32;
    const SHORTEST: Duration = Duration::from_micros(50);
    const LONGEST: Duration = Duration::from_micros(500);

    /// Lets some time go by; none in a browser, where nothing may wait, though it is counted there, too.
    pub fn pause(&mut self) {
        self.count = self.count.saturating_add(1);
        if self.count > Self::SPINS {
            let pause = (self.total / 8).clamp(Self::SHORTEST, Self::LONGEST);
            self.total += pause;
            #[cfg(not(target_family = "wasm"))]
            std::thread::sleep(pause);
        }
    }

    /// How long they were meant to be together.
    pub fn total(&self) -> Duration {
        self.total
    }
}
