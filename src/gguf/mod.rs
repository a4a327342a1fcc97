//! The GGUF container: metadata and tensors of a model, in one file or several.
//!
//! # Reading
//!
//! [`Gguf::open`] takes a path, [`Gguf::from_bytes`] memory, and [`Gguf::from_reader`] anything that reads and seeks.
//! All of them read the header and check every rule of the format, and leave the tensors where they are until
//! [`Gguf::data`] asks for them. Versions 1, 2 and 3 are read, little- and big-endian: numbers in the metadata are
//! converted on access, while the bytes of tensors are handed out as they stand ([`Gguf::endian`] tells which way).
//!
//! # Bad files
//!
//! A file is foreign data. Whatever its bytes are, opening it ends in a model whose every value and tensor can be
//! reached, or in an error that names the key or tensor, the offset, what was found and what was expected. Lengths are
//! held against what remains of the file before memory is asked for, so no allocation is larger than the file.
//!
//! # Files that change
//!
//! [`LoadMode::Map`], the default, maps the file. If someone writes into it while it is open, tensors change under the
//! reader's hands; if someone truncates it, the next touch of a lost page ends the process (SIGBUS on Unix). Replacing
//! a file by renaming another over it, as downloads do, is harmless. Where neither can be ruled out, [`LoadMode::Read`]
//! reads each tensor when it is asked for: a file that shrank is then an error, and a tensor once read stays as it was.
//! The header is copied in either mode, so metadata and directory never change.
//!
//! # Writing
//!
//! [`GgufWriter`] writes version 3 from typed values and bytes, held to the same rules:
//!
//! ```
//! use kiln::gguf::{Gguf, GgufWriter, TensorType};
//!
//! # fn main() -> kiln::Result<()> {
//! let mut writer = GgufWriter::new();
//! writer.set("general.architecture", "llama")?;
//! writer.set("tokenizer.ggml.scores", [0.0f32, -1.5])?;
//! writer.tensor("output_norm.weight", &[2], TensorType::F16, vec![0x00, 0x3c, 0x00, 0x3c])?;
//! let mut file = Vec::new();
//! writer.write(&mut file)?;
//!
//! let model = Gguf::from_bytes(file)?;
//! assert_eq!(model.metadata().str("general.architecture")?, Some("llama"));
//! for tensor in model.tensors() {
//!     assert_eq!(model.data(tensor)?.len() as u64, tensor.size_bytes());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//!
//! `header` knows the format and its rules, reading through `cursor`; `value` and `metadata` decode what it kept;
//! `tensor` and `types` describe tensors; `source` hands out their bytes; `shards` puts several files together;
//! `writer` is the way
//! back, with `encode` for values; `encoding` is what both know about numbers.

mod cursor;
mod encode;
mod encoding;
mod header;
mod metadata;
mod shards;
#[allow(unsafe_code)] // maps files
mod source;
mod tensor;
mod types;
mod value;
mod writer;

use std::borrow::Cow;
use std::io::{Read, Seek};
use std::ops::Range;
use std::path::Path;

pub use encode::MetadataValue;
pub use encoding::Endian;
pub use metadata::Metadata;
pub use source::{LoadMode, Shard};
pub use tensor::TensorInfo;
pub use types::TensorType;
pub use value::{ArrayView, Strings, Value, ValueType, Values};
pub use writer::GgufWriter;

use crate::{Error, Result};
use cursor::NAME_SHOWN_CHARS;
use header::Header;
use value::quoted;

/// An opened model: one file, or all shards of one.
#[derive(Debug)]
pub struct Gguf {
    shards: Vec<Shard>,
    version: u32,
    endian: Endian,
    alignment: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, sorted by name.
    by_name: Vec<usize>,
}

