//! The GPU's rotation, store and attention against the executable specification.

#![cfg(feature = "gpu")]

mod gpu;

use gpu::{Data, Random, bytes_of, bytes_of_words, floats, gpus, nmse, run};
use kiln::CacheFormat;
use kiln::backend::cpu::ops;
use kiln::backend::gpu::Gpu;
use kiln::backend::gpu::attention::{AttendParams, Attention, MergeParams, NO_PAGE, PageShape};
use kiln::backend::gpu::rotate::{RotateBinding, RotateParams, Rotation};
use kiln::program::{NormKind, Reach, RopeStyle};
use kiln::quant;

const PAGE: usize = 32;
const FORMATS: [CacheFormat; 3] = [CacheFormat::F32, CacheFormat::F16, CacheFormat::Q8_0];

/// A slab as bytes, written and read as `shared/page.wgsl` says.
struct Slab {
    shape: PageShape,
    bytes: Vec<u8>,
}

/// A key or a value of a page.
#[derive(Debug, Clone, Copy)]
struct Place {
    page: usize,
    head: usize,
    is_value: bool,
    position: usize,
}

impl Slab {
    /// Pages full of what is no number.
    fn poisoned(shape: PageShape, pages: usize) -> Slab {
        Slab { shape, bytes: vec![0xff; pages * shape.page_words() as usize * 4] }
    }

    fn size(&self, is_value: bool) -> usize {
        if is_value { self.shape.value_size as usize } else { self.shape.key_size as usize }
    }

    /// Bytes of a row, and of its scales.
    fn row_bytes(&self, is_value: bool) -> (usize, usize) {
        let size = self.size(is_value);
        match self.shape.format {
            _ if is_value && self.shape.values_in_keys => (0, 0),
            CacheFormat::F32 => (size * 4, 0),
            CacheFormat::F16 => (size * 2, 0),
            CacheFormat::Q8_0 => (size.div_ceil(32) * 32, size.div_ceil(32).div_ceil(2) * 4),
        }
    }

    /// Where a row is, and where its scales are.
    fn at(&self, place: Place) -> (usize, usize) {
        let head_bytes = |is_value| PAGE * (self.row_bytes(is_value).0 + self.row_bytes(is_value).1);
        let head = place.page * self.shape.heads as usize + place.head;
        let start = head * (head_bytes(false) + head_bytes(true)) + if place.is_value { head_bytes(false) } else { 0 };
        let (row, scales) = self.row_bytes(place.is_value);
        (start + place.position * row, start + PAGE * row + place.position * scales)
    }

    /// The row's blocks as the CPU keeps them.
    fn blocks(&self, place: Place) -> Vec<u8> {
        let ((at, scales_at), (row, _)) = (self.at(place), self.row_bytes(place.is_value));
        let bytes = &self.bytes[at..at + row];
        if self.shape.format != CacheFormat::Q8_0 {
            return bytes.to_vec();
        }
        let blocks = bytes.chunks(32).zip(self.bytes[scales_at..].chunks(2));
        blocks.flat_map(|(block, scale)| [scale, block].concat()).collect()
    }

    fn store(&mut self, place: Place, row: &[f32]) {
        let ((at, scales_at), blocks) = (self.at(place), encoded(self.shape.format, row));
        if self.shape.format != CacheFormat::Q8_0 {
            self.bytes[at..at + blocks.len()].copy_from_slice(&blocks);
            return;
        }
        for (i, block) in blocks.chunks(34).enumerate() {
            self.bytes[scales_at + 2 * i..][..2].copy_from_slice(&block[..2]);
            self.bytes[at + 32 * i..][..32].copy_from_slice(&block[2..]);
        }
    }

    fn load(&self, place: Place) -> Vec<f32> {
        decoded(self.shape.format, &self.blocks(place), self.size(place.is_value))
    }
}

fn encoded(format: CacheFormat, row: &[f32]) -> Vec<u8> {
    let mut padded = row.to_vec();
    padded.resize(row.len().next_multiple_of(format.tensor_type().block_elements() as usize), 0.0);
    let mut bytes = vec![0; format.row_bytes(row.len() as u32) as usize];
    quant::encode(format.tensor_type(), &padded, &mut bytes).unwrap();
    bytes
}

