//! Valid files, damaged in every way that can be enumerated and in many that are drawn: each must end in an error or
//! in a model whose every value and tensor can be reached, without a panic, and without more memory than the file is
//! worth.

mod gguf_bytes;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use gguf_bytes::{Raw, everything, kind};
use kiln::gguf::{Gguf, Value};

/// Counts what is allocated, and the most that was.
struct Counting;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);
static LARGEST_BYTES: AtomicUsize = AtomicUsize::new(0);

impl Counting {
    fn grew(bytes: usize) {
        let live = LIVE_BYTES.fetch_add(bytes, Relaxed) + bytes;
        PEAK_BYTES.fetch_max(live, Relaxed);
        LARGEST_BYTES.fetch_max(bytes, Relaxed);
    }
}

// SAFETY: every request is passed on to the system's allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::grew(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What may be allocated besides, whatever the size of the file: errors and printed values are text.
const SMALL_BYTES: usize = 4096;
/// Most memory at once, in sizes of the file. The header's copy takes one, records of tensors up to six.
const PEAK_FILES: usize = 8;

/// What became of the cases.
#[derive(Default)]
struct Counts {
    cases: usize,
    errors: usize,
    parsed: usize,
    panics: usize,
    /// Largest of all cases: bytes live at once, and in sizes of the file.
    peak_bytes: usize,
    peak_files: f64,
    /// Text of values and errors is written here, so that writing it takes no memory.
    text: String,
}

impl Counts {
    /// Opens files made of `shards` and looks at everything in them.
    fn try_files(&mut self, shards: Vec<Vec<u8>>, as_reader: bool) {
        let file_bytes: usize = shards.iter().map(Vec::len).sum();
        let mut text = std::mem::take(&mut self.text);
        let before = LIVE_BYTES.load(Relaxed);
        PEAK_BYTES.store(before, Relaxed);
        LARGEST_BYTES.store(0, Relaxed);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let opened = match <[Vec<u8>; 1]>::try_from(shards) {
                Ok([bytes]) if as_reader => Gguf::from_reader(Cursor::new(bytes)),
                Ok([bytes]) => Gguf::from_bytes(bytes),
                Err(shards) => Gguf::from_shard_bytes(shards),
            };
            text.clear();
            match opened {
                Ok(file) => check(&file, &mut text),
                Err(error) => write!(text, "{error}").unwrap(),
            }
            !text.starts_with("opened")
        }));
        let peak = PEAK_BYTES.load(Relaxed) - before;
        let largest = LARGEST_BYTES.load(Relaxed);
        self.cases += 1;
        match result {
            Ok(true) => self.errors += 1,
            Ok(false) => self.parsed += 1,
            Err(_) => self.panics += 1,
        }
        let limit = PEAK_FILES * file_bytes + SMALL_BYTES;
        assert!(peak <= limit, "{peak} bytes for a file of {file_bytes}: {text}");
        assert!(largest <= file_bytes.max(SMALL_BYTES), "{largest} bytes at once for a file of {file_bytes}: {text}");
        self.peak_bytes = self.peak_bytes.max(peak);
        self.peak_files = self.peak_files.max(peak as f64 / file_bytes.max(SMALL_BYTES) as f64);
        self.text = text;
    }
}

/// Looks at every value and tensor of a file that was accepted.
fn check(file: &Gguf, text: &mut String) {
    text.push_str("opened");
    let metadata = file.metadata();
    let mut pairs = 0;
    for (key, value) in metadata.iter() {
        text.clear();
        write!(text, "opened {key} {value}").unwrap();
        assert!(metadata.get(key).is_some_and(|found| found.value_type() == value.value_type()));
        if let Value::Array(array) = value {
            assert_eq!(array.iter().count(), array.len());
        }
        pairs += 1;
        let _ = (metadata.u32(key), metadata.f32(key), metadata.str(key), metadata.bool(key));
        let _ = (metadata.strings(key).map(|strings| strings.map(Iterator::count)), metadata.u8s(key));
    }
    assert_eq!(pairs, metadata.len());
    for tensor in file.tensors() {
        let data = file.data(tensor).unwrap();
        assert_eq!(data.len() as u64, tensor.size_bytes());
        assert_eq!(file.tensor(tensor.name()), Some(tensor));
        std::hint::black_box(data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
    }
}

/// A repeatable stream of numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// The files that are damaged in every way: every version, and a big-endian one.
fn valid_files() -> Vec<Raw> {
    vec![everything(3, false), everything(3, true), everything(2, false), everything(1, false)]
}

/// Files as bad for memory as valid files can be: nothing but entries, and each as short as they get. They are too
/// large to be damaged in every way.
fn crowded_files() -> Vec<Raw> {
    let name = |index: u32| char::from_u32(0x100 + index).unwrap().to_string();
    let packed = |tensors: u64, keys: u64| Raw::new(1, false, tensors, keys + 1).key_u32("general.alignment", 1);
    let tensors = (0..3000).fold(packed(3000, 0), |raw, index| raw.tensor(&name(index), &[], 24, index.into()));
    let empty = (0..3000).fold(packed(3000, 0), |raw, index| raw.tensor(&name(index), &[0], 0, 0));
    let keys = (0..3000).fold(packed(0, 3000), |raw, index| raw.key(&name(index), kind::U8).u8(0));
    let array = packed(0, 1).key_array("tokens", kind::STRING, 10_000);
    let strings = (0..10_000).fold(array, |raw, index| raw.string("x".repeat(index % 3)));
    vec![tensors.data(3000), empty, keys, strings]
}

/// A model in two files, of which the second is damaged, or the first.
fn valid_shards() -> [Raw; 2] {
    let shard = |index: u16, keys| Raw::v3(1, keys).key_u16("split.no", index).key_u16("split.count", 2);
    let first = shard(0, 3).key("split.tensors.count", kind::I32).u32(2);
    let finish = |raw: Raw, name: &str| raw.tensor(name, &[4], 0, 0).pad(32).data(16);
    [finish(first, "first"), finish(shard(1, 2), "second")]
}

/// Each damage that can be enumerated: cut anywhere, each bit flipped, each place an extreme length.
fn enumerate(bytes: &[u8], big: bool, mut case: impl FnMut(Vec<u8>)) {
    for length in 0..bytes.len() {
        case(bytes[..length].to_vec());
    }
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        case(damaged);
    }
    for position in 4..bytes.len() {
        let remaining = (bytes.len() - position) as u64;
        let near = [remaining - 1, remaining, remaining + 1, remaining.saturating_sub(8), remaining.saturating_sub(4)];
        let edges = [7, 30, 31, 32, 63].map(|bit| 1u64 << bit);
        let edges = edges.into_iter().flat_map(|edge| [edge - 1, edge, edge + 1]);
        for value in edges.chain(near).chain([0, 1, 2, u64::MAX, u64::MAX - 31]) {
            for width in [4, 8] {
                let mut damaged = bytes.to_vec();
                let Some(field) = damaged.get_mut(position..position + width) else { continue };
                let number = if big { value << (64 - 8 * width) } else { value };
                let number = if big { number.to_be_bytes() } else { number.to_le_bytes() };
                field.copy_from_slice(&number[..width]);
                case(damaged);
            }
        }
    }
}

