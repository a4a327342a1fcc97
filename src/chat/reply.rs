//! One reply of a conversation, as it streams in.

use super::message::{Message, Role, ToolCall};
use super::prompt::Prompt;
use super::reader::{Piece, Reader};
use super::{Chat, ContextPolicy};
use crate::error::{Error, Result};
use crate::session::{Cancel, Finish, Running, Statistics};
use futures_core::Stream;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What a reply begins with, before the model writes anything.
#[derive(Debug, Clone, Default)]
pub(super) struct Prefix {
    /// As it stands behind the prompt.
    pub prompt: String,
    /// As it stands in the message.
    pub text: String,
}

/// A reply that is being written.
#[derive(Debug)]
pub(super) struct Turn {
    reader: Reader,
    message: Message,
    pub prefix: Prefix,
    pub prompt: Prompt,
    /// How many tokens stand before what the model has written.
    pub prompt_tokens: usize,
    /// All that the model has written, without what begins the reply.
    pub raw: String,
    running: Running,
    /// What it cost before the generation that is running.
    before: Statistics,
    /// Certain, and not handed out.
    ready: VecDeque<Piece>,
}

impl Turn {
    pub fn new(reader: Reader, prefix: Prefix, prompt: Prompt, prompt_tokens: usize, running: Running) -> Self {
        let message = Message::new(Role::Assistant, &prefix.text[..]);
        let (raw, before, ready) = (String::new(), Statistics::default(), VecDeque::new());
        Turn { reader, message, prefix, prompt, prompt_tokens, raw, running, before, ready }
    }

    /// Goes on behind another prompt.
    pub fn restart(&mut self, prompt: Prompt, prompt_tokens: usize, running: Running) {
        self.before = self.statistics();
        (self.prompt, self.prompt_tokens, self.running) = (prompt, prompt_tokens, running);
    }

    /// Goes on where it was.
    pub fn go_on(mut self, running: Running) -> Self {
        self.before = self.statistics();
        self.running = running;
        self
    }

    pub fn message(&self) -> &Message {
        &self.message
    }

    /// What the model has written, as the template will write it again: where it is nothing but text, that is without the
    /// white space in front that is no part of the message.
    pub fn written(&self) -> &str {
        let Message { text, thought, calls, .. } = &self.message;
        let said = text.get(self.prefix.text.len()..).filter(|_| thought.is_empty() && calls.is_empty());
        said.filter(|said| self.raw.trim_start() == *said).unwrap_or(&self.raw)
    }

    pub fn into_message(self) -> Message {
        self.message
    }

    pub fn cancel_handle(&self) -> Cancel {
        self.running.cancel_handle()
    }

    pub fn finish(&self) -> Option<Finish> {
        self.running.finish()
    }

    pub fn statistics(&self) -> Statistics {
        let mut sum = self.running.statistics();
        if self.before.generated_tokens > 0 {
            sum.prompt_tokens = self.before.prompt_tokens;
            sum.prompt_tokens_run = self.before.prompt_tokens_run;
            sum.first_token = self.before.first_token;
            sum.generating += self.before.generating;
            sum.generated_tokens += self.before.generated_tokens;
            sum.forgotten_tokens += self.before.forgotten_tokens;
        }
        sum
    }

    /// Reads what the model has written, of which nothing follows if it is the `last`.
    fn read(&mut self, text: &str, last: bool, calls: &mut usize) {
        self.raw.push_str(text);
        let mut pieces = self.reader.push(text);
        if last {
            pieces.extend(self.reader.finish());
        }
        for mut piece in pieces {
            match &mut piece {
                Piece::Thought(text) => self.message.thought.push_str(text),
                Piece::Text(text) => self.message.text.push_str(text),
                Piece::Call(call) => {
                    *calls += 1;
                    give_id(call, *calls);
                    self.message.calls.push(call.clone());
                }
                Piece::BrokenCall(_) => {}
            }
            self.ready.push_back(piece);
        }
    }
}

/// Nine letters and digits, as some templates want it.
fn give_id(call: &mut ToolCall, number: usize) {
    if call.id.is_empty() {
        call.id = format!("call{number:05}");
    }
}

/// The model's reply: an iterator and a stream of [`Piece`]s. Dropping it cancels it; what was written until then is part
/// of the conversation.
#[derive(Debug)]
pub struct ChatReply<'c> {
    chat: &'c mut Chat,
    /// Until it has ended.
    turn: Option<Turn>,
    /// What is left of it then.
    ready: VecDeque<Piece>,
    statistics: Statistics,
    finish: Option<Finish>,
    cancel: Cancel,
}

impl<'c> ChatReply<'c> {
    pub(super) fn new(chat: &'c mut Chat, turn: Turn) -> Self {
        let cancel = turn.running.cancel_handle();
        ChatReply {
            chat,
            turn: Some(turn),
            ready: VecDeque::new(),
            statistics: Statistics::default(),
            finish: None,
            cancel,
        }
    }

