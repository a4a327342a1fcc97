//! The weights of a program in a file: rows decoded on demand, small vectors decoded once.

use crate::Result;
use crate::error::Error;
use crate::gguf::{Gguf, TensorInfo};
use crate::options::Progress;
use crate::program::{Op, Product, Program, SlotId, WeightId};
use crate::quant::Format;
use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the weights that are ready, for whoever waits for them.
#[derive(Debug)]
pub struct Loading {
    progress: Progress,
    done_bytes: AtomicU64,
    all_bytes: u64,
}

impl Loading {
    /// A count of so many bytes.
    pub fn new(progress: Progress, all_bytes: u64) -> Self {
        progress.tell(0, all_bytes);
        Loading { progress, done_bytes: AtomicU64::new(0), all_bytes }
    }

    fn add(&self, bytes: u64) {
        let done = self.done_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // What is read twice does not count twice; and only the end is the end.
        self.progress.tell(done.min(self.all_bytes.saturating_sub(1)), self.all_bytes);
    }

    /// All is ready.
    pub fn end(&self) {
        self.progress.tell(self.all_bytes, self.all_bytes);
    }
}

/// A program and the file with its weights.
#[derive(Debug)]
pub(super) struct Weights {
    pub file: Arc<Gguf>,
    pub program: Program,
    /// The weights' tensors, as indices into the file's.
    tensors: Vec<usize>,
    /// Vectors: norms, biases, rotation factors, all experts' biases one after the other; empty for matrices.
    vectors: Vec<Vec<f32>>,
    /// The angles of each rope.
    pub angles: Vec<Vec<f32>>,
    /// Counts what is read while executors are made.
    loading: Option<Arc<Loading>>,
}

impl Weights {
    pub fn new(file: Arc<Gguf>, program: Program, loading: Option<Arc<Loading>>) -> Result<Self> {
        let tensor = |name: &str| {
            let found = file.tensors().iter().position(|tensor| tensor.name() == name);
            found.ok_or_else(|| Error::Model {
                subject: format!("tensor `{name}`"),
                found: "nothing".into(),
                expected: "the file that the program was made from".into(),
            })
        };
        let tensors = program.weights.iter().map(|weight| tensor(&weight.name)).collect::<Result<_>>()?;
        let mut weights = Weights { file, program, tensors, vectors: vec![], angles: vec![], loading };
        let steps = weights.program.steps.iter();
        let biases = steps.filter_map(|step| match &step.op {
            Op::Experts { products, .. } => Some(products.iter().filter_map(|product| product.bias)),
            _ => None,
        });
        let biases: HashSet<WeightId> = biases.flatten().collect();
        for (id, weight) in weights.program.weights.iter().enumerate() {
            let is_vector = weight.rows == 1 || biases.contains(&WeightId(id));
            let mut vector = vec![0.0; if is_vector { weight.columns * weight.rows } else { 0 }];
            for (row, values) in vector.chunks_mut(weight.columns.max(1)).enumerate() {
                weights.decode_row(WeightId(id), row, values)?;
            }
            weights.vectors.push(vector);
        }
        let factors = |id: WeightId| weights.vector(id);
        weights.angles = weights.program.ropes.iter().map(|rope| rope.angles(rope.factors.map(factors))).collect();
        Ok(weights)
    }

    /// What a product of [`Op::Experts`] multiplies with, of so many experts.
    pub fn experts(&self, count: usize, routes: Option<SlotId>, product: &Product) -> Experts {
        let width = |slot: SlotId| self.program.slots[slot.0].width;
        let (weight, out) = (&self.program.weights[product.weight.0], width(product.out));
        let used = routes.map_or(count, |routes| width(routes) / 2);
        let stride = weight.rows / count.max(1);
        Experts { count, used, columns: weight.columns, stride, first_row: product.first_row, rows: out / used.max(1) }
    }

    pub fn vector(&self, id: WeightId) -> &[f32] {
        &self.vectors[id.0]
    }

    pub fn decode_row(&self, id: WeightId, row: usize, values: &mut [f32]) -> Result<()> {
        let tensor = self.tensor(id);
        let format = Format::of(tensor.tensor_type())?;
        let row_bytes = format.bytes_for(values.len())?;
        let range = (row * row_bytes) as u64..((row + 1) * row_bytes) as u64;
        format.decode(&self.file.data_range(tensor, range)?, values)
    }

    /// The bytes of one row.
    #[cfg(feature = "gpu")] // the CPU takes rows together
    pub fn row(&self, id: WeightId, row: usize) -> Result<Cow<'_, [u8]>> {
        let tensor = self.tensor(id);
        let row_bytes = Format::of(tensor.tensor_type())?.bytes_for(self.program.weights[id.0].columns)?;
        self.loading.iter().for_each(|loading| loading.add(row_bytes as u64));
        self.file.data_range(tensor, (row * row_bytes) as u64..((row + 1) * row_bytes) as u64)
    }

    /// The bytes of some rows, without a copy where the file is in memory.
    pub fn rows(&self, id: WeightId, rows: Range<usize>) -> Result<Arc<dyn AsRef<[u8]> + Send + Sync>> {
        let row_bytes = Format::of(self.tensor(id).tensor_type())?.bytes_for(self.program.weights[id.0].columns)?;
        let range = (rows.start * row_bytes) as u64..(rows.end * row_bytes) as u64;
        self.loading.iter().for_each(|loading| loading.add(range.end - range.start));
        Ok(match self.file.data_range(self.tensor(id), range.clone())? {
            Cow::Owned(bytes) => Arc::new(bytes),
            Cow::Borrowed(_) => Arc::new(InFile { file: self.file.clone(), tensor: self.tensors[id.0], range }),
        })
    }

    fn tensor(&self, id: WeightId) -> &TensorInfo {
        &self.file.tensors()[self.tensors[id.0]]
    }
}

/// The matrices of all experts, one above the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Experts {
    /// How many there are.
    pub count: usize,
    /// How many of them are used for a token.
    pub used: usize,
    pub columns: usize,
    /// From one expert's first row to the next one's.
    pub stride: usize,
    /// The first of each expert's rows that counts.
    pub first_row: usize,
    /// How many do.
    pub rows: usize,
}

impl Experts {
    /// Where a row of an expert is.
    pub fn row(&self, expert: usize, row: usize) -> usize {
        expert * self.stride + self.first_row + row
    }

    /// The expert that each input of some tokens goes to: `used` a token, one behind the other. None where a router's
    /// slot holds no expert's number.
    pub fn chosen(&self, routes: Option<&[f32]>, inputs: usize) -> Vec<Option<usize>> {
        let Some(routes) = routes else { return (0..inputs).map(|input| Some(input % self.used)).collect() };
        let numbers = routes.chunks(2 * self.used).flat_map(|routes| &routes[..self.used]);
        numbers.map(|&number| (number >= 0.0 && number < self.count as f32).then_some(number as usize)).collect()
    }
}

/// A part of a tensor of a file that is in memory.
struct InFile {
    file: Arc<Gguf>,
    tensor: usize,
    range: Range<u64>,
}

impl AsRef<[u8]> for InFile {
    fn as_ref(&self) -> &[u8] {
        match self.file.data_range(&self.file.tensors()[self.tensor], self.range.clone()) {
            Ok(Cow::Borrowed(bytes)) => bytes,
            _ => &[],
        }
    }
}
