// The sixteen levels of the IQ4 formats: `IQ4_LEVELS` of src/quant/iq.rs.

#include "quants/parts/choose.wgsl"

// One of two constants for each byte.
fn level_pair(no: u32, yes: u32, mask: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(no * 0x01010101u) ^ (vec4<u32>((no ^ yes) * 0x01010101u) & mask);
}

// Levels for bytes 0 to 15. A tree of choices, by the lowest bit first.
fn levels(q: vec4<u32>) -> vec4<u32> {
    let bit0 = whole_bytes(q);
    let bit1 = whole_bytes(q >> vec4<u32>(1u));
    let bit2 = whole_bytes(q >> vec4<u32>(2u));
    let bit3 = whole_bytes(q >> vec4<u32>(3u));
    let a = choose(level_pair(0x81u, 0x98u, bit0), level_pair(0xadu, 0xbfu, bit0), bit1);  // -127 -104  -83  -65
    let b = choose(level_pair(0xcfu, 0xddu, bit0), level_pair(0xeau, 0xf6u, bit0), bit1);  //  -49  -35  -22  -10
    let c = choose(level_pair(0x01u, 0x0du, bit0), level_pair(0x19u, 0x26u, bit0), bit1);  //    1   13   25   38
    let d = choose(level_pair(0x35u, 0x45u, bit0), level_pair(0x59u, 0x71u, bit0), bit1);  //   53   69   89  113
    return choose(choose(a, b, bit2), choose(c, d, bit2), bit3);
}
