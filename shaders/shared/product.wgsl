// What products of a matrix with activations have in common: bindings, parameters, and where results go.
//
// Flags: INTEGER takes activations rounded to eight bits, otherwise they are f32. FLOATS: weights are floating-point.
// VECTORS: the plane of quants is read by vec4. TABLES: the type has tables. OFFSETS: and offsets. HALVES: the halves of
// a unit have scales of their own. TAIL: columns are no multiple of 32. BIAS: a vector is added. ADD: results are added to
// what is there. GATE: rows come in pairs, of which the first goes through a curve and is multiplied
// with the second (see `shared/gate.wgsl`). QUANTIZE: results are written in eight bits instead, as
// `shared/quantize.wgsl` says.
//
// EXPERTS: each token is multiplied with several matrices, of many that lie one above the other: `choices` of them, with
// results side by side. What follows then calls a token is a choice: a token's first, its second and so on, then the next
// token's. ROUTED: routes say which matrices; otherwise a token's first choice is the first matrix and so on.

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
    // The rest is for EXPERTS; `rows` are those of one matrix then, and `first_row` is 0.
    choices: u32,       // of a token
    choice_width: u32,  // from the results of one to those of the next
    own_inputs: u32,    // 1: each choice has activations of its own, side by side; 0: all of a token share them
    first_matrix: u32,  // of this part
    matrices: u32,      // in this part
    routes_start: u32,  // of `routes`, or of the tiles in `order`
    routes_stride: u32, // of `routes`
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
#if EXPERTS
#if TILES
@group(0) @binding(8) var<storage, read> order: array<u32>;
#else
@group(0) @binding(8) var<storage, read> routes: array<f32>;
#end
#if BIAS
@group(0) @binding(9) var<storage, read> bias: array<f32>;
#end
#else
#if BIAS
@group(0) @binding(8) var<storage, read> bias: array<f32>;
#else
@group(0) @binding(8) var<storage, read> no_bias: array<u32>;
#end
#end

#include "$UNIT"

#if EXPERTS
// Which matrix this workgroup multiplies with, of all there are.
var<private> matrix: u32;

// Whether a matrix is in this part.
fn has_matrix(number: u32) -> bool {
    return number >= params.first_matrix && number - params.first_matrix < params.matrices;
}

// Its first row in this part; that of another if it is not here.
fn matrix_start(number: u32) -> u32 {
    return select(0u, (number - params.first_matrix) * params.rows, has_matrix(number));
}
#end

fn row_count() -> u32 {
    let rows = select(step.tokens, step.outputs, params.outputs == 1u);
#if EXPERTS
    return rows * params.choices;
#else
    return rows;
#end
}

// Which row of activations a token is multiplied from.
fn input_row(token: u32) -> u32 {
#if EXPERTS
    return select(token / params.choices, token, params.own_inputs == 1u);
#else
    return token;
#end
}

// Where the first of a token's results goes.
fn result_start(token: u32) -> u32 {
#if EXPERTS
    let side = token % params.choices * params.choice_width;
    return params.out_start + token / params.choices * params.out_stride + side;
#else
    return params.out_start + token * params.out_stride;
#end
}

#if BIAS
// What is added to a row's result.
fn bias_of(row: u32) -> f32 {
#if EXPERTS
    return bias[params.bias_start + matrix * params.rows + row];
#else
    return bias[params.bias_start + params.first_row + row];
#end
}
#end

#if !INTEGER
// Four numbers of a row of activations; zeros behind the last. Without a branch: this is inlined dozens of times, and
// some compilers take minutes for as many branches.
fn activation(input_row: u32, quad: u32) -> vec4<f32> {
    let first = (params.x_start + input_row * params.x_stride) / 4u;
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
#include "shared/gate.wgsl"

// The result of a pair of rows; pairs are counted in this part of the matrix.
fn gated(pair: u32, gate: f32, up: f32) -> f32 {
#if BIAS
    return gated_unit(gate + bias_of(2u * pair), up + bias_of(2u * pair + 1u));
#else
    return gated_unit(gate, up);
#end
}

#if !QUANTIZE
// Puts the result of a pair of rows in its place.
fn put_gated(token: u32, pair: u32, gate: f32, up: f32) {
    out[result_start(token) + params.first_row / 2u + pair] = gated(pair, gate, up);
}
#end
#else
// Puts the result of a row in its place; rows are counted in this part of the matrix.
fn put(token: u32, row: u32, value: f32) {
    let at = result_start(token) + params.first_row + row;
    var result = value;
#if BIAS
    result += bias_of(row);
#end
#if ADD
    result += out[at];
#end
    out[at] = result;
}
#end
