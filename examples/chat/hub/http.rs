//! Requests to the hub, one at a time.
//!
//! Redirects are followed here and not by the client below, because what the hub says about a file stands in the
//! headers of the redirect, and because the token goes to the hub and to nobody else.

use std::time::Duration;
use ureq::http::{HeaderMap, StatusCode, Uri};
use ureq::{Agent, Body};

const MOST_REDIRECTS: usize = 10;
/// Who answers at all answers sooner than this.
const CONNECT: Duration = Duration::from_secs(20);

/// What went wrong.
#[derive(Debug)]
pub enum Trouble {
    /// It may pass: no connection, a server that is busy, an answer that was cut short.
    Passing(String),
    /// The server answered with this status, and will again.
    Status(u16, String),
    /// It is as it is.
    Lasting(String),
}

impl From<Trouble> for Box<dyn std::error::Error> {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Passing(why) | Trouble::Status(_, why) | Trouble::Lasting(why) => why.into(),
        }
    }
}

/// What the hub says about a file as it redirects to where the content is.
#[derive(Debug, Default)]
pub struct Linked {
    pub etag: Option<String>,
    pub size_bytes: Option<u64>,
    pub commit: Option<String>,
}

/// An answer: 200, 206 (a part, from where it was asked for), 416 (nothing is left from there on), or, asked about a
/// file only, a redirect.
pub struct Answer {
    pub status: u16,
    pub linked: Linked,
    pub headers: HeaderMap,
    pub body: Body,
}

impl Answer {
    /// Where the part begins, and how long the whole is, as `Content-Range: bytes 5-9/10` says.
    pub fn range(&self) -> (Option<u64>, Option<u64>) {
        let range = header(&self.headers, "content-range").unwrap_or_default();
        let Some((part, whole)) = range.strip_prefix("bytes ").and_then(|range| range.split_once('/')) else {
            return (None, None);
        };
        let start = part.split_once('-').and_then(|(start, _)| start.trim().parse().ok());
        (start, whole.trim().parse().ok())
    }

    /// The address in `Link: <..>; rel="next"`.
    pub fn next_page(&self) -> Option<String> {
        let links = header(&self.headers, "link")?;
        let link = links.split(',').find(|link| link.contains("rel=\"next\""))?;
        let (_, rest) = link.split_once('<')?;
        rest.split_once('>').map(|(url, _)| url.to_owned())
    }
}

/// Asks one hub.
pub struct Client {
    agent: Agent,
    mirror: String,
    token: Option<String>,
    /// How long nothing may come.
    patience: Duration,
}

impl Client {
    /// # Errors
    /// If the address is none.
    pub fn new(mirror: &str, token: Option<String>, patience: Duration) -> Result<Self, Trouble> {
        let wrong = || Trouble::Lasting(format!("--hf-mirror {mirror}: expected an address as https://huggingface.co"));
        let uri: Uri = mirror.parse().map_err(|_| wrong())?;
        if !is_web(&uri) || uri.query().is_some() {
            return Err(wrong());
        }
        let connect = Some(CONNECT.min(patience));
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(connect)
            .timeout_connect(connect)
            .timeout_per_read(Some(patience))
            .timeout_per_write(Some(patience))
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity");
        Ok(Self { agent: config.build().into(), mirror: mirror.trim_end_matches('/').to_owned(), token, patience })
    }

