// A matrix times the activations of many tokens: tiles of rows and tokens, so that every weight is decoded once for
// all tokens of a tile, and every activation is read once for all its rows.
//
// Layout: see `shared/product.wgsl`. Geometry: a workgroup of 64 lanes makes one tile, of 32 times $PAIRS rows and 4 times
// $TOKENS tokens. Step by step it decodes 32 columns of its rows into workgroup memory, and the same columns of its
// tokens; then each lane multiplies $PAIRS pairs of rows by $TOKENS tokens from there. Workgroups along x go over rows, along y over
// tokens. CENTERED: offsets are minus $CENTER times the scale. CPU twin: `Tiles` in `backend/cpu/simd/kernels.rs`.
//
// EXPERTS: the choices of a tile are those of one matrix: `order` holds all choices sorted by that, and then the tiles, as
// `sort_choices.wgsl` writes them. Without ROUTED as many tiles are those of the first matrix, as many of the second.

#include "shared/product.wgsl"

const LANES = 64u;
const ROW_LANES = 16u;
const TOKEN_LANES = 4u;
const ROWS = ${PAIRS}u * 2u * ROW_LANES;
const TOKENS = ${TOKENS}u * TOKEN_LANES;

#if INTEGER
// Columns 0 to 15 of each row's unit, then 16 to 31: four signed bytes a word.
var<workgroup> rows_low: array<vec4<u32>, ROWS>;
var<workgroup> rows_high: array<vec4<u32>, ROWS>;
var<workgroup> rows_factors: array<Factors, ROWS>;
var<workgroup> tokens_low: array<vec4<u32>, TOKENS>;
var<workgroup> tokens_high: array<vec4<u32>, TOKENS>;
var<workgroup> tokens_terms: array<Terms, TOKENS>;
#else
// [quad][row], so that neighbouring lanes read neighbouring numbers.
var<workgroup> tile_rows: array<vec4<f32>, ROWS * 8u>;
var<workgroup> tile_tokens: array<vec4<f32>, TOKENS * 8u>;
#end

// The row in the matrix of a place in the tile. A lane multiplies the rows at its own place, at 16 more, 32 more and so
// on; those of a pair, which are neighbours in the matrix, belong to one lane.
fn row_at(place: u32) -> u32 {
#if GATE
    return place / (2u * ROW_LANES) * (2u * ROW_LANES) + place % ROW_LANES * 2u + place / ROW_LANES % 2u;
#else
    return place;
#end
}

#if EXPERTS
#if ROUTED
var<workgroup> tile_at: vec4<u32>;
#end

// The choice in a place of the order by matrices.
fn choice_at(place: u32) -> u32 {
#if ROUTED
    return order[place];
#else
    return place * params.choices + matrix;
#end
}
#else
fn choice_at(place: u32) -> u32 {
    return place;
}
#end

#if CENTERED
// Bytes, which are below 128, less $CENTER: the upper bits keep one byte from borrowing from the next.
fn centered(bytes: vec4<u32>) -> vec4<u32> {
    let upper = vec4<u32>(0x80808080u);
    return ((bytes | upper) - vec4<u32>(${CENTER}u * 0x01010101u)) ^ upper;
}
#end

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_row = (group.z * groups.x + group.x) * ROWS;
#if EXPERTS
#if ROUTED
    if (lane == 0u) {
        let at = params.routes_start + group.y * 4u;
        tile_at = vec4<u32>(order[at], order[at + 1u], order[at + 2u], 0u);
    }
    let tile = workgroupUniformLoad(&tile_at);
    let number = tile.x;
    let first_token = tile.y;
    let end_token = tile.z;
#else
    let tokens = row_count() / params.choices;
    let tiles = max((tokens + TOKENS - 1u) / TOKENS, 1u);
    let number = group.y / tiles;
    let first_token = group.y % tiles * TOKENS;
    let end_token = min(first_token + TOKENS, tokens);
#end
    // No such tile, or it is left to the dispatch of another part.
    if (first_token >= end_token || !has_matrix(number)) {
        return;
    }
    let start_row = matrix_start(number);
    matrix = number;
#else
    let first_token = group.y * TOKENS;
    let end_token = row_count();
    let start_row = 0u;
#end
    let last_row = max(params.rows, 1u) - 1u;
    let last_token = max(end_token, 1u) - 1u;
    let row = lane % ROW_LANES;
    let token = lane / ROW_LANES;
    // Of the places in the tile that this lane fills, all have the same token.
    let from_input = input_row(choice_at(min(first_token + lane % TOKENS, last_token)));
