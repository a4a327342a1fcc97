//! What a repository has: asked of the hub, in the two ways that it can be asked.

use super::choose::File;
use super::http::{self, Client, Trouble};
use serde_json::Value;
use std::io::Read;

/// No listing is longer than this; a server that says more is not a hub.
const MOST_BYTES: u64 = 16 << 20;
/// Long listings come in pages of a thousand files.
const MOST_PAGES: usize = 100;

/// The GGUF files of a repository at a commit.
#[derive(Debug)]
pub struct Listing {
    /// The commit, if the server says which.
    pub commit: Option<String>,
    pub files: Vec<File>,
}

impl Listing {
    /// Asks for a repository's files: for what is known about the model, and where the server does not do that, or
    /// says no sizes, for its tree.
    pub fn get(client: &Client, repo: &str, revision: &str) -> Result<Self, Trouble> {
        let about = match revision {
            "main" => format!("/api/models/{repo}?blobs=true"),
            _ => format!("/api/models/{repo}/revision/{}?blobs=true", http::encoded(revision, "")),
        };
        let refused = match read(client, &client.url(&about)) {
            Ok((answer, _, _)) => match from_model(&answer)? {
                listing if listing.files.iter().all(|file| file.size_bytes.is_some()) => return Ok(listing),
                listing => Ok(listing),
            },
            // No such thing here, or no such repository: the tree tells.
            Err(Trouble::Status(404 | 405 | 501, why)) => Err(Trouble::Status(404, why)),
            Err(error) => return Err(error),
        };
        match (from_tree(client, repo, revision), refused) {
            (Ok(tree), Ok(model)) => Ok(Self { commit: tree.commit.or(model.commit), ..tree }),
            (Ok(tree), Err(_)) => Ok(tree),
            (Err(_), refused) => refused,
        }
    }
}

/// One answer as JSON, the address of the next page, and the commit, where headers say them.
fn read(client: &Client, url: &str) -> Result<(Value, Option<String>, Option<String>), Trouble> {
    let mut answer = client.get(url, 0)?;
    let wrong = |what: String| Trouble::Lasting(format!("GET {url}: {what}"));
    let (next, commit) = (answer.next_page(), answer.linked.commit.take());
    let mut text = Vec::new();
    let result = answer.body.as_reader().take(MOST_BYTES + 1).read_to_end(&mut text);
    result.map_err(|error| Trouble::Passing(format!("GET {url}: {}", client.words(&error.into()))))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(wrong(format!("the answer is longer than {MOST_BYTES} bytes; expected a list of files")));
    }
    let json = serde_json::from_slice(&text);
    let json = json.map_err(|error| wrong(format!("expected a list of files as JSON, but {error}")))?;
    Ok((json, next, commit))
}

/// From what `/api/models/ORG/REPO` says.
fn from_model(answer: &Value) -> Result<Listing, Trouble> {
    let siblings = answer.get("siblings").and_then(Value::as_array);
    let siblings = siblings.ok_or_else(|| Trouble::Lasting("the hub's answer has no `siblings`, its files".into()))?;
    let commit = answer.get("sha").and_then(Value::as_str).map(str::to_owned);
    let files = siblings.iter().filter_map(|file| found(file, "rfilename", "blobId"));
    Ok(Listing { commit: commit.map(checked_commit).transpose()?, files: files.collect::<Result<_, _>>()? })
}

/// From `/api/models/ORG/REPO/tree/REVISION`, page by page.
fn from_tree(client: &Client, repo: &str, revision: &str) -> Result<Listing, Trouble> {
    let mut listing = Listing { commit: None, files: Vec::new() };
    let revision = http::encoded(revision, "");
    let mut next = Some(client.url(&format!("/api/models/{repo}/tree/{revision}?recursive=true")));
    for _ in 0..MOST_PAGES {
        let Some(url) = next else { return Ok(listing) };
        let (answer, page, commit) = read(client, &url)?;
        let wrong = || Trouble::Lasting(format!("GET {url}: expected a list of files"));
        for file in answer.as_array().ok_or_else(wrong)? {
            if file.get("type").and_then(Value::as_str) != Some("directory") {
                listing.files.extend(found(file, "path", "oid").transpose()?);
            }
        }
        listing.commit = commit.map(checked_commit).transpose()?.or(listing.commit);
        next = page;
    }
    Err(Trouble::Lasting(format!("{repo} has more than {MOST_PAGES} pages of files")))
}

/// A file that the hub lists, if it is a GGUF file; its fields have these names.
fn found(file: &Value, path: &str, id: &str) -> Option<Result<File, Trouble>> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let path = text(file, path)?;
    let is_gguf = path.get(path.len().saturating_sub(5)..).is_some_and(|end| end.eq_ignore_ascii_case(".gguf"));
    if !is_gguf {
        return None;
    }
    let lfs = file.get("lfs").filter(|lfs| lfs.is_object());
    // What Git LFS keeps has the SHA-256 for its id, under the one key in models and the other in trees.
    let etag = match lfs {
        Some(lfs) => text(lfs, "sha256").or_else(|| text(lfs, "oid")),
        None => text(file, id),
    };
    let size = |value: &Value| value.get("size").and_then(Value::as_u64);
    let size_bytes = lfs.and_then(size).or_else(|| size(file));
    Some(checked_path(path).and_then(|path| {
        let etag = etag.map(checked_etag).transpose()?;
        Ok(File { path, size_bytes, etag })
    }))
}

/// A path that stays below the folder it is put in, on every system.
fn checked_path(path: String) -> Result<String, Trouble> {
    let is_plain = |part: &str| {
        let is_name = !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
        is_name && !part.contains(|c: char| c.is_control() || c == '\\' || c == ':')
    };
    if path.split('/').all(is_plain) {
        return Ok(path);
    }
    Err(Trouble::Lasting(format!("the hub lists a file {path:?}; expected a path inside of the repository")))
}

/// What a blob is called: hexadecimal, as long as a SHA-1 or a SHA-256.
pub fn checked_etag(etag: String) -> Result<String, Trouble> {
    let is_hash = matches!(etag.len(), 40 | 64) && etag.bytes().all(|c| c.is_ascii_hexdigit());
    let wrong = || Trouble::Lasting(format!("the hub names a content {etag:?}; expected 40 or 64 hexadecimal digits"));
    if is_hash { Ok(etag.to_ascii_lowercase()) } else { Err(wrong()) }
}

/// A commit's id, hexadecimal.
pub fn checked_commit(commit: String) -> Result<String, Trouble> {
    let is_id = (1..=64).contains(&commit.len()) && commit.bytes().all(|c| c.is_ascii_hexdigit());
    let wrong = || Trouble::Lasting(format!("the hub names a commit {commit:?}; expected hexadecimal digits"));
    if is_id { Ok(commit) } else { Err(wrong()) }
}
