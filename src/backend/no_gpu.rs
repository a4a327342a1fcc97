//! In place of the GPU backend, in builds without the feature `gpu`: what the scheduler and sessions name of it, of
//! types that have no values. To ask for a GPU is an error, and whatever would run on one is compiled to nothing.

#![allow(missing_docs, reason = "each is what it is in the module that this one stands in for")]

use super::batch::{Batch, Positions};
use super::candidates::{Choice, Input, Wanted};
use super::needs::Needs;
use super::weights::Loading;
use crate::cache::{Cache, Held, PageCopy, PageId, Sequence};
use crate::gguf::Gguf;
use crate::options::CacheFormat;
use crate::program::{Program, Segment};
use crate::{Error, Result};
use std::convert::Infallible as Never;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Gpu(Never);

#[derive(Debug)]
pub struct GpuExecutor(Never);

#[derive(Debug)]
pub struct Ticket(Never);

#[derive(Debug)]
pub struct Arrival(Never);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits(Never);

#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct GpuOptions {
    pub name: Option<String>,
    pub no_emulation: bool,
}

#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct GpuExecutorOptions {
    pub submit_budget: Duration,
    pub loading: Option<Arc<Loading>>,
}

#[derive(Debug)]
pub struct Sight {
    pub name: String,
    pub traits: Traits,
    pub room: Room,
}

#[derive(Debug)]
pub struct Room {
    pub free_bytes: u64,
}

pub fn open(options: &GpuOptions, _all: bool) -> Result<Vec<Gpu>> {
    Err(none(options))
}

pub fn look(options: &GpuOptions, _all: bool) -> Result<Vec<Sight>> {
    Err(none(options))
}

pub fn wait<T>(gpu: &Gpu, _: impl Future<Output = T>) -> T {
    match gpu.0 {}
}

fn none(options: &GpuOptions) -> Error {
    Error::Gpu {
        subject: options.name.as_ref().map_or("adapter".into(), |name| format!("adapter `{name}`")),
        found: "a build of kiln for the CPU alone".into(),
        expected: "one with the feature `gpu`".into(),
    }
}

impl Gpu {
    pub fn check(&self) -> Result<()> {
        match self.0 {}
    }

    pub fn sight(&self) -> Result<Sight> {
        match self.0 {}
    }
}

impl Traits {
    pub fn needs(&self, _: &Program, _: &[Segment], _: &Cache, _: CacheFormat, _: u32) -> Result<Needs> {
        match self.0 {}
    }
}

impl Ticket {
    pub fn wait(self, _: &Gpu) -> Result<(Choice, Arrival)> {
        match self.0 {}
    }
}

impl GpuExecutor {
    pub async fn of_segments(
        gpu: &Gpu,
        _: Arc<Gguf>,
        _: Program,
        _: Vec<Segment>,
        _: &Cache,
        _: CacheFormat,
        _: GpuExecutorOptions,
    ) -> Result<Self> {
        match gpu.0 {}
    }

    pub fn weight_bytes(&self) -> u64 {
        match self.0 {}
    }

    pub fn most_candidates(&self) -> u32 {
        match self.0 {}
    }

    pub fn most_outputs(&self) -> usize {
        match self.0 {}
    }

    pub fn chunk_tokens(&self) -> u32 {
        match self.0 {}
    }

    pub fn is_short(&self) -> bool {
        match self.0 {}
    }

    pub async fn begin(&mut self, _: Input<'_>, _: Wanted, _: &mut Sequence) -> Result<Ticket> {
        match self.0 {}
    }

    pub fn forget(&mut self, _: Ticket) {
        match self.0 {}
    }

    pub fn end(&mut self, _: Arrival) {
        match self.0 {}
    }

    pub fn copy_pages(&self, _: &[PageCopy]) {
        match self.0 {}
    }

    pub async fn read(&self, _: Held, _: &[PageId]) -> Result<Vec<u8>> {
        match self.0 {}
    }

    pub fn write(&self, _: Held, _: &[PageId], _: &[u8]) {
        match self.0 {}
    }

    pub fn bytes_of(&self, _: Held) -> u64 {
        match self.0 {}
    }

    pub async fn run_segment(
        &mut self,
        _: usize,
        _: Batch<'_>,
        _: Positions<'_>,
        _: (bool, &[Arc<Vec<f32>>]),
    ) -> Result<Vec<Vec<f32>>> {
        match self.0 {}
    }
}
