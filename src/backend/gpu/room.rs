//! Room: how many bytes a device can give at this moment, so that layers are placed where they fit.
//!
//! WebGPU says nothing about it, so whoever knows is asked, in this order:
//!
//! | source | where | what |
//! |---|---|---|
//! | [`RoomSource::Budget`] | Vulkan with `VK_EXT_memory_budget`, DirectX, Metal | what the driver lets this process have, less what it has taken |
//! | [`RoomSource::Heap`] | other Vulkan devices, but emulated ones | the device's memory, less what was taken through this device |
//! | [`RoomSource::Machine`] | other devices in the machine's memory, on Linux and Android | what is free there |
//! | [`RoomSource::Probe`] | everything else: browsers, OpenGL | buffers are made until one is refused, or enough are made |
//!
//! Devices that work in the machine's memory never have more than is free there, whatever their drivers say. And of
//! emulated ones, which are among them, nothing but a budget is believed: the heap that their drivers name is no truth
//! (Mesa names 2 GiB and gives any number). Nor are they probed if that can be helped. Mesa grants what is not there, so
//! that no end is found; SwiftShader writes to all that it grants, until the machine is out of memory.
//!
//! On Vulkan one heap counts, the one that wgpu takes memory for buffers from. Others that belong to the device are
//! windows through which the host sees a part of it: nothing of a model goes there.
//!
//! An answer is always given, and it is a guess about the next moment: others take memory too. Who needs the bytes makes
//! the buffers, and hears then.

#![allow(unsafe_code, reason = "handles of drivers, and what they tell, are behind wgpu's unsafe doors")]

use super::device::{Gpu, GpuOptions, adapters, binding_limit, choose};
use super::memory::buffer;
use super::needs::Traits;
use super::readback::wait;
use super::tiers::Tiers;
use crate::{Error, Result};
use wgpu::{BufferUsages, DeviceType};

/// How much of a budget is used, in percent. wgpu refuses buffers beyond that, where it knows the budget: drivers need
/// the rest for themselves, and become slow before they refuse.
pub(super) const BUDGET_PERCENT: u8 = 92;

/// The most that a probe asks for: many drivers grant what they do not have, and to make that true pushes out what other
/// programs have there.
const MOST_PROBED_BYTES: u64 = 4 << 30;
/// The same of an emulated device, which may write to all of it: a gigabyte takes seconds.
const MOST_EMULATED_BYTES: u64 = 1 << 30;
/// The largest buffer of a probe: few are enough to reach its end.
const LARGEST_STEP_BYTES: u64 = 1 << 30;
/// The smallest one: no layer hangs on less.
const SMALLEST_STEP_BYTES: u64 = 16 << 20;

/// What a device has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All that the device has, as far as its driver or the machine tells; what is free, if neither does.
    pub total_bytes: u64,
    /// What it can give now; never more than `total_bytes`.
    pub free_bytes: u64,
    /// Who says so.
    pub source: RoomSource,
}

/// Where a [`Room`] is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoomSource {
    /// The driver's budget for this process, at this moment.
    Budget,
    /// The size of the device's memory. What other programs have taken of it is not known.
    Heap,
    /// The machine's free memory, which the device shares; its driver says nothing, or more.
    Machine,
    /// Buffers that were made for a moment: so much was granted, and there may be more.
    Probe,
    /// Nobody. The bytes are those of the largest buffer that the device allows, or none if it is gone.
    Unknown,
}

impl Room {
    /// What is left of a budget, in a memory of this size.
    fn of_budget(total_bytes: u64, budget: Budget, source: RoomSource) -> Room {
        let usable_bytes = budget.bytes.min(total_bytes) / 100 * u64::from(BUDGET_PERCENT);
        Room { total_bytes, free_bytes: usable_bytes.saturating_sub(budget.used_bytes), source }
    }