/// A damage that is drawn: pieces exchanged, doubled, removed, overwritten by pieces of another file, random bytes.
fn damage(bytes: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    for _ in 0..1 + random.below(3) {
        let mut places = [0; 4].map(|_: usize| random.below(damaged.len() + 1));
        places.sort_unstable();
        let [a, b, c, d] = places;
        match random.below(6) {
            0 => damaged = [&damaged[..a], &damaged[c..d], &damaged[b..c], &damaged[a..b], &damaged[d..]].concat(),
            1 => damaged = [&damaged[..b], &damaged[a..b], &damaged[b..]].concat(),
            2 => drop(damaged.drain(a..b)),
            3 => {
                let count = (b - a).min(other.len());
                let from = random.below(other.len() - count + 1);
                damaged[a..a + count].copy_from_slice(&other[from..from + count]);
            }
            4 => damaged[a..(a + 8).min(d)].iter_mut().for_each(|byte| *byte = random.next() as u8),
            _ => damaged.truncate(d),
        }
    }
    damaged
}

/// This is the only test of the file, so that the allocator counts nothing else.
#[test]
fn damaged_files_are_errors_or_correct() {
    let files = valid_files();
    let crowded = crowded_files();
    let shards = valid_shards();
    let mut counts = Counts { text: String::with_capacity(1 << 20), ..Counts::default() };

    for file in &files {
        let before = counts.parsed;
        counts.try_files(vec![file.bytes.clone()], false);
        assert_eq!(counts.parsed, before + 1, "the file is valid before it is damaged: {}", counts.text);
        let mut turn = false;
        enumerate(&file.bytes, file.big, |bytes| {
            turn = !turn;
            counts.try_files(vec![bytes], turn);
        });
    }
    let [first, second] = &shards;
    let before = counts.parsed;
    counts.try_files(vec![first.bytes.clone(), second.bytes.clone()], false);
    assert_eq!(counts.parsed, before + 1, "the shards are valid before they are damaged: {}", counts.text);
    enumerate(&first.bytes, false, |bytes| counts.try_files(vec![bytes, second.bytes.clone()], false));
    enumerate(&second.bytes, false, |bytes| counts.try_files(vec![first.bytes.clone(), bytes], false));

    let mut random = Random(20);
    for _ in 0..100_000 {
        let [file, other] = [0; 2].map(|_: usize| &files[random.below(files.len())].bytes);
        let damaged = damage(file, other, &mut random);
        counts.try_files(vec![damaged], random.below(2) == 0);
    }
    for file in &crowded {
        let before = counts.parsed;
        counts.try_files(vec![file.bytes.clone()], false);
        assert_eq!(counts.parsed, before + 1, "the file is valid before it is damaged: {}", counts.text);
        for _ in 0..500 {
            let other = &crowded[random.below(crowded.len())].bytes;
            let damaged = damage(&file.bytes, other, &mut random);
            counts.try_files(vec![damaged], random.below(2) == 0);
        }
    }

    let Counts { cases, errors, parsed, panics, peak_bytes, peak_files, .. } = counts;
    say(&format!("cases {cases}, errors {errors}, correct parses {parsed}, panics {panics}"));
    say(&format!(
        "peak memory {peak_bytes} bytes, at most {peak_files:.1} × the file (files below 4 KiB counted as 4 KiB)"
    ));
    assert_eq!(panics, 0);
    assert_eq!(cases, errors + parsed);
    assert!(cases >= 200_000 && errors > cases / 4 && parsed > cases / 100);
}

/// Prints where the test runner does not swallow it.
fn say(line: &str) {
    use std::io::Write;
    _ = writeln!(std::io::stderr(), "{line}");
}
