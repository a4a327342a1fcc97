//! Models, sessions and replies: what applications touch.
//!
//! ```no_run
//! use kiln::Model;
//!
//! let model = Model::open("model.gguf")?;
//! for piece in model.session().generate("The capital of France is")? {
//!     print!("{}", piece?);
//! }
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! A [`Model`] is loaded once and shared: cloning it is cloning a handle. A [`Session`] is one sequence of tokens; a fork
//! of it shares the pages of what they have in common. A [`Reply`] is one generation, which runs on a thread of its own:
//! it can be iterated over, awaited as a stream, or asked from a frame loop without ever waiting. Dropping it cancels.
//!
//! Generation runs where [`LoadOptions::device`] and [`LoadOptions::offload`] say: on GPUs, as many layers as fit, and on
//! the CPU. Who computes what and in how much memory, [`Model::plan`] tells, or [`LoadOptions::plan`] before anything is
//! loaded; what a reply cost, [`Reply::statistics`]. A GPU that is lost ends a reply in an error; [`Session::resume`] goes on.

mod form;
mod memory;
mod next;
mod reply;
mod saved;
#[cfg(feature = "chat")]
mod turns;

pub use memory::MemoryPlan;
pub(crate) use reply::Running;
pub use reply::{Cancel, Finish, Reply, Statistics};

use crate::Result;
use crate::backend::batch::Batch;
use crate::backend::gpu::Gpu;
use crate::cache::Sequence;
use crate::error::Error;
use crate::gguf::{Gguf, LoadMode};
#[cfg(feature = "grammar")]
use crate::grammar::Grammar;
use crate::model::{self, Facts};
use crate::options::{LoadOptions, Offload, Recover};
use crate::program::{Program, Purpose};
use crate::sampler::{Sampler, SamplerOptions, dry_breakers};
use crate::scheduler::{self, CHUNK_TOKENS, Engine, Fit, Plan};
use crate::tokenizer::{Encode, Tokenizer, TokenizerOptions};
use form::Form;
use reply::Interrupted;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A loaded model. Cloning gives another handle to the same one.
#[derive(Debug, Clone)]
pub struct Model {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tokenizer: Tokenizer,
    file: Arc<Gguf>,
    options: LoadOptions,
    program: Program,
    facts: Facts,
    /// What computes: another one after a GPU was lost.
    engine: Mutex<Arc<Engine>>,
    /// Held while that is made.
    recovering: Mutex<()>,
    #[cfg(feature = "grammar")]
    vocabulary: form::Cached,
}

impl LoadOptions {
    /// Where the model in a file would run, and in how much memory. Reads the header only.
    pub fn plan(&self, path: impl AsRef<Path>) -> Result<Plan> {
        let path = path.as_ref();
        let plan = |file: &Gguf| Fit::new(file, self, scheduler::look(self)?)?.plan(self);
        plan(&Gguf::open(path)?).map_err(|error| error.in_file(path))
    }

    /// Loads the model in a file.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Model> {
        let path = path.as_ref();
        let mode = if self.map { LoadMode::Map } else { LoadMode::Read };
        let file = Gguf::open_with(path, mode)?;
        Model::load(file, self).map_err(|error| error.in_file(path))
    }
}

