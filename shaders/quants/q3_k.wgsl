// Q3_K: `quants` the lower two bits; `scales` a word of third bits a unit, the scales of 16 columns plus 32, twelve
// bits a unit, then d, a half a block of eight units. A weight is d scale q - 4 d scale.
//
// CPU twin: Q3_K in src/quant/k.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/pairs.wgsl"
#include "quants/parts/bits.wgsl"
#include "quants/parts/sixes.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let q = quants[(row * row_units + index) >> 1u] >> pairs_shift(index);
    let plane = row * (row_units + 3u * blocks + ((blocks + 1u) >> 1u));
    let bits = scales[plane + index];
    let sixes = sixes_at(plane + row_units, index, row_units);
    let d = half_at(plane + row_units + 3u * blocks, index >> 3u);
    let scale = d * (sixes - vec2<f32>(32.0));
    let low = low_pairs(q) | (low_bits(bits) << vec4<u32>(2u));
    let high = high_pairs(q) | (high_bits(bits) << vec4<u32>(2u));
    return Unit(low, high, scale, -4.0 * scale);
}
