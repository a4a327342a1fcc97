//! The device: which adapter is chosen, what is asked of it, and what of that it really has.

use super::ledger::Ledger;
use super::readback::Pauses;
use super::report::{Report, TierState};
use super::room::BUDGET_PERCENT;
use super::selfcheck::{Spoil, Verdicts};
use super::shader::experiments_allowed;
use super::tiers::{TIERS, Tier, Tiers};
use crate::{Error, Result};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{self, BoxFuture, Either};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How a device is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct GpuOptions {
    /// Part of the name of the adapter to use, in any case. Without it the best one is taken: discrete before
    /// integrated, and one that the processor emulates last.
    pub name: Option<String>,
    /// Whether adapters that the processor emulates are no choice.
    pub no_emulation: bool,
    /// Tiers not to use, though the device has them.
    pub without: Tiers,
    /// Whether to use units that multiply matrices, which wgpu has for experiments: a driver may not bear it.
    pub matrices: bool,
    /// Whether shaders keep the checks of array bounds and loops that safe ones have. Slower; for tests.
    pub checked: bool,
    /// The largest binding to use, if the device allows more.
    pub binding_bytes: Option<u64>,
    /// What is to go wrong in the self-check of a tier, or of plain WebGPU; for tests.
    #[doc(hidden)]
    pub spoil: Vec<(Option<Tier>, Spoil)>,
}

/// A GPU that is open. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Gpu {
    shared: Arc<Shared>,
}

struct Shared {
    /// What the device is of: some questions only it can be asked.
    adapter: wgpu::Adapter,
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    /// Whether kiln has opened the device; if not, an application draws with it, too.
    is_own: bool,
    tiers: Tiers,
    /// Why those and no others.
    states: Vec<(Tier, TierState)>,
    checked: bool,
    binding_bytes: u64,
    lost: Lost,
    ledger: Mutex<Ledger>,
}

/// Comes to its end when the device does, with what the driver says. Many can wait for it.
type Lost = future::Shared<BoxFuture<'static, String>>;

/// What an application that opens a device by itself should ask for, so that kiln can use it well.
#[derive(Debug, Clone)]
pub struct Requirements {
    /// Features, as many of them as the adapter has.
    pub features: wgpu::Features,
    /// Limits, as high as the adapter goes.
    pub limits: wgpu::Limits,
}

impl Gpu {
    /// Opens a device, and tries what it offers: see [`Gpu::report`].
    ///
    /// The first time in a process, this takes as long as the driver needs to compile a dozen small shaders.
    ///
    /// # Errors
    /// [`Error::Gpu`] if there is no such device, or if it does not compute correctly even in plain WebGPU;
    /// [`Error::GpuMemory`] if there is no room at all; [`Error::GpuLost`] if it is gone.
    pub async fn open(options: &GpuOptions) -> Result<Gpu> {
        let best = choose(&adapters().await, options)?.swap_remove(0);
        Self::open_adapter(&best, options).await
    }

