//! Which token comes next: computed, and chosen.
//!
//! On a GPU, where the sampler wants to see only the likeliest tokens, one step is always ahead: it begins with the
//! token that the device expects to be chosen, while the host still waits to choose. If the choice is another, that step
//! is forgotten.

use super::form::Form;
use super::{Model, State};
use crate::Result;
use crate::backend::candidates::{Draw, Input, Wanted};
use crate::backend::gpu::Ticket;
use crate::sampler::{Guess, Sampler};

/// What is on its way for one reply.
#[derive(Debug, Default)]
pub(super) struct Next {
    /// The step that begins with the last token.
    ahead: Option<Ticket>,
}

impl Next {
    /// Chooses the token behind those of a state. `None` if it was cancelled: `watch` is told how many tokens are still to be run,
    /// and says whether to go on. `more` says whether another may follow.
    pub fn token(
        &mut self,
        model: &Model,
        state: &mut State,
        (sampler, form): (&mut Sampler, &Form),
        watch: impl Fn(usize) -> bool,
        more: bool,
    ) -> Result<Option<u32>> {
        let engine = state.engine.clone();
        // A token that a grammar allows may be none of the likeliest.
        let wanted = sampler.candidates_wanted().filter(|_| form.is_free());
        let Some(candidates) = engine.candidates(wanted) else {
            self.forget(state)?;
            let Some(mut logits) = model.advance(state, watch)? else { return Ok(None) };
            form.restrict(&mut logits)?;
            return sampler.sample(&mut logits).map(Some);
        };
        let before = state.sequence.len();
        let result = self.step(model, state, sampler, watch, candidates, more);
        if result.is_err() {
            self.forget(state)?;
            // What was computed is in doubt; if it cannot be taken back alone, all of it will be computed anew.
            state.sequence.truncate(before).or_else(|_| state.sequence.truncate(0))?;
        }
        result
    }

    fn step(
        &mut self,
        model: &Model,
        state: &mut State,
        sampler: &mut Sampler,
        watch: impl Fn(usize) -> bool,
        candidates: u32,
        more: bool,
    ) -> Result<Option<u32>> {
        let engine = state.engine.clone();
        let guess = sampler.guess();
        let wanted = Wanted { candidates, draw: guess.and_then(draw) };
        let ticket = match self.ahead.take() {
            // What it began with was chosen, and is held now.
            Some(ticket) => {
                state.sequence.commit(1)?;
                ticket
            }
            None => {
                if !model.advance_to_last(state, watch)? {
                    return Ok(None);
                }
                let rest = &state.tokens[state.sequence.len() as usize..];
                let count = rest.len() as u32;
                let ticket = engine.begin(Input::Tokens(rest), wanted, &mut state.sequence)?;
                state.sequence.commit(count)?;
                ticket
            }
        };
        if more && guess.is_some() && state.sequence.len() < model.context() && engine.is_short() {
            // What is drawn behind it is drawn with the number after this one.
            let following = Wanted { draw: sampler.guess_after().and_then(draw), ..wanted };
            self.ahead = Some(engine.begin(Input::Guess(&ticket), following, &mut state.sequence)?);
        }
        let choice = engine.finish(ticket)?;
        let token = sampler.sample_candidates(&choice.tokens, &choice.logits)?;
        if token != choice.guess {
            self.forget(state)?;
        }
        Ok(Some(token))
    }

    /// Gives up what is ahead.
    pub fn forget(&mut self, state: &mut State) -> Result<()> {
        match self.ahead.take() {
            Some(ticket) => {
                state.engine.forget(ticket);
                state.sequence.truncate(state.sequence.len())
            }
            None => Ok(()),
        }
    }
}

/// How the device draws what a sampler would choose; the likeliest needs no drawing.
fn draw(guess: Guess) -> Option<Draw> {
    let Guess { keep, temperature, top_p, min_p, uniform } = guess;
    (temperature > 0.0).then_some(Draw { keep, temperature, top_p, min_p, uniform })
}
