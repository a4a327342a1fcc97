// Copies the rows of some tokens to another slot.
//
// Layout: both are views; `tokens` has the token of each row. Geometry: a lane a number. CPU twin: the rows of
// `Op::Select` in `backend/cpu/executor.rs`.

#include "shared/rows.wgsl"

struct Params {
    outputs: u32,
    width: u32,
    input_start: u32,
    input_stride: u32,
    output_start: u32,
    output_stride: u32,
}

@group(0) @binding(2) var<storage, read> input: array<f32>;
@group(0) @binding(3) var<storage, read> tokens: array<u32>;
@group(0) @binding(4) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    // A token that is not of the batch would be read from where there is none.
    let token = min(tokens[row], step.tokens - 1u);
    let input_at = params.input_start + token * params.input_stride;
    let output_at = params.output_start + row * params.output_stride;
    for (var i = workgroup.x * 256u + lane; i < params.width; i += MOST_GROUPS * 256u) {
        output[output_at + i] = input[input_at + i];
    }
}
