//! Tiers: what a device can do beyond plain WebGPU, each of which makes something faster and none of which is needed.

use std::fmt;

/// Something that a device can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Sums and maxima over the lanes that run together, however many those are.
    Subgroups,
    /// 16-bit floating-point numbers in shaders. They are stored and multiplied, never added up.
    F16,
    /// Products of four bytes with four bytes in one instruction.
    Dot,
    /// Units that multiply matrices of 16 by 16 numbers. Experimental in wgpu, so only where
    /// [`GpuOptions::matrices`](super::GpuOptions::matrices) asks for it.
    Matrix,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Tier::Subgroups => "subgroups",
            Tier::F16 => "f16",
            Tier::Dot => "packed dot products",
            Tier::Matrix => "matrix units",
        })
    }
}

/// A set of tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tiers {
    bits: u8,
}

/// All tiers, in order.
pub const TIERS: [Tier; 4] = [Tier::Subgroups, Tier::F16, Tier::Dot, Tier::Matrix];

impl Tiers {
    /// No tier: plain WebGPU.
    pub const NONE: Tiers = Tiers { bits: 0 };
    /// All there are.
    pub const ALL: Tiers = Tiers { bits: 15 };

    /// What a device has; `matrices` are the sizes that its adapter multiplies.
    pub(super) fn of(
        device: &wgpu::Device,
        info: &wgpu::AdapterInfo,
        matrices: &[wgpu::CooperativeMatrixProperties],
    ) -> Self {
        let features = device.features();
        let mut tiers = Tiers::NONE;
        if features.contains(wgpu::Features::SUBGROUP) && info.subgroup_min_size >= 4 {
            tiers = tiers.with(Tier::Subgroups);
        }
        if features.contains(wgpu::Features::SHADER_F16) {
            tiers = tiers.with(Tier::F16);
        }
        // Every device computes these products; Apple's only by parts, which is slower than not using them.
        if Self::multiplies_bytes(info) {
            tiers = tiers.with(Tier::Dot);
        }
        // The kernel is for one size of matrices, and for subgroups of one size; elsewhere wgpu's way there has gaps.
        use wgpu::CooperativeScalarType::{F16, F32};
        let is_known = |matrix: &wgpu::CooperativeMatrixProperties| {
            [matrix.m_size, matrix.n_size, matrix.k_size] == [16; 3] && (matrix.ab_type, matrix.cr_type) == (F16, F32)
        };
        let is_vulkan = info.backend == wgpu::Backend::Vulkan;
        let is_one_size = info.subgroup_min_size == info.subgroup_max_size && info.subgroup_max_size <= 64;
        if features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
            && is_vulkan
            && is_one_size
            && tiers.has(Tier::Subgroups)
            && tiers.has(Tier::F16)
            && matrices.iter().any(is_known)
        {
            tiers = tiers.with(Tier::Matrix);
        }
        tiers
    }

    /// Whether packed dot products are more than a way to write what a device does by single numbers.
    pub(super) fn multiplies_bytes(info: &wgpu::AdapterInfo) -> bool {
        info.backend != wgpu::Backend::Metal
    }

    /// With one more.
    #[must_use]
    pub const fn with(self, tier: Tier) -> Self {
        Tiers { bits: self.bits | 1 << tier as u8 }
    }

    /// Those that are not among `others`.
    #[must_use]
    pub const fn without(self, others: Tiers) -> Self {
        Tiers { bits: self.bits & !others.bits }
    }

    /// Whether a tier is among them.
    pub const fn has(self, tier: Tier) -> bool {
        self.bits >> tier as u8 & 1 == 1
    }
}

impl fmt::Display for Tiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plain WebGPU")?;
        TIERS.iter().filter(|&&tier| self.has(tier)).try_for_each(|tier| write!(f, ", {tier}"))
    }
}
