//! What happens to queries, keys and values before attention, in one kernel: queries and keys are normalised, if the
//! model does that by heads, and rotated by their position; keys and values go to their page.
//!
//! Cosines and sines come from the host, which computes them once a step for all layers and in full precision: on a GPU
//! the cosine of a large angle may be anything.

use super::attention::PageShape;
use super::shader::Variant;
#[cfg(doc)]
use crate::program::RopeStyle;
use crate::{Error, Result};
use bytemuck::{Pod, Zeroable};

/// The queries, keys and values of a layer: what is fixed when a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rotation {
    /// The pages; queries are as long as keys.
    pub page: PageShape,
    /// Query heads, if this dispatch changes queries; 0 if it does not.
    pub query_heads: u32,
    /// Whether keys and values are stored.
    pub store: bool,
    /// Whether queries, keys and values lie in one buffer, which is then bound as that of the queries.
    pub together: bool,
    /// Whether queries and keys are normalised, each head by itself.
    pub norm: bool,
    /// Whether pairs are [`Halves`](RopeStyle::Halves), not [`Adjacent`](RopeStyle::Adjacent).
    pub halves: bool,
    /// How many pairs; the rest of a head stays as it is.
    pub pairs: u32,
}

/// What is at a binding of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotateBinding {
    /// The step.
    Step,
    /// [`RotateParams`].
    Params,
    /// The slot of the queries; changed.
    Queries,
    /// A slab of pages; written.
    Cache,
    /// Cosines and sines, `[tokens, pairs]`.
    Turns,
    /// The slot of the keys.
    Keys,
    /// The slot of the values.
    Values,
    /// The page tables.
    Table,
    /// Weights of the norm of queries.
    QueryNorm,
    /// Weights of the norm of keys.
    KeyNorm,
}

/// Parameters of the kernel. Starts and strides are in numbers; `turns_start` in pairs of cosine and sine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct RotateParams {
    /// Where the layer's page table begins.
    pub table_start: u32,
    /// The first page of the slab.
    pub first_page: u32,
    /// Pages in the slab; keys and values for other pages are not stored.
    pub pages: u32,
    /// The first token's first turn.
    pub turns_start: u32,
    /// The slot of the queries.
    pub query_start: u32,
    /// From token to token.
    pub query_stride: u32,
    /// The slot of the keys.
    pub key_start: u32,
    /// From token to token.
    pub key_stride: u32,
    /// The slot of the values.
    pub value_start: u32,
    /// From token to token.
    pub value_stride: u32,
    /// The first weight of the norm of queries.
    pub query_norm_start: u32,
    /// How many there are: as long as a head, or as all heads.
    pub query_norm_length: u32,
    /// The first weight of the norm of keys.
    pub key_norm_start: u32,
    /// How many there are.
    pub key_norm_length: u32,
    /// Added to the mean square before the root is taken.
    pub epsilon: f32,
    /// Nothing.
    pub unused: u32,
}

impl Rotation {
    /// What is at the bindings, in order.
    pub fn bindings(&self) -> Vec<RotateBinding> {
        let (queries, rotates) = (self.query_heads > 0, self.pairs > 0);
        [
            (RotateBinding::Step, true),
            (RotateBinding::Params, true),
            (RotateBinding::Queries, queries),
            (RotateBinding::Cache, self.store),
            (RotateBinding::Turns, rotates),
            (RotateBinding::Keys, self.store && !self.together),
            (RotateBinding::Values, self.store && !self.together && !self.page.values_in_keys),
            (RotateBinding::Table, self.store),
            (RotateBinding::QueryNorm, self.norm && queries),
            (RotateBinding::KeyNorm, self.norm && self.store),
        ]
        .into_iter()
        .filter_map(|(binding, is_used)| is_used.then_some(binding))
        .collect()
    }

    /// The kernel, with what [`Rotation::bindings`] says.
    pub fn variant(&self) -> Result<Variant> {
        self.check()?;
        let bindings = self.bindings();
        let kinds = if self.store && self.query_heads > 0 { "uuwwrrrrrr" } else { "uuwrrrrrrr" };
        let mut variant = Variant::new("rotate_store.wgsl", kinds.get(..bindings.len()).unwrap_or(kinds))
            .flag("CACHE_WRITE", true)
            .flag("QUERIES", self.query_heads > 0)
            .flag("STORE", self.store)
            .flag("TOGETHER", self.together)
            .flag("QK_NORM", self.norm)
            .flag("ROTATE", self.pairs > 0)
            .flag("HALVES", self.halves)
            .constant("PAIRS", self.pairs)
            .constant("QUERY_HEADS", self.query_heads)
            .constant("ROW_SIZE", self.page.key_size)
            .constant("ROW_QUADS", self.page.key_size.max(self.page.value_size).div_ceil(32) * 8);
        for (number, binding) in bindings.iter().enumerate() {
            let name = match binding {
                RotateBinding::Queries => "QUERIES",
                RotateBinding::Turns => "TURNS",
                RotateBinding::Keys => "KEYS",
                RotateBinding::Values => "VALUES",
                RotateBinding::Table => "TABLE",
                RotateBinding::QueryNorm => "QUERY_NORM",
                RotateBinding::KeyNorm => "KEY_NORM",
                RotateBinding::Step | RotateBinding::Params | RotateBinding::Cache => continue,
            };
            variant = variant.constant(name, number);
        }
        let cache = bindings.iter().position(|&binding| binding == RotateBinding::Cache);
        Ok(self.page.describe(variant, cache.unwrap_or(0)))
    }

    /// The workgroups.
    pub fn groups(&self, tokens: u32) -> [u32; 3] {
        let stored_heads = match (self.store, self.page.values_in_keys) {
            (false, _) => 0,
            (true, true) => self.page.heads,
            (true, false) => 2 * self.page.heads,
        };
        [self.query_heads + stored_heads, tokens, 1]
    }

    fn check(&self) -> Result<()> {
        self.page.check()?;
        if 2 * u64::from(self.pairs) <= u64::from(self.page.key_size) && (self.query_heads > 0 || self.store) {
            return Ok(());
        }
        Err(Error::Gpu {
            subject: "rotation".into(),
            found: format!("{} pairs of {} query heads, store: {}", self.pairs, self.query_heads, self.store),
            expected: format!("at most {} pairs, of something", self.page.key_size / 2),
        })
    }
}

/// Shaders of this family for common shapes, without tiers.
pub(super) fn variants() -> Vec<Variant> {
    use crate::cache::CacheFormat;
    let mut variants = vec![];
    for format in [CacheFormat::F32, CacheFormat::F16, CacheFormat::Q8_0] {
        for (query_heads, store, together) in [(8, false, false), (0, true, false), (8, true, false), (8, true, true)] {
            for (norm, halves, pairs) in [(false, false, 0), (false, true, 64), (true, false, 32)] {
                let page = PageShape { format, heads: 2, key_size: 128, value_size: 128, values_in_keys: false };
                variants.extend(Rotation { page, query_heads, store, together, norm, halves, pairs }.variant());
                let page = PageShape { value_size: 96, values_in_keys: true, ..page };
                if store && !together {
                    variants.extend(Rotation { page, query_heads, store, together, norm, halves, pairs }.variant());
                }
            }
        }
    }
    variants
}
