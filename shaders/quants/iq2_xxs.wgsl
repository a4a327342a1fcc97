// IQ2_XXS: `quants` four entry numbers, a word a unit; `scales` signs with the scale between them, a word a unit, then
// d, a half a block of eight units. A weight is d (scale + 1/2) / 4 times a value of an entry.
//
// CPU twin: IQ2_XXS in src/quant/iq.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/thirds.wgsl"
#include "quants/parts/signs.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let numbers = (vec4<u32>(quants[row * row_units + index]) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu);
    let plane = row * (row_units + ((blocks + 1u) >> 1u));
    let word = scales[plane + index];
    let scale = half_at(plane + row_units, index >> 3u) * (0.5 + f32(between_signs(word))) * 0.25;
    let signs = all_signs(word);
    let low = signed(magnitudes(vec4<u32>(entry(numbers.x), entry(numbers.y))), low_bits(signs));
    let high = signed(magnitudes(vec4<u32>(entry(numbers.z), entry(numbers.w))), high_bits(signs));
    return Unit(low, high, vec2<f32>(scale), vec2<f32>(0.0));
}
