//! Writing files: version 3, in either byte order, held to the same rules as what is read.
//!
//! Metadata are encoded as they are set, tensors are listed as they are added, and nothing is written until
//! [`GgufWriter::write`]: only then are all sizes known. Tensors can come from a callback, so that a model need not be
//! in memory to be written.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, Read, Write};

use super::cursor::NAME_SHOWN_CHARS;
use super::encode::{Encode, Encoder, MetadataValue, TooLong};
use super::encoding::{Encoding, Endian};
use super::header::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, NEWEST_VERSION};
use super::tensor::{MAX_DIMENSIONS, Misfit, NAME_LIMIT_BYTES, Shape, measure, pad};
use super::types::TensorType;
use super::value::{Value, quoted};
use crate::{Error, Result};

/// Magic, version and the two counts.
const PREAMBLE_BYTES: u64 = 24;

/// Collects metadata and tensors, and writes them as one file.
///
/// ```
/// use kiln::gguf::{Gguf, GgufWriter, TensorType};
///
/// # fn main() -> kiln::Result<()> {
/// let mut writer = GgufWriter::new();
/// writer.set("general.architecture", "llama")?;
/// writer.set("llama.block_count", 2u32)?;
/// writer.set("tokenizer.ggml.tokens", ["<s>", "</s>", "hello"])?;
/// let ones: Vec<u8> = [1.0f32; 6].iter().flat_map(|value| value.to_le_bytes()).collect();
/// writer.tensor("token_embd.weight", &[2, 3], TensorType::F32, ones)?;
/// // Large tensors can be made while they are written.
/// writer.tensor_with("output.weight", &[32, 3], TensorType::Q8_0, |out| out.write_all(&[0; 34 * 3]))?;
///
/// let mut file = Vec::new(); // or a `BufWriter` around a `File`
/// writer.write(&mut file)?;
///
/// let model = Gguf::from_bytes(file)?;
/// assert_eq!(model.metadata().u32("llama.block_count")?, Some(2));
/// assert_eq!(model.tensor("output.weight").map(|tensor| tensor.size_bytes()), Some(102));
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct GgufWriter<'a> {
    /// The pairs, as they will stand in the file.
    pairs: Encoder,
    keys: HashSet<String>,
    alignment: Option<u32>,
    tensors: Vec<Tensor<'a>>,
    names: HashSet<String>,
    /// What the entries of the directory will take.
    directory_bytes: u64,
}

struct Tensor<'a> {
    name: String,
    shape: Shape,
    kind: TensorType,
    size_bytes: u64,
    data: Data<'a>,
}

