// For the self-check: which lanes of a workgroup make a subgroup.
//
// Layout: `found`, for each lane: its place in its subgroup, the size of that, and of the lanes in it the sum and the
// largest. Geometry: workgroups of $THREADS lanes, all alike. Twin: `lanes_fault` in `backend/gpu/trials.rs`.

#include "shared/step.wgsl"

struct Params {
    workgroups: u32,
}

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> found: array<vec4<u32>>;

const THREADS = ${THREADS}u;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_size) subgroup_size: u32,
    @builtin(subgroup_invocation_id) place: u32,
) {
    let sum = subgroupAdd(lane);
    let last = subgroupMax(lane);
    if (group.x < params.workgroups) {
        found[group.x * THREADS + lane] = vec4<u32>(place, subgroup_size, sum, last);
    }
}
