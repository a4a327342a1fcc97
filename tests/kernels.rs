//! Every kernel over rows of the GPU against its twin on the CPU, on every GPU of the machine, over odd shapes.

#![cfg(feature = "gpu")]

mod gpu;

use bytemuck::{Pod, bytes_of as pod};
use gpu::{Data, Random, bytes_of, bytes_of_words, floats, gpus, nmse, run};
use kiln::backend::cpu::ops;
use kiln::backend::gpu::Gpu;
use kiln::backend::gpu::rows::{
    ArgmaxParams, CURVES, Gate, GateParams, Kernel, Norm, NormParams, QuantizeParams, ScaleParams, SelectParams,
    SoftcapParams, TemperParams, TopKParams, View, quantized_bytes,
};
use kiln::program::NormKind;

/// Rows and columns.
const SHAPES: [(usize, usize); 8] = [(1, 1), (3, 31), (9, 33), (3, 65), (1, 257), (3, 257), (1, 4100), (9, 4100)];

/// Rows in a buffer, with something between them that must stay.
#[derive(Clone)]
struct Slot {
    buffer: Vec<f32>,
    view: View,
    width: usize,
    rows: usize,
}

impl Slot {
    fn random(random: &mut Random, rows: usize, width: usize) -> Self {
        let (start, stride) = ((random.word() % 7) as usize, width + (random.word() % 5) as usize);
        let buffer = random.normals(start + rows * stride + 3);
        Slot { buffer, view: View { start: start as u32, stride: stride as u32 }, width, rows }
    }

    fn bytes(&self) -> Vec<u8> {
        bytes_of(&self.buffer)
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        let start = self.view.start as usize + row * self.view.stride as usize;
        start..start + self.width
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.buffer[self.range(row)]
    }

    /// The slot with each row changed.
    fn map(&self, change: impl Fn(usize, &mut [f32])) -> Slot {
        let mut changed = self.clone();
        (0..self.rows).for_each(|row| change(row, &mut changed.buffer[self.range(row)]));
        changed
    }

    /// That the rows of what was found are nearly these, and what is between them exactly this.
    #[track_caller]
    fn assert_near(&self, found: &[u8], of: &str) {
        let found = floats(found);
        assert_eq!(found.len(), self.buffer.len(), "{of}");
        let is_inside = |i: usize| (0..self.rows).any(|row| self.range(row).contains(&i));
        let rest = (0..found.len()).filter(|&i| !is_inside(i));
        rest.for_each(|i| assert_eq!(found[i], self.buffer[i], "{of} wrote between rows"));
        for row in 0..self.rows {
            let error = nmse(&found[self.range(row)], self.row(row));
            assert!(error < 1e-7, "{of}, row {row}: error {error}");
        }
    }
}

/// Runs a kernel over `rows` tokens, of 2 more that the plan allows for.
fn on(gpu: &Gpu, kernel: &Kernel, rows: usize, params: &impl Pod, storage: &[Data]) -> Vec<Vec<u8>> {
    let step = bytes_of_words(&[rows as u32, 0, 0, 0]);
    let mut data = vec![Data::Read(&step), Data::Read(pod(params))];
    data.extend(storage.iter().map(|data| match data {
        Data::Read(bytes) => Data::Read(bytes),
        Data::Write(bytes) => Data::Write(*bytes),
        Data::Change(bytes) => Data::Change(bytes),
    }));
    run(gpu, &kernel.variant.clone().for_gpu(gpu), &data, kernel.groups)
}

/// Calls a check for each GPU and shape.
fn everywhere(check: impl Fn(&Gpu, &mut Random, usize, usize)) {
    let mut random = Random(1);
    for gpu in gpus() {
        SHAPES.iter().for_each(|&(rows, width)| check(&gpu, &mut random, rows, width));
    }
}

#[test]
fn scale() {
    everywhere(|gpu, random, rows, width| {
        let slot = Slot::random(random, rows, width);
        let params = ScaleParams { outputs: 0, width: width as u32, values: slot.view, factor: -1.5 };
        let found = on(gpu, &params.kernel(rows as u32 + 2), rows, &params, &[Data::Change(&slot.bytes())]);
        let expected = slot.map(|_, values| values.iter_mut().for_each(|value| *value *= -1.5));
        expected.assert_near(&found[0], &format!("scale {rows} x {width} on {gpu:?}"));
    });
}

