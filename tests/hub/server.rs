//! A server on this machine that plays the hub: what it answers is up to a test, down to where it breaks off.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What came, with the names of headers in lower case.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| &value[..])
    }

    /// Where the range that is asked for starts.
    pub fn range(&self) -> Option<usize> {
        Some(self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().unwrap())
    }
}

/// What goes back.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What the length is said to be, if not that of the body.
    pub length: Option<usize>,
    pub manner: Manner,
}

/// How a body goes.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    Whole,
    /// Only so many bytes, then the connection is closed.
    Cut(usize),
    /// In so many pieces, with a pause between.
    Drip(usize, Duration),
    /// So many bytes, then nothing for as long.
    Stall(usize, Duration),
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), length: None, manner: Manner::Whole }
    }

    pub fn redirect(to: &str) -> Self {
        Self::new(302, "").with("Location", to)
    }

    /// The part of a content that a request asks for.
    pub fn part(content: &[u8], request: &Request) -> Self {
        let Some(start) = request.range() else { return Self::new(200, content) };
        let whole = content.len();
        match content.get(start..) {
            Some(rest) if !rest.is_empty() => {
                Self::new(206, rest).with("Content-Range", &format!("bytes {start}-{}/{whole}", whole - 1))
            }
            _ => Self::new(416, "").with("Content-Range", &format!("bytes */{whole}")),
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn going(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    fn write(&self, out: &mut TcpStream, has_body: bool) -> std::io::Result<()> {
        let length = self.length.unwrap_or(self.body.len());
        write!(out, "HTTP/1.1 {} Words\r\nContent-Length: {length}\r\nConnection: close\r\n", self.status)?;
        for (name, value) in &self.headers {
            write!(out, "{name}: {value}\r\n")?;
        }
        out.write_all(b"\r\n")?;
        let upto = |bytes: usize| &self.body[..bytes.min(self.body.len())];
        match self.manner {
            _ if !has_body => Ok(()),
            Manner::Whole => out.write_all(&self.body),
            Manner::Cut(bytes) => out.write_all(upto(bytes)),
            Manner::Stall(bytes, pause) => {
                out.write_all(upto(bytes))?;
                thread::sleep(pause);
                Ok(())
            }
            Manner::Drip(pieces, pause) => {
                for piece in self.body.chunks(self.body.len().div_ceil(pieces)) {
                    out.write_all(piece)?;
                    thread::sleep(pause);
                }
                Ok(())
            }
        }
    }
}

/// Answers until the test is over.
pub struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `answer` gets a request and how many came before it.
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), requests: Arc::default() };
        let (requests, answer) = (server.requests.clone(), Arc::new(answer));
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (requests, answer) = (requests.clone(), answer.clone());
                thread::spawn(move || {
                    let mut connection = connection.unwrap();
                    let Some(request) = read(&connection) else { return };
                    let before = {
                        let mut requests = requests.lock().unwrap();
                        requests.push(request.clone());
                        requests.len() - 1
                    };
                    // Who hangs up early has their reasons.
                    _ = answer(&request, before).write(&mut connection, request.method != "HEAD");
                });
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What came so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The requests for contents.
    pub fn gets(&self, part: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.method == "GET" && request.path.contains(part)).collect()
    }
}

fn read(connection: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(connection).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    Some(Request { method, path, headers })
}