impl Model {
    /// Loads the model in a file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        LoadOptions::new().open(path)
    }

    /// Loads the model in a file that is open already.
    pub fn load(file: Gguf, options: &LoadOptions) -> Result<Self> {
        Self::load_on(file, options, &[])
    }

    /// Loads the model in a file that is open already, onto GPUs that are, too: an application's own, for example.
    /// [`LoadOptions::device`] then counts for nothing, but [`LoadOptions::offload`] does.
    pub fn load_on(file: Gguf, options: &LoadOptions, gpus: &[Gpu]) -> Result<Self> {
        let mut tokenizer_options = TokenizerOptions::default();
        tokenizer_options.pre.clone_from(&options.pre_tokenizer);
        let tokenizer = Tokenizer::load_with(file.metadata(), &tokenizer_options)?;
        let facts = model::facts(&file)?;
        let opened = if gpus.is_empty() { scheduler::open(options)? } else { vec![] };
        let gpus = if gpus.is_empty() { &opened } else { gpus };
        let file = Arc::new(file);
        let engine = Engine::load(&file, options, gpus)?;
        let (program, options, recovering) = (engine.program().clone(), options.clone(), Mutex::new(()));
        let engine = Mutex::new(Arc::new(engine));
        let shared = Shared {
            tokenizer,
            file,
            options,
            program,
            facts,
            engine,
            recovering,
            #[cfg(feature = "grammar")]
            vocabulary: form::Cached::default(),
        };
        let model = Model { shared: Arc::new(shared) };
        log::info!("{}: {}; on {}", model.facts(), model.memory(), model.engine().name());
        Ok(model)
    }

    /// The file that it was loaded from.
    pub(crate) fn file(&self) -> &Arc<Gguf> {
        &self.shared.file
    }

    /// The most tokens of a batch of texts, and of those the most whose rows can be asked for.
    pub(crate) fn most_rows(&self) -> (usize, usize) {
        let engine = self.engine();
        (engine.chunk_tokens(), engine.most_outputs())
    }

    /// Runs a batch of which nothing is kept; once more if a GPU was lost and the model is to go on without being asked.
    pub(crate) fn run_texts(&self, batch: Batch) -> Result<Vec<f32>> {
        let engine = self.engine();
        let rows = engine.run(batch, &mut engine.cache().sequence());
        match (rows, self.shared.options.recover) {
            (Err(Error::GpuLost { .. }), Some(how)) => {
                self.recover(&engine, how)?;
                let engine = self.engine();
                engine.run(batch, &mut engine.cache().sequence())
            }
            (rows, _) => rows,
        }
    }

    /// What computes now.
    fn engine(&self) -> Arc<Engine> {
        lock(&self.shared.engine).clone()
    }

    /// Makes another engine in place of one that has lost a GPU, unless that has been done.
    fn recover(&self, lost: &Arc<Engine>, how: Recover) -> Result<()> {
        let _recovering = lock(&self.shared.recovering);
        if !Arc::ptr_eq(&self.engine(), lost) {
            return Ok(());
        }
        let Shared { file, options, .. } = &*self.shared;
        let on_cpu = || Engine::load(file, &options.clone().offload(Offload::None), &[]);
        let engine = match how {
            Recover::Cpu => on_cpu()?,
            Recover::Reopen => {
                let reopened = scheduler::open(options).and_then(|gpus| Engine::load(file, options, &gpus));
                reopened.or_else(|error| {
                    log::warn!("no GPU in place of the one that was lost: {error}");
                    on_cpu()
                })?
            }
        };
        log::warn!("a GPU was lost; the model goes on, on {}", engine.name());
        *lock(&self.shared.engine) = Arc::new(engine);
        Ok(())
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// What the model computes.
    pub fn program(&self) -> &Program {
        &self.shared.program
    }

    /// The most tokens that a session holds.
    pub fn context(&self) -> u32 {
        self.engine().cache().limits().context_tokens
    }

    /// How large the model is, and of what kind.
    pub fn facts(&self) -> &Facts {
        &self.shared.facts
    }

    /// What memory the model takes.
    pub fn memory(&self) -> MemoryPlan {
        let engine = self.engine();
        MemoryPlan {
            weight_bytes: self.shared.facts.weight_bytes,
            packed_bytes: engine.packed_bytes(),
            cache_bytes: engine.cache().bytes(self.shared.options.cache_format),
        }
    }

    /// The bytes of weights that are read for each generated token.
    pub fn token_bytes(&self) -> u64 {
        self.program().token_weight_bytes()
    }

    /// Threads of the CPU that compute; on a GPU, the one that hands it its work.
    pub fn threads(&self) -> usize {
        self.engine().threads()
    }

    /// The GPUs that compute.
    pub fn gpus(&self) -> Vec<Gpu> {
        self.engine().gpus().cloned().collect()
    }

    /// Which device computes what, and the memory that it takes.
    pub fn plan(&self) -> Plan {
        self.engine().plan().clone()
    }

    /// An empty session.
    pub fn session(&self) -> Session {
        let engine = self.engine();
        let state = State { sequence: engine.cache().sequence(), engine, tokens: vec![], interrupted: None };
        Session { model: self.clone(), state: Some(state) }
    }

    /// Runs the tokens that are not in the cache yet, and returns the logits behind the last one.
    fn advance(&self, state: &mut State, watch: impl Fn(usize) -> bool) -> Result<Option<Vec<f32>>> {
        if !self.advance_to_last(state, watch)? {
            return Ok(None);
        }
        let tokens = &state.tokens[state.sequence.len() as usize..];
        let outputs = &[tokens.len().saturating_sub(1)];
        state.engine.run(Batch { tokens, outputs, texts: &[] }, &mut state.sequence).map(Some)
    }

    /// Runs the tokens that are not in the cache yet, but for the last ones, of which as many are left as run at once.
    /// `watch` is told how many are left, and says whether to go on; so does the result.
    fn advance_to_last(&self, state: &mut State, watch: impl Fn(usize) -> bool) -> Result<bool> {
        let chunk = state.engine.chunk_tokens().min(CHUNK_TOKENS);
        while let Some((tokens, _)) = state.tokens[state.sequence.len() as usize..].split_at_checked(chunk)
            && state.sequence.len() as usize + chunk < state.tokens.len()
        {
            if !watch(state.left()) {
                return Ok(false);
            }
            state.engine.run(Batch { tokens, outputs: &[], texts: &[] }, &mut state.sequence)?;
        }
        Ok(watch(state.left()))
    }
}

