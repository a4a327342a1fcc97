// What products of a matrix with activations have in common: bindings, parameters, and where results go.
//
// Flags: INTEGER takes activations rounded to eight bits, otherwise they are f32. FLOATS: weights are floating-point.
// VECTORS: the plane of quants is read by vec4. TABLES: the type has tables. OFFSETS: and offsets. HALVES: the halves of
// a unit have scales of their own. TAIL: columns are no multiple of 32. BIAS: a vector is added. ADD: results are added to
// what is there. GATE: rows come in pairs, of which the first goes through a curve (GELU, SQUARED_RELU, or else SILU) and is multiplied
// with the second. QUANTIZE: results are written in eight bits instead, as `shared/quantize.wgsl` says.

#include "shared/step.wgsl"

struct Params {
    columns: u32,
    row_units: u32,
    rows: u32,          // of this part of the matrix
    first_row: u32,     // of the part, in the whole
    x_start: u32,       // in f32; not used where activations are rounded
    x_stride: u32,
    out_start: u32,
    out_stride: u32,    // in units of a row where results are rounded
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
@group(0) @binding(4) var<storage, read> x_integers: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> x_scales: array<vec4<f32>>;
#else
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> unused: array<u32>;
#end
#if QUANTIZE
#include "shared/quantize.wgsl"
#else
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
#end
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
// Four numbers of a token's activations; zeros behind the last. Without a branch: this is inlined dozens of times, and
// some compilers take minutes for as many branches.
fn activation(token: u32, quad: u32) -> vec4<f32> {
    let first = (params.x_start + token * params.x_stride) / 4u;
#if TAIL
    let values = x[first + min(quad, (max(params.columns, 1u) - 1u) / 4u)];
    let columns = vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(0.0), values, columns < vec4<u32>(params.columns));
#else
    return x[first + quad];
#end
}
#end

#if INTEGER
// What of a unit of weights' scales and offsets matters. The first half's are those of both where there is one.
struct Factors {
    scale: f32,
#if HALVES
    high_scale: f32,
#end
#if OFFSETS
    offset: f32,
#if HALVES
    high_offset: f32,
#end
#end
}

fn factors_of(w: Unit) -> Factors {
    var factors: Factors;
    factors.scale = w.scale.x;
#if HALVES
    factors.high_scale = w.scale.y;
#end
#if OFFSETS
    factors.offset = w.offset.x;
#if HALVES
    factors.high_offset = w.offset.y;
#end
#end
    return factors;
}

// The same of a unit of activations: what offsets are multiplied with is the sum of the unit, or of each half.
struct Terms {
    scale: f32,
#if OFFSETS
    sum: f32,
#if HALVES
    high_sum: f32,
#end
#end
}

fn terms_at(at: u32) -> Terms {
    let x = x_scales[at];
    var terms: Terms;
    terms.scale = x.x;
#if OFFSETS
#if HALVES
    terms.sum = x.z;
    terms.high_sum = x.w;
#else
    terms.sum = x.y;
#end
#end
    return terms;
}

// What two units add to a sum, given the products of their halves.
fn scaled(factors: Factors, low: i32, high: i32, terms: Terms) -> f32 {
#if HALVES
    var sum = terms.scale * (factors.scale * f32(low) + factors.high_scale * f32(high));
#if OFFSETS
    sum += factors.offset * terms.sum + factors.high_offset * terms.high_sum;
#end
#else
    var sum = terms.scale * factors.scale * f32(low + high);
#if OFFSETS
    sum += factors.offset * terms.sum;
#end
#end
    return sum;
}
#end

#if GATE
// The result of a pair of rows; pairs are counted in this part of the matrix.
fn gated(pair: u32, gate: f32, up: f32) -> f32 {
    var value = gate;
    var factor = up;
#if BIAS
    value += bias[params.bias_start + params.first_row + 2u * pair];
    factor += bias[params.bias_start + params.first_row + 2u * pair + 1u];
#end
#if GELU
    let inner = clamp(0.7978846 * value * (1.0 + 0.044715 * value * value), -20.0, 20.0);
    return 0.5 * value * (1.0 + tanh(inner)) * factor;
#else
#if SQUARED_RELU
    return max(value, 0.0) * max(value, 0.0) * factor;
#else
    return value / (1.0 + exp(-value)) * factor;
#end
#end
}

#if !QUANTIZE
// Puts the result of a pair of rows in its place.
fn put_gated(token: u32, pair: u32, gate: f32, up: f32) {
    out[params.out_start + token * params.out_stride + params.first_row / 2u + pair] = gated(pair, gate, up);
}
#end
#else
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
#end
