//! Block formats: how weights lie in bytes, and what each bit pattern is worth.
//!
//! # What a block is
//!
//! A quantized tensor stores each row as a run of *blocks*. A block is a fixed number of neighbouring values (32, 64,
//! 128 or 256) in a fixed number of bytes: one or a few scales, and a small integer for each value. Decoding a value
//! is a look at its integer, a table look-up for some formats, one multiplication, and for some formats one addition.
//! Plain floating-point types are blocks of a single value, so that everything here has one shape.
//!
//! Each format is a `#[repr(C)]` struct of bytes that implements [`Block`]. The structs have alignment 1 and no
//! padding, so that any byte of a memory-mapped file may begin one: [`blocks`] views bytes as blocks without a copy,
//! and without `unsafe` here ([`bytemuck`] proves the layout when the struct is compiled). A const assertion beside each
//! struct ties its size to the sizes of [`TensorType`], which the container goes by.
//!
//! # Why decode is scalar
//!
//! This module is the truth that the SIMD kernels of the CPU and the shaders of the GPU are held to. It is therefore
//! written to be read and checked, not to be fast: a block's integers are first laid out in the order of the values
//! they stand for, then scaled in plain `f32`. The results equal llama.cpp's, bit for bit, for every format
//! (`tests/quant_golden.rs`).
//!
//! What a kernel may do differently without moving a bit: products here are exact. A 16-bit scale has 11 significant
//! bits, and the integers that it is multiplied by have at most 12 together, which fits the 24 bits of an `f32`. So the
//! order of multiplications is free, and where a minimum is added or subtracted, that is the only rounding: fused or
//! not, it is the same.
//!
//! # Which file
//!
//! | file | formats |
//! |---|---|
//! | [`simple`] | F32, F16, BF16: a block is one number |
//! | [`legacy`] | Q1_0, Q2_0, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: one scale for the block, perhaps a minimum |
//! | [`k`] | Q2_K … Q6_K: 256 values, whose groups have small integer scales under one floating-point scale |
//! | [`iq`] | IQ1_S … IQ4_XS: integers that are indices into the codebooks of [`grids`] |
//! | [`ternary`] | TQ1_0, TQ2_0: -1, 0 and 1 |
//! | [`fp4`] | MXFP4, NVFP4: four-bit floating-point numbers under eight-bit floating-point scales |
//! | [`activation`] | Q8_1, Q8_K: what activations are rounded to before integer dot products; no file stores them |
//! | [`mod@encode`] | the other way, for the formats that activations and caches need |
//!
//! # Invariants
//!
//! - Every bit pattern decodes without a panic, and to finite values if its scales are finite and not absurdly large.
//! - The number of values and the number of bytes must agree exactly; what does not is an [`Error::Quant`] that says
//!   what was found and what was expected. Nothing is truncated.
//! - Decoding and encoding depend on nothing but their input: not on the machine, the threads or the build. (What sign a
//!   NaN has that comes of infinite scales or values is the one exception.)
//!
//! ```
//! use kiln::{gguf::TensorType, quant::Format};
//!
//! let format = Format::of(TensorType::Q8_0)?;                  // look it up once,
//! let mut bytes = vec![0; format.bytes_for(64)?];              // 2 blocks of 34 bytes
//! format.encode(&[0.5; 64], &mut bytes)?;                      // then use it row by row
//! let mut values = [0.0; 64];
//! format.decode(&bytes, &mut values)?;
//! assert!((values[63] - 0.5).abs() < 1e-3);
//! # Ok::<(), kiln::Error>(())
//! ```

pub mod activation;
mod bits;
pub mod encode;
pub mod fp4;
pub mod grids;
pub mod iq;
pub mod k;
pub mod legacy;
pub mod simple;
pub mod ternary;

use crate::gguf::TensorType;
use crate::{Error, Result};
use bytemuck::Pod;

/// One block of a format: a struct of bytes, and what its values are.
pub trait Block: Pod {
    /// The type whose tensors consist of these blocks.
    const TYPE: TensorType;
    /// The values of a block: `[f32; N]`.
    type Values: Pod;
    /// Writes the values that the block stands for.
    fn decode(&self, values: &mut Self::Values);
}