#[test]
fn softcap() {
    everywhere(|gpu, random, rows, width| {
        let slot = Slot::random(random, rows, width).map(|row, values| values[0] = [-3e38, 1e4, -0.01][row % 3]);
        let params = SoftcapParams { outputs: 0, width: width as u32, values: slot.view, cap: 0.7 };
        let found = on(gpu, &params.kernel(rows as u32 + 2), rows, &params, &[Data::Change(&slot.bytes())]);
        let expected = slot.map(|_, values| values.iter_mut().for_each(|value| *value = ops::softcap(*value, 0.7)));
        expected.assert_near(&found[0], &format!("softcap {rows} x {width} on {gpu:?}"));
    });
}

#[test]
fn temper() {
    everywhere(|gpu, random, rows, width| {
        let slot = Slot::random(random, rows, width);
        let (slope, interval, offset, start) = (0.7, 3, random.word() % 2, random.word() % 100);
        let params = TemperParams { outputs: 0, width: width as u32, values: slot.view, slope, interval, offset };
        let step = bytes_of_words(&[rows as u32, start, 0, 0]);
        let (bytes, kernel) = (slot.bytes(), params.kernel(rows as u32 + 2));
        let data = [Data::Read(&step), Data::Read(pod(&params)), Data::Change(&bytes)];
        let found = run(gpu, &kernel.variant.for_gpu(gpu), &data, kernel.groups);
        let expected = slot.map(|row, values| {
            let factor = ops::temper(start as usize + row, slope, interval as usize, offset as usize);
            values.iter_mut().for_each(|value| *value *= factor);
        });
        expected.assert_near(&found[0], &format!("temper {rows} x {width} on {gpu:?}"));
    });
}

#[test]
fn select() {
    everywhere(|gpu, random, rows, width| {
        let (input, output) = (Slot::random(random, 9, width), Slot::random(random, rows, width));
        let tokens: Vec<u32> = (0..rows).map(|_| random.word() % 9).collect();
        let params = SelectParams { outputs: 1, width: width as u32, input: input.view, output: output.view };
        let (step, input_bytes) = (bytes_of_words(&[9, 0, rows as u32, 0]), input.bytes());
        let (tokens_bytes, output_bytes) = (bytes_of_words(&tokens), output.bytes());
        let data = [
            Data::Read(&step),
            Data::Read(pod(&params)),
            Data::Read(&input_bytes),
            Data::Read(&tokens_bytes),
            Data::Change(&output_bytes),
        ];
        let kernel = params.kernel(rows as u32 + 2);
        let found = run(gpu, &kernel.variant.for_gpu(gpu), &data, kernel.groups);
        let expected = output.map(|row, values| values.copy_from_slice(input.row(tokens[row] as usize)));
        assert_eq!(floats(&found[0]), expected.buffer, "select {rows} x {width} on {gpu:?}");
    });
}

/// A number of rows and columns that no grid has, in both directions.
#[test]
fn grids_that_are_too_small() {
    let mut random = Random(2);
    let mut seen = vec![];
    for gpu in gpus() {
        if seen.contains(&gpu.info().name) {
            continue;
        }
        seen.push(gpu.info().name.clone());
        for (rows, width) in [(1, 65_535 * 256 + 300), (70_000, 3_usize)] {
            let values = random.normals(1000).repeat((rows * width).div_ceil(1000));
            let view = View { start: 0, stride: width as u32 };
            let params = ScaleParams { outputs: 0, width: width as u32, values: view, factor: 2.0 };
            let kernel = params.kernel(rows as u32);
            let found = on(&gpu, &kernel, rows, &params, &[Data::Change(&bytes_of(&values))]);
            let doubled = |(i, found): (usize, f32)| found == values[i] * if i < rows * width { 2.0 } else { 1.0 };
            assert!(floats(&found[0]).into_iter().enumerate().all(doubled), "{rows} x {width} on {gpu:?}");
        }
    }
}

/// The eight-bit form of a row: words, and scales with sums.
fn quantized(row: &[f32]) -> (Vec<i8>, Vec<[f32; 4]>) {
    let (mut integers, mut scales) = (vec![], vec![]);
    for unit in row.chunks(32) {
        let peak = unit.iter().fold(0.0, |peak: f32, value| peak.max(value.abs()));
        let d = peak / 127.0;
        let round = |value: &f32| if peak > 0.0 { (value / d).round_ties_even() as i8 } else { 0 };
        let mut rounded: Vec<i8> = unit.iter().map(round).collect();
        rounded.resize(32, 0);
        let sum = |part: &[i8]| d * part.iter().map(|&q| i32::from(q)).sum::<i32>() as f32;
        scales.push([d, sum(&rounded), sum(&rounded[..16]), sum(&rounded[16..])]);
        integers.extend(rounded);
    }
    (integers, scales)
}

