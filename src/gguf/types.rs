//! The storage types of tensors: every id that a file may carry, with its name and the size of its blocks.
//!
//! A tensor's row is a whole number of blocks; a block is `block_elements` values in `block_bytes` bytes. What the
//! bytes mean is the business of [`crate::quant`]; the container only needs the sizes. Ids that were once in use and
//! have been withdrawn are known too, so that an old file is refused by name and not by number.

use std::fmt;

/// How the values of a tensor are stored.
///
/// The names are those that people see in file names and tools (`Q4_K`, `IQ2_XXS`), which is why they are not camel
/// case.
#[allow(non_camel_case_types, missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u32)]
pub enum TensorType {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q8_1 = 9,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    Q8_K = 15,
    IQ2_XXS = 16,
    IQ2_XS = 17,
    IQ3_XXS = 18,
    IQ1_S = 19,
    IQ4_NL = 20,
    IQ3_S = 21,
    IQ2_S = 22,
    IQ4_XS = 23,
    I8 = 24,
    I16 = 25,
    I32 = 26,
    I64 = 27,
    F64 = 28,
    IQ1_M = 29,
    BF16 = 30,
    TQ1_0 = 34,
    TQ2_0 = 35,
    MXFP4 = 39,
    NVFP4 = 40,
    Q1_0 = 41,
    Q2_0 = 42,
}

use TensorType::*;

impl TensorType {
    /// Every type that a file may hold, by id.
    #[rustfmt::skip]
    pub const ALL: [TensorType; 35] = [
        F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K, IQ2_XXS, IQ2_XS, IQ3_XXS,
        IQ1_S, IQ4_NL, IQ3_S, IQ2_S, IQ4_XS, I8, I16, I32, I64, F64, IQ1_M, BF16, TQ1_0, TQ2_0, MXFP4, NVFP4, Q1_0,
        Q2_0,
    ];

    /// The type of an id; `None` for ids that were withdrawn or never given.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }

    /// The name of a type that files once held and that no reader takes any more.
    pub fn withdrawn_name(id: u32) -> Option<&'static str> {
        Some(match id {
            4 => "Q4_2",
            5 => "Q4_3",
            31 => "Q4_0_4_4",
            32 => "Q4_0_4_8",
            33 => "Q4_0_8_8",
            36 => "IQ4_NL_4_4",
            37 => "IQ4_NL_4_8",
            38 => "IQ4_NL_8_8",
            _ => return None,
        })
    }

    /// The number that stands for the type in a file.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The name, as in `Q4_K`.
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// Values in a block: 1 for plain numbers, 32 to 256 for quantized types.
    pub const fn block_elements(self) -> u64 {
        self.facts().1
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> u64 {
        self.facts().2
    }

    /// Whether values share a block, rather than being numbers of their own.
    pub const fn is_quantized(self) -> bool {
        self.block_elements() > 1
    }

    /// Storage per value, all scales and minimums included.
    pub fn bits_per_element(self) -> f64 {
        (self.block_bytes() * 8) as f64 / self.block_elements() as f64
    }

    /// (name, elements per block, bytes per block)
    const fn facts(self) -> (&'static str, u64, u64) {
        match self {
            F32 => ("F32", 1, 4),
            F16 => ("F16", 1, 2),
            BF16 => ("BF16", 1, 2),
            F64 => ("F64", 1, 8),
            I8 => ("I8", 1, 1),
            I16 => ("I16", 1, 2),
            I32 => ("I32", 1, 4),
            I64 => ("I64", 1, 8),
            Q1_0 => ("Q1_0", 128, 18),
            Q2_0 => ("Q2_0", 64, 18),
            Q4_0 => ("Q4_0", 32, 18),
            Q4_1 => ("Q4_1", 32, 20),
            Q5_0 => ("Q5_0", 32, 22),
            Q5_1 => ("Q5_1", 32, 24),
            Q8_0 => ("Q8_0", 32, 34),
            Q8_1 => ("Q8_1", 32, 36),
            Q2_K => ("Q2_K", 256, 84),
            Q3_K => ("Q3_K", 256, 110),
            Q4_K => ("Q4_K", 256, 144),
            Q5_K => ("Q5_K", 256, 176),
            Q6_K => ("Q6_K", 256, 210),
            Q8_K => ("Q8_K", 256, 292),
            IQ1_S => ("IQ1_S", 256, 50),
            IQ1_M => ("IQ1_M", 256, 56),
            IQ2_XXS => ("IQ2_XXS", 256, 66),
            IQ2_XS => ("IQ2_XS", 256, 74),
            IQ2_S => ("IQ2_S", 256, 82),
            IQ3_XXS => ("IQ3_XXS", 256, 98),
            IQ3_S => ("IQ3_S", 256, 110),
            IQ4_NL => ("IQ4_NL", 32, 18),
            IQ4_XS => ("IQ4_XS", 256, 136),
            TQ1_0 => ("TQ1_0", 256, 54),
            TQ2_0 => ("TQ2_0", 256, 66),
            MXFP4 => ("MXFP4", 32, 17),
            NVFP4 => ("NVFP4", 64, 36),
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
