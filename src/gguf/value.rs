//! Metadata values: views into the header's bytes, converted when they are looked at.
//!
//! A vocabulary of 150,000 tokens is one array value, and it stays what it is in the file: a run of lengths and bytes.
//! Nothing is allocated for a token until somebody asks for it.

use std::fmt;

use super::encoding::Encoding;

/// The type of a metadata value, as the file numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[repr(u32)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    /// Every type, by id.
    #[rustfmt::skip]
    pub const ALL: [ValueType; 13] = [
        ValueType::U8, ValueType::I8, ValueType::U16, ValueType::I16, ValueType::U32, ValueType::I32, ValueType::F32,
        ValueType::Bool, ValueType::String, ValueType::Array, ValueType::U64, ValueType::I64, ValueType::F64,
    ];

    /// The type of an id.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }

    /// The number that stands for the type in a file.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The name, as in `u32` or `string`.
    pub const fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::String => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }

    /// Bytes of one value; `None` for strings and arrays, which say their own length.
    pub const fn size_bytes(self) -> Option<usize> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::String | ValueType::Array => None,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A metadata value. `Display` shortens long strings and arrays.
#[derive(Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    /// Nearly always UTF-8, but the format does not promise it: vocabularies hold tokens that are half a character.
    String(&'a [u8]),
    Array(ArrayView<'a>),
}

impl<'a> Value<'a> {
    /// The type of the value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F32(_) => ValueType::F32,
            Value::F64(_) => ValueType::F64,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
        }
    }

    /// The value of any of the eight integer types.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(value) => value.into(),
            Value::I8(value) => value.into(),
            Value::U16(value) => value.into(),
            Value::I16(value) => value.into(),
            Value::U32(value) => value.into(),
            Value::I32(value) => value.into(),
            Value::U64(value) => value.into(),
            Value::I64(value) => value.into(),
            _ => return None,
        })
    }

    /// The value of either floating-point type.
    pub fn as_float(&self) -> Option<f64> {
        match *self {
            Value::F32(value) => Some(value.into()),
            Value::F64(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a bool.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The text of a string that is UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Value::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The elements of an array.
    pub fn as_array(&self) -> Option<ArrayView<'a>> {
        match *self {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    /// Splits a value of a known type, other than an array, off the front of `bytes`.
    pub(super) fn split(kind: ValueType, bytes: &'a [u8], encoding: Encoding) -> Option<(Self, &'a [u8])> {
        let Some(size) = kind.size_bytes() else {
            let (text, rest) = encoding.split_string(bytes)?;
            return (kind == ValueType::String).then_some((Value::String(text), rest));
        };
        let (_, rest) = bytes.split_at_checked(size)?;
        let two = |bytes: &[u8]| bytes.first_chunk().map(|&bytes| encoding.u16(bytes));
        let four = |bytes: &[u8]| bytes.first_chunk().map(|&bytes| encoding.u32(bytes));
        let eight = |bytes: &[u8]| bytes.first_chunk().map(|&bytes| encoding.u64(bytes));
        let value = match kind {
            ValueType::U8 => Value::U8(*bytes.first()?),
            ValueType::I8 => Value::I8(bytes.first()?.cast_signed()),
            ValueType::Bool => Value::Bool(*bytes.first()? != 0),
            ValueType::U16 => Value::U16(two(bytes)?),
            ValueType::I16 => Value::I16(two(bytes)?.cast_signed()),
            ValueType::U32 => Value::U32(four(bytes)?),
            ValueType::I32 => Value::I32(four(bytes)?.cast_signed()),
            ValueType::F32 => Value::F32(f32::from_bits(four(bytes)?)),
            ValueType::U64 => Value::U64(eight(bytes)?),
            ValueType::I64 => Value::I64(eight(bytes)?.cast_signed()),
            ValueType::F64 => Value::F64(f64::from_bits(eight(bytes)?)),
            ValueType::String | ValueType::Array => return None,
        };
        Some((value, rest))
    }

    /// Reads the value at the front of `bytes`: its type, then for arrays the element type and count, then the value.
    /// What follows the value is ignored.
    pub(super) fn decode(bytes: &'a [u8], encoding: Encoding) -> Option<Self> {
        let split_type = |bytes: &'a [u8]| {
            let (id, rest) = bytes.split_first_chunk()?;
            Some((ValueType::from_id(encoding.u32(*id))?, rest))
        };
        let (kind, rest) = split_type(bytes)?;
        if kind != ValueType::Array {
            return Self::split(kind, rest, encoding).map(|(value, _)| value);
        }
        let (element, rest) = split_type(rest)?;
        let len = usize::try_from(encoding.length(rest)?).ok()?;
        let bytes = rest.get(encoding.length_bytes()..)?;
        Some(Value::Array(ArrayView { element, len, bytes, encoding }))
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::U8(value) => value.fmt(f),
            Value::I8(value) => value.fmt(f),
            Value::U16(value) => value.fmt(f),
            Value::I16(value) => value.fmt(f),
            Value::U32(value) => value.fmt(f),
            Value::I32(value) => value.fmt(f),
            Value::U64(value) => value.fmt(f),
            Value::I64(value) => value.fmt(f),
            Value::F32(value) => value.fmt(f),
            Value::F64(value) => value.fmt(f),
            Value::Bool(value) => value.fmt(f),
            Value::String(bytes) => f.write_str(&quoted(bytes, STRING_SHOWN_CHARS)),
            Value::Array(array) => array.fmt(f),
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {self}", self.value_type())
    }
}

/// Characters of a string that `Display` shows before it says how long the string is.
const STRING_SHOWN_CHARS: usize = 64;
/// Elements of an array that `Display` shows before it says how many there are.
const ARRAY_SHOWN_ELEMENTS: usize = 8;

/// Text for people: in quotes, control characters escaped, cut after `chars` characters with the full length told.
pub(super) fn quoted(bytes: &[u8], chars: usize) -> String {
    // A character takes at most four bytes, so what lies further back cannot show and need not be converted.
    let front = bytes.get(..chars.saturating_mul(4)).unwrap_or(bytes);
    let text = String::from_utf8_lossy(front);
    let shown: String = text.chars().take(chars).flat_map(char::escape_debug).collect();
    let cut = front.len() < bytes.len() || text.chars().nth(chars).is_some();
    if cut { format!("\"{shown}…\" ({} bytes)", bytes.len()) } else { format!("\"{shown}\"") }
}

/// An array value: its elements are of one type, and never arrays themselves.
#[derive(Clone, Copy)]
pub struct ArrayView<'a> {
    element: ValueType,
    len: usize,
    /// Begins with the first element; whatever follows the last one in the header is still there.
    bytes: &'a [u8],
    encoding: Encoding,
}

impl<'a> ArrayView<'a> {
    /// The type of every element.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> Values<'a> {
        Values { array: *self }
    }

    /// The elements as byte strings; `None` when they are something else.
    pub fn strings(&self) -> Option<Strings<'a>> {
        (self.element == ValueType::String).then_some(Strings { values: self.iter() })
    }

    /// The elements as they stand in the file; `None` for strings.
    pub fn raw_bytes(&self) -> Option<&'a [u8]> {
        self.bytes.get(..self.element.size_bytes()?.checked_mul(self.len)?)
    }
}

