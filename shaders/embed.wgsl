// Looks up a row of the embedding table for each token, and writes it to a slot as numbers.
//
// Layout: the table lies as src/backend/gpu/layout/mod.rs says; `ids` has the step's token ids. The bindings hold
// `rows` rows from `first_row` on, and tokens whose row is elsewhere are left alone: a table that is larger than a
// binding takes a dispatch for each part. Flag: ADD adds to what is there.
// Geometry: one lane four columns, a row of workgroups a token.
// CPU twin: Op::Embed in src/backend/cpu/executor.rs.

#include "shared/step.wgsl"

struct Params {
    columns: u32,
    row_units: u32,
    first_row: u32,
    rows: u32,
    scale: f32,  // all numbers are multiplied by it
    start: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
#if VECTORS
@group(0) @binding(3) var<storage, read> quants: array<vec4<u32>>;
#else
@group(0) @binding(3) var<storage, read> quants: array<u32>;
#end
#if FLOATS
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
#else
@group(0) @binding(4) var<storage, read> scales: array<u32>;
#if TABLES
@group(0) @binding(5) var<storage, read> tables: array<u32>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
#else
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
#end
#end

#include "$UNIT"

// Four columns of a row; eight `quad`s are a unit.
fn weights(row: u32, index: u32, quad: u32) -> vec4<f32> {
#if FLOATS
    return floats(row, index, params.row_units, quad);
#else
    let found = unit(row, index, params.row_units);
    let is_high = quad >= 4u;
    let words = select(found.low, found.high, is_high);
    let scale = select(found.scale.x, found.scale.y, is_high);
    let offset = select(found.offset.x, found.offset.y, is_high);
    return vec4<f32>(unpack4xI8(words[quad & 3u])) * scale + vec4<f32>(offset);
#end
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let column = 4u * id.x;
    if (column < params.columns && id.y < step.tokens) {
        let row = ids[id.y] - params.first_row;  // wraps around below the first
        if (row < params.rows) {
            let values = weights(row, id.x >> 3u, id.x & 7u) * params.scale;
            let to = params.start + id.y * params.stride + column;
#repeat i 4
#if ADD
            if (column + $i < params.columns) { out[to + $i] += values[$i]; }
#else
            if (column + $i < params.columns) { out[to + $i] = values[$i]; }
#end
#end
        }
    }
}
