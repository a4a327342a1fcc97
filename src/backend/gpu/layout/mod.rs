//! How weights lie on the device.
//!
//! In a file a row is a run of blocks, in each of which scales, integers and further bits of the integers follow each
//! other, at whatever bytes they happen to come to. Shaders read words, and neighbouring lanes should read neighbouring
//! ones. So each row is taken apart on its way to the device into *planes*: first what one field of the format is in all
//! blocks of the row, then the next field. The planes of the integers go to one binding, `quants`; all others go to a
//! second one, `scales`. Every plane begins at a whole word, and those of `quants` at sixteen bytes where the shader
//! reads it as `vec4<u32>`.
//!
//! Bits are moved and none are changed: what lies on the device is a permutation of the file's bits, padded with zeros
//! at the end of a plane to whole words (and rows of plain numbers to whole units). The tests derive the permutation from
//! [`Layout::pack_row`] itself and undo it.
//!
//! # Units
//!
//! Shaders read a row by *units* of 32 neighbouring columns. The files of `shaders/quants/` decode one:
//!
//! - `fn unit(row, index, row_units) -> Unit`: 32 signed bytes `q` in two `vec4<u32>`, and a scale and an offset for each
//!   half. A weight is `scale * q + offset`.
//! - `fn floats(row, index, row_units, quad) -> vec4<f32>` for F32, F16 and BF16: four columns.
//!
//! Within a word, the bits of four neighbouring columns lie at the same place of its four bytes, so that a shift and a
//! mask make four signed bytes of them, in order.
//!
//! | bits of a column | where they lie |
//! |---|---|
//! | 8 | a `vec4<u32>` for the first 16 columns of each unit of the row, then one for the other 16 of each |
//! | 4 | a `vec4<u32>` a unit: columns 0 to 15 in the low halves of the bytes, 16 to 31 in the high halves |
//! | 2 | a `vec4<u32>` two units; in each byte two bits each of columns i and 16 + i of the first, then of the second |
//! | 1 | a word a unit: column 4 k + i is bit k of byte i |
//!
//! | file | what |
//! |---|---|
//! | `planes` | rows into planes, for any block |
//! | `small` | the formats of [`crate::quant::legacy`], [`crate::quant::ternary`] and [`crate::quant::fp4`] |
//! | `k`, `iq` | the formats of [`crate::quant::k`] and [`crate::quant::iq`] |
//! | `tables` | the codebooks that shaders read |

mod iq;
mod k;
mod planes;
mod small;
mod tables;
#[cfg(test)]
mod tests;

use super::shader::Variant;
use crate::gguf::TensorType;
use crate::quant::{fp4, iq as iq_blocks, k as k_blocks, legacy, ternary};
use crate::{Error, Result};
use planes::{MOST_PLANES, Planes, Repack, pack_blocks, split};

/// Columns of a unit.
pub const UNIT_COLUMNS: usize = 32;

/// How the rows of one type lie on the device.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    kind: TensorType,
    shader: &'static str,
    /// Bytes that a block has in each plane of `quants`; plain numbers have one plane, of whole units.
    quants: &'static [usize],
    /// Bytes that a block has in each plane of `scales`.
    scales: &'static [usize],
    vectors: bool,
    offsets: bool,
    halves: bool,
    /// What all weights are counted from, if offsets are nothing else.
    center: Option<u32>,
    table: Option<fn() -> Vec<u32>>,
    pack: fn(&[u8], &mut [&mut [u8]]),
}

