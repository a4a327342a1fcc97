//! The weights of a program in a file: rows decoded on demand, small vectors decoded once.

use crate::Result;
use crate::error::Error;
use crate::gguf::{Gguf, TensorInfo};
use crate::program::{Program, WeightId};
use crate::quant::Format;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// A program and the file with its weights.
#[derive(Debug)]
pub(super) struct Weights {
    pub file: Arc<Gguf>,
    pub program: Program,
    /// The weights' tensors, as indices into the file's.
    tensors: Vec<usize>,
    /// Vectors: norms, biases, rotation factors; empty for matrices.
    vectors: Vec<Vec<f32>>,
    /// The angles of each rope.
    pub angles: Vec<Vec<f32>>,
}

impl Weights {
    pub fn new(file: Arc<Gguf>, program: Program) -> Result<Self> {
        let tensor = |name: &str| {
            let found = file.tensors().iter().position(|tensor| tensor.name() == name);
            found.ok_or_else(|| Error::Model {
                subject: format!("tensor `{name}`"),
                found: "nothing".into(),
                expected: "the file that the program was made from".into(),
            })
        };
        let tensors = program.weights.iter().map(|weight| tensor(&weight.name)).collect::<Result<_>>()?;
        let mut weights = Weights { file, program, tensors, vectors: vec![], angles: vec![] };
        for (id, weight) in weights.program.weights.iter().enumerate() {
            let mut vector = vec![0.0; if weight.rows == 1 { weight.columns } else { 0 }];
            if !vector.is_empty() {
                weights.decode_row(WeightId(id), 0, &mut vector)?;
            }
            weights.vectors.push(vector);
        }
        let factors = |id: WeightId| weights.vector(id);
        weights.angles = weights.program.ropes.iter().map(|rope| rope.angles(rope.factors.map(factors))).collect();
        Ok(weights)
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
    pub fn row(&self, id: WeightId, row: usize) -> Result<Cow<'_, [u8]>> {
        let tensor = self.tensor(id);
        let row_bytes = Format::of(tensor.tensor_type())?.bytes_for(self.program.weights[id.0].columns)?;
        self.file.data_range(tensor, (row * row_bytes) as u64..((row + 1) * row_bytes) as u64)
    }

    /// The bytes of some rows, without a copy where the file is in memory.
    pub fn rows(&self, id: WeightId, rows: Range<usize>) -> Result<Arc<dyn AsRef<[u8]> + Send + Sync>> {
        let row_bytes = Format::of(self.tensor(id).tensor_type())?.bytes_for(self.program.weights[id.0].columns)?;
        let range = (rows.start * row_bytes) as u64..(rows.end * row_bytes) as u64;
        Ok(match self.file.data_range(self.tensor(id), range.clone())? {
            Cow::Owned(bytes) => Arc::new(bytes),
            Cow::Borrowed(_) => Arc::new(InFile { file: self.file.clone(), tensor: self.tensors[id.0], range }),
        })
    }

    fn tensor(&self, id: WeightId) -> &TensorInfo {
        &self.file.tensors()[self.tensors[id.0]]
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
