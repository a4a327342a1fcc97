//! A file's key-value pairs: lookup by key, and getters that convert to the type a caller needs.
//!
//! The header's bytes are kept once, as they were read; a key or a value is a position in them. The parser has walked
//! over every value by then, so each position decodes.

use std::cmp::Ordering;
use std::fmt;

use super::encoding::Encoding;
use super::value::{ArrayView, Strings, Value, ValueType};
use crate::{Error, Result};

/// The key-value pairs of a model, in file order.
#[derive(Clone, Default)]
pub struct Metadata {
    /// The header up to the end of the last value.
    bytes: Vec<u8>,
    encoding: Encoding,
    /// Where each pair begins. Positions and not records: a pair takes as few as ten bytes in a file, and no list made
    /// for it may be larger than the file.
    entries: Vec<usize>,
    /// Indices into `entries`, sorted by key.
    by_key: Vec<usize>,
}

impl Metadata {
    /// Takes the header's bytes and the position of each pair in them.
    pub(super) fn new(encoding: Encoding, entries: Vec<usize>, bytes: Vec<u8>) -> Self {
        let mut by_key: Vec<usize> = (0..entries.len()).collect();
        let mut metadata = Self { bytes, encoding, entries, by_key: Vec::new() };
        by_key.sort_unstable_by_key(|&index| (metadata.key_bytes(index), index));
        metadata.by_key = by_key;
        metadata
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The pairs in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        (0..self.entries.len()).filter_map(|index| self.entry(index))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let find = |&index: &usize| self.key_bytes(index).cmp(key.as_bytes());
        let found = self.by_key.binary_search_by(find).ok()?;
        self.entry(*self.by_key.get(found)?).map(|(_, value)| value)
    }

    /// A string that is UTF-8. Like all typed getters: `None` when the key is absent, an error when it holds
    /// something else.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.convert(key, "a string of UTF-8", |value| value.as_str())
    }

    /// An integer of any type that fits into a `u32`.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.convert(key, "an integer that fits u32", integer)
    }

    /// An integer of any type that fits into a `u64`.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.convert(key, "an integer that fits u64", integer)
    }

    /// An integer of any type that fits into an `i32`.
    pub fn i32(&self, key: &str) -> Result<Option<i32>> {
        self.convert(key, "an integer that fits i32", integer)
    }

    /// An integer of any type that fits into an `i64`.
    pub fn i64(&self, key: &str) -> Result<Option<i64>> {
        self.convert(key, "an integer that fits i64", integer)
    }

    /// An `f32`, or an `f64` rounded to one if it is within range.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.convert(key, "a number that fits f32", single)
    }

    /// An `f64` or an `f32`.
    pub fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.convert(key, "an f32 or f64", |value| value.as_float())
    }

    /// A bool.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.convert(key, "a bool", |value| value.as_bool())
    }

    /// An array of strings, which may hold any bytes.
    pub fn strings(&self, key: &str) -> Result<Option<Strings<'_>>> {
        self.convert(key, "an array of strings", |value| value.as_array()?.strings())
    }

    /// An array of integers of any type that all fit into `u32`.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>> {
        self.elements(key, &INTEGERS, "an array of integers that fit u32", integer)
    }

    /// An array of integers of any type that all fit into `i32`.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.elements(key, &INTEGERS, "an array of integers that fit i32", integer)
    }

    /// An array of `f32`, or of `f64` within its range.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.elements(key, &[ValueType::F32, ValueType::F64], "an array of f32", single)
    }

    /// An array of bytes, be they called signed or not: the bits are handed out as they are.
    pub fn u8s(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.convert(key, "an array of u8 or i8", |value| {
            let array = value.as_array()?;
            let bytes = matches!(array.element_type(), ValueType::U8 | ValueType::I8);
            array.raw_bytes().filter(|_| bytes).map(<[u8]>::to_vec)
        })
    }

    /// An array of bools.
    pub fn bools(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.elements(key, &[ValueType::Bool], "an array of bool", |value| value.as_bool())
    }

    fn convert<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| Error::metadata(key, format!("{value:?}"), expected))
    }

    /// The elements of an array whose element type is one of `accepted`, each converted.
    fn elements<T>(
        &self,
        key: &str,
        accepted: &[ValueType],
        expected: &str,
        convert: impl Fn(Value<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let accept = |array: &ArrayView<'_>| accepted.contains(&array.element_type());
        let Some(array) = self.convert(key, expected, |value| value.as_array().filter(accept))? else {
            return Ok(None);
        };
        let misfit = |index, value| {
            let found = format!("{value} at index {index} of an array of {}", array.element_type());
            Error::metadata(key, found, expected)
        };
        let elements = array.iter().enumerate();
        elements
            .map(|(index, value)| convert(value).ok_or_else(|| misfit(index, value)))
            .collect::<Result<_>>()
            .map(Some)
    }

    /// The key and value of a pair.
    fn entry(&self, index: usize) -> Option<(&str, Value<'_>)> {
        let bytes = self.bytes.get(*self.entries.get(index)?..)?;
        let (key, value) = self.encoding.split_string(bytes)?;
        Some((std::str::from_utf8(key).ok()?, Value::decode(value, self.encoding)?))
    }

    fn key_bytes(&self, index: usize) -> &[u8] {
        let bytes = self.entries.get(index).and_then(|&start| self.bytes.get(start..));
        bytes.and_then(|bytes| self.encoding.split_string(bytes)).map_or(&[], |(key, _)| key)
    }

    /// The first pair, in key order, whose key an earlier pair has: its position and key.
    pub(super) fn duplicate(&self) -> Option<(usize, &[u8])> {
        let twice = self.by_key.windows(2).find_map(|pair| match *pair {
            [first, second] if self.key_bytes(first).cmp(self.key_bytes(second)) == Ordering::Equal => Some(second),
            _ => None,
        })?;
        Some((*self.entries.get(twice)?, self.key_bytes(twice)))
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

const INTEGERS: [ValueType; 8] = [
    ValueType::U8,
    ValueType::I8,
    ValueType::U16,
    ValueType::I16,
    ValueType::U32,
    ValueType::I32,
    ValueType::U64,
    ValueType::I64,
];

fn integer<T: TryFrom<i128>>(value: Value<'_>) -> Option<T> {
    value.as_integer().and_then(|value| T::try_from(value).ok())
}

fn single(value: Value<'_>) -> Option<f32> {
    if let Value::F32(value) = value {
        return Some(value); // and not by way of f64, which would change the bits of some NaNs
    }
    let wide = value.as_float()?;
    let value = wide as f32;
    (value.is_finite() || !wide.is_finite()).then_some(value)
}
