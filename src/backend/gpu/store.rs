//! The weights of a program on the device: matrices, stacked as the plan asks for, and vectors.

use super::device::Gpu;
use super::layout::Layout;
use super::memory::{Matrix, filled};
use super::plan::{Node, Plan, Stack};
use crate::Result;
use crate::backend::weights::Weights;
use crate::program::{Product, Program, WeightId};
use std::collections::HashMap;

/// Rows of the file's tensors, as `(tensor, first row, rows)`, and whether they alternate.
pub type Key = (Vec<(String, usize, usize)>, bool);

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
                    if let Some(bias) = biases(weights, stack) {
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
            .0
            .iter()
            .filter_map(|(name, first, rows)| {
                let id = program.weights.iter().position(|weight| weight.name == *name)?;
                Some((WeightId(id), *first, *rows))
            })
            .collect();
        let Some(&(first, ..)) = parts.first() else { return Ok(()) };
        let weight = &program.weights[first.0];
        let layout = Layout::of(weight.tensor_type)?;
        let rows = parts.iter().map(|(.., rows)| rows).sum();
        let (alternate, shape) = (key.1, (rows, weight.columns));
        let source = |row: usize| {
            let (mut part, mut row) = if alternate { (row % 2, row / 2) } else { (0, row) };
            while !alternate && part + 1 < parts.len() && row >= parts[part].2 {
                row -= parts[part].2;
                part += 1;
            }
            let (id, first, _) = parts[part];
            weights.row(id, first + row)
        };
        let together = if alternate { 2 } else { 1 };
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
    (vec![(weight.name.clone(), 0, weight.rows)], false)
}

/// That of a stack.
pub fn stack_key(program: &Program, stack: &Stack) -> Key {
    let rows = |product: &Product| {
        let weight = &program.weights[product.weight.0];
        (weight.name.clone(), product.first_row, program.slots[product.out.0].width)
    };
    (stack.products.iter().map(rows).collect(), stack.gate.is_some())
}

/// The biases of a stack, zero where a matrix has none.
fn biases(weights: &Weights, stack: &Stack) -> Option<Vec<f32>> {
    if stack.products.iter().all(|product| product.bias.is_none()) {
        return None;
    }
    let each: Vec<Vec<f32>> = stack
        .products
        .iter()
        .map(|product| {
            let rows = weights.program.slots[product.out.0].width;
            let bias = product.bias.and_then(|id| weights.vector(id).get(product.first_row..product.first_row + rows));
            bias.map_or(vec![0.0; rows], <[f32]>::to_vec)
        })
        .collect();
    Some(match (stack.gate, &each[..]) {
        (Some(_), [first, second]) => first.iter().zip(second).flat_map(|(&a, &b)| [a, b]).collect(),
        _ => each.concat(),
    })
}
