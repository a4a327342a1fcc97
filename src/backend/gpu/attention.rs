//! Attention over pages: the layout of pages, and the kernels that read them.
//!
//! Few tokens take two kernels: [`Attention::split`] cuts the pages that a token sees among workgroups, and
//! [`Attention::merge`] puts the parts together. They serve any number of tokens, heads of any size up to
//! [`MOST_VALUE_SIZE`], and caches of several slabs (buffers of whole pages), with one dispatch of the first for each
//! slab. Many tokens over a cache of one slab take one kernel, [`Attention::tile`], which reads a page once for a block
//! of tokens, and writes the result itself.
//!
//! Geometry and layout stand in the heads of the shaders. The limits of plain WebGPU, 16 KiB of memory and 256 lanes a
//! workgroup, hold for every variant.

use super::products::FEW_TOKENS;
use super::shader::Variant;
use crate::cache::{CacheFormat, CacheLayer, PAGE_POSITIONS};
use crate::program::KeyValues;
use crate::{Error, Result};
use bytemuck::{Pod, Zeroable};

/// The longest value, which one workgroup of the splitting kernel has to span.
pub const MOST_VALUE_SIZE: u32 = 4 * SPLIT_LANES;
/// The longest key and value for the tiling kernel, whose sums are in registers.
pub const MOST_TILE_SIZE: u32 = 256;
/// The entry of a page table where there is no page.
pub const NO_PAGE: u32 = u32::MAX;

const SPLIT_LANES: u32 = 128;
/// Lanes that share a query in the softmax of the splitting kernel.
const SOFTMAX_LANES: u32 = 16;
/// Workgroup memory that a kernel may take on any device.
const WORKGROUP_BYTES: u32 = 16 << 10;
/// Queries of a tile.
const TILE_ROWS: u32 = 64;
/// Workgroups that keep a large device busy, and pages that are worth one.
const BUSY_WORKGROUPS: u32 = 512;
const SPLIT_PAGES: u32 = 2;

/// What a layer keeps in a page, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageShape {
    /// How numbers are stored.
    pub format: CacheFormat,
    /// Heads of keys and values.
    pub heads: u32,
    /// Numbers in a key: a multiple of 4.
    pub key_size: u32,
    /// Numbers in a value: likewise.
    pub value_size: u32,
    /// A value is the beginning of its key, and is not kept again.
    pub values_in_keys: bool,
}

impl PageShape {
    /// That of a layer of a cache, with keys and values that a program may have shaped otherwise: see
    /// [`PageShape::serving`].
    pub fn of(layer: &CacheLayer, format: CacheFormat) -> Self {
        let CacheLayer { kv_heads, key_size, value_size, .. } = *layer;
        PageShape { format, heads: kv_heads, key_size, value_size, values_in_keys: false }
    }

    /// The same as a program's attention sees it: a cache knows nothing of values that are in the keys.
    pub fn serving(self, kept: &KeyValues) -> Self {
        match kept.values_in_keys {
            true => PageShape { value_size: kept.value_size as u32, values_in_keys: true, ..self },
            false => self,
        }
    }

    /// The words (of 32 bits) of a page. A slab is an array of such pages.
    pub fn page_words(&self) -> u64 {
        let row = |size: u32| self.row_words(size) + self.scale_words(size);
        let value_row = if self.values_in_keys { 0 } else { row(self.value_size) };
        u64::from(self.heads) * u64::from(PAGE_POSITIONS) * (row(self.key_size) + value_row)
    }

    /// The words of a row without its scales.
    fn row_words(&self, size: u32) -> u64 {
        u64::from(match self.format {
            CacheFormat::F32 => size,
            CacheFormat::F16 => size / 2,
            CacheFormat::Q8_0 => size.div_ceil(32) * 8,
        })
    }

    /// The words of a row's scales, of which no two rows share one.
    fn scale_words(&self, size: u32) -> u64 {
        match self.format {
            CacheFormat::F32 | CacheFormat::F16 => 0,
            CacheFormat::Q8_0 => u64::from(size.div_ceil(32).div_ceil(2)),
        }
    }

    /// Adds the flag and the constants of `shared/page.wgsl`; `cache` is the binding of the slab.
    pub(super) fn describe(&self, variant: Variant, cache: usize) -> Variant {
        let flag = match self.format {
            CacheFormat::F32 => "CACHE_F32",
            CacheFormat::F16 => "CACHE_F16",
            CacheFormat::Q8_0 => "CACHE_Q8",
        };
        variant
            .flag(flag, true)
            .flag("IN_KEYS", self.values_in_keys)
            .constant("KV_HEADS", self.heads)
            .constant("KEY_SIZE", self.key_size)
            .constant("VALUE_SIZE", self.value_size)
            .constant("CACHE", cache)
    }

