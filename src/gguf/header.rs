//! The header of one file, from the magic to the last entry of the tensor directory, with every rule checked.
//!
//! ```text
//! "GGUF"  version: u32  tensor count  key count
//! per key:    key: string  type: u32  [element type: u32  count]  value
//! per tensor: name: string  dimension count: u32  dimensions  type: u32  offset: u64
//! padding to the alignment, then the tensors' bytes, each padded to the alignment
//! ```
//!
//! A string is a length and that many bytes. Lengths, counts and dimensions are u64, in version 1 u32. Offsets count
//! from the start of the data, and must leave neither gaps nor overlaps: each is the padded sum of the sizes before it.

use std::io::{self, Read};
use std::ops::Range;

use super::cursor::{Cursor, MAX_LENGTH, NAME_SHOWN_CHARS};
use super::encoding::{Encoding, Endian};
use super::metadata::Metadata;
use super::tensor::{MAX_DIMENSIONS, NAME_LIMIT_BYTES, Record, Shape, TensorInfo, measure, pad};
use super::types::TensorType;
use super::value::{ValueType, quoted};
use crate::{Error, Result};

/// The four bytes that every file begins with.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";
/// The newest version there is, and the one that is written.
pub(super) const NEWEST_VERSION: u32 = 3;
/// The key that says how tensors are aligned.
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";
/// The alignment of files without that key.
pub(super) const DEFAULT_ALIGNMENT: u32 = 32;

/// What the header of a file says.
pub(super) struct Header {
    pub version: u32,
    pub endian: Endian,
    pub alignment: u32,
    pub metadata: Metadata,
    pub tensors: Vec<TensorInfo>,
    /// Where the tensors' bytes begin.
    pub data_offset: u64,
}

/// Reads the header of a file of `file_bytes` bytes, which becomes shard number `shard` of a model.
pub(super) fn read(source: &mut dyn Read, file_bytes: u64, shard: usize) -> Result<Header> {
    let mut cursor = Cursor::new(source, file_bytes);
    let version = read_version(&mut cursor)?;
    let (tensor_count, key_count) = read_counts(&mut cursor)?;

    let (entries, alignment) = read_pairs(&mut cursor, key_count)?;
    let metadata_end = cursor.position();
    let (tensors, data_offset) = read_directory(&mut cursor, tensor_count, alignment, shard)?;

    let Encoding { endian, .. } = cursor.encoding;
    let metadata = Metadata::new(cursor.encoding, entries, cursor.into_bytes(metadata_end));
    if let Some((offset, key)) = metadata.duplicate() {
        return Err(Error::Gguf {
            subject: format!("key {}", quoted(key, NAME_SHOWN_CHARS)),
            offset: offset as u64,
            found: "a second pair with this key".into(),
            expected: "each key once".into(),
        });
    }
    Ok(Header { version, endian, alignment, metadata, tensors, data_offset })
}

/// Checks the magic and reads the version, which tells the byte order: whichever makes it a version that exists.
fn read_version(cursor: &mut Cursor<'_>) -> Result<u32> {
    let magic = cursor.array("magic")?;
    if magic != MAGIC {
        let swapped = if magic.iter().rev().eq(&MAGIC) { " (\"GGUF\" backwards)" } else { "" };
        let found = format!("{}{swapped}", quoted(&magic, 4));
        return Err(cursor.error_at(0, "magic", found, "\"GGUF\""));
    }
    let bytes = cursor.array("version")?;
    let [little, big] = [u32::from_le_bytes(bytes), u32::from_be_bytes(bytes)];
    let exists = |version: &u32| (1..=NEWEST_VERSION).contains(version);
    let (version, endian) = match (exists(&little), exists(&big)) {
        (true, _) => (little, Endian::Little),
        (_, true) => (big, Endian::Big),
        _ => {
            // Whichever order makes it the smaller number is the one that was meant.
            let order = if little <= big { "" } else { " (big-endian)" };
            let found = format!("version {}{order}", little.min(big));
            return Err(cursor.error_at(4, "version", found, format!("1 to {NEWEST_VERSION}")));
        }
    };
    cursor.encoding = Encoding { endian, narrow: version == 1 };
    Ok(version)
}

/// Reads how many tensors and keys there are, and makes sure that the rest of the file could hold them.
fn read_counts(cursor: &mut Cursor<'_>) -> Result<(usize, usize)> {
    let tensors = (cursor.position(), cursor.length("tensor count")?);
    let keys = (cursor.position(), cursor.length("key count")?);
    let length_bytes = cursor.encoding.length_bytes() as u64;
    // The least that an entry takes: an empty name, no dimensions, type, offset; a key of one byte, type, one byte.
    let (tensor_bytes, key_bytes) = (length_bytes + 16, length_bytes + 6);
    let left = cursor.remaining_bytes();
    let tensors = check_count(cursor, "tensor count", tensors, left, tensor_bytes)?;
    let left = left.saturating_sub(tensors as u64 * tensor_bytes);
    let keys = check_count(cursor, "key count", keys, left, key_bytes)?;
    Ok((tensors, keys))
}