/// That integers and scales are those of rows, but for ties.
#[track_caller]
fn assert_quantized(integers: &[u8], scales: &[u8], rows: &[Vec<f32>], of: &str) {
    let expected: Vec<_> = rows.iter().map(|row| quantized(row)).collect();
    let expected_integers: Vec<i8> = expected.iter().flat_map(|(integers, _)| integers.clone()).collect();
    assert_eq!(integers.len(), expected_integers.len(), "{of}");
    let differences = integers.iter().zip(&expected_integers).map(|(&a, &b)| i32::from(a as i8) - i32::from(b));
    let differing: Vec<i32> = differences.filter(|&difference| difference != 0).collect();
    assert!(differing.iter().all(|difference| difference.abs() == 1), "{of}: {differing:?}");
    assert!(differing.len() <= 1 + integers.len() / 1000, "{of}: {} integers differ", differing.len());
    let expected: Vec<[f32; 4]> = expected.into_iter().flat_map(|(_, scales)| scales).collect();
    for (unit, (found, expected)) in floats(scales).as_chunks::<4>().0.iter().zip(&expected).enumerate() {
        let near = |a: f32, b: f32, by: f32| (a - b).abs() <= by * expected[0];
        assert!(near(found[0], expected[0], 1e-5), "{of}, unit {unit}: {found:?}, not {expected:?}");
        // What the sums are of is what has been written, which ties may have changed.
        let written: Vec<i32> = integers[unit * 32..][..32].iter().map(|&q| i32::from(q as i8)).collect();
        let sums = [&written[..], &written[..16], &written[16..]].map(|part| part.iter().sum::<i32>() as f32);
        let right = found[1..].iter().zip(sums).all(|(&found, sum)| near(found, sum * expected[0], 0.02));
        assert!(right, "{of}, unit {unit}: {found:?}, not {expected:?}");
    }
}

#[test]
fn quantize() {
    everywhere(|gpu, random, rows, width| {
        let slot = Slot::random(random, rows, width).map(|_, values| {
            values.iter_mut().skip(64).take(32).for_each(|value| *value = 0.0);
            values.iter_mut().skip(128).take(40).for_each(|value| *value *= 1e6);
        });
        let params = QuantizeParams { outputs: 0, width: width as u32, values: slot.view };
        let (integers, scales) = quantized_bytes(width as u32);
        let data =
            [Data::Read(&slot.bytes()), Data::Write(rows * integers as usize), Data::Write(rows * scales as usize)];
        let found = on(gpu, &params.kernel(rows as u32 + 2), rows, &params, &data);
        let rows_of: Vec<Vec<f32>> = (0..rows).map(|row| slot.row(row).to_vec()).collect();
        assert_quantized(&found[0], &found[1], &rows_of, &format!("quantize {rows} x {width} on {gpu:?}"));
    });
}

