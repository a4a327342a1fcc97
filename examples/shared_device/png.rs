//! Writes pictures as PNG: a header, one stream of rows that are stored as they are, and checksums. Nothing is compressed.

use std::io::{self, Write};

/// The most bytes of a stored block.
const BLOCK_BYTES: usize = 0xffff;

/// Writes a picture: four bytes a pixel (red, green, blue, alpha), row by row from the top.
pub fn write(out: &mut impl Write, (width, height): (u32, u32), pixels: &[u8]) -> io::Result<()> {
    out.write_all(b"\x89PNG\r\n\x1a\n")?;
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    // Eight bits a channel, four channels, and the only ways there are to compress and to filter; not interlaced.
    header.extend([8, 6, 0, 0, 0]);
    chunk(out, b"IHDR", &header)?;
    // In front of each row stands how it is filtered: not at all.
    let rows: Vec<u8> = pixels.chunks(width as usize * 4).flat_map(|row| [&[0], row].concat()).collect();
    chunk(out, b"IDAT", &zlib(&rows))?;
    chunk(out, b"IEND", &[])
}

fn chunk(out: &mut impl Write, kind: &[u8; 4], data: &[u8]) -> io::Result<()> {
    let checked = [&kind[..], data].concat();
    out.write_all(&(data.len() as u32).to_be_bytes())?;
    out.write_all(&checked)?;
    out.write_all(&crc32(&checked).to_be_bytes())
}

/// A zlib stream of stored blocks.
fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let blocks = bytes.len().div_ceil(BLOCK_BYTES);
    for (index, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        let length = block.len() as u16;
        stream.push(u8::from(index + 1 == blocks));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(block);
    }
    stream.extend(adler32(bytes).to_be_bytes());
    stream
}

/// The checksum of chunks: the remainder of a division of polynomials, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let shift = |rest: u32| if rest & 1 == 1 { rest >> 1 ^ 0xedb8_8320 } else { rest >> 1 };
    !bytes.iter().fold(!0, |rest, &byte| (0..8).fold(rest ^ u32::from(byte), |rest, _| shift(rest)))
}

/// The checksum of zlib streams: the sum of bytes, and the sum of these sums.
fn adler32(bytes: &[u8]) -> u32 {
    const PRIME: u32 = 65_521;
    let add = |(sum, sums): (u32, u32), &byte: &u8| {
        let sum = (sum + u32::from(byte)) % PRIME;
        (sum, (sums + sum) % PRIME)
    };
    let (sum, sums) = bytes.iter().fold((1, 0), add);
    sums << 16 | sum
}