fn decoded(format: CacheFormat, blocks: &[u8], size: usize) -> Vec<f32> {
    let mut row = vec![0.0; size.next_multiple_of(format.tensor_type().block_elements() as usize)];
    quant::decode(format.tensor_type(), blocks, &mut row).unwrap();
    row.truncate(size);
    row
}

/// Rows of a slot that begin at 8, with gaps of 4.
fn spread(rows: &[f32], width: usize) -> Vec<f32> {
    let mut slot = vec![f32::NAN; 8];
    rows.chunks(width).for_each(|row| slot.extend(row.iter().chain(&[f32::NAN; 4])));
    slot
}

fn gathered(slot: &[f32], width: usize) -> Vec<f32> {
    slot[8..].chunks(width + 4).flat_map(|row| &row[..width]).copied().collect()
}

/// Numbers that are a permutation of those below `count`.
fn shuffled(count: usize, random: &mut Random) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..count as u32).collect();
    (1..count).for_each(|i| ids.swap(i, random.word() as usize % (i + 1)));
    ids
}

/// An attention to be tried.
#[derive(Debug, Clone, Copy)]
struct Case {
    attention: Attention,
    start: usize,
    tokens: usize,
    reach: Reach,
    slabs: usize,
    splits: u32,
}

fn shape(format: CacheFormat, heads: u32, key_size: u32, value_size: u32) -> PageShape {
    PageShape { format, heads, key_size, value_size, values_in_keys: false }
}

impl Case {
    fn new(page: PageShape, group: u32, start: usize, tokens: usize) -> Case {
        let attention = Attention { page, heads: page.heads * group, softcap: false, sinks: false };
        Case { attention, start, tokens, reach: Reach::All, slabs: 1, splits: 3 }
    }
}

/// What a case is run with, and what should come of it.
struct Setting {
    case: Case,
    queries: Vec<f32>,
    sinks: Vec<f32>,
    table: Vec<u32>,
    slabs: Vec<Slab>,
    slab_pages: usize,
    expected: Vec<f32>,
}

const SCALE: f32 = 0.3;
const SOFTCAP: f32 = 2.0;
const TABLE_START: usize = 5;

