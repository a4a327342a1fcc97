// A linear recurrence: each token changes the matrix of every head, and reads it.
//
// Layout: the input is a view, a row for each token with queries, keys and values of all heads; so are steps and writes, a
// number for each head, and what is read. `states` has the matrices, [heads, value_size, key_size] behind the inputs of a
// slot; `slots` says which slot to read, and which to write. Flags: NORMALISE: queries and keys are divided by their
// lengths. WRITES: a key first reads what it is to write. EVERY: a head of keys serves each head that is so many on as
// there are heads of keys, not its neighbours. SKIP: some of the value is added to what is read.
//
// Geometry: a workgroup of 64 lanes for some rows of a head's matrix, ROW_LANES lanes a row, which keep it in registers while
// they go over all tokens. What a row times key and query comes to is added up in workgroup memory, for both at once: what
// the changed row times the query will be follows from that, and so a token takes one barrier.
// CPU twin: `scan` in `backend/cpu/ops.rs`.

#include "shared/rows.wgsl"
#include "shared/softplus.wgsl"

struct Params {
    outputs: u32,
    heads: u32,
    key_heads: u32,
    value_size: u32,
    slots_start: u32,
    numbers: u32,
    matrices_start: u32,
    input_start: u32,
    input_stride: u32,
    queries: u32,
    keys: u32,
    values: u32,
    steps_start: u32,
    steps_stride: u32,
    writes_start: u32,
    writes_stride: u32,
    start: u32,
    stride: u32,
    scale: f32,
    epsilon: f32,
}

const LANES = 64u;
const ROW_LANES = ${ROW_LANES}u;
const KEY_SIZE = ROW_LANES * ${QUADS}u * 4u;
const NO_SLOT = 0xffffffffu;

@group(0) @binding($STATES) var<storage, read_write> states: array<f32>;
@group(0) @binding($SLOTS) var<storage, read> slots: array<u32>;
@group(0) @binding($INPUT) var<storage, read> input: array<f32>;
@group(0) @binding($STEPS) var<storage, read> steps: array<f32>;
#if WRITES
@group(0) @binding($WRITTEN) var<storage, read> written: array<f32>;
#end
@group(0) @binding($BIASES) var<storage, read> biases: array<f32>;
@group(0) @binding($DECAYS) var<storage, read> decays: array<f32>;
#if SKIP
@group(0) @binding($SKIPS) var<storage, read> skips: array<f32>;
#end
@group(0) @binding($OUTPUT) var<storage, read_write> output: array<f32>;

// For every other token: row · key, row · query, key · query.
var<workgroup> products: array<vec4<f32>, 2u * LANES>;
// query · query, key · key.
var<workgroup> squares: array<vec2<f32>, 2u * LANES>;

fn input_quad(at: u32) -> vec4<f32> {
    return vec4<f32>(input[at], input[at + 1u], input[at + 2u], input[at + 3u]);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let blocks = (params.value_size + LANES / ROW_LANES - 1u) / (LANES / ROW_LANES);
    let head = workgroup.x / blocks;
    let place = lane % ROW_LANES;
    let row = workgroup.x % blocks * (LANES / ROW_LANES) + lane / ROW_LANES;
    let is_row = row < params.value_size;
#if EVERY
    let key_head = head % params.key_heads;
#else
    let key_head = head / (params.heads / params.key_heads);
#end
    let cells = params.matrices_start + (head * params.value_size + row) * KEY_SIZE + place * 4u;
    let before = slots[params.slots_start];
    let behind = slots[params.slots_start + 1u];
#repeat j $QUADS
    var row$j = vec4<f32>();
#end
    if (is_row && before != NO_SLOT) {
        let at = before * params.numbers + cells;
#repeat j $QUADS
#repeat i 4
        row$j[$i] = states[at + $j * ROW_LANES * 4u + $i];
#end
#end
    }
    let bias = biases[head];
    let decay = decays[head];
    let own_keys = key_head * KEY_SIZE + place * 4u;
    let own_value = params.values + head * params.value_size + min(row, params.value_size - 1u);
    for (var token = 0u; token < step.tokens; token += 1u) {
        let at = params.input_start + token * params.input_stride;
        var product = vec4<f32>();
        var square = vec2<f32>();
#repeat j $QUADS
        let key$j = input_quad(at + params.keys + own_keys + $j * ROW_LANES * 4u);
        let query$j = input_quad(at + params.queries + own_keys + $j * ROW_LANES * 4u);
        product += vec4<f32>(dot(row$j, key$j), dot(row$j, query$j), dot(key$j, query$j), 0.0);
        square += vec2<f32>(dot(query$j, query$j), dot(key$j, key$j));
#end
        // The other half may still be read.
        let half = (token & 1u) * LANES;
        products[half + lane] = product;
        squares[half + lane] = square;
        workgroupBarrier();
        product = vec4<f32>();
        square = vec2<f32>();
        for (var other = 0u; other < ROW_LANES; other += 1u) {
            product += products[half + lane - place + other];
            square += squares[half + lane - place + other];
        }
        var query_factor = params.scale;
        var key_factor = 1.0;
#if NORMALISE
        query_factor *= inverseSqrt(square.x + params.epsilon);
        key_factor = inverseSqrt(square.y + params.epsilon);
#end
        let by = softplus(steps[params.steps_start + token * params.steps_stride + head] + bias);
        let stays = exp(by * decay);
        let value = input[at + own_value];
#if WRITES
        let strength = written[params.writes_start + token * params.writes_stride + head];
        let write = (value - stays * product.x * key_factor) / (1.0 + exp(min(-strength, 80.0))) * key_factor;
#else
        let write = by * value * key_factor;
#end
#repeat j $QUADS
        row$j = stays * row$j + write * key$j;
#end
        if (is_row && place == 0u) {
            var sum = (stays * product.y + write * product.z) * query_factor;
#if SKIP
            sum += skips[head] * value;
#end
            output[params.start + token * params.stride + head * params.value_size + row] = sum;
        }
    }
    if (is_row) {
        let at = behind * params.numbers + cells;
#repeat j $QUADS
#repeat i 4
        states[at + $j * ROW_LANES * 4u + $i] = row$j[$i];
#end
#end
    }
}
