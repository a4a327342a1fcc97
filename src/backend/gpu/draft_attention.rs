//! The dispatches of attention: rotation and store, then attention over the pages.

use super::attention::{AttendParams, Attention, MergeParams, PageShape};
use super::draft::{Drafting, missing};
use super::pages::LayerPages;
use super::plan::{self, Node};
use super::products::FEW_TOKENS;
use super::record::{Draft, Size};
use super::rotate::{RotateBinding, RotateParams, Rotation};
use crate::Result;
use crate::cache::{CacheFormat, LayerPlace};
use crate::program::{KeyValuesId, Program, Reach, RopeId, RopeStyle, SlotId, WeightId};

/// A slot that is turned: its heads' size, and how.
type Turned = (SlotId, usize, RopeId);

/// Keys and values on their way to a slab of pages.
#[derive(Clone, Copy)]
struct Stored<'a> {
    keys: SlotId,
    values: Option<SlotId>,
    shape: PageShape,
    place: LayerPlace,
    pages: &'a LayerPages,
    slab: usize,
}

impl Drafting<'_> {
    /// One dispatch for each slab, the first of which turns the queries too.
    pub(super) fn rotation(&self, node: &plan::Rotation) -> Result<Vec<Draft>> {
        let Some((keys, values, to)) = node.store else {
            return node.turned.iter().map(|&turned| self.rotate(Some(turned), None, None, None)).collect();
        };
        let queries = node.turned.iter().find(|(slot, ..)| *slot != keys).copied();
        let rope = node.turned.iter().find(|(slot, ..)| *slot == keys).map(|(.., rope)| *rope);
        // One kernel turns queries and keys in one way.
        let together = queries.filter(|(.., own)| Some(*own) == rope);
        let mut drafts = vec![];
        if let Some(queries) = queries.filter(|_| together.is_none()) {
            drafts.push(self.rotate(Some(queries), None, None, None)?);
        }
        let (place, pages) = self.pages_of(to)?;
        let shape = pages.shape.serving(&self.program.key_values[to.0]);
        for slab in 0..pages.slabs.len() {
            let stored = Stored { keys, values, shape, place, pages, slab };
            drafts.push(self.rotate(together.filter(|_| slab == 0), rope, Some(stored), node.norm)?);
        }
        Ok(drafts)
    }

    fn rotate(
        &self,
        turned: Option<Turned>,
        key_rope: Option<RopeId>,
        stored: Option<Stored>,
        norm: Option<plan::HeadNorm>,
    ) -> Result<Draft> {
        let rope_id = turned.map(|(.., rope)| rope).or(key_rope);
        let rope = rope_id.and_then(|id| self.program.ropes.get(id.0));
        let head_size = turned.map_or(0, |(_, head_size, _)| head_size as u32);
        let page = match stored {
            Some(stored) => stored.shape,
            None => {
                let format = CacheFormat::F32;
                PageShape { format, heads: 1, key_size: head_size, value_size: head_size, values_in_keys: false }
            }
        };
        let query_heads = turned.map_or(0, |(slot, head_size, _)| self.width(slot) / (head_size as u32).max(1));
        let shares = |slot: SlotId| turned.is_some_and(|(own, ..)| self.slots.buffer(own) == self.slots.buffer(slot));
        let kernel = Rotation {
            page,
            query_heads,
            store: stored.is_some(),
            together: stored.is_some_and(|stored| shares(stored.keys) && stored.values.is_none_or(shares)),
            norm: norm.is_some(),
            halves: rope.is_some_and(|rope| rope.style == RopeStyle::Halves),
            pairs: rope.map_or(0, |rope| (rope.dimensions / 2) as u32),
        };
        let mut params = RotateParams {
            turns_start: rope_id.and_then(|id| self.step.turn_starts.get(id.0)).copied().unwrap_or_default(),
            ..RotateParams::default()
        };
        if let Some((slot, ..)) = turned {
            let view = self.slots.view(slot);
            (params.query_start, params.query_stride) = (view.start, view.stride);
        }
        if let Some(Stored { keys, values, place, pages, slab, .. }) = stored {
            let keys = self.slots.view(keys);
            (params.key_start, params.key_stride) = (keys.start, keys.stride);
            if let Some(values) = values.map(|values| self.slots.view(values)) {
                (params.value_start, params.value_stride) = (values.start, values.stride);
            }
            params.table_start = self.step.table_starts.get(place.group).copied().unwrap_or_default();
            params.first_page = slab as u32 * pages.slab_pages;
            params.pages = pages.slab_pages;
        }
        if let Some(plan::HeadNorm { queries, keys, epsilon }) = norm {
            let length = |id: WeightId| self.program.weights[id.0].columns as u32;
            (params.query_norm_length, params.key_norm_length) = (length(queries), length(keys));
            params.epsilon = epsilon;
        }
        let buffers = kernel.bindings().into_iter().skip(2).filter_map(|binding| match binding {
            RotateBinding::Queries => turned.map(|(slot, ..)| self.slots.buffer(slot)),
            RotateBinding::Cache => stored.and_then(|stored| stored.pages.slabs.get(stored.slab)),
            RotateBinding::Turns => Some(&self.step.turns),
            RotateBinding::Keys => stored.map(|stored| self.slots.buffer(stored.keys)),
            RotateBinding::Values => stored.and_then(|stored| Some(self.slots.buffer(stored.values?))),
            RotateBinding::Table => Some(&self.step.tables),
            RotateBinding::QueryNorm => norm.and_then(|norm| self.store.vector(norm.queries)),
            RotateBinding::KeyNorm => norm.and_then(|norm| self.store.vector(norm.keys)),
            RotateBinding::Step | RotateBinding::Params => None,
        });
        let buffers: Vec<&wgpu::Buffer> = buffers.collect();
        let variant = kernel.variant()?.for_gpu(self.gpu);
        Ok(Draft::new(variant, params, &buffers, move |size: Size| kernel.groups(size.tokens)))
    }

    /// Few tokens are cut by pages too, and put together; many go over the pages block by block. The second result is
    /// whether the slot was written in eight bits.
    pub(super) fn attention(&self, index: usize, node: &Node) -> Result<(Vec<Draft>, bool)> {
        let Node::Attend { queries, over, heads, scale, softcap, sinks, out } = node else {
            return Ok((vec![], false));
        };
        let (place, pages) = self.pages_of(*over)?;
        let sinks = sinks.and_then(|sinks| self.store.vector(sinks));
        let (softcaps, has_sinks) = (softcap.is_some(), sinks.is_some());
        let page = pages.shape.serving(&self.program.key_values[over.0]);
        let attention = Attention { page, heads: *heads as u32, softcap: softcaps, sinks: has_sinks };
        let (query, result) = (self.slots.view(*queries), self.slots.view(*out));
        let reach = self.program.key_values[over.0].reach;
        let splits = attention.splits(self.tokens, self.cache.limits().context_tokens);
        let params = |slab: usize| AttendParams {
            table_start: self.step.table_starts.get(place.group).copied().unwrap_or_default(),
            first_page: slab as u32 * pages.slab_pages,
            pages: pages.slab_pages,
            window: if let Reach::Window(positions) = reach { positions as u32 } else { 0 },
            chunk: if let Reach::Chunk(positions) = reach { positions as u32 } else { 0 },
            query_start: query.start,
            query_stride: query.stride,
            scale: *scale,
            softcap: softcap.unwrap_or(0.0),
            splits,
            first_split: slab as u32 * splits,
            out_start: result.start,
            out_stride: result.stride,
            sinks_start: 0,
        };
        let rounded = self.only_rounded(index, *out).filter(|_| attention.rounds());
        let (queries, out) = (self.slots.buffer(*queries), self.slots.buffer(*out));
        if let (true, Some(tile), [slab]) = (self.tokens > FEW_TOKENS, attention.tile()?, &pages.slabs[..]) {
            let buffers: Vec<&wgpu::Buffer> =
                [&self.step.tables, slab, queries, out].into_iter().chain(sinks).collect();
            let groups = move |size: Size| attention.tile_groups(size.tokens);
            return Ok((vec![Draft::new(tile.for_gpu(self.gpu), params(0), &buffers, groups)], false));
        }
        let mut drafts = vec![];
        for (index, slab) in pages.slabs.iter().enumerate() {
            let buffers = [&self.step.tables, slab, queries, self.partials];
            let groups = move |size: Size| attention.split_groups(splits, size.tokens);
            drafts.push(Draft::new(attention.split()?.for_gpu(self.gpu), params(index), &buffers, groups));
        }
        let merge = MergeParams {
            partials: splits * pages.slabs.len() as u32,
            out_start: result.start,
            out_stride: result.stride,
            sinks_start: 0,
        };
        let groups = move |size: Size| attention.merge_groups(size.tokens);
        let results = rounded.map_or(vec![out], |(integers, scales)| vec![integers, scales]);
        let buffers: Vec<&wgpu::Buffer> = [self.partials].into_iter().chain(results).chain(sinks).collect();
        let variant = attention.merge(rounded.is_some())?.for_gpu(self.gpu);
        drafts.push(Draft::new(variant, merge, &buffers, groups));
        Ok((drafts, rounded.is_some()))
    }

    /// Where the pages of keys and values are.
    pub(super) fn pages_of(&self, over: KeyValuesId) -> Result<(LayerPlace, &LayerPages)> {
        let layer = self.program.key_values[over.0].layer as u32;
        let place = self.cache.place_of(layer).ok_or_else(missing)?;
        Ok((place, self.pages.layer(place).ok_or_else(missing)?))
    }
}

/// The words that all attentions need for partial results, with batches of up to any of so many tokens.
pub fn partial_words(
    program: &Program,
    cache: &crate::cache::Cache,
    pages: &super::pages::Pages,
    tokens: &[u32],
) -> u64 {
    let words = program.steps.iter().filter_map(|step| {
        let crate::program::Op::Attend { over, heads, .. } = &step.op else { return None };
        let kept = &program.key_values[over.0];
        let layer = pages.layer(cache.place_of(kept.layer as u32)?)?;
        let attention =
            Attention { page: layer.shape.serving(kept), heads: *heads as u32, softcap: false, sinks: false };
        Some(attention.most_partial_words(layer.slabs.len() as u32, tokens, cache.limits().context_tokens))
    });
    words.max().unwrap_or(0)
}
