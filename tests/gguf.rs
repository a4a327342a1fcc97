//! Reading and writing GGUF files: what is accepted, the ways in, the typed getters, the rules of the writer.

mod gguf_bytes;

use std::borrow::Cow;
use std::fs;
use std::io::{Cursor, Seek, SeekFrom};
use std::path::Path;

use gguf_bytes::{Folder, Raw, everything, expect_error};
use kiln::Error;
use kiln::gguf::{Endian, Gguf, GgufWriter, LoadMode, TensorType, Value, ValueType};

#[track_caller]
fn open(raw: Raw) -> Gguf {
    Gguf::from_bytes(raw.bytes).unwrap()
}

#[test]
fn every_type_has_its_size() {
    // Elements and bytes of a block, by id.
    let sizes: [(u32, &str, u64, u64); 35] = [
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (9, "Q8_1", 32, 36),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
        (42, "Q2_0", 64, 18),
    ];
    for ((id, name, elements, bytes), kind) in sizes.into_iter().zip(TensorType::ALL) {
        assert_eq!((kind.id(), kind.name(), kind.block_elements(), kind.block_bytes()), (id, name, elements, bytes));
        assert_eq!(TensorType::from_id(id), Some(kind));
    }
    // Together with the withdrawn ones these are the 43 ids that were ever given.
    let known = |id: &u32| TensorType::from_id(*id).is_some() || TensorType::withdrawn_name(*id).is_some();
    assert_eq!((0..1000).filter(known).collect::<Vec<_>>(), (0..43).collect::<Vec<_>>());
}

#[test]
fn unusual_files_that_are_valid() {
    let file = open(Raw::v3(0, 0));
    assert_eq!((file.metadata().len(), file.tensors().len(), file.alignment()), (0, 0, 32));
    assert_eq!(open(Raw::v3(0, 0).raw(b"trailing bytes")).file_bytes(), 38);

    let name = "n".repeat(63);
    let file = open(Raw::v3(1, 0).tensor(&name, &[1], 0, 0).pad(32).data(4)); // the last tensor need not be padded
    assert_eq!(file.data(file.tensor(&name).unwrap()).unwrap(), [1, 2, 3, 4].as_slice());

    let file = open(Raw::v3(1, 0).tensor("", &[], 0, 0).pad(32).data(4)); // no name, no dimensions: one element
    let tensor = file.tensor("").unwrap();
    assert_eq!((tensor.elements(), tensor.shape().len(), tensor.size_bytes()), (1, 0, 4));

    let file = open(Raw::v3(1, 1).key_u32("general.alignment", 1).tensor("t", &[3], 24, 0).data(3));
    assert_eq!(file.data(&file.tensors()[0]).unwrap(), [1, 2, 3].as_slice());
    let file = open(Raw::v3(1, 1).key_u32("general.alignment", 1024).tensor("t", &[1], 0, 0).pad(1024).data(4));
    assert_eq!((file.alignment(), file.shards()[0].data_offset()), (1024, 1024));

    let file = open(Raw::v3(1, 0).tensor("t", &[0, 1 << 62, 1 << 62], 0, 0).pad(32)); // nothing times anything
    assert_eq!((file.tensors()[0].elements(), file.data(&file.tensors()[0]).unwrap().len()), (0, 0));
}