/// All layouts there are.
#[rustfmt::skip]
static LAYOUTS: [Layout; 28] = [
    Layout::of_numbers(TensorType::F32, &[4], "quants/f32.wgsl"),
    Layout::of_numbers(TensorType::F16, &[2], "quants/f16.wgsl"),
    Layout::of_numbers(TensorType::BF16, &[2], "quants/bf16.wgsl"),
    Layout::of_blocks::<legacy::Q1_0>("quants/q1_0.wgsl").words().with_offsets(),
    Layout::of_blocks::<legacy::Q2_0>("quants/q2_0.wgsl").around(1),
    Layout::of_blocks::<legacy::Q4_0>("quants/q4_0.wgsl").around(8),
    Layout::of_blocks::<legacy::Q4_1>("quants/q4_1.wgsl").with_offsets(),
    Layout::of_blocks::<legacy::Q5_0>("quants/q5_0.wgsl").around(16),
    Layout::of_blocks::<legacy::Q5_1>("quants/q5_1.wgsl").with_offsets(),
    Layout::of_blocks::<legacy::Q8_0>("quants/q8_0.wgsl"),
    Layout::of_blocks::<k_blocks::Q2_K>("quants/q2_k.wgsl").with_offsets().with_halves(),
    Layout::of_blocks::<k_blocks::Q3_K>("quants/q3_k.wgsl").around(4).with_halves(),
    Layout::of_blocks::<k_blocks::Q4_K>("quants/q4_k.wgsl").with_offsets(),
    Layout::of_blocks::<k_blocks::Q5_K>("quants/q5_k.wgsl").with_offsets(),
    Layout::of_blocks::<k_blocks::Q6_K>("quants/q6_k.wgsl").around(32).with_halves(),
    Layout::of_blocks::<iq_blocks::IQ1_S>("quants/iq1_s.wgsl").words().with_offsets().with_table(tables::iq1),
    Layout::of_blocks::<iq_blocks::IQ1_M>("quants/iq1_m.wgsl").words().with_offsets().with_halves().with_table(tables::iq1),
    Layout::of_blocks::<iq_blocks::IQ2_XXS>("quants/iq2_xxs.wgsl").words().with_table(tables::iq2_xxs),
    Layout::of_blocks::<iq_blocks::IQ2_XS>("quants/iq2_xs.wgsl").words().with_halves().with_table(tables::iq2_xs),
    Layout::of_blocks::<iq_blocks::IQ2_S>("quants/iq2_s.wgsl").words().with_halves().with_table(tables::iq2_s),
    Layout::of_blocks::<iq_blocks::IQ3_XXS>("quants/iq3_xxs.wgsl").words().with_table(tables::iq3_xxs),
    Layout::of_blocks::<iq_blocks::IQ3_S>("quants/iq3_s.wgsl").words().with_table(tables::iq3_s),
    Layout::of_blocks::<iq_blocks::IQ4_NL>("quants/iq4_nl.wgsl"),
    Layout::of_blocks::<iq_blocks::IQ4_XS>("quants/iq4_xs.wgsl"),
    Layout::of_blocks::<ternary::TQ1_0>("quants/tq1_0.wgsl").around(1),
    Layout::of_blocks::<ternary::TQ2_0>("quants/tq2_0.wgsl").around(1),
    Layout::of_blocks::<fp4::MXFP4>("quants/mxfp4.wgsl"),
    Layout::of_blocks::<fp4::NVFP4>("quants/nvfp4.wgsl").with_halves(),
];

/// All layouts.
pub fn all() -> &'static [Layout] {
    &LAYOUTS
}

impl Layout {
    const fn of_blocks<R: Repack>(shader: &'static str) -> Self {
        let (quants, scales) = R::Planes::BYTES.split_at(R::QUANT_PLANES);
        let pack = pack_blocks::<R>;
        Layout {
            kind: R::TYPE,
            shader,
            quants,
            scales,
            vectors: true,
            offsets: false,
            halves: false,
            center: None,
            table: None,
            pack,
        }
    }

    const fn of_numbers(kind: TensorType, quants: &'static [usize], shader: &'static str) -> Self {
        Layout {
            kind,
            shader,
            quants,
            scales: &[],
            vectors: true,
            offsets: false,
            halves: false,
            center: None,
            table: None,
            pack: pack_numbers,
        }
    }

    const fn words(self) -> Self {
        Layout { vectors: false, ..self }
    }

    const fn with_offsets(self) -> Self {
        Layout { offsets: true, ..self }
    }

    const fn with_halves(self) -> Self {
        Layout { halves: true, ..self }
    }

    /// With offsets that are the scale times minus `center`.
    const fn around(self, center: u32) -> Self {
        Layout { offsets: true, center: Some(center), ..self }
    }

    const fn with_table(self, table: fn() -> Vec<u32>) -> Self {
        Layout { table: Some(table), ..self }
    }

    /// The layout of a type. For types that hold no weights there is none, and the error says so.
    pub fn of(kind: TensorType) -> Result<Layout> {
        LAYOUTS.iter().find(|layout| layout.kind == kind).copied().ok_or_else(|| Error::Quant {
            format: kind.name(),
            found: "a type that holds no weights".into(),
            expected: "one of the types of weights, F32 to NVFP4".into(),
        })
    }

    /// The type.
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// Units of a row: its columns over 32, rounded up.
    pub fn row_units(&self, columns: usize) -> usize {
        columns.div_ceil(UNIT_COLUMNS)
    }

