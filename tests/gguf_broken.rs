//! What is wrong with a file, by name: every rule of the format, broken once each.

mod gguf_bytes;

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gguf_bytes::{Raw, expect_error, kind};
use kiln::gguf::{Gguf, TensorType};

/// (case, file, what the message must say)
type Broken = (&'static str, Raw, &'static [&'static str]);

#[track_caller]
fn expect_errors(cases: Vec<Broken>) {
    for (case, raw, fragments) in cases {
        expect_error(case, Gguf::from_bytes(raw.bytes.clone()), fragments);
        expect_error(case, Gguf::from_reader(Cursor::new(raw.bytes)), fragments);
    }
}

#[test]
fn broken_preambles() {
    let bytes = |bytes: &[u8]| Raw { bytes: bytes.to_vec(), version: 3, big: false };
    let version = |bytes: [u8; 4]| Raw { bytes: [*b"GGUF", bytes].concat(), version: 3, big: false }.u64(0).u64(0);
    expect_errors(vec![
        ("empty", bytes(b""), &["magic at byte 0", "found 0 bytes to the end of the file", "expected 4 bytes"]),
        ("half a magic", bytes(b"GG"), &["magic at byte 0", "found 2 bytes"]),
        (
            "another file",
            bytes(b"PK\x03\x04 and so on"),
            &["magic at byte 0", r#""PK\u{3}\u{4}""#, "expected \"GGUF\""],
        ),
        ("backwards", bytes(b"FUGG\x03\0\0\0"), &["magic", "backwards"]),
        ("no version", bytes(b"GGUF\x03\0"), &["version at byte 4", "found 2 bytes"]),
        ("version 0", version([0; 4]), &["version at byte 4", "found version 0", "expected 1 to 3"]),
        ("version 4", version([4, 0, 0, 0]), &["found version 4,", "expected 1 to 3"]),
        ("version 4, big-endian", version([0, 0, 0, 4]), &["found version 4 (big-endian)"]),
        ("version of both orders", version([3, 0, 0, 3]), &["found version 50331651"]),
        ("no counts", bytes(b"GGUF\x03\0\0\0"), &["tensor count at byte 8", "found 0 bytes"]),
        ("half the counts", Raw::v3(0, 0).cut(1), &["key count at byte 16", "found 7 bytes", "expected 8 bytes"]),
        ("negative tensor count", Raw::v3(u64::MAX, 0), &["tensor count at byte 8", "18446744073709551615"]),
        ("too many tensors", Raw::v3(1, 0), &["tensor count at byte 8", "found 1,", "expected at most 0", "24 bytes"]),
        ("too many keys", Raw::v3(0, 1), &["key count at byte 16", "found 1,", "at most 0", "14 bytes"]),
        ("huge key count", Raw::v3(0, 1 << 63), &["key count at byte 16", "9223372036854775808"]),
        ("swapped counts", Raw::v3(0, 3 << 56).raw(&[0; 99]), &["key count", "(3 in the other byte order)"]),
        ("version 1, too many", Raw::new(1, false, 1, 0), &["tensor count at byte 8", "found 1", "20 bytes"]),
        ("version 1, keys", Raw::new(1, false, 0, u64::MAX), &["key count at byte 12", "found 4294967295", "10 bytes"]),
    ]);
}

#[test]
fn broken_pairs() {
    let rest = &[0; 64];
    expect_errors(vec![
        (
            "key longer than the file",
            Raw::v3(0, 1).u64(1 << 40).raw(rest),
            &["key 0: key at byte 24", "1099511627776", "at most 64"],
        ),
        (
            "key of 2^64-1 bytes",
            Raw::v3(0, 1).u64(u64::MAX).raw(rest),
            &["key 0: key at byte 24", "18446744073709551615"],
        ),
        (
            "key one byte too long",
            Raw::v3(0, 1).u64(65).raw(rest),
            &["key 0: key", "a length of 65 bytes", "at most 64 (to the end"],
        ),
        ("empty key", Raw::v3(0, 1).key_u32("", 1).raw(rest), &["key 0: key at byte 24", "an empty key"]),
        (
            "key that is no text",
            Raw::v3(0, 1).string(b"a\xffb").u32(kind::U8).u8(0),
            &["key 0: key at byte 32", "UTF-8"],
        ),
        (
            "duplicate key",
            Raw::v3(0, 2).key_u32("a.b", 1).key_u32("a.b", 1),
            &["key \"a.b\" at byte 43", "second pair", "each key once"],
        ),
        (
            "value type 13",
            Raw::v3(0, 1).key("a", 13).raw(rest),
            &["key \"a\": value type at byte 33", "found type 13", "0 to 12"],
        ),
        ("value type -1", Raw::v3(0, 1).key("a", u32::MAX).raw(rest), &["key \"a\": value type", "4294967295"]),
        (
            "no value type",
            Raw::v3(0, 1).string("long key").raw(&[0, 0]),
            &["key \"long key\": value type at byte 40", "found 2 bytes"],
        ),
        (
            "half a value",
            Raw::v3(0, 1).key("a", kind::U64).raw(&[0; 7]),
            &["key \"a\": value at byte 37", "found 7 bytes", "expected 8"],
        ),
        (
            "long string",
            Raw::v3(0, 1).key("a", kind::STRING).u64(65).raw(rest),
            &["key \"a\": string at byte 37", "65", "at most 64"],
        ),
    ]);
}

#[test]
fn broken_arrays_and_alignments() {
    let alignment = |kind: u32| Raw::v3(0, 1).key("general.alignment", kind);
    let rest = &[0; 64];
    expect_errors(vec![
        (
            "nested array",
            Raw::v3(0, 1).key_array("a", kind::ARRAY, 1).raw(rest),
            &["key \"a\": element type at byte 37", "array of arrays"],
        ),
        (
            "element type 13",
            Raw::v3(0, 1).key_array("a", 13, 1).raw(rest),
            &["key \"a\": element type at byte 37", "type 13"],
        ),
        (
            "long array",
            Raw::v3(0, 1).key_array("a", kind::U32, 17).raw(rest),
            &["key \"a\": element count at byte 41", "17 elements of type u32", "at most 16"],
        ),
        (
            "array of 2^61+1 u64",
            Raw::v3(0, 1).key_array("a", kind::U64, (1 << 61) + 1).raw(rest),
            &["element count", "2305843009213693953"],
        ),
        (
            "array of 2^64-1 bools",
            Raw::v3(0, 1).key_array("a", kind::BOOL, u64::MAX).raw(rest),
            &["element count", "of type bool"],
        ),
        (
            "long array of strings",
            Raw::v3(0, 1).key_array("a", kind::STRING, 9).raw(rest),
            &["9 elements of type string", "at most 8"],
        ),
        (
            "long string in an array",
            Raw::v3(0, 1).key_array("a", kind::STRING, 2).string("ok").u64(65).raw(rest),
            &["key \"a\": string in the array at byte 59", "65"],
        ),
        (
            "alignment 0",
            alignment(kind::U32).u32(0),
            &["key \"general.alignment\": value at byte 53", "found 0", "power of two"],
        ),
        ("alignment 48", alignment(kind::U32).u32(48), &["general.alignment", "found 48"]),
        (
            "alignment u64",
            alignment(kind::U64).u64(32),
            &["\"general.alignment\": value type at byte 49", "found u64", "expected u32"],
        ),
        ("alignment i32", alignment(kind::I32).u32(32), &["found i32", "expected u32"]),
        ("alignment array", alignment(kind::ARRAY).u32(kind::U32).u64(1).u32(32), &["found array", "expected u32"]),
    ]);
}

#[test]
fn broken_directories() {
    let long = "n".repeat(64);
    let most = i64::MAX as u64;
    expect_errors(vec![
        ("name of 64 bytes", one(&long, &[1], 0), &["tensor 0: name at byte 24", "of 64 bytes", "fewer than 64"]),
        (
            "name longer than the file",
            Raw::v3(1, 0).u64(999).raw(&[0; 64]),
            &["tensor 0: name at byte 24", "999", "at most 64"],
        ),
        ("name that is no text", Raw::v3(1, 0).string([0xc3]).raw(&[0; 64]), &["tensor 0: name", "UTF-8"]),
        (
            "five dimensions",
            one("t", &[1; 5], 0),
            &["tensor \"t\": dimension count at byte 33", "found 5", "at most 4"],
        ),
        (
            "2^32-1 dimensions",
            Raw::v3(1, 0).string("t").u32(u32::MAX).raw(&[0; 64]),
            &["dimension count", "4294967295"],
        ),
        (
            "negative dimension",
            one("t", &[4, u64::MAX], 0),
            &["tensor \"t\": shape at byte 33", "18446744073709551615"],
        ),
        ("negative after zero", one("t", &[0, u64::MAX], 0), &["tensor \"t\": shape"]),
        ("product overflows", one("t", &[1 << 32, 1 << 31], 0), &["tensor \"t\": shape", "2^63-1"]),
        ("product overflows late", one("t", &[2, most / 2, 1, 2], 0), &["tensor \"t\": shape", "2^63-1"]),
        ("type 43", one("t", &[1], 43), &["tensor \"t\": type at byte 45", "found type 43", "0 to 42"]),
        ("type -1", one("t", &[1], u32::MAX), &["tensor \"t\": type", "found type 4294967295"]),
        (
            "half a block",
            one("t", &[48], 2),
            &["tensor \"t\": shape", "48 elements per row", "multiple of 32, the block of Q4_0"],
        ),
        ("scalar of a block type", one("t", &[], 12), &["1 elements per row", "multiple of 256, the block of Q4_K"]),
        ("blocks across rows", one("t", &[16, 2], 8), &["16 elements per row", "Q8_0"]),
    ]);
}

#[test]
fn broken_sizes_and_offsets() {
    let most = i64::MAX as u64;
    expect_errors(vec![
        ("size overflows", one("t", &[most], 0), &["tensor \"t\": size", "F32", "fewer than 2^64 bytes"]),
        (
            "padded size overflows",
            one("t", &[(1 << 61) - 1], 28),
            &["tensor \"t\": size at byte 33", "18446744073709551608 bytes"],
        ),
        (
            "sum of sizes overflows",
            two_large(),
            &["tensor \"u\": size", "after 9223372036854775808 bytes of other tensors"],
        ),
        ("offset before", two(&[8], &[1], 0), &["tensor \"u\": offset at byte", "found 0", "expected 32"]),
        ("offset not padded", two(&[8], &[1], 31), &["tensor \"u\": offset", "found 31", "expected 32"]),
        ("offset with a gap", two(&[8], &[1], 64), &["tensor \"u\": offset", "found 64", "expected 32"]),
        (
            "first offset not 0",
            Raw::v3(1, 0).tensor("t", &[1], 0, 32).pad(32).data(64),
            &["tensor \"t\": offset", "found 32", "expected 0"],
        ),
        (
            "duplicate name",
            Raw::v3(2, 0).tensor("t", &[1], 0, 0).tensor("t", &[1], 0, 32).pad(32).data(64),
            &["tensor \"t\" at byte 57", "second tensor", "each name once"],
        ),
        (
            "other alignment",
            Raw::v3(2, 1)
                .key_u32("general.alignment", 64)
                .tensor("t", &[1], 0, 0)
                .tensor("u", &[1], 0, 32)
                .pad(64)
                .data(96),
            &["tensor \"u\": offset", "found 32", "expected 64"],
        ),
        (
            "no padding",
            Raw::v3(1, 0).tensor("t", &[0], 0, 0),
            &["start of the data at byte 57", "a file of 57 bytes", "multiple of 32"],
        ),
        (
            "no data",
            Raw::v3(1, 0).tensor("t", &[1], 0, 0).pad(32),
            &["tensor \"t\": data at byte 24", "a file of 64 bytes", "4 bytes from byte 64 to byte 68"],
        ),
        ("one byte short", one("t", &[17], 0).cut(1), &["tensor \"t\": data", "68 bytes from byte 64 to byte 132"]),
        (
            "one byte too few",
            one("t", &[4, 4], 0).cut(1),
            &["tensor \"t\": data", "a file of 159 bytes", "64 bytes from byte 96 to byte 160"],
        ),
        ("no entry", Raw::v3(1, 0).raw(&[0; 24]).cut(1), &["tensor count", "found 1, expected at most 0"]),
        (
            "half an entry",
            Raw::v3(1, 0).tensor("name", &[1, 1], 0, 0).cut(1),
            &["tensor \"name\": offset at byte 60", "found 7 bytes"],
        ),
    ]);
}

/// One tensor, and 64 bytes of data.
fn one(name: &str, dimensions: &[u64], kind: u32) -> Raw {
    Raw::v3(1, 0).tensor(name, dimensions, kind, 0).pad(32).data(64)
}

/// Tensors `t` of f32 at offset 0 and `u` at `offset`.
fn two(t: &[u64], u: &[u64], offset: u64) -> Raw {
    Raw::v3(2, 0).tensor("t", t, 0, 0).tensor("u", u, 0, offset).pad(32).data(96)
}

/// Two tensors of 2^63 bytes.
fn two_large() -> Raw {
    two(&[1 << 61], &[1 << 61], 1 << 63)
}

#[test]
fn withdrawn_types_are_refused_by_name() {
    for (id, name) in [
        (4, "Q4_2"),
        (5, "Q4_3"),
        (31, "Q4_0_4_4"),
        (32, "Q4_0_4_8"),
        (33, "Q4_0_8_8"),
        (36, "IQ4_NL_4_4"),
        (37, "IQ4_NL_4_8"),
        (38, "IQ4_NL_8_8"),
    ] {
        let raw = Raw::v3(1, 0).tensor("t", &[32], id, 0).pad(32).data(64);
        expect_error(
            name,
            Gguf::from_bytes(raw.bytes),
            &["tensor \"t\": type", &format!("type {id} ({name})"), "withdrawn"],
        );
        assert_eq!(TensorType::from_id(id), None);
    }
}

/// A file of any size that is zero wherever nothing else was said, and that counts what is read of it.
struct Sparse {
    head: Vec<u8>,
    size: u64,
    position: u64,
    read: Arc<AtomicU64>,
}

impl Sparse {
    fn new(head: Vec<u8>, size: u64) -> Self {
        Self { head, size, position: 0, read: Default::default() }
    }
}

impl Read for Sparse {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min((self.size - self.position) as usize);
        for (offset, byte) in (self.position..).zip(&mut buffer[..count]) {
            *byte = self.head.get(offset as usize).copied().unwrap_or(0);
        }
        self.position += count as u64;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::End(offset) => self.size.strict_add_signed(offset),
            SeekFrom::Current(offset) => self.position.strict_add_signed(offset),
        };
        Ok(self.position)
    }
}

#[test]
fn lengths_have_limits_even_in_files_that_could_hold_them() {
    let size = 1 << 40;
    let limit = 1 << 30;
    let string = Raw::v3(0, 1).key("a", kind::STRING).u64(limit + 1);
    let bytes = Raw::v3(0, 1).key_array("a", kind::U8, limit + 1);
    let strings = Raw::v3(0, 1).key_array("a", kind::STRING, limit + 1);
    let key = Raw::v3(0, 1).u64(limit + 1);
    for (case, raw) in [("string", string), ("bytes", bytes), ("strings", strings), ("key", key)] {
        let sparse = Sparse::new(raw.bytes, size);
        let read = sparse.read.clone();
        expect_error(case, Gguf::from_reader(sparse), &["1073741825", "at most 1073741824 (the limit)"]);
        assert!(read.load(Ordering::Relaxed) <= 1 << 20, "{case}");
    }
}

#[test]
fn only_the_header_of_a_large_file_is_read() {
    let size = 40u64 << 30;
    let head = Raw::v3(1, 1).key_string("general.architecture", "large").tensor("t", &[10 << 30], 0, 0).pad(32);
    let sparse = Sparse::new(head.bytes, size + 128);
    let read = sparse.read.clone();
    let file = Gguf::from_reader(sparse).unwrap();
    assert_eq!(file.tensors()[0].size_bytes(), size);
    assert!(read.load(Ordering::Relaxed) <= 64 << 10);
}
