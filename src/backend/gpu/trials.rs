//! What the self-check runs: small dispatches of kernels that depend on a tier, and what must come out of them.
//!
//! The kernels are those that models run with, on numbers that a small generator makes, and the truth comes from the
//! functions of [`ops`] and plain sums. Products are made in the smallest tiles that their
//! shaders know: they take the same instructions, and drivers take long to compile large ones. What kernels take for
//! granted of a tier, beyond the numbers, has shaders of its own in `shaders/check/`.

use super::device::Gpu;
use super::layout::Layout;
use super::memory::filled;
use super::products::{Epilogue, ProductKernel, ProductParams};
use super::record::Draft;
use super::rows::{Norm, NormParams, QuantizeParams, View, quantized_bytes};
use super::shader::Variant;
use super::tiers::Tier;
use crate::Result;
use crate::backend::cpu::ops;
use crate::gguf::TensorType;
use crate::program::{Activation, NormKind};
use crate::quant::simple::{f16_to_f32, f32_to_f16};
use crate::quant::{decode, encode};
use std::ops::RangeInclusive;
use wgpu::Buffer;

/// Tokens of the step that all trials are.
pub(super) const TOKENS: u32 = 5;
/// A matrix whose units are an odd number, and more than most subgroups have lanes, and whose rows fill no tile.
const COLUMNS: u32 = 1056;
const ROWS: u32 = 70;
const EPSILON: f32 = 1e-5;
/// The errors, in relation to the truth and squared, of sums in another order, and of numbers that are rounded.
const EXACT: f64 = 1e-7;
const ROUNDED: f64 = 5e-4;

/// Dispatches, and what must come out.
pub(super) struct Trial {
    /// In words.
    pub what: &'static str,
    /// One after the other.
    pub drafts: Vec<Draft>,
    /// Where the result is, one part behind the other.
    pub results: Vec<Buffer>,
    expected: Expected,
}

enum Expected {
    /// Numbers, up to an error.
    Numbers(Vec<f32>, f64),
    /// As many numbers for each token, rounded as `shaders/shared/quantize.wgsl` says: integers, then scales and sums.
    Rounded(Vec<f32>),
    /// Just that.
    Words(Vec<u32>),
    /// Subgroups of neighbouring lanes in workgroups of so many, with sizes that the device says it may have.
    Lanes(usize, RangeInclusive<u32>),
}

impl Trial {
    /// What is wrong about a result, if anything is.
    pub fn fault(&self, found: &[u8]) -> Option<String> {
        match &self.expected {
            Expected::Numbers(truth, most) => error_above(*most, &bytemuck::pod_collect_to_vec(found), truth),
            Expected::Rounded(truth) => rounded_fault(found, truth),
            Expected::Words(truth) => words_fault(&bytemuck::pod_collect_to_vec(found), truth),
            Expected::Lanes(threads, sizes) => lanes_fault(&bytemuck::pod_collect_to_vec(found), *threads, sizes),
        }
    }
}

/// The trials of a tier, or of plain WebGPU; `gpu` has it, and what is trusted already.
pub(super) async fn trials(gpu: &Gpu, tier: Option<Tier>) -> Result<Vec<Trial>> {
    let sample = Sample::new(gpu).await?;
    Ok(match tier {
        None => vec![sample.norm().await?, sample.vector().await?, sample.tiles().await?],
        Some(Tier::Subgroups) => {
            vec![lanes(gpu, 64).await?, lanes(gpu, 256).await?, sample.norm().await?, sample.vector().await?]
        }
        Some(Tier::F16) => vec![halves(gpu).await?],
        Some(Tier::Dot) => {
            let mut trials = vec![dots(gpu).await?, sample.rounded_vector().await?, sample.rounded_tiles().await?];
            if ProductKernel::rounds(1, gpu.largest_subgroup()) {
                trials.push(sample.gated().await?);
            }
            trials
        }
        Some(Tier::Matrix) => vec![sample.matrices().await?],
    })
}

