//! From the text that a model writes to the pieces of a reply: thoughts, text and calls, told apart as they stream in.
//!
//! The reader holds back what it cannot tell yet: what a mark may begin with, a call that is not whole, white space that
//! may turn out to stand at an end. All else goes out at once. Whatever comes in goes out, as one kind of piece or another,
//! but for the marks and the white space around them.

#[cfg(test)]
mod tests;

use super::calls::{self, CallFormat, JsonEnd};
use super::message::ToolCall;
use std::fmt;

/// A part of a reply. Shown, it is its text, of which thoughts and calls have none.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Piece {
    /// What the model thinks before it answers.
    Thought(String),
    /// The answer.
    Text(String),
    /// A tool that it calls.
    Call(ToolCall),
    /// Something that looked like a call and is none. Its text is the piece before.
    BrokenCall(BrokenCall),
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Piece::Text(text) => f.write_str(text),
            _ => Ok(()),
        }
    }
}

/// Why a call could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokenCall {
    /// What was found and what was expected.
    pub reason: String,
    /// What the model wrote.
    pub text: String,
}

impl fmt::Display for BrokenCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a call that cannot be read: {}", self.reason)
    }
}

/// What thoughts stand between, in the models that have them.
pub(super) const THOUGHT_MARKS: [(&str, &str); 6] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel>thought", "<channel|>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
];

/// What a call in tags ends with.
const CALL_END: &str = "</tool_call>";

/// How a model writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Style {
    /// What thoughts stand between.
    pub thoughts: Option<(&'static str, &'static str)>,
    /// How it calls tools, if it has any. The channels of harmony are read without tools, too.
    pub calls: Option<CallFormat>,
}

#[derive(Debug, Clone)]
enum Place {
    /// Before anything: white space counts for nothing, and a thought or a call may begin.
    Opening,
    Thought,
    Text,
    /// Behind what a call begins with.
    Call(JsonEnd),
    /// Behind a call, where what it ends with may follow. A broken one waits for that.
    CallEnd(Option<BrokenCall>),
    /// Before a message on a channel.
    Header,
    /// In a message on a channel.
    Channel(Channel),
}

#[derive(Debug, Clone)]
enum Channel {
    Thought,
    Text,
    Call { name: String },
}

/// Reads one reply.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    style: Style,
    place: Place,
    /// What has come and not gone out.
    held: String,
    /// What the call at hand began with.
    opened_by: &'static str,
    /// Whether nothing of the thought or text at hand has gone out.
    is_fresh: bool,
}

/// Whether to go on with what is held, or to wait for more.
#[derive(PartialEq)]
enum Step {
    On,
    Wait,
}

impl Reader {
    /// A reader of what follows a prompt.
    pub fn new(style: Style, prompt: &str) -> Self {
        let is_thinking = style.thoughts.is_some_and(|(open, _)| prompt.trim_end().ends_with(open));
        let place = match style.calls {
            Some(CallFormat::Harmony) => Place::Header,
            _ if is_thinking => Place::Thought,
            _ => Place::Opening,
        };
        Reader { style, place, held: String::new(), opened_by: "", is_fresh: true }
    }

    /// The reply begins with an answer that is known: what has to stand between the prompt and that.
    pub fn begin(&mut self) -> String {
        match (&self.place, self.style.thoughts) {
            (Place::Header, _) => {
                self.go(Place::Channel(Channel::Text));
                "<|channel|>final<|message|>".into()
            }
            (Place::Thought, Some((_, close))) => {
                self.go(Place::Text);
                format!("\n{close}\n\n")
            }
            _ => {
                self.go(Place::Text);
                String::new()
            }
        }
    }

