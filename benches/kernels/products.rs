//! Products with weights of one type: few tokens, whose speed is that of memory, and many.

use crate::blocks::Blocks;
use crate::ceilings::random_words;
use crate::timer::{Dispatch, Timer, Times};
use kiln::backend::gpu::layout::Layout;
use kiln::backend::gpu::memory::{Matrix, Part, buffer, filled};
use kiln::backend::gpu::products::{Epilogue, FEW_TOKENS, ProductKernel, ProductParams, takes_integers};
use kiln::backend::gpu::readback::wait;
use kiln::backend::gpu::rows::quantized_bytes;
use kiln::backend::gpu::{Gpu, wgpu};
use kiln::gguf::TensorType;
use kiln::{Error, Result};
use std::borrow::Cow;

/// What a product took.
pub struct Case {
    pub kind: TensorType,
    /// Whether activations are rounded to eight bits.
    pub integer: bool,
    pub tokens: u32,
    pub times: Times,
    /// Bytes of weights that are read.
    pub weight_bytes: u64,
    pub flops: u64,
}

impl Case {
    /// Whether weights are read once for all tokens.
    pub fn is_few(&self) -> bool {
        self.tokens <= FEW_TOKENS
    }

    /// Of weights.
    pub fn gb_per_s(&self) -> f64 {
        self.weight_bytes as f64 / self.times.median / 1e9
    }

    pub fn gflop_per_s(&self) -> f64 {
        self.flops as f64 / self.times.median / 1e9
    }
}

/// Matrices of one type and shape, so many that no cache holds them all.
pub struct Matrices<'g> {
    gpu: &'g Gpu,
    first: Matrix,
    others: Vec<Vec<Part>>,
    rows: u32,
}

/// Rows that differ from each other; then they come again.
const DIFFERENT_ROWS: usize = 64;

impl<'g> Matrices<'g> {
    /// Random matrices of `set_bytes` in all, or as many as there is memory for.
    pub fn new(gpu: &'g Gpu, layout: Layout, (rows, columns): (u32, u32), set_bytes: u64) -> Result<Self> {
        let (kind, columns) = (layout.kind(), columns as usize);
        if !columns.is_multiple_of(kind.block_elements() as usize) {
            return Err(Error::Gpu {
                subject: format!("matrix of {kind}"),
                found: format!("{columns} columns"),
                expected: format!("a multiple of {}", kind.block_elements()),
            });
        }
        let row_bytes = columns / kind.block_elements() as usize * kind.block_bytes() as usize;
        let mut bytes = vec![0; row_bytes * DIFFERENT_ROWS];
        Blocks::new(kind, 1.0 / (columns as f32).sqrt())?.fill(1, &mut bytes);
        let row = |row: usize| Ok(Cow::Borrowed(&bytes[row % DIFFERENT_ROWS * row_bytes..][..row_bytes]));
        let first = wait(gpu, Matrix::upload(gpu, "weights", layout, (rows as usize, columns), 1, row))?;
        let mut others = vec![];
        while first.bytes() * (others.len() as u64 + 2) <= set_bytes {
            match first.parts.iter().map(|part| copy(gpu, part)).collect::<Result<Vec<Part>>>() {
                Ok(parts) => others.push(parts),
                Err(Error::GpuMemory { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Matrices { gpu, first, others, rows })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// Multiplies so many tokens.
    pub fn measure(&self, timer: &Timer, tokens: u32) -> Result<Case> {
        let (gpu, layout, columns) = (self.gpu, &self.first.layout, self.first.columns as u32);
        let integer = takes_integers(gpu, layout);
        let kernel = ProductKernel::new(
            integer,
            layout,
            self.first.columns,
            tokens,
            Epilogue::default(),
            gpu.largest_subgroup(),
        );
        let pipeline = wait(gpu, kernel.variant.clone().for_gpu(gpu).pipeline(gpu))?;
        let activations = activations(gpu, integer, columns, tokens)?;
        let out_bytes = u64::from(padded(tokens)) * u64::from(self.rows) * 4;
        let out = wait(gpu, buffer(gpu, "results", out_bytes, wgpu::BufferUsages::STORAGE))?;
        let step = wait(gpu, filled(gpu, "step", bytemuck::bytes_of(&[tokens, 0, tokens, 0])))?;
        let nothing = wait(gpu, filled(gpu, "nothing", &[0; 16]))?;
        let dispatch = |part: &Part| -> Result<Dispatch> {
            let params = ProductParams {
                columns,
                row_units: self.first.row_units(),
                rows: part.rows,
                first_row: part.first_row,
                x_stride: columns,
                out_stride: self.rows,
                ..ProductParams::default()
            };
            let params = wait(gpu, filled(gpu, "parameters", bytemuck::bytes_of(&params)))?;
            let [x, x_scales] = &activations;
            let tables = self.first.tables.as_ref().unwrap_or(&nothing);
            let buffers = [&step, &params, &part.quants, &part.scales, x, x_scales, &out, tables, &nothing];
            Ok(Dispatch::new(gpu, &pipeline, &buffers, kernel.groups(part.rows, tokens)))
        };
        let all = [&self.first.parts].into_iter().chain(&self.others);
        let rounds = all.map(|parts| parts.iter().map(dispatch).collect()).collect::<Result<Vec<Vec<Dispatch>>>>()?;
        Ok(Case {
            kind: layout.kind(),
            integer,
            tokens,
            times: timer.measure(&rounds)?,
            weight_bytes: self.first.bytes(),
            flops: 2 * u64::from(self.rows) * u64::from(columns) * u64::from(tokens),
        })
    }
}

/// Kernels may read as many tokens as they take at once.
fn padded(tokens: u32) -> u32 {
    tokens.next_multiple_of(64)
}

/// Random activations: eight-bit integers and scales, or numbers and nothing.
fn activations(gpu: &Gpu, integer: bool, columns: u32, tokens: u32) -> Result<[wgpu::Buffer; 2]> {
    let rows = u64::from(padded(tokens));
    let filled = |bytes: &[u8]| wait(gpu, filled(gpu, "activations", bytes));
    let numbers = |bytes: u64| -> Result<wgpu::Buffer> {
        let mut numbers = vec![0; bytes as usize];
        Blocks::new(TensorType::F32, 0.02)?.fill(2, &mut numbers);
        filled(&numbers)
    };
    if !integer {
        return Ok([numbers(u64::from(columns.next_multiple_of(32)) * 4 * rows)?, filled(&[0; 16])?]);
    }
    let (integers, scales) = quantized_bytes(columns);
    let integers = random_words((integers * rows / 4) as usize);
    Ok([filled(bytemuck::cast_slice(&integers))?, numbers(scales * rows)?])
}

/// The same rows elsewhere.
fn copy(gpu: &Gpu, part: &Part) -> Result<Part> {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let mut copy = |from: &wgpu::Buffer| -> Result<wgpu::Buffer> {
        let to = wait(gpu, buffer(gpu, "weights", from.size(), wgpu::BufferUsages::STORAGE))?;
        encoder.copy_buffer_to_buffer(from, 0, &to, 0, from.size());
        Ok(to)
    };
    let (quants, scales) = (copy(&part.quants)?, copy(&part.scales)?);
    gpu.queue().submit([encoder.finish()]);
    Ok(Part { quants, scales, ..*part })
}