/// Checks every value and tensor of `everything`.
#[track_caller]
fn check_everything(file: &Gguf, version: u32, endian: Endian) {
    assert_eq!((file.version(), file.endian(), file.alignment()), (version, endian, 16));
    assert_eq!((file.shard_count(), file.tensors().len(), file.metadata().len()), (1, 6, 27));
    let metadata = file.metadata();
    assert_eq!(metadata.iter().next(), Some(("general.architecture", Value::String(b"test"))));
    assert_eq!(metadata.get("u8"), Some(Value::U8(200)));
    assert_eq!(metadata.get("i8"), Some(Value::I8(-56)));
    assert_eq!(metadata.get("u16"), Some(Value::U16(60_000)));
    assert_eq!(metadata.get("i16"), Some(Value::I16(-5536)));
    assert_eq!(metadata.get("u32"), Some(Value::U32(4_000_000_000)));
    assert_eq!(metadata.get("i32"), Some(Value::I32(-294_967_296)));
    assert_eq!(metadata.get("u64"), Some(Value::U64(u64::MAX - 1)));
    assert_eq!(metadata.get("i64"), Some(Value::I64(-2)));
    assert_eq!(metadata.get("f32"), Some(Value::F32(1.5)));
    assert_eq!(metadata.get("f64"), Some(Value::F64(2.5)));
    assert_eq!(metadata.get("bool"), Some(Value::Bool(true)));
    assert_eq!(metadata.get("string"), Some(Value::String(b"h\xffi")));
    assert_eq!(metadata.u8s("i8s").unwrap().unwrap(), [1, 2, 255]);
    assert_eq!(metadata.i32s("i8s").unwrap().unwrap(), [1, 2, -1]);
    assert_eq!(metadata.u32s("u16s").unwrap().unwrap(), [1, 65_535]);
    assert_eq!(metadata.i32s("i16s").unwrap().unwrap(), [1, -1]);
    assert_eq!(metadata.u32s("u32s").unwrap().unwrap(), [1, u32::MAX]);
    assert_eq!(metadata.i32s("i32s").unwrap().unwrap(), [1, -1]);
    assert_eq!(metadata.u32s("u64s").unwrap().unwrap(), [7]);
    assert_eq!(metadata.i32s("i64s").unwrap().unwrap(), [-1]);
    assert_eq!(metadata.f32s("f32s").unwrap().unwrap(), [0.5, f32::INFINITY]);
    assert_eq!(metadata.f32s("f64s").unwrap().unwrap(), [0.25]);
    assert_eq!(metadata.bools("bools").unwrap().unwrap(), [false, true]);
    let strings: Vec<&[u8]> = metadata.strings("strings").unwrap().unwrap().collect();
    assert_eq!(strings, ["a".as_bytes(), b"", "héé".as_bytes()]);
    assert_eq!(metadata.strings("empty").unwrap().unwrap().len(), 0);

    // (name, shape, type, elements, offset, size); the bytes are 1, 2, 3, …
    type Expected = (&'static str, &'static [u64], TensorType, u64, u64, u64);
    let expected: [Expected; 6] = [
        ("f32.weight", &[3], TensorType::F32, 3, 0, 12),
        ("q8.weight", &[32, 1], TensorType::Q8_0, 32, 16, 34),
        ("empty.weight", &[32, 0, 4], TensorType::Q4_0, 0, 64, 0),
        ("scalar", &[], TensorType::F32, 1, 64, 4),
        ("nvfp4.weight", &[64, 1, 1, 1], TensorType::NVFP4, 64, 80, 36),
        ("last", &[0], TensorType::F32, 0, 128, 0),
    ];
    for (tensor, (name, shape, kind, elements, offset, size)) in file.tensors().iter().zip(expected) {
        assert_eq!((tensor.name(), tensor.shape(), tensor.tensor_type()), (name, shape, kind));
        assert_eq!((tensor.elements(), tensor.offset_bytes(), tensor.size_bytes()), (elements, offset, size));
        let data: Vec<u8> = (offset..offset + size).map(|index| index as u8 + 1).collect();
        assert_eq!(file.data(tensor).unwrap(), data, "{name}");
        assert_eq!(file.tensor(name).unwrap().offset_bytes(), offset);
    }
    assert!(file.tensor("f32").is_none() && file.metadata().get("u").is_none());
}

#[test]
fn versions_byte_orders_and_sources() {
    let folder = Folder::new("sources");
    for version in 1..=3 {
        for (big, endian) in [(false, Endian::Little), (true, Endian::Big)] {
            let bytes = everything(version, big).bytes;
            let path = folder.write(&format!("v{version}-{big}.gguf"), &bytes);
            check_everything(&Gguf::open(&path).unwrap(), version, endian);
            check_everything(&Gguf::open_with(&path, LoadMode::Read).unwrap(), version, endian);
            check_everything(&Gguf::from_reader(Cursor::new(bytes.clone())).unwrap(), version, endian);
            check_everything(&Gguf::from_bytes(bytes).unwrap(), version, endian);
        }
    }
}

