//! One generation, on a thread of its own.
//!
//! The thread has the session's state while it runs and gives it back at the end, so a session can be used again as soon
//! as its reply is dropped. Pieces of text come through a channel; a waker tells a task that polls the reply.

use super::form::Form;
use super::next::Next;
use super::{Generate, Model, State, lost};
use crate::error::{Error, Result};
use crate::sampler::Sampler;
use crate::tokenizer::StreamDecoder;
use futures_core::Stream;
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
    /// The text is complete: what it has to conform to lets nothing follow.
    Complete,
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
    /// How many of them have been run, but for the last few: grows while one waits for the first token.
    pub prompt_tokens_run: usize,
    /// Tokens that were chosen.
    pub generated_tokens: usize,
    /// Tokens that were forgotten because the context was full: see [`Generate::shift`].
    pub forgotten_tokens: usize,
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
    running: Running,
}

/// A generation without a home: whoever holds it takes the state back at the end.
#[derive(Debug)]
pub(crate) struct Running {
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

impl Running {
    pub(super) fn start(model: &Model, state: State, course: Interrupted, cancel: Cancel) -> Result<Self> {
        let (sender, pieces) = channel();
        let shared = Arc::new(Shared::default());
        let worker =
            Worker { model: model.clone(), state, course, cancel: cancel.clone(), shared: shared.clone(), sender };
        let thread = std::thread::Builder::new().name("kiln reply".into()).spawn(move || worker.run());
        Ok(Running { pieces, thread: Some(thread?), cancel, shared })
    }

    /// The next piece; `None` at the end, where [`end`](Self::end) gives the state back.
    pub fn wait_next(&mut self) -> Option<Result<String>> {
        self.pieces.recv().ok()
    }

    /// The same, without waiting: `None` if there is nothing yet.
    pub fn try_next(&mut self) -> Option<Option<Result<String>>> {
        match self.pieces.try_recv() {
            Ok(piece) => Some(Some(piece)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(None),
        }
    }

    /// The same for a task.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<String>>> {
        if let Some(piece) = self.try_next() {
            return Poll::Ready(piece);
        }
        *lock(&self.shared.waker) = Some(context.waker().clone());
        // A piece that came in between has woken nobody.
        self.try_next().map_or(Poll::Pending, Poll::Ready)
    }

    /// Waits for the thread and gives the state back, once; an error if the thread has died with it.
    pub(super) fn end(&mut self) -> Option<Result<State>> {
        Some(self.thread.take()?.join().map_err(|_| lost()))
    }

    pub fn cancel_handle(&self) -> Cancel {
        self.cancel.clone()
    }

    pub fn statistics(&self) -> Statistics {
        lock(&self.shared.statistics).clone()
    }

    pub fn finish(&self) -> Option<Finish> {
        lock(&self.shared.finish).clone()
    }
}

impl<'s> Reply<'s> {
    pub(super) fn new(home: &'s mut Option<State>, running: Running) -> Self {
        Reply { home, running }
    }

    /// The next piece if there is one now: `None` if not yet. `Some(None)` is the end. Never waits.
    pub fn try_next(&mut self) -> Option<Option<Result<String>>> {
        let piece = self.running.try_next()?;
        Some(piece.or_else(|| self.end()))
    }

    /// A handle that cancels this reply.
    pub fn cancel_handle(&self) -> Cancel {
        self.running.cancel_handle()
    }

    /// What it cost so far.
    pub fn statistics(&self) -> Statistics {
        self.running.statistics()
    }

    /// Why it ended; `None` while it runs, and if it ended in an error.
    pub fn finish(&self) -> Option<Finish> {
        self.running.finish()
    }

    /// The whole text, or the error that ended it.
    pub fn text(self) -> Result<String> {
        self.collect()
    }

    /// Takes the session's state back. Tells if the thread has died.
    fn end(&mut self) -> Option<Result<String>> {
        match self.running.end()? {
            Ok(state) => {
                *self.home = Some(state);
                None
            }
            Err(error) => Some(Err(error)),
        }
    }
}

impl Iterator for Reply<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        self.running.wait_next().or_else(|| self.end())
    }
}

impl Stream for Reply<'_> {
    type Item = Result<String>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<String>>> {
        let reply = self.get_mut();
        reply.running.poll_next(context).map(|piece| piece.or_else(|| reply.end()))
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        self.running.cancel.cancel();
        self.end();
    }
}

/// How far a reply has come: enough to go on with it.
#[derive(Debug)]
pub(super) struct Interrupted {
    sampler: Sampler,
    form: Form,
    how: Generate,
    decoder: StreamDecoder,
    /// Tokens that were chosen.
    generated: usize,
    /// Whether it ended because a GPU was lost.
    pub(super) lost_gpu: bool,
    /// Whether somebody makes room and goes on with it when the context is full. Otherwise it ends there.
    pub(super) outlives_context: bool,
}

impl Interrupted {
    /// A reply that has not begun.
    pub fn new(sampler: Sampler, form: Form, mut how: Generate) -> Self {
        let decoder = StreamDecoder::new(std::mem::take(&mut how.stop));
        Interrupted { sampler, form, how, decoder, generated: 0, lost_gpu: false, outlives_context: false }
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
        self.course.lost_gpu = matches!(result, Err(Error::GpuLost { .. }));
        let is_full = matches!(result, Err(Error::ContextFull { .. }));
        let may_go_on = self.course.lost_gpu || (is_full && self.course.outlives_context);
        if !may_go_on {
            let rest = self.course.decoder.finish();
            self.send_text(rest);
        }
        match result {
            Ok(finish) => *lock(&self.shared.finish) = Some(finish),
            Err(error) => self.send(Err(error)),
        }
        let Worker { mut state, course, sender, shared, .. } = self;
        state.interrupted = may_go_on.then_some(course);
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
        let (most, ignore_end, shift) = (how.max_tokens, how.ignore_end, how.shift);
        let mut first = None;
        loop {
            let Interrupted { sampler, form, how, decoder, generated, .. } = &mut self.course;
            if !form.prepare()? {
                return Ok(Finish::Complete);
            }
            if most.is_some_and(|most| *generated >= most) {
                return Ok(Finish::MaxTokens);
            }
            let (cancel, model, shared) = (&self.cancel, &self.model, &self.shared);
            let more = most.is_none_or(|most| *generated + 1 < most);
            let watch = |left: usize| {
                let mut statistics = lock(&shared.statistics);
                statistics.prompt_tokens_run = statistics.prompt_tokens.saturating_sub(left);
                !cancel.is_cancelled()
            };
            let choose = |state: &mut State| next.token(model, state, (sampler, form), watch, more);
            let token = match self.state.run(model, choose) {
                Ok(Some(token)) => token,
                Ok(None) => return Ok(Finish::Cancelled),
                Err(Error::ContextFull { .. }) if shift.is_some_and(|keep| self.state.can_shift(keep)) => {
                    next.forget(&mut self.state)?;
                    let held = self.state.tokens.len();
                    self.state.shift(shift.unwrap_or_default())?;
                    lock(&self.shared.statistics).forgotten_tokens += held - self.state.tokens.len();
                    continue;
                }
                Err(error) => return Err(error),
            };
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
            form.accept(token)?;
            self.state.tokens.push(token);
            if !tokenizer.is_control(token) || how.shown.contains(&token) {
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
