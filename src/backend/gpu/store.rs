//! The weights of a program on the device: matrices, stacked as the plan asks for, and vectors.

use super::device::Gpu;
use super::layout::Layout;
use super::memory::{Matrix, filled};
use super::plan::{Node, Plan, Stack};
use crate::Result;
use crate::backend::weights::Weights;
use crate::program::{Product, Program, WeightId};
use std::collections::HashMap;

/// Rows of the file's tensors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// As `(tensor, first row, rows)`.
    pub rows: Vec<(String, usize, usize)>,
    /// They alternate, or else they are one above the other.
    pub alternate: bool,
    /// Each tensor is so many matrices, one above the other, of which each has such rows.
    pub matrices: usize,
}

/// The weights.
pub struct Store {
    matrices: HashMap<Key, Matrix>,
    vectors: HashMap<WeightId, wgpu::Buffer>,
    /// The biases of each stack that has any, in the order of its rows.
    biases: HashMap<Key, wgpu::Buffer>,
    /// For bindings that a kernel does not use.
    pub nothing: wgpu::Buffer,
}

impl Store {
    /// Uploads what a plan needs.
    pub async fn new(gpu: &Gpu, weights: &Weights, plan: &Plan) -> Result<Self> {
        let program = &weights.program;
        let nothing = filled(gpu, "nothing", &[0; 16]).await?;
        let mut store = Store { matrices: HashMap::new(), vectors: HashMap::new(), biases: HashMap::new(), nothing };
        for node in &plan.nodes {
            match node {
                Node::Embed { table, .. } | Node::AddRow { table, .. } => {
                    store.matrix(gpu, weights, table_key(program, *table)).await?
                }
                Node::Product(stack) => {
                    let key = stack_key(program, stack);
                    store.matrix(gpu, weights, key.clone()).await?;
                    if let Some(bias) = biases(weights, stack)? {
                        store.biases.insert(key, filled(gpu, "biases", bytemuck::cast_slice(&bias)).await?);
                    }
                }
                node => {
                    for id in node.vectors() {
                        let buffer = filled(gpu, "vector", bytemuck::cast_slice(weights.vector(id))).await?;
                        store.vectors.insert(id, buffer);
                    }
                }
            }
        }
        Ok(store)
    }

    async fn matrix(&mut self, gpu: &Gpu, weights: &Weights, key: Key) -> Result<()> {
        if self.matrices.contains_key(&key) {
            return Ok(());
        }
        let program = &weights.program;
        let parts: Vec<(WeightId, usize, usize)> = key
            .rows
            .iter()
            .filter_map(|(name, first, rows)| {
                let id = program.weights.iter().position(|weight| weight.name == *name)?;
                Some((WeightId(id), *first, *rows))
            })
            .collect();
        let Some(&(first, ..)) = parts.first() else { return Ok(()) };
        let weight = &program.weights[first.0];
        let layout = Layout::of(weight.tensor_type)?;
        let matrix_rows: usize = parts.iter().map(|(.., rows)| rows).sum();
        let (alternate, shape) = (key.alternate, (matrix_rows * key.matrices, weight.columns));
        let source = |row: usize| {
            let (matrix, row) = (row / matrix_rows, row % matrix_rows);
            let (mut part, mut row) = if alternate { (row % 2, row / 2) } else { (0, row) };
            while !alternate && part + 1 < parts.len() && row >= parts[part].2 {
                row -= parts[part].2;
                part += 1;
            }
            let (id, first, _) = parts[part];
            weights.row(id, matrix * (program.weights[id.0].rows / key.matrices) + first + row)
        };
        // Matrices of a mixture stay whole.
        let together = match key.matrices {
            1 => 1 + usize::from(alternate),
            _ => matrix_rows,
        };
        let matrix = Matrix::upload(gpu, &weight.name, layout, shape, together, source).await?;
        self.matrices.insert(key, matrix);
        Ok(())
    }

    /// The matrix of a stack.
    pub fn stack(&self, program: &Program, stack: &Stack) -> Option<&Matrix> {
        self.matrices.get(&stack_key(program, stack))
    }

    /// The biases of a stack, if it has any.
    pub fn bias(&self, program: &Program, stack: &Stack) -> Option<&wgpu::Buffer> {
        self.biases.get(&stack_key(program, stack))
    }

    /// An embedding table.
    pub fn table(&self, program: &Program, table: WeightId) -> Option<&Matrix> {
        self.matrices.get(&table_key(program, table))
    }

    /// A vector.
    pub fn vector(&self, id: WeightId) -> Option<&wgpu::Buffer> {
        self.vectors.get(&id)
    }

    /// Bytes of all matrices.
    pub fn bytes(&self) -> u64 {
        self.matrices.values().map(Matrix::bytes).sum()
    }
}

/// That of a table.
pub fn table_key(program: &Program, table: WeightId) -> Key {
    let weight = &program.weights[table.0];
    Key { rows: vec![(weight.name.clone(), 0, weight.rows)], alternate: false, matrices: 1 }
}

/// That of a stack.
pub fn stack_key(program: &Program, stack: &Stack) -> Key {
    let rows = |product: &Product| {
        let weight = &program.weights[product.weight.0];
        (weight.name.clone(), product.first_row, stack.rows(program, product))
    };
    let rows = stack.products.iter().map(rows).collect();
    Key { rows, alternate: stack.gate.is_some(), matrices: stack.matrices() }
}

/// The biases of a stack, zero where a matrix has none.
fn biases(weights: &Weights, stack: &Stack) -> Result<Option<Vec<f32>>> {
    if stack.products.iter().all(|product| product.bias.is_none()) {
        return Ok(None);
    }
    let mut all = vec![];
    for matrix in 0..stack.matrices() {
        let mut each = vec![];
        for product in &stack.products {
            let rows = stack.rows(&weights.program, product);
            each.push(match product.bias {
                Some(id) => {
                    let mut bias = vec![0.0; weights.program.weights[id.0].columns];
                    weights.decode_row(id, matrix, &mut bias)?;
                    bias.get(product.first_row..product.first_row + rows).unwrap_or_default().to_vec()
                }
                None => vec![0.0; rows],
            });
        }
        match (stack.gate, &each[..]) {
            (Some(_), [first, second]) => all.extend(first.iter().zip(second).flat_map(|(&a, &b)| [a, b])),
            _ => all.extend(each.concat()),
        }
    }
    Ok(Some(all))
}
