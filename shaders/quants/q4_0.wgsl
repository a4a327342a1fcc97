// Q4_0: `quants` four bits each; `scales` d, a half a unit. A weight is d q - 8 d.
//
// CPU twin: Q4_0 in src/quant/legacy.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/nibbles.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let q = quants[row * row_units + index];
    let d = half_at(row * ((row_units + 1u) >> 1u), index);
    return Unit(low_nibbles(q), high_nibbles(q), vec2<f32>(d), vec2<f32>(-8.0 * d));
}
