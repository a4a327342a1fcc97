// A causal convolution of each column by itself: the sum of what the last tokens have there, weighted.
//
// Layout: input and output are views, with a row for each token of the batch; rows of earlier tokens are keys in the
// layer's pages, cut into heads as `shared/page.wgsl` says; `weights` holds [width, kernel], the latest token's last.
// Geometry: a lane for each quad of columns. CPU twin: `convolve` in `backend/cpu/ops.rs`.

#include "shared/rows.wgsl"
#include "shared/page.wgsl"

struct Params {
    outputs: u32,
    width: u32,
    kernel: u32,
    table_start: u32,
    input_start: u32,
    input_stride: u32,
    start: u32,
    stride: u32,
}

@group(0) @binding(3) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<storage, read> input: array<f32>;
@group(0) @binding(5) var<storage, read> weights: array<f32>;
@group(0) @binding(6) var<storage, read_write> output: array<f32>;

// A quad of the token that is `back` tokens before the `row`-th of the batch; zeros before the first of all.
fn earlier(row: u32, back: u32, quad: u32) -> vec4<f32> {
    if (back <= row) {
        let at = params.input_start + (row - back) * params.input_stride + quad * 4u;
        return vec4<f32>(input[at], input[at + 1u], input[at + 2u], input[at + 3u]);
    }
    if (back > step.start + row) {
        return vec4<f32>();
    }
    let position = step.start + row - back;
    let page = table[params.table_start + position / PAGE];
    if (page == NO_PAGE) {
        return vec4<f32>();
    }
    return key_quad(keys_at(page, quad / KEY_QUADS), position % PAGE, quad % KEY_QUADS);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(workgroup);
    if (row >= rows()) {
        return;
    }
    for (var quad = workgroup.x * 64u + lane; quad * 4u < params.width; quad += MOST_GROUPS * 64u) {
        var sum = vec4<f32>();
        for (var back = 0u; back < params.kernel; back += 1u) {
            let at = quad * 4u * params.kernel + params.kernel - 1u - back;
            let factors = vec4<f32>(
                weights[at],
                weights[at + params.kernel],
                weights[at + 2u * params.kernel],
                weights[at + 3u * params.kernel],
            );
            sum += factors * earlier(row, back, quad);
        }
        let to = params.start + row * params.stride + quad * 4u;
#repeat j 4
        output[to + $j] = sum[$j];
#end
    }
}
