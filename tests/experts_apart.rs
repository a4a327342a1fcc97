//! Where the steps of mixtures run when experts stay on the CPU: who chooses stays with the router's matrix, and one sum
//! comes back.

#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use kiln::backend::gpu::Traits;
use kiln::cache::{Cache, CacheFormat, CacheLimits};
use kiln::model::{self, ProgramOptions};
use kiln::options::OnCpu;
use kiln::program::{Op, Program};
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
        (Tiny::new("qwen2moe"), 2),  // whose shared experts have a router too
        (Tiny::new("deepseek2"), 1), // whose heads are matrices side by side as well
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
        assert_eq!(kinds, ["experts", "gate", "experts", "mix"].repeat(mixtures), "{name}");
        // What crosses over: the input and who is chosen; and what comes back: the sum.
        let segments = program.segments(&devices);
        for segment in segments.iter().filter(|segment| segment.device == 0) {
            assert_eq!((segment.given.len(), segment.wanted.len()), (2, 1), "{name}: {segment:?}");
        }
        assert_eq!(segments.len(), 2 * mixtures + 1, "{name}");
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
