//! The tensor directory: what a tensor is called, how it is shaped and stored, and where its bytes are.

use std::fmt;
use std::sync::Arc;

use super::types::TensorType;

/// No tensor has more dimensions.
pub(super) const MAX_DIMENSIONS: usize = 4;
/// Names are shorter than this; the reference keeps them in buffers of this size, with a zero at the end.
pub(super) const NAME_LIMIT_BYTES: usize = 64;

/// One tensor of a file. Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct TensorInfo {
    /// Behind a pointer, because a directory entry takes as few as 20 bytes in a file: a list of these records, made
    /// for a hostile file, could be several times larger than the file, and a list of pointers cannot.
    record: Arc<Record>,
}

/// What [`TensorInfo`] points to.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    pub name: Box<str>,
    pub shape: Shape,
    pub kind: TensorType,
    pub elements: u64,
    pub size_bytes: u64,
    /// From the start of the shard's data.
    pub offset_bytes: u64,
    pub shard: usize,
    /// Where the directory entry stands, for errors.
    pub entry_offset: u64,
}

impl TensorInfo {
    pub(super) fn new(record: Record) -> Self {
        Self { record: Arc::new(record) }
    }

    pub(super) fn entry_offset(&self) -> u64 {
        self.record.entry_offset
    }

    /// The name, as in `blk.0.attn_q.weight`; no other tensor of the model has it.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// The dimensions, fastest first: a matrix of `rows` rows is `[columns, rows]`. No dimensions means one element.
    pub fn shape(&self) -> &[u64] {
        self.record.shape.dimensions()
    }

    /// How the values are stored.
    pub fn tensor_type(&self) -> TensorType {
        self.record.kind
    }

    /// The number of values: the product of the dimensions, which may be 0.
    pub fn elements(&self) -> u64 {
        self.record.elements
    }

    /// The bytes that the values take in the file.
    pub fn size_bytes(&self) -> u64 {
        self.record.size_bytes
    }

    /// Where the bytes begin, counted from the start of the shard's data
    /// ([`Shard::data_offset`](super::Shard::data_offset)).
    pub fn offset_bytes(&self) -> u64 {
        self.record.offset_bytes
    }

    /// Which of [`Gguf::shards`](super::Gguf::shards) holds the bytes.
    pub fn shard(&self) -> usize {
        self.record.shard
    }
}

impl fmt::Debug for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

/// Up to four dimensions, fastest first.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Shape {
    dimensions: [u64; MAX_DIMENSIONS],
    used: usize,
}

impl Shape {
    /// The first four of `dimensions`; callers have made sure that there are no more.
    pub fn new(dimensions: &[u64]) -> Self {
        let mut shape = Self { dimensions: [1; MAX_DIMENSIONS], used: dimensions.len().min(MAX_DIMENSIONS) };
        shape.dimensions.iter_mut().zip(dimensions).for_each(|(to, &from)| *to = from);
        shape
    }

    pub fn dimensions(&self) -> &[u64] {
        self.dimensions.get(..self.used).unwrap_or_default()
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dimensions().fmt(f)
    }
}

/// Why a shape and a type do not make a tensor.
pub(super) struct Misfit {
    pub part: &'static str,
    pub found: String,
    pub expected: String,
}

/// The number of elements and of bytes of a tensor; the reader and the writer hold their files to the same rules.
pub(super) fn measure(shape: &Shape, kind: TensorType) -> Result<(u64, u64), Misfit> {
    let dimensions = shape.dimensions();
    // The product is formed in file order and a zero ends every doubt, as in the reference.
    let product = dimensions.iter().try_fold(1u64, |product, &dimension| {
        product.checked_mul(dimension).filter(|&product| i64::try_from(product).is_ok())
    });
    let negative = dimensions.iter().any(|&dimension| i64::try_from(dimension).is_err());
    let Some(elements) = product.filter(|_| !negative) else {
        let found = format!("{dimensions:?}");
        return Err(Misfit { part: "shape", found, expected: "dimensions and a product of at most 2^63-1".into() });
    };
    let columns = dimensions.first().copied().unwrap_or(1);
    if !columns.is_multiple_of(kind.block_elements()) {
        let found = format!("{columns} elements per row");
        let expected = format!("a multiple of {}, the block of {kind}", kind.block_elements());
        return Err(Misfit { part: "shape", found, expected });
    }
    let Some(size_bytes) = (elements / kind.block_elements()).checked_mul(kind.block_bytes()) else {
        let found = format!("{elements} elements of {kind}");
        return Err(Misfit { part: "size", found, expected: "fewer than 2^64 bytes".into() });
    };
    Ok((elements, size_bytes))
}

/// The next multiple of a power of two; `None` past 2^64.
pub(super) fn pad(offset: u64, alignment: u32) -> Option<u64> {
    offset.checked_next_multiple_of(alignment.into())
}
