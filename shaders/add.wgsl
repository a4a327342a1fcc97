// Adds one slot to another.
//
// Layout: both are views. Geometry: a lane a number. CPU twin: the sum in
// `backend/cpu/simd/rows.rs`.

#include "shared/rows.wgsl"

struct Params {
    outputs: u32,
    width: u32,
    addend_start: u32,
    addend_stride: u32,
    sum_start: u32,
    sum_stride: u32,
}

@group(0) @binding(2) var<storage, read> addend: array<f32>;
@group(0) @binding(3) var<storage, read_write> sum: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    let addend_at = params.addend_start + row * params.addend_stride;
    let sum_at = params.sum_start + row * params.sum_stride;
    for (var i = workgroup.x * 256u + lane; i < params.width; i += MOST_GROUPS * 256u) {
        sum[sum_at + i] += addend[addend_at + i];
    }
}
