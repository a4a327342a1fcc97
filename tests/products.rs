//! Products of matrices and activations on the GPU: every type of weights, few tokens and many, with all that can happen
//! to the results, against plain sums.

#![cfg(feature = "gpu")]

mod gpu;

use gpu::{Data, Random, bytes_of, bytes_of_words, floats, gpus, nmse, run};
use kiln::backend::cpu::ops;
use kiln::backend::gpu::layout::{self, Layout};
use kiln::backend::gpu::products::{Epilogue, FEW_TOKENS, ProductKernel, ProductParams};
use kiln::backend::gpu::rows::{QuantizeParams, View, quantized_bytes};
use kiln::backend::gpu::{Gpu, Tier};
use kiln::gguf::TensorType;
use kiln::program::Activation;
use kiln::quant::decode;

/// DESIGN's bound where activations are rounded to eight bits; in floating point only sums differ in their order.
const ROUNDED: f64 = 5e-4;
const EXACT: f64 = 1e-10;
/// Where both sides are rounded to 16 bits.
const HALVED: f64 = 1e-5;

struct Case {
    layout: Layout,
    columns: usize,
    rows: usize,
    tokens: usize,
    epilogue: Epilogue,
    file: Vec<Vec<u8>>,
    x: Vec<f32>,
    bias: Vec<f32>,
    /// What is in the slot before: added to, or left alone between the rows.
    before: Vec<f32>,
}

/// Numbers before the first row of results, and between rows.
const GAP: usize = 3;

impl Case {
    fn new(layout: Layout, shape: (usize, usize), tokens: usize, epilogue: Epilogue, random: &mut Random) -> Self {
        let (rows, columns) = shape;
        let results = if epilogue.gate.is_some() { rows / 2 } else { rows };
        Case {
            layout,
            columns,
            rows,
            tokens,
            epilogue,
            file: (0..rows).map(|_| random.row(layout.kind(), columns)).collect(),
            x: random.normals(columns * tokens),
            bias: random.normals(rows),
            before: random.normals(GAP + tokens * (results + GAP)),
        }
    }

    /// Plain sums in double precision.
    fn truth(&self) -> Vec<f32> {
        let mut out = self.before.clone();
        let results = if self.epilogue.gate.is_some() { self.rows / 2 } else { self.rows };
        let decoded: Vec<Vec<f32>> = self
            .file
            .iter()
            .map(|bytes| {
                let mut values = vec![0.0; self.columns];
                decode(self.layout.kind(), bytes, &mut values).unwrap();
                values
            })
            .collect();
        for (token, x) in self.x.chunks(self.columns).enumerate() {
            let product = |row: usize| {
                let sum: f64 = decoded[row].iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                sum as f32 + if self.epilogue.bias { self.bias[row] } else { 0.0 }
            };
            for result in 0..results {
                let at = GAP + token * (results + GAP) + result;
                out[at] = match self.epilogue.gate {
                    Some(curve) => ops::gate(curve, product(2 * result), product(2 * result + 1)),
                    None => product(result) + if self.epilogue.add { out[at] } else { 0.0 },
                };
            }
        }
        out
    }

