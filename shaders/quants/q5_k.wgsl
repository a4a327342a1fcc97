// Q5_K: `quants` the lower four bits; `scales` a word of fifth bits a unit, d and dmin, a word a block of eight units,
// then scale and minimum, twelve bits a unit. A weight is d scale q - dmin minimum.
//
// CPU twin: Q5_K in src/quant/k.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/nibbles.wgsl"
#include "quants/parts/bits.wgsl"
#include "quants/parts/sixes.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let q = quants[row * row_units + index];
    let plane = row * 12u * blocks;
    let bits = scales[plane + index];
    let base = plane + row_units;
    let parts = unpack2x16float(scales[base + (index >> 3u)]) * sixes_at(base + blocks, index, row_units);
    let low = low_nibbles(q) | low_fifths(bits);
    let high = high_nibbles(q) | high_fifths(bits);
    return Unit(low, high, parts.xx, -parts.yy);
}
