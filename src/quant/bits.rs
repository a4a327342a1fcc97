//! Small integers packed into bytes, laid out again in the order of the values they stand for.
//!
//! The formats were made for vector units, so neighbouring values rarely sit in neighbouring bits: a run of bytes holds
//! one *plane* of values in its low bits, the next plane in the bits above, and so on. Each function here is one such
//! order; with them a decoder can go through a block from the first value to the last.

/// Half bytes: the low halves of all bytes, then the high halves.
pub(super) fn nibbles<const BYTES: usize>(bytes: &[u8; BYTES]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|byte| byte & 15).chain(bytes.iter().map(|byte| byte >> 4))
}

/// Two-bit numbers of 256 values: each 32 bytes hold four planes of 32 values, the lowest bits first.
pub(super) fn quarters(bytes: &[u8; 64]) -> [u8; 256] {
    std::array::from_fn(|i| {
        let (half, plane, lane) = (i / 128, i / 32 % 4, i % 32);
        bytes[32 * half + lane] >> (2 * plane) & 3
    })
}

/// Single bits of 256 values: 32 bytes hold eight planes of 32 values, the lowest bit first.
pub(super) fn bit_planes(bytes: &[u8; 32]) -> [u8; 256] {
    std::array::from_fn(|i| bytes[i % 32] >> (i / 32) & 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_low_halves_first() {
        assert_eq!(nibbles(&[0x21, 0x43]).collect::<Vec<_>>(), [1, 3, 2, 4]);
    }

    #[test]
    fn quarters_plane_by_plane() {
        let mut bytes = [0; 64];
        bytes[5] = 0b11_10_01_00;
        bytes[32 + 5] = 0b00_01_10_11;
        let quarters = quarters(&bytes);
        for (i, expected) in [(5, 0), (37, 1), (69, 2), (101, 3), (133, 3), (165, 2), (197, 1), (229, 0)] {
            assert_eq!(quarters[i], expected, "value {i}");
        }
        assert_eq!(quarters.iter().filter(|&&q| q != 0).count(), 6);
    }

    #[test]
    fn bit_planes_lowest_bit_first() {
        let mut bytes = [0; 32];
        bytes[3] = 0b1000_0001;
        let ones: Vec<_> = (0..256).filter(|&i| bit_planes(&bytes)[i] == 1).collect();
        assert_eq!(ones, [3, 7 * 32 + 3]);
    }
}
