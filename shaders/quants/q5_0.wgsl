// Q5_0: `quants` the lower four bits; `scales` a word of fifth bits a unit, then d, a half a unit. A weight is d q - 16
// d.
//
// CPU twin: Q5_0 in src/quant/legacy.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/nibbles.wgsl"
#include "quants/parts/bits.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let q = quants[row * row_units + index];
    let plane = row * (row_units + ((row_units + 1u) >> 1u));
    let bits = scales[plane + index];
    let d = half_at(plane + row_units, index);
    let low = low_nibbles(q) | low_fifths(bits);
    let high = high_nibbles(q) | high_fifths(bits);
    return Unit(low, high, vec2<f32>(d), vec2<f32>(-16.0 * d));
}
