//! Where the time of a step goes: each dispatch in a pass of its own, between two timestamps.

use super::device::Gpu;
use super::memory::buffer;
use super::readback::read;
use super::record::{Recording, Size};
use crate::{Error, Result};
use std::fmt;
use wgpu::BufferUsages;

/// What kernels of one shader took in a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// The shader.
    pub name: &'static str,
    /// How often it ran.
    pub dispatches: usize,
    /// How long, in all.
    pub seconds: f64,
    /// Bytes of weights that it read.
    pub weight_bytes: u64,
}

/// The times of a step, longest first. Shown, it is a table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Profile {
    /// By shader.
    pub timings: Vec<Timing>,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| kernel             | dispatches |         µs | share |  GB/s |")?;
        writeln!(f, "| ------------------ | ---------: | ---------: | ----: | ----: |")?;
        let total: f64 = self.timings.iter().map(|timing| timing.seconds).sum();
        for Timing { name, dispatches, seconds, weight_bytes } in &self.timings {
            let (micros, share) = (seconds * 1e6, seconds / total * 100.0);
            let speed = match weight_bytes {
                0 => "-".into(),
                bytes => format!("{:.1}", *bytes as f64 / seconds / 1e9),
            };
            writeln!(f, "| {name:18} | {dispatches:10} | {micros:10.1} | {share:4.1}% | {speed:>5} |")?;
        }
        Ok(())
    }
}

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
        gpu.queue().submit([encoder.finish()]);
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&read(gpu, &target, bytes).await?);
        let period = f64::from(gpu.queue().get_timestamp_period()) * 1e-9;
        for ((name, weight_bytes), [start, end]) in recording.costs().skip(first).zip(stamps.as_chunks().0) {
            profile.add(name, end.saturating_sub(*start) as f64 * period, weight_bytes);
        }
    }
    profile.timings.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(profile)
}

impl Profile {
    fn add(&mut self, name: &'static str, seconds: f64, weight_bytes: u64) {
        match self.timings.iter_mut().find(|timing| timing.name == name) {
            Some(timing) => {
                timing.dispatches += 1;
                timing.seconds += seconds;
                timing.weight_bytes += weight_bytes;
            }
            None => self.timings.push(Timing { name, dispatches: 1, seconds, weight_bytes }),
        }
    }
}