impl Gguf {
    /// Opens a file and maps it. If it is one of several shards, the others are opened too.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, LoadMode::default())
    }

    /// Opens a file, and the other shards if there are any, with a choice of how tensors are reached.
    pub fn open_with(path: impl AsRef<Path>, mode: LoadMode) -> Result<Self> {
        Self::assemble(shards::open(path.as_ref(), mode)?)
    }

    /// Takes a whole file that is in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::from_shard_bytes(vec![bytes])
    }

    /// Takes all shards of a model, each a whole file in memory, the first first.
    pub fn from_shard_bytes(shards: Vec<Vec<u8>>) -> Result<Self> {
        Self::assemble(shards::from_bytes(shards)?)
    }

    /// Takes a file that begins where `reader` stands, which need not be its start, and ends where it ends. Tensors
    /// are read when they are asked for.
    pub fn from_reader<R: Read + Seek + Send + 'static>(reader: R) -> Result<Self> {
        Self::assemble(shards::from_reader(reader)?)
    }

    /// Joins shards that belong together.
    fn assemble(parts: Vec<(Shard, Header)>) -> Result<Self> {
        let mut parts = parts.into_iter();
        let Some((shard, header)) = parts.next() else {
            let [found, expected] = ["no shards", "one or more"].map(String::from);
            return Err(Error::Gguf { subject: "model".into(), offset: 0, found, expected });
        };
        let Header { version, endian, alignment, metadata, tensors, .. } = header;
        let mut model =
            Self { shards: vec![shard], version, endian, alignment, metadata, tensors, by_name: Vec::new() };
        for (shard, header) in parts {
            model.shards.push(shard);
            model.tensors.extend(header.tensors);
        }
        model.by_name = index_by_name(&model.tensors, &model.shards)?;
        log::debug!(
            "opened a GGUF model: version {version}, {} shards, {} keys, {} tensors",
            model.shards.len(),
            model.metadata.len(),
            model.tensors.len()
        );
        Ok(model)
    }

    /// The metadata; of several shards, that of the first.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors in file order, over all shards.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let find = |&index: &usize| self.tensors.get(index).map(TensorInfo::name).cmp(&Some(name));
        let found = self.by_name.binary_search_by(find).ok()?;
        self.tensors.get(*self.by_name.get(found)?)
    }

    /// The bytes of one of this model's tensors: borrowed when the file is mapped or in memory, else read and owned.
    /// They are in the byte order of the file.
    pub fn data(&self, tensor: &TensorInfo) -> Result<Cow<'_, [u8]>> {
        self.data_range(tensor, 0..tensor.size_bytes())
    }

    /// Some of the bytes of a tensor, as [`Gguf::data`]: where they must be read, no others are.
    pub fn data_range(&self, tensor: &TensorInfo, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        let shard = self.shards.get(tensor.shard());
        let start = tensor.offset_bytes().saturating_add(range.start);
        let end = tensor.offset_bytes().saturating_add(range.end.min(tensor.size_bytes()));
        let data = match shard {
            Some(shard) => shard.data(start..end).map_err(|error| error.to_string()),
            None => Err("a tensor of another model".into()),
        };
        data.map_err(|found| {
            let subject = format!("tensor {}: data", quoted(tensor.name().as_bytes(), NAME_SHOWN_CHARS));
            let offset = shard.map_or(0, Shard::data_offset).saturating_add(start);
            let expected = format!("{} bytes", end.saturating_sub(start));
            in_shard(shard, Error::Gguf { subject, offset, found, expected })
        })
    }

    /// Lets the system have back the memory that mapped tensors took when they were read. It costs nothing but time when
    /// they are asked for again: to be called when most of them have been taken elsewhere.
    pub fn release(&self) {
        self.shards.iter().for_each(Shard::release);
    }

    /// The version of the format: 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The byte order of the file, and so of the tensors' bytes.
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// Tensors begin at multiples of this many bytes from the start of the data.
    pub fn alignment(&self) -> u32 {
        self.alignment
    }

    /// The size of all files together.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(Shard::file_bytes).sum()
    }

    /// The number of files.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The files, the first first.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }
}

/// Indices into `tensors`, sorted by name, of which none may come twice.
fn index_by_name(tensors: &[TensorInfo], shards: &[Shard]) -> Result<Vec<usize>> {
    let name = |index: usize| tensors.get(index).map(TensorInfo::name);
    let mut by_name: Vec<usize> = (0..tensors.len()).collect();
    by_name.sort_unstable_by_key(|&index| (name(index), index));
    let same = |pair: &[usize]| match *pair {
        [first, second] if name(first) == name(second) => Some((tensors.get(first)?, tensors.get(second)?)),
        _ => None,
    };
    let Some((first, second)) = by_name.windows(2).find_map(same) else { return Ok(by_name) };
    let elsewhere = match first.shard() == second.shard() {
        true => String::new(),
        false => format!(", the first being in shard {} of {}", first.shard() + 1, shards.len()),
    };
    let error = Error::Gguf {
        subject: format!("tensor {}", quoted(second.name().as_bytes(), NAME_SHOWN_CHARS)),
        offset: second.entry_offset(),
        found: format!("a second tensor of this name{elsewhere}"),
        expected: "each name once".into(),
    };
    Err(in_shard(shards.get(second.shard()), error))
}

/// Says which file an error is about, if the shard has a path.
fn in_shard(shard: Option<&Shard>, error: Error) -> Error {
    match shard.and_then(Shard::path) {
        Some(path) => error.in_file(path),
        None => error,
    }
}
