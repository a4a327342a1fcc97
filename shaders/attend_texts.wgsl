// Attention over the texts of a batch: each token sees its own text, whose keys and values are in slots.
//
// A workgroup has one head of BLOCK tokens, of which it goes over all keys and values that any of them sees, TILE
// positions at a time; what a token does not see counts nothing, so a block may have tokens of several texts. Four lanes
// share a token: each has every fourth quad of its query and of its sum in registers.
//
// Layout: queries, keys, values and sums are views, in quads; `texts` has the first token and the end of each token's
// text. Geometry: x: blocks of tokens, y: heads; 64 lanes.
//
// CPU twin: `backend/cpu/texts.rs`; the specification is `attend_fading` in `backend/cpu/ops.rs`.
//
// Flags: SOFTCAP; FADING takes off scores by distance. Constants: GROUP (heads that share keys and values), KEY_QUADS,
// VALUE_QUADS, KEY_STRIPS and VALUE_STRIPS (quads of a lane), TILE, TILE_QUADS (the larger of the former).

#include "shared/step.wgsl"

struct Params {
    query_start: u32,
    query_stride: u32,
    key_start: u32,
    key_stride: u32,
    value_start: u32,
    value_stride: u32,
    out_start: u32,
    out_stride: u32,
    back: u32,  // how far back a token sees
    ahead: u32, // and how far ahead
    scale: f32,
    softcap: f32,
    most_bias: f32,
    even_heads: u32, // the last power of two among the heads
}

const THREADS: u32 = 64;
const BLOCK: u32 = 16;
const GROUP: u32 = $GROUP;
const KEY_QUADS: u32 = $KEY_QUADS;
const VALUE_QUADS: u32 = $VALUE_QUADS;
const TILE: u32 = $TILE;
const MASKED: f32 = -3e38; // the score of what is not seen
const LEAST: f32 = -1e38;  // scores that count are higher

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> texts: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> queries: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> sums: array<vec4<f32>>;

var<workgroup> tile: array<vec4<f32>, TILE * $TILE_QUADS>; // [TILE, quads]: keys, then values
var<workgroup> scores: array<f32, TILE * THREADS>; // [TILE, lanes]: each lane's part; then a token's first lane's is all
var<workgroup> bounds: vec2<u32>;

// The positions, in the batch, that a token sees.
fn seen_by(token: u32) -> vec2<u32> {
    let text = texts[token];
    let back = min(params.back, token - text.x);
    let ahead = min(params.ahead, text.y - 1u - token);
    return vec2<u32>(token - back, token + ahead + 1u);
}

// A score, of a product of query and key that are so far apart.
fn score_of(product: f32, head: u32, distance: f32) -> f32 {
    var score = product * params.scale;
#if SOFTCAP
    score = params.softcap * tanh(score / params.softcap);
#end
#if FADING
    let behind = f32(head) - f32(params.even_heads);
    let exponent = select(behind + 0.5, f32(head) + 1.0, behind < 0.0);
    score -= exp2(-params.most_bias * exponent / f32(params.even_heads)) * distance;
#end
    return score;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first_token = group.x * BLOCK;
    if (first_token >= step.tokens) {
        return;
    }
    let head = group.y;
    let kv_head = head / GROUP;
    let last = min(BLOCK, step.tokens - first_token) - 1u;
    if (lane == 0u) {
        bounds = vec2<u32>(seen_by(first_token).x, seen_by(first_token + last).y);
    }
    let all = workgroupUniformLoad(&bounds);

    let row = lane / 4u;
    let quarter = lane % 4u;
    let token = first_token + min(row, last);
    let seen = seen_by(token);
    let query_at = (params.query_start + token * params.query_stride) / 4u + head * KEY_QUADS;
    let key_at = params.key_start / 4u + kv_head * KEY_QUADS;
    let value_at = params.value_start / 4u + kv_head * VALUE_QUADS;
#repeat i $KEY_STRIPS
    var query$i = vec4<f32>();
    if (quarter + 4u * $i < KEY_QUADS) {
        query$i = queries[query_at + quarter + 4u * $i];
    }
    let key_quad$i = min(quarter + 4u * $i, KEY_QUADS - 1u);
#end
#repeat i $VALUE_STRIPS
    var sum$i = vec4<f32>();
    let value_quad$i = min(quarter + 4u * $i, VALUE_QUADS - 1u);
#end
    var highest = MASKED;
    var total = 0.0;

    for (var start = all.x; start < all.y; start += TILE) {
        // Keys, and the parts of their products with queries.
        for (var i = lane; i < TILE * KEY_QUADS; i += THREADS) {
            let position = start + i / KEY_QUADS;
            var quad = vec4<f32>();
            if (position < all.y) {
                quad = keys[key_at + position * (params.key_stride / 4u) + i % KEY_QUADS];
            }
            tile[i] = quad;
        }
        workgroupBarrier();
        for (var j = 0u; j < TILE; j++) {
            var part = 0.0;
#repeat i $KEY_STRIPS
            part += dot(query$i, tile[j * KEY_QUADS + key_quad$i]);
#end
            scores[j * THREADS + lane] = part;
        }
        workgroupBarrier();

        // Every lane finishes each fourth score of its token; and values take the place of keys.
        for (var j = quarter; j < TILE; j += 4u) {
            let at = j * THREADS + row * 4u;
            let product = scores[at] + scores[at + 1u] + scores[at + 2u] + scores[at + 3u];
            let position = start + j;
            let distance = abs(f32(position) - f32(token));
            let is_seen = position >= seen.x && position < seen.y;
            scores[at] = select(MASKED, score_of(product, head, distance), is_seen);
        }
        for (var i = lane; i < TILE * VALUE_QUADS; i += THREADS) {
            let position = start + i / VALUE_QUADS;
            var quad = vec4<f32>();
            if (position < all.y) {
                quad = values[value_at + position * (params.value_stride / 4u) + i % VALUE_QUADS];
            }
            tile[i] = quad;
        }
        workgroupBarrier();

        var new_highest = highest;
        for (var j = 0u; j < TILE; j++) {
            new_highest = max(new_highest, scores[j * THREADS + row * 4u]);
        }
        let shrink = exp(highest - new_highest);
        highest = new_highest;
        total *= shrink;
#repeat i $VALUE_STRIPS
        sum$i *= shrink;
#end
        for (var j = 0u; j < TILE; j++) {
            let score = scores[j * THREADS + row * 4u];
            let weight = select(0.0, exp(score - highest), score > LEAST);
            total += weight;
#repeat i $VALUE_STRIPS
            sum$i += weight * tile[j * VALUE_QUADS + value_quad$i];
#end
        }
        workgroupBarrier();
    }
    if (row > last) {
        return;
    }
    let out_at = (params.out_start + token * params.out_stride) / 4u + head * VALUE_QUADS;
#repeat i $VALUE_STRIPS
    if (quarter + 4u * $i < VALUE_QUADS) {
        sums[out_at + quarter + 4u * $i] = sum$i / total;
    }
#end
}