/// Makes sure that as many entries as `count` says, each of `least_bytes` or more, fit into `left_bytes`.
fn check_count(
    cursor: &Cursor<'_>,
    part: &str,
    (offset, count): (usize, u64),
    left_bytes: u64,
    least_bytes: u64,
) -> Result<usize> {
    let most = left_bytes / least_bytes;
    if let Ok(fits) = usize::try_from(count)
        && count <= most
    {
        return Ok(fits);
    }
    let swapped = if cursor.encoding.narrow { u64::from((count as u32).swap_bytes()) } else { count.swap_bytes() };
    let hint = if swapped <= most { format!(" ({swapped} in the other byte order)") } else { String::new() };
    let expected = format!("at most {most}, for each takes {least_bytes} bytes or more of the rest of the file");
    Err(cursor.error_at(offset, part, format!("{count}{hint}"), expected))
}

/// Reads the key-value pairs: where each begins, and the alignment of the tensors.
fn read_pairs(cursor: &mut Cursor<'_>, count: usize) -> Result<(Vec<usize>, u32)> {
    let mut entries = Vec::new();
    let mut alignment = DEFAULT_ALIGNMENT;
    for index in 0..count {
        let start = cursor.position();
        cursor.begin("key", index as u64);
        let key = read_name(cursor, "key")?;
        if key.is_empty() {
            return Err(cursor.error_at(start, "key", "an empty key", "a key"));
        }
        cursor.named(key.clone());
        if cursor.bytes(key) == ALIGNMENT_KEY.as_bytes() {
            alignment = read_alignment(cursor)?;
        } else {
            skip_value(cursor)?;
        }
        make_room(&mut entries, count)?;
        entries.push(start);
    }
    Ok((entries, alignment))
}

/// Makes room for one more of `count` entries, by doubling: a count is only a claim until its entries have been read.
fn make_room<T>(entries: &mut Vec<T>, count: usize) -> Result<()> {
    if entries.len() < entries.capacity() {
        return Ok(());
    }
    let more = entries.len().max(64).min(count.saturating_sub(entries.len()));
    entries.try_reserve_exact(more).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory).into())
}

/// Reads a string that must be UTF-8.
fn read_name(cursor: &mut Cursor<'_>, part: &str) -> Result<Range<usize>> {
    let name = cursor.string(part)?;
    match std::str::from_utf8(cursor.bytes(name.clone())) {
        Ok(_) => Ok(name),
        Err(_) => {
            let found = quoted(cursor.bytes(name.clone()), NAME_SHOWN_CHARS);
            Err(cursor.error_at(name.start, part, found, "UTF-8"))
        }
    }
}

fn read_value_type(cursor: &mut Cursor<'_>, part: &str) -> Result<ValueType> {
    let start = cursor.position();
    let id = cursor.u32(part)?;
    ValueType::from_id(id).ok_or_else(|| cursor.error_at(start, part, format!("type {id}"), "a type from 0 to 12"))
}

fn read_alignment(cursor: &mut Cursor<'_>) -> Result<u32> {
    let start = cursor.position();
    let kind = read_value_type(cursor, "value type")?;
    if kind != ValueType::U32 {
        return Err(cursor.error_at(start, "value type", kind.name(), "u32"));
    }
    let start = cursor.position();
    let alignment = cursor.u32("value")?;
    if !alignment.is_power_of_two() {
        return Err(cursor.error_at(start, "value", alignment.to_string(), "a power of two"));
    }
    Ok(alignment)
}

/// Steps over a value, type and all, and makes sure that it can be decoded later.
fn skip_value(cursor: &mut Cursor<'_>) -> Result<()> {
    let kind = read_value_type(cursor, "value type")?;
    match kind.size_bytes() {
        Some(size) => cursor.take(size as u64, "value").map(drop),
        None if kind == ValueType::String => cursor.string("string").map(drop),
        None => skip_array(cursor),
    }
}

fn skip_array(cursor: &mut Cursor<'_>) -> Result<()> {
    let start = cursor.position();
    let element = read_value_type(cursor, "element type")?;
    if element == ValueType::Array {
        return Err(cursor.error_at(start, "element type", "an array of arrays", "elements that are not arrays"));
    }
    let start = cursor.position();
    let count = cursor.length("element count")?;
    let least_bytes = element.size_bytes().unwrap_or(cursor.encoding.length_bytes()) as u64;
    let most = (cursor.remaining_bytes() / least_bytes).min(MAX_LENGTH);
    if count > most {
        let limit = if most == MAX_LENGTH { "the limit" } else { "by what remains of the file" };
        let found = format!("{count} elements of type {element}");
        return Err(cursor.error_at(start, "element count", found, format!("at most {most} ({limit})")));
    }
    if element != ValueType::String {
        return cursor.take(count * least_bytes, "elements").map(drop);
    }
    (0..count).try_for_each(|_| cursor.string("string in the array").map(drop))
}

