//! Memory that is read from end to end, again and again: weights.

use crate::Result;
use memmap2::MmapMut;

/// Zeros, aligned to pages, so that no load of packed quants crosses a line of the cache.
///
/// They are asked from the system in huge pages where it has them: weights are read from end to end for every token, and
/// with small pages the processor spends a fifth of that time on looking up addresses.
pub(super) struct HugePages(MmapMut);

impl HugePages {
    pub fn new(bytes: usize) -> Result<Self> {
        let map = MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(memmap2::Advice::HugePage) {
            log::debug!("no huge pages for {bytes} bytes: {error}");
        }
        Ok(HugePages(map))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
