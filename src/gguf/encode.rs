//! Metadata values on their way into a file: the inverse of `value`.

use super::cursor::MAX_LENGTH;
use super::encoding::Endian;
use super::value::{ArrayView, Value, ValueType};

/// A string or array is longer than any may be.
pub struct TooLong(pub usize);

/// Bytes of a header in the making.
#[derive(Default)]
pub struct Encoder {
    pub endian: Endian,
    pub bytes: Vec<u8>,
}

impl Encoder {
    pub fn string(&mut self, text: &[u8]) -> Result<(), TooLong> {
        check_length(text.len())?;
        (text.len() as u64).encode(self);
        self.bytes.extend_from_slice(text);
        Ok(())
    }

    fn array_head(&mut self, element: ValueType, len: usize) -> Result<(), TooLong> {
        check_length(len)?;
        ValueType::Array.id().encode(self);
        element.id().encode(self);
        (len as u64).encode(self);
        Ok(())
    }
}

fn check_length(length: usize) -> Result<(), TooLong> {
    if length as u64 <= MAX_LENGTH { Ok(()) } else { Err(TooLong(length)) }
}

/// Numbers in the byte order of the encoder.
pub trait Encode {
    fn encode(&self, out: &mut Encoder);
}

mod sealed {
    /// What may be the element of an array: numbers, bools, and strings, which may be any bytes.
    pub trait Element {
        const TYPE: super::ValueType;
        fn put_element(&self, out: &mut super::Encoder) -> Result<(), super::TooLong>;
    }

    /// The part of [`MetadataValue`](super::MetadataValue) that is nobody else's business.
    pub trait Put {
        fn put(&self, out: &mut super::Encoder) -> Result<(), super::TooLong>;
    }
}

use sealed::{Element, Put};

/// What [`GgufWriter::set`](super::GgufWriter::set) takes: integers of 8 to 64 bits, `f32`, `f64`, `bool`, strings,
/// slices, arrays and vectors of these, and [`Value`] and [`ArrayView`] of another file. In an array, `&[u8]` and
/// `Vec<u8>` are strings that need not be UTF-8; alone they are arrays of `u8`, and [`Value::String`] is the string.
pub trait MetadataValue: Put {}
impl<T: Put + ?Sized> MetadataValue for T {}

macro_rules! number {
    ($($type:ty: $kind:ident),*) => {$(
        impl Encode for $type {
            fn encode(&self, out: &mut Encoder) {
                match out.endian {
                    Endian::Little => out.bytes.extend_from_slice(&self.to_le_bytes()),
                    Endian::Big => out.bytes.extend_from_slice(&self.to_be_bytes()),
                }
            }
        }
        scalar!($type: $kind, |value: &$type, out| { value.encode(out); Ok(()) });
    )*};
}

/// A type that can stand alone and in arrays.
macro_rules! scalar {
    ($type:ty: $kind:ident, $put:expr) => {
        impl Element for $type {
            const TYPE: ValueType = ValueType::$kind;
            fn put_element(&self, out: &mut Encoder) -> Result<(), TooLong> {
                let put: fn(&$type, &mut Encoder) -> Result<(), TooLong> = $put;
                put(self, out)
            }
        }
        impl Put for $type {
            fn put(&self, out: &mut Encoder) -> Result<(), TooLong> {
                ValueType::$kind.id().encode(out);
                self.put_element(out)
            }
        }
    };
}

number!(u8: U8, i8: I8, u16: U16, i16: I16, u32: U32, i32: I32, u64: U64, i64: I64, f32: F32, f64: F64);
scalar!(bool: Bool, |value, out| u8::from(*value).put_element(out));
scalar!(String: String, |value, out| out.string(value.as_bytes()));

impl Put for str {
    fn put(&self, out: &mut Encoder) -> Result<(), TooLong> {
        ValueType::String.id().encode(out);
        out.string(self.as_bytes())
    }
}

/// Strings that can stand in arrays only, because alone they mean something else or are covered by `&T`.
macro_rules! string_element {
    ($($type:ty),*) => {$(
        impl Element for $type {
            const TYPE: ValueType = ValueType::String;
            fn put_element(&self, out: &mut Encoder) -> Result<(), TooLong> {
                out.string(AsRef::<[u8]>::as_ref(self))
            }
        }
    )*};
}

string_element!(&str, &[u8], Vec<u8>);

impl<T: Element> Put for [T] {
    fn put(&self, out: &mut Encoder) -> Result<(), TooLong> {
        out.array_head(T::TYPE, self.len())?;
        self.iter().try_for_each(|element| element.put_element(out))
    }
}

impl<T: Element> Put for Vec<T> {
    fn put(&self, out: &mut Encoder) -> Result<(), TooLong> {
        self.as_slice().put(out)
    }
}

impl<T: Element, const N: usize> Put for [T; N] {
    fn put(&self, out: &mut Encoder) -> Result<(), TooLong> {
        self.as_slice().put(out)
    }
}

impl<T: Put + ?Sized> Put for &T {
    fn put(&self, out: &mut Encoder) -> Result<(), TooLong> {
        (**self).put(out)
    }
}

impl Put for ArrayView<'_> {
    fn put(&self, out: &mut Encoder) -> Result<(), TooLong> {
        out.array_head(self.element_type(), self.len())?;
        self.iter().try_for_each(|value| put_untyped(&value, out))
    }
}

impl Put for Value<'_> {
    fn put(&self, out: &mut Encoder) -> Result<(), TooLong> {
        if let Value::Array(array) = self {
            return array.put(out);
        }
        self.value_type().id().encode(out);
        put_untyped(self, out)
    }
}

/// Writes a value without its type.
fn put_untyped(value: &Value<'_>, out: &mut Encoder) -> Result<(), TooLong> {
    match value {
        Value::U8(value) => value.put_element(out),
        Value::I8(value) => value.put_element(out),
        Value::U16(value) => value.put_element(out),
        Value::I16(value) => value.put_element(out),
        Value::U32(value) => value.put_element(out),
        Value::I32(value) => value.put_element(out),
        Value::U64(value) => value.put_element(out),
        Value::I64(value) => value.put_element(out),
        Value::F32(value) => value.put_element(out),
        Value::F64(value) => value.put_element(out),
        Value::Bool(value) => value.put_element(out),
        Value::String(text) => out.string(text),
        Value::Array(array) => array.put(out), // cannot be: arrays hold no arrays
    }
}
