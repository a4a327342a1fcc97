// Squeezes a slot between plus and minus a bound, in place: cap * tanh(x / cap).
//
// Layout: a view. Geometry: a lane a number. CPU twin: `softcap` in `backend/cpu/ops.rs`.

#include "shared/rows.wgsl"

struct Params {
    outputs: u32,
    width: u32,
    start: u32,
    stride: u32,
    cap: f32,
}

@group(0) @binding(2) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    let at = params.start + row * params.stride;
    for (var i = workgroup.x * 256u + lane; i < params.width; i += MOST_GROUPS * 256u) {
        // Some drivers make exponentials of the argument; beyond 20 the result is 1 anyway.
        let x = clamp(values[at + i] / params.cap, -20.0, 20.0);
        values[at + i] = params.cap * tanh(x);
    }
}
