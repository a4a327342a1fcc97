//! Models in several files: found from any of them, and refused when they do not belong together.

mod gguf_bytes;

use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use gguf_bytes::{Folder, Raw, expect_error, kind};
use kiln::gguf::{Gguf, LoadMode};

/// The files of a model in three, of which each has one tensor.
fn three_shards() -> [Raw; 3] {
    [0, 1, 2].map(|index| {
        let name = format!("tensor {index}");
        let keys = if index == 0 { 4 } else { 2 };
        let raw = Raw::v3(1, keys).key_u16("split.no", index).key_u16("split.count", 3);
        let raw = match index {
            0 => raw.key("split.tensors.count", kind::I32).u32(3).key_string("general.architecture", "split"),
            _ => raw,
        };
        raw.tensor(&name, &[4, 1 + u64::from(index)], 0, 0).pad(32).data(16 + 16 * usize::from(index))
    })
}

fn shard_name(index: usize) -> String {
    format!("model-{:05}-of-00003.gguf", index + 1)
}

fn write_shards(folder: &Folder, shards: &[Raw; 3]) -> [PathBuf; 3] {
    [0, 1, 2].map(|index| folder.write(&shard_name(index), &shards[index].bytes))
}

#[track_caller]
fn check_shards(file: &Gguf) {
    assert_eq!((file.shard_count(), file.tensors().len()), (3, 3));
    assert_eq!(file.metadata().str("general.architecture").unwrap(), Some("split"));
    for (index, tensor) in file.tensors().iter().enumerate() {
        assert_eq!((tensor.name(), tensor.shard()), (format!("tensor {index}").as_str(), index));
        assert_eq!(file.data(tensor).unwrap().len(), 16 + 16 * index);
        assert_eq!(file.data(tensor).unwrap()[15], 16);
    }
}

#[test]
fn shards_open_from_any_of_them() {
    let folder = Folder::new("shards");
    let shards = three_shards();
    let paths = write_shards(&folder, &shards);
    for path in &paths {
        check_shards(&Gguf::open(path).unwrap());
        let file = Gguf::open_with(path, LoadMode::Read).unwrap();
        check_shards(&file);
        assert_eq!(file.shards().iter().map(|shard| shard.path().unwrap()).collect::<Vec<_>>(), paths.each_ref());
        assert_eq!(file.file_bytes(), shards.iter().map(|shard| shard.bytes.len() as u64).sum::<u64>());
    }
    check_shards(&Gguf::from_shard_bytes(shards.map(|shard| shard.bytes).to_vec()).unwrap());
}

/// Opens three shards of which one was replaced, from the first and from the last, and from memory.
#[track_caller]
fn expect_shard_error(case: &str, index: usize, shard: Raw, fragments: &[&str]) {
    let folder = Folder::new(&format!("broken-{}", case.replace(' ', "-")));
    let mut shards = three_shards();
    shards[index] = shard;
    let paths = write_shards(&folder, &shards);
    expect_error(case, Gguf::open(&paths[0]), fragments);
    expect_error(case, Gguf::open(&paths[2]), &fragments[..1]);
    expect_error(case, Gguf::from_shard_bytes(shards.map(|shard| shard.bytes).to_vec()), &fragments[..1]);
}