/// Checks one norm: `groups` of equal length but for the last. What is added is multiplied by -0.75.
fn check_norm(gpu: &Gpu, random: &mut Random, norm: Norm, rows: usize, width: usize, group: usize, by_row: bool) {
    let of = format!("{norm:?} {rows} x {width} by {group} on {gpu:?}");
    let vector = |random: &mut Random| random.normals(if by_row { width } else { group });
    let (weight, bias) = (vector(random), vector(random));
    let (input, addend) = (Slot::random(random, rows, width), Slot::random(random, rows, width));
    let output = Slot::random(random, rows, width);
    let params = NormParams {
        outputs: 0,
        width: width as u32,
        group: group as u32,
        weight_stride: if by_row { group as u32 } else { 0 },
        epsilon: 1e-5,
        input: input.view,
        addend: addend.view,
        addend_factor: -0.75,
        second_start: 0,
        second_width: 0,
        output: output.view,
    };
    let addend_weight = random.normals(width);
    let sum = input.map(|row, values| {
        let mut added = addend.row(row).to_vec();
        if norm.addend_norm {
            ops::norm(NormKind::Rms, &mut added, width, 1e-5, Some(&addend_weight), None);
        }
        values.iter_mut().zip(added).for_each(|(to, from)| *to += if norm.add { -0.75 * from } else { 0.0 });
    });
    let target = if norm.in_place { &input } else { &output };
    let expected = target.map(|row, values| {
        values.copy_from_slice(sum.row(row));
        let (weight, bias) = (norm.weight.then_some(&weight[..]), norm.bias.then_some(&bias[..]));
        match norm.kind {
            Some(kind) => ops::norm(kind, values, group, 1e-5, weight, bias),
            None => {
                let place = |i: usize| if by_row { i } else { i % group };
                let change = |(i, value): (usize, &mut f32)| {
                    *value = *value * weight.map_or(1.0, |weight| weight[place(i)])
                        + bias.map_or(0.0, |bias| bias[place(i)]);
                };
                values.iter_mut().enumerate().for_each(change);
            }
        }
    });
    let (input_bytes, addend_bytes, output_bytes) = (input.bytes(), addend.bytes(), output.bytes());
    let [weight_bytes, bias_bytes, addend_weight_bytes] =
        [&weight, &bias, &addend_weight].map(|values| bytes_of(values));
    let (integers, scales) = quantized_bytes(width as u32);
    let changes_input = norm.in_place || norm.add;
    let data = [
        (!changes_input, Data::Read(&input_bytes)),
        (norm.add, Data::Read(&addend_bytes)),
        (norm.addend_norm, Data::Read(&addend_weight_bytes)),
        (norm.weight, Data::Read(&weight_bytes)),
        (norm.bias, Data::Read(&bias_bytes)),
        (changes_input, Data::Change(&input_bytes)),
        (!norm.in_place, Data::Change(&output_bytes)),
        (norm.quantize, Data::Write(rows * integers as usize)),
        (norm.quantize, Data::Write(rows * scales as usize)),
    ];
    let data: Vec<Data> = data.into_iter().filter(|(bound, _)| *bound).map(|(_, data)| data).collect();
    let found = on(gpu, &params.kernel(norm, rows as u32 + 2).unwrap(), rows, &params, &data);
    let mut found = found.iter();
    if norm.add && !norm.in_place {
        sum.assert_near(found.next().unwrap(), &format!("sum of {of}"));
    }
    let normed = found.next().unwrap();
    // With one column, a layer norm is zero: there is no relation to be an error of.
    if group > 1 || norm.kind != Some(NormKind::Layer) {
        expected.assert_near(normed, &of);
    }
    if norm.quantize {
        let normed = Slot { buffer: floats(normed), ..target.clone() };
        let rows_of: Vec<Vec<f32>> = (0..rows).map(|row| normed.row(row).to_vec()).collect();
        assert_quantized(found.next().unwrap(), found.next().unwrap(), &rows_of, &of);
    }
}

const KINDS: [Option<NormKind>; 4] = [Some(NormKind::Rms), Some(NormKind::Layer), Some(NormKind::L2), None];

#[test]
fn norms_of_rows() {
    everywhere(|gpu, random, rows, width| {
        let bits = random.word();
        let [in_place, add, weight, bias, quantize] = [0, 1, 2, 3, 4].map(|bit| bits >> bit & 1 == 1);
        let kind = KINDS[random.word() as usize % 4];
        let in_place = in_place || kind.is_none();
        let norm = Norm { kind, in_place, add, addend_norm: false, weight, bias, second: false, quantize };
        check_norm(gpu, random, norm, rows, width, width, true);
        check_norm(gpu, random, Norm { add: true, addend_norm: true, ..norm }, rows, width, width, true);
    });
}

#[test]
fn norms_of_groups() {
    let mut random = Random(3);
    let shapes = [(1, 64, 64), (3, 20 * 64, 64), (9, 9 * 33, 33), (2, 3 * 300, 300), (3, 250, 100), (1, 70, 1)];
    for (at, gpu) in gpus().iter().enumerate() {
        for (i, (rows, width, group)) in shapes.into_iter().enumerate() {
            let [in_place, add, bias] = [2, 3, 2].map(|one_of| random.word().is_multiple_of(one_of));
            let kind = KINDS[(at + i) % 4];
            let in_place = in_place || kind.is_none();
            let norm = Norm { kind, in_place, add, weight: true, bias, ..PLAIN };
            check_norm(gpu, &mut random, norm, rows, width, group, i % 2 == 0);
        }
    }
}

/// A sum that nobody wants normalised, rounded on the way: what is added is normalised, scaled, or neither.
#[test]
fn sums() {
    everywhere(|gpu, random, rows, width| {
        let (yes, no) = (true, false);
        for (addend_norm, quantize) in [(no, no), (yes, no), (yes, yes)] {
            let norm = Norm { kind: None, in_place: yes, add: yes, addend_norm, quantize, ..PLAIN };
            check_norm(gpu, random, norm, rows, width, width, true);
        }
    });
}

