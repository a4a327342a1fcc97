// Q1_0: `quants` a word of bits a unit; `scales` d, a half a block of four units. A weight is 2 d q - d.
//
// CPU twin: Q1_0 in src/quant/legacy.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/bits.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let bits = quants[row * row_units + index];
    let blocks = row_units >> 2u;
    let d = half_at(row * ((blocks + 1u) >> 1u), index >> 2u);
    return Unit(low_bits(bits), high_bits(bits), vec2<f32>(2.0 * d), vec2<f32>(-d));
}
