// A matrix times the activations of few tokens: every weight is read once, decoded in registers and multiplied with all
// tokens, so that this runs at the speed of memory.
//
// Layout: see `shared/product.wgsl`. Geometry: a team takes $ROWS neighbouring rows; its lanes go over the units of 32
// columns side by side, each with sums of its own for each row and each of $TOKENS tokens, which are put together at the
// end. A team is a subgroup, whatever its size, where there are any; teams do not wait for each other then. Otherwise it
// is the workgroup of $LANES lanes. More tokens are more workgroups along z. CPU twin: `Rows` in
// `backend/cpu/simd/kernels.rs`.
//
// QUANTIZE: the results of a workgroup, which are whole units of gated pairs then, are rounded to eight bits. EXPERTS: a
// workgroup takes one choice, and so one matrix; $TOKENS is 1.

#include "shared/product.wgsl"

const LANES = ${LANES}u;
const ROWS = ${ROWS}u;
const TOKENS = ${TOKENS}u;
const SUMS = ROWS * TOKENS;

#if EXPERTS
fn matrix_of(choice: u32) -> u32 {
#if ROUTED
    let at = params.routes_start + choice / params.choices * params.routes_stride + choice % params.choices;
    return u32(clamp(routes[at], 0.0, 65535.0));
#else
    return choice % params.choices;
#end
}
#end

#if SUBGROUPS
#if QUANTIZE
// Of each token, those of all teams. Subgroups have at least four lanes.
const MOST_RESULTS = LANES / 4u * ROWS / 2u;
var<workgroup> results: array<f32, MOST_RESULTS * TOKENS>;
#end
#else
var<workgroup> partial: array<f32, SUMS * LANES>;
#end

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
#if SUBGROUPS
    @builtin(subgroup_size) subgroup_size: u32,
    @builtin(subgroup_invocation_id) team_lane: u32,
