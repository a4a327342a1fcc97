// Rounds activations to eight bits by units of 32 columns.
//
// Layout of the result: `shared/quantize.wgsl`. Geometry: workgroups of 64 lanes, four columns a lane. CPU twin: `Fine`
// in `backend/cpu/activations.rs`.

#include "shared/rows.wgsl"
#include "shared/quantize.wgsl"

struct Params {
    outputs: u32,
    width: u32,
    start: u32,
    stride: u32,
}

@group(0) @binding(2) var<storage, read> values: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    let at = params.start + row * params.stride;
    let row_units = (params.width + 31u) >> 5u;
    for (var first = workgroup.x * 256u; first < params.width; first += MOST_GROUPS * 256u) {
        let i = first + thread * 4u;
        var four = vec4<f32>();
        #repeat j 4
        if (i + $j < params.width) {
            four[$j] = values[at + i + $j];
        }
        #end
        let unit = i >> 5u;
        quantize(four, thread, row * row_units + unit, unit < row_units);
    }
}
