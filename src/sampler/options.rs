//! What an application may ask of the sampler, with its defaults and its limits.
//!
//! Each option is written once, in the table below: the macro makes the field, the setter and the default of it. The
//! defaults are llama.cpp's, so that a number people know from there means the same here.

use crate::error::{Error, Result};

/// Which surprise-steering sampler stands in for the truncation samplers, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mirostat {
    /// The chain of truncation samplers.
    #[default]
    Off,
    /// Mirostat: estimates how the vocabulary's probabilities fall off, and sets top-k from that.
    V1,
    /// Mirostat 2: leaves out the tokens that are more surprising than the current bound.
    V2,
}

macro_rules! options {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr,)+) => {
        /// How the next token is chosen. Public fields, a setter of the same name for each, and llama.cpp's defaults.
        ///
        /// ```
        /// use kiln::sampler::{Sampler, SamplerOptions};
        ///
        /// let options = SamplerOptions::new().temperature(0.7).top_k(20).repeat_penalty(1.1);
        /// let mut sampler = Sampler::new(&options, 32_000, 42)?;
        /// # Ok::<(), kiln::Error>(())
        /// ```
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub struct SamplerOptions {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        impl Default for SamplerOptions {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl SamplerOptions {
            $($(#[doc = $doc])+ #[must_use] pub fn $name(mut self, $name: $type) -> Self {
                self.$name = $name;
                self
            })+
        }
    };
}

options! {
    /// Divides the logits before the choice: less than 1 sharpens, more flattens. At 0 or less the choice is greedy:
    /// the likeliest token after biases and penalties, whatever the samplers after those say.
    temperature: f32 = 0.8,
    /// How far the temperature moves to either side of [`temperature`](Self::temperature), from certain to undecided
    /// distributions. 0: it does not move.
    temperature_range: f32 = 0.0,
    /// The exponent that bends the way from the distribution's entropy to the temperature within its range.
    temperature_exponent: f32 = 1.0,
    /// Keeps the `k` likeliest tokens. 0: all of them.
    top_k: usize = 40,
    /// Keeps the likeliest tokens whose probabilities first add up to `p`. 1: all of them.
    top_p: f32 = 0.95,
    /// Keeps the tokens at least `p` times as likely as the likeliest. 0: all of them.
    min_p: f32 = 0.05,
    /// Keeps the tokens whose surprise is nearest to the expected one, until they hold more than `p` of the
    /// probability. 1: all of them.
    typical_p: f32 = 1.0,
    /// Keeps the tokens whose logits are within this many standard deviations of the largest. 0 or less: all of them.
    top_n_sigma: f32 = -1.0,
    /// How often the likeliest choices are excluded (XTC), as a probability. 0: never.
    xtc_probability: f32 = 0.0,
    /// XTC removes all tokens of at least this probability but the last of them. Above 0.5: none.
    xtc_threshold: f32 = 0.1,
    /// The fewest tokens that typical-p, top-p, min-p and XTC leave to choose from.
    min_keep: usize = 0,
    /// Over how many of the last accepted tokens repetition is penalized. 0: no penalties; `usize::MAX`: all of them.
    repeat_last_n: usize = 64,
    /// Divides the positive logits of tokens seen in the window, and multiplies the others. 1: leaves them alone.
    repeat_penalty: f32 = 1.0,
    /// Subtracted from a token's logit for each time it stands in the window.
    frequency_penalty: f32 = 0.0,
    /// Subtracted from the logit of each token in the window, once.
    presence_penalty: f32 = 0.0,
    /// The penalty for a token that continues a repetition of [`dry_allowed_length`](Self::dry_allowed_length) tokens.
    /// 0: no DRY.
    dry_multiplier: f32 = 0.0,
    /// Each further token of a repetition multiplies the penalty by this.
    dry_base: f32 = 1.75,
    /// Shorter repetitions than this many tokens cost nothing.
    dry_allowed_length: usize = 2,
    /// Over how many of the last accepted tokens repetitions are looked for. 0: no DRY; `usize::MAX`: all of them.
    dry_last_n: usize = 64,
    /// The texts that end a repetition. A sampler works on tokens: [`dry_breakers`](crate::sampler::dry_breakers)
    /// turns these into sequences for [`Sampler::with_breakers`](crate::sampler::Sampler::with_breakers).
    dry_breakers: Vec<String> = ["\n", ":", "\"", "*"].map(String::from).to_vec(),
    /// Puts mirostat in the place of penalties, DRY and all truncation; biases and the plain temperature stay.
    mirostat: Mirostat = Mirostat::Off,
    /// The surprise that mirostat steers to, in bits per token.
    mirostat_tau: f32 = 5.0,
    /// How fast mirostat corrects itself.
    mirostat_eta: f32 = 0.1,
    /// Added to the logits of tokens before anything else. `f32::NEG_INFINITY` suppresses a token; several biases of
    /// one token add up.
    logit_bias: Vec<(u32, f32)> = Vec::new(),
}

impl SamplerOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The likeliest token, always.
    pub fn greedy() -> Self {
        Self::default().temperature(0.0)
    }

    /// Adds `bias` to the logit of `token`, besides what other biases say.
    #[must_use]
    pub fn bias(mut self, token: u32, bias: f32) -> Self {
        self.logit_bias.push((token, bias));
        self
    }

    /// Never chooses any of these tokens.
    #[must_use]
    pub fn suppress(mut self, tokens: impl IntoIterator<Item = u32>) -> Self {
        self.logit_bias.extend(tokens.into_iter().map(|token| (token, f32::NEG_INFINITY)));
        self
    }

    /// Whether the choice is the likeliest token, without chance.
    pub fn is_greedy(&self) -> bool {
        self.temperature <= 0.0
    }

    pub(super) fn has_penalties(&self) -> bool {
        self.mirostat == Mirostat::Off
            && self.repeat_last_n > 0
            && (self.repeat_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0)
    }

    pub(super) fn has_dry(&self) -> bool {
        self.mirostat == Mirostat::Off && self.dry_last_n > 0 && self.dry_multiplier > 0.0
    }

    pub(super) fn has_sigma(&self) -> bool {
        self.mirostat == Mirostat::Off && self.top_n_sigma > 0.0
    }

    /// Whether min-p is the first to narrow the choice, so that it can leave tokens out before anybody looks at them.
    pub(super) fn min_p_narrows_first(&self) -> bool {
        let before = self.top_k > 0 || self.typical_p < 1.0 || self.top_p < 1.0;
        self.mirostat == Mirostat::Off && self.min_p > 0.0 && self.min_keep <= 1 && !before
    }

    /// Fails on the first value that is out of its limits.
    pub(super) fn check(&self, n_vocab: usize) -> Result<()> {
        let finite = |_: f32| true;
        let not_negative = |x| x >= 0.0;
        let share = |x| (0.0..=1.0).contains(&x);
        check("temperature", self.temperature, "a finite number", finite)?;
        check("temperature_range", self.temperature_range, "a finite number, at least 0", not_negative)?;
        check("temperature_exponent", self.temperature_exponent, "a finite number, at least 0", not_negative)?;
        check("top_p", self.top_p, "0 to 1", share)?;
        check("min_p", self.min_p, "0 to 1", share)?;
        check("typical_p", self.typical_p, "0 to 1", share)?;
        check("top_n_sigma", self.top_n_sigma, "a finite number", finite)?;
        check("xtc_probability", self.xtc_probability, "0 to 1", share)?;
        check("xtc_threshold", self.xtc_threshold, "0 to 1", share)?;
        let invertible = |x: f32| x > 0.0 && x.recip().is_finite();
        check("repeat_penalty", self.repeat_penalty, "a finite number above 0", invertible)?;
        check("frequency_penalty", self.frequency_penalty, "a finite number", finite)?;
        check("presence_penalty", self.presence_penalty, "a finite number", finite)?;
        check("dry_multiplier", self.dry_multiplier, "a finite number, at least 0", not_negative)?;
        check("dry_base", self.dry_base, "a finite number, at least 1", |x| x >= 1.0)?;
        check("mirostat_tau", self.mirostat_tau, "a finite number, at least 0", not_negative)?;
        check("mirostat_eta", self.mirostat_eta, "a finite number, at least 0", not_negative)?;
        for &(token, bias) in &self.logit_bias {
            if token as usize >= n_vocab {
                return Err(Error::sampler("logit_bias", format!("token {token}"), format!("tokens below {n_vocab}")));
            }
            if bias.is_nan() || bias == f32::INFINITY {
                let found = format!("{bias} for token {token}");
                return Err(Error::sampler("logit_bias", found, "a finite number or negative infinity"));
            }
        }
        Ok(())
    }
}

/// Fails if `value` is not finite or not `good`.
fn check(option: &'static str, value: f32, expected: &str, good: impl Fn(f32) -> bool) -> Result<()> {
    if value.is_finite() && good(value) { Ok(()) } else { Err(Error::sampler(option, value.to_string(), expected)) }
}
