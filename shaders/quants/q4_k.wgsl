// Q4_K: `quants` four bits each; `scales` d and dmin, a word a block of eight units, then scale and minimum, twelve
// bits a unit. A weight is d scale q - dmin minimum.
//
// CPU twin: Q4_K in src/quant/k.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/nibbles.wgsl"
#include "quants/parts/sixes.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let q = quants[row * row_units + index];
    let plane = row * 4u * blocks;
    let parts = unpack2x16float(scales[plane + (index >> 3u)]) * sixes_at(plane + blocks, index, row_units);
    return Unit(low_nibbles(q), high_nibbles(q), parts.xx, -parts.yy);
}
