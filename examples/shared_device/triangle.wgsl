// A triangle that turns: its corners in white, red and blue.
//
// Layout: a uniform with the angle in radians. Three vertices, no vertex buffer.

@group(0) @binding(0) var<uniform> angle: f32;

struct Corner {
    @builtin(position) position: vec4<f32>,
    @location(0) color: vec3<f32>,
}

@vertex
fn corner(@builtin(vertex_index) index: u32) -> Corner {
    let turned = angle + f32(index) * 2.0943951; // a third of a turn
    // As wide as high on a picture of 4 to 3.
    let place = vec2<f32>(0.6 * cos(turned), 0.8 * sin(turned));
    let color = vec3<f32>(1.0, f32(index == 0u), f32(index != 1u));
    return Corner(vec4<f32>(place, 0.0, 1.0), select(color, vec3<f32>(0.2, 0.4, 1.0), index == 2u));
}

@fragment
fn fill(in: Corner) -> @location(0) vec4<f32> {
    return vec4<f32>(in.color, 1.0);
}
