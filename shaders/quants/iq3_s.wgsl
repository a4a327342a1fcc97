// IQ3_S: `quants` the lower bits of four entry numbers for the first 16 columns of each unit, a word, then for the
// other 16; `scales` signs, a word a unit; the ninth bits of the numbers, a byte a unit; scales, half a byte a unit;
// then d, a half a block of eight units. A weight is d (2 scale + 1) times a value of an entry. `tables` has an entry a
// word.
//
// CPU twin: IQ3_S in src/quant/iq.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/signs.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let at = row * 2u * row_units + index;
    let bytes = vec4<u32>(0u, 8u, 16u, 24u);
    let plane = row * (11u * blocks + ((blocks + 1u) >> 1u));
    let signs = scales[plane + index];
    let ninth = vec4<u32>(byte_at(plane + 8u * blocks, index));
    let d = half_at(plane + 11u * blocks, index >> 3u);
    let scale = d * f32(2u * nibble_at(plane + 10u * blocks, index) + 1u);
    let first = ((vec4<u32>(quants[at]) >> bytes) & vec4<u32>(0xffu))
        | ((ninth << vec4<u32>(8u, 7u, 6u, 5u)) & vec4<u32>(0x100u));
    let second = ((vec4<u32>(quants[at + row_units]) >> bytes) & vec4<u32>(0xffu))
        | ((ninth << vec4<u32>(4u, 3u, 2u, 1u)) & vec4<u32>(0x100u));
    let low = vec4<u32>(tables[first.x], tables[first.y], tables[first.z], tables[first.w]);
    let high = vec4<u32>(tables[second.x], tables[second.y], tables[second.z], tables[second.w]);
    return Unit(signed(low, low_bits(signs)), signed(high, high_bits(signs)), vec2<f32>(scale), vec2<f32>(0.0));
}