    /// The same on a GPU, the matrix in parts of so many rows.
    fn run(&self, gpu: &Gpu, integer: bool, part_rows: usize) -> Vec<f32> {
        let stride = self.columns.next_multiple_of(4);
        let mut x = vec![0.0; self.tokens.next_multiple_of(8) * stride];
        for (to, from) in x.chunks_mut(stride).zip(self.x.chunks(self.columns)) {
            to[..self.columns].copy_from_slice(from);
        }
        let step = bytes_of_words(&[self.tokens as u32, 0, 0, 0]);
        let x = bytes_of(&x);
        let units = self.columns.div_ceil(32);
        let activations = match integer {
            true => {
                let (width, stride) = (self.columns as u32, stride as u32);
                let params = QuantizeParams { outputs: 0, width, values: View { start: 0, stride } };
                let kernel = params.kernel(self.tokens as u32);
                let (integers, scales) = quantized_bytes(width);
                let tokens = self.tokens.next_multiple_of(8);
                let data = [
                    Data::Read(&step),
                    Data::Read(bytemuck::bytes_of(&params)),
                    Data::Read(&x),
                    Data::Write(integers as usize * tokens),
                    Data::Write(scales as usize * tokens),
                ];
                run(gpu, &kernel.variant.for_gpu(gpu), &data, kernel.groups)
            }
            false => vec![x, vec![0; 16]],
        };
        let (columns, tokens, largest) = (self.columns, self.tokens as u32, gpu.largest_subgroup());
        let kernel = match largest.filter(|_| self.by_matrices(gpu, integer)) {
            Some(subgroup) => ProductKernel::by_matrices(&self.layout, columns, self.epilogue, subgroup),
            None => ProductKernel::new(integer, &self.layout, columns, tokens, self.epilogue, largest),
        };
        let tables = self.layout.table().map_or(vec![0; 16], |table| bytes_of_words(&table));
        let bias = bytes_of(&self.bias);
        let results = if self.epilogue.gate.is_some() { self.rows / 2 } else { self.rows };
        // What is written: numbers, or integers and scales.
        let result_units = results.div_ceil(32);
        let rows_at_once = self.tokens.next_multiple_of(8);
        let mut out = match self.epilogue.quantize {
            false => vec![bytes_of(&self.before)],
            true => vec![vec![0; rows_at_once * result_units * 32], vec![0; rows_at_once * result_units * 16]],
        };
        for first_row in (0..self.rows).step_by(part_rows) {
            let rows = part_rows.min(self.rows - first_row);
            let (quant_bytes, scale_bytes) =
                (self.layout.quants_row_bytes(self.columns), self.layout.scales_row_bytes(self.columns));
            let (mut quants, mut scales) = (vec![0; rows * quant_bytes], vec![0; (rows * scale_bytes).max(16)]);
            for (index, row) in self.file[first_row..first_row + rows].iter().enumerate() {
                let scales = &mut scales[index * scale_bytes..][..scale_bytes];
                self.layout.pack_row(self.columns, row, &mut quants[index * quant_bytes..][..quant_bytes], scales);
            }
            let params = ProductParams {
                columns: self.columns as u32,
                row_units: units as u32,
                rows: rows as u32,
                first_row: first_row as u32,
                x_start: 0,
                x_stride: stride as u32,
                out_start: GAP as u32,
                out_stride: if self.epilogue.quantize { result_units } else { results + GAP } as u32,
                ..ProductParams::default()
            };
            let mut data = vec![
                Data::Read(&step),
                Data::Read(bytemuck::bytes_of(&params)),
                Data::Read(&quants),
                Data::Read(&scales),
                Data::Read(&activations[0]),
                Data::Read(&activations[1]),
                Data::Change(&out[0]),
                Data::Read(&tables),
                Data::Read(&bias),
            ];
            data.extend(out.get(1).map(|scales| Data::Change(scales)));
            let groups = kernel.groups(rows as u32, self.tokens as u32);
            out = run(gpu, &kernel.variant.clone().for_gpu(gpu), &data, groups);
        }
        match &out[..] {
            [integers, scales] => self.unrounded(integers, &floats(scales)),
            _ => floats(&out[0]),
        }
    }

    /// Rounded results, where the others would be. Checks the sums beside the scales.
    fn unrounded(&self, integers: &[u8], scales: &[f32]) -> Vec<f32> {
        let results = self.rows / 2;
        let units = results.div_ceil(32);
        let mut out = self.before.clone();
        for token in 0..self.tokens {
            for unit in 0..units {
                let at = token * units + unit;
                let bytes: Vec<i32> = integers[at * 32..][..32].iter().map(|&byte| i32::from(byte as i8)).collect();
                let terms = &scales[at * 4..][..4];
                for (found, part) in terms[1..].iter().zip([&bytes[..], &bytes[..16], &bytes[16..]]) {
                    let sum = part.iter().sum::<i32>() as f32 * terms[0];
                    assert!(
                        (found - sum).abs() <= sum.abs() * 1e-5,
                        "token {token}, unit {unit}: {terms:?}, {bytes:?}"
                    );
                }
                for (i, byte) in bytes.iter().enumerate().filter(|(i, _)| unit * 32 + i < results) {
                    out[GAP + token * (results + GAP) + unit * 32 + i] = *byte as f32 * terms[0];
                }
            }
        }
        out
    }

    /// Whether units for matrices are used.
    fn by_matrices(&self, gpu: &Gpu, integer: bool) -> bool {
        gpu.has(Tier::Matrix) && !integer && self.tokens as u32 > FEW_TOKENS
    }