#[test]
fn only_reading_copies() {
    let folder = Folder::new("copies");
    let bytes = everything(3, false).bytes;
    let path = folder.write("file.gguf", &bytes);
    let borrowed = |file: &Gguf| matches!(file.data(&file.tensors()[0]).unwrap(), Cow::Borrowed(_));
    assert!(borrowed(&Gguf::open(&path).unwrap()));
    assert!(borrowed(&Gguf::from_bytes(bytes).unwrap()));
    assert!(!borrowed(&Gguf::open_with(&path, LoadMode::Read).unwrap()));
}

#[test]
fn a_container_inside_another_file() {
    // It begins at an odd place: alignment counts from there.
    let bytes = [b"thirteen byte".to_vec(), everything(3, false).bytes].concat();
    let mut reader = Cursor::new(bytes);
    reader.seek(SeekFrom::Start(13)).unwrap();
    check_everything(&Gguf::from_reader(reader).unwrap(), 3, Endian::Little);

    let mut past = Cursor::new(vec![0; 10]);
    past.set_position(20);
    expect_error("behind the end", Gguf::from_reader(past), &["magic at byte 0", "found 0 bytes"]);
}

#[test]
fn models_can_be_shared_between_threads() {
    fn shareable<T: Send + Sync>(_: &T) {}
    let file = Gguf::from_reader(Cursor::new(everything(3, false).bytes)).unwrap();
    shareable(&file);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| check_everything(&file, 3, Endian::Little)));
        }
    });
}

#[test]
fn a_file_that_shrinks_is_an_error_when_read() {
    let folder = Folder::new("shrinks");
    let bytes = everything(3, false).bytes;
    let path = folder.write("file.gguf", &bytes);
    let file = Gguf::open_with(&path, LoadMode::Read).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes.len() as u64 - 40).unwrap();
    let tensor = file.tensor("nvfp4.weight").unwrap();
    expect_error("shrunk", file.data(tensor), &["file.gguf", "tensor \"nvfp4.weight\": data", "expected 36 bytes"]);
    assert!(file.data(&file.tensors()[0]).is_ok());
}

#[test]
fn a_tensor_of_another_model_is_refused_or_in_bounds() {
    let large = open(Raw::v3(1, 0).tensor("t", &[1000], 0, 0).pad(32).data(4000));
    let small = open(everything(3, false));
    expect_error("another model", small.data(&large.tensors()[0]), &["tensor \"t\": data", "expected 4000 bytes"]);
}

#[test]
fn files_that_cannot_be_opened_are_named() {
    let missing = Path::new("no/such/model.gguf");
    expect_error("missing", Gguf::open(missing), &["no/such/model.gguf"]);
    expect_error("folder", Gguf::open(std::env::temp_dir()), &[&std::env::temp_dir().display().to_string()]);
    let folder = Folder::new("named");
    let path = folder.write("broken.gguf", b"GGUF\x07\0\0\0");
    let Err(Error::File { path, source }) = Gguf::open(path) else { panic!("not an error about a file") };
    assert!(path.ends_with("broken.gguf"));
    assert!(matches!(*source, Error::Gguf { offset: 4, .. }));
}

