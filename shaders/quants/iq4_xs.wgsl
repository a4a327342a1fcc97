// IQ4_XS: `quants` four bits each; `scales` a word of d and the upper two bits of the scales for each block of eight
// units, then the lower four bits of the scales, a word a block. A weight is d (scale - 32) level(q).
//
// CPU twin: IQ4_XS in src/quant/iq.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/nibbles.wgsl"
#include "quants/parts/levels.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let q = quants[row * row_units + index];
    let plane = row * 2u * blocks;
    let word = scales[plane + (index >> 3u)];
    let six = nibble_at(plane + blocks, index) | (((word >> (16u + 2u * (index & 7u))) & 3u) << 4u);
    let scale = unpack2x16float(word).x * (f32(six) - 32.0);
    return Unit(levels(q), levels(q >> vec4<u32>(4u)), vec2<f32>(scale), vec2<f32>(0.0));
}