    fn check(&self, gpu: &Gpu, integer: bool, part_rows: usize) {
        let (found, truth) = (self.run(gpu, integer, part_rows), self.truth());
        let error = nmse(&found, &truth);
        let limit = match (integer, self.by_matrices(gpu, integer)) {
            (true, _) => ROUNDED,
            (false, true) => HALVED,
            (false, false) => EXACT,
        };
        let Case { layout, rows, columns, tokens, epilogue, .. } = self;
        let kind = layout.kind();
        assert!(error < limit, "{kind} [{rows}, {columns}] x {tokens}, {epilogue:?}: NMSE {error:e} on {gpu:?}");
        let gaps = |out: &[f32]| -> Vec<f32> { out[..GAP].iter().chain(&out[out.len() - GAP..]).copied().collect() };
        assert_eq!(gaps(&found), gaps(&self.before), "{kind}: wrote beside its rows");
    }
}

/// Columns that a type can have, few or more.
fn columns(layout: &Layout, many: bool) -> usize {
    match (layout.is_float(), many) {
        (true, false) => 37,
        (true, true) => 331,
        (false, false) => 256,
        (false, true) => 2304,
    }
}

/// Some of the types, each for one token, few and many. Pipelines are what takes time, and tests run side by side.
fn check_types(part: usize, parts: usize) {
    let mut random = Random(7);
    // The fastest device of each name, and the plainest, with checks and without.
    let gpus = gpus();
    for layout in layout::all().iter().skip(part).step_by(parts) {
        for (tokens, many) in [(1, true), (3, false), (33, false)] {
            let shape = (19, columns(layout, many));
            let case = Case::new(*layout, shape, tokens, Epilogue::default(), &mut random);
            for gpu in &gpus {
                let is_fast = gpu.has(Tier::Dot) && gpu.has(Tier::Subgroups);
                let is_plain = !gpu.has(Tier::Dot) && !gpu.has(Tier::Subgroups);
                if case.by_matrices(gpu, false) {
                    case.check(gpu, false, 19);
                }
                if is_fast && !layout.is_float() {
                    case.check(gpu, true, 19);
                } else if is_fast || is_plain {
                    case.check(gpu, false, 8);
                }
            }
        }
    }
}

#[test]
fn every_fourth_type() {
    check_types(0, 4);
}

#[test]
fn every_fourth_type_from_the_second() {
    check_types(1, 4);
}

#[test]
fn every_fourth_type_from_the_third() {
    check_types(2, 4);
}

#[test]
fn every_fourth_type_from_the_last() {
    check_types(3, 4);
}

#[test]
fn every_end_of_a_product_in_every_tier() {
    let mut random = Random(8);
    let gate = |activation| Epilogue { gate: Some(activation), ..Epilogue::default() };
    let epilogues = [
        Epilogue { bias: true, ..Epilogue::default() },
        Epilogue { add: true, ..Epilogue::default() },
        gate(Activation::Silu),
        Epilogue { bias: true, ..gate(Activation::Gelu) },
    ];
    let gpus = gpus();
    for (kind, shape) in [(TensorType::F32, (6, 331)), (TensorType::Q4_0, (70, 96)), (TensorType::Q6_K, (2, 512))] {
        let layout = Layout::of(kind).unwrap();
        for (epilogue, tokens) in epilogues.iter().zip([1, 8, 40, 3]) {
            let case = Case::new(layout, shape, tokens, *epilogue, &mut random);
            for gpu in &gpus {
                case.check(gpu, gpu.has(Tier::Dot) && !layout.is_float(), shape.0.div_ceil(2).next_multiple_of(2));
            }
        }
    }
}

#[test]
fn gated_pairs_that_are_rounded() {
    let mut random = Random(10);
    let layout = Layout::of(TensorType::Q4_0).unwrap();
    let gpus = gpus();
    for (rows, tokens, bias) in [(600, 1, false), (128, 3, true), (70, 8, false)] {
        let epilogue = Epilogue { gate: Some(Activation::Silu), bias, quantize: true, ..Epilogue::default() };
        let case = Case::new(layout, (rows, 96), tokens, epilogue, &mut random);
        let can = |gpu: &&Gpu| gpu.has(Tier::Dot) && ProductKernel::rounds(tokens as u32, gpu.largest_subgroup());
        for gpu in gpus.iter().filter(can) {
            case.check(gpu, true, 256);
        }
    }
}

#[test]
fn more_rows_than_workgroups() {
    let mut random = Random(9);
    let layout = Layout::of(TensorType::F16).unwrap();
    let case = Case::new(layout, (65_536 * 8 + 5, 4), 1, Epilogue::default(), &mut random);
    for gpu in gpus().iter().take(1) {
        case.check(gpu, false, usize::MAX >> 1);
    }
}
