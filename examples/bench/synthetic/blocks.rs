//! Random blocks of every type: noise in every bit but those of the scales, which are set so that the values are of a
//! wanted size. Encoding random numbers would take minutes, and not every type has an encoder.

use kiln::gguf::TensorType;
use kiln::quant;

/// Blocks of one type whose values are of one size.
#[derive(Debug)]
pub struct Blocks {
    kind: TensorType,
    scale: Scale,
}

/// How the size of a block's values is set, and to what.
#[derive(Debug, Clone)]
enum Scale {
    /// Every value has this exponent, which is this many bits wide and stands in an integer of so many bytes.
    Exponent { value_bytes: usize, exponent_bits: u32, exponent: u32 },
    /// Half-precision numbers at these places.
    Halves(Vec<(usize, [u8; 2])>),
    /// One half-precision number, four bits each in the upper halves of these bytes, lowest first.
    Nibbles([usize; 4], [u8; 2]),
    /// So many first bytes are small floating-point numbers.
    Bytes(usize, u8),
}

/// Where the half-precision numbers of a block are, and what each is in terms of the first. Where there is a minimum, it
/// takes the mean away that the integers above zero have.
fn halves(kind: TensorType) -> &'static [(usize, f32)] {
    use TensorType::*;
    match kind {
        Q4_1 => &[(0, 1.0), (2, -7.5)],
        Q5_1 => &[(0, 1.0), (2, -15.5)],
        Q2_K => &[(80, 1.0), (82, 1.5)],
        Q3_K => &[(108, 1.0)],
        Q4_K => &[(0, 1.0), (2, 7.5)],
        Q5_K => &[(0, 1.0), (2, 15.5)],
        Q6_K => &[(208, 1.0)],
        TQ1_0 => &[(52, 1.0)],
        TQ2_0 => &[(64, 1.0)],
        _ => &[(0, 1.0)],
    }
}

impl Blocks {
    /// Blocks whose values have about this root of the mean square.
    pub fn new(kind: TensorType, size: f32) -> kiln::Result<Self> {
        let scale = match kind {
            TensorType::F32 => exponent(4, 8, size),
            TensorType::F16 => exponent(2, 5, size),
            TensorType::BF16 => exponent(2, 8, size),
            TensorType::MXFP4 => best_byte(kind, 1, size)?,
            TensorType::NVFP4 => best_byte(kind, 4, size)?,
            _ => {
                let unit = sample(kind, with_half(kind, 1.0)?)?;
                with_half(kind, size / unit)?
            }
        };
        Ok(Blocks { kind, scale })
    }

    pub fn block_bytes(&self) -> usize {
        self.kind.block_bytes() as usize
    }

    /// Fills bytes with whole blocks; which, depends on the seed.
    pub fn fill(&self, seed: u64, bytes: &mut [u8]) {
        randomize(seed, bytes);
        let blocks = bytes.chunks_exact_mut(self.block_bytes());
        match &self.scale {
            &Scale::Exponent { value_bytes, exponent_bits, exponent } => {
                // The sign and the mantissa stay.
                let bits = value_bytes as u32 * 8 - 1 - exponent_bits;
                let (mask, exponent) = (((1 << exponent_bits) - 1) << bits, exponent << bits);
                for block in blocks {
                    let mut value = [0; 4];
                    value[..value_bytes].copy_from_slice(block);
                    let value = u32::from_le_bytes(value) & !mask | exponent;
                    block.copy_from_slice(&value.to_le_bytes()[..value_bytes]);
                }
            }
            Scale::Halves(halves) => blocks.for_each(|block| {
                halves.iter().for_each(|(place, half)| block[*place..place + 2].copy_from_slice(half));
            }),
            Scale::Nibbles(places, [low, high]) => blocks.for_each(|block| {
                for (place, nibble) in places.iter().zip([low << 4, low & 0xf0, high << 4, high & 0xf0]) {
                    block[*place] = block[*place] & 0x0f | nibble;
                }
            }),
            Scale::Bytes(count, scale) => blocks.for_each(|block| block[..*count].fill(*scale)),
        }
    }
}

/// Numbers between a power of two and the next, which are on average (in the root of the mean square) 1.53 times it.
fn exponent(value_bytes: usize, exponent_bits: u32, size: f32) -> Scale {
    let bias = (1 << (exponent_bits - 1)) - 1;
    let exponent = (size / 1.53).log2().round() as i32 + bias;
    Scale::Exponent { value_bytes, exponent_bits, exponent: exponent.max(1) as u32 }
}

/// A scale of half precision.
fn with_half(kind: TensorType, scale: f32) -> kiln::Result<Scale> {
    let half = |value: f32| {
        let mut bytes = [0; 2];
        quant::encode(TensorType::F16, &[value], &mut bytes).map(|()| bytes)
    };
    if kind == TensorType::IQ1_M {
        return Ok(Scale::Nibbles([49, 51, 53, 55], half(scale)?));
    }
    let places = halves(kind).iter().map(|&(place, factor)| Ok((place, half(scale * factor)?)));
    Ok(Scale::Halves(places.collect::<kiln::Result<_>>()?))
}

/// The scale of a byte that comes closest.
fn best_byte(kind: TensorType, count: usize, size: f32) -> kiln::Result<Scale> {
    let mut best = (f32::INFINITY, 0);
    for byte in 1..=126 {
        let found = sample(kind, Scale::Bytes(count, byte))?;
        let distance = (found / size).ln().abs();
        if distance < best.0 {
            best = (distance, byte);
        }
    }
    Ok(Scale::Bytes(count, best.1))
}

/// The root of the mean square of the values that blocks with a scale have.
fn sample(kind: TensorType, scale: Scale) -> kiln::Result<f32> {
    const BLOCKS: usize = 64;
    let blocks = Blocks { kind, scale };
    let mut bytes = vec![0; BLOCKS * blocks.block_bytes()];
    let mut values = vec![0.0; BLOCKS * kind.block_elements() as usize];
    blocks.fill(1, &mut bytes);
    quant::decode(kind, &bytes, &mut values)?;
    let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
    Ok((squares / values.len() as f64).sqrt() as f32)
}

/// Random bits, eight bytes at a time.
fn randomize(seed: u64, bytes: &mut [u8]) {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    };
    let mut words = bytes.chunks_exact_mut(8);
    words.by_ref().for_each(|word| word.copy_from_slice(&next().to_le_bytes()));
    let rest = words.into_remainder();
    let last = next().to_le_bytes();
    rest.copy_from_slice(&last[..rest.len()]);
}
