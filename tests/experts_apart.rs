//! Where the steps of mixtures run when experts stay on the CPU, as `--cpu-experts` has it: who chooses stays with the
//! router's matrix, and one sum comes back.

#![cfg(feature = "gpu")]

#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use kiln::backend::gpu::Traits;
use kiln::cache::{Cache, CacheFormat, CacheLimits};
use kiln::model::{self, ProgramOptions};
use kiln::options::OnCpu;
use kiln::program::{Op, Program, SlotId};
use kiln::scheduler::{Placement, Site, Sites};
use kiln::{Offload, TensorClass};
use tiny::Tiny;

fn program(tiny: &Tiny) -> Program {
    model::program(&tiny.file(), ProgramOptions { context: 256 }).unwrap()
}

/// The device of each step, with a class of tensors on the CPU and all else on a GPU.
fn devices(program: &Program, class: TensorClass) -> Vec<usize> {
    let cache = Cache::of_program(program, CacheLimits::new(256)).unwrap();
    let traits = Traits { binding_bytes: 1 << 30, integers: true };
    let gpu = Site { name: "large".into(), traits, free_bytes: 1 << 40, most_layers: usize::MAX };
    let sites = Sites { program, cache: &cache, format: CacheFormat::F16, gpus: &[gpu] };
    let on_cpu = [OnCpu { class, from_layer: 0 }];
    Placement::new(sites, &Offload::All, &on_cpu).unwrap().devices(program)
}

#[test]
fn experts_leave_the_router_where_it_is() {
    for (tiny, mixtures) in [
        (Tiny::new("qwen3moe"), 2),
        (Tiny::new("qwen2moe"), 2),          // whose shared experts have a router too
        (Tiny::new("deepseek2"), 1),         // whose heads are matrices side by side as well
        (Tiny::new("llama4"), 2),            // whose one expert's input is weighed before it crosses over
        (Tiny::new("gemma4").experts(3), 3), // whose feed-forward beside them stays
    ] {
        let (name, program) = (tiny.architecture.clone(), program(&tiny));
        let devices = devices(&program, TensorClass::Experts);
        let on_cpu = program.steps.iter().zip(&devices).filter(|(_, device)| **device == 0).map(|(step, _)| &step.op);
        let kinds: Vec<&str> = on_cpu
            .map(|op| match op {
                Op::Experts { .. } => "experts",
                Op::Gate { .. } => "gate",
                Op::Mix { .. } => "mix",
                _ => "another",
            })
            .collect();
        let steps = if name == "llama4" { 3 } else { 4 };
        assert_eq!(kinds, ["experts", "gate", "experts", "mix"][..steps].repeat(mixtures), "{name}");
        assert_eq!(program.segments(&devices).len(), 2 * mixtures + 1, "{name}");
    }
}

/// What is handed over for a token where experts are apart: what they work on and who is chosen, and what they come to,
/// however many experts there are and whatever is between their matrices.
#[test]
fn only_what_is_routed_crosses_over() {
    for tiny in ["qwen3moe", "qwen2moe", "deepseek2", "llama4", "gpt-oss"]
        .map(Tiny::new)
        .into_iter()
        .chain([Tiny::new("gemma4").experts(3), Tiny::new("llama").experts(0).set("expert_used_count", 8)])
    {
        let (name, program) = (tiny.architecture.clone(), program(&tiny));
        let embedded = program.steps.iter().find_map(|step| match step.op {
            Op::Embed { out, .. } => Some(program.slots[out.0].width),
            _ => None,
        });
        let width = embedded.unwrap();
        let segments = program.segments(&devices(&program, TensorClass::Experts));
        let bytes = |slots: &[SlotId]| slots.iter().map(|slot| program.slots[slot.0].width * 4).sum::<usize>();
        for (at, segment) in segments.iter().enumerate() {
            let first = &program.steps[segment.steps.start].op;
            if segment.device == 0 {
                let Op::Experts { input, routes: Some(routes), .. } = *first else { panic!("{name}: {first:?}") };
                assert_eq!(segment.given, [input, routes], "{name}");
                let used = program.slots[routes.0].width / 2;
                assert_eq!(bytes(&segment.given), 4 * width + 8 * used, "{name}");
                assert_eq!(bytes(&segment.wanted), 4 * width, "{name}");
            } else if at > 0 {
                assert_eq!(segment.given, segments[at - 1].wanted, "{name}");
            }
            // Whatever one gives away is what the next takes; at the end there are logits.
            let next = segments.get(at + 1).map_or(vec![program.output.unwrap()], |next| next.given.clone());
            let sorted = |mut slots: Vec<SlotId>| {
                slots.sort_by_key(|slot| slot.0);
                slots
            };
            assert_eq!(sorted(segment.wanted.clone()), sorted(next), "{name}");
        }
    }
}

#[test]
fn feed_forward_takes_experts_and_their_router_along() {
    let program = program(&Tiny::new("qwen2moe"));
    let devices = devices(&program, TensorClass::FeedForward);
    for (step, device) in program.steps.iter().zip(&devices) {
        let is_mixture = matches!(step.op, Op::Route { .. } | Op::Experts { .. } | Op::Mix { .. } | Op::Gate { .. });
        assert!(!is_mixture || *device == 0, "{:?}", step.op);
    }
    assert_eq!(program.segments(&devices).len(), 5);
}

#[test]
fn a_token_reads_the_weights_of_the_experts_it_uses() {
    let bytes = |used: u32| program(&Tiny::new("llama").experts(0).set("expert_used_count", used)).token_weight_bytes();
    // Two layers, three matrices of 128 by 32.
    assert_eq!(bytes(3) - bytes(2), 2 * 3 * 128 * 32 * 4);
    assert_eq!(bytes(8) - bytes(3), 5 * (bytes(3) - bytes(2)));
}
