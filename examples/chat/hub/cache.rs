//! Where downloads lie: in the cache of the hub's own tools, laid out as they do it, so that neither fetches what the
//! other has.
//!
//! ```text
//! models--ORG--REPO/refs/main                the commit that the revision was when it was last asked
//! models--ORG--REPO/snapshots/COMMIT/PATH    a link to ../../blobs/ETAG
//! models--ORG--REPO/blobs/ETAG               the content
//! models--ORG--REPO/blobs/ETAG.incomplete    as much of it as there is
//! .locks/models--ORG--REPO/ETAG.lock         locked while somebody fetches it
//! ```
//!
//! A blob has its name only once it is whole and checked. Where there are no links, the content lies in the snapshot.

use super::choose::File;
use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The folders deep that a snapshot is searched; repositories have one or two.
const MOST_FOLDERS: usize = 8;

/// One repository in the cache.
#[derive(Debug)]
pub struct Cache {
    repo: PathBuf,
    locks: PathBuf,
}

impl Cache {
    /// In the cache at `root`, which need not exist.
    pub fn new(root: &Path, repo: &str) -> Self {
        let name = format!("models--{}", repo.replace('/', "--"));
        Self { repo: root.join(&name), locks: root.join(".locks").join(name) }
    }

    /// The folder of the repository.
    pub fn folder(&self) -> &Path {
        &self.repo
    }

    /// The commit that a revision was when it was last asked; a commit is its own.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let known = fs::read_to_string(self.repo.join("refs").join(revision)).ok();
        let commit = known.map_or(revision.to_owned(), |commit| commit.trim().to_owned());
        let is_id = !commit.is_empty() && commit.bytes().all(|c| c.is_ascii_hexdigit());
        (is_id && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.join("snapshots").join(commit)
    }

    /// The files of a commit that are here.
    pub fn files(&self, commit: &str) -> Vec<File> {
        let mut files = Vec::new();
        let mut folders = vec![(self.snapshot(commit), String::new(), 0)];
        while let Some((folder, prefix, depth)) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                // Through links; one that leads nowhere is no file.
                let Ok(metadata) = fs::metadata(entry.path()) else { continue };
                let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if metadata.is_file() {
                    files.push(File { path, size_bytes: Some(metadata.len()), etag: None });
                } else if depth < MOST_FOLDERS {
                    folders.push((entry.path(), format!("{path}/"), depth + 1));
                }
            }
        }
        files
    }

    /// A file of a commit, if it is here and as long as it has to be.
    pub fn file(&self, commit: &str, path: &str, size_bytes: u64) -> Option<PathBuf> {
        let file = self.snapshot(commit).join(path);
        is_whole(&file, size_bytes).then_some(file)
    }

    /// A blob, if it is here and as long as it has to be.
    pub fn blob(&self, etag: &str, size_bytes: u64) -> Option<PathBuf> {
        let blob = self.blob_path(etag);
        is_whole(&blob, size_bytes).then_some(blob)
    }

    fn blob_path(&self, etag: &str) -> PathBuf {
        self.repo.join("blobs").join(etag)
    }

    /// Where a blob is while it is not whole.
    pub fn partial(&self, etag: &str) -> PathBuf {
        self.repo.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Waits until nobody else fetches a blob; nobody else does while the file that is returned is open. `wait` is
    /// called if there is somebody to wait for.
    pub fn lock(&self, etag: &str, wait: impl FnOnce()) -> io::Result<fs::File> {
        fs::create_dir_all(&self.locks)?;
        fs::create_dir_all(self.repo.join("blobs"))?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                wait();
                file.lock()?;
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(file)
    }

    /// Gives what was partial its name, now that it is whole.
    pub fn complete(&self, etag: &str) -> io::Result<()> {
        fs::rename(self.partial(etag), self.blob_path(etag))
    }

    /// Puts a blob into a snapshot, and returns where it is there.
    pub fn link(&self, commit: &str, path: &str, etag: &str) -> io::Result<PathBuf> {
        let file = self.snapshot(commit).join(path);
        let folder = file.parent().unwrap_or(&self.repo);
        fs::create_dir_all(folder)?;
        // Made aside and moved, so that a link that leads nowhere is replaced, and nobody sees none.
        let aside = folder.join(format!(".{etag}.{}", std::process::id()));
        _ = fs::remove_file(&aside);
        let up = "../".repeat(2 + path.matches('/').count());
        if symlink(Path::new(&format!("{up}blobs/{etag}")), &aside).is_err() {
            // As the hub's tools do without links: the content moves, and nobody looks for it among the blobs.
            return fs::rename(self.blob_path(etag), &file).map(|()| file);
        }
        fs::rename(&aside, &file).inspect_err(|_| _ = fs::remove_file(&aside))?;
        Ok(file)
    }

    /// Notes which commit a revision is.
    pub fn remember(&self, revision: &str, commit: &str) -> io::Result<()> {
        let path = self.repo.join("refs").join(revision);
        let known = fs::read_to_string(&path).is_ok_and(|known| known.trim() == commit);
        if known || revision == commit {
            return Ok(());
        }
        fs::create_dir_all(path.parent().unwrap_or(&self.repo))?;
        let aside = path.with_extension(format!("{}.incomplete", std::process::id()));
        fs::write(&aside, commit)?;
        fs::rename(&aside, &path)
    }
}

fn is_whole(path: &Path, size_bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size_bytes)
}

#[cfg(unix)]
fn symlink(to: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}

#[cfg(windows)]
fn symlink(to: &Path, at: &Path) -> io::Result<()> {
    let to = to.to_string_lossy().replace('/', "\\");
    std::os::windows::fs::symlink_file(to, at)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
