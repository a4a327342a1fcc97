// Q6_K: `quants` the lower four bits of all units, then the upper two; `scales` two signed bytes a unit, each of 16
// columns, then d, a half a block of eight units. A weight is d scale q - 32 d scale.
//
// CPU twin: Q6_K in src/quant/k.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/nibbles.wgsl"
#include "quants/parts/pairs.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let at = row * 12u * blocks;
    let q = quants[at + index];
    let upper = quants[at + row_units + (index >> 1u)] >> pairs_shift(index);
    let plane = row * (4u * blocks + ((blocks + 1u) >> 1u));
    let bytes = bitcast<vec2<i32>>(vec2<u32>(short_at(plane, index)) << vec2<u32>(24u, 16u)) >> vec2<u32>(24u);
    let scale = half_at(plane + 4u * blocks, index >> 3u) * vec2<f32>(bytes);
    let low = low_nibbles(q) | (low_pairs(upper) << vec4<u32>(4u));
    let high = high_nibbles(q) | (high_pairs(upper) << vec4<u32>(4u));
    return Unit(low, high, scale, -32.0 * scale);
}
