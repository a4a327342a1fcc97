// IQ1_M: `quants` the lower bits of four entry numbers, a word a unit; `scales` 16 bits a unit: four times the upper
// three bits of a number and one that makes the offset negative; then a word of d and the upper two of six bits of
// scales a unit for each block of eight units; then the lower four, a word a block. The weights are those of IQ1_S, but
// each eight columns have their own sign of the offset, and each 16 their own scale.
//
// CPU twin: IQ1_M in src/quant/iq.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/thirds.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let numbers = (vec4<u32>(quants[row * row_units + index]) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu);
    let plane = row * 6u * blocks;
    let further = (vec4<u32>(short_at(plane, index)) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u);
    let word = scales[plane + 4u * blocks + (index >> 3u)];
    let six = nibble_at(plane + 5u * blocks, index) | (((word >> (16u + 2u * (index & 7u))) & 3u) << 4u);
    let scale = unpack2x16float(word).x * vec2<f32>(2.0 * f32(six & 7u) + 1.0, 2.0 * f32(six >> 3u) + 1.0);
    let all = numbers | ((further & vec4<u32>(7u)) << vec4<u32>(8u));
    let plus = (vec4<u32>(1u) - (further >> vec4<u32>(3u))) * 0x01010101u;
    let low = (vec4<u32>(entry(all.x), entry(all.y)) << vec4<u32>(2u)) | plus.xxyy;
    let high = (vec4<u32>(entry(all.z), entry(all.w)) << vec4<u32>(2u)) | plus.zzww;
    return Unit(low, high, 0.25 * scale, -1.125 * scale);
}
