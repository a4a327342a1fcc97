// Q2_0: `quants` two bits each; `scales` d, a half a block of two units. A weight is d q - d.
//
// CPU twin: Q2_0 in src/quant/legacy.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/pairs.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 1u;
    let block = index >> 1u;
    let q = quants[row * blocks + block] >> pairs_shift(index);
    let d = half_at(row * ((blocks + 1u) >> 1u), block);
    return Unit(low_pairs(q), high_pairs(q), vec2<f32>(d), vec2<f32>(-d));
}
