// A bit a column: in a word, column 4 k + i is bit k of byte i.

// Bits of columns 0 to 15, each as the lowest of a byte.
fn low_bits(bits: u32) -> vec4<u32> {
    return (vec4<u32>(bits) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(0x01010101u);
}

// Of columns 16 to 31.
fn high_bits(bits: u32) -> vec4<u32> {
    return (vec4<u32>(bits) >> vec4<u32>(4u, 5u, 6u, 7u)) & vec4<u32>(0x01010101u);
}

// Bits of columns 0 to 15, each as the fifth of a byte.
fn low_fifths(bits: u32) -> vec4<u32> {
    return (vec4<u32>(bits) << vec4<u32>(4u, 3u, 2u, 1u)) & vec4<u32>(0x10101010u);
}

// Of columns 16 to 31.
fn high_fifths(bits: u32) -> vec4<u32> {
    return (vec4<u32>(bits) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(0x10101010u);
}
