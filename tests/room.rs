//! How much memory a device says it has room for: what is plausible there, less when some is taken, and an answer
//! whatever goes wrong while it is looked for.

#![cfg(feature = "gpu")]

mod gpu;

use gpu::gpus;
use kiln::backend::gpu::memory::buffer;
use kiln::backend::gpu::readback::wait;
use kiln::backend::gpu::{Fault, Gpu, GpuOptions, Room, RoomSource, Sight, TierState, wgpu};
use std::collections::HashSet;

const MIB: u64 = 1 << 20;

/// The devices, each once.
fn devices() -> Vec<Gpu> {
    let is_whole = |gpu: &Gpu| gpu.report().tiers.iter().all(|(_, state)| *state != TierState::TurnedOff);
    gpus().into_iter().filter(|gpu| is_whole(gpu) && !gpu.checked()).collect()
}

fn room(gpu: &Gpu) -> Room {
    wait(gpu, gpu.room())
}

fn is_emulated(gpu: &Gpu) -> bool {
    gpu.info().device_type == wgpu::DeviceType::Cpu
}

/// A value of `/proc/meminfo` in bytes; none where there is no such file.
fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().unwrap() * 1024)
}

fn reserved_bytes(gpu: &Gpu) -> u64 {
    gpu.device().generate_allocator_report().map_or(0, |report| report.total_reserved_bytes)
}

#[test]
fn all_devices_of_a_kind_are_found_and_opened() {
    let found = pollster::block_on(Sight::find_all(&GpuOptions::default())).unwrap_or_default();
    let opened = pollster::block_on(Gpu::open_all(&GpuOptions::default())).unwrap_or_default();
    let names: Vec<&String> = opened.iter().map(|gpu| &gpu.info().name).collect();
    assert_eq!(found.iter().map(|sight| &sight.name).collect::<Vec<_>>(), names);
    let kinds: HashSet<_> = opened.iter().map(|gpu| gpu.info().device_type).collect();
    assert!(kinds.len() <= 1, "{opened:?}");
    // What the tests' machines have is all of one kind.
    assert!(names.len() >= devices().len(), "{names:?}");
}

#[test]
fn a_device_has_room_and_no_more_than_there_is() {
    for gpu in devices() {
        let made = gpu.objects_made();
        let start = std::time::Instant::now();
        let room = room(&gpu);
        println!("{gpu:?}: {room:?} in {:?}", start.elapsed());
        assert!(room.free_bytes > 100 * MIB, "{gpu:?}: {room:?}");
        assert!(room.free_bytes <= room.total_bytes, "{gpu:?}: {room:?}");
        assert!(room.source == RoomSource::Probe || gpu.objects_made() == made, "{gpu:?} is probed in vain");
        if is_emulated(&gpu) {
            // What the heap of an emulated device is said to be is no truth, but new drivers have budgets.
            let from_driver = room.source == RoomSource::Budget;
            assert!(
                from_driver || !cfg!(target_os = "linux") || room.source == RoomSource::Machine,
                "{gpu:?}: {room:?}"
            );
            let machine = meminfo("MemTotal:").unwrap_or(u64::MAX);
            assert!(room.total_bytes <= machine, "{gpu:?}: {room:?}");
        } else {
            assert_ne!(room.source, RoomSource::Unknown, "{gpu:?}: {room:?}");
        }
    }
}

#[test]
fn what_is_taken_is_not_free() {
    for gpu in devices() {
        let before = room(&gpu);
        // In parts, since a binding may not hold it.
        let parts: Vec<_> = (0..4)
            .map(|_| {
                let part = wait(&gpu, buffer(&gpu, "part", 64 * MIB, wgpu::BufferUsages::STORAGE)).unwrap();
                gpu.queue().write_buffer(&part, 0, &vec![1; (64 * MIB) as usize]);
                gpu.queue().submit([]);
                part
            })
            .collect();
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let after = room(&gpu);
        println!("{gpu:?}: {before:?}, then {after:?}");
        // Others may have freed memory of the machine meanwhile.
        let others =
            if gpu.info().device_type == wgpu::DeviceType::DiscreteGpu { None } else { meminfo("MemAvailable:") };
        assert!(after.free_bytes <= before.free_bytes.max(others.unwrap_or(0) + 128 * MIB), "{before:?}, {after:?}");
        drop(parts);
    }
}

/// What a probe may take here: some emulated devices write to all of it.
const PROBED_BYTES: u64 = 500 * MIB;

fn probed(gpu: &Gpu) -> Room {
    wait(gpu, gpu.probed_room(PROBED_BYTES))
}

#[test]
fn a_probe_finds_what_it_may_and_keeps_nothing() {
    for gpu in devices() {
        let before = reserved_bytes(&gpu);
        let bytes = PROBED_BYTES / (16 * MIB) * (16 * MIB);
        assert_eq!(probed(&gpu), Room { total_bytes: bytes, free_bytes: bytes, source: RoomSource::Probe }, "{gpu:?}");
        assert_eq!(reserved_bytes(&gpu), before, "{gpu:?}");
    }
}

#[test]
fn a_refusal_while_probing_ends_in_less_room() {
    for gpu in devices() {
        let whole = probed(&gpu);
        for nth in [2, 3] {
            gpu.order_fault(nth, Fault::Memory);
            let room = probed(&gpu);
            assert_eq!(room.source, RoomSource::Probe, "{gpu:?}: {room:?}");
            assert!(room.free_bytes < whole.free_bytes, "{gpu:?}: {room:?}, without a refusal {whole:?}");
            assert!(room.free_bytes >= 100 * MIB, "{gpu:?}: {room:?}");
        }
        // The first may have been too large by itself.
        gpu.order_fault(1, Fault::Memory);
        assert_eq!(probed(&gpu), whole, "{gpu:?}");
    }
}

#[test]
fn a_device_that_is_gone_has_no_room() {
    let none = Room { total_bytes: 0, free_bytes: 0, source: RoomSource::Unknown };
    for gpu in devices() {
        gpu.order_fault(2, Fault::Loss);
        assert_eq!(probed(&gpu), none, "{gpu:?} is lost while it is probed");
        assert_eq!(room(&gpu), none, "{gpu:?} is lost");
    }
}
