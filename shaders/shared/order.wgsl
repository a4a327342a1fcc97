// An order of numbers by their bits, which no driver's way with zeros, tiny numbers or what is not a number can change.
//
// A candidate is a key and an index: the key grows with the number, both zeros have one key, and the key of what is not
// a number is 0, below all others. Of equal keys the lower index comes first.

// What comes after all candidates.
const NOTHING = vec2<u32>(0u, 0xffffffffu);

// The key of a number's bits.
fn key_of(bits: u32) -> u32 {
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return 0u;
    }
    if ((bits & 0x7fffffffu) == 0u) {
        return 0x80000000u;
    }
    return select(bits | 0x80000000u, ~bits, bits >> 31u == 1u);
}

// The bits of a number that has this key.
fn bits_of(key: u32) -> u32 {
    return select(~key, key & 0x7fffffffu, key >> 31u == 1u);
}

fn is_before(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x > b.x || (a.x == b.x && a.y < b.y);
}
