//! The pages of a cache on the device: for each layer one buffer, or several where a binding does not hold all. And the
//! states of recurrent layers: a buffer for each, with all slots.

use super::attention::PageShape;
use super::device::Gpu;
use super::memory::buffer;
use super::readback::read;
use crate::cache::{Cache, Held, LayerPlace, PageCopy, PageId};
use crate::options::CacheFormat;
use crate::{Error, Result};
use std::collections::{HashMap, HashSet};
use wgpu::BufferUsages;

/// The pages of all layers.
pub struct Pages {
    groups: Vec<Vec<LayerPages>>,
    /// By layer, with the bytes of a slot.
    states: HashMap<u32, (wgpu::Buffer, u64)>,
    /// Where a page is while it is copied.
    between: wgpu::Buffer,
}

/// The pages of a layer.
pub struct LayerPages {
    /// What a page is made of.
    pub shape: PageShape,
    /// Pages, so many to a buffer.
    pub slabs: Vec<wgpu::Buffer>,
    /// How many.
    pub slab_pages: u32,
    page_bytes: u64,
}

impl Pages {
    /// Room for all pages that a cache may hand out, as far as they hold some layers.
    pub async fn new(gpu: &Gpu, cache: &Cache, own: &HashSet<u32>, format: CacheFormat) -> Result<Self> {
        let mut groups = vec![];
        for (group, stats) in cache.groups().iter().zip(cache.stats()) {
            let mut layers = vec![];
            for layer in &group.layers {
                let shape = PageShape::of(layer, format);
                let page_bytes = shape.page_words() * 4;
                let slab_pages = (gpu.binding_bytes() / page_bytes.max(1)).min(u64::from(stats.capacity_pages.max(1)));
                if slab_pages == 0 {
                    return Err(Error::Gpu {
                        subject: "binding for a page of the cache".into(),
                        found: format!("a limit of {} bytes", gpu.binding_bytes()),
                        expected: format!("at least {page_bytes}"),
                    });
                }
                let mut slabs = vec![];
                if !own.contains(&layer.layer) {
                    layers.push(LayerPages { shape, slabs, slab_pages: slab_pages as u32, page_bytes: 0 });
                    continue;
                }
                for first in (0..u64::from(stats.capacity_pages)).step_by(slab_pages as usize) {
                    let pages = slab_pages.min(u64::from(stats.capacity_pages) - first);
                    slabs.push(buffer(gpu, "cache", pages * page_bytes, BufferUsages::STORAGE).await?);
                }
                layers.push(LayerPages { shape, slabs, slab_pages: slab_pages as u32, page_bytes });
            }
            groups.push(layers);
        }
        let slots = u64::from(cache.state_stats().capacity_pages);
        let mut states = HashMap::new();
        for state in cache.states().iter().filter(|state| own.contains(&state.layer)) {
            let bytes = state.bytes().saturating_mul(slots);
            let all = buffer(gpu, "states", bytes, BufferUsages::STORAGE).await?;
            states.insert(state.layer, (all, state.bytes()));
        }
        let largest = groups.iter().flatten().map(|layer: &LayerPages| layer.page_bytes).max().unwrap_or(0);
        let between = buffer(gpu, "page on its way", largest, BufferUsages::STORAGE).await?;
        Ok(Pages { groups, states, between })
    }

    /// The pages of a layer.
    pub fn layer(&self, place: LayerPlace) -> Option<&LayerPages> {
        self.groups.get(place.group)?.get(place.index)
    }

    /// The states of a layer.
    pub fn states(&self, layer: u32) -> Option<&wgpu::Buffer> {
        self.states.get(&layer).map(|(buffer, _)| buffer)
    }

    /// Encodes the copy of a page that a sequence is about to write and others still read.
    pub fn copy(&self, encoder: &mut wgpu::CommandEncoder, copy: &PageCopy) {
        for index in 0..self.groups.get(copy.group).map_or(0, Vec::len) {
            let held = Held::Pages(LayerPlace { group: copy.group, index });
            let (Some((from, from_start, bytes)), Some((to, to_start, _))) =
                (self.place(held, copy.from), self.place(held, copy.to))
            else {
                continue;
            };
            // A buffer cannot be copied onto itself: the page goes through another one.
            encoder.copy_buffer_to_buffer(from, from_start, &self.between, 0, bytes);
            encoder.copy_buffer_to_buffer(&self.between, 0, to, to_start, bytes);
        }
    }

    /// The bytes of something that is held in some pages or slots, one after the other.
    pub async fn read(&self, gpu: &Gpu, held: Held, ids: &[PageId]) -> Result<Vec<u8>> {
        let parts: Vec<_> = ids.iter().filter_map(|id| self.place(held, *id)).collect();
        let bytes: u64 = parts.iter().map(|(.., bytes)| bytes).sum();
        if bytes == 0 {
            return Ok(vec![]);
        }
        let target = buffer(gpu, "what is to be saved", bytes, BufferUsages::MAP_READ).await?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut end = 0;
        for (source, start, bytes) in parts {
            encoder.copy_buffer_to_buffer(source, start, &target, end, bytes);
            end += bytes;
        }
        gpu.submit(Some(encoder.finish()));
        read(gpu, &target, bytes).await
    }

    /// Writes what [`read`](Self::read) gave, of a cache that is alike.
    pub fn write(&self, gpu: &Gpu, held: Held, ids: &[PageId], bytes: &[u8]) {
        let mut rest = bytes;
        for (buffer, start, bytes) in ids.iter().filter_map(|id| self.place(held, *id)) {
            let Some((own, behind)) = rest.split_at_checked(bytes as usize) else { return };
            gpu.queue().write_buffer(buffer, start, own);
            rest = behind;
        }
    }

    /// The bytes of one page or slot of something.
    pub fn bytes_of(&self, held: Held) -> u64 {
        match held {
            Held::Pages(place) => self.layer(place).map_or(0, |layer| layer.page_bytes),
            Held::State(layer) => self.states.get(&layer).map_or(0, |(_, bytes)| *bytes),
        }
    }

    /// Where something is: the buffer, the first byte, and how many.
    fn place(&self, held: Held, id: PageId) -> Option<(&wgpu::Buffer, u64, u64)> {
        let index = id.index() as u64;
        match held {
            Held::Pages(place) => {
                let layer = self.layer(place)?;
                let (slab, within) = (index / u64::from(layer.slab_pages), index % u64::from(layer.slab_pages));
                Some((layer.slabs.get(slab as usize)?, within * layer.page_bytes, layer.page_bytes))
            }
            Held::State(layer) => {
                let (buffer, bytes) = self.states.get(&layer)?;
                Some((buffer, index * bytes, *bytes))
            }
        }
    }

    /// Bytes of all pages and states.
    pub fn bytes(&self) -> u64 {
        let slabs = self.groups.iter().flatten().flat_map(|layer| &layer.slabs);
        slabs.chain(self.states.values().map(|(buffer, _)| buffer)).map(wgpu::Buffer::size).sum()
    }
}