#[test]
fn broken_shards() {
    let shard = |no: u16, count: u16| Raw::v3(1, 2).key_u16("split.no", no).key_u16("split.count", count);
    let tensor = |raw: Raw, name: &str| raw.tensor(name, &[4], 0, 0).pad(32).data(16);
    let first = |keys: u64| Raw::v3(1, keys).key_u16("split.no", 0).key_u16("split.count", 3);

    expect_shard_error(
        "wrong number",
        1,
        tensor(shard(2, 3), "x"),
        &["`split.no`: found 2, expected 1", &shard_name(1)],
    );
    expect_shard_error(
        "wrong count",
        1,
        tensor(shard(1, 4), "x"),
        &["`split.count`: found 4 (this is number 2), expected 3", &shard_name(1)],
    );
    let numberless = tensor(Raw::v3(1, 1).key_u16("split.count", 3), "x");
    expect_shard_error("no number", 1, numberless, &["`split.no`: found nothing", &shard_name(1)]);
    let duplicate = tensor(shard(1, 3), "tensor 0");
    expect_shard_error(
        "duplicate tensor",
        1,
        duplicate,
        &["tensor \"tensor 0\"", "the first being in shard 1 of 3", &shard_name(1)],
    );
    let few = tensor(first(3).key("split.tensors.count", kind::I32).u32(4), "tensor 0");
    expect_shard_error("tensor missing", 0, few, &["`split.tensors.count`: found 4, expected 3", &shard_name(0)]);
    let uncounted = tensor(first(2), "tensor 0");
    expect_shard_error("no tensor count", 0, uncounted, &["`split.tensors.count`: found nothing", &shard_name(0)]);
    let text = tensor(first(3).key_string("split.tensors.count", "3"), "tensor 0");
    expect_shard_error("tensor count of text", 0, text, &["`split.tensors.count`: found string", &shard_name(0)]);
    expect_shard_error("broken inside", 1, shard(1, 3).raw(&[0xff; 24]), &["tensor 0: name", &shard_name(1)]);
    let big = Raw::new(3, true, 1, 2).key_u16("split.no", 1).key_u16("split.count", 3);
    expect_shard_error(
        "other byte order",
        1,
        tensor(big, "x"),
        &["Big-endian, unlike the first shard", &shard_name(1)],
    );
}

#[test]
fn shards_that_cannot_be_found() {
    let folder = Folder::new("lost");
    let shards = three_shards();
    let paths = write_shards(&folder, &shards);
    fs::remove_file(&paths[1]).unwrap();
    for path in [&paths[0], &paths[2]] {
        expect_error("missing", Gguf::open(path), &[&shard_name(1), "shard 2 of 3 is missing"]);
    }
    let renamed = folder.write("renamed.gguf", &shards[1].bytes);
    expect_error(
        "renamed",
        Gguf::open(renamed),
        &["renamed.gguf", "`split.count`: found 3 in a file of another name", "PREFIX-00002-of-00003.gguf"],
    );
    let moved = folder.write("model-00003-of-00003.gguf", &shards[1].bytes);
    expect_error("exchanged", Gguf::open(moved), &["`split.no`: found 1", "one less than the 3 in the file's name"]);
    let counted = folder.write("model-00002-of-00004.gguf", &shards[1].bytes);
    expect_error("miscounted", Gguf::open(counted), &["`split.count`: found 3, expected 4, as in the file's name"]);
    let short = folder.write("model-2-of-3.gguf", &shards[1].bytes);
    expect_error("few digits", Gguf::open(short), &["a file of another name"]);

    let alone = Gguf::from_bytes(shards[1].bytes.clone());
    expect_error("alone", alone, &["`split.count`: found 3 (this is number 2), expected 1", "path"]);
    let alone = Gguf::from_reader(Cursor::new(shards[0].bytes.clone()));
    expect_error("alone", alone, &["`split.count`: found 3 (this is number 1), expected 1"]);
    expect_error("none", Gguf::from_shard_bytes(Vec::new()), &["no shards"]);
}

#[test]
fn a_split_of_one_is_whole() {
    let one = |count: u16, tensors: u32| {
        let raw = Raw::v3(1, 3).key_u16("split.no", 0).key_u16("split.count", count);
        raw.key("split.tensors.count", kind::I32).u32(tensors).tensor("t", &[1], 0, 0).pad(32).data(4)
    };
    Gguf::from_bytes(one(1, 1).bytes).unwrap();
    Gguf::from_bytes(one(0, 99).bytes).unwrap(); // as merging leaves it
    expect_error("one of one", Gguf::from_bytes(one(1, 2).bytes), &["`split.tensors.count`: found 2, expected 1"]);
}