/// A block that can be made from values.
pub trait Encode: Block {
    /// The block that stands for `values`, rounded as the format's reference does it.
    fn encode(values: &Self::Values) -> Self;
}

/// Stands beside each block struct, so that a wrong field is a compile error: sizes as the container has them, no
/// alignment.
const fn assert_layout<B: Block>() {
    assert!(size_of::<B>() as u64 == B::TYPE.block_bytes());
    assert!(size_of::<B::Values>() as u64 == B::TYPE.block_elements() * size_of::<f32>() as u64);
    assert!(align_of::<B>() == 1);
}

/// What can be done with the rows of one tensor type: the uniform face of all [`Block`]s.
///
/// Looked up once per tensor with [`Format::of`]; after that a row costs one indirect call.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    kind: TensorType,
    decode: DecodeRow,
    encode: Option<EncodeRow>,
}

type DecodeRow = fn(&[u8], &mut [f32]) -> Result<()>;
type EncodeRow = fn(&[f32], &mut [u8]) -> Result<()>;

/// Every format there is.
pub static FORMATS: [Format; 30] = [
    Format::read_write::<simple::F32>(),
    Format::read_write::<simple::F16>(),
    Format::read_write::<simple::BF16>(),
    Format::read_only::<legacy::Q1_0>(),
    Format::read_only::<legacy::Q2_0>(),
    Format::read_write::<legacy::Q4_0>(),
    Format::read_write::<legacy::Q4_1>(),
    Format::read_write::<legacy::Q5_0>(),
    Format::read_write::<legacy::Q5_1>(),
    Format::read_write::<legacy::Q8_0>(),
    Format::read_only::<k::Q2_K>(),
    Format::read_only::<k::Q3_K>(),
    Format::read_only::<k::Q4_K>(),
    Format::read_only::<k::Q5_K>(),
    Format::read_only::<k::Q6_K>(),
    Format::read_only::<iq::IQ1_S>(),
    Format::read_only::<iq::IQ1_M>(),
    Format::read_only::<iq::IQ2_XXS>(),
    Format::read_only::<iq::IQ2_XS>(),
    Format::read_only::<iq::IQ2_S>(),
    Format::read_only::<iq::IQ3_XXS>(),
    Format::read_only::<iq::IQ3_S>(),
    Format::read_write::<iq::IQ4_NL>(),
    Format::read_only::<iq::IQ4_XS>(),
    Format::read_only::<ternary::TQ1_0>(),
    Format::read_only::<ternary::TQ2_0>(),
    Format::read_only::<fp4::MXFP4>(),
    Format::read_only::<fp4::NVFP4>(),
    Format::read_write::<activation::Q8_1>(),
    Format::read_write::<activation::Q8_K>(),
];

impl Format {
    const fn read_only<B: Block>() -> Self {
        Format { kind: B::TYPE, decode: decode_row::<B>, encode: None }
    }

    const fn read_write<B: Encode>() -> Self {
        Format { kind: B::TYPE, decode: decode_row::<B>, encode: Some(encode_row::<B>) }
    }

    /// The format of a tensor type. Integers and `F64` are numbers that files carry, but no weights: for them there is
    /// none, and the error says so.
    pub fn of(kind: TensorType) -> Result<&'static Format> {
        FORMATS.iter().find(|format| format.kind == kind).ok_or_else(|| Error::Quant {
            format: kind.name(),
            found: "a type that holds no weights".to_owned(),
            expected: "one of the types of weights, F32 to NVFP4".to_owned(),
        })
    }

    /// The type whose rows these are.
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// Whether [`Format::encode`] works.
    pub fn can_encode(&self) -> bool {
        self.encode.is_some()
    }

    /// Bytes of a row of `values` values, which must be a whole number of blocks.
    pub fn bytes_for(&self, values: usize) -> Result<usize> {
        bytes_for(self.kind, values)
    }

    /// Decodes whole blocks: `values` must be exactly as long as `bytes` says.
    pub fn decode(&self, bytes: &[u8], values: &mut [f32]) -> Result<()> {
        (self.decode)(bytes, values)
    }

    /// Encodes whole blocks: `bytes` must be exactly as long as `values` says.
    pub fn encode(&self, values: &[f32], bytes: &mut [u8]) -> Result<()> {
        match self.encode {
            Some(encode) => encode(values, bytes),
            None => Err(Error::Quant {
                format: self.kind.name(),
                found: "a format that can only be decoded".to_owned(),
                expected: FORMATS
                    .iter()
                    .filter(|f| f.can_encode())
                    .map(|f| f.kind.name())
                    .collect::<Vec<_>>()
                    .join(" "),
            }),
        }
    }
}

