// A causal convolution of each column by itself: the sum of what the last tokens have there, weighted.
//
// Layout: input and output are views, with a row for each token of the batch. `states` has the last inputs before the
// batch, [inputs, width] at the beginning of a slot; `slots` says which slot to read, and which to write those behind the
// batch to. `weights` holds [width, inputs + 1], the latest token's last. Flags: BIAS is added.
// Geometry: a lane for each quad of columns. CPU twin: `convolve` in `backend/cpu/ops.rs`.

#include "shared/rows.wgsl"

struct Params {
    outputs: u32,
    width: u32,
    inputs: u32,
    slots_start: u32,
    numbers: u32,
    input_start: u32,
    input_stride: u32,
    start: u32,
    stride: u32,
}

const NO_SLOT = 0xffffffffu;

@group(0) @binding($STATES) var<storage, read_write> states: array<f32>;
@group(0) @binding($SLOTS) var<storage, read> slots: array<u32>;
@group(0) @binding($INPUT) var<storage, read> input: array<f32>;
@group(0) @binding($WEIGHTS) var<storage, read> weights: array<f32>;
#if BIAS
@group(0) @binding($BIASES) var<storage, read> biases: array<f32>;
#end
@group(0) @binding($OUTPUT) var<storage, read_write> output: array<f32>;

// A quad of an input that was kept, zeros before the first of all.
fn kept(slot: u32, index: u32, quad: u32) -> vec4<f32> {
    if (slot == NO_SLOT) {
        return vec4<f32>();
    }
    let at = slot * params.numbers + index * params.width + quad * 4u;
    return vec4<f32>(states[at], states[at + 1u], states[at + 2u], states[at + 3u]);
}

fn given(row: u32, quad: u32) -> vec4<f32> {
    let at = params.input_start + row * params.input_stride + quad * 4u;
    return vec4<f32>(input[at], input[at + 1u], input[at + 2u], input[at + 3u]);
}

fn keep(slot: u32, index: u32, quad: u32, values: vec4<f32>) {
    let at = slot * params.numbers + index * params.width + quad * 4u;
#repeat j 4
    states[at + $j] = values[$j];
#end
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    let before = slots[params.slots_start];
    let behind = slots[params.slots_start + 1u];
    let taps = params.inputs + 1u;
    for (var quad = workgroup.x * 64u + lane; quad * 4u < params.width; quad += MOST_GROUPS * 64u) {
        var sum = vec4<f32>();
#if BIAS
#repeat j 4
        sum[$j] = biases[quad * 4u + $j];
#end
#end
        for (var back = 0u; back < taps; back += 1u) {
            let at = quad * 4u * taps + params.inputs - back;
            let factors =
                vec4<f32>(weights[at], weights[at + taps], weights[at + 2u * taps], weights[at + 3u * taps]);
            var values: vec4<f32>;
            if (back <= row) {
                values = given(row - back, quad);
            } else {
                values = kept(before, params.inputs + row - back, quad);
            }
            sum += factors * values;
        }
        let to = params.start + row * params.stride + quad * 4u;
#repeat j 4
        output[to + $j] = sum[$j];
#end
        // The last of what was kept and of what is given are kept for the next batch.
        if (row + params.inputs >= step.tokens) {
            keep(behind, row + params.inputs - step.tokens, quad, given(row, quad));
        }
        if (row == 0u) {
            for (var index = step.tokens; index < params.inputs; index += 1u) {
                keep(behind, index - step.tokens, quad, kept(before, index, quad));
            }
        }
    }
}
