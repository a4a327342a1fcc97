//! The pages of a cache in memory, and its states.
//!
//! A page holds 32 positions for all layers of its group. Within a page each layer has, for each head, its keys and
//! then its values, position by position: attention reads a head's keys as one run of bytes. Pages are made when they
//! are first written, so a cache takes memory as sequences grow, and never more than [`Cache::bytes`] says.

use super::simd::float::{Narrow, Widen};
use super::simd::{Level, on};
use crate::Result;
use crate::backend::batch::{Batch, Positions, missing_page};
use crate::cache::{
    Cache, CacheFormat, CacheLayer, Held, LayerPlace, PAGE_POSITIONS, PageCopy, PageId, Sequence, StateSlots,
};
use crate::error::Error;
use crate::gguf::TensorType;
use crate::program::{Program, State};
use crate::quant::Format;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// The pages of all groups of a cache.
///
/// A clone is a handle to read by. As long as one is held, whoever stores gets a copy of everything to write to.
#[derive(Debug, Clone)]
pub struct PageMemory {
    groups: Arc<Vec<Group>>,
    states: Arc<Vec<LayerStates>>,
}

/// The states of a recurrent layer, by slot.
#[derive(Debug, Clone)]
struct LayerStates {
    layer: u32,
    bytes: u64, // of each
    slots: Vec<LayerState>,
}

/// One of them: empty until it is written.
#[derive(Debug, Clone, Default)]
struct LayerState {
    inputs: Arc<Vec<f32>>,     // [inputs, width]
    heads: Vec<Arc<Vec<f32>>>, // [heads] of [value_size, key_size]
}

#[derive(Debug, Clone)]
struct Group {
    layers: Vec<Layer>,
    page_bytes: usize,
    /// By page id; empty until it is written.
    pages: Vec<Box<[u8]>>,
}

/// Where a layer's keys and values are in a page.
#[derive(Debug, Clone, Copy)]
struct Layer {
    shape: CacheLayer,
    format: &'static Format,
    start: usize,
    key_bytes: usize,   // of one head at one position
    value_bytes: usize, // likewise
}

impl Layer {
    /// Where it is in a page.
    fn range(&self) -> Range<usize> {
        let heads = self.shape.kv_heads as usize * PAGE_POSITIONS as usize;
        self.start..self.start + heads * (self.key_bytes + self.value_bytes)
    }

    /// Where the rows of a head begin: its keys, and its values.
    fn rows(&self, head: usize) -> (usize, usize) {
        let positions = PAGE_POSITIONS as usize;
        let keys = self.start + head * positions * (self.key_bytes + self.value_bytes);
        (keys, keys + positions * self.key_bytes)
    }
}

impl PageMemory {
    /// Memory for the pages of a cache; takes none until something is stored.
    pub fn new(cache: &Cache, format: CacheFormat) -> Result<Self> {
        let layers = cache.groups().iter().flat_map(|group| &group.layers).map(|layer| layer.layer);
        Self::of_layers(cache, &layers.collect(), format)
    }

    /// The same for only some of its layers.
    pub fn of_layers(cache: &Cache, own: &HashSet<u32>, format: CacheFormat) -> Result<Self> {
        let groups = cache.groups().iter().map(|group| {
            let mut page_bytes = 0;
            let layers = group.layers.iter().map(|&shape| {
                let row_bytes = |size: u32| format.row_bytes(size) as usize;
                let (key_bytes, value_bytes) = (row_bytes(shape.key_size), row_bytes(shape.value_size));
                let format = Format::of(format.tensor_type())?;
                let layer = Layer { shape, format, start: page_bytes, key_bytes, value_bytes };
                let heads = if own.contains(&shape.layer) { shape.kv_heads } else { 0 };
                page_bytes += PAGE_POSITIONS as usize * heads as usize * (key_bytes + value_bytes);
                Ok(layer)
            });
            let layers = layers.collect::<Result<_>>()?;
            Ok(Group { layers, page_bytes, pages: vec![] })
        });
        let states =
            cache.states().iter().map(|state| LayerStates { layer: state.layer, bytes: state.bytes(), slots: vec![] });
        Ok(PageMemory { groups: Arc::new(groups.collect::<Result<_>>()?), states: Arc::new(states.collect()) })
    }

    fn state(&self, layer: u32, slot: Option<PageId>) -> Option<&LayerState> {
        let states = self.states.iter().find(|states| states.layer == layer)?;
        states.slots.get(slot?.index())
    }

    fn state_mut(&mut self, layer: u32, slot: PageId) -> Option<&mut LayerState> {
        let states = Arc::make_mut(&mut self.states).iter_mut().find(|states| states.layer == layer)?;
        if states.slots.len() <= slot.index() {
            states.slots.resize_with(slot.index() + 1, LayerState::default);
        }
        states.slots.get_mut(slot.index())
    }