enum Data<'a> {
    Bytes(Cow<'a, [u8]>),
    #[allow(clippy::type_complexity)]
    Callback(Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + 'a>),
}

impl<'a> GgufWriter<'a> {
    /// An empty little-endian file.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty file in the given byte order. Metadata are converted; the bytes of tensors are written as they come.
    pub fn with_endian(endian: Endian) -> Self {
        Self { pairs: Encoder { endian, bytes: Vec::new() }, ..Self::default() }
    }

    /// Adds a pair. Values are numbers, bools, strings, arrays of these, and [`Value`]s of another file. The key
    /// `general.alignment` (a `u32`, a power of two, by default 32) also sets how tensors are aligned.
    pub fn set(&mut self, key: &str, value: impl MetadataValue) -> Result<()> {
        let misfit = |part: &str, found: String, expected: &str| Error::Gguf {
            subject: format!("key {}: {part}", quoted(key.as_bytes(), NAME_SHOWN_CHARS)),
            offset: PREAMBLE_BYTES + self.pairs.bytes.len() as u64,
            found,
            expected: expected.into(),
        };
        if key.is_empty() {
            return Err(misfit("key", "an empty key".into(), "a key"));
        }
        if self.keys.contains(key) {
            return Err(misfit("key", "a second pair with this key".into(), "each key once"));
        }
        let mut pair = Encoder { endian: self.pairs.endian, bytes: Vec::new() };
        let put = pair.string(key.as_bytes()).and_then(|()| value.put(&mut pair));
        put.map_err(|TooLong(length)| misfit("length", length.to_string(), "at most 2^30"))?;
        if key == ALIGNMENT_KEY {
            let encoding = Encoding { endian: pair.endian, narrow: false };
            let value = encoding.split_string(&pair.bytes).and_then(|(_, value)| Value::decode(value, encoding));
            match value {
                Some(Value::U32(alignment)) if alignment.is_power_of_two() => self.alignment = Some(alignment),
                _ => return Err(misfit("value", format!("{value:?}"), "a u32 that is a power of two")),
            }
        }
        self.keys.insert(key.into());
        self.pairs.bytes.append(&mut pair.bytes);
        Ok(())
    }

    /// Adds a tensor; `shape` is fastest dimension first, and `data` as many bytes as the shape and type call for.
    pub fn tensor(
        &mut self,
        name: &str,
        shape: &[u64],
        kind: TensorType,
        data: impl Into<Cow<'a, [u8]>>,
    ) -> Result<()> {
        let data = data.into();
        self.add(name, shape, kind, Some(data.len() as u64), Data::Bytes(data))
    }

    /// Adds a tensor whose bytes `data` will write, all of them, when the file is written.
    pub fn tensor_with(
        &mut self,
        name: &str,
        shape: &[u64],
        kind: TensorType,
        data: impl FnOnce(&mut dyn Write) -> io::Result<()> + 'a,
    ) -> Result<()> {
        self.add(name, shape, kind, None, Data::Callback(Box::new(data)))
    }

    fn add(
        &mut self,
        name: &str,
        shape: &[u64],
        kind: TensorType,
        data_bytes: Option<u64>,
        data: Data<'a>,
    ) -> Result<()> {
        let size_bytes = self.check_tensor(name, shape, kind, data_bytes).map_err(|misfit| Error::Gguf {
            subject: format!("tensor {}: {}", quoted(name.as_bytes(), NAME_SHOWN_CHARS), misfit.part),
            offset: PREAMBLE_BYTES + self.pairs.bytes.len() as u64 + self.directory_bytes,
            found: misfit.found,
            expected: misfit.expected,
        })?;
        self.names.insert(name.into());
        // Length and name, dimension count and dimensions, type, offset.
        self.directory_bytes += (8 + name.len() + 4 + 8 * shape.len() + 4 + 8) as u64;
        self.tensors.push(Tensor { name: name.into(), shape: Shape::new(shape), kind, size_bytes, data });
        Ok(())
    }

    /// The size of a tensor that may be added.
    fn check_tensor(
        &self,
        name: &str,
        shape: &[u64],
        kind: TensorType,
        data_bytes: Option<u64>,
    ) -> Result<u64, Misfit> {
        let misfit = |part, found: String, expected: String| Err(Misfit { part, found, expected });
        if name.len() >= NAME_LIMIT_BYTES {
            return misfit("name", format!("{} bytes", name.len()), format!("fewer than {NAME_LIMIT_BYTES} bytes"));
        }
        if self.names.contains(name) {
            return misfit("name", "a second tensor of this name".into(), "each name once".into());
        }
        if shape.len() > MAX_DIMENSIONS {
            return misfit("dimension count", shape.len().to_string(), format!("at most {MAX_DIMENSIONS}"));
        }
        let (_, size_bytes) = measure(&Shape::new(shape), kind)?;
        match data_bytes {
            Some(found) if found != size_bytes => {
                misfit("data", format!("{found} bytes"), format!("{size_bytes} bytes for {kind} of shape {shape:?}"))
            }
            _ => Ok(size_bytes),
        }
    }

    /// Writes the file, and says how many bytes it has.
    pub fn write(self, out: &mut impl Write) -> Result<u64> {
        let alignment = self.alignment.unwrap_or(DEFAULT_ALIGNMENT);
        let header = self.header(alignment)?;
        out.write_all(&header)?;
        let mut position = header.len() as u64;
        if !self.tensors.is_empty() {
            position += write_padding(out, position, alignment)?;
        }
        for tensor in self.tensors {
            let Tensor { name, size_bytes, data, .. } = tensor;
            let mut exact = Exact { out, left_bytes: size_bytes, excess: false };
            let result = match data {
                Data::Bytes(bytes) => exact.write_all(&bytes),
                Data::Callback(write) => write(&mut exact),
            };
            let Exact { left_bytes, excess, .. } = exact;
            if excess || (result.is_ok() && left_bytes > 0) {
                let found = if excess { "more bytes".into() } else { format!("{} bytes", size_bytes - left_bytes) };
                let subject = format!("tensor {}: data", quoted(name.as_bytes(), NAME_SHOWN_CHARS));
                return Err(Error::Gguf { subject, offset: position, found, expected: format!("{size_bytes} bytes") });
            }
            result?;
            position += size_bytes;
            position += write_padding(out, position, alignment)?;
        }
        out.flush()?;
        Ok(position)
    }

    /// Everything before the padding that comes before the tensors' bytes.
    fn header(&self, alignment: u32) -> Result<Vec<u8>> {
        let mut header = Encoder { endian: self.pairs.endian, bytes: MAGIC.to_vec() };
        NEWEST_VERSION.encode(&mut header);
        (self.tensors.len() as u64).encode(&mut header);
        (self.keys.len() as u64).encode(&mut header);
        header.bytes.extend_from_slice(&self.pairs.bytes);
        let mut offset_bytes = 0u64;
        for Tensor { name, shape, kind, size_bytes, .. } in &self.tensors {
            let entry_offset = header.bytes.len() as u64;
            (name.len() as u64).encode(&mut header);
            header.bytes.extend_from_slice(name.as_bytes());
            (shape.dimensions().len() as u32).encode(&mut header);
            shape.dimensions().iter().for_each(|dimension| dimension.encode(&mut header));
            kind.id().encode(&mut header);
            offset_bytes.encode(&mut header);
            let end = pad(*size_bytes, alignment).and_then(|padded| offset_bytes.checked_add(padded));
            offset_bytes = end.ok_or_else(|| Error::Gguf {
                subject: format!("tensor {}: size", quoted(name.as_bytes(), NAME_SHOWN_CHARS)),
                offset: entry_offset,
                found: format!("{size_bytes} bytes after {offset_bytes} bytes of other tensors"),
                expected: "fewer than 2^64 bytes in all".into(),
            })?;
        }
        Ok(header.bytes)
    }
}

fn write_padding(out: &mut impl Write, position: u64, alignment: u32) -> Result<u64> {
    let padding = pad(position, alignment).unwrap_or(position) - position;
    Ok(io::copy(&mut io::repeat(0).take(padding), out)?)
}

/// Lets through as many bytes as a tensor has, and no more.
struct Exact<'w, W> {
    out: &'w mut W,
    left_bytes: u64,
    excess: bool,
}

impl<W: Write> Write for Exact<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left_bytes {
            self.excess = true;
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more bytes than the tensor has"));
        }
        let written = self.out.write(bytes)?;
        self.left_bytes -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