impl Setting {
    fn new(case: Case, random: &mut Random) -> Setting {
        let Attention { page, heads, .. } = case.attention;
        let end = case.start + case.tokens;
        let pages = end.div_ceil(PAGE);
        // There are more pages than the sequence has, in any order.
        let slab_pages = (pages + 2).div_ceil(case.slabs);
        let ids = shuffled(slab_pages * case.slabs, random);
        let mut slabs: Vec<Slab> = (0..case.slabs).map(|_| Slab::poisoned(page, slab_pages)).collect();
        let first_seen = |position: usize| case.reach.first_seen(position);
        let first = first_seen(case.start);
        let mut table = vec![7; TABLE_START];
        table.extend((0..pages).map(|page| if page < first / PAGE { NO_PAGE } else { ids[page] }));
        table.push(12345); // of another layer
        let (mut keys, mut values) = (vec![vec![]; end], vec![vec![]; end]);
        for position in first..end {
            for head in 0..page.heads as usize {
                let id = ids[position / PAGE] as usize;
                let slab = &mut slabs[id / slab_pages];
                for (is_value, rows) in [(false, &mut keys[position]), (true, &mut values[position])] {
                    if is_value && page.values_in_keys {
                        let key = slab.load(Place {
                            page: id % slab_pages,
                            head,
                            is_value: false,
                            position: position % PAGE,
                        });
                        rows.push(key[..page.value_size as usize].to_vec());
                        continue;
                    }
                    let place = Place { page: id % slab_pages, head, is_value, position: position % PAGE };
                    slab.store(place, &random.normals(slab.size(is_value)));
                    rows.push(slab.load(place));
                }
            }
        }
        let queries = random.normals(case.tokens * (heads * page.key_size) as usize);
        let sinks = random.normals(heads as usize);
        let mut expected = vec![];
        for (index, query) in queries.chunks(page.key_size as usize).enumerate() {
            let (position, head) = (case.start + index / heads as usize, index % heads as usize);
            let kv_head = head / (heads / page.heads) as usize;
            let seen = first_seen(position)..position + 1;
            let mut sum = vec![0.0; page.value_size as usize];
            let softcap = case.attention.softcap.then_some(SOFTCAP);
            let rows = |of: &'_ [Vec<Vec<f32>>]| -> Vec<Vec<f32>> {
                of[seen.clone()].iter().map(|heads| heads[kv_head].clone()).collect()
            };
            let (keys, values) = (rows(&keys), rows(&values));
            let key_rows = keys.iter().map(Vec::as_slice);
            ops::attend(query, key_rows, values.iter().map(Vec::as_slice), SCALE, softcap, None, &mut sum);
            if case.attention.sinks {
                let score = |key: &Vec<f32>| {
                    let score = ops::dot(query, key) * SCALE;
                    softcap.map_or(score, |cap| ops::softcap(score, cap))
                };
                let mut weights: Vec<f32> = keys.iter().map(score).chain([sinks[head]]).collect();
                ops::softmax(&mut weights);
                let share = 1.0 - weights[weights.len() - 1];
                sum.iter_mut().for_each(|sum| *sum *= share);
            }
            expected.extend(sum);
        }
        Setting { case, queries, sinks, table, slabs, slab_pages, expected }
    }

    fn params(&self, slab: usize) -> AttendParams {
        let Attention { page, heads, .. } = self.case.attention;
        AttendParams {
            table_start: TABLE_START as u32,
            first_page: (slab * self.slab_pages) as u32,
            pages: self.slab_pages as u32,
            window: if let Reach::Window(positions) = self.case.reach { positions as u32 } else { 0 },
            chunk: if let Reach::Chunk(positions) = self.case.reach { positions as u32 } else { 0 },
            query_start: 8,
            query_stride: heads * page.key_size + 4,
            scale: SCALE,
            softcap: SOFTCAP,
            splits: self.case.splits,
            first_split: slab as u32 * self.case.splits,
            out_start: 8,
            out_stride: self.out_width() as u32 + 4,
            sinks_start: 1,
        }
    }

    fn out_width(&self) -> usize {
        (self.case.attention.heads * self.case.attention.page.value_size) as usize
    }

    fn out_bytes(&self) -> usize {
        (8 + self.case.tokens * (self.out_width() + 4)) * 4
    }

    fn step(&self) -> Vec<u8> {
        bytes_of_words(&[self.case.tokens as u32, self.case.start as u32, 0, 0])
    }

    fn query_bytes(&self) -> Vec<u8> {
        bytes_of(&spread(&self.queries, (self.case.attention.heads * self.case.attention.page.key_size) as usize))
    }

    fn sink_bytes(&self) -> Vec<u8> {
        bytes_of(&[&[f32::NAN], &self.sinks[..]].concat())
    }

    fn check(&self, gpu: &Gpu, kernel: &str, found: &[u8]) {
        let found = gathered(&floats(found), self.out_width());
        let error = nmse(&found, &self.expected);
        assert!(error < 1e-9, "{kernel}: NMSE {error:e} for {:?} on {gpu:?}", self.case);
    }

    fn run_split(&self, gpu: &Gpu) {
        let Case { attention, tokens, splits, slabs, .. } = self.case;
        let (step, queries, table) = (self.step(), self.query_bytes(), bytes_of_words(&self.table));
        let partials = slabs as u32 * splits;
        let mut buffer = vec![0xff; attention.partial_words(partials, tokens as u32) as usize * 4];
        let variant = attention.split().unwrap().for_gpu(gpu);
        for (number, slab) in self.slabs.iter().enumerate() {
            let params = self.params(number);
            let data = [
                Data::Read(&step),
                Data::Read(bytemuck::bytes_of(&params)),
                Data::Read(&table),
                Data::Read(&slab.bytes),
                Data::Read(&queries),
                Data::Change(&buffer),
            ];
            buffer = run(gpu, &variant, &data, attention.split_groups(splits, tokens as u32)).remove(0);
        }
        let out_stride = self.out_width() as u32 + 4;
        let params = MergeParams { partials, out_start: 8, out_stride, sinks_start: 1 };
        let sinks = self.sink_bytes();
        let mut data = vec![
            Data::Read(&step),
            Data::Read(bytemuck::bytes_of(&params)),
            Data::Read(&buffer),
            Data::Write(self.out_bytes()),
        ];
        data.extend(attention.sinks.then_some(Data::Read(&sinks)));
        let variant = attention.merge(false).unwrap().for_gpu(gpu);
        let found = run(gpu, &variant, &data, attention.merge_groups(tokens as u32));
        self.check(gpu, "split", &found[0]);
        if attention.rounds() {
            let bytes = tokens * self.out_width();
            data.splice(3..4, [Data::Write(bytes), Data::Write(bytes / 2)]);
            let variant = attention.merge(true).unwrap().for_gpu(gpu);
            let found = run(gpu, &variant, &data, attention.merge_groups(tokens as u32));
            let scales = floats(&found[1]);
            let rounded: Vec<f32> =
                found[0].iter().enumerate().map(|(i, &byte)| f32::from(byte as i8) * scales[i / 32 * 4]).collect();
            let error = nmse(&rounded, &self.expected);
            assert!(error < 5e-4, "rounded: NMSE {error:e} for {:?} on {gpu:?}", self.case);
        }
    }

    fn run_tile(&self, gpu: &Gpu) {
        let Case { attention, tokens, .. } = self.case;
        let Some(variant) = attention.tile().unwrap() else { return };
        let (step, queries, table) = (self.step(), self.query_bytes(), bytes_of_words(&self.table));
        let (params, sinks) = (self.params(0), self.sink_bytes());
        let mut data = vec![
            Data::Read(&step),
            Data::Read(bytemuck::bytes_of(&params)),
            Data::Read(&table),
            Data::Read(&self.slabs[0].bytes),
            Data::Read(&queries),
            Data::Write(self.out_bytes()),
        ];
        data.extend(attention.sinks.then_some(Data::Read(&sinks)));
        let found = run(gpu, &variant.for_gpu(gpu), &data, attention.tile_groups(tokens as u32));
        self.check(gpu, "tile", &found[0]);
    }
}

