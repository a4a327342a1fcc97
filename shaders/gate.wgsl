// Gated units, activation(gate) * up, and curves without a gate.
//
// Layout: gate, up and output are views; IN_PLACE the output is the gate. Flags: GELU, SQUARED_RELU, TANH, or else it is SiLU;
// GATED multiplies with up; QUANTIZE also writes the result in eight bits. Geometry: workgroups of 64 lanes, four columns a lane, so that one covers whole units.
// CPU twin: `activate` in `backend/cpu/ops.rs`.

#include "shared/rows.wgsl"
#if QUANTIZE
#include "shared/quantize.wgsl"
#end

struct Params {
    outputs: u32,
    width: u32,
    gate_start: u32,
    gate_stride: u32,
    up_start: u32,
    up_stride: u32,
    output_start: u32,
    output_stride: u32,
}

#if IN_PLACE
@group(0) @binding($GATE) var<storage, read_write> gate: array<f32>;
#else
@group(0) @binding($GATE) var<storage, read> gate: array<f32>;
@group(0) @binding($OUTPUT) var<storage, read_write> output: array<f32>;
#end
#if GATED
@group(0) @binding($UP) var<storage, read> up: array<f32>;
#end

#if TANH
fn activate(x: f32) -> f32 {
    return tanh(clamp(x, -20.0, 20.0));
}
#else
#if SQUARED_RELU
fn activate(x: f32) -> f32 {
    return max(x, 0.0) * max(x, 0.0);
}
#else
// Both curves are x times a sigmoid: 1 + tanh(y) is 2 / (1 + exp(-2 y)). The exponent is held where the power is finite.
fn activate(x: f32) -> f32 {
#if GELU
    let y = 1.5957691216 * x * (1.0 + 0.044715 * x * x);
#else
    let y = x;
#end
    return x / (1.0 + exp(min(-y, 80.0)));
}
#end
#end

// The `j`-th of a lane's four columns: for units neighbouring ones, otherwise as neighbouring lanes load best.
fn column(thread: u32, j: u32) -> u32 {
#if QUANTIZE
    return thread * 4u + j;
#else
    return thread + j * 64u;
#end
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    let gate_at = params.gate_start + row * params.gate_stride;
#if GATED
    let up_at = params.up_start + row * params.up_stride;
#end
    for (var first = workgroup.x * 256u; first < params.width; first += MOST_GROUPS * 256u) {
        var four = vec4<f32>();
        #repeat j 4
        let i$j = first + column(thread, $j);
        if (i$j < params.width) {
            var x = activate(gate[gate_at + i$j]);
#if GATED
            x *= up[up_at + i$j];
#end
#if IN_PLACE
            gate[gate_at + i$j] = x;
#else
            output[params.output_start + row * params.output_stride + i$j] = x;
#end
            four[$j] = x;
        }
        #end
#if QUANTIZE
        let unit = (first >> 5u) + (thread >> 3u);
        let row_units = (params.width + 31u) >> 5u;
        quantize(four, thread, row * row_units + unit, unit < row_units);
#end
    }
}