/// Decodes a row of any type; see [`Format::decode`].
pub fn decode(kind: TensorType, bytes: &[u8], values: &mut [f32]) -> Result<()> {
    Format::of(kind)?.decode(bytes, values)
}

/// Encodes a row into any type that has an encoder; see [`Format::encode`].
pub fn encode(kind: TensorType, values: &[f32], bytes: &mut [u8]) -> Result<()> {
    Format::of(kind)?.encode(values, bytes)
}

/// Bytes seen as blocks, without a copy.
pub fn blocks<B: Block>(bytes: &[u8]) -> Result<&[B]> {
    bytemuck::try_cast_slice(bytes).map_err(|_| uneven_bytes(B::TYPE, bytes.len()))
}

/// Bytes seen as blocks to be written, without a copy.
pub fn blocks_mut<B: Block>(bytes: &mut [u8]) -> Result<&mut [B]> {
    let found = bytes.len();
    bytemuck::try_cast_slice_mut(bytes).map_err(|_| uneven_bytes(B::TYPE, found))
}

fn decode_row<B: Block>(bytes: &[u8], values: &mut [f32]) -> Result<()> {
    let value_count = values.len();
    check_lengths(B::TYPE, bytes.len(), value_count)?;
    let values: &mut [B::Values] =
        bytemuck::try_cast_slice_mut(values).map_err(|_| uneven_values(B::TYPE, value_count))?;
    for (block, values) in blocks::<B>(bytes)?.iter().zip(values) {
        block.decode(values);
    }
    Ok(())
}

fn encode_row<B: Encode>(values: &[f32], bytes: &mut [u8]) -> Result<()> {
    check_lengths(B::TYPE, bytes.len(), values.len())?;
    let value_blocks: &[B::Values] =
        bytemuck::try_cast_slice(values).map_err(|_| uneven_values(B::TYPE, values.len()))?;
    for (block, values) in blocks_mut::<B>(bytes)?.iter_mut().zip(value_blocks) {
        *block = B::encode(values);
    }
    Ok(())
}

fn bytes_for(kind: TensorType, values: usize) -> Result<usize> {
    let block_elements = kind.block_elements() as usize;
    if !values.is_multiple_of(block_elements) {
        return Err(uneven_values(kind, values));
    }
    (values / block_elements).checked_mul(kind.block_bytes() as usize).ok_or_else(|| Error::Quant {
        format: kind.name(),
        found: format!("{values} values"),
        expected: "a row whose bytes can be counted".to_owned(),
    })
}

fn check_lengths(kind: TensorType, bytes: usize, values: usize) -> Result<()> {
    let expected = bytes_for(kind, values)?;
    if bytes == expected {
        return Ok(());
    }
    Err(Error::Quant {
        format: kind.name(),
        found: format!("{bytes} bytes for {values} values"),
        expected: format!("{expected} bytes"),
    })
}

fn uneven_values(kind: TensorType, values: usize) -> Error {
    Error::Quant {
        format: kind.name(),
        found: format!("{values} values"),
        expected: format!("whole blocks of {} values", kind.block_elements()),
    }
}

fn uneven_bytes(kind: TensorType, bytes: usize) -> Error {
    Error::Quant {
        format: kind.name(),
        found: format!("{bytes} bytes"),
        expected: format!("whole blocks of {} bytes", kind.block_bytes()),
    }
}
