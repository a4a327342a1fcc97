// Signs of magnitudes.
//
// A word has a bit a column (parts/bits.wgsl). In formats that have seven signs for eight columns, the number of minus
// signs among the eight is even, and the places of the eighth signs, at bits 25, 27, 29 and 31, hold something else.

#include "quants/parts/bits.wgsl"

// The word with its eighth signs, which are the parities of the other seven.
fn all_signs(word: u32) -> u32 {
    let three = word ^ (word >> 8u) ^ (word >> 16u);  // bytes 0 to 2; columns of eight are two neighbouring bits
    let parity = (three ^ (three >> 1u) ^ (word >> 24u)) & 0x55u;
    return (word & 0x55ffffffu) | (parity << 25u);
}

// The four bits that lie in the places of the eighth signs.
fn between_signs(word: u32) -> u32 {
    var bits = (word >> 25u) & 0x55u;
    bits = (bits | (bits >> 1u)) & 0x33u;
    return (bits | (bits >> 2u)) & 0x0fu;
}

// Bytes above zero, those negated whose lowest bit in `signs` is set. Minus x is (255 - x) + 1, which carries into no
// other byte because x is not 0.
fn signed(magnitudes: vec4<u32>, signs: vec4<u32>) -> vec4<u32> {
    return (magnitudes ^ (signs * 255u)) + signs;
}
