// Normalises groups of each row: the whole row, or heads.
//
// Layout: input and output are views; IN_PLACE they are one. Flags: LAYER, L2 or KEEP (not normalised at all), or else
// it is RMS; WEIGHT and BIAS multiply and add, by group or by row; ADD first adds a multiple of another slot to the
// input and leaves the sum there, with ADDEND_NORM of what that slot is when RMS and weights of its own have normalised
// it; SECOND normalises what lies at another place of the row as well, with weights of its own; QUANTIZE also writes the
// result in eight bits. These three need the row to be one group. Geometry: a workgroup of 256 lanes holds 256 / $LANES
// groups of a row; WHOLE says that this is one; SECOND has another workgroup. CPU twins: `norm` and `scale` in
// `backend/cpu/ops.rs`.

#include "shared/rows.wgsl"
#include "shared/team.wgsl"
#if QUANTIZE
#include "shared/quantize.wgsl"
#end

struct Params {
    outputs: u32,
    width: u32,
    group: u32,
    weight_stride: u32, // from one group's weights to the next's: 0 if they share them
    epsilon: f32,
    input_start: u32,
    input_stride: u32,
    addend_start: u32,
    addend_stride: u32,
    addend_factor: f32,
    second_start: u32,
    second_width: u32,
    output_start: u32,
    output_stride: u32,
}

#if CHANGES_INPUT
@group(0) @binding($INPUT) var<storage, read_write> input: array<f32>;
#else
@group(0) @binding($INPUT) var<storage, read> input: array<f32>;
#end
#if ADD
@group(0) @binding($ADDEND) var<storage, read> addend: array<f32>;
#end
#if ADDEND_NORM
@group(0) @binding($ADDEND_WEIGHT) var<storage, read> addend_weight: array<f32>;
#end
#if WEIGHT
@group(0) @binding($WEIGHT) var<storage, read> weight: array<f32>;
#end
#if SECOND
@group(0) @binding($SECOND_WEIGHT) var<storage, read> second_weight: array<f32>;
#end
#if BIAS
@group(0) @binding($BIAS) var<storage, read> bias: array<f32>;
#end
#if !IN_PLACE
@group(0) @binding($OUTPUT) var<storage, read_write> output: array<f32>;
#end

const TEAMS = 256u / LANES;

// The column of a group that a lane sees as its `j`-th of a round of four. The same in every pass, so that each lane
// reads only what it has itself written.
fn column(lane: u32, j: u32) -> u32 {
#if QUANTIZE
    return lane * 4u + j;
#else
    return lane + j * LANES;
#end
}

fn sum_of(value: f32, thread: u32, subgroup_size: u32) -> f32 {
#if WHOLE
#if SUBGROUPS
    return whole_sum(value, thread, subgroup_size);
#else
    return team_sum(value, thread);
#end
#else
    return team_sum(value, thread);
#end
}

#if ADD
// What is added to column `i` of a group that begins at `begin`.
fn addition(row: u32, begin: u32, i: u32, scale: f32) -> f32 {
    let value = addend[params.addend_start + row * params.addend_stride + begin + i] * scale;
#if ADDEND_NORM
    return value * addend_weight[i];
#else
    return value;
#end
}
#end

fn weighted(x: f32, group: u32, i: u32) -> f32 {
#if SECOND
    if (group == 1u) {
        return x * second_weight[i];
    }
#end
#if WEIGHT
    return x * weight[group * params.weight_stride + i];
#else
    return x;
#end
}

// Normalises one group. Its length differs between teams, but not how often they meet at barriers.
fn normalize(row: u32, group: u32, thread: u32, subgroup_size: u32) {
    let lane = thread % LANES;
#if SECOND
    let begin = 0u;
    let length = select(params.width, params.second_width, group == 1u);
    let longest = max(params.width, params.second_width);
    let input_at = select(params.input_start, params.second_start, group == 1u) + row * params.input_stride;
#else
    let begin = min(group * params.group, params.width);
    let length = min(params.group, params.width - begin);
    let longest = params.group;
    let input_at = params.input_start + row * params.input_stride + begin;
#end

    let count = f32(max(length, 1u));
#if ADD
    var addend_scale = params.addend_factor;
#if ADDEND_NORM
    let addend_at = params.addend_start + row * params.addend_stride + begin;
    var addend_squares = 0.0;
    for (var round = 0u; round < longest; round += LANES * 4u) {
        #repeat j 4
        let i$j = round + column(lane, $j);
        if (i$j < length) {
            addend_squares += addend[addend_at + i$j] * addend[addend_at + i$j];
        }
        #end
    }
    addend_scale /= sqrt(sum_of(addend_squares, thread, subgroup_size) / count + params.epsilon);
#end
#end

#if !KEEP
    var sum = 0.0;
    var squares = 0.0;
    for (var round = 0u; round < longest; round += LANES * 4u) {
        #repeat j 4
        let i$j = round + column(lane, $j);
        if (i$j < length) {
            var x = input[input_at + i$j];
#if ADD
            x += addition(row, begin, i$j, addend_scale);
            input[input_at + i$j] = x;
#end
            sum += x;
            squares += x * x;
        }
        #end
    }

#if LAYER
    let mean = sum_of(sum, thread, subgroup_size) / count;
    squares = 0.0;
    for (var round = 0u; round < longest; round += LANES * 4u) {
        #repeat j 4
        let i$j = round + column(lane, $j);
        if (i$j < length) {
            let x = input[input_at + i$j] - mean;
            squares += x * x;
        }
        #end
    }
#else
    let mean = 0.0;
#end
    squares = sum_of(squares, thread, subgroup_size);
#if L2
    let scale = 1.0 / max(sqrt(squares), params.epsilon);
#else
    let scale = 1.0 / sqrt(squares / count + params.epsilon);
#end
#end

    for (var round = 0u; round < longest; round += LANES * 4u) {
        var four = vec4<f32>();
        #repeat j 4
        let i$j = round + column(lane, $j);
        if (i$j < length) {
#if KEEP
            var x = input[input_at + i$j];
#if ADD
            x += addition(row, begin, i$j, addend_scale);
#end
#else
            var x = (input[input_at + i$j] - mean) * scale;
#end
            x = weighted(x, group, i$j);
#if BIAS
            x += bias[group * params.weight_stride + i$j];
#end
#if IN_PLACE
            input[input_at + i$j] = x;
#else
            output[params.output_start + row * params.output_stride + begin + i$j] = x;
#end
            four[$j] = x;
        }
        #end
#if QUANTIZE
        let unit = (round >> 5u) + (thread >> 3u);
        let row_units = (params.width + 31u) >> 5u;
        quantize(four, thread, row * row_units + unit, unit < row_units);
#end
    }
}

@compute @workgroup_size(256)
fn main(
#if SUBGROUPS
    @builtin(subgroup_size) subgroup_size: u32,
#end
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
#if !SUBGROUPS
    let subgroup_size = 1u;
#end
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
#if SECOND
    let groups = 2u;
#else
    let groups = (params.width + params.group - 1u) / params.group;
#end
    for (var first = workgroup.x * TEAMS; first < groups; first += MOST_GROUPS * TEAMS) {
        normalize(row, first + thread / LANES, thread, subgroup_size);
    }
}
