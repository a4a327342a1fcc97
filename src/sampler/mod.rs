//! From logits to the next token: biases, penalties, truncation, temperature, seeded choice.
//!
//! ```
//! use kiln::sampler::{Sampler, SamplerOptions};
//!
//! let options = SamplerOptions::new().temperature(0.7).repeat_penalty(1.1);
//! let mut sampler = Sampler::new(&options, 4, 42)?;
//! let mut logits = [0.5, 3.0, 2.5, f32::NEG_INFINITY]; // one for each token of the vocabulary
//! let token = sampler.sample(&mut logits)?;
//! sampler.accept(token);
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! # The chain
//!
//! The samplers run in llama.cpp's order; each is off, or on, by [`SamplerOptions`]:
//!
//! | step | what it does |
//! |---|---|
//! | logit bias | adds to the logits of single tokens; negative infinity suppresses them |
//! | penalties | lower what stands among the last accepted tokens (repeat, frequency, presence) |
//! | DRY | lowers what would continue a repetition |
//! | top-n-sigma | drops logits too many standard deviations under the largest |
//! | top-k | keeps the `k` likeliest |
//! | typical-p | keeps those of typical surprise |
//! | top-p | keeps the likeliest that make up `p` |
//! | min-p | drops what is much less likely than the likeliest |
//! | XTC | sometimes drops the likeliest |
//! | temperature | sharpens or flattens what is left; may follow the entropy |
//! | choice | draws one number and finds the token by inverse distribution |
//!
//! [`Mirostat`] leaves only logit bias, the plain temperature, its own truncation and the choice; options of the other
//! steps have no effect then. A temperature of 0 or less leaves logit bias, penalties, DRY, and the likeliest token.
//!
//! # What can be relied on
//!
//! - A token whose logit is NaN or negative infinity is never chosen, and counts nowhere. If no other is left,
//!   sampling is an error.
//! - Of tokens that are equally likely, the one of the lower id ranks first.
//! - The same options, seed, accepted tokens and logits give the same token. On another platform too, unless its `ln`
//!   and `powf` round a bound differently (min-p, mirostat, DRY, the moving temperature) and just that decides.
//! - One number is drawn for each choice that is not greedy, and one more before it by XTC if that is on and has more
//!   than one candidate; nothing else draws.
//! - After the first tokens nothing is allocated, as long as the history does not outgrow what it was.
//!
//! # Apart from llama.cpp
//!
//! The candidates that are left are llama.cpp's, to rounding. There, tokens that top-n-sigma dropped can come back
//! through top-k, where they count for `min_keep` and leave typical-p without an entropy; mirostat 1 keeps one token
//! where its estimate is past 2³¹, not all; at temperature 0 typical-p and XTC can still drop the likeliest token, and
//! a temperature range above 0 makes the choice random again.

mod candidates;
mod dry;
mod filters;
mod mirostat;
mod options;
mod penalties;
mod rng;

pub use candidates::Candidate;
pub use dry::dry_breakers;
pub use options::{Mirostat, SamplerOptions};

use crate::error::{Error, Result};
use candidates::Candidates;
use dry::{Breakers, Dry};
use penalties::History;
use rng::Rng;
use std::sync::Arc;

/// Chooses tokens, and remembers what was accepted. A clone continues on its own from the same state, and is cheap: it
/// copies the history that the penalties look at, and nothing the size of the vocabulary.
#[derive(Debug, Clone)]
pub struct Sampler {
    setup: Arc<Setup>,
    seed: u64,
    rng: Rng,
    /// Mirostat's bound on surprise, in bits.
    mu: f32,
    history: History,
    scratch: Scratch,
}

/// How to guess a choice: see [`Sampler::guess`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guess {
    /// How many of the likeliest tokens count.
    pub keep: u32,
    /// What logits are divided by; 0 takes the likeliest.
    pub temperature: f32,
    /// The likeliest that hold so much stay.
    pub top_p: f32,
    /// And those at least so likely, compared with the likeliest.
    pub min_p: f32,
    /// The number that one is drawn with.
    pub uniform: f32,
}

/// What never changes, shared by clones.
#[derive(Debug)]
struct Setup {
    options: SamplerOptions,
    n_vocab: usize,
    /// One for each token, sorted.
    biases: Vec<(u32, f32)>,
    breakers: Breakers,
}

