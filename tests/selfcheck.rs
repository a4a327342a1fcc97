//! The self-check: tiers are on where the device computes with them what it should, and dropped where it does not.

#![cfg(feature = "gpu")]

mod gpu;
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use gpu::{gpus, nmse, open};
use kiln::backend::gpu::{Gpu, GpuOptions, Spoil, TIERS, Tier, TierState, Tiers};
use kiln::gguf::{Gguf, TensorType};
use kiln::{Device, Error, LoadOptions, Model, Result};
use tiny::{Sizes, Tiny, random};

/// Opens a device that is spoilt, in the way that the other tests open all of it.
fn spoilt(gpu: &Gpu, spoil: Vec<(Option<Tier>, Spoil)>) -> Result<Gpu> {
    let mut options = GpuOptions::default();
    options.name = Some(gpu.info().name.clone());
    options.spoil = spoil;
    pollster::block_on(Gpu::open(&options))
}

/// The devices, each with all that it has.
fn whole() -> Vec<Gpu> {
    let is_whole = |gpu: &Gpu| gpu.report().tiers.iter().all(|(_, state)| *state != TierState::TurnedOff);
    gpus().into_iter().filter(|gpu| is_whole(gpu) && !gpu.checked()).collect()
}

fn has(gpu: &Gpu) -> Vec<Tier> {
    TIERS.into_iter().filter(|&tier| gpu.has(tier)).collect()
}

#[test]
fn what_software_devices_offer_is_on() {
    for gpu in gpus() {
        let report = gpu.report();
        assert_eq!(report.tiers.iter().map(|(tier, _)| *tier).collect::<Vec<_>>(), TIERS);
        for (tier, state) in &report.tiers {
            assert!(!matches!(state, TierState::Dropped(_)), "{report}");
            assert_eq!(gpu.has(*tier), *state == TierState::On, "{report}");
        }
        assert_eq!(report.subgroup_lanes.is_some(), gpu.has(Tier::Subgroups), "{report}");
    }
    for gpu in whole() {
        let features = gpu.device().features();
        let offered = [
            (Tier::Subgroups, features.contains(kiln::backend::gpu::wgpu::Features::SUBGROUP)),
            (Tier::F16, features.contains(kiln::backend::gpu::wgpu::Features::SHADER_F16)),
            (Tier::Dot, true),
        ];
        for (tier, is_offered) in offered {
            assert_eq!(gpu.has(tier), is_offered, "{}", gpu.report());
        }
    }
}

#[test]
fn devices_can_be_opened_in_tasks_that_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&Gpu::open(&GpuOptions::default()));
}

#[test]
fn a_report_is_a_table() {
    let mut options = GpuOptions::default();
    options.without = Tiers::NONE.with(Tier::Dot);
    options.binding_bytes = Some(3 << 20);
    for gpu in open(&options) {
        let report = gpu.report();
        assert_eq!(report, open(&options)[0].report(), "opened twice");
        let table = report.to_string();
        for line in ["packed dot products  turned off by options", "largest binding      3 MiB"] {
            assert!(table.lines().any(|found| found == line), "{table}");
        }
        assert!(table.contains(&gpu.info().name) && table.contains(&gpu.info().driver_info), "{table}");
        assert!(table.lines().all(|line| line.as_bytes()[20] == b' '), "{table}");
        assert_eq!((report.binding_bytes, report.checked), (3 << 20, false));
    }
}

#[test]
fn a_tier_that_fails_is_dropped_and_the_others_stay() {
    for gpu in whole() {
        for tier in has(&gpu) {
            for (spoil, words) in
                [(Spoil::Numbers, "expected"), (Spoil::Shaders, "pipeline of"), (Spoil::Device, "lost")]
            {
                let without = spoilt(&gpu, vec![(Some(tier), spoil)]).unwrap();
                let others: Vec<Tier> = has(&gpu).into_iter().filter(|other| *other != tier).collect();
                assert_eq!(has(&without), others, "{spoil:?}: {}", without.report());
                let report = without.report();
                let state = &report.tiers.iter().find(|state| state.0 == tier).unwrap().1;
                let TierState::Dropped(reason) = state else { panic!("{report}") };
                assert!(reason.contains(words) && !reason.contains('\n'), "{reason}");
                assert!(report.to_string().contains(&format!("dropped by the self-check: {reason}")), "{report}");
                without.check().unwrap();
            }
        }
        // What a spoilt check said is not believed later.
        assert_eq!(spoilt(&gpu, vec![]).unwrap().report(), gpu.report());
    }
}

#[test]
fn all_tiers_may_fail_but_not_plain_webgpu() {
    for gpu in whole() {
        let all = TIERS.map(|tier| (Some(tier), Spoil::Device)).into();
        assert_eq!(has(&spoilt(&gpu, all).unwrap()), []);
        for spoil in [Spoil::Numbers, Spoil::Shaders] {
            let error = spoilt(&gpu, vec![(None, spoil)]).unwrap_err();
            let Error::Gpu { subject, expected, .. } = &error else { panic!("{error}") };
            assert!(subject.contains(&gpu.info().name) && expected.contains("computes correctly"), "{error}");
        }
        let error = spoilt(&gpu, vec![(None, Spoil::Device)]).unwrap_err();
        assert!(matches!(error, Error::GpuLost { .. }), "{error}");
    }
}

#[test]
fn models_run_without_what_was_dropped() {
    let mut tiny = Tiny::new("llama").tokenizer();
    for layer in 0..tiny.layers() {
        for name in ["attn_q", "ffn_gate", "ffn_up"] {
            tiny = tiny.store_as(&format!("blk.{layer}.{name}.weight"), TensorType::Q4_0);
        }
    }
    let tokens: Vec<u32> =
        random("tokens", 40).map(|value| ((value + 1.0) / 2.0 * Sizes::VOCABULARY as f32) as u32).collect();
    let logits = |gpu: Option<&Gpu>| {
        let file = Gguf::from_bytes(tiny.bytes()).unwrap();
        let options = LoadOptions::new().context(64).device(Device::Cpu);
        let model = Model::load_on(file, &options, gpu.map(std::slice::from_ref).unwrap_or_default()).unwrap();
        let mut session = model.session();
        // Many tokens at once, then one.
        session.logits(&tokens[..39]).unwrap();
        session.logits(&tokens[39..]).unwrap()
    };
    let expected = logits(None);
    for gpu in open(&GpuOptions::default()) {
        for tier in has(&gpu) {
            let without = spoilt(&gpu, vec![(Some(tier), Spoil::Numbers)]).unwrap();
            assert!(!without.has(tier));
            let error = nmse(&logits(Some(&without)), &expected);
            assert!(error < 5e-4, "NMSE {error:e} on {without:?}");
        }
    }
}
