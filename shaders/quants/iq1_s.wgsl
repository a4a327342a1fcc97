// IQ1_S: `quants` the lower bits of four entry numbers, a word a unit; `scales` 16 bits a unit: four times the upper
// three bits of a number, three bits of scale, one that makes the offset negative; then d, a half a block of eight
// units. A weight is d (2 scale + 1) (entry ± 1/8), and a quarter of that scale times q = 4 (entry + 1) + (1 if plus)
// but for an offset that is always the same.
//
// CPU twin: IQ1_S in src/quant/iq.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/thirds.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let numbers = (vec4<u32>(quants[row * row_units + index]) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu);
    let plane = row * (4u * blocks + ((blocks + 1u) >> 1u));
    let further = short_at(plane, index);
    let scale = half_at(plane + 4u * blocks, index >> 3u) * f32(2u * ((further >> 12u) & 7u) + 1u);
    let all = numbers | (((vec4<u32>(further) >> vec4<u32>(0u, 3u, 6u, 9u)) & vec4<u32>(7u)) << vec4<u32>(8u));
    let plus = vec4<u32>((1u - ((further >> 15u) & 1u)) * 0x01010101u);
    let low = (vec4<u32>(entry(all.x), entry(all.y)) << vec4<u32>(2u)) | plus;
    let high = (vec4<u32>(entry(all.z), entry(all.w)) << vec4<u32>(2u)) | plus;
    return Unit(low, high, vec2<f32>(0.25 * scale), vec2<f32>(-1.125 * scale));
}