/// The GPUs, checked and not. These kernels use no tier, so one device of each will do.
fn devices() -> Vec<Gpu> {
    let mut devices: Vec<Gpu> = vec![];
    for gpu in gpus() {
        let is_known = |known: &Gpu| known.info().name == gpu.info().name && known.checked() == gpu.checked();
        if !devices.iter().any(is_known) {
            devices.push(gpu);
        }
    }
    devices
}

/// Runs cases by every kernel that can, on all GPUs.
fn check_all(cases: &[Case]) {
    let gpus = devices();
    let mut random = Random(17);
    for &case in cases {
        let setting = Setting::new(case, &mut random);
        for gpu in &gpus {
            setting.run_split(gpu);
            if case.slabs == 1 {
                setting.run_tile(gpu);
            }
        }
    }
}

#[test]
fn attention_in_every_format_and_context() {
    let contexts = [30, 99, 700, 0, 31, 32].map(|start| (FORMATS[start % 3], start)).into_iter();
    let cases = contexts.chain(FORMATS.map(|format| (format, 230)));
    check_all(&cases.map(|(format, start)| Case::new(shape(format, 2, 64, 64), 4, start, 1)).collect::<Vec<_>>());
}

#[test]
fn attention_of_every_shape() {
    let shapes = [
        (1, 1, 8, 16),
        (2, 7, 40, 40),
        (1, 2, 80, 80),
        (2, 4, 96, 96),
        (1, 3, 112, 112),
        (1, 17, 128, 128),
        (1, 2, 192, 128),
        (1, 8, 256, 256),
        (1, 1, 512, 512),
        (1, 9, 20, 12),
    ];
    let cases = (0..).zip(shapes).map(|(i, (heads, group, key_size, value_size))| {
        Case::new(shape(FORMATS[i % 3], heads, key_size, value_size), group, 40 + i, 3)
    });
    check_all(&cases.collect::<Vec<_>>());
}

