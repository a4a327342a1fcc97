//! Mixtures of experts on the GPU: the choice, the order by experts, their products for few tokens and many, and the sum,
//! on every GPU of the machine against what the CPU computes.

#![cfg(feature = "gpu")]

mod gpu;

use bytemuck::bytes_of as pod;
use gpu::{Data, Random, bytes_of, bytes_of_words, floats, gpus, nmse, run};
use kiln::backend::cpu::ops;
use kiln::backend::gpu::experts::{MixParams, Mixture, RouteParams, SortParams, most_tiles, order_words};
use kiln::backend::gpu::layout::Layout;
use kiln::backend::gpu::products::{CHOICES_TILE, Epilogue, FEW_TOKENS, ProductKernel, ProductParams};
use kiln::backend::gpu::rows::{QuantizeParams, View, quantized_bytes};
use kiln::backend::gpu::{Gpu, Tier};
use kiln::gguf::TensorType;
use kiln::program::{Activation, Gating, Routing, SlotId, WeightId};
use kiln::quant::decode;

const GATINGS: [Gating; 5] =
    [Gating::Softmax, Gating::Sigmoid, Gating::SoftmaxOfChosen, Gating::RootSoftplus, Gating::SigmoidOfChosen];

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// The routes of some rows: `[rows, 2 * used]`, one row right behind the other.
fn route(gpu: &Gpu, routing: &Routing, logits: &[Vec<f32>], bias: &[f32], scales: &[f32]) -> Vec<f32> {
    let (rows, experts) = (logits.len(), logits[0].len());
    let params = RouteParams {
        logits: View { start: 0, stride: experts as u32 },
        routes: View { start: 0, stride: 2 * routing.used as u32 },
        ..RouteParams::new(routing, experts).unwrap()
    };
    let kernel = params.kernel(routing, rows as u32 + 1);
    let (step, logits) = (bytes_of_words(&[rows as u32, 0, 0, 0]), bytes_of(&logits.concat()));
    let (bias, scales) = (bytes_of(bias), bytes_of(scales));
    let mut data = vec![Data::Read(&step), Data::Read(pod(&params)), Data::Read(&logits)];
    data.extend(routing.bias.map(|_| Data::Read(&bias)));
    data.extend(routing.scales.map(|_| Data::Read(&scales)));
    data.push(Data::Write(rows * routing.used * 8));
    floats(&run(gpu, &kernel.variant.for_gpu(gpu), &data, kernel.groups)[0])
}

#[test]
fn routes_are_those_of_the_cpu() {
    let mut random = Random(1);
    let gpus = gpus();
    for (experts, used, groups, used_groups) in
        [(4, 2, 1, 1), (1, 1, 1, 1), (8, 8, 1, 1), (60, 6, 4, 2), (128, 8, 1, 1), (256, 8, 8, 4), (512, 10, 512, 11)]
    {
        for gating in GATINGS {
            let bits = random.word();
            let routing = Routing {
                gating,
                bias: (bits & 1 == 1).then_some(WeightId(0)),
                groups,
                used_groups,
                used,
                normalise: bits & 2 == 2,
                scale: [1.0, 2.5][(bits >> 2 & 1) as usize],
                scales: (bits & 8 == 8).then_some(WeightId(1)),
            };
            // Some are alike, which the first has to win.
            let logits: Vec<Vec<f32>> = (0..3)
                .map(|row| {
                    random.normals(experts).iter().map(|x| if row == 0 { (x * 2.0).round() } else { x * 4.0 }).collect()
                })
                .collect();
            let bias: Vec<f32> = random.normals(experts).iter().map(|x| (x * 4.0).round() / 4.0).collect();
            let scales = random.normals(experts);
            let vectors = [routing.bias.map(|_| &bias[..]), routing.scales.map(|_| &scales[..])];
            for gpu in &gpus {
                let found = route(gpu, &routing, &logits, &bias, &scales);
                for (found, logits) in found.chunks(2 * used).zip(&logits) {
                    let mut expected = vec![0.0; 2 * used];
                    ops::route(logits, &routing, vectors, &mut expected);
                    let of = format!("{routing:?} of {experts} on {gpu:?}");
                    assert_eq!(found[..used], expected[..used], "{of}");
                    let error = nmse(&found[used..], &expected[used..]);
                    assert!(error < 1e-10, "{of}: error {error}, {found:?}, not {expected:?}");
                }
            }
        }
    }
}

