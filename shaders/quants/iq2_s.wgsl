// IQ2_S: `quants` the lower bits of four entry numbers, a word a unit; `scales` signs, a word a unit; the upper bits of
// the numbers, a byte a unit; the scales of 16 columns, a byte a unit; then d, a half a block of eight units. A weight
// is d (scale + 1/2) / 4 times a value of an entry.
//
// CPU twin: IQ2_S in src/quant/iq.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/thirds.wgsl"
#include "quants/parts/signs.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let numbers = (vec4<u32>(quants[row * row_units + index]) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu);
    let plane = row * (12u * blocks + ((blocks + 1u) >> 1u));
    let signs = scales[plane + index];
    let further = byte_at(plane + 8u * blocks, index);
    let nibbles = byte_at(plane + 10u * blocks, index);
    let d = half_at(plane + 12u * blocks, index >> 3u);
    let scale = d * (vec2<f32>(f32(nibbles & 15u), f32(nibbles >> 4u)) + vec2<f32>(0.5)) * 0.25;
    let all = numbers | ((vec4<u32>(further) << vec4<u32>(8u, 6u, 4u, 2u)) & vec4<u32>(0x300u));
    let low = signed(magnitudes(vec4<u32>(entry(all.x), entry(all.y))), low_bits(signs));
    let high = signed(magnitudes(vec4<u32>(entry(all.z), entry(all.w))), high_bits(signs));
    return Unit(low, high, scale, vec2<f32>(0.0));
}
