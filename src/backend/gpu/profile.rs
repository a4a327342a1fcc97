//! Where the time of a step goes: each dispatch in a pass of its own, between two timestamps.

use super::device::Gpu;
use super::memory::buffer;
use super::readback::read;
use super::record::{Recording, Size};
pub use crate::backend::profile::{ProductShape, Profile, Timing};
use crate::{Error, Result};
use wgpu::BufferUsages;

/// Queries that a set may have on any device.
const MOST_QUERIES: u32 = 4096;

/// Runs a recording once and times it. What the step needs must have been written.
pub(super) async fn profile(gpu: &Gpu, recording: &Recording, size: Size) -> Result<Profile> {
    if !gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
        return Err(Error::Gpu {
            subject: gpu.info().name.clone(),
            found: "no timestamps".into(),
            expected: "a device that can time its work".into(),
        });
    }
    let mut profile = Profile::default();
    for first in (0..recording.len()).step_by(MOST_QUERIES as usize / 2) {
        let count = (recording.len() - first).min(MOST_QUERIES as usize / 2);
        let (queries, bytes) = (count as u32 * 2, count as u64 * 16);
        let set = gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("profile"),
            ty: wgpu::QueryType::Timestamp,
            count: queries,
        });
        let resolved = buffer(gpu, "timestamps", bytes, BufferUsages::QUERY_RESOLVE).await?;
        let target = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("timestamps"),
            size: bytes,
            usage: BufferUsages::COPY_DST | BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        for index in 0..count {
            recording.encode_timed(&mut encoder, first + index, size, (&set, 2 * index as u32));
        }
        encoder.resolve_query_set(&set, 0..queries, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &target, 0, bytes);
        gpu.submit(Some(encoder.finish()));
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&read(gpu, &target, bytes).await?);
        let period = f64::from(gpu.queue().get_timestamp_period()) * 1e-9;
        for (costs, [start, end]) in recording.costs(size).skip(first).zip(stamps.as_chunks().0) {
            if let Some(costs) = costs {
                profile.add(Timing { seconds: end.saturating_sub(*start) as f64 * period, ..costs });
            }
        }
    }
    profile.sort();
    Ok(profile)
}