#[test]
fn whatever_logits_are_experts_are_chosen() {
    for gpu in gpus() {
        for gating in GATINGS {
            for groups in [1, 4] {
                let (used, scale, scales) = (2, 1.0, None);
                let routing =
                    Routing { gating, bias: None, groups, used_groups: 1, used, normalise: true, scale, scales };
                let strange = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN, 3e38, -3e38, 0.0, -0.0];
                let logits: Vec<Vec<f32>> =
                    (0..8).map(|by| (0..8).map(|i| strange[(i * by + by) % 8]).collect()).collect();
                for routes in route(&gpu, &routing, &logits, &[], &[]).chunks(4) {
                    assert!(
                        routes[0] != routes[1] && routes[..2].iter().all(|expert| (0.0..8.0).contains(expert)),
                        "{routes:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn routings_that_cannot_be() {
    let routing = Routing {
        gating: Gating::Softmax,
        bias: None,
        groups: 1,
        used_groups: 1,
        used: 2,
        normalise: true,
        scale: 1.0,
        scales: None,
    };
    let error = |routing, experts| RouteParams::new(&routing, experts).unwrap_err().to_string();
    assert!(error(routing, 513).contains("512"));
    assert!(error(routing, 1).contains("1 to 1"));
    assert!(error(Routing { groups: 3, ..routing }, 8).contains("groups"));
    assert!(error(Routing { groups: 4, used_groups: 5, ..routing }, 8).contains("5 of 4"));
    assert!(error(Routing { groups: 4, used: 3, ..routing }, 8).contains("1 to 2"));
}

/// Routes of some rows, with weights that no kernel here reads.
fn random_routes(random: &mut Random, rows: usize, choices: usize, matrices: usize) -> Vec<f32> {
    let mut routes = vec![];
    for _ in 0..rows {
        // Few matrices are chosen most.
        let mut chosen: Vec<usize> = vec![];
        while chosen.len() < choices {
            let matrix = (random.word() as usize % matrices) * (random.word() as usize % 3) / 2;
            if !chosen.contains(&matrix) {
                chosen.push(matrix);
            }
        }
        routes.extend(chosen.iter().map(|&matrix| matrix as f32));
        routes.extend(vec![f32::NAN; choices]);
    }
    routes
}

/// Choices in order and tiles, as `sort_choices.wgsl` writes them; `capacity` is the most choices.
fn sorted(gpu: &Gpu, routes: &[f32], rows: usize, choices: usize, matrices: usize, capacity: usize) -> Vec<u8> {
    let params = SortParams {
        outputs: 0,
        choices: choices as u32,
        matrices: matrices as u32,
        tile: CHOICES_TILE,
        routes: View { start: 0, stride: 2 * choices as u32 },
        tiles_start: capacity as u32,
    };
    let (step, routes) = (bytes_of_words(&[rows as u32, 0, 0, 0]), bytes_of(routes));
    let bytes = order_words(capacity as u32, matrices as u32, CHOICES_TILE) as usize * 4;
    let data = [Data::Read(&step), Data::Read(pod(&params)), Data::Read(&routes), Data::Write(bytes)];
    let kernel = params.kernel();
    run(gpu, &kernel.variant.for_gpu(gpu), &data, kernel.groups).remove(0)
}

#[test]
fn choices_are_sorted_into_tiles_of_one_matrix() {
    let mut random = Random(2);
    let gpus = gpus();
    for (rows, choices, matrices) in [(1, 1, 1), (9, 2, 4), (70, 1, 3), (300, 8, 128), (40, 5, 512), (513, 4, 5)] {
        let routes = random_routes(&mut random, rows, choices, matrices);
        let matrix_of = |choice: usize| routes[choice / choices * 2 * choices + choice % choices] as u32;
        for gpu in &gpus {
            let of = format!("{rows} x {choices} of {matrices} on {gpu:?}");
            let (all, capacity) = (rows * choices, rows * choices + 64);
            let found = words(&sorted(gpu, &routes, rows, choices, matrices, capacity));
            let mut order = found[..all].to_vec();
            assert!(order.is_sorted_by_key(|&choice| matrix_of(choice as usize)), "{of}");
            let tiles = &found[capacity..][..4 * most_tiles(all as u32, matrices as u32, CHOICES_TILE) as usize];
            let mut end = 0;
            for tile in tiles.chunks(4).filter(|tile| tile[1] < tile[2]) {
                assert!(tile[1] == end && tile[2] - tile[1] <= CHOICES_TILE, "{of}: {tile:?} after {end}");
                end = tile[2];
                let own = &order[tile[1] as usize..tile[2] as usize];
                assert!(own.iter().all(|&choice| matrix_of(choice as usize) == tile[0]), "{of}: {tile:?}");
            }
            assert_eq!(end as usize, all, "{of}");
            order.sort();
            assert!(order.iter().enumerate().all(|(i, &choice)| i == choice as usize), "{of}");
        }
    }
}

#[test]
fn parts_are_mixed() {
    let mut random = Random(3);
    for gpu in gpus() {
        for (rows, width, choices, add) in [(1, 1, 1, false), (3, 300, 2, true), (9, 33, 8, false), (2, 4100, 4, true)]
        {
            let parts = random.normals(rows * choices * width);
            let (routes, before) = (random.normals(rows * 2 * choices), random.normals(rows * width));
            let params = MixParams {
                outputs: 0,
                width: width as u32,
                choices: choices as u32,
                parts: View { start: 0, stride: (choices * width) as u32 },
                routes: View { start: 0, stride: 2 * choices as u32 },
                output: View { start: 0, stride: width as u32 },
            };
            let kernel = params.kernel(add, rows as u32 + 1);
            let step = bytes_of_words(&[rows as u32, 0, 0, 0]);
            let [parts_bytes, routes_bytes, before_bytes] = [&parts, &routes, &before].map(|values| bytes_of(values));
            let data = [
                Data::Read(&step),
                Data::Read(pod(&params)),
                Data::Read(&parts_bytes),
                Data::Read(&routes_bytes),
                Data::Change(&before_bytes),
            ];
            let found = floats(&run(&gpu, &kernel.variant.for_gpu(&gpu), &data, kernel.groups)[0]);
            let mut expected = vec![0.0; rows * width];
            for (row, sum) in expected.chunks_mut(width).enumerate() {
                let weights = &routes[row * 2 * choices + choices..][..choices];
                ops::mix(&parts[row * choices * width..][..choices * width], weights, sum);
            }
            if add {
                expected.iter_mut().zip(&before).for_each(|(sum, before)| *sum += before);
            }
            assert!(nmse(&found, &expected) < 1e-10, "{rows} x {width} of {choices} on {gpu:?}");
        }
    }
}

/// Products of some tokens with some of many matrices.
struct Case {
    layout: Layout,
    mixture: Mixture,
    columns: usize,
    /// Of a matrix; twice as many as results if they are gated.
    rows: usize,
    tokens: usize,
    epilogue: Epilogue,
    routes: Vec<f32>,
    weights: Vec<Vec<f32>>, // [matrices * rows][columns]
    packed: Vec<Vec<u8>>,
    x: Vec<f32>,    // [tokens, inputs, columns]
    bias: Vec<f32>, // [matrices, rows]
}

impl Case {
    fn new(
        kind: TensorType,
        (rows, columns): (usize, usize),
        tokens: usize,
        epilogue: Epilogue,
        mixture: Mixture,
        random: &mut Random,
    ) -> Self {
        let layout = Layout::of(kind).unwrap();
        let Mixture { choices, matrices, own_inputs, .. } = mixture;
        let inputs = if own_inputs { choices } else { 1 };
        let (mut weights, mut packed) = (vec![], vec![]);
        for _ in 0..matrices * rows {
            let (mut row, file) = (vec![0.0; columns], random.row(kind, columns));
            decode(kind, &file, &mut row).unwrap();
            weights.push(row);
            packed.push(file);
        }
        Case {
            layout,
            mixture,
            columns,
            rows,
            tokens,
            epilogue,
            routes: random_routes(random, tokens, choices, matrices),
            weights,
            packed,
            x: random.normals(tokens * inputs * columns),
            bias: random.normals(matrices * rows),
        }
    }

    /// Results of a choice.
    fn width(&self) -> usize {
        if self.epilogue.gate.is_some() { self.rows / 2 } else { self.rows }
    }

    /// Plain sums in double precision.
    fn truth(&self) -> Vec<f32> {
        let Mixture { choices, own_inputs, routes, .. } = self.mixture;
        let mut out = vec![];
        for choice in 0..self.tokens * choices {
            let (token, part) = (choice / choices, choice % choices);
            let matrix = if routes.is_some() { self.routes[token * 2 * choices + part] as usize } else { part };
            let x = &self.x[if own_inputs { choice } else { token } * self.columns..][..self.columns];
            let product = |row: usize| {
                let weights = &self.weights[matrix * self.rows + row];
                let sum: f64 = weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                sum as f32 + if self.epilogue.bias { self.bias[matrix * self.rows + row] } else { 0.0 }
            };
            out.extend((0..self.width()).map(|result| match self.epilogue.gate {
                Some(curve) => ops::gate(curve, product(2 * result), product(2 * result + 1)),
                None => product(result),
            }));
        }
        out
    }

    /// The activations as the kernel takes them.
    fn activations(&self, gpu: &Gpu, integer: bool) -> Vec<Vec<u8>> {
        let width = (self.x.len() / self.tokens) as u32;
        if !integer {
            return vec![bytes_of(&self.x), vec![0; 16]];
        }
        let params = QuantizeParams { outputs: 0, width, values: View { start: 0, stride: width } };
        let kernel = params.kernel(self.tokens as u32);
        let (integers, scales) = quantized_bytes(width);
        let (step, x) = (bytes_of_words(&[self.tokens as u32, 0, 0, 0]), bytes_of(&self.x));
        let data = [
            Data::Read(&step),
            Data::Read(pod(&params)),
            Data::Read(&x),
            Data::Write(integers as usize * self.tokens),
            Data::Write(scales as usize * self.tokens),
        ];
        run(gpu, &kernel.variant.for_gpu(gpu), &data, kernel.groups)
    }

    /// The same on a GPU, the matrices in parts of so many.
    fn run(&self, gpu: &Gpu, integer: bool, part_matrices: usize) -> Vec<f32> {
        let Mixture { choices, matrices, own_inputs, routes } = self.mixture;
        let (columns, tokens, width) = (self.columns, self.tokens as u32, self.width());
        let activations = self.activations(gpu, integer);
        let (layout, largest) = (&self.layout, gpu.largest_subgroup());
        let kernel = ProductKernel::of_experts(integer, layout, columns, tokens, self.epilogue, largest, &self.mixture);
        let is_many = tokens > FEW_TOKENS;
        let choosing = match routes {
            None => vec![0; 16],
            Some(_) if is_many => sorted(gpu, &self.routes, self.tokens, choices, matrices, self.tokens * choices),
            Some(_) => bytes_of(&self.routes),
        };
        let tables = layout.table().map_or(vec![0; 16], |table| bytes_of_words(&table));
        let (step, bias) = (bytes_of_words(&[tokens, 0, 0, 0]), bytes_of(&self.bias));
        let all = self.tokens * choices;
        let mut out = match self.epilogue.quantize {
            false => vec![vec![0xff; all * width * 4]],
            true => vec![vec![0; all * width], vec![0; all * width / 32 * 16]],
        };
        for first in (0..matrices).step_by(part_matrices) {
            let count = part_matrices.min(matrices - first);
            let (quant_bytes, scale_bytes) = (layout.quants_row_bytes(columns), layout.scales_row_bytes(columns));
            let rows = count * self.rows;
            let (mut quants, mut scales) = (vec![0; rows * quant_bytes], vec![0; (rows * scale_bytes).max(16)]);
            for (index, row) in self.packed[first * self.rows..][..rows].iter().enumerate() {
                let scales = &mut scales[index * scale_bytes..][..scale_bytes];
                layout.pack_row(columns, row, &mut quants[index * quant_bytes..][..quant_bytes], scales);
            }
            let params = ProductParams {
                columns: columns as u32,
                row_units: columns.div_ceil(32) as u32,
                rows: self.rows as u32,
                x_stride: columns as u32,
                out_stride: if self.epilogue.quantize { width / 32 } else { choices * width } as u32,
                choices: choices as u32,
                choice_width: width as u32,
                own_inputs: own_inputs.into(),
                first_matrix: first as u32,
                matrices: count as u32,
                routes_start: if is_many { all as u32 } else { 0 },
                routes_stride: 2 * choices as u32,
                ..ProductParams::default()
            };
            let mut data = vec![
                Data::Read(&step),
                Data::Read(pod(&params)),
                Data::Read(&quants),
                Data::Read(&scales),
                Data::Read(&activations[0]),
                Data::Read(&activations[1]),
                Data::Change(&out[0]),
                Data::Read(&tables),
                Data::Read(&choosing),
            ];
            data.extend(self.epilogue.bias.then_some(Data::Read(&bias)));
            data.extend(out.get(1).map(|scales| Data::Change(scales)));
            let groups = kernel.groups_of_experts(self.rows as u32, tokens, &self.mixture);
            out = run(gpu, &kernel.variant.clone().for_gpu(gpu), &data, groups);
        }
        match &out[..] {
            [integers, scales] => {
                let scales = floats(scales);
                integers.iter().enumerate().map(|(i, &byte)| f32::from(byte as i8) * scales[i / 32 * 4]).collect()
            }
            _ => floats(&out[0]),
        }
    }

    fn check(&self, gpu: &Gpu, integer: bool) {
        let truth = self.truth();
        for part_matrices in [self.mixture.matrices, self.mixture.matrices.div_ceil(2)] {
            let error = nmse(&self.run(gpu, integer, part_matrices), &truth);
            let Case { layout, rows, columns, tokens, epilogue, mixture, .. } = self;
            let of = format!("{} [{rows}, {columns}] x {tokens}, {epilogue:?}, {mixture:?}", layout.kind());
            assert!(error < if integer { 5e-4 } else { 1e-10 }, "{of}: NMSE {error:e} on {gpu:?}");
        }
    }
}

const ROUTED: Option<SlotId> = Some(SlotId(0));

fn gated(activation: Activation) -> Epilogue {
    Epilogue { gate: Some(activation), ..Epilogue::default() }
}

#[test]
fn products_of_experts() {
    let mut random = Random(4);
    let biased = Epilogue { bias: true, ..Epilogue::default() };
    let mixture = |routes, choices, matrices, own_inputs| Mixture { routes, choices, matrices, own_inputs };
    let cases = [
        (TensorType::F32, (6, 36), 1, Epilogue::default(), mixture(ROUTED, 2, 4, false)),
        (TensorType::F32, (70, 44), 40, biased, mixture(ROUTED, 2, 5, true)),
        (TensorType::Q4_0, (70, 64), 1, gated(Activation::Silu), mixture(ROUTED, 3, 8, false)),
        (TensorType::Q4_0, (70, 64), 67, gated(Activation::Silu), mixture(ROUTED, 3, 8, false)),
        (TensorType::Q8_0, (19, 96), 5, biased, mixture(ROUTED, 2, 4, true)),
        (
            TensorType::MXFP4,
            (34, 96),
            3,
            Epilogue { bias: true, ..gated(Activation::ClampedSilu) },
            mixture(ROUTED, 4, 6, false),
        ),
        (
            TensorType::MXFP4,
            (34, 96),
            33,
            Epilogue { bias: true, ..gated(Activation::ClampedSilu) },
            mixture(ROUTED, 4, 6, false),
        ),
        (TensorType::Q6_K, (33, 512), 20, Epilogue::default(), mixture(ROUTED, 2, 3, true)),
        (TensorType::Q3_K, (20, 256), 4, Epilogue::default(), mixture(ROUTED, 2, 4, false)),
        (TensorType::Q3_K, (20, 256), 36, Epilogue::default(), mixture(ROUTED, 2, 4, false)),
        (TensorType::F16, (20, 48), 2, Epilogue::default(), mixture(None, 4, 4, true)),
        (TensorType::Q8_0, (40, 64), 50, Epilogue::default(), mixture(None, 4, 4, true)),
    ];
    let gpus = gpus();
    for (kind, shape, tokens, epilogue, mixture) in cases {
        let case = Case::new(kind, shape, tokens, epilogue, mixture, &mut random);
        for gpu in &gpus {
            case.check(gpu, gpu.has(Tier::Dot) && !case.layout.is_float());
        }
    }
}

#[test]
fn gated_pairs_of_experts_that_are_rounded() {
    let mut random = Random(5);
    let epilogue = Epilogue { quantize: true, ..gated(Activation::Silu) };
    for (rows, tokens) in [(128, 1), (576, 1), (192, 4)] {
        let mixture = Mixture { routes: ROUTED, choices: 2, matrices: 4, own_inputs: false };
        let case = Case::new(TensorType::Q4_0, (rows, 96), tokens, epilogue, mixture, &mut random);
        let can = |gpu: &Gpu| gpu.has(Tier::Dot) && ProductKernel::rounds(1, gpu.largest_subgroup());
        gpus().iter().filter(|gpu| can(gpu)).for_each(|gpu| case.check(gpu, true));
    }
}
