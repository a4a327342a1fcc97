//! Models from the model hub: `--hf ORG/REPO:QUANT` instead of a file.
//!
//! The hub is asked what the repository has, one model of that is chosen, and those of its files that are not in the
//! cache are fetched, one after the other. The cache is that of the hub's own tools. Whatever a server says is
//! checked before it becomes a path, and every file before it gets its name.

mod cache;
mod choose;
mod fetch;
mod http;
mod listing;

use crate::progress::{self, Bar, Unit};
use cache::Cache;
use choose::{File, Wish};
use clap::Args;
use fetch::Wanted;
use http::{Client, Trouble};
use listing::Listing;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Called with the bytes that are done of a file, all of its bytes, and its name.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64, &str);

/// Where a model comes from, if it is not a file already.
#[derive(Args, Debug, Clone)]
#[group(id = "hub")]
pub struct Flags {
    /// A model on the hub, and which: Q4_K_M, Q8_0 or any other part of its file's name. Proxies are those of
    /// ALL_PROXY, HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
    #[arg(long, value_name = "ORG/REPO[:QUANT]", help_heading = "From the hub")]
    pub hf: Option<Repo>,
    /// Which file of the repository, by its name; of a model in several files, any of them.
    #[arg(long, value_name = "NAME.gguf", requires = "hf", help_heading = "From the hub")]
    hf_file: Option<String>,
    /// A branch, tag or commit.
    #[arg(long, value_name = "REVISION", default_value = "main", help_heading = "From the hub")]
    hf_revision: Revision,
    /// For repositories that are private or gated; by default, what the environment has as HF_TOKEN.
    #[arg(long, value_name = "TOKEN", requires = "hf", help_heading = "From the hub")]
    hf_token: Option<String>,
    /// Where downloads are kept; by default, where the hub's tools keep theirs: $HF_HUB_CACHE, $HF_HOME/hub,
    /// $XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub.
    #[arg(long, value_name = "FOLDER", requires = "hf", help_heading = "From the hub")]
    hf_cache: Option<PathBuf>,
    /// Another hub; it gets the token.
    #[arg(long, value_name = "URL", default_value = "https://huggingface.co", help_heading = "From the hub")]
    hf_mirror: String,
    /// Ask nobody, use what is in the cache.
    #[arg(long, requires = "hf", help_heading = "From the hub")]
    offline: bool,
    /// How long nothing may come.
    #[arg(long, value_name = "SECONDS", default_value = "60", hide = true)]
    hf_timeout: Seconds,
}

/// A repository on the hub, and which model of it.
#[derive(Debug, Clone)]
pub struct Repo {
    /// `ORG/REPO`.
    name: String,
    quant: Option<String>,
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.quant {
            Some(quant) => write!(f, "{}:{quant}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl FromStr for Repo {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, quant) = text.split_once(':').map_or((text, None), |(name, quant)| (name, Some(quant)));
        let is_plain = |part: &str| {
            let is_name = part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            is_name && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
        };
        let is_repo = name.split_once('/').is_some_and(|(org, repo)| is_plain(org) && is_plain(repo));
        if !is_repo || quant == Some("") {
            return Err("expected ORG/REPO or ORG/REPO:QUANT");
        }
        Ok(Repo { name: name.to_owned(), quant: quant.map(str::to_owned) })
    }
}

/// A branch, tag or commit: a name that is a path below a folder too.
#[derive(Debug, Clone)]
struct Revision(String);

impl FromStr for Revision {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |part: &str| {
            !part.is_empty() && !part.starts_with('.') && !part.contains(|c: char| c.is_control() || "\\: ".contains(c))
        };
        if text.split('/').all(is_plain) { Ok(Self(text.to_owned())) } else { Err("expected a branch, tag or commit") }
    }
}

#[derive(Debug, Clone, Copy)]
struct Seconds(Duration);

impl FromStr for Seconds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let duration = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        duration.filter(|duration| !duration.is_zero()).map(Seconds).ok_or("expected seconds, more than none")
    }
}