/// One sequence of tokens, and what the model remembers of it.
#[derive(Debug)]
pub struct Session {
    model: Model,
    /// Lent to a reply while it runs.
    state: Option<State>,
}

/// The tokens of a session, of which the sequence has those that have been run: all but perhaps the last few.
#[derive(Debug)]
struct State {
    /// What the sequence's pages are on.
    engine: Arc<Engine>,
    sequence: Sequence,
    tokens: Vec<u32>,
    /// A reply that was cut short by the loss of a GPU, or the end of the context.
    interrupted: Option<Interrupted>,
}

impl State {
    /// Goes over to what computes now, where nothing has been run yet.
    fn renew(&mut self, model: &Model) {
        let engine = model.engine();
        if !Arc::ptr_eq(&engine, &self.engine) {
            self.sequence = engine.cache().sequence();
            self.engine = engine;
        }
    }

    /// How many tokens have not been run.
    fn left(&self) -> usize {
        self.tokens.len() - self.sequence.len() as usize
    }

    /// Goes back to the first so many tokens. Where a window has moved on, those that are kept will be run again.
    fn truncate(&mut self, tokens: usize) -> Result<()> {
        let kept = u32::try_from(tokens).unwrap_or(u32::MAX);
        if kept < self.sequence.len() {
            match self.sequence.truncate(kept) {
                Err(Error::Evicted { .. }) => self.sequence.truncate(0)?,
                result => result?,
            }
        }
        self.tokens.truncate(tokens);
        Ok(())
    }

    /// Whether there is enough behind the first `keep` tokens to forget half of it.
    fn can_shift(&self, keep: usize) -> bool {
        self.tokens.len() > keep + 1
    }

    /// Forgets the older half of the tokens behind the first `keep`. What is left behind those will be run again.
    fn shift(&mut self, keep: usize) -> Result<()> {
        let rest = self.tokens.split_off(keep + (self.tokens.len() - keep).div_ceil(2));
        self.truncate(keep)?;
        self.tokens.extend(rest);
        Ok(())
    }

    /// Runs something, and once more if a GPU was lost and the model is to go on without being asked.
    fn run<T>(&mut self, model: &Model, mut run: impl FnMut(&mut State) -> Result<T>) -> Result<T> {
        self.renew(model);
        match (run(self), model.shared.options.recover) {
            (Err(Error::GpuLost { .. }), Some(how)) => {
                model.recover(&self.engine, how)?;
                self.renew(model);
                run(self)
            }
            (result, _) => result,
        }
    }
}

/// A place in a session to come back to.
#[derive(Debug)]
pub struct Checkpoint {
    session: Session,
}

impl Checkpoint {
    /// The tokens of then.
    pub fn tokens(&self) -> &[u32] {
        self.session.tokens()
    }
}