    /// Takes more text, and returns the pieces that are certain now.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = vec![];
        while self.step(&mut pieces) == Step::On {}
        pieces
    }

    /// Ends the reply: the rest of the pieces.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = self.push("");
        let rest = std::mem::take(&mut self.held);
        match &self.place {
            Place::Opening | Place::Header if rest.trim().is_empty() => {}
            Place::Thought | Place::Channel(Channel::Thought) => emit(&mut pieces, Piece::Thought, rest.trim_end()),
            Place::Call(_) => self.finish_call(&rest, &mut pieces),
            Place::CallEnd(call) => {
                if let Some(call) = call.clone() {
                    broken(call.text, call.reason, &mut pieces);
                }
                if !CALL_END.starts_with(rest.trim()) {
                    emit(&mut pieces, Piece::Text, &rest);
                }
            }
            Place::Channel(Channel::Call { name }) => end_channel_call(name, &rest, &mut pieces),
            _ => emit(&mut pieces, Piece::Text, &rest),
        }
        pieces
    }

    fn step(&mut self, pieces: &mut Vec<Piece>) -> Step {
        match self.place.clone() {
            Place::Opening => self.open(),
            Place::Thought => {
                let close = self.style.thoughts.map_or("", |(_, close)| close);
                self.pass(&[close], Piece::Thought, true, pieces).map_or(Step::Wait, |_| self.go(Place::Opening))
            }
            Place::Text => match self.style.calls {
                None => {
                    emit(pieces, Piece::Text, &std::mem::take(&mut self.held));
                    Step::Wait
                }
                Some(format) => {
                    let opened = self.pass(&[format.opens()], Piece::Text, true, pieces);
                    opened.map_or(Step::Wait, |open| self.go_to_call(open))
                }
            },
            Place::Call(scan) => self.call(scan, pieces),
            Place::CallEnd(call) => self.end_call(call, pieces),
            Place::Header => self.header(),
            Place::Channel(channel) => self.channel(&channel, pieces),
        }
    }

    fn go(&mut self, place: Place) -> Step {
        (self.place, self.is_fresh) = (place, true);
        Step::On
    }

    fn go_to_call(&mut self, open: &'static str) -> Step {
        self.opened_by = open;
        self.go(Place::Call(JsonEnd::default()))
    }

    /// Decides what the reply, or its next part, begins with.
    fn open(&mut self) -> Step {
        let white = self.held.len() - self.held.trim_start().len();
        self.held.drain(..white);
        if self.held.is_empty() {
            return Step::Wait;
        }
        let thought = self.style.thoughts.map(|(open, _)| open);
        let call = self.style.calls.map(CallFormat::opens);
        for open in [thought, call].into_iter().flatten() {
            if self.held.starts_with(open) {
                self.held.drain(..open.len());
                return if thought == Some(open) { self.go(Place::Thought) } else { self.go_to_call(open) };
            }
            if open.starts_with(&self.held) {
                return Step::Wait;
            }
        }
        match self.style.calls {
            Some(CallFormat::Bare) if self.held.starts_with('{') => self.go_to_call(""),
            _ => self.go(Place::Text),
        }
    }

    /// Lets text through up to the first of some marks, which is returned and goes out with it. White space before it, and
    /// at the beginning, stays behind if `trimmed`.
    fn pass(
        &mut self,
        marks: &[&'static str],
        kind: fn(String) -> Piece,
        trimmed: bool,
        pieces: &mut Vec<Piece>,
    ) -> Option<&'static str> {
        let found = marks.iter().filter_map(|mark| Some((self.held.find(mark)?, *mark))).min_by_key(|(at, _)| *at);
        let mut end = found.map_or_else(|| self.held.len() - possible_mark(&self.held, marks), |(at, _)| at);
        if trimmed {
            end = self.held[..end].trim_end().len();
        }
        let mut text: String = self.held.drain(..end).collect();
        if let Some((_, mark)) = found {
            let rest = self.held.find(mark).map_or(0, |at| at + mark.len());
            self.held.drain(..rest);
        }
        if trimmed && self.is_fresh {
            text = text.trim_start().into();
        }
        self.is_fresh &= text.is_empty();
        emit(pieces, kind, &text);
        found.map(|(_, mark)| mark)
    }

    /// Behind what a call begins with: waits until it is whole.
    fn call(&mut self, mut scan: JsonEnd, pieces: &mut Vec<Piece>) -> Step {
        let is_further = self.style.calls == Some(CallFormat::Bare) && self.opened_by.is_empty();
        let is_between = |c: char| c.is_whitespace() || (is_further && c == ';');
        let start = self.held.len() - self.held.trim_start_matches(is_between).len();
        self.held.drain(..start);
        let body = &self.held[..];
        let (length, calls) = match (body.chars().next(), self.style.calls) {
            (None, _) => return Step::Wait,
            (Some('{' | '['), _) => match scan.find(body) {
                Some(length) => (length, calls::from_json(&body[..length])),
                None => {
                    self.place = Place::Call(scan);
                    return Step::Wait;
                }
            },
            // Behind a call there is text.
            _ if is_further => return self.go(Place::Opening),
            (_, Some(CallFormat::Tagged)) => match body.find(CALL_END) {
                Some(length) => (length, calls::from_tags(&body[..length]).map(|call| vec![call])),
                None => return Step::Wait,
            },
            (_, Some(CallFormat::Mistral)) => match named_call(body) {
                Some((length, call)) => (length, call.map(|call| vec![call])),
                None => return Step::Wait,
            },
            // Code, which no format has an end for.
            _ => return Step::Wait,
        };
        self.close_call(length, calls, pieces)
    }

    /// A call that is whole goes out.
    fn close_call(&mut self, length: usize, calls: Result<Vec<ToolCall>, String>, pieces: &mut Vec<Piece>) -> Step {
        let text: String = self.held.drain(..length).collect();
        let is_bare = self.style.calls == Some(CallFormat::Bare);
        let mut unreadable = None;
        match calls {
            Ok(calls) => pieces.extend(calls.into_iter().map(Piece::Call)),
            // An answer in JSON is no broken call.
            Err(_) if is_bare && self.opened_by.is_empty() && !text.contains("\"name\"") => {
                emit(pieces, Piece::Text, &text);
                (self.place, self.is_fresh) = (Place::Text, false);
                return Step::On;
            }
            Err(reason) => unreadable = Some(BrokenCall { reason, text: format!("{}{text}", self.opened_by) }),
        }
        if self.style.calls == Some(CallFormat::Tagged) {
            return self.go(Place::CallEnd(unreadable));
        }
        if let Some(call) = unreadable {
            broken(call.text, call.reason, pieces);
        }
        if is_bare { self.go_to_call("") } else { self.go(Place::Opening) }
    }

    /// Behind a call in tags.
    fn end_call(&mut self, call: Option<BrokenCall>, pieces: &mut Vec<Piece>) -> Step {
        let rest = self.held.trim_start();
        if rest.len() < CALL_END.len() && CALL_END.starts_with(rest) {
            return Step::Wait;
        }
        let end = rest.strip_prefix(CALL_END).map_or(0, |behind| self.held.len() - behind.len());
        let end: String = self.held.drain(..end).collect();
        if let Some(call) = call {
            broken(format!("{}{end}", call.text), call.reason, pieces);
        }
        self.go(Place::Opening)
    }

    /// The reply ends within a call.
    fn finish_call(&self, rest: &str, pieces: &mut Vec<Piece>) {
        if rest.trim().is_empty() && self.opened_by.is_empty() {
            return;
        }
        let is_plain_json = self.opened_by.is_empty() && !rest.contains("\"name\"");
        match (self.style.calls, rest.trim_start().chars().next()) {
            (Some(CallFormat::Tagged), Some('<')) if calls::from_tags(rest).is_ok() => {
                pieces.extend(calls::from_tags(rest).ok().map(Piece::Call));
            }
            _ if is_plain_json => emit(pieces, Piece::Text, rest),
            (Some(CallFormat::Bare), Some(c)) if c != '{' => {
                broken(format!("{}{rest}", self.opened_by), "found code, expected JSON".into(), pieces);
            }
            _ => broken(format!("{}{rest}", self.opened_by), "found the end, expected the rest of it".into(), pieces),
        }
    }

    /// Before a message on a channel: reads which one it is.
    fn header(&mut self) -> Step {
        let start = self.held.trim_start();
        if start.is_empty() {
            return Step::Wait;
        }
        // A model that writes no channels just answers.
        if !start.starts_with('<') && !start.starts_with("to=") && !"to=".starts_with(start) {
            return self.go(Place::Channel(Channel::Text));
        }
        let Some((header, body)) = self.held.split_once("<|message|>") else { return Step::Wait };
        let recipient = header.split_once("to=").map(|(_, rest)| rest);
        let recipient =
            recipient.and_then(|rest| rest.split([' ', '<', '\n']).next()).filter(|name| *name != "assistant");
        let channel = header.split_once("<|channel|>").map_or("", |(_, rest)| rest.trim_start());
        let channel = match recipient {
            Some(name) => Channel::Call { name: name.strip_prefix("functions.").unwrap_or(name).to_owned() },
            None if channel.starts_with("analysis") => Channel::Thought,
            None => Channel::Text,
        };
        self.held = body.to_owned();
        self.go(Place::Channel(channel))
    }

    fn channel(&mut self, channel: &Channel, pieces: &mut Vec<Piece>) -> Step {
        const ENDS: [&str; 4] = ["<|end|>", "<|start|>", "<|return|>", "<|call|>"];
        let kind: fn(String) -> Piece = match channel {
            Channel::Thought => Piece::Thought,
            Channel::Text => Piece::Text,
            Channel::Call { name } => {
                let end = ENDS.iter().filter_map(|mark| Some((self.held.find(mark)?, mark.len()))).min();
                let Some((at, width)) = end else { return Step::Wait };
                end_channel_call(name, &self.held[..at], pieces);
                self.held.drain(..at + width);
                return self.go(Place::Header);
            }
        };
        let is_thought = matches!(channel, Channel::Thought);
        self.pass(&ENDS, kind, is_thought, pieces).map_or(Step::Wait, |_| self.go(Place::Header))
    }
}

