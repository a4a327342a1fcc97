//! The self-check: a tier is trusted after the device has computed with it what the CPU computes.
//!
//! When a device is opened, kernels are tried (see [`trials`](super::trials)): first in plain WebGPU, without which there
//! is nothing to fall back to, then with each tier that is offered, on top of those that are trusted by then. A tier that
//! gives wrong numbers, shaders that do not compile, or a device that is lost, is dropped with a warning and not used.
//!
//! A driver gives the same answers all the time, so they are kept as long as the process lives, by adapter, driver, and
//! the tiers that were tried together: opening a device again takes no time. There are neither threads nor clocks here,
//! and what the device computes is awaited, so that this runs in a browser too.

use super::device::Gpu;
use super::ledger::Fault;
use super::memory::{buffer, filled};
use super::readback::read_polling;
use super::record::{Draft, Pipelines, Recording, Size};
use super::tiers::{TIERS, Tier, Tiers};
use super::trials::{TOKENS, Trial, trials};
use crate::{Error, Result};
use futures::lock::Mutex;
use std::collections::HashMap;
use std::sync::LazyLock;

/// What is known of the tiers of a device.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// Plain WebGPU works.
    is_usable: bool,
    /// Tiers that work.
    trusted: Tiers,
    /// Tiers that do not, and why.
    dropped: Vec<(Tier, String)>,
}

/// What a test can let happen when a tier is tried.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoil {
    /// What it computes is wrong.
    Numbers,
    /// Its shaders do not compile.
    Shaders,
    /// The device is lost.
    Device,
}

impl Verdicts {
    /// Tries what has not been tried yet: plain WebGPU, and each of the tiers that are offered.
    ///
    /// # Errors
    /// [`Error::Gpu`] if plain WebGPU does not work, [`Error::GpuMemory`] if there is no room for the check, and
    /// [`Error::GpuLost`] if the device is gone. If that happened while a tier was tried, that tier is dropped, and the
    /// rest can be tried on another device: [`Verdicts::can_go_on`].
    pub async fn complete(&mut self, gpu: &Gpu, offered: Tiers, spoils: &[(Option<Tier>, Spoil)]) -> Result<()> {
        let spoil = |tier| spoils.iter().find(|spoil| spoil.0 == tier).map(|spoil| spoil.1);
        if !self.is_usable {
            if let Some(reason) = verdict(gpu, None, spoil(None)).await? {
                return Err(Error::Gpu {
                    subject: format!("driver of `{}`", gpu.info().name),
                    found: reason,
                    expected: "a driver that computes correctly".into(),
                });
            }
            self.is_usable = true;
        }
        for tier in TIERS.into_iter().filter(|&tier| offered.has(tier)) {
            if self.trusted.has(tier) || self.reason_against(tier).is_some() {
                continue;
            }
            let with_it = gpu.with_tiers(self.trusted.with(tier));
            let verdict = verdict(&with_it, Some(tier), spoil(Some(tier))).await;
            let reason = match &verdict {
                Ok(reason) => reason.clone(),
                Err(error @ Error::GpuLost { .. }) => Some(error.to_string()),
                Err(_) => None,
            };
            if let Some(reason) = reason {
                log::warn!("GPU {} is used without {tier}: {reason}", gpu.info().name);
                self.dropped.push((tier, reason));
            } else {
                self.trusted = self.trusted.with(tier);
            }
            verdict?;
        }
        Ok(())
    }

    /// Whether, if the device was lost, a tier is to blame that is not tried again.
    pub fn can_go_on(&self) -> bool {
        self.is_usable
    }

    /// The tiers to use.
    pub fn trusted(&self) -> Tiers {
        self.trusted
    }

    /// Why a tier was dropped, if it was.
    pub fn reason_against(&self, tier: Tier) -> Option<&str> {
        self.dropped.iter().find(|dropped| dropped.0 == tier).map(|dropped| &dropped.1[..])
    }
}

/// What answers depend on: the adapter and its driver, whether shaders keep their checks, the tiers that were tried.
type Question = (wgpu::AdapterInfo, bool, Tiers);

