//! Rows of any block into planes.

use crate::quant::{Block, blocks};

/// The most planes that a type has.
pub const MOST_PLANES: usize = 6;

/// A block that knows what it has in each plane.
pub trait Repack: Block {
    /// An array of bytes for each plane, those of `quants` first.
    type Planes: Planes;
    /// How many planes are in `quants`.
    const QUANT_PLANES: usize = 1;
    /// The block, taken apart.
    fn repack(&self) -> Self::Planes;
}

/// A tuple of arrays of bytes.
pub trait Planes {
    /// How long each is.
    const BYTES: &'static [usize];
    /// Puts each array where that of the block with this index is in its plane.
    fn store(&self, index: usize, planes: &mut [&mut [u8]]);
}

macro_rules! tuple_of_planes {
    ($($size:ident $plane:ident)*) => {
        impl<$(const $size: usize),*> Planes for ($([u8; $size],)*) {
            const BYTES: &'static [usize] = &[$($size),*];

            #[inline(always)]
            fn store(&self, index: usize, planes: &mut [&mut [u8]]) {
                let ($($plane,)*) = self;
                let mut planes = planes.iter_mut();
                $(if let Some(place) = planes.next().and_then(|plane| plane.as_chunks_mut().0.get_mut(index)) {
                    *place = *$plane;
                })*
            }
        }
    };
}

tuple_of_planes!(A a B b);
tuple_of_planes!(A a B b C c);
tuple_of_planes!(A a B b C c D d);
tuple_of_planes!(A a B b C c D d E e);
tuple_of_planes!(A a B b C c D d E e F f);

/// Takes all blocks of a row apart.
pub fn pack_blocks<R: Repack>(row: &[u8], planes: &mut [&mut [u8]]) {
    let blocks: &[R] = blocks(row).unwrap_or_default();
    for (index, block) in blocks.iter().enumerate() {
        block.repack().store(index, planes);
    }
}

/// Bytes of a plane: whole words.
pub fn plane_bytes(blocks: usize, block_bytes: usize) -> usize {
    (blocks * block_bytes).next_multiple_of(4)
}

/// Cuts a row into its planes, and clears the last word of each, where a plane may have padding.
pub fn split<'r>(mut row: &'r mut [u8], blocks: usize, block_bytes: &[usize], planes: &mut [&'r mut [u8]]) {
    for (block_bytes, plane) in block_bytes.iter().zip(planes) {
        let Some((first, rest)) = row.split_at_mut_checked(plane_bytes(blocks, *block_bytes)) else { return };
        if let Some(last) = first.as_chunks_mut::<4>().0.last_mut() {
            *last = [0; 4];
        }
        *plane = first;
        row = rest;
    }
}

/// The same byte, sixteen times. What follows works on sixteen bytes at once as on one large number.
const fn splat(byte: u8) -> u128 {
    u128::from_le_bytes([byte; 16])
}

/// Bytes made of the low halves of two times as many, and those made of their high halves.
pub fn nibbles(a: u128, b: u128) -> [u128; 2] {
    const LOW: u128 = splat(15);
    [a & LOW | (b & LOW) << 4, (a >> 4) & LOW | b & !LOW]
}

/// Two bits a column of four units: `a` has columns 0 to 15, those of the four units side by side in each byte; `b` has
/// columns 16 to 31.
fn quarters(a: u128, b: u128) -> [u128; 2] {
    const FIRST: u128 = splat(3);
    const SECOND: u128 = splat(12);
    let pair = |a: u128, b: u128| a & FIRST | (b & FIRST) << 2 | (a & SECOND) << 2 | (b & SECOND) << 4;
    [pair(a, b), pair(a >> 4, b >> 4)]
}

/// Two bits a column of 256 columns in which each 32 bytes hold the columns of four units, the lowest bits first.
pub fn all_quarters(bytes: &[u8; 64]) -> [u8; 64] {
    let [a, b, c, d] = bytemuck::cast::<_, [[u8; 16]; 4]>(*bytes).map(u128::from_le_bytes);
    bytemuck::cast([quarters(a, b), quarters(c, d)].map(|half| half.map(u128::to_le_bytes)))
}

/// A bit a column of 256 columns, where byte i has in bit u column i of unit u.
///
/// For each of the four bytes of a word, an 8 by 8 matrix of bits is turned about its diagonal, by exchanging ever
/// smaller quarters.
pub fn all_bits(bytes: &[u8; 32]) -> [u8; 32] {
    let mut words: [u32; 8] = bytemuck::cast::<_, [[u8; 4]; 8]>(*bytes).map(u32::from_le_bytes);
    for (distance, mask) in [(4, 0x0f0f_0f0f), (2, 0x3333_3333), (1, 0x5555_5555)] {
        for i in (0..8).filter(|i| i & distance == 0) {
            let exchanged = (words[i] >> distance ^ words[i + distance]) & mask;
            words[i + distance] ^= exchanged;
            words[i] ^= exchanged << distance;
        }
    }
    bytemuck::cast(words.map(u32::to_le_bytes))
}

/// A bit a column of one unit, in the order of the columns.
pub fn bits(word: u32) -> u32 {
    (0..8).fold(0, |bits, k| bits | spread(word >> (4 * k)) << k)
}

/// The lowest four bits, each as the lowest of a byte.
pub fn spread(bits: u32) -> u32 {
    ((bits & 15) * 0x0020_4081) & 0x0101_0101
}

/// Eight pairs of six-bit numbers, the first below the second: the lower eight of the twelve bits as bytes, the upper
/// four as half bytes.
pub fn sixes(first: u64, second: u64) -> ([u8; 8], [u8; 4]) {
    let low = first | (second << 6) & 0xc0c0_c0c0_c0c0_c0c0;
    let mut high = (second >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    high = (high | high >> 4) & 0x00ff_00ff_00ff_00ff;
    high = (high | high >> 8) & 0x0000_ffff_0000_ffff;
    (low.to_le_bytes(), ((high | high >> 16) as u32).to_le_bytes())
}
