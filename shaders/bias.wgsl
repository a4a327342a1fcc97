// Adds a vector to each row of a slot, in place.
//
// Layout: a view; the vector counts from `bias_start`. Geometry: a lane a number. CPU twin: the end of a linear op in
// `backend/cpu/executor.rs`.

#include "shared/rows.wgsl"

struct Params {
    outputs: u32,
    width: u32,
    start: u32,
    stride: u32,
    bias_start: u32,
}

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    let at = params.start + row * params.stride;
    for (var i = workgroup.x * 256u + lane; i < params.width; i += MOST_GROUPS * 256u) {
        values[at + i] += bias[params.bias_start + i];
    }
}
