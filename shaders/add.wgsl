// Adds one slot to another.
//
// Layout: rows of `width` numbers, each in its own place of a buffer. Geometry: one lane a number, a row of workgroups a
// token. CPU twin: the sum in `backend/cpu/simd/rows.rs`.

#include "shared/step.wgsl"

struct Params {
    width: u32,
    from_start: u32,
    from_stride: u32,
    to_start: u32,
    to_stride: u32,
}

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> source: array<f32>;
@group(0) @binding(3) var<storage, read_write> target_: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < params.width && id.y < step.tokens) {
        let to = params.to_start + id.y * params.to_stride + id.x;
        target_[to] += source[params.from_start + id.y * params.from_stride + id.x];
    }
}
