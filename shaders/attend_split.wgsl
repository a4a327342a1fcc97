// Attention of few tokens: each workgroup takes some of the pages that a token sees.
//
// Layout: pages as in `shared/page.wgsl`; `partials` holds [slabs * splits, tokens, heads] entries of one quad (the
// highest score, the sum of the weights, nothing, nothing) and then the weighted sum of the values, not divided yet.
// Where the sum of the weights is zero, the values may be anything.
//
// Geometry: x: splits, y: heads of keys and values times pieces of their group of query heads, z: tokens; 128 lanes. A
// workgroup goes through its pages in chunks of CHUNK_PAGES, for QUERIES query heads at once, so that keys and values
// are read once. For the scores four neighbouring lanes share a position and go along its key together; for the softmax
// 16 lanes share a query; for the sums neighbouring lanes go along a value, and SLICES of lanes along the positions.
// Pages that are not in the slab are left to other dispatches.
//
// CPU twin: `backend/cpu/attention.rs`; the specification is `attend` in `backend/cpu/ops.rs`.
//
// Flags: SOFTCAP, KEY_STEPS (the key has 4 quads or more), KEY_TAIL (its quads are no multiple of 4), GROUP_TAIL (the
// group is no multiple of QUERIES), and the page's. Constants: CHUNK_PAGES, KEY_UNROLL, SLICES, those of
// `shared/attend.wgsl` and the page's.

#include "shared/step.wgsl"
#include "shared/page.wgsl"
#include "shared/attend.wgsl"

const THREADS: u32 = 128;
const CHUNK_PAGES: u32 = $CHUNK_PAGES;
const CHUNK: u32 = CHUNK_PAGES * PAGE;
const KEY_STEPS: u32 = KEY_QUADS / 4;
const KEY_UNROLL: u32 = $KEY_UNROLL;
const SLICES: u32 = $SLICES;
const LANES: u32 = 16;

@group(0) @binding(5) var<storage, read_write> partials: array<vec4<f32>>;

var<workgroup> query: array<vec4<f32>, QUERIES * KEY_QUADS>;
// [QUERIES, CHUNK, 4]: what each of four lanes has of a score; then, in the first of the four, the weight.
var<workgroup> scores: array<f32, QUERIES * CHUNK * 4>;
var<workgroup> lanes_of: array<f32, THREADS>; // [QUERIES, LANES]: highest scores, at the end sums
var<workgroup> shrinks: array<f32, QUERIES>;
var<workgroup> slices_of: array<vec4<f32>, THREADS>;

fn load_queries(token: u32, kv_head: u32, first_query: u32, lane: u32) {
    for (var i = lane; i < QUERIES * KEY_QUADS; i += THREADS) {
        let head = first_query + i / KEY_QUADS;
#if GROUP_TAIL
        if (head >= GROUP) {
            query[i] = vec4<f32>();
            continue;
        }
#end
        query[i] = queries[query_at(token, kv_head * GROUP + head) + i % KEY_QUADS];
    }
}

// What this lane has of the scores of a page, the `within`th of the chunk.
fn score_page(page: u32, within: u32, kv_head: u32, lane: u32) {
    let keys = keys_at(page, kv_head);
    let position = lane / 4u;
    let slice = lane % 4u;
#repeat q $QUERIES
    var sum$q = vec4<f32>();
#end
#if KEY_STEPS
    for (var at = slice; at < KEY_STEPS * 4u; at += KEY_UNROLL * 4u) {
#repeat u $KEY_UNROLL
        let key$u = key_quad(keys, position, at + $u * 4u);
#end
#repeat u $KEY_UNROLL
#repeat q $QUERIES
        sum$q = fma(query[$q * KEY_QUADS + at + $u * 4u], key$u, sum$q);
#end
#end
    }
#end
#if KEY_TAIL
    let last = KEY_STEPS * 4u + slice;
    if (last < KEY_QUADS) {
        let key = key_quad(keys, position, last);
#repeat q $QUERIES
        sum$q = fma(query[$q * KEY_QUADS + last], key, sum$q);
#end
    }
#end
    let at = (within * PAGE + position) * 4u + slice;
#repeat q $QUERIES
    scores[$q * CHUNK * 4u + at] = dot(sum$q, vec4<f32>(1.0));
#end
}

// The score of a query of this lane at a position of the sequence; `at` is its place in `scores`.
fn finished_score(at: u32, position: u32, first: u32, end: u32) -> f32 {
    if (position < first || position >= end || page_at(position / PAGE) == NO_PAGE) {
        return MASKED;
    }
    return score_of((scores[at] + scores[at + 1u]) + (scores[at + 2u] + scores[at + 3u]));
}

