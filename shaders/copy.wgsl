// Copies runs of numbers from each row of one slot to that of another, where they may lie at other distances.
//
// Layout: run `i` of a row is `size` numbers from `from_start + i * from_run` on, and goes to `start + i * run`; rows are
// apart as views have them. Geometry: workgroups of 64 lanes, four numbers a lane. CPU twin: `copy` in
// `backend/cpu/ops.rs`.

#include "shared/rows.wgsl"

struct Params {
    outputs: u32,
    size: u32,
    count: u32,       // of runs
    from_start: u32,
    from_stride: u32, // from row to row
    from_run: u32,    // from run to run
    start: u32,
    stride: u32,
    run: u32,
}

@group(0) @binding(2) var<storage, read> source: array<f32>;
@group(0) @binding(3) var<storage, read_write> copied: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    let from_row = params.from_start + row * params.from_stride;
    let to_row = params.start + row * params.stride;
    let all = params.size * params.count;
    for (var first = workgroup.x * 256u; first < all; first += MOST_GROUPS * 256u) {
        #repeat j 4
        let i$j = first + thread + ${j}u * 64u;
        if (i$j < all) {
            let run = i$j / params.size;
            let within = i$j % params.size;
            copied[to_row + run * params.run + within] = source[from_row + run * params.from_run + within];
        }
        #end
    }
}
