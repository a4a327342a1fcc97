// For the self-check: signed bytes that are multiplied and added up, taken apart, and put together.
//
// Layout: `pairs`, two words of four bytes each; `found`, for each pair the sum of the products of bytes, and the first
// word. Geometry: a lane for each of the pairs. Twin: `dots` in `backend/gpu/trials.rs`.

#include "shared/step.wgsl"

struct Params {
    count: u32,
}

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> pairs: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> found: array<vec2<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3<u32>) {
    if (at.x < params.count) {
        let pair = pairs[at.x];
        let sum = dot4I8Packed(pair.x, pair.y);
        found[at.x] = vec2<u32>(bitcast<u32>(sum), pack4xI8(unpack4xI8(pair.x)));
    }
}
