//! Results back from the device.

use super::device::Gpu;
use crate::{Error, Result};
use futures::channel::oneshot;

/// The bytes of a buffer that has been mapped to be read, when the work that was submitted before is done.
///
/// On native devices somebody has to poll for the future to complete: [`wait`] does both.
pub async fn read(gpu: &Gpu, buffer: &wgpu::Buffer, bytes: u64) -> Result<Vec<u8>> {
    let slice = buffer.slice(..bytes);
    let (sender, receiver) = oneshot::channel();
    slice.map_async(wgpu::MapMode::Read, move |result| _ = sender.send(result));
    let failed = |found: String| Error::Gpu { subject: "reading a buffer".into(), found, expected: "its bytes".into() };
    gpu.hear(receiver).await?.map_err(|error| gpu.blame(failed(error.to_string())))?;
    let copy = slice.get_mapped_range().map_err(|error| failed(error.to_string()))?.to_vec();
    buffer.unmap();
    Ok(copy)
}

/// Waits for what a future asks of the device: for callers that are not asynchronous themselves.
pub fn wait<T>(gpu: &Gpu, future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        // Returns when everything submitted is done, and has then called the callbacks.
        gpu.poll(wgpu::PollType::wait_indefinitely());
    }
}
