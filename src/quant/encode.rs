//! From values to blocks, for the formats that activations and caches need.
//!
//! For finite values everything equals llama.cpp's reference quantizers bit for bit, so that a cache or an activation
//! rounded here can be compared with one rounded there. That fixes details which would otherwise be free: the scale is
//! rounded to 16 bits only when it is stored, and the integers are taken with the unrounded one; a scale may be negative,
//! so that the value of largest magnitude meets the end of the range that reaches further; Q8_0 and Q8_1 round halves
//! away from zero, Q8_K rounds them to even, the others add a half and truncate. The one exception is a block of IQ4_NL
//! that is zero, or too small for its scale: the reference leaves its integers to chance, here they decode to +0.
//!
//! No input makes an encoder panic. F16 and BF16 keep infinities and NaNs; in the other formats a block that has them is
//! worth nothing in particular.

use super::Encode;
use super::activation::{Q8_1, Q8_K};
use super::iq::{IQ4_LEVELS, IQ4_NL};
use super::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use super::simple::{BF16, F16, F32};

impl Encode for F32 {
    fn encode(&[value]: &[f32; 1]) -> Self {
        F32::new(value)
    }
}

impl Encode for F16 {
    fn encode(&[value]: &[f32; 1]) -> Self {
        F16::new(value)
    }
}

impl Encode for BF16 {
    fn encode(&[value]: &[f32; 1]) -> Self {
        BF16::new(value)
    }
}

/// The value of largest magnitude, the first of equals; 0 if there is none.
fn peak(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |peak: f32, &value| if value.abs() > peak.abs() { value } else { peak })
}

/// The smallest and the largest value.
fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::MAX, -f32::MAX), |(min, max), &value| {
        (if value < min { value } else { min }, if value > max { value } else { max })
    })
}

/// What to multiply by instead of dividing by a scale; 0 for a scale of 0.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The integer part. Infinities and NaN, which come of a scale so small that its inverse overflows, become 0: the block's
/// scale is stored as 0 then, and the integers have no meaning.
fn truncate(value: f32) -> i8 {
    if value.is_finite() { value as i8 } else { 0 }
}

/// Four-bit integers into bytes: the first half of the block into the low halves.
fn pack_nibbles(quants: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| quants[i] & 15 | quants[i + 16] << 4)
}

/// The fifth bits of five-bit integers.
fn fifth_bits(quants: &[u8; 32]) -> [u8; 4] {
    let bits = quants.iter().enumerate().fold(0, |bits, (i, q)| bits | u32::from(q >> 4 & 1) << i);
    bits.to_le_bytes()
}

impl Encode for Q4_0 {
    fn encode(values: &[f32; 32]) -> Self {
        let d = peak(values) / -8.0;
        let id = inverse(d);
        let quants = values.map(|value| truncate(value * id + 8.5).min(15) as u8);
        Q4_0 { d: F16::new(d), qs: pack_nibbles(&quants) }
    }
}

impl Encode for Q4_1 {
    fn encode(values: &[f32; 32]) -> Self {
        let (min, max) = range(values);
        let d = (max - min) / 15.0;
        let id = inverse(d);
        let quants = values.map(|value| truncate((value - min) * id + 0.5).min(15) as u8);
        Q4_1 { d: F16::new(d), m: F16::new(min), qs: pack_nibbles(&quants) }
    }
}

impl Encode for Q5_0 {
    fn encode(values: &[f32; 32]) -> Self {
        let d = peak(values) / -16.0;
        let id = inverse(d);
        let quants = values.map(|value| truncate(value * id + 16.5).min(31) as u8);
        Q5_0 { d: F16::new(d), qh: fifth_bits(&quants), qs: pack_nibbles(&quants) }
    }
}

impl Encode for Q5_1 {
    fn encode(values: &[f32; 32]) -> Self {
        let (min, max) = range(values);
        let d = (max - min) / 31.0;
        let id = inverse(d);
        let quants = values.map(|value| truncate((value - min) * id + 0.5) as u8);
        Q5_1 { d: F16::new(d), m: F16::new(min), qh: fifth_bits(&quants), qs: pack_nibbles(&quants) }
    }
}

/// Eight-bit integers and their scale, which Q8_0 and Q8_1 share.
fn eight_bits(values: &[f32; 32]) -> (f32, [i8; 32]) {
    let d = peak(values).abs() / 127.0;
    let id = inverse(d);
    (d, values.map(|value| truncate((value * id).round())))
}

impl Encode for Q8_0 {
    fn encode(values: &[f32; 32]) -> Self {
        let (d, qs) = eight_bits(values);
        Q8_0 { d: F16::new(d), qs }
    }
}

impl Encode for Q8_1 {
    fn encode(values: &[f32; 32]) -> Self {
        let (d, qs) = eight_bits(values);
        let sum: i32 = qs.iter().map(|&q| i32::from(q)).sum();
        Q8_1 { d: F16::new(d), s: F16::new(sum as f32 * d), qs }
    }
}

impl Encode for Q8_K {
    fn encode(values: &[f32; 256]) -> Self {
        let peak = peak(values);
        if peak == 0.0 {
            return bytemuck::Zeroable::zeroed();
        }
        let id = -127.0 / peak;
        let qs = values.map(|value| truncate((id * value).round_ties_even()));
        let (groups, _) = qs.as_chunks::<16>();
        let mut bsums = [[0; 2]; 16];
        for (bsum, group) in bsums.iter_mut().zip(groups) {
            *bsum = group.iter().map(|&q| i16::from(q)).sum::<i16>().to_le_bytes();
        }
        Q8_K { d: F32::new(1.0 / id), qs, bsums }
    }
}

/// The number of the level nearest to `value`, the upper one of equals.
fn nearest_level(value: f32) -> usize {
    let above = IQ4_LEVELS.partition_point(|&level| f32::from(level) <= value);
    let Some(&upper) = IQ4_LEVELS.get(above) else { return 15 };
    let Some(&lower) = above.checked_sub(1).and_then(|below| IQ4_LEVELS.get(below)) else { return 0 };
    if value - f32::from(lower) < f32::from(upper) - value { above - 1 } else { above }
}

impl Encode for IQ4_NL {
    /// The levels are chosen with a scale that puts the largest magnitude on the outermost level. The scale that is
    /// stored is then the one with the least squared error for those levels, weighted by the squares of the values.
    fn encode(values: &[f32; 32]) -> Self {
        let peak = peak(values);
        if peak.abs() < 1e-15 {
            return IQ4_NL { d: F16::new(0.0), qs: pack_nibbles(&[nearest_level(0.0) as u8; 32]) };
        }
        let id = 1.0 / (peak / f32::from(IQ4_LEVELS[0]));
        let levels = values.map(|value| nearest_level(id * value));
        let (mut value_level, mut level_level) = (0.0f32, 0.0f32);
        for (&value, &number) in values.iter().zip(&levels) {
            let (weight, level) = (value * value, f32::from(IQ4_LEVELS[number]));
            value_level += weight * level * value;
            level_level += weight * level * level;
        }
        let d = if level_level > 0.0 { value_level / level_level } else { 0.0 };
        IQ4_NL { d: F16::new(d), qs: pack_nibbles(&levels.map(|number| number as u8)) }
    }
}
