//! Block formats against the reference, bit for bit; `golden/quants/README.md` says what the files hold.

use kiln::gguf::TensorType;
use kiln::quant::{self, FORMATS, Format};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Types that files carry but that hold no weights.
const NO_WEIGHTS: [TensorType; 5] =
    [TensorType::I8, TensorType::I16, TensorType::I32, TensorType::I64, TensorType::F64];

/// What activations are rounded to; no file has them, and there are no golden values but those of the encoders.
const ACTIVATIONS: [TensorType; 2] = [TensorType::Q8_1, TensorType::Q8_K];

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/quants").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (values, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Decodes the blocks of a golden file and compares them with its values; says how many there were.
fn check_decode(format: &Format, stem: &str) -> usize {
    let (blocks, expected) = (golden(&format!("{stem}.blocks")), floats(&golden(&format!("{stem}.f32"))));
    let mut found = vec![f32::NAN; expected.len()];
    format.decode(&blocks, &mut found).unwrap();
    let per_block = format.kind().block_elements() as usize;
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let (block, lane) = (i / per_block, i % per_block);
        assert_eq!(found.to_bits(), expected.to_bits(), "{stem}, block {block}, value {lane}: {found} {expected}");
    }
    expected.len()
}

#[test]
fn every_format_decodes_as_the_reference() {
    let mut types = 0;
    let mut values = 0;
    for format in &FORMATS {
        let name = format.kind().name();
        if format.kind() == TensorType::F32 || ACTIVATIONS.contains(&format.kind()) {
            continue;
        }
        values += check_decode(format, name);
        values += check_decode(format, &format!("{name}.edge"));
        types += 1;
    }
    println!("{types} types, {values} values, all bits equal");
    assert_eq!((types, values), (27, 793_078));
}

#[test]
fn f32_passes_unchanged() {
    let patterns = [0, 1, 0x8000_0000, 0x007f_ffff, 0x7f7f_ffff, 0x7f80_0000, 0xff80_0000, 0x3f80_0001];
    let bytes: Vec<u8> = patterns.iter().flat_map(|bits: &u32| bits.to_le_bytes()).collect();
    let mut values = [0.0; 8];
    quant::decode(TensorType::F32, &bytes, &mut values).unwrap();
    assert_eq!(values.map(f32::to_bits), patterns);
    let mut again = vec![0; 32];
    quant::encode(TensorType::F32, &values, &mut again).unwrap();
    assert_eq!(again, bytes);
}

#[test]
fn every_type_has_a_format_or_holds_no_weights() {
    let kinds: Vec<_> = FORMATS.iter().map(Format::kind).collect();
    let distinct: BTreeSet<_> = kinds.iter().copied().collect();
    assert_eq!(distinct.len(), kinds.len());
    let expected: BTreeSet<_> = TensorType::ALL.into_iter().filter(|kind| !NO_WEIGHTS.contains(kind)).collect();
    assert_eq!(distinct, expected);
    for kind in NO_WEIGHTS {
        let error = quant::decode(kind, &[0; 8], &mut [0.0]).unwrap_err().to_string();
        let expected = "found a type that holds no weights, expected one of the types of weights, F32 to NVFP4";
        assert_eq!(error, format!("{kind} blocks: {expected}"));
    }
}

/// Blocks of values so small that the reference leaves the quants to chance.
fn means_nothing(kind: TensorType, values: &[f32]) -> bool {
    kind == TensorType::IQ4_NL && values.iter().all(|value| value.abs() < 1e-15)
}

#[test]
fn encoders_equal_the_reference() {
    let values = floats(&golden("encode/values.f32"));
    let mut compared = 0;
    let mut left_out = 0;
    for format in FORMATS.iter().filter(|format| format.can_encode() && format.kind() != TensorType::F32) {
        let kind = format.kind();
        let mut found = vec![0xa5; format.bytes_for(values.len()).unwrap()];
        format.encode(&values, &mut found).unwrap();
        let expected = golden(&format!("encode/{kind}.blocks"));
        assert_eq!(found.len(), expected.len(), "{kind}");
        let (elements, bytes) = (kind.block_elements() as usize, kind.block_bytes() as usize);
        let blocks = found.chunks(bytes).zip(expected.chunks(bytes)).zip(values.chunks(elements));
        for (i, ((found, expected), values)) in blocks.enumerate() {
            if means_nothing(kind, values) {
                let mut decoded = [1.0; 32];
                format.decode(found, &mut decoded).unwrap();
                assert_eq!(decoded.map(f32::to_bits), [0; 32], "plus zero");
                left_out += 1;
                continue;
            }
            assert_eq!(found, expected, "{kind}, block {i}: {values:?}");
            compared += 1;
        }
    }
    println!("{compared} blocks equal, {left_out} left out");
    // 7 formats of 32 values, one of 256, two of single numbers.
    assert_eq!((compared, left_out), (7 * 104 - 15 + 13 + 2 * 3328, 15));
}

#[test]
fn formats_without_a_choice_follow_from_the_source() {
    let source = floats(&golden("source.f32"));
    for kind in [TensorType::F16, TensorType::BF16, TensorType::Q8_0] {
        let expected = golden(&format!("{kind}.blocks"));
        let mut found = vec![0; expected.len()];
        quant::encode(kind, &source, &mut found).unwrap();
        assert!(found == expected, "{kind}");
    }
}
