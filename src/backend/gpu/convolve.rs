//! Short convolutions over a batch and the tokens before it, which are kept in pages.

use super::attention::PageShape;
use super::draft::{Drafting, Drafts, missing};
use super::rows::{Kernel, View, grid};
use super::shader::Variant;
use crate::program::{KeyValuesId, Rows, SlotId, WeightId};
use crate::{Error, Result};
use bytemuck::{Pod, Zeroable};

/// Parameters of `convolve.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct ConvolveParams {
    /// See [`super::rows::outputs`]: there is a row for each token.
    pub outputs: u32,
    /// Columns: a multiple of 4.
    pub width: u32,
    /// Tokens that count.
    pub kernel: u32,
    /// Where the layer's page table begins.
    pub table_start: u32,
    /// The batch's rows.
    pub input: View,
    /// The sums.
    pub output: View,
}

impl ConvolveParams {
    /// Reads pages, their table, a slot and weights; writes another slot.
    ///
    /// # Errors
    /// If rows cannot be kept in such pages.
    pub fn kernel(&self, page: PageShape, most_rows: u32) -> Result<Kernel> {
        page.check()?;
        if page.heads * page.key_size != self.width {
            return Err(Error::Gpu {
                subject: "convolution".into(),
                found: format!("{} columns in pages of {} times {}", self.width, page.heads, page.key_size),
                expected: "as many there".into(),
            });
        }
        let variant = page.describe(Variant::new("convolve.wgsl", "uurrrrw"), 2);
        Ok(Kernel { variant, groups: grid(self.width.div_ceil(256), most_rows) })
    }
}

impl Drafting<'_> {
    /// The dispatch of a convolution.
    pub(super) fn convolve(
        &self,
        [input, out]: [SlotId; 2],
        over: KeyValuesId,
        weight: WeightId,
        drafts: &mut Drafts,
    ) -> Result<()> {
        let (place, pages) = self.pages_of(over)?;
        let [slab] = &pages.slabs[..] else {
            return Err(Error::Gpu {
                subject: "pages of a convolution".into(),
                found: format!("{} buffers", pages.slabs.len()),
                expected: "one that holds them all; ask for fewer sessions".into(),
            });
        };
        let (width, numbers) = (self.width(out), self.program.weights[weight.0].columns as u32);
        let params = ConvolveParams {
            outputs: super::rows::outputs(Rows::Tokens),
            width,
            kernel: numbers / width.max(1),
            table_start: self.step.table_starts.get(place.group).copied().unwrap_or_default(),
            input: self.view(input),
            output: self.view(out),
        };
        let page = pages.shape.serving(&self.program.key_values[over.0]);
        let weights = self.store.vector(weight).ok_or_else(missing)?;
        let buffers = [slab, &self.step.tables, self.slots.buffer(input), weights, self.slots.buffer(out)];
        drafts.list.push(self.rows(params.kernel(page, 1)?, params, &buffers, out));
        drafts.wrote(out, false);
        Ok(())
    }
}

/// Shaders of this family for a common shape.
pub(super) fn variants() -> Vec<Variant> {
    let format = crate::cache::CacheFormat::F32;
    let page = PageShape { format, heads: 4, key_size: 64, value_size: 64, values_in_keys: true };
    let params = ConvolveParams { width: 256, kernel: 3, ..ConvolveParams::default() };
    params.kernel(page, 1).map(|kernel| kernel.variant).into_iter().collect()
}
