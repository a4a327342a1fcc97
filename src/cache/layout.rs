//! What is kept: which layers, how wide, how far back, in which format, and for how many positions. Plain numbers, from
//! which memory is planned before any of it is taken.

use super::{PAGE_POSITIONS, pages_for, wrong};
use crate::Result;
use crate::gguf::TensorType;
use crate::options::CacheFormat;
use crate::program::{Program, State};
use std::collections::HashSet;

impl CacheFormat {
    /// The type with the blocks of this format, for [`crate::quant::Format::of`].
    pub const fn tensor_type(self) -> TensorType {
        match self {
            CacheFormat::F32 => TensorType::F32,
            CacheFormat::F16 => TensorType::F16,
            CacheFormat::Q8_0 => TensorType::Q8_0,
        }
    }

    /// The bytes of one row: the `size` values that one layer keeps for one head and one position, as key or as value.
    /// Each row begins a block of its own, and its last block is padded.
    pub const fn row_bytes(self, size: u32) -> u64 {
        let kind = self.tensor_type();
        (size as u64).div_ceil(kind.block_elements()) * kind.block_bytes()
    }
}

/// What one layer keeps for one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLayer {
    /// The index of the layer in the model.
    pub layer: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// The values of one key.
    pub key_size: u32,
    /// The values of one value; 0 where values are read from the keys.
    pub value_size: u32,
}

impl CacheLayer {
    /// The bytes of one position: keys and values of all heads.
    pub const fn position_bytes(&self, format: CacheFormat) -> u64 {
        (self.kv_heads as u64).saturating_mul(format.row_bytes(self.key_size) + format.row_bytes(self.value_size))
    }
}

/// Layers that see equally far back, and so can share page tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheGroup {
    /// How many positions are seen, the current one included; `None` for all.
    pub window: Option<u32>,
    /// The layers, in the order in which they lie in a page.
    pub layers: Vec<CacheLayer>,
}

impl CacheGroup {
    /// Sorts layers, each with its window, into groups. Groups stand in the order of their first layers.
    pub fn by_window(layers: impl IntoIterator<Item = (Option<u32>, CacheLayer)>) -> Vec<CacheGroup> {
        let mut groups: Vec<CacheGroup> = Vec::new();
        for (window, layer) in layers {
            match groups.iter_mut().find(|group| group.window == window) {
                Some(group) => group.layers.push(layer),
                None => groups.push(CacheGroup { window, layers: vec![layer] }),
            }
        }
        groups
    }

    /// The groups of a program.
    pub fn of_program(program: &Program) -> Vec<CacheGroup> {
        Self::by_window(program.key_values.iter().map(|kept| {
            let layer = CacheLayer {
                layer: kept.layer as u32,
                kv_heads: kept.heads as u32,
                key_size: kept.key_size as u32,
                value_size: if kept.values_in_keys { 0 } else { kept.value_size as u32 },
            };
            (kept.reach.most_seen().map(|positions| positions as u32), layer)
        }))
    }

    /// The bytes of one page: all layers of the group, [`PAGE_POSITIONS`] positions.
    pub fn page_bytes(&self, format: CacheFormat) -> u64 {
        let position_bytes = self.layers.iter().map(|layer| layer.position_bytes(format)).fold(0, u64::saturating_add);
        position_bytes.saturating_mul(u64::from(PAGE_POSITIONS))
    }

    /// The first position that is seen from position `from`. Those before it are never read again, unless the sequence
    /// goes back.
    pub(super) fn first_seen(&self, from: u32) -> u32 {
        // `from + 1 - window` without its overflow; windows are at least 1.
        self.window.map_or(0, |window| from.saturating_sub(window.saturating_sub(1)))
    }
}

/// What a recurrent layer keeps of all positions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheState {
    /// The index of the layer in the model.
    pub layer: u32,
    /// How many numbers.
    pub numbers: u64,
}

impl CacheState {
    /// The states of a program.
    pub fn of_program(program: &Program) -> Vec<CacheState> {
        let state = |state: &State| CacheState { layer: state.layer as u32, numbers: state.numbers() as u64 };
        program.states.iter().map(state).collect()
    }

    /// The bytes of one such state.
    pub const fn bytes(&self) -> u64 {
        self.numbers.saturating_mul(4)
    }
}

