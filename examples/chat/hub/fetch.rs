//! One file, fetched into a file that may have its beginning already.
//!
//! What is on disk and what was hashed are always the same bytes. A file counts as fetched when it is as long as it
//! has to be and, where the SHA-256 is known, has that; everything else on disk is a beginning to go on from.

use super::Progress;
use super::http::{Answer, Client, Trouble};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often it is tried again without a byte more in between.
const TRIES: u32 = 5;
const CHUNK_BYTES: usize = 256 << 10;
/// How a SHA-256 is told from the ids that git gives.
pub const SHA256_DIGITS: usize = 64;

/// What to fetch.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// What people call it.
    pub name: &'a str,
    pub url: &'a str,
    pub size_bytes: u64,
    /// The SHA-256 if it is one (and not the id that git gives), hexadecimal.
    pub etag: &'a str,
}

impl Wanted<'_> {
    fn has_sha256(&self) -> bool {
        self.etag.len() == SHA256_DIGITS
    }
}

/// Fetches what is wanted into a file that may have its beginning, and checks it. Goes on where it was cut short; while
/// that leads nowhere, the pauses grow, and after a few it gives up.
pub fn download(client: &Client, wanted: &Wanted, path: &Path, progress: Progress) -> Result<(), Trouble> {
    let mut partial = Partial::open(wanted, path, progress)?;
    let (mut tries, mut furthest) = (0, partial.done_bytes);
    while partial.done_bytes < wanted.size_bytes {
        let why = match stream(client, wanted, &mut partial, progress) {
            Ok(()) => "the connection was closed".to_owned(),
            Err(Trouble::Passing(why)) => why,
            Err(error) => return Err(error),
        };
        if partial.done_bytes == wanted.size_bytes {
            break;
        }
        tries = if partial.done_bytes > furthest { 0 } else { tries + 1 };
        furthest = furthest.max(partial.done_bytes);
        if tries >= TRIES {
            let (name, done, size) = (wanted.name, partial.done_bytes, wanted.size_bytes);
            let next = "running it again goes on from there";
            return Err(Trouble::Passing(format!("{name}: {why}; {done} of {size} bytes are on disk, {next}")));
        }
        std::thread::sleep(pause(client.patience(), tries));
    }
    partial.check(wanted)?;
    // Said only now: what is not checked is not done.
    progress(wanted.size_bytes, wanted.size_bytes, wanted.name);
    Ok(())
}

/// From a sixtieth of what is waited for a byte (of a minute: a second), twice as long each time.
fn pause(patience: Duration, tries: u32) -> Duration {
    patience.div_f64(60.0) * 2_u32.saturating_pow(tries)
}

/// One request, until it ends in one way or another.
fn stream(client: &Client, wanted: &Wanted, partial: &mut Partial, progress: Progress) -> Result<(), Trouble> {
    let mut answer = client.get(wanted.url, partial.done_bytes)?;
    compare(wanted, &answer, partial.done_bytes)?;
    let start = match answer.status {
        200 => Some(0),
        206 => answer.range().0,
        _ => None,
    };
    if start != Some(partial.done_bytes) {
        // It does not go on where it was left: all of it once more.
        partial.restart()?;
    }
    if start != Some(partial.done_bytes) {
        let status = answer.status;
        return Err(Trouble::Passing(format!("GET {}: status {status} for another range than asked", wanted.url)));
    }
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut body = answer.body.as_reader();
    loop {
        let count = match body.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Trouble::Passing(client.words(&error.into()))),
        };
        if count as u64 > wanted.size_bytes - partial.done_bytes {
            partial.remove();
            return Err(Trouble::Lasting(format!("{}: more comes than {} bytes", wanted.name, wanted.size_bytes)));
        }
        partial.append(chunk.get(..count).unwrap_or_default())?;
        if partial.done_bytes < wanted.size_bytes {
            progress(partial.done_bytes, wanted.size_bytes, wanted.name);
        }
    }
}

/// Whether an answer is about what is wanted.
fn compare(wanted: &Wanted, answer: &Answer, from: u64) -> Result<(), Trouble> {
    let (name, url) = (wanted.name, wanted.url);
    if let Some(etag) = answer.linked.etag.as_ref().filter(|etag| !etag.eq_ignore_ascii_case(wanted.etag)) {
        let expected = wanted.etag;
        let why = "the repository may have changed meanwhile: run it again";
        return Err(Trouble::Lasting(format!("{name}: {url} has the content {etag}, expected {expected}; {why}")));
    }
    let length = answer.body.content_length();
    let size = match answer.status {
        200 => length,
        206 => answer.range().1.or(length.and_then(|length| length.checked_add(from))),
        _ => answer.range().1,
    };
    for size in [size, answer.linked.size_bytes].into_iter().flatten() {
        if size != wanted.size_bytes {
            let expected = wanted.size_bytes;
            return Err(Trouble::Lasting(format!("{name}: {url} has {size} bytes, but the hub lists {expected}")));
        }
    }
    Ok(())
}

/// The beginning of a file, on disk.
struct Partial {
    file: File,
    path: PathBuf,
    done_bytes: u64,
    /// Of what is done.
    hash: Sha256,
}

impl Partial {
    /// Opens it, and hashes what is there.
    fn open(wanted: &Wanted, path: &Path, progress: Progress) -> Result<Self, Trouble> {
        let options = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = options.map_err(|error| at(path, &error))?;
        let mut partial = Self { file, path: path.to_owned(), done_bytes: 0, hash: Sha256::new() };
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = match partial.file.read(&mut chunk) {
                Ok(0) => return Ok(partial),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(at(path, &error)),
            };
            partial.done_bytes += count as u64;
            if partial.done_bytes > wanted.size_bytes {
                // This is the beginning of something else.
                partial.restart()?;
                return Ok(partial);
            }
            partial.hash.update(chunk.get(..count).unwrap_or_default());
            if partial.done_bytes < wanted.size_bytes {
                progress(partial.done_bytes, wanted.size_bytes, wanted.name);
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.file.write_all(bytes).map_err(|error| at(&self.path, &error))?;
        self.hash.update(bytes);
        self.done_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Nothing is done.
    fn restart(&mut self) -> Result<(), Trouble> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|error| at(&self.path, &error))?;
        self.hash = Sha256::new();
        self.done_bytes = 0;
        Ok(())
    }

    fn remove(&self) {
        // If it stays, it is found to be wrong again.
        _ = std::fs::remove_file(&self.path);
    }

    /// Checks what is done, and has it written for good: once it has its name it is not checked again.
    fn check(self, wanted: &Wanted) -> Result<(), Trouble> {
        let found: String = self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if wanted.has_sha256() && found != wanted.etag {
            self.remove();
            let (name, expected) = (wanted.name, wanted.etag);
            let next = "it was removed; running it again fetches it anew";
            return Err(Trouble::Lasting(format!("{name}: its SHA-256 is {found}, expected {expected}; {next}")));
        }
        self.file.sync_all().map_err(|error| at(&self.path, &error))
    }
}

fn at(path: &Path, error: &io::Error) -> Trouble {
    Trouble::Lasting(format!("{}: {error}", path.display()))
}
