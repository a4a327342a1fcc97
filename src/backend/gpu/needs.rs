//! What some segments of a program take on a device, known before anything is made there.
//!
//! The same plan is made as when they are loaded, and what that would make is added up, so that a placement can be tried
//! out in milliseconds and without a device. Left out is what does not grow with the model: tables of formats, page
//! tables, pipelines.

use super::attention::{Attention, PageShape};
use super::device::Gpu;
use super::draft_experts::order_words;
use super::draft_products::takes_integers_as;
use super::layout::Layout;
use super::plan::{Node, Plan};
use super::slots::{ROWS_AT_ONCE, most_rows};
use super::store::{Key, stack_key, table_key};
use super::tiers::Tier;
use crate::Result;
use crate::backend::needs::Needs;
use crate::cache::{Cache, CacheFormat};
use crate::program::{Op, Program, Rows, Segment, Weight};
use std::collections::{HashMap, HashSet};

/// What the needs of a program depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// The most bytes of a binding.
    pub binding_bytes: u64,
    /// Whether products take activations rounded to eight bits.
    pub integers: bool,
}

impl Traits {
    /// Those of a device.
    pub fn of(gpu: &Gpu) -> Self {
        Traits { binding_bytes: gpu.binding_bytes(), integers: gpu.has(Tier::Dot) }
    }

    /// What some segments of a program need, run in chunks of at most `chunk_tokens`.
    ///
    /// # Errors
    /// If a row of something does not fit a binding, or a type holds no weights.
    pub fn needs(
        &self,
        program: &Program,
        segments: &[Segment],
        cache: &Cache,
        format: CacheFormat,
        chunk_tokens: u32,
    ) -> Result<Needs> {
        let plan = Plan::new(program, segments);
        let tokens = most_rows(self.binding_bytes, &plan, Rows::Tokens, chunk_tokens.min(cache.limits().chunk_tokens))?;
        let outputs = most_rows(self.binding_bytes, &plan, Rows::Outputs, tokens)?;
        let (cache_bytes, partials) = self.kept(program, segments, cache, format, tokens);
        Ok(Needs {
            weight_bytes: self.weights(program, &plan)?,
            cache_bytes,
            scratch_bytes: partials
                + order_words(&plan, tokens) * 4
                + self.activations(program, &plan, tokens, outputs),
        })
    }

    fn weights(&self, program: &Program, plan: &Plan) -> Result<u64> {
        let named: HashMap<&str, &Weight> =
            program.weights.iter().map(|weight| (weight.name.as_str(), weight)).collect();
        let mut matrices: HashMap<Key, u64> = HashMap::new();
        let mut vectors = HashSet::new();
        for node in &plan.nodes {
            let (key, has_bias) = match node {
                Node::Embed { table, .. } | Node::AddRow { table, .. } => (table_key(program, *table), false),
                Node::Product(stack) => {
                    (stack_key(program, stack), stack.products.iter().any(|product| product.bias.is_some()))
                }
                node => {
                    vectors.extend(node.vectors());
                    continue;
                }
            };
            let mut bytes = 0;
            for (name, _, rows) in &key.rows {
                let Some(weight) = named.get(name.as_str()) else { continue };
                let layout = Layout::of(weight.tensor_type)?;
                let bias = if has_bias { 4 } else { 0 };
                let row = layout.quants_row_bytes(weight.columns) + layout.scales_row_bytes(weight.columns) + bias;
                bytes += (*rows * key.matrices) as u64 * row as u64;
            }
            matrices.insert(key, bytes);
        }
        let vectors = vectors.into_iter().map(|id| program.weights[id.0].columns as u64 * 4);
        Ok(matrices.into_values().chain(vectors).sum())
    }

    fn activations(&self, program: &Program, plan: &Plan, tokens: u32, outputs: u32) -> u64 {
        let rows = |kind| u64::from(if kind == Rows::Tokens { tokens } else { outputs }.next_multiple_of(ROWS_AT_ONCE));
        let slots = plan.buffers.iter().map(|(stride, kind)| u64::from(*stride) * rows(*kind) * 4);
        let mut rounded = HashMap::new();
        for node in &plan.nodes {
            if let Node::Product(stack) = node
                && takes_integers_as(self.integers, program, stack)
            {
                let slot = &program.slots[stack.input.0];
                rounded.insert(stack.input, slot.width.div_ceil(32) as u64 * rows(Rows::Tokens) * 48);
            }
        }
        slots.chain(rounded.into_values()).sum()
    }

    /// Bytes of pages and states, and of partial results of attention.
    fn kept(
        &self,
        program: &Program,
        segments: &[Segment],
        cache: &Cache,
        format: CacheFormat,
        tokens: u32,
    ) -> (u64, u64) {
        let own = program.cached_layers(segments);
        // Query heads, and what they attend over.
        let attention_of = |layer: u32| {
            program.steps.iter().find_map(|step| match step.op {
                Op::Attend { over, heads, .. } if program.key_values[over.0].layer == layer as usize => {
                    Some((heads as u32, program.key_values[over.0]))
                }
                _ => None,
            })
        };
        let (mut bytes, mut words) = (0, 0);
        for (group, stats) in cache.groups().iter().zip(cache.stats()) {
            for layer in group.layers.iter().filter(|layer| own.contains(&layer.layer)) {
                let shape = PageShape::of(layer, format);
                let (pages, page_bytes) = (u64::from(stats.capacity_pages), shape.page_words() * 4);
                bytes += pages * page_bytes;
                let slab_pages = (self.binding_bytes / page_bytes.max(1)).max(1);
                let slabs = pages.div_ceil(slab_pages) as u32;
                let Some((heads, kept)) = attention_of(layer.layer) else { continue };
                let attention = Attention { page: shape.serving(&kept), heads, softcap: false, sinks: false };
                words = words.max(attention.most_partial_words(slabs, &[1, 8, tokens], cache.limits().context_tokens));
            }
        }
        let slots = u64::from(cache.state_stats().capacity_pages);
        let states = cache.states().iter().filter(|state| own.contains(&state.layer));
        bytes += states.map(|state| state.bytes().next_multiple_of(16) * slots).sum::<u64>();
        (bytes, words * 4)
    }
}
