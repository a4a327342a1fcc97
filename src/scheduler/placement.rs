//! Which step runs where: on the CPU, or on one of the GPUs.
//!
//! Layers go to GPUs in runs, from the first on, the largest GPU first. Whether a run fits is not estimated by rules of
//! thumb: its needs are added up by the same plan that would load it.

use super::plan::{Plan, PlanPart};
use crate::backend::cpu;
use crate::backend::cpu::matrix::MatrixOptions;
use crate::backend::gpu::Traits;
use crate::backend::needs::Needs;
use crate::cache::{Cache, CacheFormat};
use crate::options::{LoadOptions, Offload, OnCpu, TensorClass};
use crate::program::{Op, Program, Step};
use crate::{Error, Result};
use std::iter;
use std::ops::Range;

/// What is known of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// What its needs depend on.
    pub traits: Traits,
    /// Bytes that it can give.
    pub free_bytes: u64,
    /// The most layers to put there: fewer than all after a try that found no room.
    pub most_layers: usize,
}

/// What layers are placed by.
#[derive(Debug, Clone, Copy)]
pub struct Sites<'a> {
    /// What is to be placed.
    pub program: &'a Program,
    /// Its cache.
    pub cache: &'a Cache,
    /// How keys and values are kept.
    pub format: CacheFormat,
    /// The GPUs; those with the most room are filled first.
    pub gpus: &'a [Site],
}

/// Where the steps of a program run. Devices are numbers: 0 is the CPU, the others are GPUs, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Of each layer.
    pub layers: Vec<usize>,
    /// Of what comes before the first layer.
    pub embedding: usize,
    /// Of what comes behind the last.
    pub head: usize,
    on_cpu: Vec<OnCpu>,
}

impl Placement {
    /// Places a program. `on_cpu` is what stays in system memory in any case.
    ///
    /// # Errors
    /// If ranges overlap, or name layers or GPUs that there are not.
    pub fn new(sites: Sites, offload: &Offload, on_cpu: &[OnCpu]) -> Result<Self> {
        let layers = sites.program.layers;
        let mut placement = Placement { layers: vec![0; layers], embedding: 0, head: 0, on_cpu: on_cpu.to_vec() };
        match offload {
            Offload::None => {}
            Offload::Auto { reserve_bytes } => placement.fill(sites, layers, Some(*reserve_bytes)),
            Offload::All => placement.fill(sites, layers, None),
            Offload::Layers(count) => placement.fill(sites, layers.min(*count as usize), None),
            Offload::Ranges(ranges) => placement.take_ranges(sites, ranges)?,
        }
        Ok(placement)
    }

    /// The device of each step.
    pub fn devices(&self, program: &Program) -> Vec<usize> {
        let (first, _) = layer_steps(program);
        let device = |(at, step): (usize, &Step)| match step.layer {
            Some(layer) => self.layers.get(layer).copied().unwrap_or(0),
            None => {
                if at < first {
                    self.embedding
                } else {
                    self.head
                }
            }
        };
        let mut devices: Vec<usize> = program.steps.iter().enumerate().map(device).collect();
        for OnCpu { class, from_layer } in &self.on_cpu {
            for steps in steps_of(program, *class, *from_layer as usize) {
                devices[steps].fill(0);
            }
        }
        // Keys and values are where they are written: layers that only read them send their queries there.
        for (at, step) in program.steps.iter().enumerate() {
            if let Op::Attend { over, .. } = step.op {
                let is_store = |step: &Step| matches!(step.op, Op::Store { to, .. } if to == over);
                let store = program.steps.iter().position(is_store);
                devices[at] = store.map_or(devices[at], |store| devices[store]);
            }
        }
        devices
    }

    /// What a GPU needs, by this placement.
    pub fn needs(&self, sites: Sites, gpu: usize) -> Result<Needs> {
        let Sites { program, cache, format, gpus } = sites;
        let mut segments = program.segments(&self.devices(program));
        segments.retain(|segment| segment.device == gpu + 1);
        if segments.is_empty() {
            return Ok(Needs::default());
        }
        gpus[gpu].traits.needs(program, &segments, cache, format, cache.limits().chunk_tokens)
    }

