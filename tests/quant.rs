//! Block formats as such: sizes and errors, what rounding costs, and what holds for any bytes.

use kiln::gguf::TensorType::{self, *};
use kiln::quant::{self, FORMATS, Format, legacy};
use proptest::prelude::*;

fn of(kind: TensorType) -> &'static Format {
    Format::of(kind).unwrap()
}

fn decoded(format: &Format, bytes: &[u8]) -> Vec<f32> {
    let blocks = bytes.len() / format.kind().block_bytes() as usize;
    let mut values = vec![f32::NAN; blocks * format.kind().block_elements() as usize];
    format.decode(bytes, &mut values).unwrap();
    values
}

fn round_trip(format: &Format, values: &[f32]) -> Vec<f32> {
    let mut bytes = vec![0xa5; format.bytes_for(values.len()).unwrap()];
    format.encode(values, &mut bytes).unwrap();
    decoded(format, &bytes)
}

#[test]
fn errors_name_the_type_and_both_sizes() {
    let message = |result: kiln::Result<()>| result.unwrap_err().to_string();
    let mut values = [0.0; 64];
    let q4 = of(Q4_0);
    let cases = [
        (message(q4.decode(&[0; 18], &mut values[..31])), "found 31 values, expected whole blocks of 32 values"),
        (message(q4.decode(&[0; 17], &mut values[..32])), "found 17 bytes for 32 values, expected 18 bytes"),
        (message(q4.decode(&[0; 18], &mut values)), "found 18 bytes for 64 values, expected 36 bytes"),
        (message(q4.decode(&[0; 36], &mut values[..32])), "found 36 bytes for 32 values, expected 18 bytes"),
        (message(q4.encode(&[0.0; 33], &mut [0; 18])), "found 33 values, expected whole blocks of 32 values"),
        (message(q4.encode(&[0.0; 32], &mut [0; 19])), "found 19 bytes for 32 values, expected 18 bytes"),
        (
            message(quant::blocks::<legacy::Q4_0>(&[0; 35]).map(drop)),
            "found 35 bytes, expected whole blocks of 18 bytes",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, format!("Q4_0 blocks: {expected}"));
    }
    assert_eq!(
        message(of(F32).bytes_for(usize::MAX).map(drop)),
        format!("F32 blocks: found {} values, expected a row whose bytes can be counted", usize::MAX)
    );
    assert_eq!(
        message(quant::encode(Q2_K, &[0.0; 256], &mut [0; 84])),
        "Q2_K blocks: found a format that can only be decoded, \
         expected F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 IQ4_NL Q8_1 Q8_K"
    );
}

#[test]
fn empty_rows_are_rows() {
    for format in &FORMATS {
        assert_eq!(format.bytes_for(0).unwrap(), 0);
        format.decode(&[], &mut []).unwrap();
    }
}

#[test]
fn bytes_are_seen_as_blocks_at_any_address() {
    let bytes: Vec<u8> = (0..=72).collect();
    for start in 0..4 {
        let blocks = quant::blocks::<legacy::Q8_0>(&bytes[start..start + 68]).unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!(blocks[1].d.0, [start as u8 + 34, start as u8 + 35]);
        assert_eq!(blocks[1].qs[31], start as i8 + 67);
    }
    let mut bytes = [0; 36];
    quant::blocks_mut::<legacy::Q4_0>(&mut bytes).unwrap()[1].qs[0] = 7;
    assert_eq!(bytes[20], 7);
}

/// The reference's own measure: the norm of the error over the number of values, on 4096 samples of a cosine.
#[test]
fn rounding_a_cosine_costs_what_the_reference_allows() {
    let samples: Vec<f32> = (0..4096).map(|i| 0.1 + 2.0 * (i as f32).cos()).collect();
    for format in FORMATS.iter().filter(|format| format.can_encode()) {
        let squares: f32 = samples.iter().zip(round_trip(format, &samples)).map(|(a, b)| (a - b) * (a - b)).sum();
        let error = squares.sqrt() / samples.len() as f32;
        println!("{:7} {error:.6}", format.kind());
        assert!(error < 0.002, "{}: {error}", format.kind());
        assert!(error > 0.0 || format.kind() == F32, "{}: too good to be true", format.kind());
    }
}