    /// The next piece if there is one now: `None` if not yet. `Some(None)` is the end. Never waits for the model, unless
    /// the context is full and [`ContextPolicy::ForgetOldest`] has to make room.
    pub fn try_next(&mut self) -> Option<Option<Result<Piece>>> {
        loop {
            if let Some(piece) = self.take_ready() {
                return Some(Some(Ok(piece)));
            }
            let Some(turn) = &mut self.turn else { return Some(None) };
            let text = turn.running.try_next()?;
            if let Some(error) = self.take(text) {
                return Some(Some(Err(error)));
            }
        }
    }

    /// A handle that cancels this reply.
    pub fn cancel_handle(&self) -> Cancel {
        self.cancel.clone()
    }

    /// What it cost so far.
    pub fn statistics(&self) -> Statistics {
        self.turn.as_ref().map_or_else(|| self.statistics.clone(), Turn::statistics)
    }

    /// Why it ended; `None` while it runs, and if it ended in an error.
    pub fn finish(&self) -> Option<Finish> {
        self.finish.clone()
    }

    /// The whole answer, without thoughts and calls, or the error that ended it.
    pub fn text(self) -> Result<String> {
        let mut text = String::new();
        for piece in self {
            if let Piece::Text(part) = piece? {
                text.push_str(&part);
            }
        }
        Ok(text)
    }

    /// The whole message, or the error that ended it.
    pub fn message(mut self) -> Result<Message> {
        self.by_ref().try_for_each(|piece| piece.map(|_| ()))?;
        self.chat.messages.last().cloned().ok_or_else(super::nothing_paused)
    }

    fn take_ready(&mut self) -> Option<Piece> {
        let turn = self.turn.as_mut().and_then(|turn| turn.ready.pop_front());
        turn.or_else(|| self.ready.pop_front())
    }

    /// Takes what came of the model: text, an error, or the end. Returns the error that ends the reply.
    fn take(&mut self, text: Option<Result<String>>) -> Option<Error> {
        match text {
            Some(Ok(text)) => {
                if let Some(turn) = &mut self.turn {
                    turn.read(&text, false, &mut self.chat.calls);
                }
                None
            }
            Some(Err(error)) => self.fail(error),
            None => self.end(),
        }
    }

    /// The model can write no more. That may not be the end of it.
    fn fail(&mut self, error: Error) -> Option<Error> {
        let mut turn = self.turn.take()?;
        if let Err(error) = self.chat.session.take_back(&mut turn.running) {
            return Some(error);
        }
        let mut error = error;
        if matches!((&error, self.chat.setup.policy), (Error::ContextFull { .. }, ContextPolicy::ForgetOldest { .. })) {
            match self.chat.make_room(&mut turn) {
                Ok(()) => {
                    self.turn = Some(turn);
                    return None;
                }
                Err(other) => error = other,
            }
        }
        self.statistics = turn.statistics();
        if matches!(error, Error::GpuLost { .. }) {
            self.ready = std::mem::take(&mut turn.ready);
            self.chat.paused = Some(Box::new(turn));
        } else {
            self.close(turn);
        }
        Some(error)
    }

    /// The model is done.
    fn end(&mut self) -> Option<Error> {
        let mut turn = self.turn.take()?;
        self.finish = turn.finish();
        self.statistics = turn.statistics();
        let result = self.chat.session.take_back(&mut turn.running);
        self.close(turn);
        result.err()
    }

    fn close(&mut self, mut turn: Turn) {
        turn.read("", true, &mut self.chat.calls);
        self.ready = std::mem::take(&mut turn.ready);
        self.chat.end(turn);
    }
}

impl Iterator for ChatReply<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        loop {
            if let Some(piece) = self.take_ready() {
                return Some(Ok(piece));
            }
            let text = self.turn.as_mut()?.running.wait_next();
            if let Some(error) = self.take(text) {
                return Some(Err(error));
            }
        }
    }
}

impl Stream for ChatReply<'_> {
    type Item = Result<Piece>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        let reply = self.get_mut();
        loop {
            if let Some(piece) = reply.take_ready() {
                return Poll::Ready(Some(Ok(piece)));
            }
            let Some(turn) = &mut reply.turn else { return Poll::Ready(None) };
            let Poll::Ready(text) = turn.running.poll_next(context) else { return Poll::Pending };
            if let Some(error) = reply.take(text) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl Drop for ChatReply<'_> {
    fn drop(&mut self) {
        // What it had written by then is held, so it has to be read.
        self.cancel.cancel();
        while let Some(turn) = &mut self.turn {
            let text = turn.running.wait_next();
            if self.take(text).is_some() {
                break;
            }
        }
    }
}
