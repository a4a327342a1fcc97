// Two bits a column: a vec4 holds two units, in each byte two bits each of columns i and 16 + i of the first, then of
// the second. `q` is shifted down by `pairs_shift` before.

fn pairs_shift(index: u32) -> vec4<u32> {
    return vec4<u32>(4u * (index & 1u));
}

fn low_pairs(q: vec4<u32>) -> vec4<u32> {
    return q & vec4<u32>(0x03030303u);
}

fn high_pairs(q: vec4<u32>) -> vec4<u32> {
    return (q >> vec4<u32>(2u)) & vec4<u32>(0x03030303u);
}
