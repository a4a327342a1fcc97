// Normalises and rotates queries and keys, and stores keys and values in their page.
//
// Queries change in place; keys and values are only read, and what is stored is the rotated key. One dispatch stores to
// one slab, the pages from `first_page` on; with several slabs only the first of the dispatches has QUERIES set, for a
// query must be rotated once.
//
// Layout: slots are rows of heads; the page's is in `shared/page.wgsl`; `turns` holds [tokens, pairs] of cosine and sine,
// each already times the magnitude. Geometry: a workgroup of 64 lanes for each token and head, in x first the heads of
// queries, then those of keys, then those of values. CPU twins: `norm` and `rotate` in `backend/cpu/ops.rs`, `store` in
// `backend/cpu/memory.rs`.
//
// Flags: QUERIES, STORE, TOGETHER (queries, keys and values lie in one buffer), QK_NORM, ROTATE, HALVES (else pairs are
// neighbours), and those of the page. Constants: PAIRS, QUERY_HEADS, ROW_SIZE (of a key), ROW_QUADS (as many quads as the
// longer of key and value takes), the numbers of the bindings, and those of the page.

#include "shared/step.wgsl"
#if STORE
#include "shared/page.wgsl"
#else
const KEY_SIZE: u32 = $KEY_SIZE;
#end

struct Params {
    table_start: u32,
    first_page: u32, // of the slab
    pages: u32,      // in the slab
    turns_start: u32,
    query_start: u32,
    query_stride: u32,
    key_start: u32,
    key_stride: u32,
    value_start: u32,
    value_stride: u32,
    query_norm_start: u32,
    query_norm_length: u32, // of a head, or of all heads
    key_norm_start: u32,
    key_norm_length: u32,
    epsilon: f32,
    unused: u32,
}

const THREADS: u32 = 64;
const PAIRS: u32 = $PAIRS;
const QUERY_HEADS: u32 = $QUERY_HEADS;
const ROW_SIZE: u32 = $ROW_SIZE;
const ROW_QUADS: u32 = $ROW_QUADS;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> params: Params;
#if QUERIES
@group(0) @binding($QUERIES) var<storage, read_write> queries: array<f32>;
#end
#if ROTATE
@group(0) @binding($TURNS) var<storage, read> turns: array<vec2<f32>>;
#end
#if STORE
#if !TOGETHER
@group(0) @binding($KEYS) var<storage, read> keys: array<f32>;
#if !IN_KEYS
@group(0) @binding($VALUES) var<storage, read> values: array<f32>;
#end
#end
@group(0) @binding($TABLE) var<storage, read> table: array<u32>;
#end
#if QK_NORM
#if QUERIES
@group(0) @binding($QUERY_NORM) var<storage, read> query_norm: array<f32>;
#end
#if STORE
@group(0) @binding($KEY_NORM) var<storage, read> key_norm: array<f32>;
#end
#end

var<workgroup> row: array<f32, ROW_SIZE>;
#if QK_NORM
var<workgroup> squares: array<f32, THREADS>;

// What a head in `row` is multiplied with. Each lane has put every 64th number there itself.
fn norm_scale(lane: u32) -> f32 {
    var sum = 0.0;
    for (var i = lane; i < KEY_SIZE; i += THREADS) {
        sum += row[i] * row[i];
    }
    squares[lane] = sum;
    workgroupBarrier();
    sum = 0.0;
    for (var i = 0u; i < THREADS; i += 8u) {
#repeat j 8
        sum += squares[i + $j];
#end
    }
    return inverseSqrt(sum / f32(KEY_SIZE) + params.epsilon);
}
#end

// A number of the head in `row` after the rotation.
fn turned(token: u32, i: u32) -> f32 {
    let own = row[i];
#if ROTATE
    if (i >= 2u * PAIRS) {
        return own;
    }
#if HALVES
    let is_first = i < PAIRS;
    let pair = select(i - PAIRS, i, is_first);
    let other = row[select(i - PAIRS, i + PAIRS, is_first)];
#else
    let is_first = (i & 1u) == 0u;
    let pair = i / 2u;
    let other = row[i ^ 1u];
#end
    let turn = turns[params.turns_start + token * PAIRS + pair];
    return own * turn.x + select(other, -other, is_first) * turn.y;
#else
    return own;
#end
}

#if QUERIES
fn change_query(token: u32, head: u32, lane: u32) {
    let start = params.query_start + token * params.query_stride + head * KEY_SIZE;
    for (var i = lane; i < KEY_SIZE; i += THREADS) {
        row[i] = queries[start + i];
    }
#if QK_NORM
    let scale = norm_scale(lane);
    let weights = params.query_norm_start + select(0u, head * KEY_SIZE, params.query_norm_length > KEY_SIZE);
    for (var i = lane; i < KEY_SIZE; i += THREADS) {
        row[i] *= scale * query_norm[weights + i];
    }
#end
    workgroupBarrier();
    for (var i = lane; i < KEY_SIZE; i += THREADS) {
        queries[start + i] = turned(token, i);
    }
}
#end

