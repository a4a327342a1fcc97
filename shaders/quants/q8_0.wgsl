// Q8_0: `quants` eight bits each, the first 16 columns of all units, then the other 16; `scales` d, a half a unit. A
// weight is d q.
//
// CPU twin: Q8_0 in src/quant/legacy.rs.

#include "quants/parts/unit.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let at = row * 2u * row_units + index;
    let d = half_at(row * ((row_units + 1u) >> 1u), index);
    return Unit(quants[at], quants[at + row_units], vec2<f32>(d), vec2<f32>(0.0));
}