/// How to generate.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Generate {
    /// The most tokens to generate; without a limit, until the model ends or the context is full.
    pub max_tokens: Option<usize>,
    /// Texts that end the reply, and are not part of it.
    pub stop: Vec<String>,
    /// How tokens are chosen.
    pub sampler: SamplerOptions,
    /// Where the choice starts from; equal seeds give equal replies.
    pub seed: u64,
    /// Go on when the model says that it is done.
    pub ignore_end: bool,
    /// What the reply has to conform to.
    #[cfg(feature = "grammar")]
    pub grammar: Option<Grammar>,
    /// Control tokens that are part of the text, by their names; others are not.
    pub shown: Vec<u32>,
    /// What to do when the context is full: without a number, the reply ends in [`Error::ContextFull`]; with one, that
    /// many tokens at the beginning are kept, the older half of the others is forgotten, and what is left is run again.
    pub shift: Option<usize>,
}

impl Generate {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`Generate::max_tokens`].
    #[must_use]
    pub fn max_tokens(mut self, count: usize) -> Self {
        self.max_tokens = Some(count);
        self
    }

    /// Adds to [`Generate::stop`].
    #[must_use]
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }

    /// Sets [`Generate::sampler`].
    #[must_use]
    pub fn sampler(mut self, options: SamplerOptions) -> Self {
        self.sampler = options;
        self
    }

    /// Always the likeliest token.
    #[must_use]
    pub fn greedy(self) -> Self {
        self.sampler(SamplerOptions::greedy())
    }

    /// Sets [`Generate::seed`].
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets [`Generate::ignore_end`].
    #[must_use]
    pub fn ignore_end(mut self, yes: bool) -> Self {
        self.ignore_end = yes;
        self
    }

    /// Adds to [`Generate::shown`].
    #[must_use]
    pub fn show(mut self, token: u32) -> Self {
        self.shown.push(token);
        self
    }

    /// Sets [`Generate::shift`].
    #[must_use]
    pub fn shift(mut self, keep_tokens: usize) -> Self {
        self.shift = Some(keep_tokens);
        self
    }

    /// The sampler for a model's vocabulary.
    fn make_sampler(&self, model: &Model) -> Result<Sampler> {
        let (tokenizer, vocabulary) = (model.tokenizer(), model.program().vocabulary);
        let mut options = self.sampler.clone();
        options = options.suppress(tokenizer.special().suppressed.iter().copied());
        let breakers = if options.dry_multiplier == 0.0 {
            vec![]
        } else {
            let encode = |bytes: &[u8]| tokenizer.encode_bytes(bytes, Encode::default());
            dry_breakers(&options.dry_breakers, vocabulary, |token| tokenizer.piece(token), encode)
        };
        Sampler::with_breakers(&options, vocabulary, self.seed, breakers)
    }
}

