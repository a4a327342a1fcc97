//! Models in several files: finding the others from any one of them, and making sure that they belong together.
//!
//! The files are named `PREFIX-00001-of-00003.gguf` and so on. Each carries `split.no`, counted from 0, and
//! `split.count`; the first also carries the metadata of the whole model and `split.tensors.count`, the number of
//! tensors in all files together. A `split.count` of 0 or 1 is a model in one file.

use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use super::header::Header;
use super::metadata::Metadata;
use super::source::{LoadMode, Shard};
use crate::{Error, Result};

const COUNT_KEY: &str = "split.count";
const INDEX_KEY: &str = "split.no";
const TENSOR_COUNT_KEY: &str = "split.tensors.count";

/// Opens the file at `path`, and if it is one shard of several, all of them in order.
pub(super) fn open(path: &Path, mode: LoadMode) -> Result<Vec<(Shard, Header)>> {
    let opened = Shard::open(path, mode, 0)?;
    let shards = match shard_names(path, &opened.1.metadata).map_err(|error| error.in_file(path))? {
        None => vec![opened],
        // Whichever was opened is opened again in its turn: its tensors must say which shard they are in.
        Some(names) => {
            let count = names.len();
            let opened = names.iter().enumerate().map(|(index, name)| open_shard(name, mode, index, count));
            opened.collect::<Result<_>>()?
        }
    };
    check(&shards)?;
    Ok(shards)
}

/// Takes files that are in memory, the first first.
pub(super) fn from_bytes(files: Vec<Vec<u8>>) -> Result<Vec<(Shard, Header)>> {
    let opened = files.into_iter().enumerate().map(|(index, bytes)| Shard::from_bytes(bytes, index));
    let shards = opened.collect::<Result<Vec<_>>>()?;
    check(&shards)?;
    Ok(shards)
}

/// Takes a file out of a reader; it has to be the only one.
pub(super) fn from_reader<R: Read + Seek + Send + 'static>(reader: R) -> Result<Vec<(Shard, Header)>> {
    let shards = vec![Shard::from_reader(reader, 0)?];
    check(&shards)?;
    Ok(shards)
}

fn open_shard(path: &Path, mode: LoadMode, index: usize, count: usize) -> Result<(Shard, Header)> {
    Shard::open(path, mode, index).map_err(|error| match &error {
        Error::File { source, .. } => match &**source {
            Error::Io { source } if source.kind() == io::ErrorKind::NotFound => {
                let missing = format!("shard {} of {count} is missing", index + 1);
                Error::from(io::Error::new(io::ErrorKind::NotFound, missing)).in_file(path)
            }
            _ => error,
        },
        _ => error,
    })
}

/// The paths of all shards, given that of one; `None` when the metadata say that it is the only one.
fn shard_names(path: &Path, metadata: &Metadata) -> Result<Option<Vec<PathBuf>>> {
    let Some(count) = metadata.u32(COUNT_KEY)?.filter(|&count| count > 1) else { return Ok(None) };
    let index = required(metadata, INDEX_KEY)?;
    let Some(name) = ShardName::parse(path) else {
        let expected = format!("a file named like PREFIX-{:05}-of-{count:05}.gguf", index.saturating_add(1));
        return Err(Error::metadata(COUNT_KEY, format!("{count} in a file of another name"), expected));
    };
    if name.count != count {
        return Err(Error::metadata(COUNT_KEY, count.to_string(), format!("{}, as in the file's name", name.count)));
    }
    if name.number.checked_sub(1) != Some(index) {
        let expected = format!("one less than the {} in the file's name", name.number);
        return Err(Error::metadata(INDEX_KEY, index.to_string(), expected));
    }
    Ok(Some((1..=count).map(|number| name.sibling(number)).collect()))
}

/// A path of the form `PREFIX-00001-of-00003.gguf`.
struct ShardName<'p> {
    path: &'p Path,
    prefix: &'p str,
    /// Counted from 1.
    number: u32,
    count: u32,
}

impl<'p> ShardName<'p> {
    fn parse(path: &'p Path) -> Option<Self> {
        let (rest, count) = path.file_name()?.to_str()?.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(number) || !digits(count) {
            return None;
        }
        Some(Self { path, prefix, number: number.parse().ok()?, count: count.parse().ok()? })
    }

    fn sibling(&self, number: u32) -> PathBuf {
        self.path.with_file_name(format!("{}-{number:05}-of-{:05}.gguf", self.prefix, self.count))
    }
}

/// Makes sure that these files, in this order, are all of one model.
fn check(shards: &[(Shard, Header)]) -> Result<()> {
    let Some((first_shard, first)) = shards.first() else { return Ok(()) };
    let in_file = |shard: &Shard, error: Error| match shard.path() {
        Some(path) => error.in_file(path),
        None => error,
    };
    for (index, (shard, header)) in shards.iter().enumerate() {
        check_shard(header, index, shards.len()).map_err(|error| in_file(shard, error))?;
        if header.endian != first.endian {
            let found = format!("{:?}-endian, unlike the first shard", header.endian);
            let expected = format!("{:?}-endian", first.endian);
            let error = Error::Gguf { subject: "version".into(), offset: 4, found, expected };
            return Err(in_file(shard, error));
        }
    }
    let tensors: usize = shards.iter().map(|(_, header)| header.tensors.len()).sum();
    check_tensor_count(&first.metadata, shards.len(), tensors).map_err(|error| in_file(first_shard, error))
}

/// Makes sure that a file is number `index` of `count`. A file that says nothing about shards is a model of its own.
fn check_shard(header: &Header, index: usize, count: usize) -> Result<()> {
    let metadata = &header.metadata;
    let said = metadata.u32(COUNT_KEY)?;
    if count == 1 && said.is_none_or(|said| said == 0) {
        return Ok(());
    }
    if let Some(said) = said.filter(|&said| said as usize != count) {
        let found = format!("{said} (this is number {})", metadata.u32(INDEX_KEY)?.unwrap_or(0).saturating_add(1));
        let expected = format!("{count}; open a model in several files by the path of one, or hand over all of them");
        return Err(Error::metadata(COUNT_KEY, found, expected));
    }
    let position = if count == 1 { metadata.u32(INDEX_KEY)?.unwrap_or(0) } else { required(metadata, INDEX_KEY)? };
    if position as usize != index {
        return Err(Error::metadata(INDEX_KEY, position.to_string(), index.to_string()));
    }
    Ok(())
}

/// Makes sure that no tensor is missing.
fn check_tensor_count(metadata: &Metadata, shard_count: usize, tensor_count: usize) -> Result<()> {
    let said = match shard_count {
        1 if metadata.u32(COUNT_KEY)? != Some(1) => return Ok(()),
        1 => metadata.u64(TENSOR_COUNT_KEY)?,
        _ => Some(required(metadata, TENSOR_COUNT_KEY)?.into()),
    };
    match said {
        Some(said) if said != tensor_count as u64 => {
            let expected = format!("{tensor_count}, the number of tensors in all files");
            Err(Error::metadata(TENSOR_COUNT_KEY, said.to_string(), expected))
        }
        _ => Ok(()),
    }
}

fn required(metadata: &Metadata, key: &str) -> Result<u32> {
    metadata.u32(key)?.ok_or_else(|| Error::metadata(key, "nothing", "a number, for there are several files"))
}
