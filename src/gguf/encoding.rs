//! How numbers stand in a file: byte order, and the width of lengths, which version 1 kept at four bytes.

/// The byte order of a file. Nearly all are little-endian; version 3 brought big-endian files for machines that are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Endian {
    /// Least significant byte first.
    #[default]
    Little,
    /// Most significant byte first.
    Big,
}

/// Byte order and width of lengths: all that is needed to read any number of a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Encoding {
    pub endian: Endian,
    /// Version 1: lengths, counts and dimensions are u32; later they are u64.
    pub narrow: bool,
}

/// One method for each width: the bytes of a number, in the order of the file, to the unsigned number.
macro_rules! from_bytes {
    ($($name:ident: $bytes:literal),*) => {$(
        pub fn $name(self, bytes: [u8; $bytes]) -> $name {
            match self.endian {
                Endian::Little => $name::from_le_bytes(bytes),
                Endian::Big => $name::from_be_bytes(bytes),
            }
        }
    )*};
}

impl Encoding {
    from_bytes!(u16: 2, u32: 4, u64: 8);

    /// Bytes of a length, count or dimension.
    pub fn length_bytes(self) -> usize {
        if self.narrow { 4 } else { 8 }
    }

    /// Reads a length off the front of `bytes`; `None` when there are too few.
    pub fn length(self, bytes: &[u8]) -> Option<u64> {
        if self.narrow {
            bytes.first_chunk().map(|&bytes| self.u32(bytes).into())
        } else {
            bytes.first_chunk().map(|&bytes| self.u64(bytes))
        }
    }

    /// Splits a string (length, then bytes) off the front of `bytes`; `None` when there are too few.
    pub fn split_string(self, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let length = usize::try_from(self.length(bytes)?).ok()?;
        bytes.get(self.length_bytes()..)?.split_at_checked(length)
    }
}
