//! Every type of weights on the GPU, unit by unit: the embedding kernel decodes rows of random blocks, and finds what the
//! decoders of the CPU find.

#![cfg(feature = "gpu")]

mod gpu;

use gpu::{Data, Random, bytes_of, bytes_of_words, floats, gpus, nmse, run};
use kiln::backend::gpu::Gpu;
use kiln::backend::gpu::embed;
use kiln::backend::gpu::layout::{Layout, UNIT_COLUMNS};
use kiln::gguf::TensorType;
use kiln::quant::{FORMATS, Format, decode};

/// What is in memory that the kernel must leave alone.
const UNTOUCHED: f32 = 12345.0;

/// Rows of a type on the CPU, and what they are worth.
struct Table {
    layout: Layout,
    columns: usize,
    rows: Vec<Vec<u8>>,
    values: Vec<Vec<f32>>,
}

impl Table {
    fn random(layout: Layout, columns: usize, rows: usize, random: &mut Random) -> Self {
        let rows: Vec<Vec<u8>> = (0..rows).map(|_| row(layout.kind(), columns, random)).collect();
        let values = rows.iter().map(|row| {
            let mut values = vec![0.0; columns];
            decode(layout.kind(), row, &mut values).unwrap();
            values
        });
        Table { layout, columns, values: values.collect(), rows }
    }

    /// Looks up tokens with the table split into two parts, and compares.
    fn check(&self, gpu: &Gpu, ids: &[u32]) {
        let (columns, variant) = (self.columns, embed::variant(&self.layout, false));
        let (start, stride, factor) = (5, columns + 3, 1.5);
        let mut out = bytes_of(&vec![UNTOUCHED; start + ids.len() * stride]);
        let middle = self.rows.len() / 2;
        let step = bytes_of_words(&[ids.len() as u32, 0, 0, 0]);
        let ids_bytes = bytes_of_words(ids);
        let table = self.layout.table().map(|table| bytes_of_words(&table));
        for rows in [0..middle, middle..self.rows.len()] {
            let (quants, scales) = self.packed(&self.rows[rows.clone()]);
            let units = self.layout.row_units(columns);
            let [columns, units, first, count, start, stride] =
                [columns, units, rows.start, rows.len(), start, stride].map(|size| size as u32);
            let params = bytes_of_words(&[columns, units, first, count, f32::to_bits(factor), start, stride]);
            let mut data = vec![Data::Read(&step), Data::Read(&params), Data::Read(&ids_bytes), Data::Read(&quants)];
            if !self.layout.is_float() {
                data.push(Data::Read(&scales));
            }
            data.extend(table.as_deref().map(Data::Read));
            data.push(Data::Change(&out));
            let groups = [columns.div_ceil(embed::COLUMNS), ids.len() as u32, 1];
            out = run(gpu, &variant, &data, groups).remove(0);
        }
        let mut expected = vec![UNTOUCHED; start + ids.len() * stride];
        for (token, &id) in ids.iter().enumerate() {
            let slot = expected[start + token * stride..][..columns].iter_mut();
            slot.zip(&self.values[id as usize]).for_each(|(slot, value)| *slot = value * factor);
        }
        self.compare(gpu, &floats(&out), &expected);
    }

    fn packed(&self, rows: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
        let quants_bytes = self.layout.quants_row_bytes(self.columns);
        let scales_bytes = self.layout.scales_row_bytes(self.columns);
        let (mut quants, mut scales) = (vec![0xee; rows.len() * quants_bytes], vec![0xee; rows.len() * scales_bytes]);
        for (i, row) in rows.iter().enumerate() {
            let quants = &mut quants[i * quants_bytes..][..quants_bytes];
            let scales = &mut scales[i * scales_bytes..][..scales_bytes];
            self.layout.pack_row(self.columns, row, quants, scales);
        }
        (quants, scales)
    }

    /// Each number is right but for one rounding, and so is the whole.
    fn compare(&self, gpu: &Gpu, found: &[f32], expected: &[f32]) {
        let name = format!("{} with {} columns on {gpu:?}", self.layout.kind().name(), self.columns);
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            let largest = a.abs().max(b.abs());
            assert!(a.is_finite() && (a - b).abs() <= largest * 2.0 * f32::EPSILON, "{name}: {i}: {a}, not {b}");
        }
        assert!(nmse(found, expected) < 1e-12, "{name}");
    }
}

/// A row of random blocks whose values are finite, and not so small that a GPU would make zeros of them.
fn row(kind: TensorType, columns: usize, random: &mut Random) -> Vec<u8> {
    let (elements, bytes) = (kind.block_elements() as usize, kind.block_bytes() as usize);
    let mut block = vec![0; bytes];
    let mut values = vec![0.0f32; elements];
    let blocks = (0..columns / elements).map(|_| {
        loop {
            block.iter_mut().for_each(|byte| *byte = random.word() as u8);
            decode(kind, &block, &mut values).unwrap();
            if values.iter().all(|&value| value == 0.0 || (1e-25..1e25).contains(&value.abs())) {
                return block.clone();
            }
        }
    });
    blocks.collect::<Vec<_>>().concat()
}

/// Decoding depends on no tier: one device of each name with checks, and one without.
fn devices() -> Vec<Gpu> {
    let mut seen = vec![];
    let is_new = |gpu: &Gpu| {
        let key = (gpu.info().name.clone(), gpu.checked());
        let is_new = !seen.contains(&key);
        seen.push(key);
        is_new
    };
    gpus().into_iter().filter(is_new).collect()
}

#[test]
fn embedding_rows_of_every_type() {
    let mut random = Random(7);
    let gpus = devices();
    for format in &FORMATS {
        let Ok(layout) = Layout::of(format.kind()) else { continue };
        let block = format.kind().block_elements() as usize;
        let columns = match layout.is_float() {
            true => vec![331, 64],
            false => [block, 3 * block].into_iter().chain((block < 128).then_some(10 * block)).collect(),
        };
        for columns in columns {
            let table = Table::random(layout, columns, 7, &mut random);
            gpus.iter().for_each(|gpu| table.check(gpu, &[5, 0, 3, 6, 2, 3]));
        }
    }
}

/// Among many blocks nearly every entry of every codebook occurs, and every scale.
#[test]
fn many_blocks_of_every_type() {
    let mut random = Random(8);
    let gpus = devices();
    for format in &FORMATS {
        let Ok(layout) = Layout::of(format.kind()) else { continue };
        let table = Table::random(layout, 16384, 6, &mut random);
        gpus.iter().filter(|gpu| !gpu.checked()).for_each(|gpu| table.check(gpu, &[0, 1, 2, 3, 4, 5]));
    }
}

#[test]
fn sizes() {
    assert_eq!(UNIT_COLUMNS, 32);
    for (kind, quants_bytes, scales_bytes) in [
        (TensorType::Q4_0, 16 * 128, 2 * 128),
        (TensorType::Q4_K, 128 * 16, 16 * 16),
        (TensorType::Q6_K, 192 * 16, 18 * 16),
        (TensorType::F16, 2 * 4096, 0),
    ] {
        let layout = Layout::of(kind).unwrap();
        assert_eq!((layout.quants_row_bytes(4096), layout.scales_row_bytes(4096)), (quants_bytes, scales_bytes));
        let file_bytes = Format::of(kind).unwrap().bytes_for(4096).unwrap();
        assert_eq!(quants_bytes + scales_bytes, file_bytes);
    }
    assert_eq!(Layout::of(TensorType::F32).unwrap().quants_row_bytes(331), 352 * 4, "whole units");
}
