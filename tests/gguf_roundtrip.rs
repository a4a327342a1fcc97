//! Random files, written and read back: every value and byte is what it was, from every kind of source.

mod gguf_bytes;

use std::collections::BTreeMap;
use std::io::Cursor;

use gguf_bytes::Folder;
use kiln::gguf::{Endian, Gguf, GgufWriter, LoadMode, TensorType, Value};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Generates the type of values that random files hold, from (variant, type of one value).
macro_rules! samples {
    ($($one:ident $many:ident $type:ty),*) => {
        /// A metadata value: alone, or an array.
        #[derive(Debug, Clone)]
        enum Sample {
            $($one($type), $many(Vec<$type>),)*
            Text(String),
            Bytes(Vec<u8>),
            Texts(Vec<String>),
            ManyBytes(Vec<Vec<u8>>),
        }

        fn sample() -> impl Strategy<Value = Sample> {
            prop_oneof![
                $(any::<$type>().prop_map(Sample::$one), vec(any::<$type>(), 0..20).prop_map(Sample::$many),)*
                any::<String>().prop_map(Sample::Text),
                vec(any::<u8>(), 0..50).prop_map(Sample::Bytes),
                vec(any::<String>(), 0..10).prop_map(Sample::Texts),
                vec(vec(any::<u8>(), 0..10), 0..10).prop_map(Sample::ManyBytes),
            ]
        }

        impl Sample {
            fn set(&self, writer: &mut GgufWriter<'_>, key: &str) -> kiln::Result<()> {
                match self {
                    $(Sample::$one(value) => writer.set(key, value), Sample::$many(values) => writer.set(key, values),)*
                    Sample::Text(text) => writer.set(key, text),
                    Sample::Bytes(bytes) => writer.set(key, Value::String(bytes)),
                    Sample::Texts(texts) => writer.set(key, texts),
                    Sample::ManyBytes(texts) => writer.set(key, texts),
                }
            }

            /// Whether a value that was read is this one, bit for bit.
            fn is(&self, value: Value<'_>) -> bool {
                match (self, value) {
                    $(
                        (Sample::$one(sample), Value::$one(value)) => sample.to_ne_bytes() == value.to_ne_bytes(),
                        (Sample::$many(samples), Value::Array(array)) => {
                            array.len() == samples.len()
                                && array.iter().zip(samples).all(|(value, &sample)| Sample::$one(sample).is(value))
                        }
                    )*
                    (Sample::Text(sample), Value::String(text)) => sample.as_bytes() == text,
                    (Sample::Bytes(sample), Value::String(text)) => sample == text,
                    (Sample::Texts(samples), Value::Array(array)) => {
                        array.strings().is_some_and(|texts| texts.eq(samples.iter().map(|text| text.as_bytes())))
                    }
                    (Sample::ManyBytes(samples), Value::Array(array)) => {
                        array.strings().is_some_and(|texts| texts.eq(samples.iter()))
                    }
                    _ => false,
                }
            }
        }
    };
}

/// A bool has no bytes of its own to compare.
trait Bytes {
    fn to_ne_bytes(&self) -> [u8; 1];
}

impl Bytes for bool {
    fn to_ne_bytes(&self) -> [u8; 1] {
        [u8::from(*self)]
    }
}

samples!(
    U8 U8s u8, I8 I8s i8, U16 U16s u16, I16 I16s i16, U32 U32s u32, I32 I32s i32, U64 U64s u64, I64 I64s i64,
    F32 F32s f32, F64 F64s f64, Bool Bools bool
);

/// The shape, type and bytes of a tensor.
#[derive(Debug, Clone)]
struct SampleTensor {
    shape: Vec<u64>,
    kind: TensorType,
    data: Vec<u8>,
}

fn sample_tensor() -> impl Strategy<Value = SampleTensor> {
    let kind = prop::sample::select(TensorType::ALL.to_vec());
    // Blocks in a row, and up to three more dimensions, of which any may be empty.
    (kind, prop::option::of(0u64..4), vec(0u64..4, 0..=3)).prop_flat_map(|(kind, blocks, rest)| {
        let shape = match blocks {
            Some(blocks) => [vec![blocks * kind.block_elements()], rest].concat(),
            None if kind.is_quantized() => vec![kind.block_elements()],
            None => Vec::new(),
        };
        let elements: u64 = shape.iter().product();
        let size_bytes = elements / kind.block_elements() * kind.block_bytes();
        let data = vec(any::<u8>(), size_bytes as usize);
        data.prop_map(move |data| SampleTensor { shape: shape.clone(), kind, data })
    })
}

