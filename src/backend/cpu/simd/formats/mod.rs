//! Packed weights: eight rows side by side, so that one vector holds four columns of each.
//!
//! A *panel* is eight rows; a *unit* is a block of the file's format in each of them. The integers of a unit ("quants")
//! and its scales lie in two planes, each of which streams through memory from its beginning to its end. A *quad* is a
//! vector with the integers of four neighbouring columns: lane r has those of row r. It is multiplied by the same four
//! activations in each lane, so the sums of a row never have to be added across lanes.
//!
//! Here stands for each format where the bits of a block go ([`Format::pack`]) and how quads and scales are got back
//! out of vectors ([`Format::quad`], the `scales` of the other two traits), as twins. Packed weights take exactly the
//! bytes of the file's blocks.
//!
//! There are two families. In the formats of 32 columns each unit has a floating-point scale ([`FloatScaled`]). In those
//! of 256 the groups have small integer scales, which multiply the sums while they are integers ([`IntScaled`]).

pub(crate) mod large;
pub(crate) mod small;

use super::{Isa, LANES};
use bytemuck::AnyBitPattern;

/// Bytes of a vector.
pub(crate) const VECTOR: usize = 4 * LANES;

/// One packed format.
pub(crate) trait Format: 'static {
    /// Columns of a unit.
    const COLUMNS: usize;
    /// Bytes of a block of the file: of one row's part of a unit.
    const BLOCK: usize;
    /// Bytes of all rows' quants in a unit.
    const QUANTS: usize;
    /// Bytes of all rows' scales in a unit.
    const SCALES: usize = Self::BLOCK * LANES - Self::QUANTS;
    /// Whether quads are bytes with sign.
    const SIGNED: bool;
    /// How many quads may be added up by [`Isa::dot`]; a divisor of 8.
    const SPAN: usize;

    /// Packs a block of each row. `blocks`, `quants` and `scales` are as long as said above.
    fn pack(blocks: [&[u8]; LANES], quants: &mut [u8], scales: &mut [u8]);

    /// Quad I of group `2 * pair + HALF`, a group being 32 columns.
    fn quad<S: Isa, const HALF: usize, const I: usize>(s: S, quants: &[u8], pair: usize) -> S::I;
}

/// A format with a floating-point scale, and perhaps a minimum, for 32 columns.
pub(crate) trait FloatScaled: Format {
    /// Whether there is a minimum (or a fixed centre, which comes to the same).
    const MINIMUM: bool;
    /// Scale and minimum of each row: a value is `scale * quad + minimum`.
    fn scales<S: Isa>(s: S, scales: &[u8]) -> (S::F, S::F);
}

/// How the minimums of an [`IntScaled`] format come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Minimum {
    /// Quads are centred.
    None,
    /// A group has a minimum of its own, under a second floating-point scale.
    Group,
    /// Quads of all groups are too large by this number.
    Centre(i32),
}

/// A format with an integer scale for each group, and floating-point scales for 256 columns.
pub(crate) trait IntScaled: Format {
    /// Columns of a group: 16 or 32.
    const GROUP: usize;
    const MINIMUM: Minimum;
    fn scales<S: Isa>(s: S, scales: &[u8]) -> Scales<S>;
}

/// The scales of a unit, ready to multiply.
pub(crate) struct Scales<S: Isa> {
    /// For each group its scale, twice in each lane.
    pub scale: [S::I; 16],
    /// For each two groups their minimums, or their scales where there is a common centre.
    pub minimum: [S::I; 8],
    /// What the scales are multiplied by.
    pub d: S::F,
    /// What the minimums are multiplied by.
    pub dmin: S::F,
}

/// The vector at this index.
#[inline(always)]
fn vector<S: Isa>(s: S, bytes: &[u8], index: usize) -> S::I {
    s.load(bytes.get(index * VECTOR..).unwrap_or_default())
}

/// The low or high halves of all bytes.
#[inline(always)]
fn nibbles<S: Isa, const HALF: usize>(s: S, bytes: S::I) -> S::I {
    let bytes = if HALF == 0 { bytes } else { s.shr::<4>(bytes) };
    s.and(bytes, s.splat(0x0f0f_0f0f))
}

/// Bit I of all bytes, moved to bit `TO` (2 or 4).
#[inline(always)]
fn bit<S: Isa, const I: usize, const TO: usize>(s: S, bytes: S::I) -> S::I {
    let moved = match 8 + TO - I {
        1 => s.shr::<7>(bytes),
        2 => s.shr::<6>(bytes),
        3 => s.shr::<5>(bytes),
        4 => s.shr::<4>(bytes),
        5 => s.shr::<3>(bytes),
        6 => s.shr::<2>(bytes),
        7 => s.shr::<1>(bytes),
        8 => bytes,
        9 => s.shl::<1>(bytes),
        10 => s.shl::<2>(bytes),
        11 => s.shl::<3>(bytes),
        _ => s.shl::<4>(bytes),
    };
    s.and(moved, s.splat(0x0101_0101 << TO))
}

/// Two-bit number I % 4 of all bytes, moved to bit `TO` (0 or 4).
#[inline(always)]
fn two_bits<S: Isa, const I: usize, const TO: usize>(s: S, bytes: S::I) -> S::I {
    let moved = match 8 + TO - 2 * (I % 4) {
        2 => s.shr::<6>(bytes),
        4 => s.shr::<4>(bytes),
        6 => s.shr::<2>(bytes),
        8 => bytes,
        10 => s.shl::<2>(bytes),
        _ => s.shl::<4>(bytes),
    };
    s.and(moved, s.splat(0x0303_0303 << TO))
}

/// Writes a vector: a word for each row.
#[inline(always)]
fn put(plane: &mut [u8], vector: usize, word: impl Fn(usize) -> u32) {
    put_bytes(plane, vector * VECTOR, |lane| word(lane).to_le_bytes());
}

/// Writes N bytes for each row, from byte `at` on.
#[inline(always)]
fn put_bytes<const N: usize>(plane: &mut [u8], at: usize, bytes: impl Fn(usize) -> [u8; N]) {
    let places = plane.get_mut(at..).unwrap_or_default().as_chunks_mut::<N>().0;
    if let Some(places) = places.first_chunk_mut::<LANES>() {
        for lane in 0..LANES {
            places[lane] = bytes(lane);
        }
    }
}

/// The rows' blocks as their struct.
#[inline(always)]
fn read<B: AnyBitPattern>(blocks: [&[u8]; LANES]) -> Option<[&B; LANES]> {
    let mut structs = [bytemuck::try_from_bytes(blocks[0]).ok()?; LANES];
    for lane in 0..LANES {
        structs[lane] = bytemuck::try_from_bytes(blocks[lane]).ok()?;
    }
    Some(structs)
}

/// The four bytes at this index of an array of words.
#[inline(always)]
fn word(bytes: &[u8], index: usize) -> u32 {
    bytes.get(4 * index..).and_then(|rest| rest.first_chunk()).map_or(0, |&bytes| u32::from_le_bytes(bytes))
}