/// Two parts of each row at once, each with weights of its own; what lies around them stays.
#[test]
fn norms_of_two_parts() {
    everywhere(|gpu, random, rows, width| {
        for second_width in [width, width / 2 + 1, width + 100] {
            let slot = Slot::random(random, rows, width + 4 + second_width);
            let (weight, second_weight) = (random.normals(width), random.normals(second_width));
            let params = NormParams {
                width: width as u32,
                group: width as u32,
                weight_stride: width as u32,
                epsilon: 1e-5,
                input: slot.view,
                second_start: slot.view.start + width as u32 + 4,
                second_width: second_width as u32,
                ..NormParams::default()
            };
            let norm = Norm { in_place: true, second: true, weight: true, ..PLAIN };
            let expected = slot.map(|_, values| {
                let (first, rest) = values.split_at_mut(width);
                ops::norm(NormKind::Rms, first, width, 1e-5, Some(&weight), None);
                ops::norm(NormKind::Rms, &mut rest[4..], second_width, 1e-5, Some(&second_weight), None);
            });
            let [weight, second_weight] = [weight, second_weight].map(|values| bytes_of(&values));
            let data = [Data::Read(&weight), Data::Read(&second_weight), Data::Change(&slot.bytes())];
            let found = on(gpu, &params.kernel(norm, rows as u32 + 2).unwrap(), rows, &params, &data);
            expected.assert_near(&found[0], &format!("{rows} x {width} and {second_width} on {gpu:?}"));
        }
    });
}

const PLAIN: Norm = Norm {
    kind: Some(NormKind::Rms),
    in_place: false,
    add: false,
    addend_norm: false,
    weight: false,
    bias: false,
    second: false,
    quantize: false,
};

#[test]
fn norms_that_cannot_be() {
    let heads = NormParams { width: 128, group: 64, ..Default::default() };
    let error = heads.kernel(Norm { quantize: true, ..PLAIN }, 1).unwrap_err().to_string();
    assert!(error.contains("64") && error.contains("128"), "{error}");
    assert!(heads.kernel(Norm { add: true, addend_norm: true, ..PLAIN }, 1).is_err());
    assert!(NormParams { group: 0, ..heads }.kernel(PLAIN, 1).is_err());
    let rows = NormParams { width: 128, group: 128, ..Default::default() };
    assert!(rows.kernel(Norm { kind: None, ..PLAIN }, 1).is_err());
    assert!(rows.kernel(Norm { second: true, ..PLAIN }, 1).is_err());
}

#[test]
fn gates() {
    everywhere(|gpu, random, rows, width| {
        for activation in CURVES {
            let bits = random.word();
            let [is_gated, in_place, quantize] = [0, 1, 2].map(|bit| bits >> bit & 1 == 1);
            let gate = Gate { activation, is_gated, in_place, quantize };
            let of = format!("{gate:?} {rows} x {width} on {gpu:?}");
            let input = Slot::random(random, rows, width).map(|_, values| {
                values.iter_mut().enumerate().for_each(|(i, value)| *value *= [0.1, 3.0, 40.0][i % 3]);
            });
            let (up, output) = (Slot::random(random, rows, width), Slot::random(random, rows, width));
            let params =
                GateParams { outputs: 0, width: width as u32, gate: input.view, up: up.view, output: output.view };
            let target = if gate.in_place { &input } else { &output };
            let expected = target.map(|row, values| {
                let factors = input.row(row).iter().zip(up.row(row));
                values.iter_mut().zip(factors).for_each(|(to, (&x, &up))| {
                    *to = if is_gated { ops::gate(activation, x, up) } else { ops::activate(activation, x) };
                });
            });
            let (input_bytes, up_bytes, output_bytes) = (input.bytes(), up.bytes(), output.bytes());
            let (integers, scales) = quantized_bytes(width as u32);
            let data = [
                (!gate.in_place, Data::Read(&input_bytes)),
                (is_gated, Data::Read(&up_bytes)),
                (gate.in_place, Data::Change(&input_bytes)),
                (!gate.in_place, Data::Change(&output_bytes)),
                (gate.quantize, Data::Write(rows * integers as usize)),
                (gate.quantize, Data::Write(rows * scales as usize)),
            ];
            let data: Vec<Data> = data.into_iter().filter(|(bound, _)| *bound).map(|(_, data)| data).collect();
            let found = on(gpu, &params.kernel(gate, rows as u32 + 2), rows, &params, &data);
            expected.assert_near(&found[0], &of);
            if gate.quantize {
                let gated = Slot { buffer: floats(&found[0]), ..target.clone() };
                let rows_of: Vec<Vec<f32>> = (0..rows).map(|row| gated.row(row).to_vec()).collect();
                assert_quantized(&found[1], &found[2], &rows_of, &of);
            }
        }
    });
}