#[test]
fn attention_of_many_tokens() {
    let page = shape(CacheFormat::F16, 2, 32, 32);
    let cases = [(1, 0, 1), (4, 0, 33), (2, 95, 70), (7, 31, 40), (16, 3, 9), (20, 60, 5)];
    check_all(&cases.map(|(group, start, tokens)| Case::new(page, group, start, tokens)));
}

#[test]
fn attention_within_windows() {
    let windows = [(1, 5, 2), (32, 64, 40), (33, 64, 3), (50, 300, 50), (1000, 100, 2), (64, 63, 1)];
    let case = |(window, start, tokens)| Case {
        reach: Reach::Window(window),
        splits: 4,
        ..Case::new(shape(CacheFormat::F16, 2, 16, 16), 2, start, tokens)
    };
    check_all(&windows.map(case));
}

#[test]
fn attention_within_chunks() {
    let chunks = [(1, 5, 2), (32, 64, 40), (33, 64, 3), (50, 300, 50), (1000, 100, 2), (7, 60, 33), (64, 63, 2)];
    let case = |(chunk, start, tokens)| Case {
        reach: Reach::Chunk(chunk),
        splits: 4,
        ..Case::new(shape(CacheFormat::F16, 2, 16, 16), 2, start, tokens)
    };
    check_all(&chunks.map(case));
}

#[test]
fn attention_with_softcap_and_sinks() {
    let case = |(softcap, sinks, reach)| {
        let case = Case::new(shape(CacheFormat::Q8_0, 2, 64, 32), 3, 70, 4);
        Case { attention: Attention { softcap, sinks, ..case.attention }, reach, ..case }
    };
    let window = Reach::Window(20);
    let cases = [(true, false, Reach::All), (false, true, Reach::All), (true, true, Reach::All), (false, true, window)];
    check_all(&cases.map(case));
}

#[test]
fn attention_with_values_in_the_keys() {
    let case = |(format, group, key_size, value_size, start, tokens)| {
        let page = PageShape { values_in_keys: true, ..shape(format, 1, key_size, value_size) };
        Case::new(page, group, start, tokens)
    };
    let [f32, f16, q8] = FORMATS;
    check_all(&[(f16, 16, 576, 512, 40, 2), (f32, 4, 96, 64, 33, 40), (q8, 3, 96, 32, 70, 3)].map(case));
}

#[test]
fn attention_over_several_slabs() {
    let case = |(slabs, splits, reach, start)| Case {
        slabs,
        splits,
        reach,
        ..Case::new(shape(CacheFormat::F16, 2, 48, 48), 2, start, 3)
    };
    let window = Reach::Window(40);
    let cases = [(2, 1, Reach::All, 200), (3, 4, Reach::All, 100), (2, 2, window, 150), (2, 16, Reach::All, 3)];
    check_all(&cases.map(case));
}

/// A rotation to be tried.
#[derive(Debug, Clone, Copy)]
struct Turning {
    rotation: Rotation,
    start: usize,
    tokens: usize,
    /// Whether weights of the norm are as long as the row.
    long_weights: bool,
}

impl Turning {
    fn new(page: PageShape, query_heads: u32, pairs: u32) -> Turning {
        let rotation = Rotation { page, query_heads, store: true, together: false, norm: false, halves: false, pairs };
        Turning { rotation, start: 29, tokens: 5, long_weights: false }
    }

    /// A row of heads as it should be afterwards.
    fn turned(&self, row: &[f32], weights: &[f32], position: usize, angles: &[f32]) -> Vec<f32> {
        let (mut row, size) = (row.to_vec(), self.rotation.page.key_size as usize);
        if self.rotation.norm {
            ops::norm(NormKind::Rms, &mut row, size, EPSILON, Some(weights), None);
        }
        let style = if self.rotation.halves { RopeStyle::Halves } else { RopeStyle::Adjacent };
        ops::rotate(&mut row, size, style, angles, MAGNITUDE, position);
        row
    }

