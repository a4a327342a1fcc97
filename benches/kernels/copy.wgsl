// Copies memory: the speed that kernels which wait for memory are held to.
//
// Layout: `source` and `copied` are as long as each other, in whole workgroups' shares. Geometry: a workgroup of 256 lanes
// takes 1024 neighbouring vec4<u32>, which is 16 KiB; neighbouring lanes take neighbouring ones, four in flight for each.

@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> copied: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.y * groups.x + group.x) * 1024u + lane;
    let a = source[first];
    let b = source[first + 256u];
    let c = source[first + 512u];
    let d = source[first + 768u];
    copied[first] = a;
    copied[first + 256u] = b;
    copied[first + 512u] = c;
    copied[first + 768u] = d;
}
