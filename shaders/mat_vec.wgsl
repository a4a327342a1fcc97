// A matrix times the activations of few tokens: every weight is read once, decoded in registers and multiplied with all
// tokens, so that this runs at the speed of memory.
//
// Layout: see `shared/product.wgsl`. Geometry: a workgroup takes $ROWS neighbouring rows; its 64 lanes go over the units of
// 32 columns side by side, each with sums of its own for each row and each of $TOKENS tokens, which are put together at
// the end. More tokens are more workgroups along z. CPU twin: `Rows` in `backend/cpu/simd/kernels.rs`.

#include "shared/product.wgsl"

const LANES = 64u;
const SUMS = ${ROWS}u * ${TOKENS}u;

#if SUBGROUPS
// Subgroups have at least four lanes.
var<workgroup> partial: array<f32, SUMS * LANES / 4u>;
#else
var<workgroup> partial: array<f32, SUMS * LANES>;
#end

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
#if SUBGROUPS
    @builtin(subgroup_size) subgroup_size: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
#end
) {
    let first = (group.y * groups.x + group.x) * ${ROWS}u;
    let last = max(params.rows, 1u) - 1u;
    let first_token = group.z * ${TOKENS}u;
#repeat r $ROWS
    // Rows past the end repeat the last one, and are not written.
    let row$r = min(first + ${r}u, last);
#repeat t $TOKENS
    var sum${r}_${t} = 0.0;
#end
#end
    for (var index = lane; index < params.row_units; index += LANES) {
#repeat t $TOKENS
#if INTEGER
        let at$t = (first_token + ${t}u) * params.row_units + index;
        let x_low$t = xq[at$t * 2u];
        let x_high$t = xq[at$t * 2u + 1u];
        let x_scale$t = xs[at$t];
#else
#repeat q 8
        let x${t}_${q} = activation(first_token + ${t}u, index * 8u + ${q}u);
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
#repeat t $TOKENS
            let low$t = dot4I8Packed(w.low.x, x_low$t.x) + dot4I8Packed(w.low.y, x_low$t.y)
                + dot4I8Packed(w.low.z, x_low$t.z) + dot4I8Packed(w.low.w, x_low$t.w);
            let high$t = dot4I8Packed(w.high.x, x_high$t.x) + dot4I8Packed(w.high.y, x_high$t.y)
                + dot4I8Packed(w.high.z, x_high$t.z) + dot4I8Packed(w.high.w, x_high$t.w);
            sum${r}_${t} += x_scale$t.x * (w.scale.x * f32(low$t) + w.scale.y * f32(high$t));
#if OFFSETS
            sum${r}_${t} += w.offset.x * x_scale$t.y + w.offset.y * x_scale$t.z;
#end
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
    let parts = max(LANES / subgroup_size, 1u);
#repeat r $ROWS
#repeat t $TOKENS
    let all${r}_${t} = subgroupAdd(sum${r}_${t});
#end
#end
    if (subgroup_lane == 0u) {
        let part = lane / subgroup_size;
#repeat r $ROWS
#repeat t $TOKENS
        partial[(${r}u * ${TOKENS}u + ${t}u) * (LANES / 4u) + part] = all${r}_${t};
#end
#end
    }
    workgroupBarrier();
    let pitch = LANES / 4u;
#else
#repeat r $ROWS
#repeat t $TOKENS
    partial[(${r}u * ${TOKENS}u + ${t}u) * LANES + lane] = sum${r}_${t};
#end
#end
    workgroupBarrier();
    // Each quarter of the lanes adds up four, then a lane for each result adds up what is left.
    for (var value = lane / 16u; value < SUMS; value += 4u) {
        let at = value * LANES + lane % 16u;
        partial[at] += partial[at + 16u] + partial[at + 32u] + partial[at + 48u];
    }
    workgroupBarrier();
    let parts = 16u;
    let pitch = LANES;
#end
#if GATE
    for (var value = lane; value < SUMS / 2u; value += LANES) {
        let pair = value / ${TOKENS}u;
        let nth = value % ${TOKENS}u;
        let token = first_token + nth;
        var gate = 0.0;
        var up = 0.0;
        for (var part = 0u; part < parts; part++) {
            gate += partial[(2u * pair * ${TOKENS}u + nth) * pitch + part];
            up += partial[((2u * pair + 1u) * ${TOKENS}u + nth) * pitch + part];
        }
        if (first + 2u * pair < params.rows && token < row_count()) {
            put_gated(token, first / 2u + pair, gate, up);
        }
    }
#else
    for (var value = lane; value < SUMS; value += LANES) {
        let row = first + value / ${TOKENS}u;
        let token = first_token + value % ${TOKENS}u;
        var result = 0.0;
        for (var part = 0u; part < parts; part++) {
            result += partial[value * pitch + part];
        }
        if (row < params.rows && token < row_count()) {
            put(token, row, result);
        }
    }
#end
}