    fn run(&self, gpu: &Gpu, random: &mut Random) {
        let Rotation { page, query_heads, pairs, .. } = self.rotation;
        let (size, heads) = (page.key_size as usize, page.heads as usize);
        let widths = [query_heads as usize * size, heads * size, heads * page.value_size as usize];
        let [queries, keys, values] = widths.map(|width| random.normals(self.tokens * width));
        let [query_norm, key_norm] =
            [widths[0], widths[1]].map(|width| random.normals(if self.long_weights { width.max(1) } else { size }));
        let angles: Vec<f32> = (0..pairs).map(|pair| 0.7f32.powi(pair as i32)).collect();
        let mut turns = vec![f32::NAN; 2 * TURNS_START];
        for position in self.start..self.start + self.tokens {
            for angle in &angles {
                let (sin, cos) = (position as f32 * angle).sin_cos();
                turns.extend([cos * MAGNITUDE, sin * MAGNITUDE]);
            }
        }
        // The slab has pages 3 and 4; the second page of the sequence is in another slab.
        let table = [7, 7, 3, 8];
        let params = RotateParams {
            table_start: 2,
            first_page: 3,
            pages: 2,
            turns_start: TURNS_START as u32,
            query_start: 8,
            query_stride: widths[0] as u32 + 4,
            key_start: 8,
            key_stride: widths[1] as u32 + 4,
            value_start: 8,
            value_stride: widths[2] as u32 + 4,
            query_norm_start: 0,
            query_norm_length: query_norm.len() as u32,
            key_norm_start: 0,
            key_norm_length: key_norm.len() as u32,
            epsilon: EPSILON,
            unused: 0,
        };
        let mut slab = Slab::poisoned(page, 2);
        let untouched = slab.bytes.clone();
        let inputs: Vec<Vec<u8>> = vec![
            bytes_of_words(&[self.tokens as u32, self.start as u32, 0, 0]),
            bytes_of(&spread(&queries, widths[0].max(1))),
            bytes_of(&turns),
            bytes_of(&spread(&keys, widths[1])),
            bytes_of(&spread(&values, widths[2])),
            bytes_of_words(&table),
            bytes_of(&query_norm),
            bytes_of(&key_norm),
        ];
        let data = self.rotation.bindings().into_iter().map(|binding| match binding {
            RotateBinding::Step => Data::Read(&inputs[0]),
            RotateBinding::Params => Data::Read(bytemuck::bytes_of(&params)),
            RotateBinding::Queries => Data::Change(&inputs[1]),
            RotateBinding::Cache => Data::Change(&untouched),
            RotateBinding::Turns => Data::Read(&inputs[2]),
            RotateBinding::Keys => Data::Read(&inputs[3]),
            RotateBinding::Values => Data::Read(&inputs[4]),
            RotateBinding::Table => Data::Read(&inputs[5]),
            RotateBinding::QueryNorm => Data::Read(&inputs[6]),
            RotateBinding::KeyNorm => Data::Read(&inputs[7]),
        });
        let variant = self.rotation.variant().unwrap().for_gpu(gpu);
        let groups = self.rotation.groups(self.tokens as u32);
        let mut written = run(gpu, &variant, &data.collect::<Vec<_>>(), groups);
        if query_heads > 0 {
            let found = gathered(&floats(&written.remove(0)), widths[0]);
            let rows = (self.start..).zip(queries.chunks(widths[0]));
            let turned = rows.flat_map(|(position, row)| self.turned(row, &query_norm, position, &angles));
            let error = nmse(&found, &turned.collect::<Vec<_>>());
            assert!(error < 1e-12, "queries: NMSE {error:e} for {self:?} on {gpu:?}");
        }
        if self.rotation.store {
            slab.bytes = written.remove(0);
            for (token, position) in (self.start..self.start + self.tokens).enumerate().filter(|place| place.1 < PAGE) {
                let key = self.turned(&keys[token * widths[1]..][..widths[1]], &key_norm, position, &angles);
                let value = &values[token * widths[2]..][..widths[2]];
                let exact = pairs == 0 && !self.rotation.norm;
                self.check_rows(gpu, &mut slab, (position, false), &key, exact);
                if !page.values_in_keys {
                    self.check_rows(gpu, &mut slab, (position, true), value, true);
                }
            }
            assert!(slab.bytes == untouched, "more is stored than should be: {self:?} on {gpu:?}");
        }
    }

