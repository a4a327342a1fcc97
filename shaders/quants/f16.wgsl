// F16: numbers as they are, four vec4 a unit.
//
// CPU twin: F16 in src/quant/simple.rs.

fn floats(row: u32, index: u32, row_units: u32, quad: u32) -> vec4<f32> {
    let both = quants[(row * row_units + index) * 4u + (quad >> 1u)];
    let words = select(both.xy, both.zw, (quad & 1u) == 1u);
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
