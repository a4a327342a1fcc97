//! The header as it is read: bytes fetched in growing chunks, each length checked before anything is made for it.
//!
//! Two promises are kept here. Nothing is allocated that the rest of the file could not fill, whatever the lengths in
//! it claim; and no byte is fetched that lies more than one doubling behind the header, so a file of 40 GB costs no
//! more to open than its header does.

use std::io::Read;
use std::ops::Range;

use super::encoding::Encoding;
use super::value::quoted;
use crate::{Error, Result};

/// The first fetch: most headers without a vocabulary fit.
const FIRST_CHUNK_BYTES: usize = 64 << 10;
/// No string is longer and no array has more elements, as in the reference.
pub(super) const MAX_LENGTH: u64 = 1 << 30;
/// Characters of a key or name that an error shows.
pub(super) const NAME_SHOWN_CHARS: usize = 80;

/// What is being read, for errors.
#[derive(Clone)]
struct Subject {
    /// `header`, `key` or `tensor`.
    kind: &'static str,
    /// Which one, until its name is known.
    index: u64,
    /// Where its name stands.
    name: Option<Range<usize>>,
}

/// Reads a header from front to back and keeps its bytes.
pub(super) struct Cursor<'r> {
    source: &'r mut dyn Read,
    file_bytes: u64,
    /// The file from its start to wherever the last fetch ended.
    bytes: Vec<u8>,
    position: usize,
    subject: Subject,
    pub encoding: Encoding,
}

impl<'r> Cursor<'r> {
    pub fn new(source: &'r mut dyn Read, file_bytes: u64) -> Self {
        let subject = Subject { kind: "header", index: 0, name: None };
        Self { source, file_bytes, bytes: Vec::new(), position: 0, subject, encoding: Encoding::default() }
    }

    /// Where the next byte will be read from.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Bytes of the file that have not been read yet.
    pub fn remaining_bytes(&self) -> u64 {
        self.file_bytes.saturating_sub(self.position as u64)
    }

    /// From now on, errors are about the key or tensor of this number.
    pub fn begin(&mut self, kind: &'static str, index: u64) {
        self.subject = Subject { kind, index, name: None };
    }

    /// From now on, errors give the key or tensor this name.
    pub fn named(&mut self, name: Range<usize>) {
        self.subject.name = Some(name);
    }

    /// Bytes that have been read.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// Everything that was read up to `end`, and nothing more.
    pub fn into_bytes(mut self, end: usize) -> Vec<u8> {
        self.bytes.truncate(end);
        self.bytes.shrink_to_fit();
        self.bytes
    }

    /// An error about `part` of the current subject, which stands at `offset`.
    pub fn error_at(&self, offset: usize, part: &str, found: impl Into<String>, expected: impl Into<String>) -> Error {
        let Subject { kind, index, name } = self.subject.clone();
        let subject = match name {
            Some(name) => {
                let quoted = quoted(self.bytes(name), NAME_SHOWN_CHARS);
                format!("{kind} {quoted}: {part}")
            }
            None if kind == "header" => part.to_owned(),
            None => format!("{kind} {index}: {part}"),
        };
        Error::Gguf { subject, offset: offset as u64, found: found.into(), expected: expected.into() }
    }

    /// Takes the next `count` bytes.
    pub fn take(&mut self, count: u64, part: &str) -> Result<Range<usize>> {
        let left = self.remaining_bytes();
        let end = usize::try_from(count).ok().and_then(|count| self.position.checked_add(count));
        let Some(end) = end.filter(|_| count <= left) else {
            let found = format!("{left} bytes to the end of the file");
            return Err(self.error_at(self.position, part, found, format!("{count} bytes")));
        };
        if end > self.bytes.len() {
            self.fetch(end, part)?;
        }
        let start = std::mem::replace(&mut self.position, end);
        Ok(start..end)
    }

    /// Fetches more of the file: at least up to `end`, and else as much again as there is.
    fn fetch(&mut self, end: usize, part: &str) -> Result<()> {
        let file_bytes = usize::try_from(self.file_bytes).unwrap_or(usize::MAX);
        let have = self.bytes.len();
        let target = have.saturating_mul(2).max(FIRST_CHUNK_BYTES).min(file_bytes).max(end);
        let wanted = target - have;
        if self.bytes.try_reserve_exact(wanted).is_err() {
            let found = format!("no memory for {target} bytes of header");
            return Err(self.error_at(self.position, part, found, "a header that fits into memory"));
        }
        (&mut *self.source).take(wanted as u64).read_to_end(&mut self.bytes)?;
        if self.bytes.len() < end {
            let found = format!("a file that ends at byte {}, though it had {file_bytes} bytes", self.bytes.len());
            return Err(self.error_at(self.position, part, found, "a file that does not change while it is read"));
        }
        Ok(())
    }

    /// Takes the next `N` bytes.
    pub fn array<const N: usize>(&mut self, part: &str) -> Result<[u8; N]> {
        let range = self.take(N as u64, part)?;
        Ok(self.bytes(range).first_chunk().copied().unwrap_or([0; N]))
    }

    pub fn u32(&mut self, part: &str) -> Result<u32> {
        self.array(part).map(|bytes| self.encoding.u32(bytes))
    }

    pub fn u64(&mut self, part: &str) -> Result<u64> {
        self.array(part).map(|bytes| self.encoding.u64(bytes))
    }

    /// A count, dimension or length, in the width of the file's version.
    pub fn length(&mut self, part: &str) -> Result<u64> {
        if self.encoding.narrow { self.u32(part).map(u64::from) } else { self.u64(part) }
    }

    /// A length, and then as many bytes.
    pub fn string(&mut self, part: &str) -> Result<Range<usize>> {
        let start = self.position;
        let length = self.length(part)?;
        let most = self.remaining_bytes().min(MAX_LENGTH);
        if length > most {
            let limit = if most == MAX_LENGTH { "the limit" } else { "to the end of the file" };
            return Err(self.error_at(
                start,
                part,
                format!("a length of {length} bytes"),
                format!("at most {most} ({limit})"),
            ));
        }
        self.take(length, part)
    }
}
