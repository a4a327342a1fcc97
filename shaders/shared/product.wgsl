// What products of a matrix with activations have in common: bindings, parameters, and where results go.
//
// Flags: INTEGER takes activations rounded to eight bits, otherwise they are f32. FLOATS: weights are floating-point.
// VECTORS: the plane of quants is read by vec4. TABLES: the type has tables. OFFSETS: and offsets. TAIL: columns are no multiple of 32.
// BIAS: a vector is added. ADD: results are added to what is there. GATE: rows come in pairs, of which the first goes
// through a curve (GELU, or else SILU) and is multiplied with the second.

#include "shared/step.wgsl"

struct Params {
    columns: u32,
    row_units: u32,
    rows: u32,          // of this part of the matrix
    first_row: u32,     // of the part, in the whole
    x_start: u32,       // in f32; not used where activations are rounded
    x_stride: u32,
    out_start: u32,
    out_stride: u32,
    bias_start: u32,
    outputs: u32,       // 1: one row for each output, 0: for each token
}

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> params: Params;
#if VECTORS
@group(0) @binding(2) var<storage, read> quants: array<vec4<u32>>;
#else
@group(0) @binding(2) var<storage, read> quants: array<u32>;
#end
@group(0) @binding(3) var<storage, read> scales: array<u32>;
#if INTEGER
@group(0) @binding(4) var<storage, read> xq: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> xs: array<vec4<f32>>;
#else
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> unused: array<u32>;
#end
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
#if TABLES
@group(0) @binding(7) var<storage, read> tables: array<u32>;
#else
@group(0) @binding(7) var<storage, read> no_tables: array<u32>;
#end
#if BIAS
@group(0) @binding(8) var<storage, read> bias: array<f32>;
#else
@group(0) @binding(8) var<storage, read> no_bias: array<u32>;
#end

#include "$UNIT"

fn row_count() -> u32 {
    return select(step.tokens, step.outputs, params.outputs == 1u);
}

#if !INTEGER
// Four numbers of a token's activations; zeros behind the last.
fn activation(token: u32, quad: u32) -> vec4<f32> {
#if TAIL
    let column = quad * 4u;
    if (column >= params.columns) {
        return vec4<f32>(0.0);
    }
    let values = x[(params.x_start + token * params.x_stride) / 4u + quad];
    let inside = vec4<u32>(column, column + 1u, column + 2u, column + 3u) < vec4<u32>(params.columns);
    return select(vec4<f32>(0.0), values, inside);
#else
    return x[(params.x_start + token * params.x_stride) / 4u + quad];
#end
}
#end

#if GATE
fn gated(gate: f32, up: f32) -> f32 {
#if GELU
    let inner = clamp(0.7978846 * gate * (1.0 + 0.044715 * gate * gate), -20.0, 20.0);
    return 0.5 * gate * (1.0 + tanh(inner)) * up;
#else
    return gate / (1.0 + exp(-gate)) * up;
#end
}
#end

#if GATE
// Puts the result of a pair of rows in its place; pairs are counted in this part of the matrix.
fn put_gated(token: u32, pair: u32, gate: f32, up: f32) {
    let place = params.first_row / 2u + pair;
    var value = gate;
    var factor = up;
#if BIAS
    value += bias[params.bias_start + params.first_row + 2u * pair];
    factor += bias[params.bias_start + params.first_row + 2u * pair + 1u];
#end
    out[params.out_start + token * params.out_stride + place] = gated(value, factor);
}
#end

// Puts the result of a row in its place; rows are counted in this part of the matrix.
fn put(token: u32, row: u32, value: f32) {
    let at = params.out_start + token * params.out_stride + params.first_row + row;
    var result = value;
#if BIAS
    result += bias[params.bias_start + params.first_row + row];
#end
#if ADD
    result += out[at];
#end
    out[at] = result;
}
