//! The GPU's rotation, store and attention against the executable specification.

mod gpu;

use gpu::{Data, Random, bytes_of, bytes_of_words, floats, gpus, nmse, run};
use kiln::CacheFormat;
use kiln::backend::cpu::ops;
use kiln::backend::gpu::Gpu;
use kiln::backend::gpu::attention::{AttendParams, Attention, MergeParams, NO_PAGE, PageShape};
use kiln::backend::gpu::rotate::{RotateBinding, RotateParams, Rotation};
use kiln::program::{NormKind, RopeStyle};
use kiln::quant;

const PAGE: usize = 32;
const FORMATS: [CacheFormat; 3] = [CacheFormat::F32, CacheFormat::F16, CacheFormat::Q8_0];

/// A slab as bytes, written and read as `shared/page.wgsl` says.
struct Slab {
    shape: PageShape,
    bytes: Vec<u8>,
}

/// A key or a value of a page.
#[derive(Clone, Copy)]
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
    window: usize, // 0: none
    slabs: usize,
    splits: u32,
}

fn shape(format: CacheFormat, heads: u32, key_size: u32, value_size: u32) -> PageShape {
    PageShape { format, heads, key_size, value_size }
}

impl Case {
    fn new(page: PageShape, group: u32, start: usize, tokens: usize) -> Case {
        let attention = Attention { page, heads: page.heads * group, softcap: false, sinks: false };
        Case { attention, start, tokens, window: 0, slabs: 1, splits: 3 }
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
        let first_seen = |position: usize| (position + 1).saturating_sub(if case.window > 0 { case.window } else { end });
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
            ops::attend(query, key_rows, values.iter().map(Vec::as_slice), SCALE, softcap, &mut sum);
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
            window: self.case.window as u32,
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
        let variant = attention.merge().unwrap().for_gpu(gpu);
        let found = run(gpu, &variant, &data, attention.merge_groups(tokens as u32));
        self.check(gpu, "split", &found[0]);
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

/// Runs cases by every kernel that can, on all GPUs.
fn check_all(cases: &[Case]) {
    let gpus = gpus();
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
fn attention_of_every_format_and_context() {
    let contexts = [0, 30, 31, 32, 99, 700];
    let cases = FORMATS.iter().flat_map(|&format| contexts.map(|start| (format, start)));
    check_all(&cases.map(|(format, start)| Case::new(shape(format, 2, 64, 64), 4, start, 1)).collect::<Vec<_>>());
}