    /// Opens the GPUs that are of the same kind as the best: all discrete ones, or if there are none all others. Those
    /// that cannot be opened are left out.
    ///
    /// # Errors
    /// As [`Gpu::open`], if none can be opened.
    pub async fn open_all(options: &GpuOptions) -> Result<Vec<Gpu>> {
        let (mut gpus, mut first_error) = (vec![], None);
        for adapter in choose(&adapters().await, options)? {
            match Self::open_adapter(&adapter, options).await {
                Ok(gpu) => gpus.push(gpu),
                Err(error) => {
                    log::warn!("{} is left out: {error}", adapter.get_info().name);
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.filter(|_| gpus.is_empty()).map_or(Ok(gpus), Err)
    }

    async fn open_adapter(adapter: &wgpu::Adapter, options: &GpuOptions) -> Result<Gpu> {
        let mut verdicts = Verdicts::default();
        loop {
            let (device, queue) = request(adapter, options).await?;
            // Without this handler wgpu panics. Errors that matter are caught where they arise.
            device.on_uncaptured_error(Arc::new(|error| log::error!("GPU: {error}")));
            let gpu = Self::of(adapter, device, queue, options, true);
            match gpu.tried(adapter, options, &mut verdicts).await {
                Err(Error::GpuLost { .. }) if verdicts.can_go_on() => {}
                result => return result,
            }
        }
    }

    /// Uses a device that the application has opened, with what [`Gpu::requirements`] names or less, and tries what it
    /// offers as [`Gpu::open`] does.
    ///
    /// The callback for the loss of the device, of which wgpu keeps one, becomes kiln's: an application that wants to
    /// know asks [`Gpu::check`]. kiln never waits within a poll of this device, which would make the application wait
    /// for kiln's work: it asks whether that is done, pauses, and asks again. Each time it calls the callbacks that are
    /// due, the application's among them, as every poll does.
    ///
    /// # Errors
    /// As [`Gpu::open`]. If a tier makes the device go away while it is tried, kiln does not use that tier on the next
    /// device that is made of the same adapter.
    pub async fn from_wgpu(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Result<Gpu> {
        let options = GpuOptions::default();
        let gpu = Self::of(adapter, device, queue, &options, false);
        gpu.tried(adapter, &options, &mut Verdicts::default()).await
    }

    /// What to ask an adapter for.
    pub fn requirements(adapter: &wgpu::Adapter) -> Requirements {
        let wanted = wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16 | wgpu::Features::TIMESTAMP_QUERY;
        Requirements { features: adapter.features() & wanted, limits: adapter.limits() }
    }

    /// A device that is trusted with nothing beyond plain WebGPU.
    fn of(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: &GpuOptions,
        is_own: bool,
    ) -> Gpu {
        let (adapter, info) = (adapter.clone(), adapter.get_info());
        let lost = listen(&device);
        let binding_bytes = options.binding_bytes.unwrap_or(MOST_BINDING_BYTES).min(binding_limit(&device.limits()));
        let (tiers, states, checked, ledger) = (Tiers::NONE, vec![], options.checked, Mutex::default());
        Gpu {
            shared: Arc::new(Shared {
                adapter,
                device,
                queue,
                info,
                is_own,
                tiers,
                states,
                checked,
                binding_bytes,
                lost,
                ledger,
            }),
        }
    }

    /// The same device, with tiers that it turns out to be good for.
    async fn tried(self, adapter: &wgpu::Adapter, options: &GpuOptions, verdicts: &mut Verdicts) -> Result<Gpu> {
        let had = Tiers::of(self.device(), self.info(), &adapter.cooperative_matrix_properties());
        verdicts.complete(&self, had.without(options.without), &options.spoil).await?;
        let state = |tier| match verdicts.reason_against(tier) {
            _ if !had.has(tier) => TierState::NotOffered,
            _ if options.without.has(tier) => TierState::TurnedOff,
            Some(reason) => TierState::Dropped(reason.into()),
            None => TierState::On,
        };
        let gpu = self.with(verdicts.trusted(), TIERS.map(|tier| (tier, state(tier))).into());
        let info = gpu.info();
        log::info!("GPU {} ({:?}, {:?}): {}", info.name, info.backend, info.device_type, gpu.tiers());
        Ok(gpu)
    }

    /// The same device with other tiers, which are to be tried.
    pub(super) fn with_tiers(&self, tiers: Tiers) -> Gpu {
        self.with(tiers, vec![])
    }

    fn with(&self, tiers: Tiers, states: Vec<(Tier, TierState)>) -> Gpu {
        let Shared { adapter, device, queue, info, is_own, checked, binding_bytes, lost, .. } = &*self.shared;
        let shared = Shared {
            adapter: adapter.clone(),
            device: device.clone(),
            queue: queue.clone(),
            info: info.clone(),
            is_own: *is_own,
            tiers,
            states,
            checked: *checked,
            binding_bytes: *binding_bytes,
            lost: lost.clone(),
            ledger: Mutex::default(),
        };
        Gpu { shared: Arc::new(shared) }
    }

    /// What the device is of.
    pub(super) fn adapter(&self) -> &wgpu::Adapter {
        &self.shared.adapter
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.shared.device
    }

    /// Its queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// The adapter's name, driver and kind.
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.shared.info
    }

    /// What this is, which tiers are in use, and why the others are not.
    pub fn report(&self) -> Report {
        Report::new(self, &self.shared.states)
    }

    /// The tiers in use.
    pub fn tiers(&self) -> Tiers {
        self.shared.tiers
    }

    /// Whether a tier is in use.
    pub fn has(&self, tier: Tier) -> bool {
        self.shared.tiers.has(tier)
    }

    /// The lanes of the largest subgroup that the device may run, if subgroups are in use.
    pub fn largest_subgroup(&self) -> Option<u32> {
        self.has(Tier::Subgroups).then_some(self.shared.info.subgroup_max_size.clamp(4, 128))
    }

    /// Whether shaders keep their checks.
    pub fn checked(&self) -> bool {
        self.shared.checked
    }

    /// The most bytes that go into one binding.
    pub fn binding_bytes(&self) -> u64 {
        self.shared.binding_bytes
    }

    /// An error if the device is gone.
    pub fn check(&self) -> Result<()> {
        if self.shared.lost.peek().is_none() {
            // That it was destroyed is told to those who poll.
            self.poll(wgpu::PollType::Poll);
        }
        self.lost().now_or_never().map_or(Ok(()), Err)
    }

    /// Waits until the device is gone.
    async fn lost(&self) -> Error {
        let reason = self.shared.lost.clone().await;
        Error::GpuLost { name: self.shared.info.name.clone(), reason }
    }

    /// What a callback of the device sends; or that it was lost, since it then may never call back.
    pub(super) async fn hear<T>(&self, receiver: oneshot::Receiver<T>) -> Result<T> {
        match future::select(receiver, std::pin::pin!(self.lost())).await {
            Either::Left((Ok(answer), _)) => Ok(answer),
            Either::Left((Err(oneshot::Canceled), _)) => Err(self.blame(Error::Gpu {
                subject: "callback".into(),
                found: "an answer that never came".into(),
                expected: "one".into(),
            })),
            Either::Right((lost, _)) => Err(lost),
        }
    }

    /// An error of something that failed, or that the device is gone if that is why.
    pub(super) fn blame(&self, error: Error) -> Error {
        // Work of an application may go on for ever.
        const LONGEST: Duration = Duration::from_millis(250);
        let mut pauses = Pauses::default();
        while !self.await_work(wgpu::PollType::wait_indefinitely(), &mut pauses) && pauses.total() < LONGEST {}
        match (self.check(), &error) {
            (Err(lost), _) => lost,
            // kiln destroys nothing; who destroys the device, elsewhere and at this moment, destroys its buffers first.
            (Ok(()), Error::Gpu { found, .. }) if found.contains("has been destroyed") => {
                Error::GpuLost { name: self.shared.info.name.clone(), reason: format!("Destroyed: {found}") }
            }
            (Ok(()), _) => error,
        }
    }

    /// Waits for work and lets callbacks be called; on a device of an application, no longer than the next of some
    /// pauses, after which the caller is to try again. Returns whether all that was to be waited for is done for certain.
    pub(super) fn await_work(&self, work: wgpu::PollType, pauses: &mut Pauses) -> bool {
        if self.shared.is_own {
            return self.poll(work);
        }
        let is_done = self.poll(wgpu::PollType::Poll);
        if !is_done {
            pauses.pause();
        }
        is_done
    }

    /// Whether nothing is to be submitted behind work that is not done. Where a processor emulates a GPU, that waits, and an
    /// application that wants to submit or write something meanwhile waits for it, and then once more for its turn.
    pub(super) fn submits_alone(&self) -> bool {
        !self.shared.is_own && self.shared.info.device_type == wgpu::DeviceType::Cpu
    }

    /// Lets callbacks be called. Returns whether that is known to have been the last time that it was of use.
    pub(super) fn poll(&self, how: wgpu::PollType) -> bool {
        // wgpu panics if it finds here that the device is gone. It has told so before, and holds no lock by then.
        let poll = |how| catch_unwind(AssertUnwindSafe(|| self.shared.device.poll(how)));
        let trouble = match poll(how) {
            Ok(Ok(status)) => return status.wait_finished(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it was lost meanwhile".into(),
        };
        log::debug!("waiting for the GPU: {trouble}");
        // A wait that is refused, for work that a lost device never took, calls nobody back. Whoever listens for the loss
        // has to be told all the same.
        _ = poll(wgpu::PollType::Poll);
        true
    }

    /// What was made.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens for the loss of a device.
fn listen(device: &wgpu::Device) -> Lost {
    let (sender, receiver) = oneshot::channel();
    let sender = Mutex::new(Some(sender));
    device.set_device_lost_callback(move |reason, message| {
        if let Some(sender) = sender.lock().unwrap_or_else(PoisonError::into_inner).take() {
            _ = sender.send(if message.is_empty() { format!("{reason:?}") } else { format!("{reason:?}: {message}") });
        }
    });
    let lost = receiver.then(async |reason| match reason {
        Ok(reason) => reason,
        // Somebody else listens in our place.
        Err(oneshot::Canceled) => future::pending().await,
    });
    lost.boxed().shared()
}

/// The most bytes of a binding, with limits as they are.
pub(super) fn binding_limit(limits: &wgpu::Limits) -> u64 {
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(MOST_BINDING_BYTES)
}

/// As much as a binding may hold on any device: more makes offsets in shaders overflow.
const MOST_BINDING_BYTES: u64 = 1 << 30;

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({}, {:?}, {})", self.shared.info.name, self.shared.info.backend, self.shared.tiers)
    }
}

/// All adapters of the machine, but those that only OpenGL reaches.
pub(super) async fn adapters() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    // The default of debug builds asks drivers to validate, and compiles shaders without optimisation.
    descriptor.flags = wgpu::InstanceFlags::empty();
    descriptor.memory_budget_thresholds.for_resource_creation = Some(BUDGET_PERCENT);
    wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::PRIMARY).await
}

/// A device of an adapter.
async fn request(adapter: &wgpu::Adapter, options: &GpuOptions) -> Result<(wgpu::Device, wgpu::Queue)> {
    let Requirements { features, limits } = Gpu::requirements(adapter);
    let matrices = adapter.features() & wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
    let experiments = options.matrices && !matrices.is_empty();
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("kiln"),
        required_features: if experiments { features | matrices } else { features },
        required_limits: limits,
        experimental_features: if experiments { experiments_allowed() } else { Default::default() },
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    };
    adapter.request_device(&descriptor).await.map_err(|error| Error::Gpu {
        subject: format!("adapter `{}`", adapter.get_info().name),
        found: error.to_string(),
        expected: "a device".into(),
    })
}