    /// The same in a machine that has only so much.
    fn within(self, machine: Option<Room>) -> Room {
        match machine {
            Some(machine) if machine.free_bytes < self.free_bytes => {
                Room { free_bytes: machine.free_bytes, source: RoomSource::Machine, ..self }
            }
            _ => self,
        }
    }
}

impl Gpu {
    /// How much memory the device can give now.
    ///
    /// Where no driver tells, this makes buffers and frees them, so it is best asked before a model is loaded and not while
    /// one runs.
    pub async fn room(&self) -> Room {
        if let Err(error) = self.check() {
            return self.unknown_room(&error);
        }
        let kind = self.info().device_type;
        let taken_bytes = self.device().generate_allocator_report().map_or(0, |report| report.total_reserved_bytes);
        let room = match told_room(self.adapter(), taken_bytes) {
            Some(room) => room,
            None if kind == DeviceType::Cpu => self.probed_room(MOST_EMULATED_BYTES).await,
            None => self.probed_room(MOST_PROBED_BYTES).await,
        };
        log::debug!("room on {}: {room:?}", self.info().name);
        room
    }

    /// The same by trying alone, for no more than so much; for tests.
    #[doc(hidden)]
    pub async fn probed_room(&self, most_bytes: u64) -> Room {
        match probe(self, most_bytes).await {
            Ok(bytes) => Room { total_bytes: bytes, free_bytes: bytes, source: RoomSource::Probe },
            Err(error) => self.unknown_room(&error),
        }
    }

    /// The same as one sees of a GPU that is not open, for callers that are not asynchronous.
    ///
    /// # Errors
    /// [`Error::GpuLost`] if it is gone.
    pub fn sight(&self) -> Result<Sight> {
        let room = wait(self, self.room());
        self.check()?;
        Ok(Sight { name: self.info().name.clone(), traits: Traits::of(self), room })
    }

    fn unknown_room(&self, error: &Error) -> Room {
        log::warn!("room on {}: {error}", self.info().name);
        let is_lost = matches!(error, Error::GpuLost { .. });
        let bytes = if is_lost { 0 } else { self.device().limits().max_buffer_size };
        Room { total_bytes: bytes, free_bytes: bytes, source: RoomSource::Unknown }
    }
}

/// A GPU that was found, opened or not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sight {
    /// Its name.
    pub name: String,
    /// What needs depend on; if it is not open, supposing that all that it offers turns out well.
    pub traits: Traits,
    /// What it can give now.
    pub room: Room,
}

impl Sight {
    /// Looks for the GPU that [`Gpu::open`] would open. This takes no more than asking drivers what there is.
    pub async fn find(options: &GpuOptions) -> Result<Sight> {
        Ok(Self::of(&choose(&adapters().await, options)?.swap_remove(0), options))
    }

    /// Looks for the GPUs that [`Gpu::open_all`] would open.
    pub async fn find_all(options: &GpuOptions) -> Result<Vec<Sight>> {
        Ok(choose(&adapters().await, options)?.iter().map(|adapter| Self::of(adapter, options)).collect())
    }

    fn of(adapter: &wgpu::Adapter, options: &GpuOptions) -> Sight {
        let (info, limits) = (adapter.get_info(), adapter.limits());
        let bytes = limits.max_buffer_size;
        let unknown = Room { total_bytes: bytes, free_bytes: bytes, source: RoomSource::Unknown };
        let binding_bytes = options.binding_bytes.unwrap_or(u64::MAX).min(binding_limit(&limits));
        let traits = Traits { binding_bytes, integers: Tiers::multiplies_bytes(&info) };
        Sight { name: info.name, traits, room: told_room(adapter, 0).unwrap_or(unknown) }
    }
}