    /// Bytes of a row in `quants`: whole words, or whole `vec4<u32>` if [`Layout::quants_are_vectors`].
    pub fn quants_row_bytes(&self, columns: usize) -> usize {
        self.row_bytes(columns, self.quants)
    }

    /// Bytes of a row in `scales`, whole words; 0 if the type has no such binding.
    pub fn scales_row_bytes(&self, columns: usize) -> usize {
        self.row_bytes(columns, self.scales)
    }

    /// Packs one row of the file. The slices are as long as [`Layout::quants_row_bytes`] and
    /// [`Layout::scales_row_bytes`] say; what they held before is overwritten.
    pub fn pack_row(&self, columns: usize, row: &[u8], quants: &mut [u8], scales: &mut [u8]) {
        debug_assert_eq!(row.len() as u64, columns as u64 / self.kind.block_elements() * self.kind.block_bytes());
        debug_assert_eq!(quants.len(), self.quants_row_bytes(columns));
        debug_assert_eq!(scales.len(), self.scales_row_bytes(columns));
        let blocks = self.row_blocks(columns);
        let mut planes: [&mut [u8]; MOST_PLANES] = Default::default();
        let (of_quants, of_scales) = planes.split_at_mut(self.quants.len());
        split(quants, blocks, self.quants, of_quants);
        split(scales, blocks, self.scales, of_scales);
        if let Some(planes) = planes.get_mut(..self.quants.len() + self.scales.len()) {
            (self.pack)(row, planes);
        }
    }

    /// The file of `shaders/quants/` that decodes units.
    pub fn shader(&self) -> &'static str {
        self.shader
    }

    /// Whether `quants` is an `array<vec4<u32>>`; otherwise it is an `array<u32>`.
    pub fn quants_are_vectors(&self) -> bool {
        self.vectors
    }

    /// What the shader reads at its `tables` binding, the codebooks of the IQ types; `None` if it has none.
    pub fn table(&self) -> Option<Vec<u32>> {
        self.table.map(|table| table())
    }

    /// Whether the weights are plain numbers, whose shader has `floats` and not `unit`, and no `scales`.
    pub fn is_float(&self) -> bool {
        self.scales.is_empty()
    }

    /// Whether weights have offsets; where not, those of all units are zero and a kernel may leave them out.
    pub fn has_offsets(&self) -> bool {
        self.offsets
    }

    /// The number of which offsets are the negative multiple by the scale, in all units, if there is one: what is left
    /// when it is subtracted from the bytes of a unit has no offset.
    pub fn center(&self) -> Option<u32> {
        self.center
    }

    /// Whether the two halves of a unit have scales and offsets of their own; where not, those of both are the same.
    pub fn has_halves(&self) -> bool {
        self.halves
    }

    /// Sets what a kernel needs to know of the type: the constant `UNIT`, the file to include, and the flags `VECTORS`,
    /// `TABLES`, `FLOATS`, `OFFSETS` and `HALVES`, after [`Layout::quants_are_vectors`], [`Layout::table`],
    /// [`Layout::is_float`], [`Layout::has_offsets`] and [`Layout::has_halves`].
    pub fn configure(&self, variant: Variant) -> Variant {
        variant
            .constant("UNIT", self.shader)
            .flag("VECTORS", self.vectors)
            .flag("TABLES", self.table.is_some())
            .flag("FLOATS", self.is_float())
            .flag("OFFSETS", self.offsets)
            .flag("HALVES", self.halves)
    }

    /// Blocks of a row. Plain numbers are padded to whole units, of blocks there are only whole ones.
    fn row_blocks(&self, columns: usize) -> usize {
        match self.is_float() {
            true => self.row_units(columns) * UNIT_COLUMNS,
            false => columns.div_ceil(self.kind.block_elements() as usize),
        }
    }

    fn row_bytes(&self, columns: usize, planes: &[usize]) -> usize {
        let blocks = self.row_blocks(columns);
        planes.iter().map(|block_bytes| planes::plane_bytes(blocks, *block_bytes)).sum()
    }
}

/// Plain numbers stay as they are.
fn pack_numbers(row: &[u8], planes: &mut [&mut [u8]]) {
    if let Some((numbers, padding)) = planes.first_mut().and_then(|plane| plane.split_at_mut_checked(row.len())) {
        numbers.copy_from_slice(row);
        padding.fill(0);
    }
}
