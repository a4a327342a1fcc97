//! Memory of the device: buffers that are made or refused, and weights on their way into them.
//!
//! Weights are repacked row by row, in pieces of some megabytes, and only a few pieces are on their way at a time: what
//! the driver holds for copies would otherwise grow to the size of the model. A matrix larger than a binding is split
//! by rows.

use super::device::Gpu;
use super::layout::Layout;
use crate::{Error, Result};
use futures::channel::oneshot;
use std::borrow::Cow;
use wgpu::BufferUsages;

/// What is handed to the driver at once.
const PIECE_BYTES: usize = 16 << 20;
/// Pieces on their way at a time.
const PIECES_IN_FLIGHT: usize = 3;

/// Parts begin at multiples of so many rows, where that many fit a binding: so results that are rounded by units of 32 can
/// be, though two rows make one of them.
pub const EVEN_ROWS: usize = 64;

/// A buffer of storage that kernels read and write, and that can be copied.
///
/// # Errors
/// [`Error::GpuMemory`] if there is no room for it, [`Error::GpuLost`] if the device is gone.
pub async fn buffer(gpu: &Gpu, what: &str, bytes: u64, usage: BufferUsages) -> Result<wgpu::Buffer> {
    let limits = gpu.device().limits();
    let is_bound = usage.contains(BufferUsages::STORAGE);
    let limit = if is_bound { limits.max_storage_buffer_binding_size } else { u64::MAX }.min(limits.max_buffer_size);
    if bytes > limit {
        let (subject, found) = (what.into(), format!("{bytes} bytes"));
        return Err(Error::Gpu { subject, found, expected: format!("at most {limit}, which is the device's limit") });
    }
    // Memory that is mapped can be the target of copies only.
    let is_mapped = usage.contains(BufferUsages::MAP_READ);
    let copies = if is_mapped { BufferUsages::empty() } else { BufferUsages::COPY_SRC } | BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor {
        label: Some(what),
        size: bytes.next_multiple_of(16).max(16),
        usage: usage | copies,
        mapped_at_creation: false,
    };
    gpu.make(what, descriptor.size, |device| device.create_buffer(&descriptor)).await
}

/// A matrix of weights on the device.
#[derive(Debug)]
pub struct Matrix {
    /// How its rows lie.
    pub layout: Layout,
    /// Inputs.
    pub columns: usize,
    /// Its rows, in parts that each fit a binding.
    pub parts: Vec<Part>,
    /// What the layout's shader looks up.
    pub tables: Option<wgpu::Buffer>,
}

/// Some rows of a matrix.
#[derive(Debug)]
pub struct Part {
    /// The first, counted in the matrix.
    pub first_row: u32,
    /// How many.
    pub rows: u32,
    /// The plane of quants.
    pub quants: wgpu::Buffer,
    /// The plane of everything else.
    pub scales: wgpu::Buffer,
}