    /// What is held in some pages or slots, one after the other.
    pub fn read(&self, held: Held, ids: &[PageId]) -> Vec<u8> {
        match held {
            Held::Pages(place) => {
                let group = &self.groups[place.group];
                let (range, pages) =
                    (group.layers[place.index].range(), ids.iter().map(|id| group.pages.get(id.index())));
                let bytes = |page: Option<&Box<[u8]>>| {
                    page.and_then(|page| page.get(range.clone())).map_or(vec![0; range.len()], <[u8]>::to_vec)
                };
                pages.flat_map(bytes).collect()
            }
            Held::State(layer) => {
                let states = ids.iter().filter_map(|id| self.state(layer, Some(*id)));
                let numbers = states.flat_map(|state| std::iter::once(&state.inputs).chain(&state.heads));
                numbers.flat_map(|numbers| numbers.iter().flat_map(|number| number.to_le_bytes())).collect()
            }
        }
    }

    /// The bytes of one page or slot of something.
    pub fn bytes_of(&self, held: Held) -> u64 {
        match held {
            Held::Pages(place) => self.groups[place.group].layers[place.index].range().len() as u64,
            Held::State(layer) => {
                self.states.iter().find(|states| states.layer == layer).map_or(0, |states| states.bytes)
            }
        }
    }

    /// Writes what [`read`](Self::read) gave, of a cache that is alike. `state` says how the numbers of a state lie.
    pub fn write(&mut self, held: Held, ids: &[PageId], bytes: &[u8], state: Option<&State>) {
        match (held, state) {
            (Held::Pages(place), _) => {
                let group = &mut Arc::make_mut(&mut self.groups)[place.group];
                let range = group.layers[place.index].range();
                for (id, bytes) in ids.iter().zip(bytes.chunks(range.len().max(1))) {
                    if let Some(part) = group.page(*id).get_mut(range.clone()).filter(|part| part.len() == bytes.len())
                    {
                        part.copy_from_slice(bytes);
                    }
                }
            }
            (Held::State(layer), Some(state)) => {
                let numbers: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                let Some((inputs, matrices)) = numbers.split_at_checked(state.input_numbers()) else { return };
                let heads = matrices.chunks(state.head_numbers().max(1)).map(|head| Arc::new(head.to_vec())).collect();
                if let Some(kept) = ids.first().and_then(|id| self.state_mut(layer, *id)) {
                    *kept = LayerState { inputs: Arc::new(inputs.to_vec()), heads };
                }
            }
            (Held::State(_), None) => {}
        }
    }

    /// The matrices of all heads of a layer in a slot; none if it was never written.
    pub(super) fn heads(&self, layer: u32, slot: Option<PageId>) -> &[Arc<Vec<f32>>] {
        self.state(layer, slot).map_or(&[], |state| &state.heads)
    }

    /// Takes them out, to be written anew: what is in them does not matter any more.
    pub(super) fn take_heads(&mut self, layer: u32, slot: PageId) -> Vec<Arc<Vec<f32>>> {
        self.state_mut(layer, slot).map(|state| std::mem::take(&mut state.heads)).unwrap_or_default()
    }

    /// Puts them back.
    pub(super) fn put_heads(&mut self, layer: u32, slot: PageId, heads: Vec<Arc<Vec<f32>>>) {
        if let Some(state) = self.state_mut(layer, slot) {
            state.heads = heads;
        }
    }

    /// Copies a page that a sequence is about to write and others still read.
    pub fn copy(&mut self, copy: &PageCopy) {
        let group = &mut Arc::make_mut(&mut self.groups)[copy.group];
        let original = group.page(copy.from).clone();
        *group.page(copy.to) = original;
    }

    /// Stores all heads' keys and values of one position.
    pub fn store(
        &mut self,
        place: LayerPlace,
        (page, offset): (PageId, u32),
        keys: &[f32],   // [heads, key_size]
        values: &[f32], // [heads, value_size]; nothing where values are in the keys
    ) -> Result<()> {
        let group = &mut Arc::make_mut(&mut self.groups)[place.group];
        let (layer, offset) = (group.layers[place.index], offset as usize);
        let format = layer.format;
        let page = group.page(page);
        let value_size = layer.shape.value_size as usize;
        for (head, key) in keys.chunks(layer.shape.key_size as usize).enumerate() {
            let (key_rows, value_rows) = layer.rows(head);
            let value = values.get(head * value_size..(head + 1) * value_size).unwrap_or_default();
            encode(format, key, &mut page[key_rows + offset * layer.key_bytes..][..layer.key_bytes])?;
            encode(format, value, &mut page[value_rows + offset * layer.value_bytes..][..layer.value_bytes])?;
        }
        Ok(())
    }