/// The best adapter of this name, or of all, and others of its kind behind it.
pub(super) fn choose(adapters: &[wgpu::Adapter], options: &GpuOptions) -> Result<Vec<wgpu::Adapter>> {
    let known: Vec<(wgpu::AdapterInfo, bool)> = adapters
        .iter()
        .map(|adapter| (adapter.get_info(), adapter.features().contains(wgpu::Features::SHADER_F16)))
        .collect();
    let best = best_of(&known, options);
    if best.is_empty() {
        let names: Vec<String> = known.iter().map(|(info, _)| format!("`{}`", info.name)).collect();
        return Err(Error::Gpu {
            subject: "adapter".into(),
            found: if names.is_empty() { "none".into() } else { names.join(", ") },
            expected: match &options.name {
                Some(name) => format!("one named like `{name}`"),
                None if options.no_emulation => "a GPU that is not emulated".into(),
                None => "a GPU with a driver".into(),
            },
        });
    }
    Ok(best.into_iter().map(|index| adapters[index].clone()).collect())
}

/// Which of these adapters are asked for, and of the same kind as the best of those, the best first. Each comes with
/// whether it has 16-bit numbers.
fn best_of(adapters: &[(wgpu::AdapterInfo, bool)], options: &GpuOptions) -> Vec<usize> {
    let kind = |info: &wgpu::AdapterInfo| match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => 2,
        wgpu::DeviceType::Cpu => 3,
    };
    let name = options.name.as_ref().map(|name| name.to_lowercase());
    let is_asked_for = |info: &wgpu::AdapterInfo| {
        let is_named = name.as_ref().is_none_or(|name| info.name.to_lowercase().contains(name));
        is_named && !(options.no_emulation && info.device_type == wgpu::DeviceType::Cpu)
    };
    let mut asked_for: Vec<usize> = (0..adapters.len()).filter(|&index| is_asked_for(&adapters[index].0)).collect();
    asked_for.sort_by_key(|&index| (kind(&adapters[index].0), !adapters[index].1));
    let Some((best, _)) = asked_for.first().map(|&index| &adapters[index]) else { return vec![] };
    // A GPU that several backends reach is one GPU.
    asked_for.retain(|&index| {
        let info = &adapters[index].0;
        (kind(info), info.backend) == (kind(best), best.backend)
    });
    asked_for
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::gpu::readback::wait;

    #[test]
    fn gpus_of_the_best_kind_are_chosen_and_each_once() {
        use wgpu::{Backend, DeviceType};
        let adapter = |name: &str, kind, backend| {
            let mut info = wgpu::AdapterInfo::new(kind, backend);
            info.name = name.into();
            (info, kind != DeviceType::IntegratedGpu)
        };
        let all = [
            adapter("Emulated", DeviceType::Cpu, Backend::Vulkan),
            adapter("Little", DeviceType::IntegratedGpu, Backend::Vulkan),
            adapter("Big", DeviceType::DiscreteGpu, Backend::Vulkan),
            adapter("Bigger", DeviceType::DiscreteGpu, Backend::Vulkan),
            adapter("Big", DeviceType::DiscreteGpu, Backend::Dx12),
            adapter("Bigger", DeviceType::DiscreteGpu, Backend::Dx12),
        ];
        let chosen = |name: Option<&str>, no_emulation| {
            let name = name.map(String::from);
            best_of(&all, &GpuOptions { name, no_emulation, ..GpuOptions::default() })
        };
        assert_eq!(chosen(None, true), [2, 3]);
        assert_eq!(chosen(Some("bigger"), false), [3]);
        assert_eq!(chosen(Some("little"), false), [1]);
        assert_eq!(chosen(Some("emu"), false), [0]);
        assert_eq!(chosen(Some("emu"), true), [0; 0]);
    }

    #[test]
    fn a_lost_device_that_never_calls_back_is_not_waited_for() {
        let Ok(gpu) = pollster::block_on(Gpu::open(&GpuOptions::default())) else { return };
        let (_never_sends, receiver) = oneshot::channel::<()>();
        gpu.device().destroy();
        assert!(matches!(wait(&gpu, gpu.hear(receiver)), Err(Error::GpuLost { .. })));
        let (sender, receiver) = oneshot::channel::<()>();
        drop(sender);
        assert!(matches!(wait(&gpu, gpu.hear(receiver)), Err(Error::GpuLost { .. })));
    }
}
