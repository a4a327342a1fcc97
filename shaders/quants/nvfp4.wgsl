// NVFP4: `quants` four bits each; `scales` two bytes a unit, each the scale of 16 columns with four bits of exponent
// and three of fraction. A weight is scale number(q).
//
// CPU twin: NVFP4 in src/quant/fp4.rs.

#include "quants/parts/unit.wgsl"
#include "quants/parts/e2m1.wgsl"

// Half of what a scale is worth; 0x7f is worth nothing.
fn half_ue4m3(bits: u32) -> f32 {
    let exponent = (bits >> 3u) & 15u;
    let fraction = f32(bits & 7u);
    let normal = (8.0 + fraction) * bitcast<f32>((116u + exponent) << 23u);
    return select(select(normal, fraction * 0.0009765625, exponent == 0u), 0.0, bits == 0x7fu);
}

fn unit(row: u32, index: u32, row_units: u32) -> Unit {
    let q = quants[row * row_units + index];
    let bytes = short_at(row * (row_units >> 1u), index);
    let scale = vec2<f32>(half_ue4m3(bytes & 0xffu), half_ue4m3((bytes >> 8u) & 0xffu));
    return Unit(doubled_e2m1(q), doubled_e2m1(q >> vec4<u32>(4u)), scale, vec2<f32>(0.0));
}
