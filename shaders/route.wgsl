// Chooses experts for each row: logits become chances, of which the best are kept, with weights.
//
// Layout: the logits are a view, one for each expert; so is the result, the numbers of the experts that are chosen, the
// best first, and then as many weights. Flags: what a logit becomes: SOFTMAX, SIGMOID, ROOT_SOFTPLUS or nothing; with
// SOFTMAX_OF_CHOSEN and SIGMOID_OF_CHOSEN, which take the last, weights are made of the logits of those that are chosen.
// BIAS is added for the choice alone. GROUPS: only experts of the best groups, by the sum of their two best, are chosen.
// NORMALISE: weights are divided by their sum. SCALES: they are multiplied with a number of each expert. Geometry: a
// workgroup of 128 lanes a row, with up to four experts a lane. The place of an expert is how many are better; lanes count
// that side by side, so that there is no loop over places. Numbers are compared by their bits (see `shared/order.wgsl`), so
// whatever the logits are, as many different experts are chosen. CPU twin: `route` in `backend/cpu/ops.rs`.

#include "shared/rows.wgsl"
#include "shared/order.wgsl"
#include "shared/softplus.wgsl"

struct Params {
    outputs: u32,
    experts: u32,       // at most MOST
    logits_start: u32,
    logits_stride: u32,
    used: u32,          // at most as many as there are
    groups: u32,
    used_groups: u32,
    scale: f32,
    start: u32,
    stride: u32,
}

const LANES = 128u;
const MOST = 512u;
const MASKED = -3e38;
const LEAST_SUM = 6.1035e-5;

@group(0) @binding($LOGITS) var<storage, read> logits: array<f32>;
#if BIAS
@group(0) @binding($BIAS_AT) var<storage, read> bias: array<f32>;
#end
#if SCALES
@group(0) @binding($SCALES_AT) var<storage, read> scales: array<f32>;
#end
@group(0) @binding($ROUTES) var<storage, read_write> routes: array<f32>;

var<workgroup> chances: array<f32, MOST>;
var<workgroup> keys: array<u32, MOST>; // what experts are chosen by
var<workgroup> chosen: array<u32, MOST>;
#if GROUPS
var<workgroup> group_keys: array<u32, MOST>;
#end

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(min(-x, 80.0)));
}

// What a logit becomes by itself.
fn chance(x: f32) -> f32 {
#if SIGMOID
    return sigmoid(x);
#else
#if ROOT_SOFTPLUS
    return sqrt(softplus(x));
#else
    return x;
#end
#end
}

// What an expert that is chosen counts, of what has become of its logit.
fn weight_of(chance: f32, highest: f32) -> f32 {
#if SOFTMAX_OF_CHOSEN
    return exp(chance - highest);
#else
#if SIGMOID_OF_CHOSEN
    return sigmoid(chance);
#else
    return chance;
#end
#end
}

// How many experts come before one. Behind the last there are keys of nothing, which come before none.
fn place_of(own: u32) -> u32 {
    let own_key = keys[own];
    var before = 0u;
    for (var first = 0u; first < params.experts; first += 4u) {
        #repeat i 4
        before += u32(is_before(vec2<u32>(keys[first + $i], first + $i), vec2<u32>(own_key, own)));
        #end
    }
    return before;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    let at = params.logits_start + row * params.logits_stride;
    #repeat j 4
    let expert$j = lane + ${j}u * LANES;
    var chance$j = MASKED;
    if (expert$j < params.experts) {
        chance$j = chance(logits[at + expert$j]);
    }
    #end

#if SOFTMAX
    #repeat j 4
    chances[expert$j] = chance$j;
    #end
    workgroupBarrier();
    var highest = MASKED;
    for (var first = 0u; first < params.experts; first += 4u) {
        #repeat i 4
        highest = max(highest, chances[first + $i]);
        #end
    }
    workgroupBarrier();
    #repeat j 4
    chance$j = select(0.0, exp(chance$j - highest), expert$j < params.experts);
    chances[expert$j] = chance$j;
    #end
    workgroupBarrier();
    var total = 0.0;
    for (var first = 0u; first < params.experts; first += 4u) {
        #repeat i 4
        total += chances[first + $i];
        #end
    }
    workgroupBarrier();
    #repeat j 4
    chance$j /= total;
    #end
#end

    #repeat j 4
    var score$j = chance$j;
#if BIAS
    if (expert$j < params.experts) {
        score$j += bias[expert$j];
    }
#end
    chances[expert$j] = chance$j;
    #end

#if GROUPS
    // The scores take the place of the chances for a while.
    #repeat j 4
    chances[expert$j] = score$j;
    #end
    workgroupBarrier();
    let group_size = params.experts / params.groups;
    for (var group = lane; group < params.groups; group += LANES) {
        var best = MASKED;
        var second = MASKED;
        for (var i = 0u; i < group_size; i++) {
            let score = chances[group * group_size + i];
            second = max(second, min(best, score));
            best = max(best, score);
        }
        group_keys[group] = key_of(bitcast<u32>(select(best + second, best, group_size == 1u)));
    }
    workgroupBarrier();
    #repeat j 4
    chances[expert$j] = chance$j;
    #end
    #repeat j 4
    {
        let group = min(expert$j / group_size, params.groups - 1u);
        let own = vec2<u32>(group_keys[group], group);
        var before = 0u;
        for (var other = 0u; other < params.groups; other++) {
            before += u32(is_before(vec2<u32>(group_keys[other], other), own));
        }
        let is_kept = before < params.used_groups && expert$j < params.experts;
        keys[expert$j] = select(0u, key_of(bitcast<u32>(score$j)), is_kept);
    }
    #end
#else
    #repeat j 4
    keys[expert$j] = select(0u, key_of(bitcast<u32>(score$j)), expert$j < params.experts);
    #end
#end
    workgroupBarrier();

    #repeat j 4
    if (expert$j < params.experts) {
        let place = place_of(expert$j);
        if (place < params.used) {
            chosen[place] = expert$j;
        }
    }
    #end
    workgroupBarrier();

    // Each lane adds up what all share: they are few.
    var best = MASKED;
#if SOFTMAX_OF_CHOSEN
    for (var i = 0u; i < params.used; i++) {
        best = max(best, chances[chosen[i]]);
    }
#end
#if SUM
    var sum = 0.0;
    for (var i = 0u; i < params.used; i++) {
        sum += weight_of(chances[chosen[i]], best);
    }
#if NORMALISE
    // Of a softmax the sum is 1 already, or what it rounds to.
    sum = max(sum, LEAST_SUM);
#end
#end
    let to = params.start + row * params.stride;
    for (var i = lane; i < params.used; i += LANES) {
        let expert = chosen[i];
        var weight = weight_of(chances[expert], best);
#if SUM
        weight /= sum;
#end
        weight *= params.scale;
#if SCALES
        weight *= scales[expert];
#end
        routes[to + i] = f32(expert);
        routes[to + params.used + i] = weight;
    }
}