/// Working memory that is kept so that it need not be allocated again. Holds nothing that a clone needs.
#[derive(Debug, Default)]
struct Scratch {
    list: Candidates,
    dry: Dry,
    /// Tokens and what their logits were before they were edited.
    undo: Vec<(u32, f32)>,
    /// Candidates that came from outside, sorted by token.
    given: Vec<(u32, f32)>,
    plain: Vec<f32>,
}

impl Clone for Scratch {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Sampler {
    /// A sampler for a vocabulary of `n_vocab` tokens. Fails if an option is out of its limits.
    ///
    /// Fails too if DRY is on and has breakers: those are texts, so they need [`with_breakers`](Self::with_breakers).
    pub fn new(options: &SamplerOptions, n_vocab: usize, seed: u64) -> Result<Self> {
        if options.has_dry() && !options.dry_breakers.is_empty() {
            let found = format!("{} texts", options.dry_breakers.len());
            return Err(Error::sampler("dry_breakers", found, "token sequences, by `Sampler::with_breakers`, or none"));
        }
        Self::with_breakers(options, n_vocab, seed, Vec::new())
    }

    /// A sampler whose DRY repetitions end at these token sequences, which [`dry_breakers`] makes from texts. The texts
    /// in the options are not looked at.
    pub fn with_breakers(options: &SamplerOptions, n_vocab: usize, seed: u64, breakers: Vec<Vec<u32>>) -> Result<Self> {
        if n_vocab == 0 || u32::try_from(n_vocab).is_err() {
            return Err(Error::sampler("n_vocab", n_vocab.to_string(), format!("1 to {}", u32::MAX)));
        }
        options.check(n_vocab)?;
        if breakers.iter().any(Vec::is_empty) {
            return Err(Error::sampler("breakers", "an empty sequence", "sequences of at least one token"));
        }
        let mut biases = options.logit_bias.clone();
        biases.sort_by_key(|&(token, _)| token);
        biases.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            kept.1 += if same { later.1 } else { 0.0 };
            same
        });
        let history = History::new(options);
        let setup = Setup { options: options.clone(), n_vocab, biases, breakers: Breakers::new(breakers) };
        let mu = 2.0 * options.mirostat_tau;
        Ok(Self { setup: Arc::new(setup), seed, rng: Rng::new(seed), mu, history, scratch: Scratch::default() })
    }

    /// What it was made with.
    pub fn options(&self) -> &SamplerOptions {
        &self.setup.options
    }

    /// Remembers a token: one that was chosen, or one of the prompt that penalties shall know of.
    pub fn accept(&mut self, token: u32) {
        self.history.accept(token);
    }

    /// Back to the beginning: no history, and the same numbers from the seed again.
    pub fn reset(&mut self) {
        self.history.clear();
        self.rng = Rng::new(self.seed);
        self.mu = 2.0 * self.setup.options.mirostat_tau;
        self.scratch.list.clear();
    }

    /// Chooses a token from the logits of the whole vocabulary. Does not [`accept`](Self::accept) it.
    ///
    /// The logits are changed in place where biases and penalties say so, and changed back before this returns.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32> {
        if logits.len() != self.setup.n_vocab {
            let expected = format!("{}, one for each token of the vocabulary", self.setup.n_vocab);
            return Err(Error::sampler("logits", logits.len().to_string(), expected));
        }
        let mut undo = std::mem::take(&mut self.scratch.undo);
        self.edit(&mut Vocabulary { logits, undo: &mut undo });
        self.gather(logits);
        for (token, logit) in undo.drain(..).rev() {
            if let Some(place) = logits.get_mut(token as usize) {
                *place = logit;
            }
        }
        self.scratch.undo = undo;
        self.choose()
    }

    /// Chooses from tokens that somebody else has cut to the likeliest, such as the GPU, in any order. `logits` are
    /// those of `tokens`, before biases and penalties. Does not [`accept`](Self::accept) the token.
    ///
    /// Gives what [`sample`](Self::sample) gives on the whole vocabulary, if the list is as long as
    /// [`candidates_wanted`](Self::candidates_wanted) asks for.
    pub fn sample_candidates(&mut self, tokens: &[u32], logits: &[f32]) -> Result<u32> {
        if tokens.len() != logits.len() {
            return Err(Error::sampler("candidates", format!("{} logits", logits.len()), tokens.len().to_string()));
        }
        let mut given = std::mem::take(&mut self.scratch.given);
        given.clear();
        given.extend(tokens.iter().copied().zip(logits.iter().copied()));
        let result = self.sample_given(&mut given);
        self.scratch.given = given;
        result
    }

    fn sample_given(&mut self, given: &mut [(u32, f32)]) -> Result<u32> {
        given.sort_unstable_by_key(|&(token, _)| token);
        if let Some(&[(token, _), _]) = given.windows(2).find(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
            return Err(Error::sampler("candidates", format!("token {token} twice"), "each token once"));
        }
        if let Some(&(token, _)) = given.last().filter(|(token, _)| *token as usize >= self.setup.n_vocab) {
            let expected = format!("tokens below {}", self.setup.n_vocab);
            return Err(Error::sampler("candidates", format!("token {token}"), expected));
        }
        self.edit(given);
        self.gather_given(given);
        self.choose()
    }

    /// How many of the likeliest tokens, by their logits before biases and penalties,
    /// [`sample_candidates`](Self::sample_candidates) needs for an exact choice. `None`: all of the vocabulary, because
    /// the options want to see all, or because they may raise the logits of tokens that are not among the likeliest.
    ///
    /// Changes with the history: each token that may be lowered could make room for one more.
    pub fn candidates_wanted(&self) -> Option<usize> {
        let Setup { options, n_vocab, biases, .. } = &*self.setup;
        let k = if options.is_greedy() { 1 } else { options.top_k };
        let sees_all = !options.is_greedy() && (options.mirostat != Mirostat::Off || options.has_sigma());
        let raises = options.has_penalties()
            && (options.repeat_penalty < 1.0 || options.frequency_penalty < 0.0 || options.presence_penalty < 0.0);
        if k == 0 || sees_all || raises || biases.iter().any(|&(_, bias)| bias > 0.0) {
            return None;
        }
        let repeated = if options.has_dry() { self.history.tokens().len().min(options.dry_last_n) } else { 0 };
        let lowered = biases.len() + self.history.counts().len() + repeated;
        Some(k.saturating_add(lowered).min(*n_vocab))
    }

    /// How to guess the next choice, without its history: what somebody needs to know who wants to go on before the
    /// choice is made. `None` if it goes by more than top-k, top-p, min-p and the temperature; what suppresses tokens
    /// does not count.
    pub fn guess(&self) -> Option<Guess> {
        self.guess_with(&mut self.rng.clone())
    }

    /// The same for the choice after the next one.
    pub fn guess_after(&self) -> Option<Guess> {
        let mut rng = self.rng.clone();
        if !self.setup.options.is_greedy() {
            rng.uniform();
        }
        self.guess_with(&mut rng)
    }

    fn guess_with(&self, rng: &mut Rng) -> Option<Guess> {
        let options = &self.setup.options;
        let SamplerOptions { temperature, top_p, min_p, .. } = *options;
        if options.has_penalties() || options.has_dry() {
            return None;
        }
        if options.is_greedy() {
            return Some(Guess { keep: 1, temperature: 0.0, top_p: 1.0, min_p: 0.0, uniform: 0.0 });
        }
        let is_plain = options.mirostat == Mirostat::Off
            && !options.has_sigma()
            && options.typical_p >= 1.0
            && options.xtc_probability <= 0.0
            && options.temperature_range <= 0.0
            && options.min_keep <= 1;
        let keep = u32::try_from(options.top_k).unwrap_or(u32::MAX);
        is_plain.then(|| Guess { keep, temperature, top_p, min_p, uniform: rng.uniform() as f32 })
    }

    /// The tokens that the last choice was made from, with the probabilities it was made by. The likeliest are first if
    /// top-k, top-p, min-p or mirostat was on; otherwise they are in no order. A greedy choice has one.
    ///
    /// Empty before the first choice and in a fresh clone.
    pub fn candidates(&self) -> &[Candidate] {
        self.scratch.list.as_slice()
    }

    /// Biases, penalties and DRY: the steps that change single logits.
    fn edit(&mut self, logits: &mut (impl Logits + ?Sized)) {
        let Setup { options, biases, breakers, .. } = &*self.setup;
        for &(token, bias) in biases {
            logits.edit(token, |logit| logit + bias);
        }
        if options.has_penalties() {
            for &(token, count) in self.history.counts() {
                logits.edit(token, |logit| penalties::penalized(logit, count, options));
            }
        }
        if options.has_dry() {
            for (token, cost) in self.scratch.dry.costs(self.history.tokens(), breakers, options) {
                logits.edit(token, |logit| logit - cost);
            }
        }
    }

    /// Top-n-sigma and top-k: from the edited logits of the vocabulary to the list.
    fn gather(&mut self, logits: &[f32]) {
        let options = &self.setup.options;
        let list = &mut self.scratch.list;
        if options.is_greedy() {
            return list.gather_best(logits);
        }
        let mut floor = f32::NEG_INFINITY;
        if options.has_sigma() {
            floor = filters::sigma_floor(logits, options.top_n_sigma);
        }
        if options.min_p_narrows_first() {
            list.gather_best(logits);
            floor = floor.max(filters::min_p_floor(list, options.min_p));
        }
        if options.mirostat == Mirostat::Off && options.top_k > 0 {
            list.gather(logits, options.top_k, floor);
            list.sort_front(options.top_k);
        } else {
            list.gather(logits, usize::MAX, floor);
        }
    }

    /// The same from edited candidates.
    fn gather_given(&mut self, given: &[(u32, f32)]) {
        let Scratch { list, plain, .. } = &mut self.scratch;
        let options = &self.setup.options;
        list.clear();
        let mut floor = f32::NEG_INFINITY;
        if options.has_sigma() && !options.is_greedy() {
            plain.clear();
            plain.extend(given.iter().map(|&(_, logit)| logit));
            floor = filters::sigma_floor(plain, options.top_n_sigma);
        }
        given.iter().filter(|(_, logit)| *logit >= floor).for_each(|&(token, logit)| list.push(token, logit));
        if options.is_greedy() {
            list.keep_front(1);
        } else if options.mirostat == Mirostat::Off && options.top_k > 0 {
            list.keep_front(options.top_k);
        }
    }

    /// The rest of the chain: from the list to a token.
    fn choose(&mut self) -> Result<u32> {
        let Setup { options, n_vocab, .. } = &*self.setup;
        let list = &mut self.scratch.list;
        let chosen = if options.is_greedy() {
            list.softmax();
            list.as_slice().first().copied()
        } else if options.mirostat != Mirostat::Off {
            list.scale(options.temperature);
            mirostat::draw(list, options, *n_vocab, &mut self.mu, &mut self.rng)
        } else {
            filters::typical_p(list, options.typical_p, options.min_keep);
            filters::top_p(list, options.top_p, options.min_keep);
            filters::min_p(list, options.min_p, options.min_keep);
            filters::xtc(list, options.xtc_probability, options.xtc_threshold, options.min_keep, &mut self.rng);
            let (range, exponent) = (options.temperature_range, options.temperature_exponent);
            filters::temperature(list, options.temperature, range, exponent);
            list.draw(self.rng.uniform())
        };
        chosen.map(|candidate| candidate.token).ok_or_else(|| {
            Error::sampler("logits", "no token above negative infinity", "at least one that may be chosen")
        })
    }
}

/// Logits in which those of single tokens can be changed.
trait Logits {
    /// Changes the logit of a token, if it is there.
    fn edit(&mut self, token: u32, change: impl FnOnce(f32) -> f32);
}

/// The logits of the whole vocabulary, and how to change them back, in order.
struct Vocabulary<'a> {
    logits: &'a mut [f32],
    undo: &'a mut Vec<(u32, f32)>,
}

impl Logits for Vocabulary<'_> {
    fn edit(&mut self, token: u32, change: impl FnOnce(f32) -> f32) {
        if let Some(logit) = self.logits.get_mut(token as usize) {
            self.undo.push((token, *logit));
            *logit = change(*logit);
        }
    }
}

/// Some tokens and their logits, sorted by token.
impl Logits for [(u32, f32)] {
    fn edit(&mut self, token: u32, change: impl FnOnce(f32) -> f32) {
        let found = self.binary_search_by_key(&token, |&(token, _)| token);
        if let Some((_, logit)) = found.ok().and_then(|i| self.get_mut(i)) {
            *logit = change(*logit);
        }
    }
}
