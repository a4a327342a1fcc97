// Reads memory and writes none: closer to what a product with few tokens does than a copy is.
//
// Layout and geometry: as in `copy.wgsl`. What is read must be used for compilers to leave it in, so it is compared with
// words that are not there.

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> found: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.y * groups.x + group.x) * 1024u + lane;
    let all_bits = source[first] ^ source[first + 256u] ^ source[first + 512u] ^ source[first + 768u];
    if (all(all_bits == vec4<u32>(0x9e3779b9u))) {
        found[0] = all_bits;
    }
}