/// Rows with ties, with numbers as small as masks, and all alike.
fn rows_to_choose_from(random: &mut Random, rows: usize, width: usize) -> Slot {
    let kind = random.word();
    Slot::random(random, rows, width).map(|row, values| match (kind as usize + row) % 5 {
        0 => {}
        1 => values.iter_mut().for_each(|value| *value = (*value * 4.0).round()),
        2 => values.fill(-3e38),
        3 => values.iter_mut().enumerate().for_each(|(i, value)| {
            *value = if i % 7 == 3 {
                -0.0
            } else if i % 5 == 0 {
                0.0
            } else {
                -3e38
            };
        }),
        _ => values.iter_mut().enumerate().for_each(|(i, value)| {
            *value = if i % 3 == 0 { f32::NEG_INFINITY } else { -value.abs() * 1e-40 };
        }),
    })
}

/// The indices of a row, largest number first, of equals the lowest index first.
fn in_order(row: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..row.len() as u32).collect();
    order.sort_by(|&a, &b| row[b as usize].partial_cmp(&row[a as usize]).unwrap()); // keeps the order of equals
    order
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// Calls a check for each GPU and some shapes; the last, with a large vocabulary, takes each device once.
fn where_rows_are_long(check: impl Fn(&Gpu, &mut Random, usize, usize)) {
    let mut random = Random(4);
    let mut seen = vec![];
    for gpu in gpus() {
        for (rows, width) in [(1, 1), (3, 31), (9, 257), (2, 4100)] {
            check(&gpu, &mut random, rows, width);
        }
        if !seen.contains(&gpu.info().name) {
            seen.push(gpu.info().name.clone());
            check(&gpu, &mut random, 2, 152_064);
        }
    }
}

#[test]
fn argmax() {
    where_rows_are_long(|gpu, random, rows, width| {
        let slot = rows_to_choose_from(random, rows, width);
        let params = ArgmaxParams::new(0, width as u32, slot.view);
        let [first, second] = params.kernels(rows as u32 + 2);
        let candidates = Data::Write(rows * params.parts as usize * 8);
        let candidates = on(gpu, &first, rows, &params, &[Data::Read(&slot.bytes()), candidates]);
        let found = on(gpu, &second, rows, &params, &[Data::Read(&candidates[0]), Data::Write(rows * 8)]);
        let indices: Vec<u32> = words(&found[0]).chunks(2).map(|pair| pair[1]).collect();
        let expected: Vec<u32> = (0..rows).map(|row| in_order(slot.row(row))[0]).collect();
        let numbers: Vec<u32> = words(&found[0]).chunks(2).map(|pair| pair[0]).collect();
        let is_right = |(row, &bits): (usize, &u32)| f32::from_bits(bits) == slot.row(row)[expected[row] as usize];
        assert!(numbers.iter().enumerate().all(is_right), "{numbers:?}");
        assert_eq!(indices, expected, "argmax {rows} x {width} on {gpu:?}");
    });
}

#[test]
fn top_k() {
    where_rows_are_long(|gpu, random, rows, width| {
        let (slot, k) = (rows_to_choose_from(random, rows, width), [1, 17, 64][random.word() as usize % 3]);
        let mut bytes = slot.bytes();
        for (params, kernel) in TopKParams::rounds(0, width as u32, slot.view, k, rows as u32 + 2) {
            let kept = Data::Write(rows * (params.parts * k) as usize * 8);
            bytes = on(gpu, &kernel, rows, &params, &[Data::Read(&bytes), kept]).remove(0);
        }
        for (row, found) in words(&bytes).chunks(2 * k as usize).enumerate() {
            let expected = in_order(slot.row(row));
            for (place, found) in found.chunks(2).enumerate() {
                let of = format!("top {k} of {rows} x {width} on {gpu:?}, row {row}, place {place}");
                let index = expected.get(place).copied().unwrap_or(u32::MAX);
                assert_eq!(found[1], index, "{of}");
                if let Some(&value) = slot.row(row).get(index as usize) {
                    assert_eq!(f32::from_bits(found[0]), value, "{of}");
                }
            }
        }
    });
}
