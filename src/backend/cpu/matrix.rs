//! Weights as the kernels read them: packed eight rows wide, or as they lie in the file.
//!
//! A packed matrix takes as many bytes as the file's, up to rounding to whole panels. An unpacked one keeps nothing but
//! a handle to the file's bytes; its panels are packed again, one by one, whenever they are used.
//!
//! Matrices of one shape that lie one above the other, as those of experts do, are one [`Matrix`] too: a stack, of which
//! each product names the member. Panels never reach from one member into the next.

use super::activations::Forms;
use super::huge::HugePages;
use super::pool::Pool;
use super::simd::kernels::Panels;
use super::simd::table::{Kernel, kernel_of};
use super::simd::{LANES, Level};
use crate::gguf::TensorType;
use crate::quant::Format;
use crate::{Error, Result};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that somebody else holds, such as a tensor in a mapped file.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// How a matrix is to be multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixOptions {
    /// Whether to pack it, if its type can be.
    pub pack: bool,
    /// Whether to decode weights and multiply in `f32`, without rounding activations. Slow, and as close to the truth
    /// as `f32` comes. Implies that it is not packed.
    pub exact: bool,
    /// The vector unit to use.
    pub level: Level,
}

impl Default for MatrixOptions {
    fn default() -> Self {
        MatrixOptions { pack: true, exact: false, level: Level::best() }
    }
}

/// How the members of a stack lie in the bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stack {
    /// How many there are.
    pub members: usize,
    /// Rows from the beginning of one to that of the next.
    pub stride_rows: usize,
    /// The first of these rows that counts.
    pub first_row: usize,
}

/// A matrix of weights: `rows` rows of `columns` numbers, of which each gives one output. Or a stack of such.
#[derive(Clone)]
pub struct Matrix {
    kind: TensorType,
    stack: Stack,
    rows: usize, // of one member
    columns: usize,
    row_bytes: usize,
    level: Level,
    /// None where weights are decoded to `f32`.
    pub(super) kernel: Option<&'static dyn Kernel>,
    storage: Storage,
}

#[derive(Clone)]
enum Storage {
    Packed(Arc<Packed>),
    Rows(Bytes),
}

/// The two planes of all panels.
struct Packed {
    quants: HugePages,
    scales: HugePages,
}

impl Matrix {
    /// A matrix from the bytes of a file: `rows * columns` weights of type `kind`, row by row.
    ///
    /// # Errors
    /// If the type holds no weights, a row is no whole number of blocks, or there are not just as many bytes.
    pub fn new(
        kind: TensorType,
        rows: usize,
        columns: usize,
        bytes: Bytes,
        options: MatrixOptions,
        pool: &Pool,
    ) -> Result<Self> {
        Self::stacked(kind, Stack { members: 1, stride_rows: rows, first_row: 0 }, rows, columns, bytes, options, pool)
    }

    /// Several matrices of `rows` rows, from the bytes of all members of a stack.
    ///
    /// # Errors
    /// If the type holds no weights, a row is no whole number of blocks, members have fewer rows, or there are not just
    /// as many bytes.
    pub fn stacked(
        kind: TensorType,
        stack: Stack,
        rows: usize,
        columns: usize,
        bytes: Bytes,
        options: MatrixOptions,
        pool: &Pool,
    ) -> Result<Self> {
        let row_bytes = Format::of(kind)?.bytes_for(columns)?;
        let found = (*bytes).as_ref().len();
        let all_rows = stack.members.checked_mul(stack.stride_rows);
        let is_within = stack.first_row.checked_add(rows).is_some_and(|end| end <= stack.stride_rows);
        if !is_within || Some(found) != all_rows.and_then(|rows| row_bytes.checked_mul(rows)) {
            let Stack { members, stride_rows, first_row } = stack;
            let stacked = match members {
                1 => String::new(),
                _ => format!(", from row {first_row} of each of {members} times {stride_rows}"),
            };
            return Err(Error::Quant {
                format: kind.name(),
                found: format!("{found} bytes for {rows} rows of {columns}{stacked}"),
                expected: format!("{row_bytes} bytes a row"),
            });
        }
        let kernel = if options.exact { None } else { kernel_of(kind) };
        let mut matrix = Matrix {
            kind,
            stack,
            rows,
            columns,
            row_bytes,
            level: options.level,
            kernel,
            storage: Storage::Rows(bytes),
        };
        if let (true, Some(kernel)) = (options.pack, kernel) {
            matrix.storage = Storage::Packed(Arc::new(matrix.pack(kernel, pool)?));
        }
        Ok(matrix)
    }

    /// The bytes of memory that a matrix would take: packed, or in the file.
    pub fn bytes_for(kind: TensorType, rows: usize, columns: usize, options: MatrixOptions) -> Result<u64> {
        let kernel = kernel_of(kind).filter(|_| options.pack && !options.exact);
        let bytes = match kernel.map(|kernel| panel_bytes(kernel, columns)) {
            Some((quants, scales)) => rows.div_ceil(LANES) * (quants + scales),
            None => rows * Format::of(kind)?.bytes_for(columns)?,
        };
        Ok(bytes as u64)
    }

