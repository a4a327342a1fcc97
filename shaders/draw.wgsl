// Draws one of the likeliest tokens, as the sampler of the host would: a guess at its choice, to go on with before it is
// known.
//
// Layout: candidates as the last round of `top_k.wgsl` writes them, at least 64; the first `draw.keep` of them count. Geometry:
// one workgroup, a lane for each candidate. CPU twin: `Sampler::choose` in `sampler/mod.rs`.

#include "shared/step.wgsl"

struct Params {
    candidates: u32,
}

// What changes from step to step.
struct Draw {
    keep: u32,
    temperature: f32, // more than 0
    top_p: f32,
    min_p: f32,
    uniform: f32,     // from 0 to 1
}

const MOST = 64u;
const LEAST = -3e38; // of logits that count

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<uniform> draw: Draw;
@group(0) @binding(3) var<storage, read> candidates: array<vec2<u32>>; // bits of a logit, a token
@group(0) @binding(4) var<storage, read_write> guess: array<u32>;

var<workgroup> weights: array<f32, MOST>;
var<workgroup> chosen: u32;

// The weights before a lane's, and all of them. To be called by the whole workgroup.
fn sums(weight: f32, lane: u32) -> vec2<f32> {
    workgroupBarrier();
    weights[lane] = weight;
    workgroupBarrier();
    var before = 0.0;
    var all = 0.0;
    for (var i = 0u; i < MOST; i++) {
        before += select(0.0, weights[i], i < lane);
        all += weights[i];
    }
    return vec2<f32>(before, all);
}

@compute @workgroup_size(MOST)
fn main(@builtin(local_invocation_index) lane: u32) {
    let keep = min(draw.keep, params.candidates);
    let place = min(lane, max(keep, 1u) - 1u);
    let highest = bitcast<f32>(candidates[0].x);
    let logit = bitcast<f32>(candidates[place].x);
    let is_candidate = lane < keep && logit > LEAST;
    let weight = select(0.0, exp(min(logit - highest, 0.0)), is_candidate);
    let share = sums(weight, lane);
    let stays = is_candidate && weight >= draw.min_p && (share.x < draw.top_p * share.y || draw.top_p >= 1.0);
    let final_weight = select(0.0, exp(min((logit - highest) / draw.temperature, 0.0)), stays);
    let place_of = sums(final_weight, lane);
    let drawn = draw.uniform * place_of.y;
    if (lane == 0u) {
        chosen = 0u;
    }
    workgroupBarrier();
    // The shares of the lanes lie side by side, so no two see the number in theirs.
    if (place_of.x <= drawn && drawn < place_of.x + final_weight) {
        chosen = lane;
    }
    workgroupBarrier();
    if (lane == 0u) {
        guess[0] = candidates[chosen].y;
    }
}
