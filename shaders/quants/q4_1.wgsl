// Q4_1: `quants` four bits each; `scales` d and m, a word a unit. A weight is d q + m.
//
// CPU twin: Q4_1 in src/quant/legacy.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/nibbles.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let at = row * row_units + index;
    let q = quants[at];
    let dm = unpack2x16float(scales[at]);
    return Unit(low_nibbles(q), high_nibbles(q), dm.xx, dm.yy);
}
