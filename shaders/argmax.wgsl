// Each row's largest number and its index; of equals, the lowest.
//
// Layout: the row is a view. The first pass writes a candidate for each of a row's `parts`, 4096 numbers long; the
// second, with the flag MERGE, the best of those, as the bits of the number and the index. Geometry: a workgroup of 256 lanes a part, then a row. CPU twin:
// the greedy choice in `sampler/mod.rs`.

#include "shared/rows.wgsl"
#include "shared/order.wgsl"

struct Params {
    outputs: u32,
    width: u32,
    start: u32,
    stride: u32,
    parts: u32,
}

#if MERGE
@group(0) @binding(2) var<storage, read> candidates: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> winners: array<vec2<u32>>;
#else
@group(0) @binding(2) var<storage, read> values: array<u32>; // bits of numbers
@group(0) @binding(3) var<storage, read_write> candidates: array<vec2<u32>>;
#end

const PART = 4096u;

var<workgroup> best: array<vec2<u32>, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    var mine = NOTHING;
#if MERGE
    for (var part = lane; part < params.parts; part += 256u) {
        let other = candidates[row * params.parts + part];
#else
    let end = min((workgroup.x + 1u) * PART, params.width);
    for (var i = workgroup.x * PART + lane; i < end; i += 256u) {
        let other = vec2<u32>(key_of(values[params.start + row * params.stride + i]), i);
#end
        if (is_before(other, mine)) {
            mine = other;
        }
    }
    best[lane] = mine;
    #repeat i 8
    workgroupBarrier();
    if (lane < (128u >> u32($i))) {
        let other = best[lane + (128u >> u32($i))];
        if (is_before(other, best[lane])) {
            best[lane] = other;
        }
    }
    #end
    if (lane == 0u) {
#if MERGE
        winners[row] = vec2<u32>(bits_of(best[0].x), best[0].y);
#else
        candidates[row * params.parts + workgroup.x] = best[0];
#end
    }
}
