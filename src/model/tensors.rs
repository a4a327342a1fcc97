//! The weights of a program: found by name, held to the shape that the hyper-parameters call for.

use crate::Result;
use crate::error::Error;
use crate::gguf::{Gguf, TensorInfo, TensorType};
use crate::program::{Weight, WeightId};
use crate::quant::Format;
use std::cell::RefCell;

/// The tensors of a file, and those that the program uses so far.
pub(super) struct Tensors<'f> {
    file: &'f Gguf,
    used: RefCell<Vec<Weight>>,
}

impl<'f> Tensors<'f> {
    pub fn new(file: &'f Gguf) -> Self {
        Tensors { file, used: RefCell::default() }
    }

    /// Whether the file has it.
    pub fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_some()
    }

    /// The rows of a tensor, if the file has it.
    pub fn rows(&self, name: &str) -> Option<usize> {
        let rows: u64 = self.file.tensor(name)?.shape().iter().skip(1).product();
        usize::try_from(rows).ok()
    }

    /// Fails if the file has a tensor that the program would not use, and so be wrong without.
    pub fn refuse(&self, name: &str, expected: &str) -> Result<()> {
        match self.has(name) {
            false => Ok(()),
            true => Err(Error::Model {
                subject: format!("tensor `{name}`"),
                found: "it in the file".into(),
                expected: expected.into(),
            }),
        }
    }

    /// A matrix of `rows` rows that are `columns` long.
    pub fn matrix(&self, name: &str, columns: usize, rows: usize) -> Result<WeightId> {
        match self.optional(name, columns, rows)? {
            Some(weight) => Ok(weight),
            None => Err(Error::Model {
                subject: format!("tensor `{name}`"),
                found: "nothing".into(),
                expected: format!("{columns} × {rows} numbers"),
            }),
        }
    }

    /// A vector.
    pub fn vector(&self, name: &str, length: usize) -> Result<WeightId> {
        self.matrix(name, length, 1)
    }

    /// A vector that may be missing.
    pub fn optional_vector(&self, name: &str, length: usize) -> Result<Option<WeightId>> {
        self.optional(name, length, 1)
    }

    /// A vector that the file holds in rows of columns, as it does weights of heads.
    pub fn shaped(&self, name: &str, [columns, rows]: &[usize; 2]) -> Result<WeightId> {
        let id = self.matrix(name, *columns, *rows)?;
        if let Some(weight) = self.used.borrow_mut().get_mut(id.0) {
            (weight.columns, weight.rows) = (columns * rows, 1);
        }
        Ok(id)
    }

    /// A number that may be missing; it becomes part of the program.
    pub fn number(&self, name: &str) -> Result<Option<f32>> {
        let Some(tensor) = self.file.tensor(name) else { return Ok(None) };
        checked(tensor, 1, 1)?;
        let mut number = [0.0];
        Format::of(tensor.tensor_type())?.decode(&self.file.data(tensor)?, &mut number)?;
        Ok(Some(number[0]))
    }

    /// A matrix that may be missing.
    pub fn optional(&self, name: &str, columns: usize, rows: usize) -> Result<Option<WeightId>> {
        let Some(tensor) = self.file.tensor(name) else { return Ok(None) };
        let mut used = self.used.borrow_mut();
        let known = used.iter().position(|weight| weight.name == name);
        let weight = checked(tensor, columns, rows)?;
        if let Some(part) = name.strip_suffix(".weight") {
            let scale = format!("{part}.scale");
            if !used.iter().any(|weight| weight.name == scale) {
                self.refuse(&scale, "no factor for a whole tensor: it is not supported yet")?;
            }
        }
        Ok(Some(WeightId(known.unwrap_or_else(|| {
            used.push(weight);
            used.len() - 1
        }))))
    }

    pub fn into_weights(self) -> Vec<Weight> {
        self.used.into_inner()
    }
}

fn checked(tensor: &TensorInfo, columns: usize, rows: usize) -> Result<Weight> {
    let name = tensor.name();
    let kind = tensor.tensor_type();
    // Integers are no weights, and neither is what activations are rounded to on the way.
    if Format::of(kind).is_err() || matches!(kind, TensorType::Q8_1 | TensorType::Q8_K) {
        return Err(Error::Model {
            subject: format!("tensor `{name}`"),
            found: format!("type {}", kind.name()),
            expected: "a format that weights are stored in".into(),
        });
    }
    let shape = tensor.shape();
    let found_columns = shape.first().copied().unwrap_or(1);
    let found_rows: u64 = shape.iter().skip(1).product();
    if (found_columns, found_rows) != (columns as u64, rows as u64) {
        let found = shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ");
        return Err(Error::Model {
            subject: format!("tensor `{name}`"),
            found: format!("{found} numbers"),
            expected: format!("{columns} × {rows}"),
        });
    }
    Ok(Weight { name: name.to_owned(), tensor_type: kind, columns, rows })
}
