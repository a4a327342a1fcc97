// BF16: numbers as they are, four vec4 a unit.
//
// CPU twin: BF16 in src/quant/simple.rs.

fn floats(row: u32, index: u32, row_units: u32, quad: u32) -> vec4<f32> {
    let both = quants[(row * row_units + index) * 4u + (quad >> 1u)];
    let words = select(both.xy, both.zw, (quad & 1u) == 1u);
    let upper = words & vec2<u32>(0xffff0000u);
    let lower = words << vec2<u32>(16u);
    return bitcast<vec4<f32>>(vec4<u32>(lower.x, upper.x, lower.y, upper.y));
}
