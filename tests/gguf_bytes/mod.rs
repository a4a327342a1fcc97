//! Files made byte by byte, of any version and byte order, valid or not: what the crate's own writer refuses to write.
//! And what the tests of such files share.

#![allow(dead_code)] // each test file uses a part of this

pub mod hollow;

use std::fs;
use std::path::PathBuf;

/// The ids of value types.
pub mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

/// A file in the making. Methods add to the end and hand the file back, so that a file reads as one chain.
#[derive(Clone)]
pub struct Raw {
    pub bytes: Vec<u8>,
    pub version: u32,
    pub big: bool,
}

impl Raw {
    /// A preamble. The counts are what the file claims, not what will be added.
    pub fn new(version: u32, big: bool, tensors: u64, keys: u64) -> Self {
        let raw = Self { bytes: b"GGUF".to_vec(), version, big };
        raw.u32(version).length(tensors).length(keys)
    }

    /// A little-endian preamble of version 3.
    pub fn v3(tensors: u64, keys: u64) -> Self {
        Self::new(3, false, tensors, keys)
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A number's little-endian bytes, in the order of this file.
    fn number(self, little: &[u8]) -> Self {
        if self.big { self.raw(&little.iter().rev().copied().collect::<Vec<_>>()) } else { self.raw(little) }
    }

    pub fn u8(self, value: u8) -> Self {
        self.raw(&[value])
    }

    pub fn u16(self, value: u16) -> Self {
        self.number(&value.to_le_bytes())
    }

    pub fn u32(self, value: u32) -> Self {
        self.number(&value.to_le_bytes())
    }

    pub fn u64(self, value: u64) -> Self {
        self.number(&value.to_le_bytes())
    }

    /// A count, length or dimension: four bytes in version 1, else eight.
    pub fn length(self, value: u64) -> Self {
        if self.version == 1 { self.u32(value as u32) } else { self.u64(value) }
    }

    pub fn string(self, text: impl AsRef<[u8]>) -> Self {
        self.length(text.as_ref().len() as u64).raw(text.as_ref())
    }

    /// A key and the type of its value.
    pub fn key(self, key: &str, kind: u32) -> Self {
        self.string(key).u32(kind)
    }

    pub fn key_u32(self, key: &str, value: u32) -> Self {
        self.key(key, kind::U32).u32(value)
    }

    pub fn key_u16(self, key: &str, value: u16) -> Self {
        self.key(key, kind::U16).u16(value)
    }

    pub fn key_string(self, key: &str, value: &str) -> Self {
        self.key(key, kind::STRING).string(value)
    }

    /// A key, and the head of an array.
    pub fn key_array(self, key: &str, element: u32, count: u64) -> Self {
        self.key(key, kind::ARRAY).u32(element).length(count)
    }

    /// An entry of the tensor directory.
    pub fn tensor(self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let entry = self.string(name).u32(dimensions.len() as u32);
        let entry = dimensions.iter().fold(entry, |entry, &dimension| entry.length(dimension));
        entry.u32(kind).u64(offset)
    }

    /// Zeros up to a multiple of `alignment`.
    pub fn pad(mut self, alignment: usize) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
        self
    }

    /// Without its last bytes.
    pub fn cut(mut self, bytes: usize) -> Self {
        self.bytes.truncate(self.bytes.len() - bytes);
        self
    }

    /// Bytes of tensors: 1, 2, 3, … so that each is known by its place.
    pub fn data(mut self, count: usize) -> Self {
        self.bytes.extend((1..=count).map(|index| index as u8));
        self
    }
}

/// A valid file with every type of value, alone and in an array, and tensors of several types; two are empty.
pub fn everything(version: u32, big: bool) -> Raw {
    let raw = Raw::new(version, big, 6, 27);
    let raw = raw.key_string("general.architecture", "test").key_u32("general.alignment", 16);
    let raw = raw.key("u8", kind::U8).u8(200).key("i8", kind::I8).u8(200);
    let raw = raw.key("u16", kind::U16).u16(60_000).key("i16", kind::I16).u16(60_000);
    let raw = raw.key("u32", kind::U32).u32(4_000_000_000).key("i32", kind::I32).u32(4_000_000_000);
    let raw = raw.key("u64", kind::U64).u64(u64::MAX - 1).key("i64", kind::I64).u64(u64::MAX - 1);
    let raw = raw.key("f32", kind::F32).u32(1.5f32.to_bits()).key("f64", kind::F64).u64(2.5f64.to_bits());
    let raw = raw.key("bool", kind::BOOL).u8(1).key("string", kind::STRING).string([b'h', 0xff, b'i']);
    let raw = raw.key_array("u8s", kind::U8, 3).raw(&[1, 2, 255]).key_array("i8s", kind::I8, 3).raw(&[1, 2, 255]);
    let raw = raw.key_array("u16s", kind::U16, 2).u16(1).u16(65_535);
    let raw = raw.key_array("i16s", kind::I16, 2).u16(1).u16(65_535);
    let raw = raw.key_array("u32s", kind::U32, 2).u32(1).u32(u32::MAX);
    let raw = raw.key_array("i32s", kind::I32, 2).u32(1).u32(u32::MAX);
    let raw = raw.key_array("u64s", kind::U64, 1).u64(7).key_array("i64s", kind::I64, 1).u64(u64::MAX);
    let raw = raw.key_array("f32s", kind::F32, 2).u32(0.5f32.to_bits()).u32(f32::INFINITY.to_bits());
    let raw = raw.key_array("f64s", kind::F64, 1).u64(0.25f64.to_bits());
    let raw = raw.key_array("bools", kind::BOOL, 2).raw(&[0, 2]);
    let raw = raw.key_array("strings", kind::STRING, 3).string("a").string("").string("héé");
    let raw = raw.key_array("empty", kind::STRING, 0);
    // 12, 34, 0, 4, 36 and 0 bytes.
    let raw = raw.tensor("f32.weight", &[3], 0, 0).tensor("q8.weight", &[32, 1], 8, 16);
    let raw = raw.tensor("empty.weight", &[32, 0, 4], 2, 64).tensor("scalar", &[], 0, 64);
    let raw = raw.tensor("nvfp4.weight", &[64, 1, 1, 1], 40, 80).tensor("last", &[0], 0, 128);
    raw.pad(16).data(128)
}

/// A folder of its own for a test, removed when the test ends.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kiln-gguf-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Asserts that something failed, with a message that has all of these fragments.
#[track_caller]
pub fn expect_error<T>(case: &str, result: kiln::Result<T>, fragments: &[&str]) {
    let Err(error) = result else { panic!("{case}: was accepted") };
    let message = error.to_string();
    for fragment in fragments {
        assert!(message.contains(fragment), "{case}: no {fragment:?} in: {message}");
    }
}