    /// The address of a path on this hub.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.mirror)
    }

    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Asks for what is at an address, from a byte on.
    pub fn get(&self, url: &str, from: u64) -> Result<Answer, Trouble> {
        self.ask("GET", url, from)
    }

    /// Asks what the hub says about the file at an address.
    pub fn about(&self, url: &str) -> Result<Linked, Trouble> {
        let Answer { status, mut linked, headers, .. } = self.ask("HEAD", url, 0)?;
        // Small files are no links: what is said is said of themselves.
        if status == 200 {
            let etag = header(&headers, "etag").map(unquoted);
            let length = header(&headers, "content-length").and_then(|length| length.parse().ok());
            linked = Linked { etag: linked.etag.or(etag), size_bytes: linked.size_bytes.or(length), ..linked };
        }
        Ok(linked)
    }

    fn ask(&self, method: &str, url: &str, from: u64) -> Result<Answer, Trouble> {
        let bad = |what: &str| Trouble::Lasting(format!("{method} {url}: {what}"));
        let home: Uri = self.mirror.parse().map_err(|_| bad("not an address"))?;
        let mut at: Uri = url.parse().map_err(|_| bad("not an address"))?;
        let mut linked = Linked::default();
        for _ in 0..=MOST_REDIRECTS {
            let is_home = is_same_origin(&home, &at);
            let answer = self.send(method, &at, from, is_home)?;
            let (status, headers) = (answer.status(), answer.headers());
            if is_home {
                linked.add(headers);
            }
            // Asked about a file, the hub has said all with the redirect.
            let is_known = method == "HEAD" && linked.etag.is_some();
            if status.is_redirection() && !is_known {
                let to = header(headers, "location").ok_or_else(|| bad("a redirect to nowhere"))?;
                let next = joined(&at, to).filter(is_web).ok_or_else(|| bad(&format!("a redirect to {to:?}")))?;
                if at.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                    return Err(bad(&format!("a redirect from https to {next}; expected https")));
                }
                at = next;
                continue;
            }
            if !matches!(status.as_u16(), 200 | 206 | 300..400 | 416) {
                return Err(refusal(method, &at, status, headers, is_home, self.token.is_some()));
            }
            let (parts, body) = answer.into_parts();
            return Ok(Answer { status: status.as_u16(), linked, headers: parts.headers, body });
        }
        Err(bad(&format!("more than {MOST_REDIRECTS} redirects")))
    }

    fn send(&self, method: &str, at: &Uri, from: u64, is_home: bool) -> Result<ureq::http::Response<Body>, Trouble> {
        let mut request = if method == "HEAD" { self.agent.head(at) } else { self.agent.get(at) };
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        if let Some(token) = self.token.as_deref().filter(|_| is_home) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|error| {
            let why = format!("{method} {}: {}", shown(at, is_home), self.words(&error));
            match error {
                ureq::Error::Http(_) | ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl => Trouble::Lasting(why),
                _ => Trouble::Passing(why),
            }
        })
    }

    /// An error in words.
    pub fn words(&self, error: &ureq::Error) -> String {
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => "nobody answers".into(),
            ureq::Error::Timeout(_) => format!("nothing came for {} s", self.patience.as_secs_f64()),
            ureq::Error::HostNotFound => "no such host, or no network".into(),
            ureq::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        }
    }
}

impl Linked {
    fn add(&mut self, headers: &HeaderMap) {
        let size = header(headers, "x-linked-size").and_then(|size| size.parse().ok());
        self.etag = self.etag.take().or(header(headers, "x-linked-etag").map(unquoted));
        self.size_bytes = self.size_bytes.or(size);
        self.commit = self.commit.take().or(header(headers, "x-repo-commit").map(str::to_owned));
    }
}

fn unquoted(etag: &str) -> String {
    etag.trim_start_matches("W/").trim_matches('"').to_owned()
}

/// What was asked, what came, and what to do about it.
fn refusal(method: &str, at: &Uri, status: StatusCode, headers: &HeaderMap, is_home: bool, has_token: bool) -> Trouble {
    let said = header(headers, "x-error-message").or_else(|| header(headers, "x-error-code")).unwrap_or_default();
    let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
    let said = if said.is_empty() { said } else { format!(" ({said})") };
    let token = if has_token { "the token may not read it: check the token" } else { "give a token with --hf-token" };
    let to_do = match status.as_u16() {
        401 | 403 if is_home => format!(
            "there is no such repository, or it is private or gated: check the name; if it is gated, accept its terms \
             on its page; {token}"
        ),
        401 | 403 => "the place with the content refuses; running it again asks for a new address of it".into(),
        404 => "there is nothing of this name: check the names of organisation, repository, file and revision".into(),
        429 => "too many requests: wait, or give a token with --hf-token".into(),
        500.. => "the server is in trouble: try again later".into(),
        _ => "expected 200".into(),
    };
    let why = format!("{method} {}: {status}{said}: {to_do}", shown(at, is_home));
    match status.as_u16() {
        408 | 429 | 500.. => Trouble::Passing(why),
        code => Trouble::Status(code, why),
    }
}

/// An address as people want to read it: elsewhere than at the hub, what follows the path are signatures.
fn shown(at: &Uri, is_home: bool) -> String {
    let whole = at.to_string();
    if is_home { whole } else { whole.split('?').next().unwrap_or_default().to_owned() }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn is_web(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
}

fn is_same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

/// Where a redirect leads, whole or relative to where it came from.
fn joined(base: &Uri, to: &str) -> Option<Uri> {
    let to = to.split_once('#').map_or(to, |(to, _)| to);
    let is_whole = to.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|c| c.is_ascii_alphanumeric()));
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let whole = if is_whole {
        to.to_owned()
    } else if to.starts_with("//") {
        format!("{scheme}:{to}")
    } else if to.starts_with('/') {
        format!("{scheme}://{authority}{to}")
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{to}")
    };
    whole.parse().ok()
}

/// A text as part of an address; of the characters that mean something there, `kept` are left alone.
pub fn encoded(text: &str, kept: &str) -> String {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._~".contains(&c) || kept.as_bytes().contains(&c);
    text.bytes().map(|c| if plain(c) { char::from(c).to_string() } else { format!("%{c:02X}") }).collect()
}
