// For the self-check: 16-bit numbers that are stored, in storage and in workgroup memory, and multiplied.
//
// Layout: `values` and `results` are $THREADS numbers each, `halves` as many with 16 bits. Each result is the product of
// a value and its neighbour to the right, the first being the last one's. Geometry: one workgroup, a lane a number. Twin:
// `halves` in `backend/gpu/trials.rs`.

#if F16
enable f16;

alias Half = f16;
#else
alias Half = f32;
#end

#include "shared/step.wgsl"

struct Params {
    count: u32,
}

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read_write> halves: array<Half>;
@group(0) @binding(4) var<storage, read_write> results: array<f32>;

const THREADS = ${THREADS}u;

var<workgroup> shared_halves: array<Half, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) lane: u32) {
    let own = Half(values[min(lane, params.count - 1u)]);
    halves[lane] = own;
    shared_halves[lane] = own;
    workgroupBarrier();
    results[lane] = f32(halves[lane] * shared_halves[(lane + 1u) % THREADS]);
}