impl Session {
    /// Continues a text. The first text of a session gets the tokens in front that the model expects there; control
    /// tokens in the text are text.
    pub fn generate(&mut self, text: &str) -> Result<Reply<'_>> {
        self.generate_with(text, Generate::default())
    }

    /// The same, with a choice of how.
    pub fn generate_with(&mut self, text: &str, how: Generate) -> Result<Reply<'_>> {
        let first = self.state()?.tokens.is_empty();
        let tokens = self.model.tokenizer().encode(text, Encode::default().add_special(first));
        self.generate_tokens(&tokens, how)
    }

    /// Continues tokens.
    pub fn generate_tokens(&mut self, tokens: &[u32], how: Generate) -> Result<Reply<'_>> {
        let (sampler, form) = (how.make_sampler(&self.model)?, Form::new(&how, &self.model)?);
        self.append(tokens)?;
        let Some(state) = self.state.take() else { return Err(lost()) };
        let running = Running::start(&self.model, state, Interrupted::new(sampler, form, how), Cancel::default())?;
        Ok(Reply::new(&mut self.state, running))
    }

    /// Goes on with a reply that ended because a GPU was lost: on GPUs that are opened anew, or on the CPU, as
    /// [`LoadOptions::recover`] says. The text is that which would have followed.
    ///
    /// # Errors
    /// [`Error::Model`] if the last reply was not interrupted in this way, and what loading the model again may end in.
    pub fn resume(&mut self) -> Result<Reply<'_>> {
        let running = self.resume_running()?;
        Ok(Reply::new(&mut self.state, running))
    }

    /// The same, for whoever takes the session's tokens back.
    pub(crate) fn resume_running(&mut self) -> Result<Running> {
        let model = self.model.clone();
        let Some(state) = &mut self.state else { return Err(lost()) };
        if !state.interrupted.as_ref().is_some_and(|interrupted| interrupted.lost_gpu) {
            let (found, expected) = ("nothing to go on with".into(), "a reply that the loss of a GPU has ended".into());
            return Err(Error::Model { subject: "session".into(), found, expected });
        }
        model.recover(&state.engine, model.shared.options.recover.unwrap_or(Recover::Reopen))?;
        state.renew(&model);
        let (Some(interrupted), Some(state)) = (state.interrupted.take(), self.state.take()) else {
            return Err(lost());
        };
        Running::start(&model, state, interrupted, Cancel::default())
    }

    /// Runs tokens and chooses none: the logits behind the last, one for each token of the vocabulary. For those who
    /// choose by themselves, or only want to know how likely something is.
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let held = self.tokens().len();
        self.append(tokens)?;
        let Some(state) = &mut self.state else { return Err(lost()) };
        let model = &self.model;
        let logits = state.run(model, |state| model.advance(state, |_| true));
        // What was added and not run is not held.
        state.tokens.truncate(held.max(state.sequence.len() as usize));
        Ok(logits?.unwrap_or_default())
    }

    /// Holds more tokens, the last of which is not run yet: logits come of running one. If all have been run and none
    /// is added, the last will be run again.
    fn append(&mut self, tokens: &[u32]) -> Result<()> {
        let (vocabulary, limit) = (self.model.program().vocabulary, self.model.context());
        if self.model.program().purpose == Purpose::Embed {
            let (found, expected) = ("one that embeds texts".into(), "one that generates them".into());
            return Err(Error::Model { subject: "model".into(), found, expected });
        }
        let Some(state) = &mut self.state else { return Err(lost()) };
        state.interrupted = None;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::Model {
                subject: "token".into(),
                found: token.to_string(),
                expected: format!("an id below {vocabulary}"),
            });
        }
        let held = state.tokens.len();
        if held + tokens.len() == 0 {
            let (found, expected) = ("no tokens".into(), "a text, or a session that holds one".into());
            return Err(Error::Model { subject: "prompt".into(), found, expected });
        }
        if held + tokens.len() > limit as usize {
            let asked_tokens = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
            return Err(Error::ContextFull { used_tokens: held as u32, asked_tokens, limit_tokens: limit });
        }
        if tokens.is_empty() && state.sequence.len() as usize == held {
            state.sequence.truncate(state.sequence.len() - 1)?;
        }
        state.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// The tokens so far, those of replies included.
    pub fn tokens(&self) -> &[u32] {
        self.state.as_ref().map_or(&[], |state| &state.tokens)
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Another session that goes on from the same tokens. What they share is kept once.
    pub fn fork(&self) -> Result<Session> {
        let state = self.state()?;
        let (engine, sequence) = (state.engine.clone(), state.sequence.fork());
        let forked = State { engine, sequence, tokens: state.tokens.clone(), interrupted: None };
        Ok(Session { model: self.model.clone(), state: Some(forked) })
    }

    /// Goes back to the first so many tokens. Where a sliding window, or a recurrent state, does not reach back so far, they
    /// stay, and are run again when the session is used next.
    pub fn truncate(&mut self, tokens: usize) -> Result<()> {
        let Some(state) = &mut self.state else { return Err(lost()) };
        state.interrupted = None;
        state.truncate(tokens)
    }

    /// A place to come back to with [`rollback`](Self::rollback), as often as one likes. It holds the memory of what it
    /// remembers, as a fork does.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        Ok(Checkpoint { session: self.fork()? })
    }

    /// Goes back to a place: the tokens are those of then, and none of them has to be run again.
    ///
    /// # Errors
    /// [`Error::Model`] if the place is one of another model.
    pub fn rollback(&mut self, to: &Checkpoint) -> Result<()> {
        if !Arc::ptr_eq(&self.model.shared, &to.session.model.shared) {
            let (found, expected) = ("one of another model".into(), "one of this session, or a fork of it".into());
            return Err(Error::Model { subject: "checkpoint".into(), found, expected });
        }
        *self = to.session.fork()?;
        Ok(())
    }

    fn state(&self) -> Result<&State> {
        self.state.as_ref().ok_or_else(lost)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The error of a session whose reply never came to an end.
fn lost() -> Error {
    Error::Model {
        subject: "session".into(),
        found: "its tokens lost with a reply that was leaked or panicked".into(),
        expected: "replies that are dropped; start a new session".into(),
    }
}