/// A call behind `[TOOL_CALLS]` that begins with its name: its length, and what it is.
fn named_call(body: &str) -> Option<(usize, Result<ToolCall, String>)> {
    let (head, arguments) = body.split_once("[ARGS]")?;
    let json = arguments.trim_start();
    let before = body.len() - json.len();
    let length = match json.chars().next()? {
        '{' | '[' => JsonEnd::default().find(json)?,
        other => return Some((before, Err(format!("found {other:?}, expected the arguments as JSON")))),
    };
    let (name, id) = head.split_once("[CALL_ID]").unwrap_or((head, ""));
    Some((before + length, calls::named(name, id, &json[..length])))
}

fn end_channel_call(name: &str, body: &str, pieces: &mut Vec<Piece>) {
    match calls::named(name, "", body) {
        Ok(call) => pieces.push(Piece::Call(call)),
        Err(reason) => broken(body.to_owned(), reason, pieces),
    }
}

fn broken(text: String, reason: String, pieces: &mut Vec<Piece>) {
    emit(pieces, Piece::Text, &text);
    pieces.push(Piece::BrokenCall(BrokenCall { reason, text }));
}

fn emit(pieces: &mut Vec<Piece>, kind: fn(String) -> Piece, text: &str) {
    if !text.is_empty() {
        pieces.push(kind(text.to_owned()));
    }
}

/// How many bytes at the end of a text one of these marks may begin with.
fn possible_mark(text: &str, marks: &[&str]) -> usize {
    let longest = |mark: &&str| {
        let lengths = (1..mark.len()).rev().filter(|&length| mark.is_char_boundary(length));
        lengths.into_iter().find(|&length| text.ends_with(&mark[..length])).unwrap_or(0)
    };
    marks.iter().map(longest).max().unwrap_or(0)
}