#[test]
fn typed_getters_convert_what_fits() {
    let file = open(everything(3, false));
    let metadata = file.metadata();
    assert_eq!(metadata.u32("absent").unwrap(), None);
    assert!(metadata.strings("absent").unwrap().is_none());
    assert_eq!(metadata.u32("u8").unwrap(), Some(200));
    assert_eq!(metadata.i32("i8").unwrap(), Some(-56));
    assert_eq!(metadata.i64("u32").unwrap(), Some(4_000_000_000));
    assert_eq!(metadata.u64("u64").unwrap(), Some(u64::MAX - 1));
    assert_eq!(metadata.f32("f64").unwrap(), Some(2.5));
    assert_eq!(metadata.f64("f32").unwrap(), Some(1.5));
    assert_eq!(metadata.bool("bool").unwrap(), Some(true));
    assert_eq!(metadata.str("general.architecture").unwrap(), Some("test"));
    assert_eq!(metadata.strings("strings").unwrap().unwrap().len(), 3);

    expect_error("sign", metadata.u32("i8"), &["key `i8`: found i8 -56, expected an integer that fits u32"]);
    expect_error("range", metadata.i32("u32"), &["`u32`: found u32 4000000000, expected an integer that fits i32"]);
    expect_error("range", metadata.i64("u64"), &["18446744073709551614", "fits i64"]);
    expect_error("kind", metadata.u32("f32"), &["`f32`: found f32 1.5, expected an integer"]);
    expect_error("kind", metadata.u32("bool"), &["found bool true"]);
    expect_error("kind", metadata.bool("u8"), &["found u8 200, expected a bool"]);
    expect_error("kind", metadata.f32("u8"), &["found u8 200, expected a number that fits f32"]);
    expect_error("kind", metadata.str("u8"), &["found u8 200, expected a string of UTF-8"]);
    expect_error(
        "text",
        metadata.str("string"),
        &["`string`: found string \"h\u{fffd}i\", expected a string of UTF-8"],
    );
    expect_error("kind", metadata.strings("u8s"), &["`u8s`: found array [1, 2, 255], expected an array of strings"]);
    expect_error("kind", metadata.u32s("u8"), &["found u8 200, expected an array of integers"]);
    expect_error("kind", metadata.u32s("f32s"), &["found array [0.5, inf], expected an array of integers"]);
    expect_error("range", metadata.u32s("i16s"), &["found -1 at index 1 of an array of i16", "fit u32"]);
    expect_error("range", metadata.i32s("u32s"), &["found 4294967295 at index 1 of an array of u32"]);
    expect_error("kind", metadata.u8s("u16s"), &["expected an array of u8 or i8"]);
    expect_error("kind", metadata.bools("u8s"), &["expected an array of bool"]);
    expect_error("kind", metadata.u32s("empty"), &["found array [], expected an array of integers"]);

    let mut writer = GgufWriter::new();
    writer.set("large", 1e300).unwrap();
    writer.set("endless", f64::INFINITY).unwrap();
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    let file = Gguf::from_bytes(bytes).unwrap();
    expect_error("range", file.metadata().f32("large"), &["found f64 1000", "fits f32"]);
    assert_eq!(file.metadata().f32("endless").unwrap(), Some(f32::INFINITY));
}

