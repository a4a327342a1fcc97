//! Encoders against the reference's rows, by the executable specification of the CPU and by the fast executor: alone, and
//! several texts in one batch.
//!
//! One model lies in `tests/golden/models`; `KILN_GOLDEN` names the folder that holds the others.

use kiln::backend::batch::Batch;
use kiln::backend::cpu::executor::{Executor, ExecutorOptions};
use kiln::backend::cpu::matrix::MatrixOptions;
use kiln::backend::cpu::memory::PageMemory;
use kiln::backend::cpu::reference::Reference;
use kiln::cache::{Cache, CacheFormat, CacheLimits, Sequence};
use kiln::gguf::Gguf;
use kiln::model::{self, ProgramOptions};
use kiln::program::Program;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An encoder, and what the reference made of it.
struct Golden {
    name: String,
    file: Arc<Gguf>,
    program: Program,
    tokens: Vec<u32>,
    rows: Vec<f32>, // [tokens, width]
}

impl Golden {
    fn open(folder: &Path, name: &str) -> Golden {
        let facts: Value =
            serde_json::from_str(&fs::read_to_string(folder.join(format!("{name}.json"))).unwrap()).unwrap();
        let bytes = fs::read(folder.join(format!("{name}.embd.f32"))).unwrap();
        let file = Arc::new(Gguf::open(folder.join(format!("{name}.gguf"))).unwrap());
        Golden {
            name: name.to_owned(),
            program: model::program(&file, ProgramOptions { context: 256 }).unwrap(),
            file,
            tokens: facts["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect(),
            rows: floats(&bytes),
        }
    }

    fn width(&self) -> usize {
        self.rows.len() / self.tokens.len()
    }

    #[track_caller]
    fn assert_near(&self, rows: &[f32], what: &str) {
        assert_eq!(rows.len(), self.rows.len(), "{}", self.name);
        let pairs = || rows.iter().zip(&self.rows).map(|(&a, &b)| (f64::from(a), f64::from(b)));
        let difference = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let nmse = pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>() / pairs().map(|(_, b)| b * b).sum::<f64>();
        println!("{:12} {what:20} max {difference:.1e}, NMSE {nmse:.1e}", self.name);
        assert!(difference <= 2e-5 && nmse <= 1e-11, "{}, {what}: max {difference:e}, NMSE {nmse:e}", self.name);
    }
}

/// A sequence, which an encoder leaves as it is, and the memory of its pages, of which there are none.
fn nothing_kept(program: &Program) -> (Sequence, PageMemory) {
    let cache = Cache::of_program(program, CacheLimits::new(4096)).unwrap();
    (cache.sequence(), PageMemory::new(&cache, CacheFormat::F32).unwrap())
}

/// Runs the golden text alone, then between others, and holds both to the reference.
fn check(golden: &Golden, what: &str, run: impl Fn(Batch) -> Vec<f32>) {
    let (tokens, width) = (&golden.tokens, golden.width());
    let all: Vec<usize> = (0..tokens.len()).collect();
    golden.assert_near(&run(Batch { tokens, outputs: &all, texts: &[] }), &format!("{what}, alone"));
    let many = [&tokens[..7], tokens, &tokens[..1], tokens, &tokens[3..30]];
    let texts = many.map(<[u32]>::len);
    let together = many.concat();
    let outputs: Vec<usize> = (0..together.len()).collect();
    let rows = run(Batch { tokens: &together, outputs: &outputs, texts: &texts });
    let text = |start: usize| &rows[start * width..][..golden.rows.len()];
    golden.assert_near(text(7), &format!("{what}, second"));
    golden.assert_near(text(8 + tokens.len()), &format!("{what}, fourth"));
    // Only some rows.
    let some = run(Batch { tokens: &together, outputs: &[0, 7, 9], texts: &texts });
    let expected = [0, 7, 9].map(|row| rows[row * width..][..width].to_vec()).concat();
    assert_eq!(some.len(), expected.len(), "{}, {what}", golden.name);
    // Fewer rows may be multiplied in another order.
    assert!(some.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{}, {what}", golden.name);
}

/// What pooling gives is the reference's too.
fn check_pooled(golden: &Golden, folder: &Path, rows: &[f32]) {
    let width = golden.width();
    let mean = (0..width).map(|i| rows.iter().skip(i).step_by(width).sum::<f32>() / golden.tokens.len() as f32);
    for (name, found) in [("mean", mean.collect()), ("cls", rows[..width].to_vec())] {
        let expected = floats(&fs::read(folder.join(format!("{}.{name}.f32", golden.name))).unwrap());
        assert_eq!(expected.len(), width, "{}, {name}", golden.name);
        let near = expected.iter().zip(&found).all(|(a, b): (&f32, &f32)| (a - b).abs() <= 2e-5);
        assert!(near, "{}, {name}", golden.name);
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn check_all(golden: &Golden, folder: &Path) {
    let reference = Reference::new(golden.file.clone(), golden.program.clone()).unwrap();
    let (mut sequence, mut memory) = nothing_kept(&golden.program);
    let mut run = |batch: Batch| {
        sequence.truncate(0).unwrap();
        reference.run(batch, &mut sequence, &mut memory).unwrap()
    };
    let run = std::cell::RefCell::new(&mut run);
    check(golden, "reference", |batch| run.borrow_mut()(batch));
    let all: Vec<usize> = (0..golden.tokens.len()).collect();
    check_pooled(golden, folder, &run.borrow_mut()(Batch { tokens: &golden.tokens, outputs: &all, texts: &[] }));
    for threads in [1, 2, 4] {
        let mut options = ExecutorOptions::default();
        (options.threads, options.matrices) = (threads, MatrixOptions { exact: true, ..MatrixOptions::default() });
        let executor = Executor::new(golden.file.clone(), golden.program.clone(), options).unwrap();
        check(golden, &format!("{threads} threads"), |batch| {
            let (mut sequence, mut memory) = nothing_kept(&golden.program);
            executor.run(batch, &mut sequence, &mut memory).unwrap()
        });
    }
}

#[test]
fn a_committed_model() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    check_all(&Golden::open(&folder, "bert"), &folder);
}

#[test]
fn all_models() {
    let Some(root) = std::env::var_os("KILN_GOLDEN") else { return };
    for name in ["bert", "nomic-bert"] {
        let folder = PathBuf::from(&root).join("models");
        check_all(&Golden::open(&folder, name), &folder);
    }
}
