// F32: numbers as they are, eight vec4 a unit.
//
// CPU twin: F32 in src/quant/simple.rs.

fn floats(row: u32, index: u32, row_units: u32, quad: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(quants[(row * row_units + index) * 8u + quad]);
}