/// How far a value may move: a part of the block's largest magnitude, or of its range for formats with a minimum.
/// Half a step, or a whole one where the range reaches one step less far on one side; and the scale's own rounding.
fn allowed(kind: TensorType, block: &[f32]) -> f32 {
    let peak = block.iter().fold(0.0f32, |peak, value| peak.max(value.abs()));
    let (min, max) = block.iter().fold((f32::MAX, f32::MIN), |(min, max), &value| (min.min(value), max.max(value)));
    let f16 = 2f32.powi(-11);
    let spacing = 2f32.powi(-25) * if kind == F16 { 1.0 } else { 128.0 }; // of subnormal scales, times the largest integer
    let allowed = match kind {
        F32 => 0.0,
        F16 => peak * f16,
        BF16 => peak * 2f32.powi(-8),
        Q8_0 | Q8_1 => peak * (0.5 / 127.0 + f16 * 1.01),
        Q8_K => peak * (0.5 / 127.0 + 1e-6),
        Q4_0 => peak * (1.0 / 8.0 + f16 * 1.01),
        Q5_0 => peak * (1.0 / 16.0 + f16 * 1.01),
        Q4_1 => (max - min) * (0.5 / 15.0 + f16 * 1.01) + peak * f16 * 1.01,
        Q5_1 => (max - min) * (0.5 / 31.0 + f16 * 1.01) + peak * f16 * 1.01,
        // Half of the widest gap between levels, 24 of 127, and the scale's move to the least squared error.
        IQ4_NL => peak * 0.15,
        _ => unreachable!("{kind} has no encoder"),
    };
    if matches!(kind, F32 | BF16 | Q8_K) { allowed } else { allowed + spacing }
}

/// Where a block's floating-point scales lie, in bytes. IQ1_M's is in pieces, of which the last byte has the exponent.
fn f16_scales(kind: TensorType) -> &'static [usize] {
    match kind {
        F16 | Q1_0 | Q2_0 | Q4_0 | Q5_0 | Q8_0 | IQ1_S | IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S | IQ4_NL
        | IQ4_XS => &[0],
        Q4_1 | Q5_1 | Q8_1 | Q4_K | Q5_K => &[0, 2],
        Q2_K => &[80, 82],
        Q3_K => &[108],
        Q6_K => &[208],
        TQ1_0 => &[52],
        TQ2_0 => &[64],
        IQ1_M => &[54],
        F32 | BF16 | Q8_K | MXFP4 | NVFP4 => &[],
        _ => unreachable!("{kind} has no format"),
    }
}

/// Makes the scales of a block of random bytes finite.
fn make_finite(kind: TensorType, block: &mut [u8]) {
    for &at in f16_scales(kind) {
        block[at + 1] &= 0xbf; // exponents below that of 2.0
    }
    match kind {
        BF16 => block[1] &= 0xbf,
        F32 | Q8_K => block[3] &= 0xbf,
        MXFP4 => block[0] = block[0].min(252),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn any_bytes_decode(bytes in prop::collection::vec(any::<u8>(), 3 * 292)) {
        for format in &FORMATS {
            let size = format.kind().block_bytes() as usize;
            let elements = format.kind().block_elements() as usize;
            let mut bytes = bytes[..3 * size].to_vec();
            let bits = |bytes: &[u8]| decoded(format, bytes).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let row = bits(&bytes);
            prop_assert_eq!(&row, &bits(&bytes), "{} is deterministic", format.kind());
            for (block, values) in bytes.chunks(size).zip(row.chunks(elements)) {
                prop_assert_eq!(values, bits(block), "{}: blocks know nothing of each other", format.kind());
            }
            bytes.chunks_mut(size).for_each(|block| make_finite(format.kind(), block));
            for value in decoded(format, &bytes) {
                prop_assert!(value.is_finite(), "{}: {}", format.kind(), value);
            }
        }
    }

    #[test]
    fn values_come_back_near(
        values in prop::collection::vec(-1.0f32..1.0, 256), scale in -3..4i32, shift in -1.0f32..1.0,
    ) {
        let values: Vec<f32> = values.iter().map(|value| (value + shift) * 10f32.powi(scale)).collect();
        for format in FORMATS.iter().filter(|format| format.can_encode()) {
            let elements = format.kind().block_elements() as usize;
            let back = round_trip(format, &values);
            for (block, back) in values.chunks(elements).zip(back.chunks(elements)) {
                let allowed = allowed(format.kind(), block);
                for (value, back) in block.iter().zip(back) {
                    let moved = (value - back).abs();
                    prop_assert!(moved <= allowed, "{}: {value} became {back}, allowed {allowed}", format.kind());
                }
            }
        }
    }

    #[test]
    fn any_values_encode(patterns in prop::collection::vec(any::<u32>(), 256)) {
        let values: Vec<f32> = patterns.into_iter().map(f32::from_bits).collect();
        for format in FORMATS.iter().filter(|format| format.can_encode()) {
            round_trip(format, &values);
        }
    }
}