    /// Who gets what, and what that takes.
    pub fn plan(&self, sites: Sites, options: &LoadOptions, reasons: Vec<String>) -> Result<Plan> {
        let gpu_layers = self.layers.iter().filter(|device| **device != 0).count();
        let context_tokens = sites.cache.limits().context_tokens;
        Ok(Plan { context_tokens, gpu_layers, parts: self.parts(sites, options)?, reasons })
    }

    fn parts(&self, sites: Sites, options: &LoadOptions) -> Result<Vec<PlanPart>> {
        let program = sites.program;
        let devices = self.devices(program);
        let mut parts = vec![];
        for device in (1..=sites.gpus.len()).chain([0]).filter(|device| devices.contains(device)) {
            let (name, needs, free_bytes) = match device.checked_sub(1) {
                Some(gpu) => {
                    let site = &sites.gpus[gpu];
                    (site.name.clone(), self.needs(sites, gpu)?, Some(site.free_bytes))
                }
                None => ("CPU".into(), self.cpu_needs(sites, options)?, None),
            };
            let Needs { weight_bytes, cache_bytes, scratch_bytes } = needs;
            let what = self.describe(&devices, program, device);
            parts.push(PlanPart { device: name, what, weight_bytes, cache_bytes, scratch_bytes, free_bytes });
        }
        Ok(parts)
    }

    /// What the CPU needs, by this placement.
    fn cpu_needs(&self, sites: Sites, options: &LoadOptions) -> Result<Needs> {
        let Sites { program, cache, format, .. } = sites;
        let mut segments = program.segments(&self.devices(program));
        segments.retain(|segment| segment.device == 0);
        cpu::needs::needs(program, &segments, cache, format, matrix_options(options))
    }

    /// What runs on a device, in words.
    fn describe(&self, devices: &[usize], program: &Program, device: usize) -> String {
        let mut words = vec![];
        let is_here = |mut steps: Range<usize>| steps.any(|at| devices[at] == device);
        let (first, end) = layer_steps(program);
        if is_here(0..first) {
            words.push("embedding".to_owned());
        }
        let mut runs: Vec<(usize, usize, bool)> = vec![];
        for layer in 0..program.layers {
            let of_layer = || program.steps.iter().zip(devices).filter(move |(step, _)| step.layer == Some(layer));
            let here = of_layer().filter(|(_, own)| **own == device).count();
            let whole = here == of_layer().count();
            match runs.last_mut() {
                _ if here == 0 => {}
                Some((_, last, kind)) if *last + 1 == layer && *kind == whole => *last = layer,
                _ => runs.push((layer, layer, whole)),
            }
        }
        for (first, last, whole) in runs {
            let parts = if whole { "" } else { "parts of " };
            words.push(if first == last {
                format!("{parts}layer {first}")
            } else {
                format!("{parts}layers {first} to {last}")
            });
        }
        if is_here(end..devices.len()) {
            words.push("head".to_owned());
        }
        words.join(", ")
    }

    /// Puts the first `count` layers onto GPUs, one after the other, as many on each as fit; without a reserve, the last
    /// one takes what is left.
    fn fill(&mut self, sites: Sites, count: usize, reserve_bytes: Option<u64>) {
        let (mut at, all) = (0, self.layers.len());
        let mut order: Vec<usize> = (0..sites.gpus.len()).collect();
        order.sort_by_key(|&gpu| std::cmp::Reverse(sites.gpus[gpu].free_bytes));
        let last = order.last().copied();
        for gpu in order {
            let (most, is_last) = (sites.gpus[gpu].most_layers.min(count - at), Some(gpu) == last);
            let fits = |placement: &Placement| {
                let free_bytes = sites.gpus[gpu].free_bytes.saturating_sub(reserve_bytes.unwrap_or(0));
                placement.needs(sites, gpu).is_ok_and(|needs| needs.bytes() <= free_bytes)
            };
            // With the last layer go the ends; they stay if only they do not fit.
            let with = |taken: usize, ends: bool| {
                let mut tried = self.clone();
                tried.layers[at..at + taken].fill(gpu + 1);
                if ends && taken > 0 && at + taken == all {
                    (tried.embedding, tried.head) = (tried.layers.first().copied().unwrap_or(gpu + 1), gpu + 1);
                }
                tried
            };
            let is_forced = is_last && reserve_bytes.is_none();
            let mut best = (is_forced || fits(&with(most, true))).then(|| (most, with(most, true)));
            if best.is_none() {
                // More layers never need less.
                let counts: Vec<usize> = (0..=most).collect();
                let taken = counts.partition_point(|&taken| fits(&with(taken, false))).saturating_sub(1);
                best = Some((taken, with(taken, false)));
            }
            if let Some((taken, placement)) = best {
                *self = placement;
                at += taken;
            }
        }
    }

