// The weighted sum of what experts came to.
//
// Layout: a row of `parts` holds `choices` parts of `width` numbers; a row of routes holds as many numbers of experts, and
// then their weights. Flag: ADD adds the sum to what is there. Geometry: workgroups of 64 lanes, four columns a lane. CPU
// twin: `mix` in `backend/cpu/ops.rs`.

#include "shared/rows.wgsl"

struct Params {
    outputs: u32,
    width: u32,
    choices: u32,
    parts_start: u32,
    parts_stride: u32,
    routes_start: u32,
    routes_stride: u32,
    start: u32,
    stride: u32,
}

@group(0) @binding(2) var<storage, read> parts: array<f32>;
@group(0) @binding(3) var<storage, read> routes: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    let parts_at = params.parts_start + row * params.parts_stride;
    let weights_at = params.routes_start + row * params.routes_stride + params.choices;
    let to = params.start + row * params.stride;
    for (var first = workgroup.x * 256u; first < params.width; first += MOST_GROUPS * 256u) {
        #repeat j 4
        let i$j = min(first + thread + ${j}u * 64u, params.width - 1u);
        var sum$j = 0.0;
        #end
        for (var choice = 0u; choice < params.choices; choice++) {
            let weight = routes[weights_at + choice];
            #repeat j 4
            sum$j += weight * parts[parts_at + choice * params.width + i$j];
            #end
        }
        #repeat j 4
        if (first + thread + ${j}u * 64u < params.width) {
#if ADD
            sums[to + i$j] += sum$j;
#else
            sums[to + i$j] = sum$j;
#end
        }
        #end
    }
}