/// Reads the tensor directory and finds where the tensors' bytes begin.
fn read_directory(
    cursor: &mut Cursor<'_>,
    count: usize,
    alignment: u32,
    shard: usize,
) -> Result<(Vec<TensorInfo>, u64)> {
    let mut tensors = Vec::new();
    let mut data_bytes = 0;
    for index in 0..count {
        cursor.begin("tensor", index as u64);
        make_room(&mut tensors, count)?;
        tensors.push(read_tensor(cursor, alignment, shard, &mut data_bytes)?);
    }
    cursor.begin("header", 0);
    let end = cursor.position();
    let data_offset = if count == 0 { Some(end as u64) } else { pad(end as u64, alignment) };
    let file_bytes = cursor.file_bytes();
    let Some(data_offset) = data_offset.filter(|&offset| offset <= file_bytes) else {
        let found = format!("a file of {file_bytes} bytes");
        return Err(cursor.error_at(end, "start of the data", found, format!("padding to a multiple of {alignment}")));
    };
    for tensor in &tensors {
        let data_end = tensor.offset_bytes().checked_add(tensor.size_bytes());
        if data_end.and_then(|end| end.checked_add(data_offset)).is_none_or(|end| end > file_bytes) {
            let found = format!("a file of {file_bytes} bytes");
            let start = u128::from(data_offset) + u128::from(tensor.offset_bytes());
            let end = start + u128::from(tensor.size_bytes());
            return Err(Error::Gguf {
                subject: format!("tensor {}: data", quoted(tensor.name().as_bytes(), NAME_SHOWN_CHARS)),
                offset: tensor.entry_offset(),
                found,
                expected: format!("{} bytes from byte {start} to byte {end}", tensor.size_bytes()),
            });
        }
    }
    Ok((tensors, data_offset))
}

/// Reads one entry of the directory. `data_bytes` is the padded size of all tensors before it, and grows by this one.
fn read_tensor(cursor: &mut Cursor<'_>, alignment: u32, shard: usize, data_bytes: &mut u64) -> Result<TensorInfo> {
    let entry_offset = cursor.position();
    let name = read_name(cursor, "name")?;
    if name.len() >= NAME_LIMIT_BYTES {
        let found = format!("{} of {} bytes", quoted(cursor.bytes(name.clone()), NAME_SHOWN_CHARS), name.len());
        return Err(cursor.error_at(entry_offset, "name", found, format!("fewer than {NAME_LIMIT_BYTES} bytes")));
    }
    cursor.named(name.clone());
    let shape_offset = cursor.position();
    let shape = read_shape(cursor)?;
    let kind = read_tensor_type(cursor)?;
    let (elements, size_bytes) = measure(&shape, kind)
        .map_err(|misfit| cursor.error_at(shape_offset, misfit.part, misfit.found, misfit.expected))?;

    let offset_position = cursor.position();
    let offset_bytes = cursor.u64("offset")?;
    if offset_bytes != *data_bytes {
        let expected = format!("{data_bytes}, the padded size of the tensors before it");
        return Err(cursor.error_at(offset_position, "offset", offset_bytes.to_string(), expected));
    }
    let Some(next) = pad(size_bytes, alignment).and_then(|padded| data_bytes.checked_add(padded)) else {
        let found = format!("{size_bytes} bytes after {data_bytes} bytes of other tensors");
        return Err(cursor.error_at(shape_offset, "size", found, "fewer than 2^64 bytes in all"));
    };
    *data_bytes = next;
    let name = String::from_utf8_lossy(cursor.bytes(name)).into(); // UTF-8, as read_name has checked
    let entry_offset = entry_offset as u64;
    Ok(TensorInfo::new(Record { name, shape, kind, elements, size_bytes, offset_bytes, shard, entry_offset }))
}

fn read_shape(cursor: &mut Cursor<'_>) -> Result<Shape> {
    let start = cursor.position();
    let count = cursor.u32("dimension count")?;
    let mut dimensions = [0; MAX_DIMENSIONS];
    let Some(used) = usize::try_from(count).ok().and_then(|count| dimensions.get_mut(..count)) else {
        let expected = format!("at most {MAX_DIMENSIONS}");
        return Err(cursor.error_at(start, "dimension count", count.to_string(), expected));
    };
    for dimension in used.iter_mut() {
        *dimension = cursor.length("dimension")?;
    }
    Ok(Shape::new(used))
}

fn read_tensor_type(cursor: &mut Cursor<'_>) -> Result<TensorType> {
    let start = cursor.position();
    let id = cursor.u32("type")?;
    TensorType::from_id(id).ok_or_else(|| match TensorType::withdrawn_name(id) {
        Some(name) => {
            let found = format!("type {id} ({name}), which was withdrawn");
            cursor.error_at(start, "type", found, "a type in use; convert the model anew")
        }
        None => cursor.error_at(start, "type", format!("type {id}"), "a type from 0 to 42"),
    })
}
