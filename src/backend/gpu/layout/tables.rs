//! The codebooks of [`grids`] as words that shaders read.

use crate::quant::grids;

/// IQ1: levels -1, 0 and 1 as 0, 1 and 2.
pub fn iq1() -> Vec<u32> {
    thirds(&grids::IQ1, -1, 1)
}

/// IQ2: levels 8, 25 and 43 as 0, 1 and 2.
pub fn iq2_xxs() -> Vec<u32> {
    thirds(&grids::IQ2_XXS, 8, 17)
}

/// As [`iq2_xxs`].
pub fn iq2_xs() -> Vec<u32> {
    thirds(&grids::IQ2_XS, 8, 17)
}

/// As [`iq2_xxs`].
pub fn iq2_s() -> Vec<u32> {
    thirds(&grids::IQ2_S, 8, 17)
}

/// An entry a word.
pub fn iq3_xxs() -> Vec<u32> {
    fours(&grids::IQ3_XXS)
}

/// An entry a word.
pub fn iq3_s() -> Vec<u32> {
    fours(&grids::IQ3_S)
}

/// Numbers of levels, two entries a word. Byte i of a word has two bits each for values i and 4 + i of the first entry,
/// then of the second.
fn thirds(entries: &[[i8; 8]], lowest: i8, distance: i8) -> Vec<u32> {
    let digit = |level: i8| ((level - lowest) / distance) as u8;
    let half = |entry: &[i8; 8], i: usize| digit(entry[i]) | digit(entry[4 + i]) << 2;
    let word = |[a, b]: &[[i8; 8]; 2]| u32::from_le_bytes(std::array::from_fn(|i| half(a, i) | half(b, i) << 4));
    entries.as_chunks().0.iter().map(word).collect()
}

fn fours(entries: &[[i8; 4]]) -> Vec<u32> {
    entries.iter().map(|entry| u32::from_le_bytes(entry.map(|level| level as u8))).collect()
}