    /// The forms of activations that such a matrix would be multiplied by.
    pub fn forms_for(kind: TensorType, options: MatrixOptions) -> Forms {
        forms_of(kernel_of(kind).filter(|_| !options.exact))
    }

    /// The type of the weights.
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// How many matrices it is.
    pub fn members(&self) -> usize {
        self.stack.members
    }

    /// Outputs, of each member.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of weights that a product with one member reads.
    pub fn weight_bytes(&self) -> usize {
        self.rows * self.row_bytes
    }

    /// Bytes of memory that the matrix holds beyond the file's.
    pub fn packed_bytes(&self) -> usize {
        match &self.storage {
            Storage::Packed(packed) => packed.quants.bytes().len() + packed.scales.bytes().len(),
            Storage::Rows(_) => 0,
        }
    }

    /// The form of activations that the matrix is multiplied by.
    pub fn forms(&self) -> Forms {
        forms_of(self.kernel)
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Whether the rows are plain numbers.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.kind, TensorType::F32 | TensorType::F16 | TensorType::BF16)
    }

    /// Panels of a member.
    pub(super) fn panels(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Bytes of these rows of a member as in the file; none if they are packed.
    pub(super) fn row_range(&self, member: usize, start: usize, end: usize) -> &[u8] {
        let first = member * self.stack.stride_rows + self.stack.first_row;
        let range = (first + start) * self.row_bytes..(first + end) * self.row_bytes;
        match &self.storage {
            Storage::Packed(_) => &[],
            Storage::Rows(bytes) => (**bytes).as_ref().get(range).unwrap_or_default(),
        }
    }

    fn pack(&self, kernel: &dyn Kernel, pool: &Pool) -> Result<Packed> {
        let (quant_bytes, scale_bytes) = panel_bytes(kernel, self.columns);
        let panels = self.stack.members * self.panels();
        let quants = HugePages::new(panels * quant_bytes)?;
        let mut packed = Packed { quants, scales: HugePages::new(panels * scale_bytes)? };
        let quants = packed.quants.bytes_mut().chunks_mut(quant_bytes.max(1));
        let scales = packed.scales.bytes_mut().chunks_mut(scale_bytes.max(1));
        pool.for_each(quants.zip(scales).enumerate(), |(panel, (quants, scales))| {
            self.pack_panel(kernel, (panel / self.panels(), panel % self.panels()), quants, scales);
        });
        Ok(packed)
    }

    /// Packs the rows of a member's panel; in lanes without a row stands another one, whose results nobody takes.
    fn pack_panel(&self, kernel: &dyn Kernel, (member, panel): (usize, usize), quants: &mut [u8], scales: &mut [u8]) {
        let rows = std::array::from_fn(|lane| {
            let row = (panel * LANES + lane).min(self.rows.saturating_sub(1));
            self.row_range(member, row, row + 1)
        });
        kernel.pack(self.level, rows, quants, scales);
    }

    /// Calls `work` with some panels of a member, packed for the occasion if they are not.
    pub(super) fn with_panels(
        &self,
        kernel: &dyn Kernel,
        (member, panels): (usize, Range<usize>),
        work: impl FnOnce(Panels<'_>),
    ) {
        let (quant_bytes, scale_bytes) = panel_bytes(kernel, self.columns);
        let count = panels.len();
        match &self.storage {
            Storage::Packed(packed) => {
                let (start, end) = (member * self.panels() + panels.start, member * self.panels() + panels.end);
                let quants = packed.quants.bytes().get(start * quant_bytes..end * quant_bytes).unwrap_or_default();
                let scales = packed.scales.bytes().get(start * scale_bytes..end * scale_bytes).unwrap_or_default();
                work(Panels { quants, scales, count });
            }
            Storage::Rows(_) => {
                let (mut quants, mut scales) = (vec![0; count * quant_bytes], vec![0; count * scale_bytes]);
                let planes = quants.chunks_mut(quant_bytes.max(1)).zip(scales.chunks_mut(scale_bytes.max(1)));
                for (i, (quants, scales)) in planes.enumerate() {
                    self.pack_panel(kernel, (member, panels.start + i), quants, scales);
                }
                work(Panels { quants: &quants, scales: &scales, count });
            }
        }
    }
}

/// Bytes of a panel of a matrix in each plane.
fn panel_bytes(kernel: &dyn Kernel, columns: usize) -> (usize, usize) {
    let (quants, scales) = kernel.unit_bytes();
    let units = columns / kernel.unit_columns();
    (units * quants, units * scales)
}

fn forms_of(kernel: Option<&'static dyn Kernel>) -> Forms {
    kernel.map_or(Forms { exact: true, ..Forms::default() }, |kernel| kernel.forms())
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packed = matches!(self.storage, Storage::Packed(_));
        write!(f, "Matrix({} [{}, {}]{})", self.kind, self.rows, self.columns, if packed { ", packed" } else { "" })
    }
}
