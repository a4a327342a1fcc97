// A plain product of two square matrices in floating point: the speed that products with many tokens are held to.
//
// In front of this text stand `alias Quad`, four numbers as f32 or f16, and `const SIZE`, a multiple of 128. Sums are f32.
//
// Layout: `a` is [inner, row] and `b` is [inner, column], so that both are read by neighbouring lanes side by side; `c` is
// [row, column]. Geometry: a workgroup of 256 lanes makes a tile of 128 by 128, sixteen inner ones at a time from 16 KiB
// of workgroup memory; a lane makes eight rows by eight columns, as two by two blocks of four by four.

@group(0) @binding(0) var<storage, read> a: array<Quad>;
@group(0) @binding(1) var<storage, read> b: array<Quad>;
@group(0) @binding(2) var<storage, read_write> c: array<vec4<f32>>;

const QUADS = SIZE / 4u;
// [inner, quad]
var<workgroup> tile_a: array<Quad, 512>;
var<workgroup> tile_b: array<Quad, 512>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let x = lane % 16u;
    let y = lane / 16u;
    // Rows 4 y to 4 y + 3 of the tile, then those 64 further down; columns 4 x to 4 x + 3, then 64 further right.
    var c0_0 = vec4<f32>(0.0);
    var c1_0 = vec4<f32>(0.0);
    var c2_0 = vec4<f32>(0.0);
    var c3_0 = vec4<f32>(0.0);
    var c4_0 = vec4<f32>(0.0);
    var c5_0 = vec4<f32>(0.0);
    var c6_0 = vec4<f32>(0.0);
    var c7_0 = vec4<f32>(0.0);
    var c0_1 = vec4<f32>(0.0);
    var c1_1 = vec4<f32>(0.0);
    var c2_1 = vec4<f32>(0.0);
    var c3_1 = vec4<f32>(0.0);
    var c4_1 = vec4<f32>(0.0);
    var c5_1 = vec4<f32>(0.0);
    var c6_1 = vec4<f32>(0.0);
    var c7_1 = vec4<f32>(0.0);
    for (var inner = 0u; inner < SIZE; inner += 16u) {
        let at = (inner + lane / 32u) * QUADS + lane % 32u;
        let a_first = a[at + group.y * 32u];
        let a_second = a[at + 8u * QUADS + group.y * 32u];
        let b_first = b[at + group.x * 32u];
        let b_second = b[at + 8u * QUADS + group.x * 32u];
        workgroupBarrier();
        tile_a[lane] = a_first;
        tile_a[lane + 256u] = a_second;
        tile_b[lane] = b_first;
        tile_b[lane + 256u] = b_second;
        workgroupBarrier();
        for (var i = 0u; i < 512u; i += 32u) {
            let a0 = vec4<f32>(tile_a[i + y]);
            let a1 = vec4<f32>(tile_a[i + y + 16u]);
            let b0 = vec4<f32>(tile_b[i + x]);
            let b1 = vec4<f32>(tile_b[i + x + 16u]);
            c0_0 += a0.x * b0;
            c1_0 += a0.y * b0;
            c2_0 += a0.z * b0;
            c3_0 += a0.w * b0;
            c4_0 += a1.x * b0;
            c5_0 += a1.y * b0;
            c6_0 += a1.z * b0;
            c7_0 += a1.w * b0;
            c0_1 += a0.x * b1;
            c1_1 += a0.y * b1;
            c2_1 += a0.z * b1;
            c3_1 += a0.w * b1;
            c4_1 += a1.x * b1;
            c5_1 += a1.y * b1;
            c6_1 += a1.z * b1;
            c7_1 += a1.w * b1;
        }
    }
    let first = (group.y * 128u + y * 4u) * QUADS + group.x * 32u + x;
    let second = first + 64u * QUADS;
    c[first] = c0_0;
    c[first + 16u] = c0_1;
    c[first + QUADS] = c1_0;
    c[first + QUADS + 16u] = c1_1;
    c[first + 2u * QUADS] = c2_0;
    c[first + 2u * QUADS + 16u] = c2_1;
    c[first + 3u * QUADS] = c3_0;
    c[first + 3u * QUADS + 16u] = c3_1;
    c[second] = c4_0;
    c[second + 16u] = c4_1;
    c[second + QUADS] = c5_0;
    c[second + QUADS + 16u] = c5_1;
    c[second + 2u * QUADS] = c6_0;
    c[second + 2u * QUADS + 16u] = c6_1;
    c[second + 3u * QUADS] = c7_0;
    c[second + 3u * QUADS + 16u] = c7_1;
}
