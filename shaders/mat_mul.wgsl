// A matrix times the activations of many tokens: tiles of 64 rows and 32 tokens, so that every weight is decoded once for
// 32 tokens, and every activation is read once for 64 rows.
//
// Layout: see `shared/product.wgsl`. Geometry: a workgroup of 128 lanes makes one tile. Step by step it decodes 32 columns of
// its rows into workgroup memory, and the same columns of its tokens; then each lane multiplies four rows by four tokens
// from there. Workgroups along x go over rows, along y over tokens. CPU twin: `Tiles` in `backend/cpu/simd/kernels.rs`.

#include "shared/product.wgsl"

const ROWS = 64u;
const TOKENS = 32u;
const LANES = 128u;

#if INTEGER
// Columns 0 to 15 of each row's unit, then 16 to 31: four signed bytes a word.
var<workgroup> rows_low: array<vec4<u32>, ROWS>;
var<workgroup> rows_high: array<vec4<u32>, ROWS>;
var<workgroup> rows_scale: array<vec4<f32>, ROWS>; // scale, offset
var<workgroup> tokens_low: array<vec4<u32>, TOKENS>;
var<workgroup> tokens_high: array<vec4<u32>, TOKENS>;
var<workgroup> tokens_scale: array<vec4<f32>, TOKENS>;
#else
// [quad][row], so that neighbouring lanes read neighbouring numbers.
var<workgroup> tile_rows: array<vec4<f32>, ROWS * 8u>;
var<workgroup> tile_tokens: array<vec4<f32>, TOKENS * 8u>;
#end

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_row = (group.z * groups.x + group.x) * ROWS;
    let first_token = group.y * TOKENS;
    let last_row = max(params.rows, 1u) - 1u;
    let last_token = max(row_count(), 1u) - 1u;
    // This lane's rows are row, row + 16, row + 32, row + 48 of the tile; its tokens token, token + 8, …
    let row = lane % 16u;
    let token = lane / 16u;
#repeat r 4
#repeat t 4
    var sum${r}_${t} = 0.0;
#end
#end
    for (var index = 0u; index < params.row_units; index++) {
        workgroupBarrier();
#if INTEGER
        if (lane < ROWS) {
            let w = unit(min(first_row + lane, last_row), index, params.row_units);
            rows_low[lane] = w.low;
            rows_high[lane] = w.high;
            rows_scale[lane] = vec4<f32>(w.scale, w.offset);
        } else if (lane < ROWS + TOKENS) {
            let own = lane - ROWS;
            let at = min(first_token + own, last_token) * params.row_units + index;
            tokens_low[own] = xq[at * 2u];
            tokens_high[own] = xq[at * 2u + 1u];
            tokens_scale[own] = xs[at];
        }
        workgroupBarrier();
#repeat t 4
        let x_low$t = tokens_low[token + ${t}u * 8u];
        let x_high$t = tokens_high[token + ${t}u * 8u];
        let x_scale$t = tokens_scale[token + ${t}u * 8u];
#end
#repeat r 4
        {
            let w_low = rows_low[row + ${r}u * 16u];
            let w_high = rows_high[row + ${r}u * 16u];
            let w_scale = rows_scale[row + ${r}u * 16u];
#repeat t 4
            let low$t = dot4I8Packed(w_low.x, x_low$t.x) + dot4I8Packed(w_low.y, x_low$t.y)
                + dot4I8Packed(w_low.z, x_low$t.z) + dot4I8Packed(w_low.w, x_low$t.w);
            let high$t = dot4I8Packed(w_high.x, x_high$t.x) + dot4I8Packed(w_high.y, x_high$t.y)
                + dot4I8Packed(w_high.z, x_high$t.z) + dot4I8Packed(w_high.w, x_high$t.w);
            sum${r}_${t} += x_scale$t.x * (w_scale.x * f32(low$t) + w_scale.y * f32(high$t));
#if OFFSETS
            sum${r}_${t} += w_scale.z * x_scale$t.y + w_scale.w * x_scale$t.z;
#end
#end
        }
#end
#else
        // Two lanes to a row, and four to a token.
        {
            let own = lane % ROWS;
            let half = lane / ROWS;
            let from_row = min(first_row + own, last_row);
#if FLOATS
#repeat q 4
            tile_rows[(half * 4u + ${q}u) * ROWS + own] = floats(from_row, index, params.row_units, half * 4u + ${q}u);
#end
#else
            let w = unit(from_row, index, params.row_units);
            let bytes = select(w.low, w.high, half == 1u);
            let scale = select(w.scale.x, w.scale.y, half == 1u);
            let offset = select(w.offset.x, w.offset.y, half == 1u);
            tile_rows[(half * 4u + 0u) * ROWS + own] = scale * vec4<f32>(unpack4xI8(bytes.x)) + offset;
            tile_rows[(half * 4u + 1u) * ROWS + own] = scale * vec4<f32>(unpack4xI8(bytes.y)) + offset;
            tile_rows[(half * 4u + 2u) * ROWS + own] = scale * vec4<f32>(unpack4xI8(bytes.z)) + offset;
            tile_rows[(half * 4u + 3u) * ROWS + own] = scale * vec4<f32>(unpack4xI8(bytes.w)) + offset;
#end
            let x_own = lane % TOKENS;
            let x_quad = lane / TOKENS * 2u;
            let x_token = min(first_token + x_own, last_token);
            tile_tokens[x_quad * TOKENS + x_own] = activation(x_token, index * 8u + x_quad);
            tile_tokens[(x_quad + 1u) * TOKENS + x_own] = activation(x_token, index * 8u + x_quad + 1u);
        }
        workgroupBarrier();
#repeat q 8
        {
#repeat t 4
            let x$t = tile_tokens[${q}u * TOKENS + token + ${t}u * 8u];
#end
#repeat r 4
            let w$r = tile_rows[${q}u * ROWS + row + ${r}u * 16u];
#repeat t 4
            sum${r}_${t} += dot(w$r, x$t);
#end
#end
        }
#end
#end
    }
#repeat r 4
    {
        let at_row = first_row + row + ${r}u * 16u;
#repeat t 4
        let at_token$t = first_token + token + ${t}u * 8u;
#if GATE
        // The rows of a pair are neighbours, and so are their lanes: the odd one hands its result over.
        store_pair[lane] = sum${r}_${t};
        workgroupBarrier();
        if (row % 2u == 0u && at_row < params.rows && at_token$t < row_count()) {
            put_gated(at_token$t, at_row / 2u, store_pair[lane], store_pair[lane + 1u]);
        }
        workgroupBarrier();
#else
        if (at_row < params.rows && at_token$t < row_count()) {
            put(at_token$t, at_row, sum${r}_${t});
        }
#end
#end
    }
#end
}

#if GATE
var<workgroup> store_pair: array<f32, LANES>;
#end
