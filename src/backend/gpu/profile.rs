//! Where the time of a step goes: each dispatch in a pass of its own, between two timestamps.

use super::device::Gpu;
use super::memory::buffer;
use super::readback::read;
use super::record::{Recording, Size};
use crate::gguf::TensorType;
use crate::{Error, Result};
use std::fmt;
use wgpu::BufferUsages;

/// A product with a matrix of weights, or with a part of one that is larger than a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProductShape {
    /// How the weights are stored.
    pub kind: TensorType,
    /// Rows of the matrix, or of the part.
    pub rows: u32,
    /// Columns of the matrix.
    pub columns: u32,
    /// Whether only those tokens are multiplied whose logits are asked for.
    pub of_outputs: bool,
}

impl ProductShape {
    /// The multiplications and additions of a step.
    pub(super) fn flops(&self, size: Size) -> u64 {
        let tokens = if self.of_outputs { size.outputs } else { size.tokens };
        2 * u64::from(self.rows) * u64::from(self.columns) * u64::from(tokens)
    }
}

impl fmt::Display for ProductShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outputs = if self.of_outputs { ", outputs" } else { "" };
        write!(f, "{} {} x {}{outputs}", self.kind, self.rows, self.columns)
    }
}

/// What kernels of one shader, and of one shape where they are products, took in a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// The shader.
    pub name: &'static str,
    /// What it multiplies with.
    pub product: Option<ProductShape>,
    /// How often it ran.
    pub dispatches: usize,
    /// How long, in all.
    pub seconds: f64,
    /// Bytes of weights that it read.
    pub weight_bytes: u64,
    /// Multiplications and additions of products.
    pub flops: u64,
}

impl Timing {
    /// Gigabytes of weights a second, where there are weights.
    pub fn gb_per_s(&self) -> Option<f64> {
        self.a_second(self.weight_bytes)
    }

    /// Thousand millions of multiplications and additions a second, where there are products.
    pub fn gflop_per_s(&self) -> Option<f64> {
        self.a_second(self.flops)
    }

    fn a_second(&self, count: u64) -> Option<f64> {
        (count > 0 && self.seconds > 0.0).then(|| count as f64 / self.seconds / 1e9)
    }
}

/// The times of a step, longest first. Shown, it is a table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Profile {
    /// By shader and shape.
    pub timings: Vec<Timing>,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        let shape = |timing: &Timing| timing.product.map_or("-".into(), |product| product.to_string());
        let width = self.timings.iter().map(|timing| shape(timing).len()).max().unwrap_or(0).max(7);
        writeln!(
            f,
            "| kernel            | {:width$} | dispatches |         µs |  share |   GB/s |  GFLOP/s |\n\
             | ----------------- | {:-<width$} | ---------: | ---------: | -----: | -----: | -------: |",
            "weights", ""
        )?;
        for timing in self.timings.iter().chain([&total]) {
            let (micros, share) = (timing.seconds * 1e6, timing.seconds / total.seconds.max(1e-12) * 100.0);
            let speed = |speed: Option<f64>| speed.map_or("-".into(), |speed| format!("{speed:.1}"));
            writeln!(
                f,
                "| {:17} | {:width$} | {:10} | {micros:10.1} | {share:5.1}% | {:>6} | {:>8} |",
                timing.name,
                shape(timing),
                timing.dispatches,
                speed(timing.gb_per_s()),
                speed(timing.gflop_per_s()),
            )?;
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
        gpu.submit(Some(encoder.finish()));
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&read(gpu, &target, bytes).await?);
        let period = f64::from(gpu.queue().get_timestamp_period()) * 1e-9;
        for (costs, [start, end]) in recording.costs(size).skip(first).zip(stamps.as_chunks().0) {
            if let Some(costs) = costs {
                profile.add(Timing { seconds: end.saturating_sub(*start) as f64 * period, ..costs });
            }
        }
    }
    profile.timings.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(profile)
}

impl Profile {
    /// All kernels together.
    pub fn total(&self) -> Timing {
        let mut total = Timing { name: "all", product: None, dispatches: 0, seconds: 0.0, weight_bytes: 0, flops: 0 };
        self.timings.iter().for_each(|timing| total.add(timing));
        total
    }

    fn add(&mut self, timing: Timing) {
        let is_alike = |known: &&mut Timing| known.name == timing.name && known.product == timing.product;
        match self.timings.iter_mut().find(is_alike) {
            Some(known) => known.add(&timing),
            None => self.timings.push(timing),
        }
    }
}

impl Timing {
    fn add(&mut self, other: &Timing) {
        self.dispatches += other.dispatches;
        self.seconds += other.seconds;
        self.weight_bytes += other.weight_bytes;
        self.flops += other.flops;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_are_alike_are_added_up() {
        let product = |rows| ProductShape { kind: TensorType::Q4_0, rows, columns: 64, of_outputs: rows == 9 };
        let size = Size { tokens: 5, outputs: 1 };
        assert_eq!([8, 9].map(|rows| product(rows).flops(size)), [2 * 8 * 64 * 5, 2 * 9 * 64]);
        let timing = |product: Option<ProductShape>, seconds| Timing {
            name: "a.wgsl",
            product,
            dispatches: 1,
            seconds,
            weight_bytes: product.map_or(0, |product| u64::from(product.rows)),
            flops: product.map_or(0, |product| product.flops(size)),
        };
        let mut profile = Profile::default();
        for (product, seconds) in [(Some(product(8)), 1e-6), (Some(product(9)), 2e-6), (None, 3e-6), (None, 4e-6)] {
            profile.add(timing(product, seconds));
        }
        let found: Vec<_> = profile.timings.iter().map(|timing| (timing.dispatches, timing.weight_bytes)).collect();
        assert_eq!(found, [(1, 8), (1, 9), (2, 0)]);
        let total = profile.total();
        assert!((total.dispatches, total.flops) == (4, 5120 + 1152) && (total.seconds - 1e-5).abs() < 1e-12);
        let table = profile.to_string();
        let width = table.lines().next().unwrap().chars().count();
        assert!(table.lines().all(|line| line.chars().count() == width), "{table}");
        assert!(
            table.contains("| Q4_0 8 x 64          |          1 |        1.0 |  10.0% |    0.0 |      5.1 |"),
            "{table}"
        );
        assert!(table.lines().last().unwrap().contains("| all  "), "{table}");
    }
}
