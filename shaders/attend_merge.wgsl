// Puts partial attentions together.
//
// Layout: partials as in `attend_split.wgsl`; the result is a row of heads for each token, written in eight bits with
// QUANTIZE, as `shared/quantize.wgsl` says. Geometry: a workgroup of 128
// lanes for each head (x) and token (y); neighbouring lanes go along the value, SLICES of lanes along the partials. A
// sink is a logit of a head that takes its share of the weights and adds nothing to the sum.
//
// CPU twin: `Softmaxes::join` in `backend/cpu/simd/attend.rs`. Flags: SINKS, QUANTIZE. Constants: HEADS, VALUE_SIZE, SLICES.

#include "shared/step.wgsl"

struct Params {
    partials: u32, // slabs times splits
    out_start: u32,
    out_stride: u32,
    sinks_start: u32,
}

const THREADS: u32 = $THREADS;
const HEADS: u32 = $HEADS;
const VALUE_QUADS: u32 = $VALUE_SIZE / 4;
const SLICES: u32 = $SLICES;
const MASKED: f32 = -3e38;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> partials: array<vec4<f32>>;
#if QUANTIZE
#include "shared/quantize.wgsl"
#else
@group(0) @binding(3) var<storage, read_write> sums: array<vec4<f32>>;
#end
#if SINKS
@group(0) @binding($SINKS_AT) var<storage, read> sinks: array<f32>;
#end

var<workgroup> slice_sums: array<vec4<f32>, THREADS>;
var<workgroup> slice_softmaxes: array<vec2<f32>, THREADS>; // the highest score, the sum of the weights

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let token = group.y;
    if (token >= step.tokens) {
        return;
    }
    let quad = lane % VALUE_QUADS;
    var highest = MASKED;
    var total = 0.0;
    var sum = vec4<f32>();
    for (var i = lane / VALUE_QUADS; i < params.partials; i += SLICES) {
        let at = ((i * step.tokens + token) * HEADS + group.x) * (VALUE_QUADS + 1u);
        let softmax = partials[at];
        if (softmax.y > 0.0) {
            let new_highest = max(highest, softmax.x);
            let shrink = exp(highest - new_highest);
            let weight = exp(softmax.x - new_highest);
            sum = sum * shrink + partials[at + 1u + quad] * weight;
            total = total * shrink + softmax.y * weight;
            highest = new_highest;
        }
    }
    slice_sums[lane] = sum;
    slice_softmaxes[lane] = vec2<f32>(highest, total);
    workgroupBarrier();
    // Only the first slice is needed from here on; with QUANTIZE all lanes meet at barriers below.
#if !QUANTIZE
    if (lane >= VALUE_QUADS) {
        return;
    }
#end
    for (var i = 1u; i < SLICES; i++) {
        let other = slice_softmaxes[i * VALUE_QUADS + quad];
        let new_highest = max(highest, other.x);
        let shrink = exp(highest - new_highest);
        let weight = exp(other.x - new_highest);
        sum = sum * shrink + slice_sums[i * VALUE_QUADS + quad] * weight;
        total = total * shrink + other.y * weight;
        highest = new_highest;
    }
#if SINKS
    let sink = sinks[params.sinks_start + group.x];
    let new_highest = max(highest, sink);
    let shrink = exp(highest - new_highest);
    sum *= shrink;
    total = total * shrink + exp(sink - new_highest);
#end
#if QUANTIZE
    let unit = (token * HEADS + group.x) * (VALUE_QUADS / 8u) + quad / 8u;
    quantize(sum / total, lane, unit, lane < VALUE_QUADS);
#else
    sums[(params.out_start + token * params.out_stride) / 4u + group.x * VALUE_QUADS + quad] = sum / total;
#end
}