#repeat p $PAIRS
#repeat h 2
#repeat t $TOKENS
    var sum${p}_${h}_${t} = 0.0;
#end
#end
#end
    for (var index = 0u; index < params.row_units; index++) {
        workgroupBarrier();
#if INTEGER
        for (var place = lane; place < ROWS; place += LANES) {
            let w = unit(start_row + min(first_row + row_at(place), last_row), index, params.row_units);
#if CENTERED
            rows_low[place] = centered(w.low);
            rows_high[place] = centered(w.high);
#else
            rows_low[place] = w.low;
            rows_high[place] = w.high;
#end
            rows_factors[place] = factors_of(w);
        }
        for (var place = lane; place < TOKENS; place += LANES) {
            let at = from_input * params.row_units + index;
            tokens_low[place] = x_integers[at * 2u];
            tokens_high[place] = x_integers[at * 2u + 1u];
            tokens_terms[place] = terms_at(at);
        }
        workgroupBarrier();
#repeat t $TOKENS
        let x_low$t = tokens_low[token + ${t}u * TOKEN_LANES];
        let x_high$t = tokens_high[token + ${t}u * TOKEN_LANES];
        let terms$t = tokens_terms[token + ${t}u * TOKEN_LANES];
#end
#repeat p $PAIRS
#repeat h 2
        {
            let place = row + (${p}u * 2u + ${h}u) * ROW_LANES;
            let w_low = rows_low[place];
            let w_high = rows_high[place];
            let factors = rows_factors[place];
#repeat t $TOKENS
            let low$t = dot4I8Packed(w_low.x, x_low$t.x) + dot4I8Packed(w_low.y, x_low$t.y)
                + dot4I8Packed(w_low.z, x_low$t.z) + dot4I8Packed(w_low.w, x_low$t.w);
            let high$t = dot4I8Packed(w_high.x, x_high$t.x) + dot4I8Packed(w_high.y, x_high$t.y)
                + dot4I8Packed(w_high.z, x_high$t.z) + dot4I8Packed(w_high.w, x_high$t.w);
            sum${p}_${h}_${t} += scaled(factors, low$t, high$t, terms$t);
#end
        }
#end
#end
#else
        for (var place = lane; place < ROWS; place += LANES) {
            let from_row = start_row + min(first_row + row_at(place), last_row);
#if FLOATS
#repeat q 8
            tile_rows[${q}u * ROWS + place] = floats(from_row, index, params.row_units, ${q}u);
#end
#else
            let w = unit(from_row, index, params.row_units);
#repeat q 4
            tile_rows[${q}u * ROWS + place] = w.scale.x * vec4<f32>(unpack4xI8(w.low[$q])) + w.offset.x;
            tile_rows[(${q}u + 4u) * ROWS + place] = w.scale.y * vec4<f32>(unpack4xI8(w.high[$q])) + w.offset.y;
#end
#end
        }
        for (var place = lane; place < TOKENS * 8u; place += LANES) {
            tile_tokens[place] = activation(from_input, index * 8u + place / TOKENS);
        }
        workgroupBarrier();
#repeat q 8
        {
#repeat t $TOKENS
            let x$t = tile_tokens[${q}u * TOKENS + token + ${t}u * TOKEN_LANES];
#end
#repeat p $PAIRS
#repeat h 2
            {
                let w = tile_rows[${q}u * ROWS + row + (${p}u * 2u + ${h}u) * ROW_LANES];
#repeat t $TOKENS
                sum${p}_${h}_${t} += dot(w, x$t);
#end
            }
#end
#end
        }
#end
#end
    }
#repeat t $TOKENS
    {
        let place = first_token + token + ${t}u * TOKEN_LANES;
        if (place < end_token) {
            let at_token = choice_at(place);
#if GATE
#repeat p $PAIRS
            {
                let pair = first_row / 2u + ${p}u * ROW_LANES + row;
                if (2u * pair < params.rows) {
                    put_gated(at_token, pair, sum${p}_0_${t}, sum${p}_1_${t});
                }
            }
#end
#else
#repeat p $PAIRS
#repeat h 2
            {
                let at_row = first_row + row + (${p}u * 2u + ${h}u) * ROW_LANES;
                if (at_row < params.rows) {
                    put(at_token, at_row, sum${p}_${h}_${t});
                }
            }
#end
#end
#end
        }
    }
#end
}