/// Every shader that only the self-check has, with the flags that it needs.
pub(super) fn variants() -> Vec<Variant> {
    let halves = halves_variant();
    vec![
        lanes_variant(64).flag("SUBGROUPS", true),
        lanes_variant(256).flag("SUBGROUPS", true),
        halves.clone(),
        halves.flag("F16", true),
        dots_variant(),
    ]
}

/// Numbers that are the same every time.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }

    /// Between -1 and 1.
    fn numbers(&mut self, count: u32) -> Vec<f32> {
        (0..count).map(|_| (self.word() >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

/// A matrix, the activations of some tokens, and where they are on the device.
struct Sample<'g> {
    gpu: &'g Gpu,
    layout: Layout,
    matrix: Vec<f32>,  // [ROWS, COLUMNS]
    x: Vec<f32>,       // [TOKENS, COLUMNS]
    weights: Vec<f32>, // [COLUMNS], of the norm
    quants: Buffer,
    scales: Buffer,
    x_buffer: Buffer,
    weights_buffer: Buffer,
    /// For bindings that a kernel does not use.
    nothing: Buffer,
}

impl<'g> Sample<'g> {
    async fn new(gpu: &'g Gpu) -> Result<Self> {
        const KIND: TensorType = TensorType::Q4_0;
        let layout = Layout::of(KIND)?;
        let (columns, rows) = (COLUMNS as usize, ROWS as usize);
        let mut random = Random(1);
        let mut matrix = random.numbers(ROWS * COLUMNS);
        let (quants_bytes, scales_bytes) = (layout.quants_row_bytes(columns), layout.scales_row_bytes(columns));
        let (mut quants, mut scales) = (vec![0; rows * quants_bytes], vec![0; rows * scales_bytes]);
        let mut packed = vec![0; (u64::from(COLUMNS) / KIND.block_elements() * KIND.block_bytes()) as usize];
        let planes = quants.chunks_mut(quants_bytes).zip(scales.chunks_mut(scales_bytes));
        for (row, (quants, scales)) in matrix.chunks_mut(columns).zip(planes) {
            encode(KIND, row, &mut packed)?;
            decode(KIND, &packed, row)?;
            layout.pack_row(columns, &packed, quants, scales);
        }
        let (x, weights) = (random.numbers(TOKENS * COLUMNS), random.numbers(COLUMNS));
        let (quants, scales) = (filled(gpu, "sample", &quants).await?, filled(gpu, "sample", &scales).await?);
        let x_buffer = filled(gpu, "sample", bytemuck::cast_slice(&x)).await?;
        let weights_buffer = filled(gpu, "sample", bytemuck::cast_slice(&weights)).await?;
        let nothing = filled(gpu, "sample", &[]).await?;
        Ok(Sample { gpu, layout, matrix, x, weights, quants, scales, x_buffer, weights_buffer, nothing })
    }

    /// The norm of whole rows.
    async fn norm(&self) -> Result<Trial> {
        let output = poisoned(self.gpu, TOKENS * COLUMNS * 4).await?;
        let drafts = vec![self.norm_draft(&[&output])?];
        let expected = Expected::Numbers(self.normed(), EXACT);
        Ok(Trial { what: "norm", drafts, results: vec![output], expected })
    }

    /// The product for few tokens.
    async fn vector(&self) -> Result<Trial> {
        let out = poisoned(self.gpu, TOKENS * ROWS * 4).await?;
        let drafts = vec![self.vector_draft(None, &out)];
        let expected = Expected::Numbers(self.products(&self.x), EXACT);
        Ok(Trial { what: "product for few tokens", drafts, results: vec![out], expected })
    }

    /// The product for many tokens.
    async fn tiles(&self) -> Result<Trial> {
        let out = poisoned(self.gpu, TOKENS * ROWS * 4).await?;
        let drafts = vec![self.tiles_draft(None, &out)];
        let expected = Expected::Numbers(self.products(&self.x), EXACT);
        Ok(Trial { what: "product for many tokens", drafts, results: vec![out], expected })
    }

    /// The product for many tokens by units for matrices, which round to 16 bits.
    async fn matrices(&self) -> Result<Trial> {
        let out = poisoned(self.gpu, TOKENS * ROWS * 4).await?;
        let subgroup = self.gpu.largest_subgroup().unwrap_or(1);
        let kernel = ProductKernel::by_matrices(&self.layout, COLUMNS as usize, Epilogue::default(), subgroup);
        let groups = kernel.groups(ROWS, TOKENS);
        let drafts = vec![self.product_draft(kernel.variant, groups, None, &[&out], ROWS)];
        let expected = Expected::Numbers(self.products(&self.x), 1e-5);
        Ok(Trial { what: "product by matrix units", drafts, results: vec![out], expected })
    }

    /// Activations that are rounded, and their product for few tokens.
    async fn rounded_vector(&self) -> Result<Trial> {
        let integers = Integers::new(self.gpu, COLUMNS).await?;
        let out = poisoned(self.gpu, TOKENS * ROWS * 4).await?;
        let drafts = vec![self.quantize_draft(&integers), self.vector_draft(Some(&integers), &out)];
        let expected = Expected::Numbers(self.products(&self.x), ROUNDED);
        Ok(Trial { what: "rounded product for few tokens", drafts, results: vec![out], expected })
    }

    /// A norm that rounds, and the product of its result for many tokens.
    async fn rounded_tiles(&self) -> Result<Trial> {
        let integers = Integers::new(self.gpu, COLUMNS).await?;
        let output = poisoned(self.gpu, TOKENS * COLUMNS * 4).await?;
        let out = poisoned(self.gpu, TOKENS * ROWS * 4).await?;
        let norm = self.norm_draft(&[&output, &integers.bytes, &integers.scales])?;
        let drafts = vec![norm, self.tiles_draft(Some(&integers), &out)];
        let expected = Expected::Numbers(self.products(&self.normed()), ROUNDED);
        Ok(Trial { what: "rounded norm and product for many tokens", drafts, results: vec![out], expected })
    }

    /// Pairs of rows that are gated and rounded as they arise.
    async fn gated(&self) -> Result<Trial> {
        let integers = Integers::new(self.gpu, COLUMNS).await?;
        let results = Integers::new(self.gpu, ROWS / 2).await?;
        let epilogue = Epilogue { gate: Some(Activation::Silu), quantize: true, ..Epilogue::default() };
        let largest = self.gpu.largest_subgroup();
        let kernel = ProductKernel::new(true, &self.layout, COLUMNS as usize, 1, epilogue, largest);
        // The least that makes whole units of results: a workgroup of 256 lanes has 64 rows, or more.
        let variant = in_size(kernel.variant, &[("ROWS", (largest.unwrap_or(1) / 4).max(2))]);
        let groups = [ROWS.div_ceil(64), 1, TOKENS];
        let out = [&results.bytes, &results.scales];
        let draft = self.product_draft(variant, groups, Some(&integers), &out, (ROWS / 2).div_ceil(32));
        let drafts = vec![self.quantize_draft(&integers), draft];
        let gated = |pair: &[f32; 2]| ops::activate(Activation::Silu, pair[0]) * pair[1];
        let expected = Expected::Rounded(self.products(&self.x).as_chunks().0.iter().map(gated).collect());
        Ok(Trial { what: "gated and rounded product", drafts, results: vec![results.bytes, results.scales], expected })
    }

    /// The matrix times the activations of some tokens: `[TOKENS, ROWS]`.
    fn products(&self, x: &[f32]) -> Vec<f32> {
        let product =
            |row: &[f32], x: &[f32]| -> f64 { row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum() };
        let rows = |x| self.matrix.chunks(COLUMNS as usize).map(move |row| product(row, x) as f32);
        x.chunks(COLUMNS as usize).flat_map(rows).collect()
    }

    fn normed(&self) -> Vec<f32> {
        let mut x = self.x.clone();
        for row in x.chunks_mut(COLUMNS as usize) {
            ops::norm(NormKind::Rms, row, COLUMNS as usize, EPSILON, Some(&self.weights), None);
        }
        x
    }

    /// Writes the result, and integers and scales if they are there.
    fn norm_draft(&self, written: &[&Buffer]) -> Result<Draft> {
        let view = View { start: 0, stride: COLUMNS };
        let params = NormParams {
            width: COLUMNS,
            group: COLUMNS,
            epsilon: EPSILON,
            input: view,
            output: view,
            ..NormParams::default()
        };
        let norm = Norm {
            kind: Some(NormKind::Rms),
            in_place: false,
            add: false,
            addend_norm: false,
            weight: true,
            bias: false,
            second: false,
            quantize: written.len() > 1,
        };
        let kernel = params.kernel(norm, TOKENS)?;
        let buffers = [&[&self.x_buffer, &self.weights_buffer][..], written].concat();
        Ok(Draft::new(kernel.variant.for_gpu(self.gpu), params, &buffers, move |_| kernel.groups))
    }

    fn quantize_draft(&self, to: &Integers) -> Draft {
        let params = QuantizeParams { outputs: 0, width: COLUMNS, values: View { start: 0, stride: COLUMNS } };
        let kernel = params.kernel(TOKENS);
        let buffers = [&self.x_buffer, &to.bytes, &to.scales];
        Draft::new(kernel.variant.for_gpu(self.gpu), params, &buffers, move |_| kernel.groups)
    }

    fn vector_draft(&self, integers: Option<&Integers>, out: &Buffer) -> Draft {
        let variant = in_size(self.product(integers.is_some(), 1), &[("ROWS", 2)]);
        self.product_draft(variant, [ROWS.div_ceil(2), 1, TOKENS], integers, &[out], ROWS)
    }

    fn tiles_draft(&self, integers: Option<&Integers>, out: &Buffer) -> Draft {
        let variant = in_size(self.product(integers.is_some(), 64), &[("PAIRS", 1), ("TOKENS", 1)]);
        self.product_draft(variant, [ROWS.div_ceil(32), TOKENS.div_ceil(4), 1], integers, &[out], ROWS)
    }

    fn product(&self, integer: bool, tokens: u32) -> Variant {
        let (columns, largest) = (COLUMNS as usize, self.gpu.largest_subgroup());
        ProductKernel::new(integer, &self.layout, columns, tokens, Epilogue::default(), largest).variant
    }

    fn product_draft(
        &self,
        variant: Variant,
        groups: [u32; 3],
        integers: Option<&Integers>,
        out: &[&Buffer],
        out_stride: u32,
    ) -> Draft {
        let params = ProductParams {
            columns: COLUMNS,
            row_units: COLUMNS.div_ceil(32),
            rows: ROWS,
            x_stride: COLUMNS,
            out_stride,
            ..ProductParams::default()
        };
        let (x, x_scales) = integers.map_or((&self.x_buffer, &self.nothing), |it| (&it.bytes, &it.scales));
        let (out, more) = out.split_at(1);
        let buffers =
            [&[&self.quants, &self.scales, x, x_scales][..], out, &[&self.nothing, &self.nothing], more].concat();
        Draft::new(variant.for_gpu(self.gpu), params, &buffers, move |_| groups)
    }
}

/// Rows of numbers in eight bits, on the device.
struct Integers {
    bytes: Buffer,
    scales: Buffer,
}

impl Integers {
    async fn new(gpu: &Gpu, width: u32) -> Result<Self> {
        let (bytes, scales) = quantized_bytes(width);
        let scales = poisoned(gpu, TOKENS * scales as u32).await?;
        Ok(Integers { bytes: poisoned(gpu, TOKENS * bytes as u32).await?, scales })
    }
}

/// A variant with other numbers in place of some of its constants.
fn in_size(mut variant: Variant, sizes: &[(&str, u32)]) -> Variant {
    for (name, value) in &mut variant.constants {
        if let Some((_, size)) = sizes.iter().find(|size| size.0 == *name) {
            *value = size.to_string();
        }
    }
    variant
}

/// Memory in which what a kernel forgets to write is seen: as a float it is not a number.
async fn poisoned(gpu: &Gpu, bytes: u32) -> Result<Buffer> {
    filled(gpu, "result", &vec![0xff; bytes as usize]).await
}

fn lanes_variant(threads: u32) -> Variant {
    Variant::new("check/lanes.wgsl", "uuw").constant("THREADS", threads)
}

/// Subgroups in workgroups of so many lanes.
async fn lanes(gpu: &Gpu, threads: u32) -> Result<Trial> {
    const WORKGROUPS: u32 = 3;
    let found = poisoned(gpu, WORKGROUPS * threads * 16).await?;
    let variant = lanes_variant(threads).for_gpu(gpu);
    let drafts = vec![Draft::new(variant, WORKGROUPS, &[&found], |_| [WORKGROUPS, 1, 1])];
    // Kernels have room for subgroups of these sizes only.
    let sizes = gpu.info().subgroup_min_size.max(4)..=gpu.largest_subgroup().unwrap_or(1);
    let expected = Expected::Lanes(threads as usize, sizes);
    Ok(Trial { what: "neighbouring lanes", drafts, results: vec![found], expected })
}

fn halves_variant() -> Variant {
    Variant::new("check/halves.wgsl", "uurww").constant("THREADS", HALVES)
}

const HALVES: u32 = 64;

/// Numbers of 16 bits.
async fn halves(gpu: &Gpu) -> Result<Trial> {
    let values = Random(2).numbers(HALVES);
    let given = filled(gpu, "sample", bytemuck::cast_slice(&values)).await?;
    let (stored, results) = (poisoned(gpu, HALVES * 2).await?, poisoned(gpu, HALVES * 4).await?);
    let buffers = [&given, &stored, &results];
    let drafts = vec![Draft::new(halves_variant().for_gpu(gpu), HALVES, &buffers, |_| [1, 1, 1])];
    let half = |value: f32| f16_to_f32(f32_to_f16(value));
    let right = values.iter().cycle().skip(1);
    let truth = values.iter().zip(right).map(|(&value, &right)| half(half(value) * half(right))).collect();
    let expected = Expected::Numbers(truth, ROUNDED);
    Ok(Trial { what: "16-bit numbers", drafts, results: vec![results], expected })
}

fn dots_variant() -> Variant {
    Variant::new("check/dots.wgsl", "uurw")
}

/// Products of four bytes, the outermost ones among them.
async fn dots(gpu: &Gpu) -> Result<Trial> {
    let extremes = [0x8080_8080, 0x7f7f_7f7f, 0x807f_00ff, 0x0180_ff7f_u32];
    let mut pairs: Vec<[u32; 2]> = extremes.iter().flat_map(|&a| extremes.map(|b| [a, b])).collect();
    let mut random = Random(3);
    pairs.resize_with(100, || [random.word(), random.word()]);
    let given = filled(gpu, "sample", bytemuck::cast_slice(&pairs)).await?;
    let found = poisoned(gpu, pairs.len() as u32 * 8).await?;
    let (count, groups) = (pairs.len() as u32, [(pairs.len() as u32).div_ceil(64), 1, 1]);
    let drafts = vec![Draft::new(dots_variant().for_gpu(gpu), count, &[&given, &found], move |_| groups)];
    let dot = |a: u32, b: u32| -> i32 {
        a.to_le_bytes().iter().zip(b.to_le_bytes()).map(|(&a, b)| i32::from(a as i8) * i32::from(b as i8)).sum()
    };
    let expected = Expected::Words(pairs.iter().flat_map(|&[a, b]| [dot(a, b) as u32, a]).collect());
    Ok(Trial { what: "products of four bytes", drafts, results: vec![found], expected })
}

/// Squares of differences over squares of the truth, if that is too much, or no number.
fn error_above(most: f64, found: &[f32], truth: &[f32]) -> Option<String> {
    let pairs = || found.iter().zip(truth).map(|(&found, &truth)| (f64::from(found), f64::from(truth)));
    let error: f64 = pairs().map(|(found, truth)| (found - truth).powi(2)).sum();
    let error = error / pairs().map(|(_, truth)| truth.powi(2)).sum::<f64>();
    let is_good = found.len() >= truth.len() && error <= most;
    (!is_good).then(|| format!("an error of {error:.1e}, expected at most {most:.0e}"))
}

fn words_fault(found: &[u32], truth: &[u32]) -> Option<String> {
    let at = (0..truth.len()).find(|&at| found.get(at) != truth.get(at))?;
    let word = |words: &[u32]| words.get(at).map_or("nothing".into(), |word| format!("{word:#010x}"));
    Some(format!("{} at {at}, expected {}", word(found), word(truth)))
}

/// Rounded numbers: their error, and whether the sums beside the scales are theirs.
fn rounded_fault(found: &[u8], truth: &[f32]) -> Option<String> {
    let width = truth.len() / TOKENS as usize;
    let integers_bytes = TOKENS as usize * width.div_ceil(32) * 32;
    let (integers, scales) = found.split_at(integers_bytes.min(found.len()));
    let scales: Vec<[f32; 4]> = bytemuck::pod_collect_to_vec(scales);
    let mut numbers = vec![];
    for (at, (unit, &[scale, sum, low, high])) in integers.as_chunks::<32>().0.iter().zip(&scales).enumerate() {
        let sum_of = |bytes: &[u8]| bytes.iter().map(|&byte| f32::from(byte as i8)).sum::<f32>() * scale;
        let (first, second) = unit.split_at(16);
        for (sum, truth) in [(sum, sum_of(unit)), (low, sum_of(first)), (high, sum_of(second))] {
            let is_close = (sum - truth).abs() <= 1e-3 * scale;
            if !is_close {
                return Some(format!("a sum of {sum} in unit {at}, expected {truth}"));
            }
        }
        numbers.extend(unit.map(|byte| f32::from(byte as i8) * scale));
    }
    let rows = numbers.chunks(width.next_multiple_of(32)).filter_map(|row| row.get(..width));
    error_above(ROUNDED, &rows.flatten().copied().collect::<Vec<f32>>(), truth)
}

/// Lanes whose subgroup is not the run of neighbours that its size makes expect.
///
/// That the largest lane is the run's last one means that no two runs mix, and then that the sum is the run's, that all
/// of it is there.
fn lanes_fault(found: &[[u32; 4]], threads: usize, sizes: &RangeInclusive<u32>) -> Option<String> {
    for workgroup in found.chunks(threads) {
        for (lane, &[place, size, sum, last]) in workgroup.iter().enumerate() {
            if !size.is_power_of_two() || !sizes.contains(&size) {
                return Some(format!("a subgroup of {size} lanes, expected {} to {}", sizes.start(), sizes.end()));
            }
            let start = lane / size as usize * size as usize;
            let lanes = start..(start + size as usize).min(threads);
            if (sum as usize, last as usize) != (lanes.clone().sum(), lanes.end - 1) {
                return Some(format!("lane {lane} in a subgroup other than the lanes {lanes:?}"));
            }
            let has_place = |other: &[u32; 4]| other[0] == place;
            let others = workgroup.get(lanes).unwrap_or_default();
            if place >= size || others.iter().filter(|other| has_place(other)).count() != 1 {
                return Some(format!("place {place} in a subgroup of {size} lanes, expected one of its own"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `shaders/check/lanes.wgsl` finds where lanes are in these subgroups.
    fn found(subgroups: &[&[u32]]) -> Vec<[u32; 4]> {
        let mut lanes = vec![[0; 4]; subgroups.concat().len()];
        for subgroup in subgroups {
            let (size, sum, last) = (subgroup.len() as u32, subgroup.iter().sum(), *subgroup.iter().max().unwrap());
            for (place, &lane) in (0..).zip(*subgroup) {
                lanes[lane as usize] = [place, size, sum, last];
            }
        }
        lanes
    }

    #[test]
    fn subgroups_are_runs_of_neighbours() {
        let fault = |found: &[[u32; 4]]| lanes_fault(found, 16, &(4..=8));
        let run = |from: u32, to: u32| Vec::from_iter(from..to);
        let good = found(&[&run(0, 8), &run(8, 16)]);
        assert_eq!(fault(&good), None);
        // Which of its places a lane has does not matter.
        assert_eq!(fault(&found(&[&[3, 2, 1, 0], &run(4, 8), &run(8, 12), &run(12, 16)])), None);
        let even = |start: u32| Vec::from_iter((0..8).map(|i| start + 2 * i));
        assert!(fault(&found(&[&even(0), &even(1)])).unwrap().contains("other than"));
        // The sums are those of runs.
        let mixed = found(&[&[0, 3, 4, 7, 8, 11, 12, 15], &[1, 2, 5, 6, 9, 10, 13, 14]]);
        assert!(fault(&mixed).is_some());
        assert!(fault(&found(&[&run(0, 16)])).unwrap().contains("16 lanes, expected 4 to 8"));
        assert!(fault(&found(&[&run(0, 2), &run(2, 4), &run(4, 6), &run(6, 16)])).is_some());
        let mut twice = good;
        twice[3][0] = 2;
        assert!(fault(&twice).unwrap().contains("place"));
        // A workgroup may be smaller than a subgroup.
        let small: Vec<[u32; 4]> = (0..16).map(|lane| [lane, 32, 120, 15]).collect();
        assert_eq!(lanes_fault(&small, 16, &(4..=32)), None);
        assert!(lanes_fault(&[[u32::MAX; 4]; 16], 16, &(4..=128)).is_some());
    }

    #[test]
    fn wrong_numbers_are_seen() {
        assert_eq!(error_above(EXACT, &[1.0, 2.0], &[1.0, 2.0]), None);
        assert!(error_above(EXACT, &[1.0, 2.001], &[1.0, 2.0]).is_some());
        assert!(error_above(ROUNDED, &[1.0, f32::NAN], &[1.0, 2.0]).is_some());
        assert!(error_above(ROUNDED, &[1.0], &[1.0, 2.0]).is_some());
        assert_eq!(words_fault(&[1, 2, 3], &[1, 2]), None);
        assert!(words_fault(&[1, 3], &[1, 2]).unwrap().contains("at 1"));
        assert!(words_fault(&[1], &[1, 2]).is_some());
    }

    #[test]
    fn rounded_numbers_have_their_sums() {
        let truth = vec![0.5; 5 * 35];
        let found = |sum: f32| {
            let mut bytes = [[127u8; 35].as_slice(), &[0; 29]].concat().repeat(5);
            let scale = 0.5 / 127.0;
            let units = [[scale, 16.0, 8.0, 8.0], [scale, 1.5, 1.5, sum]];
            bytes.extend((0..5).flat_map(|_| units).flatten().flat_map(f32::to_le_bytes));
            bytes
        };
        assert_eq!(rounded_fault(&found(0.0), &truth), None);
        assert!(rounded_fault(&found(0.1), &truth).unwrap().contains("sum"));
        assert!(rounded_fault(&found(f32::NAN), &truth).is_some());
        assert!(rounded_fault(&[], &truth).is_some());
        assert!(rounded_fault(&found(0.0), &vec![0.6; 5 * 35]).is_some());
    }
}