// The weight of a score, given the highest.
fn weight_of(score: f32, highest: f32) -> f32 {
    return select(0.0, exp(score - highest), score > LEAST);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let token = group.z;
    if (token >= step.tokens) {
        return;
    }
    let kv_head = group.y / PIECES;
    let first_query = group.y % PIECES * QUERIES;
    let position = step.start + token;
    let seen_from = first_seen(position);
    let first_page = seen_from / PAGE;
    let page_count = position / PAGE + 1u - first_page;
    let begin = first_page + page_count * group.x / params.splits;
    let until = first_page + page_count * (group.x + 1u) / params.splits;
    // The positions of this split.
    let first = max(seen_from, begin * PAGE);
    let end = min(position + 1u, until * PAGE);

    load_queries(token, kv_head, first_query, lane);
    workgroupBarrier();

    let own_query = lane / LANES;      // for the softmax
    let quad = lane % VALUE_QUADS;     // for the sums
    let slice = lane / VALUE_QUADS;
    var highest = MASKED;
    var total = 0.0;
#repeat q $QUERIES
    var sum$q = vec4<f32>();
#end
    for (var chunk = begin; chunk < until; chunk += CHUNK_PAGES) {
        for (var within = 0u; within < CHUNK_PAGES && chunk + within < until; within++) {
            let page = page_at(chunk + within);
            if (page != NO_PAGE) {
                score_page(page, within, kv_head, lane);
            }
        }
        workgroupBarrier();

        let start = lane % LANES; // of this lane's positions in the chunk
#repeat i $LANE_POSITIONS
        let at$i = (own_query * CHUNK + start + $i * LANES) * 4u;
        var score$i = MASKED;
#end
        if (own_query < QUERIES) {
#repeat i $LANE_POSITIONS
            score$i = finished_score(at$i, chunk * PAGE + start + $i * LANES, first, end);
#end
        }
        var new_highest = highest;
#repeat i $LANE_POSITIONS
        new_highest = max(new_highest, score$i);
#end
        lanes_of[lane] = new_highest;
        workgroupBarrier();

        if (own_query < QUERIES) {
#repeat i 16
            new_highest = max(new_highest, lanes_of[own_query * LANES + $i]);
#end
            let shrink = exp(highest - new_highest);
            highest = new_highest;
            total *= shrink;
#repeat i $LANE_POSITIONS
            let weight$i = weight_of(score$i, highest);
            total += weight$i;
            scores[at$i] = weight$i;
#end
            if (start == 0u) {
                shrinks[own_query] = shrink;
            }
        }
        workgroupBarrier();

#repeat q $QUERIES
        sum$q *= shrinks[$q];
#end
        for (var within = 0u; within < CHUNK_PAGES && chunk + within < until; within++) {
            let page = page_at(chunk + within);
            if (page != NO_PAGE && slice < SLICES) {
                let values = values_at(page, kv_head);
                let start_of_page = (chunk + within) * PAGE;
                let page_end = min(end, start_of_page + PAGE) - start_of_page;
                let weights = within * PAGE * 4u;
                var p = max(first, start_of_page) - start_of_page + slice;
                for (; p + 3u * SLICES < page_end; p += 4u * SLICES) {
#repeat u 4
                    let value$u = value_quad(values, p + $u * SLICES, quad);
#end
#repeat u 4
#repeat q $QUERIES
                    sum$q += scores[$q * CHUNK * 4u + weights + (p + $u * SLICES) * 4u] * value$u;
#end
#end
                }
                for (; p < page_end; p += SLICES) {
                    let value = value_quad(values, p, quad);
#repeat q $QUERIES
                    sum$q += scores[$q * CHUNK * 4u + weights + p * 4u] * value;
#end
                }
            }
        }
        workgroupBarrier();
    }

    // Put together what the lanes have, and write it.
    lanes_of[lane] = total;
    let entry = ((params.first_split + group.x) * step.tokens + token) * HEADS + kv_head * GROUP + first_query;
#repeat q $QUERIES
    slices_of[lane] = sum$q;
    workgroupBarrier();
    if (lane < VALUE_QUADS && first_query + $q < GROUP) {
        var whole = slices_of[lane];
        for (var i = 1u; i < SLICES; i++) {
            whole += slices_of[i * VALUE_QUADS + lane];
        }
        partials[(entry + $q) * (VALUE_QUADS + 1u) + 1u + lane] = whole;
    }
    workgroupBarrier();
#end
    if (own_query < QUERIES && lane % LANES == 0u && first_query + own_query < GROUP) {
        var whole = 0.0;
#repeat i 16
        whole += lanes_of[lane + $i];
#end
        partials[(entry + own_query) * (VALUE_QUADS + 1u)] = vec4<f32>(highest, whole, 0.0, 0.0);
    }
}