    /// Compares what is stored of all heads, and poisons it again.
    fn check_rows(&self, gpu: &Gpu, slab: &mut Slab, (position, is_value): (usize, bool), row: &[f32], exact: bool) {
        for (head, expected) in row.chunks(slab.size(is_value)).enumerate() {
            let place = Place { page: 0, head, is_value, position };
            let (found, blocks) = (slab.blocks(place), encoded(slab.shape.format, expected));
            let words = format!("{place:?}: {found:?} is not {blocks:?} for {self:?} on {gpu:?}");
            match slab.shape.format {
                CacheFormat::Q8_0 => {
                    let near = |(a, b): (&u8, &u8)| (*a as i8).abs_diff(*b as i8) <= 1;
                    assert!(found.iter().zip(&blocks).all(near), "{words}");
                }
                _ if exact => assert!(found == blocks, "{words}"),
                format => {
                    let bound = if format == CacheFormat::F32 { 1e-12 } else { 1e-7 };
                    let error = nmse(&slab.load(place), expected);
                    assert!(error < bound, "NMSE {error:e}, {words}");
                }
            }
            let ((at, scales_at), (row, scales)) = (slab.at(place), slab.row_bytes(is_value));
            slab.bytes[at..at + row].fill(0xff);
            slab.bytes[scales_at..scales_at + scales].fill(0xff);
        }
    }
}

const EPSILON: f32 = 1e-5;
const MAGNITUDE: f32 = 1.25;
const TURNS_START: usize = 3;

fn check_turnings(turnings: &[Turning]) {
    let gpus = devices();
    let mut random = Random(3);
    turnings.iter().for_each(|turning| gpus.iter().for_each(|gpu| turning.run(gpu, &mut random)));
}

#[test]
fn keys_that_hold_their_values() {
    let turning = |format| Turning::new(PageShape { values_in_keys: true, ..shape(format, 2, 96, 64) }, 4, 16);
    check_turnings(&FORMATS.map(turning));
}

#[test]
fn rotation_and_store_in_every_format() {
    let mut turnings = vec![];
    for format in FORMATS {
        for (heads, query_heads, key_size, value_size, pairs) in
            [(2, 4, 64, 64, 32), (1, 7, 40, 40, 10), (2, 2, 96, 128, 48), (1, 1, 512, 8, 0)]
        {
            let turning = Turning::new(shape(format, heads, key_size, value_size), query_heads, pairs);
            let rotation = Rotation { halves: turnings.len() % 3 != 1, ..turning.rotation };
            turnings.push(Turning { rotation, ..turning });
        }
    }
    check_turnings(&turnings);
}

#[test]
fn rotation_after_norm() {
    let turning = Turning::new(shape(CacheFormat::F16, 2, 128, 64), 4, 64);
    let rotation = Rotation { norm: true, halves: true, ..turning.rotation };
    let no_turn = Rotation { pairs: 0, ..rotation };
    check_turnings(&[
        Turning { rotation, ..turning },
        Turning { rotation, long_weights: true, ..turning },
        Turning { rotation: no_turn, ..turning },
    ]);
}

#[test]
fn rotation_or_store_alone() {
    let turning = Turning::new(shape(CacheFormat::F32, 2, 32, 32), 3, 16);
    for norm in [false, true] {
        let queries_only = Rotation { store: false, norm, ..turning.rotation };
        let store_only = Rotation { query_heads: 0, norm, ..turning.rotation };
        check_turnings(&[queries_only, store_only].map(|rotation| Turning { rotation, ..turning }));
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let attention = Case::new(shape(CacheFormat::F16, 2, 64, 64), 1, 0, 1).attention;
    assert!(Attention { heads: 3, ..attention }.split().is_err());
    for (heads, key_size, value_size) in [(0, 64, 64), (1, 0, 64), (1, 62, 64), (1, 64, 516), (1, 2048, 64)] {
        let page = shape(CacheFormat::F16, heads, key_size, value_size);
        assert!(Attention { page, ..attention }.split().is_err(), "{page:?}");
        assert!(Turning::new(page, 1, 0).rotation.variant().is_err(), "{page:?}");
    }
    assert!(Turning::new(attention.page, 1, 33).rotation.variant().is_err());
}