    /// Refuses sizes that no kernel can take.
    pub(super) fn check(&self) -> Result<()> {
        let fits = |size: u32, most: u32| size > 0 && size.is_multiple_of(4) && size <= most;
        let are_within = !self.values_in_keys || self.value_size <= self.key_size;
        if self.heads > 0 && fits(self.key_size, MOST_KEY_SIZE) && fits(self.value_size, MOST_VALUE_SIZE) && are_within
        {
            return Ok(());
        }
        let PageShape { heads, key_size, value_size, .. } = self;
        Err(Error::Gpu {
            subject: "keys and values".into(),
            found: format!("{heads} heads of {key_size} and {value_size} numbers"),
            expected: format!("multiples of 4, keys up to {MOST_KEY_SIZE}, values up to {MOST_VALUE_SIZE}"),
        })
    }
}

/// The longest key: one query of it, and what else a workgroup has, fits in its memory.
const MOST_KEY_SIZE: u32 = 1024;

/// The attention of a layer: what is fixed when a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attention {
    /// The pages.
    pub page: PageShape,
    /// Query heads; each head of keys and values serves as many neighbours as there are more of these.
    pub heads: u32,
    /// Whether scores are squeezed, by [`AttendParams::softcap`].
    pub softcap: bool,
    /// Whether each head has a sink, a logit that takes a share of the weights.
    pub sinks: bool,
}

/// Parameters of [`Attention::split`] and [`Attention::tile`]. Starts and strides of slots are in numbers, and multiples
/// of 4.
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct AttendParams {
    /// Where the layer's page table begins.
    pub table_start: u32,
    /// The first page of the slab.
    pub first_page: u32,
    /// Pages in the slab.
    pub pages: u32,
    /// How many positions, its own among them, a token sees; 0 for all.
    pub window: u32,
    /// The length of the chunks of which a token sees its own; 0 if there are none.
    pub chunk: u32,
    /// The slot of the queries.
    pub query_start: u32,
    /// From token to token.
    pub query_stride: u32,
    /// What products of queries and keys are multiplied with.
    pub scale: f32,
    /// The bound of scores, if they are squeezed.
    pub softcap: f32,
    /// Into how many parts the pages are cut. Only for [`Attention::split`].
    pub splits: u32,
    /// The first part of this slab: `splits` times its number. Likewise.
    pub first_split: u32,
    /// The slot of the result. Only for [`Attention::tile`].
    pub out_start: u32,
    /// From token to token. Likewise.
    pub out_stride: u32,
    /// The first head's sink. Likewise.
    pub sinks_start: u32,
}

/// Parameters of [`Attention::merge`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct MergeParams {
    /// Parts of a softmax: slabs times splits.
    pub partials: u32,
    /// The slot of the result, in numbers; a multiple of 4.
    pub out_start: u32,
    /// From token to token, likewise.
    pub out_stride: u32,
    /// The first head's sink.
    pub sinks_start: u32,
}

impl Attention {
    /// Refuses shapes that no kernel can take.
    pub fn check(&self) -> Result<()> {
        self.page.check()?;
        if self.heads > 0 && self.heads.is_multiple_of(self.page.heads) {
            return Ok(());
        }
        Err(Error::Gpu {
            subject: "attention".into(),
            found: format!("{} query heads", self.heads),
            expected: format!("a multiple of the {} heads of keys and values", self.page.heads),
        })
    }

    /// Query heads that share a head of keys and values.
    fn group(&self) -> u32 {
        self.heads / self.page.heads.max(1)
    }

    /// The kernel for few tokens. Bindings: step, [`AttendParams`], page table, slab, queries, partials.
    pub fn split(&self) -> Result<Variant> {
        self.check()?;
        let Cut { queries, pieces, chunk_pages } = self.split_cut();
        let quads = self.page.key_size / 4;
        let steps = quads / 4;
        let unroll = (1..=8).rev().find(|&count| steps.is_multiple_of(count)).unwrap_or(1);
        let variant = Variant::new("attend_split.wgsl", "uurrrw")
            .flag("KEY_STEPS", steps > 0)
            .flag("KEY_TAIL", !quads.is_multiple_of(4))
            .flag("GROUP_TAIL", !self.group().is_multiple_of(queries))
            .constant("CHUNK_PAGES", chunk_pages)
            .constant("LANE_POSITIONS", chunk_pages * PAGE_POSITIONS / SOFTMAX_LANES)
            .constant("KEY_UNROLL", unroll)
            .constant("SLICES", self.value_slices());
        Ok(self.describe(variant, queries, pieces))
    }