impl Flags {
    /// The folder of the cache, as the hub's tools find it.
    fn cache_folder(&self) -> Result<PathBuf, String> {
        let home = std::env::home_dir();
        let folder = |name: &str| {
            let path = PathBuf::from(std::env::var_os(name).filter(|value| !value.is_empty())?);
            // Those tools read a `~` where no shell did.
            match (path.strip_prefix("~"), &home) {
                (Ok(rest), Some(home)) => Some(home.join(rest)),
                _ => Some(path),
            }
        };
        let of_home = || home.as_ref().map(|home| home.join(".cache"));
        self.hf_cache
            .clone()
            .or_else(|| folder("HF_HUB_CACHE"))
            .or_else(|| folder("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| folder("XDG_CACHE_HOME").or_else(of_home).map(|cache| cache.join("huggingface/hub")))
            .ok_or_else(|| "there is no home folder to keep downloads in; expected --hf-cache FOLDER".into())
    }

    fn token(&self) -> Option<String> {
        let token = self.hf_token.clone().or_else(|| std::env::var("HF_TOKEN").ok());
        token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty())
    }

    fn wish<'a>(&'a self, repo: &'a Repo) -> Wish<'a> {
        match (&self.hf_file, &repo.quant) {
            (Some(name), _) => Wish::Named(name),
            (None, Some(quant)) => Wish::Quant(quant),
            (None, None) => Wish::Any,
        }
    }
}

/// Sees to it that the model is in the cache, and returns its file there: the first one, if there are several.
///
/// # Errors
/// If there is no such model, or it is not in the cache and cannot be fetched.
pub fn fetch(flags: &Flags, progress: Progress) -> Result<PathBuf, Box<dyn Error>> {
    let repo = flags.hf.as_ref().ok_or("no repository is named; expected --hf ORG/REPO")?;
    let root = flags.cache_folder()?;
    let cache = Cache::new(&root, &repo.name);
    if flags.offline {
        return Ok(from_cache(flags, repo, &cache).map_err(|error| format!("--offline: {error}"))?);
    }
    let client = Client::new(&flags.hf_mirror, flags.token(), flags.hf_timeout.0)?;
    match Listing::get(&client, &repo.name, &flags.hf_revision.0) {
        Ok(listing) => from_hub(flags, repo, &cache, &client, listing, progress),
        Err(Trouble::Passing(why)) => match from_cache(flags, repo, &cache) {
            Ok(path) => {
                eprintln!("{why}: using what is in the cache");
                Ok(path)
            }
            Err(missing) => Err(format!("{why}\nand {missing}").into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// The model among what is in the cache already.
fn from_cache(flags: &Flags, repo: &Repo, cache: &Cache) -> Result<PathBuf, String> {
    let (folder, revision) = (cache.folder(), &flags.hf_revision.0);
    let missing =
        || format!("the cache has nothing of {} at {revision}; expected it in {}", repo.name, folder.display());
    let commit = cache.commit(revision).ok_or_else(missing)?;
    let (files, snapshot) = (cache.files(&commit), cache.snapshot(&commit));
    let (model, note) = choose::choose(&files, flags.wish(repo), &snapshot.display().to_string(), &repo.name)?;
    note.iter().for_each(|note| eprintln!("{note}"));
    let first = model.files().next().ok_or_else(missing)?;
    Ok(snapshot.join(&first.path))
}

/// The model among what the hub lists, fetched where it is not in the cache.
fn from_hub(
    flags: &Flags,
    repo: &Repo,
    cache: &Cache,
    client: &Client,
    listing: Listing,
    progress: Progress,
) -> Result<PathBuf, Box<dyn Error>> {
    let (model, note) = choose::choose(&listing.files, flags.wish(repo), &repo.name, &repo.name)?;
    note.iter().for_each(|note| eprintln!("{note}"));
    let revision = &flags.hf_revision.0;
    let mut commit = listing.commit;
    let mut first = None;
    for file in model.files() {
        let source = Source::find(client, &repo.name, revision, commit.as_deref(), file)?;
        let path = source.fetch(client, cache, progress)?;
        commit = Some(source.commit);
        first = first.or(Some(path));
    }
    if let Some(commit) = commit {
        cache.remember(revision, &commit).map_err(|error| format!("{}: {error}", cache.folder().display()))?;
    }
    Ok(first.ok_or("the model has no files")?)
}

/// A file on the hub, and all that has to be known to fetch it.
struct Source<'a> {
    file: &'a File,
    urls: Urls,
    commit: String,
    etag: String,
    size_bytes: u64,
}

/// Where a file is on the hub: by its commit, so that files which are fetched over hours belong together; and by the
/// name of the revision, which is all that simple mirrors know.
struct Urls([String; 2]);

impl Urls {
    fn ask<T>(&self, mut ask: impl FnMut(&str) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let [by_commit, by_name] = &self.0;
        match ask(by_commit) {
            Err(Trouble::Status(404, _)) if by_name != by_commit => ask(by_name),
            answer => answer,
        }
    }
}

impl<'a> Source<'a> {
    /// Asks the hub for what its listing does not say.
    fn find(
        client: &Client,
        repo: &str,
        revision: &str,
        commit: Option<&str>,
        file: &'a File,
    ) -> Result<Self, Trouble> {
        let path = http::encoded(&file.path, "/");
        let url = |revision| client.url(&format!("/{repo}/resolve/{}/{path}", http::encoded(revision, "")));
        let urls = Urls([url(commit.unwrap_or(revision)), url(revision)]);
        let sha256 = file.etag.clone().filter(|etag| etag.len() == fetch::SHA256_DIGITS);
        if let (Some(commit), Some(etag), Some(size_bytes)) = (commit, sha256, file.size_bytes) {
            return Ok(Self { file, urls, commit: commit.to_owned(), etag, size_bytes });
        }
        let about = urls.ask(|url| client.about(url))?;
        let unknown = |what: &str| Trouble::Lasting(format!("{}: the hub does not say its {what}", file.path));
        let commit = commit.map(str::to_owned).or(about.commit).ok_or_else(|| unknown("commit (X-Repo-Commit)"))?;
        let etag = about.etag.or(file.etag.clone()).ok_or_else(|| unknown("content (X-Linked-ETag)"))?;
        let size_bytes = about.size_bytes.or(file.size_bytes).ok_or_else(|| unknown("size (X-Linked-Size)"))?;
        let (commit, etag) = (listing::checked_commit(commit)?, listing::checked_etag(etag)?);
        Ok(Self { file, urls, commit, etag, size_bytes })
    }

    /// Where it is in the cache, fetched if need be.
    fn fetch(&self, client: &Client, cache: &Cache, progress: Progress) -> Result<PathBuf, Box<dyn Error>> {
        let (path, etag, size_bytes) = (&self.file.path, &self.etag, self.size_bytes);
        if let Some(file) = cache.file(&self.commit, path, size_bytes) {
            return Ok(file);
        }
        let at_cache = |error| format!("{}: {error}", cache.folder().display());
        let wait = || eprintln!("{path}: another process is fetching it; waiting");
        // Held until this returns.
        let _lock = cache.lock(etag, wait).map_err(at_cache)?;
        if let Some(file) = cache.file(&self.commit, path, size_bytes) {
            return Ok(file);
        }
        if cache.blob(etag, size_bytes).is_none() {
            self.urls.ask(|url| {
                let wanted = Wanted { name: self.file.name(), url, size_bytes, etag };
                fetch::download(client, &wanted, &cache.partial(etag), progress)
            })?;
            cache.complete(etag).map_err(at_cache)?;
        }
        Ok(cache.link(&self.commit, path, etag).map_err(at_cache)?)
    }
}

/// Shows downloads: a bar while one runs, if there is a terminal, and a line when it is done.
#[derive(Default)]
pub struct Downloads {
    current: Option<(String, Instant, Bar)>,
}

impl Downloads {
    /// What is done of a file.
    pub fn show(&mut self, done: u64, total: u64, name: &str) {
        let is_new = |(current, ..): &mut (String, Instant, Bar)| current != name;
        self.current.take_if(is_new);
        let start = || (name.to_owned(), Instant::now(), Bar::new(name, Unit::Bytes));
        let (_, since, bar) = self.current.get_or_insert_with(start);
        bar.set(done, total);
        if done == total {
            let seconds = since.elapsed().as_secs_f64();
            if let Some((_, _, bar)) = self.current.take() {
                bar.finish();
            }
            eprintln!("{name}: {} fetched in {seconds:.1} s", progress::bytes(total));
        }
    }
}
