//! Sessions of conversations, which say what tokens they hold and take them back themselves when a reply has ended.

use super::form::Form;
use super::reply::{Cancel, Interrupted, Running};
use super::{Generate, Session, lost};
use crate::Result;
use crate::error::Error;

impl Session {
    /// Holds these tokens in place of what it held; what both begin with is not run again. Returns how many that are.
    pub(crate) fn set_tokens(&mut self, tokens: &[u32]) -> Result<usize> {
        let same = self.tokens().iter().zip(tokens).take_while(|(held, new)| held == new).count();
        let limit = self.model.context();
        if tokens.len() > limit as usize {
            let asked_tokens = u32::try_from(tokens.len() - same).unwrap_or(u32::MAX);
            return Err(Error::ContextFull { used_tokens: same as u32, asked_tokens, limit_tokens: limit });
        }
        self.truncate(same)?;
        self.append(&tokens[same..])?;
        Ok(same)
    }

    /// Starts a generation behind the tokens it holds. They are gone until [`take_back`](Self::take_back). If it outlives the
    /// context, [`run_on`](Self::run_on) goes on with it when that is full.
    pub(crate) fn run(&mut self, how: Generate, outlives_context: bool) -> Result<Running> {
        let (sampler, form) = (how.make_sampler(&self.model)?, Form::new(&how, &self.model)?);
        let Some(state) = self.state.take() else { return Err(lost()) };
        let mut course = Interrupted::new(sampler, form, how);
        course.outlives_context = outlives_context;
        Running::start(&self.model, state, course, Cancel::default())
    }

    /// Takes back what a generation was lent, when it has ended.
    pub(crate) fn take_back(&mut self, running: &mut Running) -> Result<()> {
        self.state = Some(running.end().ok_or_else(lost)??);
        Ok(())
    }

    /// Goes on with a generation whose context was full, behind other tokens; what cancelled it still does.
    pub(crate) fn run_on(&mut self, tokens: &[u32], cancel: Cancel) -> Result<Running> {
        let interrupted = self.state.as_mut().and_then(|state| state.interrupted.take()).ok_or_else(lost)?;
        self.set_tokens(tokens)?;
        let Some(state) = self.state.take() else { return Err(lost()) };
        Running::start(&self.model, state, interrupted, cancel)
    }
}
