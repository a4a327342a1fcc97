//! Where a reply goes as it comes, and how it is stopped.

use kiln::chat::Piece;
use kiln::session::{Cancel, Finish, Statistics};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Takes the pieces of a reply.
pub trait Sink {
    /// The next piece.
    fn piece(&mut self, piece: &Piece) -> io::Result<()>;
    /// There are no more.
    fn end(&mut self, statistics: &Statistics, finish: Option<&Finish>) -> io::Result<()>;
}

/// The answer as it is, for a file or a pipe. Thoughts are left out.
#[derive(Default)]
pub struct Plain;

impl Sink for Plain {
    fn piece(&mut self, piece: &Piece) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match piece {
            Piece::Text(text) => out.write_all(text.as_bytes())?,
            Piece::Call(call) => writeln!(out, "{}", call.to_json())?,
            Piece::BrokenCall(call) => eprintln!("{call}"),
            _ => {}
        }
        out.flush()
    }

    fn end(&mut self, _: &Statistics, _: Option<&Finish>) -> io::Result<()> {
        writeln!(io::stdout())
    }
}

/// A line of JSON for each event.
pub struct JsonLines;

impl JsonLines {
    /// The reply ends in an error.
    pub fn error(&mut self, message: &str) -> io::Result<()> {
        self.line(&json!({"event": "error", "message": message}))
    }

    fn line(&mut self, value: &Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{value}")?;
        out.flush()
    }
}

impl Sink for JsonLines {
    fn piece(&mut self, piece: &Piece) -> io::Result<()> {
        self.line(&match piece {
            Piece::Thought(text) => json!({"event": "thought", "text": text}),
            Piece::Text(text) => json!({"event": "text", "text": text}),
            Piece::Call(call) => json!({"event": "call", "call": call.to_json()}),
            Piece::BrokenCall(call) => json!({"event": "broken_call", "reason": call.reason, "text": call.text}),
            _ => return Ok(()),
        })
    }

    fn end(&mut self, statistics: &Statistics, finish: Option<&Finish>) -> io::Result<()> {
        let finish = match finish {
            Some(Finish::End(_)) => "end",
            Some(Finish::Complete) => "complete",
            Some(Finish::Stop(_)) => "stop",
            Some(Finish::MaxTokens) => "max_tokens",
            Some(Finish::Cancelled) => "cancelled",
            _ => "other",
        };
        self.line(&json!({
            "event": "end",
            "finish": finish,
            "prompt_tokens": statistics.prompt_tokens,
            "generated_tokens": statistics.generated_tokens,
            "first_token_ms": statistics.first_token.as_secs_f64() * 1e3,
            "prompt_tokens_per_second": statistics.prompt_tokens_per_second(),
            "tokens_per_second": statistics.tokens_per_second(),
        }))
    }
}

/// What a reply cost.
pub fn statistics_line(statistics: &Statistics) -> String {
    if statistics.generated_tokens == 0 {
        return format!("{} of {} prompt tokens read", statistics.prompt_tokens_run, statistics.prompt_tokens);
    }
    // A speed takes two tokens to tell.
    let speed = match statistics.generated_tokens {
        1 => String::new(),
        _ => {
            let (tokens, gigabytes) = (statistics.tokens_per_second(), statistics.gigabytes_per_second());
            format!(" at {tokens:.1} tokens/s ({gigabytes:.1} GB/s)")
        }
    };
    format!(
        "{} prompt tokens at {:.1} tokens/s, {} generated{speed}, first after {:.0} ms",
        statistics.prompt_tokens,
        statistics.prompt_tokens_per_second(),
        statistics.generated_tokens,
        statistics.first_token.as_secs_f64() * 1e3,
    )
}

/// Why a reply ended.
pub fn finish_words(finish: Option<&Finish>) -> String {
    match finish {
        Some(Finish::Complete) => "the text is complete".into(),
        Some(Finish::Stop(text)) => format!("the stop text {text:?} came"),
        Some(Finish::End(token)) => format!("the model ended with token {token}"),
        Some(Finish::MaxTokens) => "as many tokens as asked for".into(),
        Some(Finish::Cancelled) => "stopped".into(),
        other => format!("{other:?}"),
    }
}

/// Ctrl-C, which stops the reply at hand and not the program. While there is none it ends the program.
#[derive(Clone)]
pub struct Stop {
    reply: Arc<Mutex<Option<Cancel>>>,
    has_stopped: Arc<AtomicBool>,
}

impl Stop {
    /// Listens from now on. Only once in a program.
    pub fn new() -> Result<Self, ctrlc::Error> {
        let stop = Stop { reply: Arc::default(), has_stopped: Arc::default() };
        let heard = stop.clone();
        ctrlc::set_handler(move || match &*heard.lock() {
            // Said twice, it means it.
            Some(_) if heard.has_stopped() => process::exit(crate::INTERRUPTED.into()),
            Some(reply) => {
                heard.has_stopped.store(true, Ordering::Relaxed);
                reply.cancel();
            }
            None => process::exit(crate::INTERRUPTED.into()),
        })?;
        Ok(stop)
    }

    /// What is stopped until the guard is dropped.
    pub fn stops(&self, reply: Cancel) -> Stopping<'_> {
        self.has_stopped.store(false, Ordering::Relaxed);
        *self.lock() = Some(reply);
        Stopping(self)
    }

    /// Whether the last reply was stopped.
    pub fn has_stopped(&self) -> bool {
        self.has_stopped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Cancel>> {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, Ctrl-C stops a reply.
pub struct Stopping<'s>(&'s Stop);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}
