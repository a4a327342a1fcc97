// Attention of many tokens, over a cache of one slab.
//
// A workgroup has a tile of 64 queries: those of BLOCK_TOKENS tokens, each with QUERIES of the query heads that share a
// head of keys and values (what is left of the 64 rows is idle). Page by page it multiplies the tile with the keys,
// makes weights of the scores, and adds up values, all from workgroup memory, of which it takes 15 KiB; sums of the
// values stay in registers. Pages that no token of the block sees are skipped.
//
// Layout: pages as in `shared/page.wgsl`; the result is a row of heads for each token. Geometry: x: blocks of tokens, y:
// heads of keys and values times pieces of their group; 256 lanes. For the scores a lane has 2 rows and 4 positions, for
// the softmax a quarter of a row, for the sums 4 rows and every 16th quad of a value. Rows in workgroup memory are 9
// quads apart, so that lanes that read one column of several rows meet different banks.
//
// CPU twin: `backend/cpu/attention.rs`; the specification is `attend` in `backend/cpu/ops.rs`.
//
// Flags: SOFTCAP, SINKS and the page's. Constants: BLOCK_TOKENS, STRIPS (of 16 quads of a value), those of
// `shared/attend.wgsl` and the page's.

#include "shared/step.wgsl"
#include "shared/page.wgsl"
#include "shared/attend.wgsl"

const THREADS: u32 = 256;
const ROWS: u32 = 64;
const BLOCK_TOKENS: u32 = $BLOCK_TOKENS;
const APART: u32 = 9; // quads from row to row
const SLICE: u32 = 8; // quads of a key that are multiplied at a time
const STRIP: u32 = 16; // quads of a value that are added at a time

@group(0) @binding(5) var<storage, read_write> sums: array<vec4<f32>>;
#if SINKS
@group(0) @binding(6) var<storage, read> sinks: array<f32>;
#end

// [ROWS, APART]: a slice of the queries; then a page's scores, then its weights, in order of position.
var<workgroup> rows: array<vec4<f32>, ROWS * APART>;
// [PAGE, APART]: a slice of a page's keys, position p as row `key_row(p)`; then [16, STRIP] of its values.
var<workgroup> page: array<vec4<f32>, PAGE * APART>;
var<workgroup> quarters_of: array<f32, THREADS>; // each quarter of a row's highest score; at the end its sum
var<workgroup> factors: array<f32, ROWS>; // what each row's sums are multiplied with

// Lanes with positions 4i to 4i + 3 read rows i, i + 8, i + 16 and i + 24.
fn key_row(position: u32) -> u32 {
    return position % 4u * 8u + position / 4u;
}

// The quad of a query that this lane stages.
fn staged_query(at: u32, is_there: bool, quad: u32) -> vec4<f32> {
    if (!is_there || quad >= KEY_QUADS) {
        return vec4<f32>();
    }
    return queries[at + quad];
}

// A quad of a page's keys to be staged; zero where there is none.
fn staged_key(index: u32, kv_head: u32, position: u32, quad: u32) -> vec4<f32> {
    if (index == NO_PAGE || quad >= KEY_QUADS) {
        return vec4<f32>();
    }
    return key_quad(keys_at(index, kv_head), position, quad);
}

// A quad of a page's values; zero where there is none. What no token sees may be anything, and is zero too.
fn staged_value(index: u32, kv_head: u32, position: u32, quad: u32, is_seen: bool) -> vec4<f32> {
    if (index == NO_PAGE || quad >= VALUE_QUADS || !is_seen) {
        return vec4<f32>();
    }
    return value_quad(values_at(index, kv_head), position, quad);
}

// A score, if the position is seen.
fn masked(product: f32, position: u32, first: u32, end: u32) -> f32 {
    return select(MASKED, score_of(product), position >= first && position < end);
}