    /// Decodes one head's keys and values at some positions of a page, each to its own row. Where values are in the keys,
    /// none are decoded.
    pub fn load(
        &self,
        place: LayerPlace,
        page: PageId,
        head: usize,
        positions: Range<usize>,
        keys: &mut [f32],   // [page, key_size]
        values: &mut [f32], // [page, value_size]
    ) -> Result<()> {
        let group = &self.groups[place.group];
        let (layer, page) = (group.layers[place.index], &group.pages[page.index()]);
        let (key_rows, value_rows) = layer.rows(head);
        let CacheLayer { key_size, value_size, .. } = layer.shape;
        for (start, row_bytes, size, out) in [
            (key_rows, layer.key_bytes, key_size as usize, keys),
            (value_rows, layer.value_bytes, value_size as usize, values),
        ] {
            let rows = &page[start + positions.start * row_bytes..start + positions.end * row_bytes];
            decode(layer.format, rows, row_bytes, size, &mut out[positions.start * size..positions.end * size])?;
        }
        Ok(())
    }
}

impl Group {
    /// The page, which is made if it was never written.
    fn page(&mut self, id: PageId) -> &mut Box<[u8]> {
        if self.pages.len() <= id.index() {
            self.pages.resize_with(id.index() + 1, Box::default);
        }
        let page = &mut self.pages[id.index()];
        if page.is_empty() {
            *page = vec![0; self.page_bytes].into_boxed_slice();
        }
        page
    }
}

/// Runs a batch: pages are found and copied, then `steps` does the work, and the sequence grows if that goes well.
pub(super) fn run<T>(
    batch: Batch,
    program: &Program,
    sequence: &mut Sequence,
    memory: &mut PageMemory,
    steps: impl FnOnce(&Sequence, &mut PageMemory) -> Result<T>,
) -> Result<T> {
    for copy in batch.begin(program, sequence)? {
        memory.copy(&copy);
    }
    let result = steps(sequence, memory);
    batch.end(program, sequence, result)
}

/// Stores the keys and values of a batch's tokens.
pub(super) fn store(
    (place, positions): (LayerPlace, Positions),
    memory: &mut PageMemory,
    keys: std::slice::Chunks<f32>,
    mut values: Option<std::slice::Chunks<f32>>,
) -> Result<()> {
    for (position, keys) in (positions.start..).zip(keys) {
        let values = values.as_mut().and_then(Iterator::next).unwrap_or_default();
        let slot = positions.sequence.slot_of(place.group, position).ok_or_else(|| missing_page(position as usize))?;
        memory.store(place, slot, keys, values)?;
    }
    Ok(())
}

/// The slots that a batch reads states from and writes them to.
pub(super) fn slots_of(positions: Positions) -> Result<StateSlots> {
    positions.sequence.states().ok_or_else(|| Error::Model {
        subject: "sequence".into(),
        found: "no slot for the states of recurrent layers".into(),
        expected: "a sequence of this model's cache, with the batch reserved".into(),
    })
}

/// The rows of earlier tokens that a convolution counts, one after the other; those before the first are zero. The last of
/// these and of the batch's are kept for the next.
pub(super) fn convolved_before(
    state: &State,
    positions: Positions,
    input: &[f32], // [tokens, width]
    memory: &mut PageMemory,
) -> Result<Arc<Vec<f32>>> {
    let (StateSlots { from, to }, layer, numbers) = (slots_of(positions)?, state.layer as u32, state.input_numbers());
    let earlier = memory.state(layer, from).map(|state| state.inputs.clone());
    let earlier = earlier.filter(|rows| rows.len() == numbers).unwrap_or_else(|| Arc::new(vec![0.0; numbers]));
    let rows: Vec<f32> = match input.len().checked_sub(numbers) {
        Some(first) => input[first..].to_vec(),
        None => earlier[input.len()..].iter().chain(input).copied().collect(),
    };
    if let Some(kept) = memory.state_mut(layer, to) {
        kept.inputs = Arc::new(rows);
    }
    Ok(earlier)
}

/// Encodes a row; the last block is filled up with zeros.
fn encode(format: &Format, row: &[f32], bytes: &mut [u8]) -> Result<()> {
    let values = values_in(format, bytes.len());
    if format.kind() == TensorType::F16 {
        on(Level::best(), Narrow { values: row, out: bytes });
        return Ok(());
    }
    if values == row.len() {
        return format.encode(row, bytes);
    }
    let mut padded = row.to_vec();
    padded.resize(values, 0.0);
    format.encode(&padded, bytes)
}

/// Decodes rows of `size` values each.
fn decode(format: &Format, rows: &[u8], row_bytes: usize, size: usize, out: &mut [f32]) -> Result<()> {
    let values = values_in(format, row_bytes);
    if matches!(format.kind(), TensorType::F16 | TensorType::F32) {
        on(Level::best(), Widen { kind: format.kind(), bytes: rows, out });
        return Ok(());
    }
    if values == size {
        return format.decode(rows, out);
    }
    let mut padded = vec![0.0; values];
    for (row, out) in rows.chunks_exact(row_bytes).zip(out.chunks_exact_mut(size)) {
        format.decode(row, &mut padded)?;
        out.copy_from_slice(&padded[..size]);
    }
    Ok(())
}

/// How many values so many bytes hold.
fn values_in(format: &Format, bytes: usize) -> usize {
    bytes / format.kind().block_bytes() as usize * format.kind().block_elements() as usize
}
