// Q2_K: `quants` two bits each; `scales` two bytes a unit, each with the scale of 16 columns in the low half and their
// minimum in the high half, then d and dmin, a word a block of eight units. A weight is d scale q - dmin minimum.
//
// CPU twin: Q2_K in src/quant/k.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/pairs.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let q = quants[(row * row_units + index) >> 1u] >> pairs_shift(index);
    let plane = row * ((row_units >> 1u) + (row_units >> 3u));
    let bytes = vec2<u32>(short_at(plane, index)) >> vec2<u32>(0u, 8u);
    let d = unpack2x16float(scales[plane + (row_units >> 1u) + (index >> 3u)]);
    let scale = d.x * vec2<f32>(bytes & vec2<u32>(15u));
    let offset = -d.y * vec2<f32>((bytes >> vec2<u32>(4u)) & vec2<u32>(15u));
    return Unit(low_pairs(q), high_pairs(q), scale, offset);
}