/// What the driver and the machine say about an adapter through which so much was taken.
fn told_room(adapter: &wgpu::Adapter, taken_bytes: u64) -> Option<Room> {
    let kind = adapter.get_info().device_type;
    let shares = matches!(kind, DeviceType::Cpu | DeviceType::IntegratedGpu);
    let machine = shares.then(machine).flatten();
    let told = memory(adapter).and_then(|memory| memory.room(kind, taken_bytes));
    told.map(|told| told.within(machine)).or(machine)
}

/// What a driver lets a process have, and what that has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Budget {
    bytes: u64,
    used_bytes: u64,
}

/// What a driver says about its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    total_bytes: u64,
    budget: Option<Budget>,
}

impl Memory {
    /// The room, if that is to be believed.
    fn room(&self, kind: DeviceType, taken_bytes: u64) -> Option<Room> {
        // Some drivers know of budgets, but not of theirs.
        if let Some(budget) = self.budget.filter(|budget| budget.bytes > 0) {
            return Some(Room::of_budget(self.total_bytes, budget, RoomSource::Budget));
        }
        let all = Budget { bytes: self.total_bytes, used_bytes: taken_bytes };
        let is_true = kind != DeviceType::Cpu && self.total_bytes > 0;
        is_true.then(|| Room::of_budget(self.total_bytes, all, RoomSource::Heap))
    }
}

/// What the driver of an adapter says, where there is a way to ask.
fn memory(adapter: &wgpu::Adapter) -> Option<Memory> {
    match adapter.get_info().backend {
        #[cfg(any(windows, target_os = "linux", target_os = "android"))]
        wgpu::Backend::Vulkan => vulkan(adapter),
        #[cfg(windows)]
        wgpu::Backend::Dx12 => dx12(adapter),
        #[cfg(target_vendor = "apple")]
        wgpu::Backend::Metal => metal(adapter),
        _ => None,
    }
}

#[cfg(any(windows, target_os = "linux", target_os = "android"))]
fn vulkan(adapter: &wgpu::Adapter) -> Option<Memory> {
    use ash::{ext, khr, vk};
    // SAFETY: nothing behind the handle is destroyed, or outlives it.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let (shared, device) = (adapter.shared_instance(), adapter.raw_physical_device());
    let instance = shared.raw_instance();
    // SAFETY: the device is one of the instance's, and both live as long as the adapter.
    let offered = unsafe { instance.enumerate_device_extension_properties(device) }.unwrap_or_default();
    // Asked here and not of wgpu, which denies it for a driver that miscounts what is imported: nothing is here.
    let has_budget = shared.extensions().contains(&khr::get_physical_device_properties2::NAME)
        && offered.iter().any(|offered| offered.extension_name_as_c_str() == Ok(ext::memory_budget::NAME));
    let mut budgets = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let heaps = if has_budget {
        let mut both = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budgets);
        let extended = khr::get_physical_device_properties2::Instance::new(shared.entry(), instance);
        // SAFETY: as above; the extensions of the instance and of the device that this needs are there.
        unsafe { extended.get_physical_device_memory_properties2(device, &mut both) };
        both.memory_properties
    } else {
        // SAFETY: as above.
        unsafe { instance.get_physical_device_memory_properties(device) }
    };
    // The first type that is fit for buffers on the device is the one that wgpu takes.
    let unfit = vk::MemoryPropertyFlags::LAZILY_ALLOCATED | vk::MemoryPropertyFlags::PROTECTED;
    let mut types = heaps.memory_types.iter().take(heaps.memory_type_count as usize).map(|kind| {
        let is_fit = kind.property_flags.contains(vk::MemoryPropertyFlags::DEVICE_LOCAL);
        (kind.heap_index as usize, is_fit && !kind.property_flags.intersects(unfit))
    });
    let (heap, _) = types.find(|(_, is_fit)| *is_fit)?;
    let budget = Budget { bytes: *budgets.heap_budget.get(heap)?, used_bytes: *budgets.heap_usage.get(heap)? };
    Some(Memory { total_bytes: heaps.memory_heaps.get(heap)?.size, budget: has_budget.then_some(budget) })
}

