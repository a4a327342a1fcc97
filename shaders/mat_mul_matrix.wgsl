// A matrix times the activations of many tokens, by the units of a GPU that multiply matrices: both are rounded to 16 bits
// on their way into workgroup memory, and added up in 32.
//
// Layout: see `shared/product.wgsl`; activations are f32. Geometry: a workgroup of four subgroups, of which all on the
// device have $SUBGROUP lanes, makes a tile of 64 rows and 64 tokens. Step by step it decodes 32 columns of both; then
// each subgroup multiplies 16 rows with all tokens, in matrices of 16 by 16. Workgroups along x go over rows, along y over
// tokens. CPU twin: `Tiles` in `backend/cpu/simd/kernels.rs`.

enable f16;
enable wgpu_cooperative_matrix;

#include "shared/product.wgsl"

const SUBGROUP = ${SUBGROUP}u;
const TEAMS = 4u;
const LANES = TEAMS * SUBGROUP;
const ROWS = 16u * TEAMS;
const TOKENS = 64u;
const COLUMNS = 32u;

var<workgroup> tile_rows: array<f16, ROWS * COLUMNS>;     // [row][column]
var<workgroup> tile_tokens: array<f16, TOKENS * COLUMNS>; // [token][column]
var<workgroup> results: array<f32, TEAMS * 256u>;         // of each team: [row][token]

// The largest numbers of 16 bits stand for what is larger.
fn rounded(four: vec4<f32>) -> vec4<f16> {
    return vec4<f16>(clamp(four, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}

fn keep_row(place: u32, quad: u32, four: vec4<f32>) {
    let halves = rounded(four);
    let at = place * COLUMNS + quad * 4u;
#repeat i 4
    tile_rows[at + ${i}u] = halves[$i];
#end
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_row = (group.z * groups.x + group.x) * ROWS;
    let first_token = group.y * TOKENS;
    let last_row = max(params.rows, 1u) - 1u;
    let last_token = max(row_count(), 1u) - 1u;
    let team = lane / SUBGROUP;
#repeat t 4
    var sums$t = coop_mat16x16<f32, C>();
#end
    for (var index = 0u; index < params.row_units; index++) {
        workgroupBarrier();
        for (var place = lane; place < ROWS; place += LANES) {
            let source = min(first_row + place, last_row);
#if FLOATS
#repeat q 8
            keep_row(place, ${q}u, floats(source, index, params.row_units, ${q}u));
#end
#else
            let w = unit(source, index, params.row_units);
#repeat q 4
            keep_row(place, ${q}u, w.scale.x * vec4<f32>(unpack4xI8(w.low[$q])) + w.offset.x);
            keep_row(place, ${q}u + 4u, w.scale.y * vec4<f32>(unpack4xI8(w.high[$q])) + w.offset.y);
#end
#end
        }
        for (var place = lane; place < TOKENS * 8u; place += LANES) {
            let quad = place % 8u;
            let halves = rounded(activation(min(first_token + place / 8u, last_token), index * 8u + quad));
            let at = place / 8u * COLUMNS + quad * 4u;
#repeat i 4
            tile_tokens[at + ${i}u] = halves[$i];
#end
        }
        workgroupBarrier();
#repeat k 2
        {
            let a = coopLoadT<coop_mat16x16<f16, A>>(&tile_rows[team * 16u * COLUMNS + ${k}u * 16u], COLUMNS);
#repeat t 4
            let b$t = coopLoad<coop_mat16x16<f16, B>>(&tile_tokens[${t}u * 16u * COLUMNS + ${k}u * 16u], COLUMNS);
            sums$t = coopMultiplyAdd(a, b$t, sums$t);
#end
        }
#end
    }
    // No lane knows which results it has: they go through memory.
#repeat t 4
    workgroupBarrier();
    coopStoreT(sums$t, &results[team * 256u], 16u);
    workgroupBarrier();
    {
#if GATE
        for (var at = lane % SUBGROUP; at < 128u; at += SUBGROUP) {
            let row = first_row + team * 16u + at / 16u * 2u;
            let token = first_token + ${t}u * 16u + at % 16u;
            let from_row = team * 256u + at / 16u * 32u + at % 16u;
            if (row < params.rows && token < row_count()) {
                put_gated(token, row / 2u, results[from_row], results[from_row + 16u]);
            }
        }
#else
        for (var at = lane % SUBGROUP; at < 256u; at += SUBGROUP) {
            let row = first_row + team * 16u + at / 16u;
            let token = first_token + ${t}u * 16u + at % 16u;
            if (row < params.rows && token < row_count()) {
                put(token, row, results[team * 256u + at]);
            }
        }
#end
    }
#end
}
