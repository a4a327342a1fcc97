//! One generation, on a thread of its own.
//!
//! The thread has the session's state while it runs and gives it back at the end, so a session can be used again as soon
//! as its reply is dropped. Pieces of text come through a channel; a waker tells a task that polls the reply.

use super::next::Next;
use super::{Generate, Model, State, lost};
use crate::error::{Error, Result};
use crate::sampler::Sampler;
use crate::tokenizer::StreamDecoder;
use futures::Stream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Why a reply ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finish {
    /// The model was done: it chose this token.
    End(u32),
    /// This stop text came.
    Stop(String),
    /// As many tokens as were asked for.
    MaxTokens,
    /// It was cancelled.
    Cancelled,
}

/// What a reply cost so far.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// Tokens that had to be run before the first one was chosen.
    pub prompt_tokens: usize,
    /// Tokens that were chosen.
    pub generated_tokens: usize,
    /// From the start to the first chosen token.
    pub first_token: Duration,
    /// From the first chosen token to the last.
    pub generating: Duration,
    /// The bytes of weights that are read for each generated token.
    pub token_bytes: u64,
}

impl Statistics {
    /// Tokens of the prompt a second.
    pub fn prompt_tokens_per_second(&self) -> f64 {
        self.prompt_tokens as f64 / self.first_token.as_secs_f64().max(1e-9)
    }

    /// Tokens a second, from the first chosen one on.
    pub fn tokens_per_second(&self) -> f64 {
        self.generated_tokens.saturating_sub(1) as f64 / self.generating.as_secs_f64().max(1e-9)
    }

    /// The speed at which weights are read while tokens are generated, in GB (10⁹ bytes) a second: what to compare with
    /// the memory's own.
    pub fn gigabytes_per_second(&self) -> f64 {
        self.tokens_per_second() * self.token_bytes as f64 / 1e9
    }
}

/// Stops a reply from elsewhere: another thread, or a signal.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Stops it after the token at hand.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One generation: an iterator and a stream of pieces of text, none of them empty. Dropping it cancels it.
#[derive(Debug)]
pub struct Reply<'s> {
    /// Where the session's state goes back to.
    home: &'s mut Option<State>,
    pieces: Receiver<Result<String>>,
    thread: Option<JoinHandle<State>>,
    cancel: Cancel,
    shared: Arc<Shared>,
}

/// What the thread tells beside the text.
#[derive(Debug, Default)]
struct Shared {
    waker: Mutex<Option<Waker>>,
    statistics: Mutex<Statistics>,
    finish: Mutex<Option<Finish>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'s> Reply<'s> {
    pub(super) fn start(model: &Model, home: &'s mut Option<State>, state: State, course: Interrupted) -> Result<Self> {
        let (sender, pieces) = channel();
        let (cancel, shared) = (Cancel::default(), Arc::new(Shared::default()));
        let worker =
            Worker { model: model.clone(), state, course, cancel: cancel.clone(), shared: shared.clone(), sender };
        let thread = std::thread::Builder::new().name("kiln reply".into()).spawn(move || worker.run());
        Ok(Reply { home, pieces, thread: Some(thread?), cancel, shared })
    }

    /// The next piece if there is one now: `None` if not yet. `Some(None)` is the end. Never waits.
    pub fn try_next(&mut self) -> Option<Option<Result<String>>> {
        match self.pieces.try_recv() {
            Ok(piece) => Some(Some(piece)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(self.end()),
        }
    }

    /// A handle that cancels this reply.
    pub fn cancel_handle(&self) -> Cancel {
        self.cancel.clone()
    }

    /// What it cost so far.
    pub fn statistics(&self) -> Statistics {
        lock(&self.shared.statistics).clone()
    }

    /// Why it ended; `None` while it runs, and if it ended in an error.
    pub fn finish(&self) -> Option<Finish> {
        lock(&self.shared.finish).clone()
    }

    /// The whole text, or the error that ended it.
    pub fn text(self) -> Result<String> {
        self.collect()
    }

    /// Takes the session's state back. Tells if the thread has died.
    fn end(&mut self) -> Option<Result<String>> {
        match self.thread.take()?.join() {
            Ok(state) => {
                *self.home = Some(state);
                None
            }
            Err(_) => Some(Err(lost())),
        }
    }
}

impl Iterator for Reply<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        self.pieces.recv().ok().or_else(|| self.end())
    }
}

