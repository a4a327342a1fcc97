// Multiplies what belongs to each token by a number that grows with its position, in place.
//
// Layout: a view, a row for each token. Geometry: a lane a number. CPU twin: `temper` in `backend/cpu/ops.rs`.

#include "shared/rows.wgsl"

struct Params {
    outputs: u32,
    width: u32,
    start: u32,
    stride: u32,
    slope: f32,
    interval: u32, // positions that share a factor
    offset: u32,   // added to positions
}

@group(0) @binding(2) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    let intervals = (step.start + row + params.offset) / params.interval;
    let factor = 1.0 + params.slope * log(1.0 + f32(intervals));
    let at = params.start + row * params.stride;
    for (var i = workgroup.x * 256u + lane; i < params.width; i += MOST_GROUPS * 256u) {
        values[at + i] *= factor;
    }
}
