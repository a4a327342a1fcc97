//! The IQ formats. [`super`] says how bits lie in a plane.
//!
//! Entry numbers have their lower eight bits in `quants`, a word for four entries.

use super::planes::{Repack, bits, spread};
use crate::quant::iq::{IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ4_NL, IQ4_XS};

/// Entry numbers; for each unit 16 bits as in the file; scales.
impl Repack for IQ1_S {
    type Planes = ([u8; 32], [u8; 16], [u8; 2]);

    fn repack(&self) -> Self::Planes {
        (self.qs, bytemuck::cast(self.qh), self.d.0)
    }
}

/// Entry numbers; for each unit 16 bits as in the file; a word of `d` and the upper two bits of six for each unit; the
/// lower four bits. The six bits are the scales of both groups.
impl Repack for IQ1_M {
    type Planes = ([u8; 32], [u8; 16], [u8; 4], [u8; 4]);

    fn repack(&self) -> Self::Planes {
        let (mut low, mut high) = (0u32, 0u16);
        for unit in 0..8 {
            let scales = u16::from_le_bytes(self.scales[unit / 2]) >> (6 * (unit % 2));
            low |= u32::from(scales & 15) << (4 * unit);
            high |= (scales >> 4 & 3) << (2 * unit);
        }
        (self.qs, self.qh, bytemuck::cast([self.d().0, high.to_le_bytes()]), low.to_le_bytes())
    }
}

/// Entry numbers; signs with the scales between them; scales of the scales.
impl Repack for IQ2_XXS {
    type Planes = ([u8; 32], [u8; 32], [u8; 2]);

    fn repack(&self) -> Self::Planes {
        let units: [[[u8; 4]; 2]; 8] = bytemuck::cast(self.qs);
        let signs = units.map(|[_, word]| signs_and_scale(word));
        (bytemuck::cast(units.map(|[numbers, _]| numbers)), bytemuck::cast(signs), self.d.0)
    }
}

/// The lower bits of entry numbers; signs with the ninth bits between them; scales, a byte a unit; their scale.
impl Repack for IQ2_XS {
    type Planes = ([u8; 32], [u8; 32], [u8; 8], [u8; 2]);

    fn repack(&self) -> Self::Planes {
        let codes = self.qs.map(u16::from_le_bytes);
        let units: [[u16; 4]; 8] = bytemuck::cast(codes);
        let signs = units.map(|codes| {
            let ninth = (0..4).fold(0, |bits, i| bits | u32::from(codes[i] >> 8 & 1) << i);
            signs(codes.map(|code| u32::from(code >> 9)), ninth)
        });
        (codes.map(|code| code as u8), bytemuck::cast(signs), self.scales, self.d.0)
    }
}

/// The lower bits of entry numbers; signs; the upper bits, a byte a unit; scales, a byte a unit; their scale.
impl Repack for IQ2_S {
    type Planes = ([u8; 32], [u8; 32], [u8; 8], [u8; 8], [u8; 2]);

    fn repack(&self) -> Self::Planes {
        (self.qs, unit_bits(&self.signs), self.qh, self.scales, self.d.0)
    }
}

/// Entry numbers of the first 16 columns of each unit, then of the others; signs with the scales between them; scales of
/// the scales.
impl Repack for IQ3_XXS {
    type Planes = ([u8; 32], [u8; 32], [u8; 32], [u8; 2]);
    const QUANT_PLANES: usize = 2;

    fn repack(&self) -> Self::Planes {
        let [first, second] = halves(&self.qs);
        (first, second, bytemuck::cast(self.signs_and_scales.map(signs_and_scale)), self.d.0)
    }
}

/// The lower bits of entry numbers, as in IQ3_XXS; signs; the ninth bits, a byte a unit; scales, half a byte a unit; their
/// scale.
impl Repack for IQ3_S {
    type Planes = ([u8; 32], [u8; 32], [u8; 32], [u8; 8], [u8; 4], [u8; 2]);
    const QUANT_PLANES: usize = 2;

    fn repack(&self) -> Self::Planes {
        let [first, second] = halves(&self.qs);
        (first, second, unit_bits(&self.signs), self.qh, self.scales, self.d.0)
    }
}

/// Four bits each; scales.
impl Repack for IQ4_NL {
    type Planes = ([u8; 16], [u8; 2]);

    fn repack(&self) -> Self::Planes {
        (self.qs, self.d.0)
    }
}

/// Four bits each; a word of `d` and the upper bits of the scales; their lower bits, half a byte a unit.
impl Repack for IQ4_XS {
    type Planes = ([u8; 128], [u8; 4], [u8; 4]);

    fn repack(&self) -> Self::Planes {
        (bytemuck::cast(self.qs), bytemuck::cast([self.d.0, self.scales_h]), self.scales_l)
    }
}

/// The words of even index, and those of odd index.
fn halves(bytes: &[u8; 64]) -> [[u8; 32]; 2] {
    let units: [[[u8; 4]; 2]; 8] = bytemuck::cast(*bytes);
    [0, 1].map(|half| bytemuck::cast(units.map(|unit| unit[half])))
}

/// A bit for each of 256 columns, unit by unit.
fn unit_bits(bytes: &[u8; 32]) -> [u8; 32] {
    let units: [[u8; 4]; 8] = bytemuck::cast(*bytes);
    bytemuck::cast(units.map(|unit| bits(u32::from_le_bytes(unit)).to_le_bytes()))
}

/// Four times seven bits of signs, and four bits of something else in the places of the signs that follow from those:
/// of columns 7, 15, 23 and 31.
fn signs(sevens: [u32; 4], others: u32) -> [u8; 4] {
    let word = (0..4).fold(0, |word, i| {
        let (low, high) = (spread(sevens[i]), spread(sevens[i] >> 4 & 7));
        word | low << (2 * i) | high << (2 * i + 1) | (others >> i & 1) << (25 + 2 * i)
    });
    word.to_le_bytes()
}

fn signs_and_scale(word: [u8; 4]) -> [u8; 4] {
    let word = u32::from_le_bytes(word);
    signs([0, 7, 14, 21].map(|shift| word >> shift), word >> 28)
}