impl PartialEq for ArrayView<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.element == other.element && self.iter().eq(other.iter())
    }
}

impl<'a> IntoIterator for ArrayView<'a> {
    type Item = Value<'a>;
    type IntoIter = Values<'a>;

    fn into_iter(self) -> Values<'a> {
        self.iter()
    }
}

impl fmt::Display for ArrayView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, value) in self.iter().take(ARRAY_SHOWN_ELEMENTS).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{value}")?;
        }
        if self.len > ARRAY_SHOWN_ELEMENTS {
            write!(f, ", …] ({} × {})", self.len, self.element)
        } else {
            f.write_str("]")
        }
    }
}

impl fmt::Debug for ArrayView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The elements of an array, in order.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    /// What is left of the array.
    array: ArrayView<'a>,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let array = &mut self.array;
        let left = array.len.checked_sub(1)?;
        let (value, rest) = Value::split(array.element, array.bytes, array.encoding)?;
        (array.len, array.bytes) = (left, rest);
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.array.len, Some(self.array.len))
    }
}

impl ExactSizeIterator for Values<'_> {}

/// The elements of an array of strings, in order.
#[derive(Clone, Debug)]
pub struct Strings<'a> {
    values: Values<'a>,
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match self.values.next()? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.values.size_hint()
    }
}

impl ExactSizeIterator for Strings<'_> {}
