// Four-bit floating-point numbers, doubled: `DOUBLED_E2M1` of src/quant/fp4.rs.

#include "quants/parts/choose.wgsl"

// Numbers for bytes 0 to 15: two bits of exponent choose between f, 2 + f, 4 + 2 f and 8 + 4 f; the highest bit is a
// sign.
fn doubled_e2m1(q: vec4<u32>) -> vec4<u32> {
    let fraction = q & vec4<u32>(0x01010101u);
    let normal = fraction | vec4<u32>(0x02020202u);
    let bit1 = whole_bytes(q >> vec4<u32>(1u));
    let bit2 = whole_bytes(q >> vec4<u32>(2u));
    let small = choose(fraction, normal, bit1);
    let large = choose(normal << vec4<u32>(1u), normal << vec4<u32>(2u), bit1);
    let magnitude = choose(small, large, bit2);
    // Minus x is (127 - x) + 1 with the highest bit turned, which carries into no other byte, for 0 as well.
    let sign = (q >> vec4<u32>(3u)) & vec4<u32>(0x01010101u);
    return ((magnitude ^ (sign * 127u)) + sign) ^ (sign << vec4<u32>(7u));
}