    fn take_ranges(&mut self, sites: Sites, ranges: &[(Range<u32>, usize)]) -> Result<()> {
        let wrong =
            |found: String, expected: String| Error::Model { subject: "ranges of layers".into(), found, expected };
        for (range, gpu) in ranges {
            let (layers, gpus) = (self.layers.len(), sites.gpus.len());
            let (start, end) = (range.start as usize, range.end as usize);
            if *gpu >= gpus {
                return Err(wrong(format!("GPU {gpu}"), format!("one of {gpus}, which count from 0")));
            }
            let run = self.layers.get_mut(start..end).filter(|run| !run.is_empty());
            let run = run.ok_or_else(|| wrong(format!("{range:?}"), format!("a range within {layers} layers")))?;
            if run.iter().any(|device| *device != 0) {
                return Err(wrong(format!("{range:?}, which overlaps another"), "each layer once".into()));
            }
            run.fill(gpu + 1);
        }
        for (gpu, site) in sites.gpus.iter().enumerate() {
            let own = self.layers.iter_mut().filter(|device| **device == gpu + 1);
            own.skip(site.most_layers).for_each(|device| *device = 0);
        }
        if let ([first, .., last] | [first @ last], true) = (&self.layers[..], !self.layers.contains(&0)) {
            (self.embedding, self.head) = (*first, *last);
        }
        Ok(())
    }
}

/// Where the steps of the first layer begin, and those of the last end.
fn layer_steps(program: &Program) -> (usize, usize) {
    let is_within = |step: &Step| step.layer.is_some();
    let first = program.steps.iter().position(is_within).unwrap_or(0);
    (first, program.steps.iter().rposition(is_within).map_or(first, |last| last + 1))
}

/// The steps that a class of tensors is for, from a layer on: in each layer those from the first to the last that
/// multiplies with one of them, and what mixes its results. So what experts work on crosses over to them, and what
/// they come to crosses back as one sum; who chooses them stays where the router's matrix is.
fn steps_of(program: &Program, class: TensorClass, from_layer: usize) -> Vec<Range<usize>> {
    let steps = || program.steps.iter().enumerate();
    let (first, end) = layer_steps(program);
    let part = match class {
        TensorClass::Embedding => return iter::once(0..first).collect(),
        TensorClass::Head => return iter::once(end..program.steps.len()).collect(),
        TensorClass::FeedForward => "ffn_",
        TensorClass::Experts => "_exps",
    };
    let is_such = |op: &Op| match op {
        Op::Linear { products, .. } | Op::Experts { products, .. } => {
            products.iter().any(|product| program.weights[product.weight.0].name.contains(part))
        }
        _ => false,
    };
    let runs = (from_layer..program.layers).filter_map(|layer| {
        let mut such = steps().filter(|(_, step)| step.layer == Some(layer) && is_such(&step.op)).map(|(at, _)| at);
        let first = such.next()?;
        let end = such.next_back().unwrap_or(first) + 1;
        let is_mixed = program.steps.get(end).is_some_and(|step| matches!(step.op, Op::Mix { .. }));
        Some(first..if is_mixed { end + 1 } else { end })
    });
    runs.collect()
}

/// How the CPU keeps and multiplies matrices.
pub fn matrix_options(options: &LoadOptions) -> MatrixOptions {
    MatrixOptions { pack: options.pack, exact: options.exact, ..MatrixOptions::default() }
}