#[derive(Debug, Clone)]
struct SampleFile {
    endian: Endian,
    alignment: Option<u32>,
    /// Whether tensors are written by a callback, in pieces.
    streamed: bool,
    pairs: BTreeMap<String, Sample>,
    tensors: BTreeMap<String, SampleTensor>,
}

prop_compose! {
    fn sample_file()(
        endian in prop::sample::select(vec![Endian::Little, Endian::Big]),
        alignment in prop::option::of((0u32..=12).prop_map(|bits| 1 << bits)),
        streamed in any::<bool>(),
        pairs in btree_map("[a-z.é]{1,12}", sample(), 0..12),
        tensors in btree_map("[a-z0-9._]{0,20}", sample_tensor(), 0..6),
    ) -> SampleFile {
        SampleFile { endian, alignment, streamed, pairs, tensors }
    }
}

fn write(sample: &SampleFile) -> kiln::Result<Vec<u8>> {
    let mut writer = GgufWriter::with_endian(sample.endian);
    if let Some(alignment) = sample.alignment {
        writer.set("general.alignment", alignment)?;
    }
    for (key, value) in &sample.pairs {
        value.set(&mut writer, key)?;
    }
    for (name, tensor) in &sample.tensors {
        let SampleTensor { shape, kind, data } = tensor;
        if sample.streamed {
            writer
                .tensor_with(name, shape, *kind, move |out| data.chunks(7).try_for_each(|part| out.write_all(part)))?;
        } else {
            writer.tensor(name, shape, *kind, data)?;
        }
    }
    let mut bytes = Vec::new();
    assert_eq!(writer.write(&mut bytes)?, bytes.len() as u64);
    Ok(bytes)
}

fn check(file: &Gguf, sample: &SampleFile) {
    assert_eq!((file.version(), file.endian(), file.alignment()), (3, sample.endian, sample.alignment.unwrap_or(32)));
    let pairs = file.metadata().iter().filter(|(key, _)| *key != "general.alignment");
    assert_eq!(pairs.count(), sample.pairs.len());
    for (key, value) in &sample.pairs {
        let read = file.metadata().get(key).unwrap();
        assert!(value.is(read), "{key}: {value:?} became {read:?}");
    }
    assert_eq!(file.tensors().len(), sample.tensors.len());
    for (name, tensor) in &sample.tensors {
        let read = file.tensor(name).unwrap();
        assert_eq!((read.shape(), read.tensor_type()), (tensor.shape.as_slice(), tensor.kind));
        assert_eq!(read.offset_bytes() % u64::from(file.alignment()), 0);
        assert_eq!(file.data(read).unwrap(), tensor.data, "{name}");
    }
}

/// Writes what was read again, as a tool that changes a file would.
fn copy(file: &Gguf) -> kiln::Result<Vec<u8>> {
    let mut writer = GgufWriter::with_endian(file.endian());
    for (key, value) in file.metadata().iter() {
        writer.set(key, value)?;
    }
    for tensor in file.tensors() {
        writer.tensor(tensor.name(), tensor.shape(), tensor.tensor_type(), file.data(tensor)?)?;
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes)?;
    Ok(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn what_is_written_is_read(sample in sample_file(), lead in vec(any::<u8>(), 0..40)) {
        let bytes = write(&sample).unwrap();
        let folder = Folder::new("roundtrip");
        let path = folder.write("file.gguf", &bytes);
        check(&Gguf::open(&path).unwrap(), &sample);
        check(&Gguf::open_with(&path, LoadMode::Read).unwrap(), &sample);

        let mut embedded = Cursor::new([lead.clone(), bytes.clone()].concat());
        embedded.set_position(lead.len() as u64);
        check(&Gguf::from_reader(embedded).unwrap(), &sample);

        let file = Gguf::from_bytes(bytes.clone()).unwrap();
        check(&file, &sample);
        prop_assert_eq!(copy(&file).unwrap(), bytes);
    }

    /// Whatever text and bytes stand at the start of a file, opening it ends.
    #[test]
    fn random_bytes_are_refused(bytes in vec(any::<u8>(), 0..300), start in prop::sample::select(vec![0usize, 4, 8])) {
        let mut file = b"GGUF\x03\0\0\0"[..start].to_vec();
        file.extend(bytes);
        prop_assert!(Gguf::from_bytes(file).is_err());
    }
}