/// Answers: a reason against the last of the tiers, if there is one. Whoever looks for one waits for those that are being
/// found, so that devices that are opened side by side are not tried twice.
static ANSWERS: LazyLock<Mutex<HashMap<Question, Option<String>>>> = LazyLock::new(Mutex::default);

/// The reason against a tier, or plain WebGPU, if there is one.
async fn verdict(gpu: &Gpu, tier: Option<Tier>, spoil: Option<Spoil>) -> Result<Option<String>> {
    if spoil.is_some() {
        return answer(gpu, tier, spoil).await;
    }
    let question = (gpu.info().clone(), gpu.checked(), gpu.tiers());
    let mut answers = ANSWERS.lock().await;
    if let Some(answer) = answers.get(&question) {
        return Ok(answer.clone());
    }
    let answer = answer(gpu, tier, None).await;
    match &answer {
        Ok(reason) => _ = answers.insert(question, reason.clone()),
        // Not to be tried again when the next device is opened.
        Err(error @ Error::GpuLost { .. }) if tier.is_some() => _ = answers.insert(question, Some(error.to_string())),
        Err(_) => {}
    }
    answer
}

/// The same, found by trying. What the driver refuses is a reason, too.
async fn answer(gpu: &Gpu, tier: Option<Tier>, spoil: Option<Spoil>) -> Result<Option<String>> {
    match attempt(gpu, tier, spoil).await {
        Err(Error::Gpu { subject, found, .. }) => Ok(Some(shortened(&format!("{subject}: {found}")))),
        answer => answer,
    }
}

/// Words of a driver, on one line.
fn shortened(words: &str) -> String {
    const MOST_CHARS: usize = 400;
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{} …", line.split_at(end).0),
        None => line,
    }
}

/// Runs all trials of a tier at once. Returns what is wrong about the first that fails.
async fn attempt(gpu: &Gpu, tier: Option<Tier>, spoil: Option<Spoil>) -> Result<Option<String>> {
    let mut trials = trials(gpu, tier).await?;
    let mut drafts: Vec<Draft> = trials.iter_mut().flat_map(|trial| trial.drafts.drain(..)).collect();
    match spoil {
        // What stands for a constant that is not there is no WGSL.
        Some(Spoil::Shaders) => drafts.iter_mut().for_each(|draft| draft.variant.constants.clear()),
        Some(Spoil::Device) => gpu.order_fault(1, Fault::Loss),
        Some(Spoil::Numbers) | None => {}
    }
    let size = Size { tokens: TOKENS, outputs: 0 };
    let step = filled(gpu, "step of the self-check", bytemuck::cast_slice(&[TOKENS, 0, 0, 0])).await?;
    let recording = Recording::new(gpu, &Pipelines::default(), &step, drafts).await?;
    let mut found = run(gpu, &recording, size, &trials).await?;
    if spoil == Some(Spoil::Numbers) {
        found.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut rest = &found[..];
    for trial in &trials {
        let (own, others) = rest.split_at(result_bytes(trial).min(rest.len()));
        if let Some(fault) = trial.fault(own) {
            return Ok(Some(format!("{}: {fault}", trial.what)));
        }
        rest = others;
    }
    Ok(None)
}

fn result_bytes(trial: &Trial) -> usize {
    trial.results.iter().map(|result| result.size() as usize).sum()
}

/// Runs what was recorded, and returns the results of all trials, one behind the other.
async fn run(gpu: &Gpu, recording: &Recording, size: Size, trials: &[Trial]) -> Result<Vec<u8>> {
    let bytes = trials.iter().map(result_bytes).sum::<usize>() as u64;
    let target = buffer(gpu, "results of the self-check", bytes, wgpu::BufferUsages::MAP_READ).await?;
    let submit = |device: &wgpu::Device| {
        let mut encoder = device.create_command_encoder(&Default::default());
        recording.encode(&mut encoder, 0..recording.len(), size);
        let mut at = 0;
        for result in trials.iter().flat_map(|trial| &trial.results) {
            encoder.copy_buffer_to_buffer(result, 0, &target, at, result.size());
            at += result.size();
        }
        gpu.submit(Some(encoder.finish()));
    };
    gpu.make("dispatches of the self-check", 0, submit).await?;
    read_polling(gpu, &target, bytes).await
}
