// IQ4_NL: `quants` four bits each; `scales` d, a half a unit. A weight is d level(q).
//
// CPU twin: IQ4_NL in src/quant/iq.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/nibbles.wgsl"
#include "quants/parts/levels.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let q = quants[row * row_units + index];
    let d = half_at(row * ((row_units + 1u) >> 1u), index);
    return Unit(levels(q), levels(q >> vec4<u32>(4u)), vec2<f32>(d), vec2<f32>(0.0));
}