#[cfg(windows)]
fn dx12(adapter: &wgpu::Adapter) -> Option<Memory> {
    // SAFETY: nothing behind the handle is destroyed, or outlives it.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() }?;
    // The default of a group of segments is 0, the local one: where the device is fastest.
    let info = adapter.raw_adapter().query_video_memory_info(Default::default()).ok()?;
    let budget = Budget { bytes: info.Budget, used_bytes: info.CurrentUsage };
    Some(Memory { total_bytes: info.Budget, budget: Some(budget) })
}

#[cfg(target_vendor = "apple")]
fn metal(adapter: &wgpu::Adapter) -> Option<Memory> {
    use objc2_metal::MTLDevice;
    // SAFETY: nothing behind the handle is destroyed, or outlives it.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Metal>() }?;
    let device = adapter.raw_device();
    let bytes = device.recommendedMaxWorkingSetSize();
    let budget = Budget { bytes, used_bytes: device.currentAllocatedSize() as u64 };
    Some(Memory { total_bytes: bytes, budget: Some(budget) })
}

/// Makes buffers until there is no room, or so many bytes are there: large ones first, and when one is refused only
/// smaller ones, each half as large as the last. Returns the bytes.
async fn probe(gpu: &Gpu, most_bytes: u64) -> Result<u64> {
    let largest_bytes = gpu.binding_bytes().clamp(SMALLEST_STEP_BYTES, LARGEST_STEP_BYTES);
    let (mut step_bytes, mut granted_bytes) = (1 << largest_bytes.ilog2(), 0);
    let (mut buffers, mut is_full) = (vec![], false);
    let mut failed = Ok(());
    while step_bytes >= SMALLEST_STEP_BYTES {
        if granted_bytes + step_bytes > most_bytes {
            step_bytes /= 2;
            continue;
        }
        match buffer(gpu, "probe for room", step_bytes, BufferUsages::STORAGE).await {
            Ok(buffer) => {
                granted_bytes += step_bytes;
                buffers.push(buffer);
            }
            // The first may be refused for its size: some drivers give less at once than wgpu says.
            Err(Error::GpuMemory { .. }) if buffers.is_empty() => step_bytes /= 2,
            Err(Error::GpuMemory { .. }) => is_full = true,
            Err(error) => {
                failed = Err(error);
                break;
            }
        }
        if is_full {
            step_bytes /= 2;
        }
    }
    // Not left to the collector of a browser.
    buffers.iter().for_each(wgpu::Buffer::destroy);
    drop(buffers);
    gpu.poll(wgpu::PollType::Poll);
    failed.map(|()| granted_bytes)
}

/// The memory of this machine, where that is easily known.
fn machine() -> Option<Room> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return of_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    return None;
}