fn highest_of(four: vec4<f32>) -> f32 {
    return max(max(four.x, four.y), max(four.z, four.w));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let kv_head = group.y / PIECES;
    let first_query = group.y % PIECES * QUERIES;
    let first_token = group.x * BLOCK_TOKENS;
    if (first_token >= step.tokens) {
        return;
    }
    let queries_here = min(QUERIES, GROUP - first_query);
    let tokens_here = min(BLOCK_TOKENS, step.tokens - first_token);
    let first_position = first_seen(step.start + first_token);
    let end_position = step.start + first_token + tokens_here;

    // Of the two queries that this lane stages: 32 rows apart, every eighth quad.
#repeat i 2
    let staged_row$i = lane / SLICE + $i * 32u;
    let staged_is$i = staged_row$i / QUERIES < tokens_here && staged_row$i % QUERIES < queries_here;
    let staged_head$i = kv_head * GROUP + first_query + staged_row$i % QUERIES;
    let staged_at$i = query_at(first_token + staged_row$i / QUERIES, staged_head$i);
#end
    // Of the two rows, of which it has scores: what they see.
    let columns = lane % SLICE;
#repeat i 2
    let row$i = lane / SLICE * 2u + $i;
    let token$i = step.start + first_token + row$i / QUERIES;
    let end$i = select(0u, token$i + 1u, row$i / QUERIES < tokens_here && row$i % QUERIES < queries_here);
    let first$i = first_seen(token$i);
#end
    // Of the row, of which it has a quarter in the softmax.
    let soft_row = lane / 4u;
    let quarter = lane % 4u;
    var highest = MASKED;
    var total = 0.0;
    // Of the four rows, of which it has sums.
    let sum_row = lane / STRIP * 4u;
    let sum_quad = lane % STRIP;
#repeat i 4
#repeat j $STRIPS
    var sum$i$j = vec4<f32>();
#end
#end

    for (var number = first_position / PAGE; number * PAGE < end_position; number++) {
        let index = page_at(number);

        // Scores.
#repeat i 2
#repeat j 4
        var score$j$i = 0.0;
#end
#end
        for (var slice = 0u; slice < KEY_QUADS; slice += SLICE) {
#repeat i 2
            rows[staged_row$i * APART + columns] = staged_query(staged_at$i, staged_is$i, slice + columns);
#end
            page[key_row(lane / SLICE) * APART + columns] = staged_key(index, kv_head, lane / SLICE, slice + columns);
            workgroupBarrier();
#repeat k 8
            {
#repeat i 2
                let query$i = rows[row$i * APART + $k];
#end
#repeat j 4
                let key$j = page[(columns + 8u * $j) * APART + $k];
#end
#repeat i 2
#repeat j 4
                score$j$i += dot(query$i, key$j);
#end
#end
            }
#end
            workgroupBarrier();
        }
        let position = number * PAGE + columns * 4u;
#repeat i 2
        let limit$i = select(end$i, 0u, index == NO_PAGE);
        rows[row$i * APART + columns] = vec4<f32>(
            masked(score0$i, position, first$i, limit$i),
            masked(score1$i, position + 1u, first$i, limit$i),
            masked(score2$i, position + 2u, first$i, limit$i),
            masked(score3$i, position + 3u, first$i, limit$i),
        );
#end
        workgroupBarrier();

        // Weights.
        let quarter_at = soft_row * APART + quarter * 2u;
        let scores0 = rows[quarter_at];
        let scores1 = rows[quarter_at + 1u];
        quarters_of[lane] = highest_of(max(scores0, scores1));
        workgroupBarrier();
        var new_highest = highest;
#repeat i 4
        new_highest = max(new_highest, quarters_of[soft_row * 4u + $i]);
#end
        let shrink = exp(highest - new_highest);
        highest = new_highest;
        let weights0 = weights_of(scores0, highest);
        let weights1 = weights_of(scores1, highest);
        total = total * shrink + dot(weights0 + weights1, vec4<f32>(1.0));
        rows[quarter_at] = weights0;
        rows[quarter_at + 1u] = weights1;
        if (quarter == 0u) {
            factors[soft_row] = shrink;
        }
        workgroupBarrier();

        // Sums of values: strips of 16 quads, 16 positions at a time.
#repeat i 4
        let factor$i = factors[sum_row + $i];
#repeat j $STRIPS
        sum$i$j *= factor$i;
#end
#end
        for (var half = 0u; half < 2u; half++) {
            let place = half * 16u + lane / STRIP;
            let is_seen = number * PAGE + place >= first_position && number * PAGE + place < end_position;
#repeat j $STRIPS
            page[lane] = staged_value(index, kv_head, place, $j * STRIP + sum_quad, is_seen);
            workgroupBarrier();
            for (var four = 0u; four < 4u; four++) {
#repeat i 4
                let value$i = page[(four * 4u + $i) * STRIP + sum_quad];
#end
#repeat i 4
                let weights$i = rows[(sum_row + $i) * APART + half * 4u + four];
#end
#repeat i 4
                sum$i$j += weights$i.x * value0 + weights$i.y * value1 + weights$i.z * value2 + weights$i.w * value3;
#end
            }
            workgroupBarrier();
#end
        }
    }

    // Divide, and write.
    quarters_of[lane] = total;
    workgroupBarrier();
    if (quarter == 0u) {
        var whole = total + quarters_of[lane + 1u] + quarters_of[lane + 2u] + quarters_of[lane + 3u];
        var shrink = 1.0;
#if SINKS
        let sink = sinks[params.sinks_start + kv_head * GROUP + min(first_query + soft_row % QUERIES, GROUP - 1u)];
        let new_highest = max(highest, sink);
        shrink = exp(highest - new_highest);
        whole = whole * shrink + exp(sink - new_highest);
#end
        factors[soft_row] = shrink / whole;
    }
    workgroupBarrier();
#repeat i 4
    let out_token$i = (sum_row + $i) / QUERIES;
    let out_query$i = (sum_row + $i) % QUERIES;
    if (out_token$i < tokens_here && out_query$i < queries_here) {
        let head = kv_head * GROUP + first_query + out_query$i;
        let at = (params.out_start + (first_token + out_token$i) * params.out_stride) / 4u + head * VALUE_QUADS;
#repeat j $STRIPS
        if ($j * STRIP + sum_quad < VALUE_QUADS) {
            sums[at + $j * STRIP + sum_quad] = sum$i$j * factors[sum_row + $i];
        }
#end
    }
#end
}
