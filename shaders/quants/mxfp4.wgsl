// MXFP4: `quants` four bits each; `scales` an exponent, a byte a unit. A weight is 2^(e - 128) number(q).
//
// CPU twin: MXFP4 in src/quant/fp4.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/nibbles.wgsl"
#include "quants/parts/e2m1.wgsl"

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let q = quants[row * row_units + index];
    let e = byte_at(row * ((row_units + 3u) >> 2u), index);
    // The two lowest are subnormal numbers.
    let scale = bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << (e & 1u), e < 2u));
    return Unit(doubled_e2m1(q), doubled_e2m1(q >> vec4<u32>(4u)), vec2<f32>(scale), vec2<f32>(0.0));
}
