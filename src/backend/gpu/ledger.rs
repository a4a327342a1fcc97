//! The ledger of a device: whatever kiln makes there is entered before it is made.
//!
//! Buffers, groups of bindings and pipelines all come through [`Gpu::make`], which hears what the driver says about
//! them; what is submitted is counted as well. They are made while a model is loaded; a step encodes commands and makes nothing. A test can count that, and can
//! order a [`Fault`] to see that what fails fails well: there is no other way to run out of memory on a software device.
//!
//! Not entered is what wgpu keeps for itself: encoders of commands, and the staging memory of `Queue::write_buffer`, of
//! which a step needs a few kilobytes.

use super::device::Gpu;
use crate::{Error, Result};
use futures::future::join_all;
use wgpu::ErrorFilter;

/// What was made so far, and what is to go wrong.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    made: u64,
    /// Submissions so far.
    submitted: u64,
    /// The submission before which the device is to be lost.
    loss: Option<u64>,
    /// A fault, and how many objects will have been entered when it happens.
    fault: Option<(u64, Fault)>,
}

/// What a test can let happen where an object is made.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is no room for it.
    Memory,
    /// The device is lost.
    Loss,
}

impl Ledger {
    /// Enters an object. Returns the fault that was ordered for it.
    fn enter(&mut self) -> Option<Fault> {
        self.made += 1;
        self.fault.take_if(|(at, _)| *at == self.made).map(|(_, fault)| fault)
    }
}

impl Gpu {
    /// Objects that kiln has made on the device so far, or tried to: buffers, groups of bindings, pipelines.
    pub fn objects_made(&self) -> u64 {
        self.ledger().made
    }

    /// Orders a fault for the `nth` object from now on, in place of one that has not happened yet; for tests.
    #[doc(hidden)]
    pub fn order_fault(&self, nth: u64, fault: Fault) {
        let mut ledger = self.ledger();
        ledger.fault = Some((ledger.made.saturating_add(nth), fault));
    }

    /// Submissions that kiln has made so far.
    #[doc(hidden)]
    pub fn submissions(&self) -> u64 {
        self.ledger().submitted
    }

    /// Orders the loss of the device for the `nth` submission from now on; for tests.
    #[doc(hidden)]
    pub fn order_loss(&self, nth: u64) {
        let mut ledger = self.ledger();
        ledger.loss = Some(ledger.submitted.saturating_add(nth));
    }

    /// Submits commands.
    pub(super) fn submit(&self, commands: Option<wgpu::CommandBuffer>) -> wgpu::SubmissionIndex {
        let is_lost = {
            let mut ledger = self.ledger();
            ledger.submitted += 1;
            ledger.loss == Some(ledger.submitted)
        };
        if is_lost {
            self.device().destroy();
        }
        self.queue().submit(commands)
    }

    /// Makes an object. `bytes` is its size; 0 if only the driver knows.
    ///
    /// # Errors
    /// [`Error::GpuMemory`] if there is no room for it, [`Error::GpuLost`] if the device is gone, and [`Error::Gpu`] with
    /// the driver's word if that refuses it.
    pub(super) async fn make<T>(&self, what: &str, bytes: u64, make: impl FnOnce(&wgpu::Device) -> T) -> Result<T> {
        self.check()?;
        let fault = self.ledger().enter();
        match fault {
            Some(Fault::Memory) => return Err(Error::GpuMemory { what: what.into(), bytes }),
            Some(Fault::Loss) => self.device().destroy(),
            None => {}
        }
        let filters = [ErrorFilter::OutOfMemory, ErrorFilter::Internal, ErrorFilter::Validation];
        let scopes = filters.map(|filter| self.device().push_error_scope(filter));
        let object = make(self.device());
        // The scope that was opened last is closed first.
        let answers: Vec<_> = scopes.into_iter().rev().map(wgpu::ErrorScopeGuard::pop).collect();
        if let Some(error) = join_all(answers).await.into_iter().flatten().next() {
            return Err(match error {
                wgpu::Error::OutOfMemory { .. } => Error::GpuMemory { what: what.into(), bytes },
                error => Error::Gpu {
                    subject: what.into(),
                    found: error.to_string(),
                    expected: "what the device accepts".into(),
                },
            });
        }
        // What a lost device makes is hollow, and no scope says so.
        self.check()?;
        Ok(object)
    }
}