#if STORE
// A row as it is stored, but in f32: its last block filled up with zeros.
var<workgroup> quads: array<vec4<f32>, ROW_QUADS>;

fn key_at(i: u32) -> f32 {
#if TOGETHER
    return queries[i];
#else
    return keys[i];
#end
}

fn make_key(token: u32, head: u32, lane: u32) {
    let start = params.key_start + token * params.key_stride + head * KEY_SIZE;
    for (var i = lane; i < KEY_SIZE; i += THREADS) {
        row[i] = key_at(start + i);
    }
#if QK_NORM
    let scale = norm_scale(lane);
    let weights = params.key_norm_start + select(0u, head * KEY_SIZE, params.key_norm_length > KEY_SIZE);
    for (var i = lane; i < KEY_SIZE; i += THREADS) {
        row[i] *= scale * key_norm[weights + i];
    }
#end
    workgroupBarrier();
    for (var quad = lane; quad < KEY_ROW; quad += THREADS) {
        var four = vec4<f32>();
        if (quad < KEY_QUADS) {
            let i = quad * 4u;
            four = vec4<f32>(turned(token, i), turned(token, i + 1u), turned(token, i + 2u), turned(token, i + 3u));
        }
        quads[quad] = four;
    }
}

#if !IN_KEYS
fn value_at(i: u32) -> f32 {
#if TOGETHER
    return queries[i];
#else
    return values[i];
#end
}

fn make_value(token: u32, head: u32, lane: u32) {
    let start = params.value_start + token * params.value_stride + head * VALUE_SIZE;
    for (var quad = lane; quad < VALUE_ROW; quad += THREADS) {
        var four = vec4<f32>();
        if (quad < VALUE_QUADS) {
            let i = start + quad * 4u;
            four = vec4<f32>(value_at(i), value_at(i + 1u), value_at(i + 2u), value_at(i + 3u));
        }
        quads[quad] = four;
    }
}

#end

#if CACHE_Q8
// The scale of a block of `quads`.
fn block_scale(block: u32) -> f32 {
    var peak = vec4<f32>();
#repeat i 8
    peak = max(peak, abs(quads[block * 8u + $i]));
#end
    return max(max(peak.x, peak.y), max(peak.z, peak.w)) / 127.0;
}

// Halves away from zero, as the CPU rounds.
fn rounded(x: vec4<f32>) -> vec4<i32> {
    let whole = floor(abs(x));
    return vec4<i32>(sign(x) * select(whole, whole + 1.0, abs(x) - whole >= vec4<f32>(0.5)));
}
#end

// Stores `quads` as a row: `rows` and `scales` are where the rows of the head begin, and the scales of its rows.
fn store(rows: u32, row_cells: u32, scales: u32, scale_cells: u32, position: u32, lane: u32) {
    for (var quad = lane; quad < row_cells; quad += THREADS) {
        let at = rows + position * row_cells + quad;
        let four = quads[quad];
#if CACHE_F32
        cache[at] = four;
#end
#if CACHE_F16
        // What no half holds would be anything at all.
        let held = clamp(four, vec4<f32>(-65504.0), vec4<f32>(65504.0));
        cache[at] = vec2<u32>(pack2x16float(held.xy), pack2x16float(held.zw));
#end
#if CACHE_Q8
        let scale = block_scale(quad / 8u);
        let inverse = select(0.0, 1.0 / scale, scale > 1e-30);
        cache[at] = pack4xI8(rounded(four * inverse));
#end
    }
#if CACHE_Q8
    for (var pair = lane; pair < scale_cells; pair += THREADS) {
        var second = 0.0;
        if (pair * 16u + 8u < row_cells) {
            second = block_scale(pair * 2u + 1u);
        }
        let both = min(vec2<f32>(block_scale(pair * 2u), second), vec2<f32>(65504.0));
        cache[scales + position * scale_cells + pair] = pack2x16float(both);
    }
#end
}
#end

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let token = group.y;
    if (token >= step.tokens) {
        return;
    }
#if QUERIES
    if (group.x < QUERY_HEADS) {
        change_query(token, group.x, lane);
        return;
    }
#end
#if STORE
    let place = group.x - QUERY_HEADS;
    if (place < KV_HEADS) {
        make_key(token, place, lane);
#if !IN_KEYS
    } else {
        make_value(token, place - KV_HEADS, lane);
#end
    }
    workgroupBarrier();
    let position = step.start + token;
    let page = table[params.table_start + position / PAGE];
    if (page == NO_PAGE || page < params.first_page || page - params.first_page >= params.pages) {
        return;
    }
    if (place < KV_HEADS) {
        let rows = keys_at(page - params.first_page, place);
        store(rows, KEY_ROW, rows + PAGE * KEY_ROW, KEY_SCALES, position % PAGE, lane);
#if !IN_KEYS
    } else {
        let rows = values_at(page - params.first_page, place - KV_HEADS);
        store(rows, VALUE_ROW, rows + PAGE * VALUE_ROW, VALUE_SCALES, position % PAGE, lane);
#end
    }
#end
}
