// IQ3_XXS: `quants` four entry numbers for the first 16 columns of each unit, a word, then for the other 16; `scales`
// signs with the scale between them, a word a unit, then d, a half a block of eight units. A weight is d (scale + 1/2)
// / 2 times a value of an entry. `tables` has an entry a word.
//
// CPU twin: IQ3_XXS in src/quant/iq.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/signs.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let at = row * 2u * row_units + index;
    let bytes = vec4<u32>(0u, 8u, 16u, 24u);
    let first = (vec4<u32>(quants[at]) >> bytes) & vec4<u32>(0xffu);
    let second = (vec4<u32>(quants[at + row_units]) >> bytes) & vec4<u32>(0xffu);
    let plane = row * (row_units + ((blocks + 1u) >> 1u));
    let word = scales[plane + index];
    let scale = half_at(plane + row_units, index >> 3u) * (0.5 + f32(between_signs(word))) * 0.5;
    let signs = all_signs(word);
    let low = vec4<u32>(tables[first.x], tables[first.y], tables[first.z], tables[first.w]);
    let high = vec4<u32>(tables[second.x], tables[second.y], tables[second.z], tables[second.w]);
    return Unit(signed(low, low_bits(signs)), signed(high, high_bits(signs)), vec2<f32>(scale), vec2<f32>(0.0));
}
