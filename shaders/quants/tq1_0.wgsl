// TQ1_0: `quants` digits to base three, 48 bytes a block of eight units; `scales` the digits of the last 16 columns, a
// word a block, then d, a half a block. A byte is a fraction of 256 whose digits come out at the top one after the
// other when it is multiplied by three. A weight is d q - d.
//
// CPU twin: TQ1_0 in src/quant/ternary.rs.

#include "quants/parts/unit.wgsl"

fn power_of_three(exponent: u32) -> u32 {
    return select((0x1b090301u >> (8u * exponent)) & 0xffu, 81u, exponent == 4u);
}

// For each byte the digit that comes out after multiplying by three once more.
fn digits(bytes: vec4<u32>, powers: vec4<u32>) -> vec4<u32> {
    let mask = vec4<u32>(0x00ff00ffu);
    let even = ((((bytes & mask) * powers) & mask) * 3u) >> vec4<u32>(8u);
    let odd = ((((bytes >> vec4<u32>(8u)) & mask) * powers) & mask) * 3u;
    return (even & vec4<u32>(0x00030003u)) | (odd & vec4<u32>(0x03000300u));
}

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let blocks = row_units >> 3u;
    let block = index >> 3u;
    let part = index & 7u;
    let at = (row * blocks + block) * 3u;
    let plane = row * (blocks + ((blocks + 1u) >> 1u));
    let d = half_at(plane + blocks, block);
    var low: vec4<u32>;
    var high: vec4<u32>;
    if (part < 5u) {
        // Digit `part` of 32 bytes.
        let power = vec4<u32>(power_of_three(part));
        low = digits(quants[at], power);
        high = digits(quants[at + 1u], power);
    } else {
        // Two digits of the other 16 bytes; there are five, and the four bytes apart have four.
        let first = 2u * (part - 5u);
        let bytes = quants[at + 2u];
        low = digits(bytes, vec4<u32>(power_of_three(first)));
        if (part < 7u) {
            high = digits(bytes, vec4<u32>(power_of_three(first + 1u)));
        } else {
            high = digits(vec4<u32>(scales[plane + block]), vec4<u32>(1u, 3u, 9u, 27u));
        }
    }
    return Unit(low, high, vec2<f32>(d), vec2<f32>(-d));
}
