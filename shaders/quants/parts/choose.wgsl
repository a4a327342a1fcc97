// Choosing bit by bit, which compiles to one instruction where a device has it.

// `yes` where the mask is set, `no` elsewhere.
fn choose(no: vec4<u32>, yes: vec4<u32>, mask: vec4<u32>) -> vec4<u32> {
    return no ^ ((no ^ yes) & mask);
}

// The lowest bit of each byte, in all bits of the byte.
fn whole_bytes(q: vec4<u32>) -> vec4<u32> {
    return (q & vec4<u32>(0x01010101u)) * 255u;
}
