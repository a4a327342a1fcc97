// IQ2_XS: `quants` the lower bits of four entry numbers, a word a unit; `scales` signs with the ninth bits between
// them, a word a unit; the scales of 16 columns, a byte a unit; then d, a half a block of eight units. A weight is d
// (scale + 1/2) / 4 times a value of an entry.
//
// CPU twin: IQ2_XS in src/quant/iq.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/thirds.wgsl"
#include "quants/parts/signs.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let numbers = (vec4<u32>(quants[row * row_units + index]) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu);
    let plane = row * (10u * blocks + ((blocks + 1u) >> 1u));
    let word = scales[plane + index];
    let nibbles = byte_at(plane + row_units, index);
    let d = half_at(plane + 10u * blocks, index >> 3u);
    let scale = d * (vec2<f32>(f32(nibbles & 15u), f32(nibbles >> 4u)) + vec2<f32>(0.5)) * 0.25;
    let ninth = (vec4<u32>(between_signs(word)) << vec4<u32>(8u, 7u, 6u, 5u)) & vec4<u32>(0x100u);
    let all = numbers | ninth;
    let signs = all_signs(word);
    let low = signed(magnitudes(vec4<u32>(entry(all.x), entry(all.y))), low_bits(signs));
    let high = signed(magnitudes(vec4<u32>(entry(all.z), entry(all.w))), high_bits(signs));
    return Unit(low, high, scale, vec2<f32>(0.0));
}