/// What the text of `/proc/meminfo` says: a line for each value, as `MemAvailable:   123 kB`.
#[cfg(any(target_os = "linux", target_os = "android", test))]
fn of_meminfo(text: &str) -> Option<Room> {
    let bytes_of = |name: &str| {
        let mut words = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.split_whitespace();
        let (number, unit) = (words.next()?.parse::<u64>().ok()?, words.next()?);
        (unit == "kB").then(|| number.checked_mul(1024)).flatten()
    };
    // What programs can have without pushing out what others use.
    let free = Budget { bytes: bytes_of("MemAvailable")?, used_bytes: 0 };
    Some(Room::of_budget(bytes_of("MemTotal")?, free, RoomSource::Machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn memory(gib: u64, budget: Option<(u64, u64)>) -> Memory {
        let budget = budget.map(|(bytes, used)| Budget { bytes: bytes * GIB, used_bytes: used * GIB });
        Memory { total_bytes: gib * GIB, budget }
    }

    #[test]
    fn of_a_budget_what_is_used_is_taken_off() {
        let room = memory(100, Some((50, 6))).room(DeviceType::DiscreteGpu, 0).unwrap();
        assert_eq!((room.total_bytes, room.source), (100 * GIB, RoomSource::Budget));
        assert!((39 * GIB..=40 * GIB).contains(&room.free_bytes), "{room:?}");
        // Emulated devices that have one are believed.
        assert_eq!(memory(100, Some((50, 6))).room(DeviceType::Cpu, 0), Some(room));
    }

    #[test]
    fn budgets_that_cannot_be_are_bounded() {
        let room = |memory: Memory| memory.room(DeviceType::DiscreteGpu, 0).unwrap();
        assert_eq!(room(memory(8, Some((4, 9)))).free_bytes, 0);
        assert!(room(memory(8, Some((99, 0)))).free_bytes < 8 * GIB);
        let all = Memory { total_bytes: u64::MAX, budget: Some(Budget { bytes: u64::MAX, used_bytes: u64::MAX }) };
        assert_eq!(room(all).free_bytes, 0);
        let empty = room(memory(8, Some((0, 0))));
        assert_eq!(empty.source, RoomSource::Heap);
    }

    #[test]
    fn a_heap_counts_less_what_was_taken_and_not_if_it_is_emulated() {
        let room = memory(8, None).room(DeviceType::DiscreteGpu, GIB).unwrap();
        assert_eq!(room.source, RoomSource::Heap);
        assert!((6 * GIB..7 * GIB).contains(&room.free_bytes), "{room:?}");
        assert_eq!(memory(8, None).room(DeviceType::Cpu, GIB), None);
        assert_eq!(memory(0, None).room(DeviceType::DiscreteGpu, GIB), None);
    }

    #[test]
    fn the_machine_bounds_what_the_driver_says() {
        let room = memory(16, None).room(DeviceType::IntegratedGpu, 0).unwrap();
        let machine = |free_bytes| Room { total_bytes: 32 * GIB, free_bytes, source: RoomSource::Machine };
        assert_eq!(room.within(None), room);
        assert_eq!(room.within(Some(machine(15 * GIB))), room);
        assert_eq!(room.within(Some(machine(GIB))), Room { total_bytes: 16 * GIB, ..machine(GIB) });
    }

    #[test]
    fn drivers_are_asked() {
        let mut options = crate::backend::gpu::GpuOptions::default();
        for name in ["llvmpipe", "SwiftShader"] {
            options.name = Some(name.into());
            let Ok(gpu) = pollster::block_on(Gpu::open(&options)) else { continue };
            // Both name a heap, and new ones have budgets.
            let memory = super::memory(gpu.adapter()).unwrap();
            println!("{gpu:?}: {memory:?}");
            assert!(memory.total_bytes >= GIB, "{gpu:?}: {memory:?}");
            assert!(memory.budget.is_none_or(|budget| budget.bytes <= memory.total_bytes), "{gpu:?}: {memory:?}");
        }
    }

    #[test]
    fn texts_of_meminfo_are_read_or_refused() {
        let text = "MemTotal:       2000 kB\nMemFree:  9 kB\nMemAvailable:   1000 kB\nBuffers: 0 kB\n";
        let room = of_meminfo(text).unwrap();
        assert_eq!((room.total_bytes, room.source), (2_048_000, RoomSource::Machine));
        assert!((900_000..1_024_000).contains(&room.free_bytes), "{room:?}");
        let more = of_meminfo(&text.replace("1000", "3000")).unwrap();
        assert!(more.free_bytes > room.free_bytes && more.free_bytes <= more.total_bytes, "{more:?}");
        let huge = u64::MAX.to_string();
        for (from, to) in [("kB", "MB"), ("1000", "x"), ("1000 kB", ""), ("1000", &huge), ("MemAvailable", "Mem")] {
            assert_eq!(of_meminfo(&text.replace(from, to)), None, "{to}");
        }
        assert_eq!(of_meminfo(""), None);
    }
}
