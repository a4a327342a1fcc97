//! What a device is and what of it is in use, for people to read.

use super::device::Gpu;
use super::tiers::Tier;
use std::fmt;
use std::ops::RangeInclusive;

/// Whether a tier is in use, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TierState {
    /// It is: the device has it, and the self-check found nothing wrong.
    On,
    /// The device does not have it, or kiln knows that it is slow there.
    NotOffered,
    /// The device has it, but [`GpuOptions::without`](super::GpuOptions::without) names it.
    TurnedOff,
    /// The device has it, but the self-check found this.
    Dropped(String),
}

impl fmt::Display for TierState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TierState::On => write!(f, "on"),
            TierState::NotOffered => write!(f, "not offered by the device"),
            TierState::TurnedOff => write!(f, "turned off by options"),
            TierState::Dropped(reason) => write!(f, "dropped by the self-check: {reason}"),
        }
    }
}

/// What [`Gpu::report`] says. Printed, it is a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The adapter's name.
    pub adapter: String,
    /// The driver's name and version, as far as it tells.
    pub driver: String,
    /// What the device is reached through.
    pub backend: wgpu::Backend,
    /// Its kind.
    pub device_type: wgpu::DeviceType,
    /// All tiers, in order.
    pub tiers: Vec<(Tier, TierState)>,
    /// The lanes that a subgroup may have, if subgroups are in use.
    pub subgroup_lanes: Option<RangeInclusive<u32>>,
    /// The most bytes that go into one binding.
    pub binding_bytes: u64,
    /// The most bytes of a buffer.
    pub buffer_bytes: u64,
    /// The memory of a workgroup that the device has. Kernels take no more than plain WebGPU grants.
    pub workgroup_bytes: u32,
    /// Whether shaders keep their checks of bounds and loops.
    pub checked: bool,
}

impl Report {
    pub(super) fn new(gpu: &Gpu, tiers: &[(Tier, TierState)]) -> Self {
        let (info, limits) = (gpu.info(), gpu.device().limits());
        Report {
            adapter: info.name.clone(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().into(),
            backend: info.backend,
            device_type: info.device_type,
            tiers: tiers.to_vec(),
            subgroup_lanes: gpu.largest_subgroup().map(|largest| info.subgroup_min_size.min(largest)..=largest),
            binding_bytes: gpu.binding_bytes(),
            buffer_bytes: limits.max_buffer_size,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            checked: gpu.checked(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &dyn fmt::Display, value: &dyn fmt::Display| writeln!(f, "{name:20} {value}");
        line(&"adapter", &self.adapter)?;
        line(&"driver", &self.driver)?;
        let kind = match self.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "emulated by the processor",
            wgpu::DeviceType::Other => "of an unknown kind",
        };
        line(&"reached through", &format_args!("{:?}, {kind}", self.backend))?;
        for (tier, state) in &self.tiers {
            line(tier, state)?;
        }
        if let Some(lanes) = &self.subgroup_lanes {
            line(&"subgroup lanes", &format_args!("{} to {}", lanes.start(), lanes.end()))?;
        }
        line(&"largest binding", &Bytes(self.binding_bytes))?;
        line(&"largest buffer", &Bytes(self.buffer_bytes))?;
        line(&"workgroup memory", &Bytes(self.workgroup_bytes.into()))?;
        line(&"checks in shaders", &if self.checked { "on" } else { "off" })
    }
}

/// A size in the largest unit that it has at least one of.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["bytes", "KiB", "MiB", "GiB"];
        let power = (self.0.max(1).ilog2() as usize / 10).min(UNITS.len() - 1);
        let value = self.0 as f64 / (1u64 << (10 * power)) as f64;
        // Limits of one less than a power of two are the rule.
        write!(f, "{} {}", (value * 10.0).round() / 10.0, UNITS.get(power).unwrap_or(&"bytes"))
    }
}
