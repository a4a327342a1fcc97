use super::*;
use crate::quant::{FORMATS, Format};

fn layouts() -> impl Iterator<Item = Layout> {
    FORMATS.iter().filter_map(|format| Layout::of(format.kind()).ok())
}

/// Pack a row, `quants` first.
fn pack(layout: &Layout, columns: usize, row: &[u8]) -> Vec<u8> {
    let quants_bytes = layout.quants_row_bytes(columns);
    let mut packed = vec![0xee; quants_bytes + layout.scales_row_bytes(columns)];
    let (quants, scales) = packed.split_at_mut(quants_bytes);
    layout.pack_row(columns, row, quants, scales);
    packed
}

fn bit(bytes: &[u8], index: usize) -> u8 {
    bytes[index / 8] >> (index % 8) & 1
}

fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Where each bit of a row goes to, found out bit by bit.
fn permutation(layout: &Layout, columns: usize, row_bytes: usize) -> Vec<usize> {
    let place = |index| {
        let mut row = vec![0; row_bytes];
        row[index / 8] = 1u8 << (index % 8);
        let packed = pack(layout, columns, &row);
        let ones: Vec<usize> = (0..packed.len() * 8).filter(|&i| bit(&packed, i) == 1).collect();
        assert_eq!(ones.len(), 1, "{}: bit {index} of the row goes to {ones:?}", layout.kind.name());
        ones[0]
    };
    (0..row_bytes * 8).map(place).collect()
}

#[test]
fn rows_come_back_bit_for_bit() {
    for layout in layouts() {
        let name = layout.kind.name();
        let columns = match layout.is_float() {
            true => 37,
            false => 3 * layout.kind.block_elements() as usize,
        };
        let format = Format::of(layout.kind).unwrap();
        let row = random_bytes(format.bytes_for(columns).unwrap());
        let places = permutation(&layout, columns, row.len());
        let mut sorted = places.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), row.len() * 8, "{name}: each bit has a place of its own");

        let packed = pack(&layout, columns, &row);
        let mut back = vec![0; row.len()];
        places.iter().enumerate().for_each(|(i, &place)| back[i / 8] |= bit(&packed, place) << (i % 8));
        assert_eq!(back, row, "{name}");
        let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
        assert_eq!(ones(&packed), ones(&row), "{name}: padding is zero");

        let (mut found, mut expected) = (vec![0.0; columns], vec![0.0; columns]);
        format.decode(&back, &mut found).unwrap();
        format.decode(&row, &mut expected).unwrap();
        assert!(found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
    }
}

#[test]
fn rows_are_no_larger_than_in_the_file() {
    for layout in layouts() {
        for columns in [256, 2048, 4096, 11008] {
            let file_bytes = Format::of(layout.kind).unwrap().bytes_for(columns).unwrap();
            let (quants, scales) = (layout.quants_row_bytes(columns), layout.scales_row_bytes(columns));
            assert!(quants.is_multiple_of(if layout.vectors { 16 } else { 4 }) && scales.is_multiple_of(4));
            assert!((file_bytes..file_bytes + 4).contains(&(quants + scales)), "{} {columns}", layout.kind.name());
        }
        assert!(layout.quants.len() + layout.scales.len() <= MOST_PLANES);
    }
}

#[test]
fn every_type_of_weights_has_a_layout() {
    for format in &FORMATS {
        let is_of_activations = matches!(format.kind(), TensorType::Q8_1 | TensorType::Q8_K);
        assert_eq!(Layout::of(format.kind()).is_err(), is_of_activations, "{}", format.kind().name());
    }
    assert!(Layout::of(TensorType::I32).unwrap_err().to_string().contains("I32"));
    assert!(Layout::of(TensorType::Q8_K).unwrap_err().to_string().contains("Q8_K"));
}

#[test]
fn planes_lie_as_described() {
    // Column c has the number c in its lower bits, so that bytes say where they came from.
    let eights: Vec<u8> = [0, 0].into_iter().chain(0..32).chain([0, 0]).chain(32..64).collect();
    let layout = Layout::of(TensorType::Q8_0).unwrap();
    let found = pack(&layout, 64, &eights);
    let expected: Vec<u8> = (0..16).chain(32..48).chain(16..32).chain(48..64).collect();
    assert_eq!(found[..64], expected);
    assert_eq!(planes::bits(0x8000_0001), 0x8000_0001);
    assert_eq!(planes::bits(0b11_0000), 0x0000_0202, "columns 4 and 5 are bits 1 of bytes 0 and 1");
}
