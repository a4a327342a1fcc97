// TQ2_0: `quants` two bits each; `scales` d, a half a block of eight units. A weight is d q - d.
//
// CPU twin: TQ2_0 in src/quant/ternary.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/pairs.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let q = quants[(row * row_units + index) >> 1u] >> pairs_shift(index);
    let d = half_at(row * ((blocks + 1u) >> 1u), index >> 3u);
    return Unit(low_pairs(q), high_pairs(q), vec2<f32>(d), vec2<f32>(-d));
}
