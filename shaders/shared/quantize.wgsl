// Rounds numbers to eight bits by units of 32 columns, for products of integers.
//
// Layout, for unit `u` of row `t`, at `at = t * row_units + u`, where `row_units` is the columns over 32, rounded up:
// - `xq`: eight words from `8 * at`, each with four columns as signed bytes, the lowest byte first. Kernels that read
//   them see two `vec4<u32>`: columns 0 to 15, and 16 to 31.
// - `xs`: at `at`, the scale, then the scale times the sum of all integers, of those of columns 0 to 15, and of 16 to 31.
//
// Geometry: workgroups of $THREADS lanes, each with four neighbouring columns, so that eight lanes share a unit. They
// meet in workgroup memory, since lanes that are neighbours need not be in one subgroup. CPU twin: `Fine` in
// `backend/cpu/activations.rs`.

@group(0) @binding($XQ) var<storage, read_write> xq: array<u32>;
@group(0) @binding($XS) var<storage, read_write> xs: array<vec4<f32>>;

var<workgroup> unit_peaks: array<f32, $THREADS>;
var<workgroup> unit_sums: array<i32, $THREADS>;

// Rounds a lane's four columns, those missing being zero; `at` is their unit's place, and `exists` whether there is such
// a unit. To be called by the whole workgroup. Two barriers do even when called again: what the one guards is not
// written before the other.
fn quantize(four: vec4<f32>, thread: u32, at: u32, exists: bool) {
    let lane = thread & 7u;
    let magnitudes = abs(four);
    unit_peaks[thread] = max(max(magnitudes.x, magnitudes.y), max(magnitudes.z, magnitudes.w));
    workgroupBarrier();
    var peak = 0.0;
    #repeat i 8
    peak = max(peak, unit_peaks[thread - lane + $i]);
    #end
    // Zeros if the inverse of the scale would not be a finite number.
    let sane = peak > 1e-36 && peak < 3e38;
    let scale = select(0.0, peak / 127.0, sane);
    let inverse = select(0.0, 127.0 / peak, sane);
    let rounded = vec4<i32>(round(four * inverse));
    unit_sums[thread] = rounded.x + rounded.y + rounded.z + rounded.w;
    workgroupBarrier();
    if (exists) {
        xq[at * 8u + lane] = pack4xI8(rounded);
        if (lane == 0u) {
            var low = 0;
            var high = 0;
            #repeat i 4
            low += unit_sums[thread + $i];
            high += unit_sums[thread + 4 + $i];
            #end
            xs[at] = vec4<f32>(scale, scale * vec3<f32>(vec3<i32>(low + high, low, high)));
        }
    }
}