    /// The workgroups of [`Attention::split`].
    pub fn split_groups(&self, splits: u32, tokens: u32) -> [u32; 3] {
        [splits, self.page.heads * self.split_cut().pieces, tokens]
    }

    /// Into how many parts to cut the pages of a context, if a batch has so many tokens.
    pub fn splits(&self, tokens: u32, context_tokens: u32) -> u32 {
        let whole = self.page.heads * self.split_cut().pieces * tokens.max(1);
        let pages = context_tokens.div_ceil(PAGE_POSITIONS);
        (BUSY_WORKGROUPS / whole).min(pages / SPLIT_PAGES).max(1)
    }

    /// The words (of 32 bits) of the partial results; `partials` is slabs times splits.
    pub fn partial_words(&self, partials: u32, tokens: u32) -> u64 {
        u64::from(partials) * u64::from(tokens) * u64::from(self.heads) * u64::from(self.page.value_size + 4)
    }

    /// The most words of partial results, over so many slabs and for batches of up to any of so many tokens.
    pub fn most_partial_words(&self, slabs: u32, tokens: &[u32], context_tokens: u32) -> u64 {
        let words = |&tokens: &u32| {
            let is_tiled = tokens > FEW_TOKENS && slabs == 1 && self.tile().is_ok_and(|tile| tile.is_some());
            let partials = self.splits(tokens, context_tokens) * slabs;
            if is_tiled { 0 } else { self.partial_words(partials, tokens) }
        };
        tokens.iter().map(words).max().unwrap_or(0)
    }

    /// The kernel that puts parts together. Bindings: step, [`MergeParams`], partials, result, and sinks if there are any.
    /// With `quantize`, which needs [`Attention::rounds`], integers and scales take the place of the result.
    pub fn merge(&self, quantize: bool) -> Result<Variant> {
        self.check()?;
        let bindings = match (quantize, self.sinks) {
            (false, false) => "uurw",
            (false, true) => "uurwr",
            (true, false) => "uurww",
            (true, true) => "uurwwr",
        };
        Ok(Variant::new("attend_merge.wgsl", bindings)
            .flag("SINKS", self.sinks)
            .flag("QUANTIZE", quantize)
            .constant("SINKS_AT", if quantize { 5 } else { 4 })
            .constant("XQ", 3)
            .constant("XS", 4)
            .constant("THREADS", SPLIT_LANES)
            .constant("HEADS", self.heads)
            .constant("VALUE_SIZE", self.page.value_size)
            .constant("SLICES", self.value_slices()))
    }

    /// Whether heads are whole units, so that [`Attention::merge`] can round its result to eight bits.
    pub fn rounds(&self) -> bool {
        self.page.value_size.is_multiple_of(32)
    }

    /// The workgroups of [`Attention::merge`].
    pub fn merge_groups(&self, tokens: u32) -> [u32; 3] {
        [self.heads, tokens, 1]
    }

    /// The kernel for many tokens over one slab; none for heads that are too large for it. Bindings: step,
    /// [`AttendParams`], page table, slab, queries, result, and sinks if there are any.
    pub fn tile(&self) -> Result<Option<Variant>> {
        self.check()?;
        if self.page.key_size > MOST_TILE_SIZE || self.page.value_size > MOST_TILE_SIZE {
            return Ok(None);
        }
        let (queries, pieces) = self.tile_cut();
        let variant = Variant::new("attend_tile.wgsl", if self.sinks { "uurrrwr" } else { "uurrrw" })
            .flag("SINKS", self.sinks)
            .constant("BLOCK_TOKENS", TILE_ROWS / queries)
            .constant("STRIPS", self.page.value_size.div_ceil(64));
        Ok(Some(self.describe(variant, queries, pieces)))
    }

    /// The workgroups of [`Attention::tile`].
    pub fn tile_groups(&self, tokens: u32) -> [u32; 3] {
        let (queries, pieces) = self.tile_cut();
        [tokens.div_ceil(TILE_ROWS / queries), self.page.heads * pieces, 1]
    }

    /// Adds what `shared/attend.wgsl` and `shared/page.wgsl` ask for.
    fn describe(&self, variant: Variant, queries: u32, pieces: u32) -> Variant {
        let variant = variant
            .flag("SOFTCAP", self.softcap)
            .constant("GROUP", self.group())
            .constant("QUERIES", queries)
            .constant("PIECES", pieces);
        self.page.describe(variant, 3)
    }

