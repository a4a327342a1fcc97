// Codebooks of vectors of eight values that have three levels: IQ1 and IQ2.
//
// Layout of `tables`: two entries a word; in byte i two bits each for values i and 4 + i of the first, then of the
// second.

// Numbers of levels, 0 to 2, of the eight values.
fn entry(number: u32) -> vec2<u32> {
    let both = tables[number >> 1u] >> (4u * (number & 1u));
    return vec2<u32>(both, both >> 2u) & vec2<u32>(0x03030303u);
}

// Levels 8, 25 and 43.
fn magnitudes(numbers: vec4<u32>) -> vec4<u32> {
    return numbers * 17u + vec4<u32>(0x08080808u) + ((numbers >> vec4<u32>(1u)) & vec4<u32>(0x01010101u));
}