impl Stream for Reply<'_> {
    type Item = Result<String>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<String>>> {
        let reply = self.get_mut();
        if let Some(piece) = reply.try_next() {
            return Poll::Ready(piece);
        }
        *lock(&reply.shared.waker) = Some(context.waker().clone());
        // A piece that came in between has woken nobody.
        reply.try_next().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.end();
    }
}

/// How far a reply has come: enough to go on with it.
#[derive(Debug)]
pub(super) struct Interrupted {
    sampler: Sampler,
    how: Generate,
    decoder: StreamDecoder,
    /// Tokens that were chosen.
    generated: usize,
}

impl Interrupted {
    /// A reply that has not begun.
    pub fn new(sampler: Sampler, mut how: Generate) -> Self {
        let decoder = StreamDecoder::new(std::mem::take(&mut how.stop));
        Interrupted { sampler, how, decoder, generated: 0 }
    }
}

/// The thread's side.
struct Worker {
    model: Model,
    state: State,
    course: Interrupted,
    cancel: Cancel,
    shared: Arc<Shared>,
    sender: Sender<Result<String>>,
}

impl Worker {
    fn run(mut self) -> State {
        let mut next = Next::default();
        let result = self.generate(&mut next);
        // Only what was chosen is held.
        let result = next.forget(&mut self.state).and(result);
        let is_lost = matches!(result, Err(Error::GpuLost { .. }));
        if !is_lost {
            let rest = self.course.decoder.finish();
            self.send_text(rest);
        }
        match result {
            Ok(finish) => *lock(&self.shared.finish) = Some(finish),
            Err(error) => self.send(Err(error)),
        }
        let Worker { mut state, course, sender, shared, .. } = self;
        state.interrupted = is_lost.then_some(course);
        drop(sender);
        wake(&shared);
        state
    }

    fn generate(&mut self, next: &mut Next) -> Result<Finish> {
        let start = Instant::now();
        self.state.renew(&self.model);
        {
            let mut statistics = lock(&self.shared.statistics);
            statistics.prompt_tokens = self.state.tokens.len() - self.state.sequence.len() as usize;
            statistics.token_bytes = self.model.token_bytes();
        }
        let Interrupted { sampler, how, generated, .. } = &mut self.course;
        if *generated == 0 {
            self.state.tokens.iter().for_each(|&token| sampler.accept(token));
        }
        let (most, ignore_end) = (how.max_tokens, how.ignore_end);
        let mut first = None;
        loop {
            let Interrupted { sampler, decoder, generated, .. } = &mut self.course;
            if most.is_some_and(|most| *generated >= most) {
                return Ok(Finish::MaxTokens);
            }
            let (cancel, model) = (&self.cancel, &self.model);
            let more = most.is_none_or(|most| *generated + 1 < most);
            let choose = |state: &mut State| next.token(model, state, sampler, || cancel.is_cancelled(), more);
            let Some(token) = self.state.run(model, choose)? else { return Ok(Finish::Cancelled) };
            *generated += 1;
            let first = *first.get_or_insert_with(Instant::now);
            {
                let mut statistics = lock(&self.shared.statistics);
                statistics.generated_tokens += 1;
                statistics.first_token = first - start;
                statistics.generating = first.elapsed();
            }
            let tokenizer = model.tokenizer();
            if !ignore_end && tokenizer.special().ends_generation(token) {
                return Ok(Finish::End(token));
            }
            sampler.accept(token);
            self.state.tokens.push(token);
            if !tokenizer.is_control(token) {
                let text = decoder.push(tokenizer.piece(token));
                self.send_text(text);
            }
            if let Some(stop) = self.course.decoder.stopped() {
                return Ok(Finish::Stop(stop.to_owned()));
            }
        }
    }

    fn send_text(&self, text: String) {
        if !text.is_empty() {
            self.send(Ok(text));
        }
    }

    fn send(&self, piece: Result<String>) {
        // Nobody listens any more when the reply is being dropped.
        _ = self.sender.send(piece);
        wake(&self.shared);
    }
}

fn wake(shared: &Shared) {
    if let Some(waker) = lock(&shared.waker).take() {
        waker.wake();
    }
}
