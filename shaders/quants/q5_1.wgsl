// Q5_1: `quants` the lower four bits; `scales` a word of fifth bits a unit, then d and m, a word a unit. A weight is d
// q + m.
//
// CPU twin: Q5_1 in src/quant/legacy.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/nibbles.wgsl"
#include "quants/parts/bits.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let q = quants[row * row_units + index];
    let at = row * 2u * row_units + index;
    let bits = scales[at];
    let dm = unpack2x16float(scales[at + row_units]);
    return Unit(low_nibbles(q) | low_fifths(bits), high_nibbles(q) | high_fifths(bits), dm.xx, dm.yy);
}