    /// Query heads that a tile has for each token, and in how many pieces it so takes a group.
    fn tile_cut(&self) -> (u32, u32) {
        let pieces = self.group().div_ceil(16).max(1);
        (self.group().div_ceil(pieces).max(1), pieces)
    }

    /// How the splitting kernel takes a group: as many queries at once, and as many pages, as fit in its memory, but
    /// rather queries than pages, for every piece of the group reads keys and values anew.
    fn split_cut(&self) -> Cut {
        let fixed_bytes = SPLIT_LANES * (16 + 4) + 64;
        // A query, and for each position what four lanes have of its score.
        let query_bytes = |chunk_pages: u32| self.page.key_size * 4 + chunk_pages * PAGE_POSITIONS * 16;
        let fitting = |chunk_pages: u32| {
            let most = (WORKGROUP_BYTES - fixed_bytes) / query_bytes(chunk_pages);
            let pieces = self.group().div_ceil(most.clamp(1, SPLIT_LANES / SOFTMAX_LANES)).max(1);
            Cut { queries: self.group().div_ceil(pieces).max(1), pieces, chunk_pages }
        };
        let (one, two) = (fitting(1), fitting(2));
        if two.pieces <= one.pieces { two } else { one }
    }

    /// Lanes that go along the positions, where neighbouring lanes go along a value.
    fn value_slices(&self) -> u32 {
        (4 * SPLIT_LANES / self.page.value_size).clamp(1, 16)
    }
}

/// How the splitting kernel takes a group.
#[derive(Debug)]
struct Cut {
    /// Query heads at once.
    queries: u32,
    /// How often that is needed for the group.
    pieces: u32,
    /// Pages at once.
    chunk_pages: u32,
}

/// Shaders of this family for common shapes, without tiers.
pub(super) fn variants() -> Vec<Variant> {
    let mut variants = vec![];
    for format in [CacheFormat::F32, CacheFormat::F16, CacheFormat::Q8_0] {
        for (heads, kv_heads, size) in [(32, 8, 128), (28, 4, 128), (8, 8, 40), (8, 1, 256), (4, 4, 16)] {
            for (softcap, sinks) in [(false, false), (true, false), (false, true)] {
                let page =
                    PageShape { format, heads: kv_heads, key_size: size, value_size: size, values_in_keys: false };
                let attention = Attention { page, heads, softcap, sinks };
                variants.extend([attention.split(), attention.merge(false)].into_iter().flatten());
                if attention.rounds() {
                    variants.extend(attention.merge(true));
                }
                variants.extend(attention.tile().ok().flatten());
            }
        }
        for (heads, key_size, value_size) in [(16, 576, 512), (4, 96, 64)] {
            let page = PageShape { format, heads: 1, key_size, value_size, values_in_keys: true };
            let attention = Attention { page, heads, softcap: false, sinks: false };
            variants.extend([attention.split(), attention.merge(false), attention.merge(true)].into_iter().flatten());
            variants.extend(attention.tile().ok().flatten());
        }
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_every_variant_fits() {
        for key_size in (4..=MOST_KEY_SIZE).step_by(4) {
            for group in [1, 2, 4, 7, 8, 9, 16, 71] {
                let page =
                    PageShape { format: CacheFormat::F16, heads: 2, key_size, value_size: 64, values_in_keys: false };
                let attention = Attention { page, heads: 2 * group, softcap: false, sinks: false };
                let Cut { queries, pieces, chunk_pages } = attention.split_cut();
                assert!(queries * pieces >= group && queries * (pieces - 1) < group, "{attention:?}");
                assert!(queries * SOFTMAX_LANES <= SPLIT_LANES);
                let bytes = queries * (key_size * 4 + chunk_pages * PAGE_POSITIONS * 16 + 4) + SPLIT_LANES * 20;
                assert!(bytes <= WORKGROUP_BYTES, "{bytes} bytes for {attention:?}");
                let (queries, pieces) = attention.tile_cut();
                assert!(queries * pieces >= group && queries <= TILE_ROWS);
            }
        }
    }

    #[test]
    fn pages_take_what_their_rows_take() {
        let words = |format, size| {
            PageShape { format, heads: 3, key_size: size, value_size: 64, values_in_keys: false }.page_words()
        };
        assert_eq!(words(CacheFormat::F32, 40), 3 * 32 * (40 + 64));
        assert_eq!(words(CacheFormat::F16, 40), 3 * 32 * (20 + 32));
        assert_eq!(words(CacheFormat::Q8_0, 40), 3 * 32 * (16 + 1 + 16 + 1));
        assert_eq!(words(CacheFormat::Q8_0, 96), 3 * 32 * (24 + 2 + 16 + 1)); // the fourth scale is spare
    }
}