#end
) {
#if SUBGROUPS
    let team_lanes = subgroup_size;
    let teams = max(LANES / subgroup_size, 1u);
    let team = lane / subgroup_size;
#else
    let team_lane = lane;
    let team_lanes = LANES;
    let teams = 1u;
    let team = 0u;
#end
    let group_first = (group.y * groups.x + group.x) * teams * ROWS;
    let first = group_first + team * ROWS;
    let last = max(params.rows, 1u) - 1u;
    let first_token = group.z * TOKENS;
#if EXPERTS
    // A matrix that is in another part is left to another dispatch.
    matrix = matrix_of(first_token);
    let is_here = has_matrix(matrix);
    let start = matrix_start(matrix);
#else
    let is_here = true;
    let start = 0u;
#end
#repeat r $ROWS
    // Rows past the end repeat the last one, and are not written.
    let row$r = start + min(first + ${r}u, last);
#repeat t $TOKENS
    var sum${r}_${t} = 0.0;
#end
#end
#repeat t $TOKENS
    let input$t = input_row(first_token + ${t}u);
#end
    // Where subgroups are smaller than they might be, some have no rows.
    let end = select(0u, params.row_units, first <= last && is_here);
    for (var index = team_lane; index < end; index += team_lanes) {
#repeat t $TOKENS
#if INTEGER
        let at$t = input$t * params.row_units + index;
        let x_low$t = x_integers[at$t * 2u];
        let x_high$t = x_integers[at$t * 2u + 1u];
        let terms$t = terms_at(at$t);
#else
#repeat q 8
        let x${t}_${q} = activation(input$t, index * 8u + ${q}u);
#end
#if OFFSETS
        let x_low$t = dot(x${t}_0 + x${t}_1 + x${t}_2 + x${t}_3, vec4<f32>(1.0));
        let x_high$t = dot(x${t}_4 + x${t}_5 + x${t}_6 + x${t}_7, vec4<f32>(1.0));
#end
#end
#end
#repeat r $ROWS
        {
#if FLOATS
#repeat q 8
            let w$q = floats(row$r, index, params.row_units, ${q}u);
#end
#repeat t $TOKENS
#repeat q 8
            sum${r}_${t} += dot(w$q, x${t}_${q});
#end
#end
#else
            let w = unit(row$r, index, params.row_units);
#if INTEGER
            let factors = factors_of(w);
#repeat t $TOKENS
            let low$t = dot4I8Packed(w.low.x, x_low$t.x) + dot4I8Packed(w.low.y, x_low$t.y)
                + dot4I8Packed(w.low.z, x_low$t.z) + dot4I8Packed(w.low.w, x_low$t.w);
            let high$t = dot4I8Packed(w.high.x, x_high$t.x) + dot4I8Packed(w.high.y, x_high$t.y)
                + dot4I8Packed(w.high.z, x_high$t.z) + dot4I8Packed(w.high.w, x_high$t.w);
            sum${r}_${t} += scaled(factors, low$t, high$t, terms$t);
#end
#else
            let w0 = vec4<f32>(unpack4xI8(w.low.x));
            let w1 = vec4<f32>(unpack4xI8(w.low.y));
            let w2 = vec4<f32>(unpack4xI8(w.low.z));
            let w3 = vec4<f32>(unpack4xI8(w.low.w));
            let w4 = vec4<f32>(unpack4xI8(w.high.x));
            let w5 = vec4<f32>(unpack4xI8(w.high.y));
            let w6 = vec4<f32>(unpack4xI8(w.high.z));
            let w7 = vec4<f32>(unpack4xI8(w.high.w));
#repeat t $TOKENS
            let low$t = dot(w0, x${t}_0) + dot(w1, x${t}_1) + dot(w2, x${t}_2) + dot(w3, x${t}_3);
            let high$t = dot(w4, x${t}_4) + dot(w5, x${t}_5) + dot(w6, x${t}_6) + dot(w7, x${t}_7);
            sum${r}_${t} += w.scale.x * low$t + w.scale.y * high$t;
#if OFFSETS
            sum${r}_${t} += w.offset.x * x_low$t + w.offset.y * x_high$t;
#end
#end
#end
#end
        }
#end
    }

#if SUBGROUPS
#repeat r $ROWS
#repeat t $TOKENS
    let all${r}_${t} = subgroupAdd(sum${r}_${t});
#end
#end
#else
#repeat r $ROWS
#repeat t $TOKENS
    partial[(${r}u * TOKENS + ${t}u) * LANES + lane] = sum${r}_${t};
#end
#end
    workgroupBarrier();
    // Each quarter of the lanes adds up four, then a lane for each result adds up what is left.
    for (var value = lane / 16u; value < SUMS; value += 4u) {
        let at = value * LANES + lane % 16u;
        partial[at] += partial[at + 16u] + partial[at + 32u] + partial[at + 48u];
    }
    workgroupBarrier();
#end
    // Each lane of a team finishes some of the results.
#if GATE
    for (var value = team_lane; value < SUMS / 2u; value += team_lanes) {
        let pair = value / TOKENS;
        let nth = value % TOKENS;
        let token = first_token + nth;
        let gate_at = 2u * pair * TOKENS + nth;
        var gate = 0.0;
        var up = 0.0;
#if SUBGROUPS
#repeat r $ROWS
#repeat t $TOKENS
        gate = select(gate, all${r}_${t}, gate_at == ${r}u * TOKENS + ${t}u);
        up = select(up, all${r}_${t}, gate_at + TOKENS == ${r}u * TOKENS + ${t}u);
#end
#end
#else
        for (var part = 0u; part < 16u; part++) {
            gate += partial[gate_at * LANES + part];
            up += partial[(gate_at + TOKENS) * LANES + part];
        }
#end
        let is_there = is_here && first + 2u * pair < params.rows && token < row_count();
#if QUANTIZE
        let result = gated(min(first / 2u + pair, last / 2u), gate, up);
        results[nth * (teams * ROWS / 2u) + team * ROWS / 2u + pair] = select(0.0, result, is_there);
#else
        if (is_there) {
            put_gated(token, first / 2u + pair, gate, up);
        }
#end
    }
#if QUANTIZE
    workgroupBarrier();
    let group_results = teams * ROWS / 2u;
    for (var begin = 0u; begin < MOST_RESULTS * TOKENS; begin += LANES * 4u) {
        let at = begin + lane * 4u;
        let token = first_token + at / group_results;
        let unit = params.first_row / 64u + group_first / 64u + at % group_results / 32u;
        let is_token = is_here && at < group_results * TOKENS && token < row_count();
        let exists = is_token && unit < params.out_stride;
        let source = min(at, MOST_RESULTS * TOKENS - 4u);
        let four = vec4<f32>(results[source], results[source + 1u], results[source + 2u], results[source + 3u]);
        quantize(four, lane, token * params.out_stride + unit, exists);
    }
#end
#else
    for (var value = team_lane; value < SUMS; value += team_lanes) {
        let row = first + value / TOKENS;
        let token = first_token + value % TOKENS;
        var result = 0.0;
#if SUBGROUPS
#repeat r $ROWS
#repeat t $TOKENS
        result = select(result, all${r}_${t}, value == ${r}u * TOKENS + ${t}u);
#end
#end
#else
        for (var part = 0u; part < 16u; part++) {
            result += partial[value * LANES + part];
        }
#end
        if (is_here && row < params.rows && token < row_count()) {
            put(token, row, result);
        }
    }
#end
}