impl Matrix {
    /// Brings a matrix to the device. `row` gives the bytes of each row as in the file; parts begin at multiples of
    /// `together` rows.
    pub async fn upload<'a>(
        gpu: &Gpu,
        what: &str,
        layout: Layout,
        (rows, columns): (usize, usize),
        together: usize,
        mut row: impl FnMut(usize) -> Result<Cow<'a, [u8]>>,
    ) -> Result<Matrix> {
        let (quant_bytes, scale_bytes) = (layout.quants_row_bytes(columns), layout.scales_row_bytes(columns));
        let largest = quant_bytes.max(scale_bytes).max(1) as u64;
        let fitting = (gpu.binding_bytes() / largest) as usize;
        let is_even = fitting >= EVEN_ROWS && EVEN_ROWS.is_multiple_of(together);
        let together = if is_even { EVEN_ROWS } else { together };
        let part_rows = fitting / together * together;
        if part_rows == 0 {
            return Err(Error::Gpu {
                subject: format!("binding for {what}"),
                found: format!("a limit of {} bytes", gpu.binding_bytes()),
                expected: format!("at least {}, for {together} rows", largest * together as u64),
            });
        }
        let mut upload = Upload::new(gpu);
        let mut parts = vec![];
        for first_row in (0..rows).step_by(part_rows) {
            let count = part_rows.min(rows - first_row);
            let quants = buffer(gpu, what, (count * quant_bytes) as u64, BufferUsages::STORAGE).await?;
            let scales = buffer(gpu, what, (count * scale_bytes) as u64, BufferUsages::STORAGE).await?;
            let piece_rows = (PIECE_BYTES / (quant_bytes + scale_bytes).max(1)).clamp(1, count);
            for start in (0..count).step_by(piece_rows) {
                let piece = piece_rows.min(count - start);
                let (mut packed_quants, mut packed_scales) =
                    (vec![0; piece * quant_bytes], vec![0; piece * scale_bytes]);
                for index in 0..piece {
                    let bytes = row(first_row + start + index)?;
                    let quants = &mut packed_quants[index * quant_bytes..][..quant_bytes];
                    let scales = &mut packed_scales[index * scale_bytes..][..scale_bytes];
                    layout.pack_row(columns, &bytes, quants, scales);
                }
                upload.write(&quants, (start * quant_bytes) as u64, &packed_quants).await?;
                upload.write(&scales, (start * scale_bytes) as u64, &packed_scales).await?;
            }
            parts.push(Part { first_row: first_row as u32, rows: count as u32, quants, scales });
        }
        upload.finish().await?;
        let tables = match layout.table() {
            Some(table) => Some(filled(gpu, what, bytemuck::cast_slice(&table)).await?),
            None => None,
        };
        Ok(Matrix { layout, columns, parts, tables })
    }

    /// Units of 32 columns in a row.
    pub fn row_units(&self) -> u32 {
        self.columns.div_ceil(32) as u32
    }

    /// Bytes of a row, as it lies in buffers.
    pub fn row_bytes(&self) -> u64 {
        (self.layout.quants_row_bytes(self.columns) + self.layout.scales_row_bytes(self.columns)) as u64
    }

    /// Rows of all parts.
    pub fn rows(&self) -> u32 {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.quants.size() + part.scales.size()).sum()
    }
}

/// A buffer with something in it.
pub async fn filled(gpu: &Gpu, what: &str, bytes: &[u8]) -> Result<wgpu::Buffer> {
    let usage = BufferUsages::STORAGE | BufferUsages::UNIFORM;
    let buffer = buffer(gpu, what, bytes.len() as u64, usage).await?;
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    gpu.queue().write_buffer(&buffer, 0, &padded);
    Ok(buffer)
}

/// Writes that wait for earlier ones when there are too many.
struct Upload<'g> {
    gpu: &'g Gpu,
    in_flight: std::collections::VecDeque<oneshot::Receiver<()>>,
}

impl<'g> Upload<'g> {
    fn new(gpu: &'g Gpu) -> Self {
        Upload { gpu, in_flight: Default::default() }
    }

    async fn write(&mut self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        while self.in_flight.len() >= PIECES_IN_FLIGHT {
            self.wait_for_one().await?;
        }
        self.gpu.queue().write_buffer(buffer, offset, bytes);
        self.gpu.submit(None);
        let (sender, receiver) = oneshot::channel();
        self.gpu.queue().on_submitted_work_done(move || _ = sender.send(()));
        self.in_flight.push_back(receiver);
        Ok(())
    }

    async fn wait_for_one(&mut self) -> Result<()> {
        match self.in_flight.pop_front() {
            Some(receiver) => self.gpu.hear(receiver).await,
            None => Ok(()),
        }
    }

    async fn finish(mut self) -> Result<()> {
        while !self.in_flight.is_empty() {
            self.wait_for_one().await?;
        }
        Ok(())
    }
}
