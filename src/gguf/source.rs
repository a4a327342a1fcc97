//! Where the bytes of tensors come from: a map of the file, memory, or a reader that fetches them when asked.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use memmap2::Mmap;

use super::header::{self, Header};
use crate::{Error, Result};

/// How a file's tensors are reached. The header is read, never mapped, in both modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LoadMode {
    /// Map the file into memory: tensors are handed out without copying, and the system fetches and drops their pages
    /// as it sees fit. The file must be left alone while it is open, see the [module's page](super).
    #[default]
    Map,
    /// Keep the file open and read each tensor when it is asked for, into memory of its own. For files that may change
    /// or shrink meanwhile, and for file systems that cannot map.
    Read,
}

/// One file of a model.
pub struct Shard {
    path: Option<PathBuf>,
    bytes: Bytes,
    file_bytes: u64,
    data_offset: u64,
}

/// Where a shard's bytes are.
enum Bytes {
    Mapped(Mmap),
    Memory(Vec<u8>),
    /// A reader, and the position in it at which the container begins.
    Reader(Mutex<Box<dyn ReadSeek>>, u64),
}

trait ReadSeek: Read + Seek + Send {}
impl<R: Read + Seek + Send> ReadSeek for R {}

impl Shard {
    /// Reads the header of the file at `path` and gets ready to hand out its tensors. Errors name the file.
    pub(super) fn open(path: &Path, mode: LoadMode, shard: usize) -> Result<(Self, Header)> {
        let open = || {
            let file = File::open(path)?;
            match mode {
                LoadMode::Map => Self::from_mapped_file(file, shard),
                LoadMode::Read => Self::from_reader(file, shard),
            }
        };
        let (mut shard, header) = open().map_err(|error: Error| error.in_file(path))?;
        shard.path = Some(path.to_owned());
        Ok((shard, header))
    }

    fn from_mapped_file(mut file: File, shard: usize) -> Result<(Self, Header)> {
        let file_bytes = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        let header = header::read(&mut file, file_bytes, shard)?;
        // SAFETY: the map is only read, and only as bytes, for which every bit pattern is valid. That nobody writes to
        // or truncates the file meanwhile cannot be enforced from here; the module's page asks it of the caller and
        // offers `LoadMode::Read` to those who cannot promise it.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Self::new(Bytes::Mapped(map), file_bytes, header))
    }

    /// Takes a file that is in memory already.
    pub(super) fn from_bytes(bytes: Vec<u8>, shard: usize) -> Result<(Self, Header)> {
        let file_bytes = bytes.len() as u64;
        let header = header::read(&mut bytes.as_slice(), file_bytes, shard)?;
        Ok(Self::new(Bytes::Memory(bytes), file_bytes, header))
    }

    /// Takes a container that begins where `reader` stands and ends where it ends.
    pub(super) fn from_reader<R: Read + Seek + Send + 'static>(mut reader: R, shard: usize) -> Result<(Self, Header)> {
        let start = reader.stream_position()?;
        let file_bytes = reader.seek(SeekFrom::End(0))?.saturating_sub(start);
        reader.seek(SeekFrom::Start(start))?;
        let header = header::read(&mut reader, file_bytes, shard)?;
        Ok(Self::new(Bytes::Reader(Mutex::new(Box::new(reader)), start), file_bytes, header))
    }

    fn new(bytes: Bytes, file_bytes: u64, header: Header) -> (Self, Header) {
        (Self { path: None, bytes, file_bytes, data_offset: header.data_offset }, header)
    }

    /// The path that it was opened by, if it was.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The size of the file; for a container inside another file, from its start to the end of that file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Where the tensors' bytes begin, counted from the start of the container.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Lets the system have the memory of a map back, until its bytes are asked for again.
    pub(super) fn release(&self) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes {
            // SAFETY: this drops nothing but copies of the file's pages, for nobody writes to the map; whoever holds a part of
            // it finds the same bytes there, read anew.
            let released = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            released.unwrap_or_else(|error| log::debug!("the pages of a map stay in memory: {error}"));
        }
    }

    /// Part of the data: borrowed where it is in memory, else read.
    pub(super) fn data(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        let absolute = |offset: u64| offset.checked_add(self.data_offset).filter(|&offset| offset <= self.file_bytes);
        let (Some(start), Some(end)) = (absolute(range.start), absolute(range.end)) else { return Err(past_end()) };
        match &self.bytes {
            Bytes::Mapped(map) => slice(map, start, end).map(Cow::Borrowed),
            Bytes::Memory(bytes) => slice(bytes, start, end).map(Cow::Borrowed),
            Bytes::Reader(reader, base) => {
                read_range(reader, base.saturating_add(start), end.saturating_sub(start)).map(Cow::Owned)
            }
        }
    }
}

fn read_range(reader: &Mutex<Box<dyn ReadSeek>>, position: u64, count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let room = usize::try_from(count).is_ok_and(|count| bytes.try_reserve_exact(count).is_ok());
    if !room {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    // A reader that panicked in another thread is as good as any: it is told where to stand.
    let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    reader.seek(SeekFrom::Start(position))?;
    let read = reader.by_ref().take(count).read_to_end(&mut bytes)?;
    if (read as u64) < count { Err(past_end()) } else { Ok(bytes) }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, file_bytes, data_offset, .. } = self;
        let mut shard = f.debug_struct("Shard");
        shard.field("path", path).field("file_bytes", file_bytes).field("data_offset", data_offset).finish()
    }
}

fn slice(bytes: &[u8], start: u64, end: u64) -> io::Result<&[u8]> {
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    range.and_then(|(start, end)| bytes.get(start..end)).ok_or_else(past_end)
}

fn past_end() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the tensor ends past the end of the file")
}
