// What a unit is, and how fields of planes are read.
//
// Layout: see src/backend/gpu/layout/mod.rs. A plane is given by the index of its first word in `scales`, a field by
// its index in the plane. The kernel declares `quants` and `scales` (and `tables` where the type has some).

// 32 neighbouring columns of a row.
struct Unit {
    low: vec4<u32>,     // columns 0 to 15, a signed byte each, in order
    high: vec4<u32>,    // columns 16 to 31
    scale: vec2<f32>,   // of columns 0 to 15, and of 16 to 31
    offset: vec2<f32>,  // the same: a weight is scale * byte + offset
}

// A number of 16 bits.
fn half_at(plane: u32, index: u32) -> f32 {
    return unpack2x16float(scales[plane + (index >> 1u)] >> (16u * (index & 1u))).x;
}

// Sixteen bits, with others above them.
fn short_at(plane: u32, index: u32) -> u32 {
    return scales[plane + (index >> 1u)] >> (16u * (index & 1u));
}

fn byte_at(plane: u32, index: u32) -> u32 {
    return (scales[plane + (index >> 2u)] >> (8u * (index & 3u))) & 0xffu;
}

fn nibble_at(plane: u32, index: u32) -> u32 {
    return (scales[plane + (index >> 3u)] >> (4u * (index & 7u))) & 0xfu;
}
