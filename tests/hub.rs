//! `chat --hf`: models come from the hub, into the cache that the hub's own tools use, whatever happens on the way. The
//! hub is a server on this machine.

mod example;
#[path = "hub/server.rs"]
mod server;

use example::{error, example, model};
use kiln::gguf::{Gguf, GgufWriter};
use serde_json::json;
use server::{Manner, Reply, Request, Server};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const LISTING: &str = "/api/models/org/repo?blobs=true";

fn llama() -> Vec<u8> {
    fs::read(model("llama.gguf")).unwrap()
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder for a cache, gone when the test is.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kiln-hub-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn repo(&self) -> PathBuf {
        self.0.join("models--org--repo")
    }

    fn snapshot(&self) -> PathBuf {
        self.repo().join("snapshots").join(COMMIT)
    }

    fn blob(&self, content: &[u8]) -> PathBuf {
        self.repo().join("blobs").join(sha256(content))
    }

    fn partial(&self, content: &[u8]) -> PathBuf {
        self.blob(content).with_extension("incomplete")
    }

    fn write_partial(&self, content: &[u8], partial: &[u8]) {
        fs::create_dir_all(self.repo().join("blobs")).unwrap();
        fs::write(self.partial(content), partial).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

type Files = Vec<(&'static str, Vec<u8>)>;

fn one() -> Files {
    vec![("llama-Q8_0.gguf", llama())]
}

/// What the hub lists.
fn listing(files: &Files) -> Reply {
    let siblings: Vec<_> = files
        .iter()
        .map(|(path, content)| {
            let (size, sha) = (content.len(), sha256(content));
            let lfs = json!({"sha256": sha, "size": size, "pointerSize": 134});
            json!({"rfilename": path, "size": size, "blobId": "b1ob", "lfs": lfs})
        })
        .collect();
    Reply::new(200, json!({"id": "org/repo", "sha": COMMIT, "siblings": siblings}).to_string())
}

/// Redirects to where a content is, as the hub does.
fn resolve(files: &Files, path: &str, cdn: &str) -> Option<Reply> {
    let path = path.strip_prefix(&format!("/org/repo/resolve/{COMMIT}/"))?;
    let (_, content) = files.iter().find(|(name, _)| *name == path)?;
    let sha = sha256(content);
    let reply = Reply::redirect(&format!("{cdn}/cdn/{sha}?signature=a%2Fb"));
    let linked = reply.with("X-Linked-ETag", &format!("\"{sha}\"")).with("X-Linked-Size", &content.len().to_string());
    Some(linked.with("X-Repo-Commit", COMMIT))
}

/// A hub with these files, whose contents go as `content` says: given the request, the content, and how many requests
/// for contents there were.
fn hub(files: Files, content: impl Fn(&Request, &[u8], usize) -> Reply + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request, _| {
        let of_cdn = request.path.strip_prefix("/cdn/").and_then(|rest| rest.split_once('?'));
        let found = of_cdn.and_then(|(sha, _)| files.iter().find(|(_, content)| sha256(content) == sha));
        match found {
            Some((_, bytes)) => content(request, bytes, count.fetch_add(1, Ordering::SeqCst)),
            None if request.path == LISTING => listing(&files),
            None => resolve(&files, &request.path, "").unwrap_or(Reply::new(404, "Not Found")),
        }
    })
}

fn honest(files: Files) -> Server {
    hub(files, |request, content, _| Reply::part(content, request))
}

/// `chat` with a model of the hub; nothing of the environment matters to it.
fn chat(mirror: &str, cache: &Folder, hf: &str, more: &[&str]) -> Option<Command> {
    let mut command =
        example("chat", &["--prompt", "hi", "--max-tokens", "2", "--device", "cpu", "--hf-mirror", mirror])?;
    if !more.contains(&"--hf-timeout") {
        // Pauses between tries go with it.
        command.args(["--hf-timeout", "4"]);
    }
    for variable in ["HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "XDG_CACHE_HOME", "ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"]
    {
        command.env_remove(variable).env_remove(variable.to_lowercase());
    }
    command.arg("--hf-cache").arg(&cache.0).args(["--hf", hf]).args(more);
    Some(command)
}

/// Runs it to its end, which is a good one, and returns what it says about that.
#[track_caller]
fn ran(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !output.stdout.is_empty(), "{command:?}: {said}");
    said
}

/// Runs it to its end, which is an error with these words.
#[track_caller]
fn failed(command: Command, words: &[&str]) {
    let said = error(command, 1);
    for word in words {
        assert!(said.contains(word), "expected {word:?} in: {said}");
    }
}

#[test]
fn what_is_fetched_once_is_not_fetched_again() {
    let (server, cache) = (honest(one()), Folder::new());
    let Some(mut command) = chat(&server.url(), &cache, "org/repo", &[]) else { return };
    let said = ran(&mut command);
    assert!(said.contains("llama-Q8_0.gguf: 518.3 kB fetched") && !said.contains('\r'), "{said}");
    assert_eq!(server.gets("/cdn/").len(), 1);

    // As the hub's tools lay it out.
    let file = cache.snapshot().join("llama-Q8_0.gguf");
    assert_eq!(fs::read(&file).unwrap(), llama());
    assert_eq!(fs::read_to_string(cache.repo().join("refs/main")).unwrap(), COMMIT);
    assert!(!cache.partial(&llama()).exists());
    #[cfg(unix)]
    assert_eq!(fs::read_link(&file).unwrap(), Path::new("../../blobs").join(sha256(&llama())));

    let asked = server.requests().len();
    ran(&mut chat(&server.url(), &cache, "org/repo", &[]).unwrap());
    let paths: Vec<String> = server.requests()[asked..].iter().map(|request| request.path.clone()).collect();
    assert_eq!(paths, [LISTING], "only what there is was to be asked");
    ran(&mut chat(&server.url(), &cache, "org/repo:q8_0", &["--offline"]).unwrap());
    assert_eq!(server.requests().len(), asked + 1, "--offline asks nobody");
    failed(chat(&server.url(), &cache, "org/repo:Q6_K", &["--offline"]).unwrap(), &["Q6_K", "llama-Q8_0.gguf"]);
    failed(chat(&server.url(), &cache, "org/other", &["--offline"]).unwrap(), &["org/other", "--offline", "models--"]);
}

#[test]
fn the_token_goes_to_the_hub_only() {
    let files = one();
    let cdn = hub(one(), |request, content, _| Reply::part(content, request));
    let to = cdn.url();
    let server = Server::start(move |request, _| match request.path.strip_prefix("/moved") {
        _ if request.path == LISTING => Reply::redirect("/api/models/org/renamed?blobs=true"),
        _ if request.path == "/api/models/org/renamed?blobs=true" => listing(&files),
        None => Reply::redirect(&format!("/moved{}", request.path)),
        Some(path) => resolve(&files, path, &to).unwrap(),
    });
    let cache = Folder::new();
    let Some(mut command) = chat(&server.url(), &cache, "org/repo", &["--hf-token", "hf_secret"]) else { return };
    ran(&mut command);
    let tokens = |server: &Server| -> Vec<Option<String>> {
        server.requests().iter().map(|request| request.header("authorization").map(str::to_owned)).collect()
    };
    assert_eq!(tokens(&server), vec![Some("Bearer hf_secret".to_owned()); 4]);
    assert_eq!(tokens(&cdn), [None]);

    // As the hub's tools take it from the environment.
    let cache = Folder::new();
    ran(chat(&server.url(), &cache, "org/repo", &[]).unwrap().env("HF_TOKEN", "hf_other"));
    assert_eq!(tokens(&server)[4..], vec![Some("Bearer hf_other".to_owned()); 4]);
    assert_eq!(tokens(&cdn), [None, None]);
}

#[test]
fn a_download_goes_on_where_it_was_cut() {
    let server = hub(one(), |request, content, before| match before {
        0 => Reply::part(content, request).going(Manner::Cut(200_000)),
        1 => Reply::new(503, ""),
        2 => Reply::part(content, request).going(Manner::Cut(100_000)),
        _ => Reply::part(content, request),
    });
    let cache = Folder::new();
    let Some(mut command) = chat(&server.url(), &cache, "org/repo", &[]) else { return };
    ran(&mut command);
    let ranges: Vec<_> = server.gets("/cdn/").iter().map(Request::range).collect();
    assert_eq!(ranges, [None, Some(200_000), Some(200_000), Some(300_000)]);
}

#[test]
fn what_is_given_up_is_gone_on_with_by_the_next_run() {
    let server = hub(one(), |request, content, before| match before {
        0..=5 => Reply::part(content, request).going(Manner::Cut(if before == 0 { 1000 } else { 0 })),
        _ => Reply::part(content, request),
    });
    let cache = Folder::new();
    let Some(command) = chat(&server.url(), &cache, "org/repo", &[]) else { return };
    failed(command, &["llama-Q8_0.gguf", "1000 of 518272 bytes", "running it again"]);
    assert_eq!(fs::read(cache.partial(&llama())).unwrap(), llama()[..1000]);
    ran(&mut chat(&server.url(), &cache, "org/repo", &[]).unwrap());
    assert_eq!(server.gets("/cdn/").last().unwrap().range(), Some(1000));
}

#[test]
fn a_server_without_ranges_starts_anew() {
    let answers: [fn(&Request, &[u8]) -> Reply; 3] = [
        |_, content| Reply::new(200, content),
        |request, content| match request.range() {
            Some(_) => Reply::new(416, ""),
            None => Reply::new(200, content),
        },
        // Another part than the one that was asked for.
        |request, content| match request.range() {
            Some(_) => Reply::new(206, &content[10..]).with("Content-Range", "bytes 10-518271/518272"),
            None => Reply::new(200, content),
        },
    ];
    for answer in answers {
        let (server, cache) = (hub(one(), move |request, content, _| answer(request, content)), Folder::new());
        cache.write_partial(&llama(), &llama()[..100_000]);
        let Some(mut command) = chat(&server.url(), &cache, "org/repo", &[]) else { return };
        ran(&mut command);
        assert_eq!(server.gets("/cdn/")[0].range(), Some(100_000));
        assert_eq!(fs::read(cache.blob(&llama())).unwrap(), llama());
    }
    // The beginning is all of it, or more than that.
    for (partial, expected) in [(llama(), 0), ([llama(), vec![0; 9]].concat(), 1)] {
        let (server, cache) = (honest(one()), Folder::new());
        cache.write_partial(&llama(), &partial);
        ran(&mut chat(&server.url(), &cache, "org/repo", &[]).unwrap());
        assert_eq!(server.gets("/cdn/").len(), expected);
    }
}

#[test]
fn refusals_say_what_to_do() {
    let refusals: [(u16, &str, &[&str]); 4] = [
        (404, "", &["404", "/api/models/org/repo", "check the names"]),
        (401, "Invalid username or password.", &["401", "Invalid username", "private", "--hf-token"]),
        (403, "Access to model org/repo is restricted", &["403", "is restricted", "gated", "--hf-token"]),
        (503, "", &["503", "try again later"]),
    ];
    for (status, message, words) in refusals {
        let cache = Folder::new();
        let server = Server::start(move |_, _| Reply::new(status, "{}").with("X-Error-Message", message));
        let Some(command) = chat(&server.url(), &cache, "org/repo", &[]) else { return };
        failed(command, words);
    }
    let Some(command) = example("chat", &["--prompt", "hi", "--hf", "llama"]) else { return };
    assert!(error(command, 2).contains("ORG/REPO"));
    let command = example("chat", &["--prompt", "hi", "--hf", "org/repo", "--model", "llama.gguf"]).unwrap();
    assert!(error(command, 2).contains("--model"));
}

/// The files of a repository that has the one model under many names; each has an end of its own, so that it is a file
/// of its own.
fn many(names: &[&'static str]) -> Files {
    names.iter().map(|&name| (name, [llama(), name.as_bytes().to_vec()].concat())).collect()
}

#[test]
fn one_model_is_chosen_or_all_are_listed() {
    let names = [
        "Tiny-1.5B-IQ4_XS.gguf",
        "Tiny-1.5B-Q8_0.gguf",
        "BF16/Tiny-1.5B-BF16.gguf",
        "Tiny-1.5B-F16.gguf",
        "Tiny-1.5B-UD-Q2_K_XL.gguf",
        "mmproj-Q8_0.gguf",
        "tiny.imatrix.gguf",
    ];
    let cache = Folder::new();
    let plain = honest(many(&names));
    let Some(command) = chat(&plain.url(), &cache, "org/repo", &[]) else { return };
    let said = error(command, 1);
    assert!(said.contains("org/repo has 5 models") && !said.contains("mmproj") && !said.contains("imatrix"), "{said}");
    assert!(said.contains("518.3 kB  Tiny-1.5B-Q8_0.gguf  (--hf org/repo:Q8_0)"), "{said}");
    assert!(said.contains("BF16/Tiny-1.5B-BF16.gguf  (--hf org/repo:BF16)"), "{said}");
    // Part of a part is no name.
    for quant in ["Q4_XS", "Q8", "Q2_K", "Tiny"] {
        failed(chat(&plain.url(), &cache, &format!("org/repo:{quant}"), &[]).unwrap(), &[quant, "choose one"]);
    }
    let chosen = [("f16", 3), ("bf16", 2), ("Q8_0", 1), ("iq4_xs", 0), ("UD-Q2_K_XL", 4), ("q2_k_xl", 4)];
    for (quant, index) in chosen {
        ran(&mut chat(&plain.url(), &cache, &format!("org/repo:{quant}"), &[]).unwrap());
        assert!(cache.snapshot().join(names[index]).exists(), "{quant}");
        ran(&mut chat(&plain.url(), &cache, &format!("org/repo:{quant}"), &["--offline"]).unwrap());
        fs::remove_dir_all(cache.snapshot()).unwrap();
    }
    ran(&mut chat(&plain.url(), &cache, "org/repo", &["--hf-file", "Tiny-1.5B-BF16.gguf"]).unwrap());
    assert!(cache.snapshot().join(names[2]).exists());
    failed(chat(&plain.url(), &cache, "org/repo", &["--hf-file", "x.gguf"]).unwrap(), &["x.gguf", "choose one"]);

    let names = ["a-IQ4_K_M.gguf", "a-Q4_K_M.gguf", "a-Q8_0.gguf"];
    let (usual, cache) = (honest(many(&names)), Folder::new());
    let said = ran(&mut chat(&usual.url(), &cache, "org/repo", &[]).unwrap());
    assert!(said.contains("took Q4_K_M") && cache.snapshot().join(names[1]).exists(), "{said}");
}

/// The model in two files.
fn shards() -> Files {
    let whole = Gguf::from_bytes(llama()).unwrap();
    let half = whole.tensors().len() / 2;
    let names = ["Q8_0/llama-Q8_0-00001-of-00002.gguf", "Q8_0/llama-Q8_0-00002-of-00002.gguf"];
    let shard = |index: usize| {
        let mut writer = GgufWriter::new();
        writer.set("split.no", index as u16).unwrap();
        writer.set("split.count", 2u16).unwrap();
        if index == 0 {
            writer.set("split.tensors.count", whole.tensors().len() as i32).unwrap();
            for (key, value) in whole.metadata().iter() {
                writer.set(key, value).unwrap();
            }
        }
        let tensors = if index == 0 { &whole.tensors()[..half] } else { &whole.tensors()[half..] };
        for tensor in tensors {
            writer.tensor(tensor.name(), tensor.shape(), tensor.tensor_type(), whole.data(tensor).unwrap()).unwrap();
        }
        let mut file = Vec::new();
        writer.write(&mut file).unwrap();
        (names[index], file)
    };
    // As a server may list them.
    vec![shard(1), shard(0)]
}

#[test]
fn shards_are_fetched_together() {
    let (server, cache) = (honest(shards()), Folder::new());
    let Some(mut command) = chat(&server.url(), &cache, "org/repo:Q8_0", &[]) else { return };
    ran(&mut command);
    let names: Vec<String> = server.gets("/resolve/").iter().map(|request| request.path.clone()).collect();
    assert!(names[0].ends_with("00001-of-00002.gguf") && names[1].ends_with("00002-of-00002.gguf"), "{names:?}");
    let second = cache.snapshot().join("Q8_0/llama-Q8_0-00002-of-00002.gguf");
    #[cfg(unix)]
    assert!(fs::read_link(&second).unwrap().starts_with("../../../blobs"));
    ran(&mut chat(&server.url(), &cache, "org/repo", &["--offline"]).unwrap());
    fs::remove_file(second).unwrap();
    let command = chat(&server.url(), &cache, "org/repo", &["--offline"]).unwrap();
    failed(command, &["llama-Q8_0-00002-of-00002.gguf is missing"]);

    let mut alone = shards();
    alone.remove(0);
    let (server, cache) = (honest(alone), Folder::new());
    let command = chat(&server.url(), &cache, "org/repo", &[]).unwrap();
    failed(command, &["llama-Q8_0-00002-of-00002.gguf is missing"]);
    assert!(server.gets("/cdn/").is_empty());
}

#[test]
fn contents_are_checked() {
    let server = hub(one(), |_, content, before| {
        let mut content = content.to_vec();
        content[99] ^= u8::from(before == 0);
        Reply::new(200, content)
    });
    let cache = Folder::new();
    let Some(command) = chat(&server.url(), &cache, "org/repo", &[]) else { return };
    failed(command, &["llama-Q8_0.gguf", "SHA-256", &sha256(&llama())]);
    assert!(!cache.partial(&llama()).exists() && !cache.blob(&llama()).exists());
    assert_eq!(server.gets("/cdn/").len(), 1);
    ran(&mut chat(&server.url(), &cache, "org/repo", &[]).unwrap());

    // A length that is not the one that is listed, said at once, or found out at the end.
    let sizes: [fn(&[u8]) -> Reply; 3] = [
        |content| Reply::new(200, [content, b"more"].concat()),
        |content| Reply::new(200, &content[9..]),
        |content| Reply { length: Some(518_272 + 4), ..Reply::new(200, [content, b"more"].concat()) },
    ];
    for answer in sizes {
        let (server, cache) = (hub(one(), move |_, content, _| answer(content)), Folder::new());
        failed(chat(&server.url(), &cache, "org/repo", &[]).unwrap(), &["llama-Q8_0.gguf", "518272"]);
        assert!(!cache.blob(&llama()).exists());
    }
}

#[test]
fn slow_is_fine_and_silent_is_not() {
    let slow = hub(one(), |request, content, _| {
        Reply::part(content, request).going(Manner::Drip(25, Duration::from_millis(50)))
    });
    let cache = Folder::new();
    let Some(mut command) = chat(&slow.url(), &cache, "org/repo", &["--hf-timeout", "1"]) else { return };
    ran(&mut command);
    assert_eq!(slow.gets("/cdn/").len(), 1, "in more than a second, but in one go");

    let silent = hub(one(), |request, content, before| {
        let bytes = if before == 0 { 5000 } else { 0 };
        Reply::part(content, request).going(Manner::Stall(bytes, Duration::from_secs(20)))
    });
    let cache = Folder::new();
    let command = chat(&silent.url(), &cache, "org/repo", &["--hf-timeout", "0.2"]).unwrap();
    failed(command, &["nothing came for 0.2 s", "5000 of 518272 bytes", "running it again"]);
    assert_eq!(silent.gets("/cdn/").len(), 6);
}

#[cfg(unix)]
#[test]
fn what_the_hubs_tools_fetched_is_used() {
    let (server, home) = (honest(one()), Folder::new());
    let cache = Folder(home.0.join("hub"));
    fs::create_dir_all(cache.repo().join("refs")).unwrap();
    fs::create_dir_all(cache.repo().join("blobs")).unwrap();
    fs::create_dir_all(cache.snapshot()).unwrap();
    fs::write(cache.repo().join("refs/main"), COMMIT).unwrap();
    fs::write(cache.blob(&llama()), llama()).unwrap();
    let link = cache.snapshot().join("llama-Q8_0.gguf");
    std::os::unix::fs::symlink(Path::new("../../blobs").join(sha256(&llama())), &link).unwrap();
    let Some(mut command) = chat(&server.url(), &cache, "org/repo", &[]) else { return };
    ran(&mut command);
    assert!(server.gets("/resolve/").is_empty());
    // The commit of another revision has the same content.
    fs::remove_file(&link).unwrap();
    ran(&mut chat(&server.url(), &cache, "org/repo", &[]).unwrap());
    assert!(server.gets("/resolve/").is_empty() && link.exists());

    // The folders that those tools use.
    for (variable, value) in [("HF_HOME", &home.0), ("HF_HUB_CACHE", &cache.0)] {
        let arguments = ["--prompt", "hi", "--max-tokens", "2", "--device", "cpu", "--hf", "org/repo", "--offline"];
        let mut command = example("chat", &arguments).unwrap();
        ran(command.env_remove("HF_HUB_CACHE").env(variable, value));
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let file =
        |path: &str, sha: &str| json!({"rfilename": path, "size": 518_272, "lfs": {"sha256": sha, "size": 518_272}});
    let sha = sha256(&llama());
    let evil = [
        (COMMIT, file("../llama.gguf", &sha)),
        (COMMIT, file("a/../../llama.gguf", &sha)),
        (COMMIT, file("/tmp/llama.gguf", &sha)),
        (COMMIT, file("a\\..\\llama.gguf", &sha)),
        (COMMIT, file("C:llama.gguf", &sha)),
        (COMMIT, file("a\u{1b}[2J.gguf", &sha)),
        (COMMIT, file("a//llama.gguf", &sha)),
        (COMMIT, file("llama.gguf", "../../../../llama")),
        ("../../..", file("llama.gguf", &sha)),
    ];
    for (commit, file) in evil {
        let listing = json!({"sha": commit, "siblings": [file]}).to_string();
        let server = Server::start(move |_, _| Reply::new(200, listing.clone()));
        let cache = Folder::new();
        let Some(command) = chat(&server.url(), &cache, "org/repo", &[]) else { return };
        let said = error(command, 1);
        assert!(said.contains("expected") && !said.contains('\u{1b}'), "{said}");
        assert_eq!((server.requests().len(), fs::read_dir(&cache.0).unwrap().count()), (1, 0), "{said}");
    }
    let cache = Folder::new();
    let endless = Server::start(|_, _| Reply::new(200, vec![b' '; 17 << 20]));
    failed(chat(&endless.url(), &cache, "org/repo", &[]).unwrap(), &["longer than"]);
    let page = Server::start(|_, _| Reply::new(200, "<html>log in to this network</html>"));
    failed(chat(&page.url(), &cache, "org/repo", &[]).unwrap(), &["expected a list of files"]);
    let around = Server::start(|request, _| Reply::redirect(&request.path));
    failed(chat(&around.url(), &cache, "org/repo", &[]).unwrap(), &["redirects"]);
}

#[test]
fn two_processes_fetch_once() {
    let server = hub(one(), |request, content, _| {
        Reply::part(content, request).going(Manner::Drip(10, Duration::from_millis(50)))
    });
    let cache = Folder::new();
    let Some(mut first) = chat(&server.url(), &cache, "org/repo", &[]) else { return };
    let mut second = chat(&server.url(), &cache, "org/repo", &[]).unwrap();
    let started = [&mut first, &mut second].map(|c| c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let said = started.map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    });
    assert_eq!(server.gets("/cdn/").len(), 1);
    assert_eq!(said.iter().filter(|said| said.contains("another process")).count(), 1, "{said:?}");
}

#[test]
fn without_the_hub_the_cache_does() {
    let (server, cache) = (honest(one()), Folder::new());
    let Some(mut command) = chat(&server.url(), &cache, "org/repo", &[]) else { return };
    ran(&mut command);
    // A port where nobody listens any more.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = format!("http://{gone}");
    let said = ran(&mut chat(&gone, &cache, "org/repo", &[]).unwrap());
    assert!(said.contains(&gone) && said.contains("using what is in the cache"), "{said}");
    failed(chat(&gone, &Folder::new(), "org/repo", &[]).unwrap(), &[&gone, "the cache has nothing of org/repo"]);
}

/// Hubs that only list trees, page by page, and hubs that say nothing of contents until asked for each, and know
/// revisions by their names only.
#[test]
fn other_ways_to_list() {
    let files = many(&["a-Q8_0.gguf", "b/b-Q6_K.gguf"]);
    let entries: Vec<_> = files
        .iter()
        .map(|(path, content)| {
            let (size, oid) = (content.len(), sha256(content));
            let lfs = json!({"oid": oid, "size": size});
            json!([{"type": "file", "path": path, "size": size, "oid": "9".repeat(40), "lfs": lfs},
                   {"type": "directory", "path": "b.gguf", "oid": "8".repeat(40)}])
            .to_string()
        })
        .collect();
    let contents = files.clone();
    let trees = Server::start(move |request, _| {
        let path = &request.path[..];
        let of_cdn = path.strip_prefix("/cdn/").and_then(|rest| rest.split_once('?'));
        match of_cdn.and_then(|(sha, _)| contents.iter().find(|(_, content)| sha256(content) == sha)) {
            Some((_, content)) => Reply::part(content, request),
            None if path == "/api/models/org/repo/tree/main?recursive=true" => {
                let next = format!("<http://{}/api/page2>; rel=\"next\"", request.header("host").unwrap());
                Reply::new(200, entries[0].clone()).with("Link", &next)
            }
            None if path == "/api/page2" => Reply::new(200, entries[1].clone()),
            None => {
                let path = path.replace("/main/", &format!("/{COMMIT}/"));
                resolve(&contents, &path, "").unwrap_or(Reply::new(404, ""))
            }
        }
    });
    let cache = Folder::new();
    let Some(mut command) = chat(&trees.url(), &cache, "org/repo:Q6_K", &[]) else { return };
    ran(&mut command);
    assert_eq!(fs::read(cache.snapshot().join("b/b-Q6_K.gguf")).unwrap(), files[1].1);

    let names = json!({"sha": COMMIT, "siblings": [{"rfilename": "a-Q8_0.gguf"}]}).to_string();
    let contents = files.clone();
    let bare = Server::start(move |request, _| match &request.path[..] {
        LISTING => Reply::new(200, names.clone()),
        path if path.starts_with("/cdn/") => Reply::part(&contents[0].1, request),
        path if path.contains(COMMIT) => Reply::new(404, ""),
        path => resolve(&contents, &path.replace("/main/", &format!("/{COMMIT}/")), "").unwrap_or(Reply::new(404, "")),
    });
    let cache = Folder::new();
    ran(&mut chat(&bare.url(), &cache, "org/repo", &[]).unwrap());
    assert_eq!(fs::read(cache.snapshot().join("a-Q8_0.gguf")).unwrap(), files[0].1);
    assert_eq!(fs::read_to_string(cache.repo().join("refs/main")).unwrap(), COMMIT);
}