#[test]
fn values_print_short() {
    let mut writer = GgufWriter::new();
    let many: Vec<u32> = (0..1000).collect();
    writer.set("many", &many).unwrap();
    writer.set("few", ["a\n", "\"b\""]).unwrap();
    writer.set("long", "é".repeat(1000)).unwrap();
    writer.set("number", 0.1f32).unwrap();
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    let file = Gguf::from_bytes(bytes).unwrap();
    let shown = |key: &str| file.metadata().get(key).unwrap().to_string();
    assert_eq!(shown("many"), "[0, 1, 2, 3, 4, 5, 6, 7, …] (1000 × u32)");
    assert_eq!(shown("few"), r#"["a\n", "\"b\""]"#);
    assert_eq!(shown("long"), format!("\"{}…\" (2000 bytes)", "é".repeat(64)));
    assert_eq!(shown("number"), "0.1");
    assert_eq!(file.metadata().get("few").unwrap().value_type(), ValueType::Array);
}

#[test]
fn the_writer_keeps_the_rules() {
    let mut writer = GgufWriter::new();
    writer.set("a", 1u8).unwrap();
    expect_error("empty", writer.set("", 1u8), &["an empty key"]);
    expect_error("twice", writer.set("a", 2u8), &["key \"a\"", "second pair"]);
    expect_error("alignment", writer.set("general.alignment", 3u32), &["general.alignment", "u32 3", "power of two"]);
    expect_error("alignment", writer.set("general.alignment", 64u64), &["u64 64", "u32"]);
    writer.tensor("t", &[32], TensorType::Q8_0, vec![0; 34]).unwrap();
    let mut add = |name: &str, shape: &[u64], kind, bytes: usize| writer.tensor(name, shape, kind, vec![0; bytes]);
    expect_error("twice", add("t", &[1], TensorType::F32, 4), &["tensor \"t\": name", "second tensor"]);
    expect_error("name", add(&"n".repeat(64), &[1], TensorType::F32, 4), &["64 bytes", "fewer than 64"]);
    expect_error("shape", add("u", &[1; 5], TensorType::F32, 4), &["dimension count", "found 5"]);
    expect_error("shape", add("u", &[1 << 40, 1 << 40], TensorType::F32, 4), &["tensor \"u\": shape"]);
    expect_error("block", add("u", &[33], TensorType::Q8_0, 34), &["33 elements per row", "multiple of 32"]);
    expect_error("bytes", add("u", &[64], TensorType::Q8_0, 67), &["found 67 bytes", "expected 68 bytes for Q8_0"]);
    let mut bytes = Vec::new();
    assert_eq!(writer.write(&mut bytes).unwrap(), bytes.len() as u64);
    assert_eq!(Gguf::from_bytes(bytes).unwrap().tensors().len(), 1); // what was refused left no trace

    for (count, found) in [(3, "found 3 bytes"), (5, "found more bytes")] {
        let mut writer = GgufWriter::new();
        writer
            .tensor_with("t", &[1], TensorType::F32, move |out| (0..count).try_for_each(|_| out.write_all(&[0])))
            .unwrap();
        expect_error(
            "callback",
            writer.write(&mut Vec::new()),
            &["tensor \"t\": data at byte 64", found, "expected 4 bytes"],
        );
    }
    let mut writer = GgufWriter::new();
    for name in ["t", "u"] {
        writer.tensor_with(name, &[1 << 60], TensorType::F64, |_| Ok(())).unwrap();
    }
    expect_error("sum", writer.write(&mut Vec::new()), &["tensor \"u\": size", "fewer than 2^64 bytes"]);
}

/// The small golden models: what the file says agrees with the description beside it.
#[test]
fn golden_models() {
    for name in ["bert", "llama", "phi3", "qwen2"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name);
        let file = Gguf::open(path.with_extension("gguf")).unwrap();
        let description = fs::read(path.with_extension("json")).unwrap();
        let description: serde_json::Value = serde_json::from_slice(&description).unwrap();
        let architecture = description["architecture"].as_str();
        assert_eq!(file.metadata().str("general.architecture").unwrap(), architecture);
        let tokens = file.metadata().strings("tokenizer.ggml.tokens").unwrap().unwrap();
        let embedding = file.tensor("token_embd.weight").unwrap();
        assert_eq!(embedding.shape()[1], tokens.len() as u64);
        let data_bytes: u64 = file.tensors().iter().map(|tensor| tensor.size_bytes()).sum();
        assert!(data_bytes <= file.file_bytes() && data_bytes > file.file_bytes() * 9 / 10);
    }
}

/// Every golden file opens, and its tensors fill it to the end.
#[test]
fn golden_set() {
    let Some(root) = std::env::var_os("KILN_GOLDEN") else {
        say("skipped: KILN_GOLDEN is not set");
        return;
    };
    let mut opened = 0;
    for folder in ["models", "quantized", "tokenizers"] {
        for entry in fs::read_dir(Path::new(&root).join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "gguf") {
                continue;
            }
            let file = Gguf::open(&path).unwrap();
            let end = |tensor: &kiln::gguf::TensorInfo| tensor.offset_bytes() + tensor.size_bytes();
            let data_end = file.tensors().last().map_or(0, end) + file.shards()[0].data_offset();
            assert!(data_end.next_multiple_of(32) == file.file_bytes().next_multiple_of(32), "{}", path.display());
            opened += 1;
        }
    }
    assert!(opened >= 60, "only {opened} files");
}

/// Prints where the test runner does not swallow it.
fn say(line: &str) {
    use std::io::Write;
    _ = writeln!(std::io::stderr(), "{line}");
}