/// How much a cache may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// The most positions of one sequence.
    pub context_tokens: u32,
    /// The sequences that are certain to find pages, each of them with a full context. More may live as long as
    /// sharing, or being short, leaves pages for them.
    pub sequences: u32,
    /// The most positions that are reserved at once. Only windows mind: a chunk is written whole before anything can
    /// leave the window.
    pub chunk_tokens: u32,
    /// How far any sequence can go back, at any time, behind the furthest it has been: pages stay this many positions
    /// longer than their window asks for.
    pub rollback_tokens: u32,
    /// Behind how many lengths a sequence keeps the states of recurrent layers; at least 2.
    pub snapshots: u32,
}

impl CacheLimits {
    /// Limits for one sequence that is read in chunks of up to 512, may take 32 positions back, and keeps states behind 8
    /// lengths.
    pub const fn new(context_tokens: u32) -> Self {
        CacheLimits { context_tokens, sequences: 1, chunk_tokens: 512, rollback_tokens: 32, snapshots: 8 }
    }

    /// The pages that a group needs under these limits.
    ///
    /// # Errors
    /// [`crate::Error::Cache`] if there are not so many page ids.
    pub fn pages(&self, group: &CacheGroup) -> Result<u32> {
        let page = u64::from(PAGE_POSITIONS);
        let context_pages = pages_for(self.context_tokens) as u64;
        let sequence_pages = group.window.map_or(context_pages, |window| {
            // Behind the position to come: the rest of the window, the rollback, and what else is in the oldest page.
            let behind = u64::from(window) - 1 + u64::from(self.rollback_tokens) + (page - 1);
            (behind + u64::from(self.chunk_tokens)).div_ceil(page).min(context_pages)
        });
        // While a page is being copied, nobody else may hold the original any more.
        let copied_pages = if self.sequences > 1 { 1 } else { 0 };
        let pages = (sequence_pages + copied_pages).checked_mul(u64::from(self.sequences));
        pages.and_then(|pages| u32::try_from(pages).ok()).ok_or_else(|| {
            let found = format!("{} sequences of {} tokens", self.sequences, self.context_tokens);
            wrong("limits", found, format!("at most {} pages in all", u32::MAX))
        })
    }

    /// The slots for states that are needed under these limits: those that are kept, and one to write to.
    ///
    /// # Errors
    /// [`crate::Error::Cache`] if there are not so many ids.
    pub fn state_slots(&self) -> Result<u32> {
        let slots = self.snapshots.checked_add(1).and_then(|slots| slots.checked_mul(self.sequences));
        slots.ok_or_else(|| {
            let found = format!("{} sequences with {} snapshots", self.sequences, self.snapshots);
            wrong("limits", found, format!("at most {} slots in all", u32::MAX))
        })
    }

    /// The higher of each limit.
    pub(super) fn max(self, other: Self) -> Self {
        CacheLimits {
            context_tokens: self.context_tokens.max(other.context_tokens),
            sequences: self.sequences.max(other.sequences),
            chunk_tokens: self.chunk_tokens.max(other.chunk_tokens),
            rollback_tokens: self.rollback_tokens.max(other.rollback_tokens),
            snapshots: self.snapshots.max(other.snapshots),
        }
    }

    /// The whole pages that lie behind everything a sequence of `len_tokens` can still see, also after going back.
    pub(super) fn evictable_pages(&self, group: &CacheGroup, len_tokens: u32) -> usize {
        let first_kept = group.first_seen(len_tokens).saturating_sub(self.rollback_tokens);
        (first_kept / PAGE_POSITIONS) as usize
    }
}

/// Refuses what no cache can be made of.
pub(super) fn check(groups: &[CacheGroup], states: &[CacheState], limits: &CacheLimits) -> Result<()> {
    for (subject, limit) in [
        ("limit `context_tokens`", limits.context_tokens),
        ("limit `sequences`", limits.sequences),
        ("limit `chunk_tokens`", limits.chunk_tokens),
    ] {
        if limit == 0 {
            return Err(wrong(subject, limit, "at least 1"));
        }
    }
    if limits.snapshots < 2 {
        return Err(wrong("limit `snapshots`", limits.snapshots, "at least 2"));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = states.iter().find(|state| !seen.insert(state.layer)) {
        return Err(wrong("states", format!("layer {} a second time", twice.layer), "each layer once"));
    }
    for (index, group) in groups.iter().enumerate() {
        if group.window == Some(0) {
            return Err(wrong("window", format!("0 in group {index}"), "at least 1, the position itself"));
        }
        if let Some(twice) = group.layers.iter().find(|layer| !seen.insert(layer.layer)) {
            return Err(wrong("groups", format!("layer {} a second time", twice.layer), "each layer once"));
        }
    }
    Ok(())
}
