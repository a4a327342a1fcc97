// The largest numbers of each row with their indices, largest first; of equals, the lowest index first.
//
// Layout: a row, in the first round a view of numbers and then of candidates, falls into `parts` of 1024. Of each the
// best `k` are kept, one part's next to the other's, and are the rows of the next round. Where one part is left (the
// flag LAST), they are written as the bits of the number and the index. Geometry: a workgroup of 256 lanes a part, which
// it sorts whole in 8 KiB. CPU twin: `sampler/candidates.rs`.

#include "shared/rows.wgsl"
#include "shared/order.wgsl"

struct Params {
    outputs: u32,
    width: u32,
    start: u32,
    stride: u32,
    parts: u32,
    k: u32, // at most 1024
}

#if FIRST
@group(0) @binding(2) var<storage, read> values: array<u32>; // bits of numbers
#else
@group(0) @binding(2) var<storage, read> values: array<vec2<u32>>;
#end
@group(0) @binding(3) var<storage, read_write> kept: array<vec2<u32>>;

const PART = 1024u;

var<workgroup> sorted: array<vec2<u32>, PART>;

fn candidate(row: u32, i: u32) -> vec2<u32> {
    if (i >= params.width) {
        return NOTHING;
    }
    let value = values[params.start + row * params.stride + i];
#if FIRST
    return vec2<u32>(key_of(value), i);
#else
    return value;
#end
}

// A bitonic network: runs of a power of two, every other one backwards, are merged to runs of twice the length.
fn sort(lane: u32) {
    for (var run = 1u; run < PART; run <<= 1u) {
        for (var gap = run; gap > 0u; gap >>= 1u) {
            workgroupBarrier();
            #repeat i 2
            {
                let pair = lane + $i * 256u;
                let low = pair + (pair & ~(gap - 1u));
                let a = sorted[low];
                let b = sorted[low + gap];
                let backwards = (low & (run << 1u)) != 0u;
                if (is_before(b, a) != backwards) {
                    sorted[low] = b;
                    sorted[low + gap] = a;
                }
            }
            #end
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    #repeat i 4
    sorted[lane + $i * 256u] = candidate(row, workgroup.x * PART + lane + $i * 256u);
    #end
    sort(lane);
    for (var i = lane; i < params.k; i += 256u) {
        let found = sorted[i];
#if LAST
        kept[row * params.k + i] = vec2<u32>(bits_of(found.x), found.y);
#else
        kept[(row * params.parts + workgroup.x) * params.k + i] = found;
#end
    }
}
