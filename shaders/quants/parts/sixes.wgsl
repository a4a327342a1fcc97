// Two six-bit numbers a unit, twelve bits: a plane of their lower eight bits, and then one of their upper four. A block
// of eight units has three words.

#include "quants/parts/unit.wgsl"

fn sixes_at(plane: u32, index: u32, row_units: u32) -> vec2<f32> {
    let low = byte_at(plane, index);
    let high = nibble_at(plane + (row_units >> 2u), index);
    return vec2<f32>(f32(low & 63u), f32((low >> 6u) | (high << 2u)));
}
