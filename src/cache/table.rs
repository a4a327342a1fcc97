//! One sequence's pages in one group. Each step of bookkeeping here is complete in itself: the counts of the pool agree
//! with the table before it and after it.

use super::pool::{PageId, Pool};
use super::{CacheGroup, PAGE_POSITIONS, pages_for};

/// Page ids by position: the page of position `p` is entry `p / PAGE_POSITIONS`.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// First the evicted pages, all `None`, then those that are held, all `Some`.
    pages: Vec<Option<PageId>>,
    /// How many are evicted.
    evicted: usize,
    /// The page that an open copy reads. It is held on to until the copy is sure to be done, so that nobody can be given
    /// it, and write to it, before.
    copied: Option<PageId>,
}

impl Table {
    pub fn pages(&self) -> &[Option<PageId>] {
        &self.pages
    }

    pub fn page_of(&self, position: u32) -> Option<PageId> {
        self.pages.get((position / PAGE_POSITIONS) as usize).copied().flatten()
    }

    /// The page that the next position is written to, if it holds positions already and others hold it too.
    pub fn shared_tail(&self, len_tokens: u32, pool: &Pool) -> Option<PageId> {
        let partly_filled = !len_tokens.is_multiple_of(PAGE_POSITIONS);
        self.page_of(len_tokens).filter(|page| partly_filled && pool.is_shared(*page))
    }

    /// The positions that could be held if `copies` of the pages that are left in the pool were used for copies.
    pub fn reach(&self, copies: usize, pool: &Pool) -> Option<u64> {
        let spare = pool.available().checked_sub(copies)?;
        Some((self.pages.len() + spare) as u64 * u64::from(PAGE_POSITIONS))
    }

    /// Puts a page of its own in the place of a shared one.
    pub fn replace_tail(&mut self, shared: PageId, len_tokens: u32, pool: &mut Pool) -> Option<PageId> {
        let entry = self.pages.get_mut((len_tokens / PAGE_POSITIONS) as usize)?;
        let own = pool.take()?;
        *entry = Some(own);
        self.copied = Some(shared); // The table's hold on it becomes the copy's.
        Some(own)
    }

    /// Adds pages until there are enough for `positions`.
    pub fn extend(&mut self, positions: u32, pool: &mut Pool) {
        while self.pages.len() < pages_for(positions) {
            let Some(page) = pool.take() else { break };
            self.pages.push(Some(page));
        }
    }

    /// Makes an empty table one of so many positions, of which the first pages are evicted. Returns whether there were
    /// enough pages.
    pub fn restore(&mut self, positions: u32, evicted: usize, pool: &mut Pool) -> bool {
        self.pages = vec![None; evicted];
        self.evicted = evicted;
        self.extend(positions, pool);
        self.pages.len() >= pages_for(positions)
    }

    /// How many pages are evicted.
    pub fn evicted(&self) -> usize {
        self.evicted
    }

    /// Gives back what lies behind the first `positions`, and the page that was copied.
    pub fn cut(&mut self, positions: u32, pool: &mut Pool) {
        let kept = pages_for(positions).min(self.pages.len());
        let gone = self.pages.drain(kept..).flatten().chain(self.copied.take());
        gone.for_each(|page| pool.release(page));
        self.evicted = self.evicted.min(kept);
    }

    /// Gives back the first `pages`.
    pub fn evict(&mut self, pages: usize, pool: &mut Pool) {
        for entry in self.pages.iter_mut().take(pages).skip(self.evicted) {
            entry.take().into_iter().for_each(|page| pool.release(page));
        }
        self.evicted = self.evicted.max(pages.min(self.pages.len()));
    }

    /// A table of the first `positions`, which holds the same pages.
    pub fn share(&self, positions: u32, pool: &mut Pool) -> Table {
        let pages: Vec<_> = self.pages.iter().take(pages_for(positions)).copied().collect();
        pages.iter().flatten().for_each(|page| pool.hold(*page));
        Table { evicted: self.evicted.min(pages.len()), pages, copied: None }
    }

    /// The shortest length, other than zero, from which nothing that is evicted can be seen.
    pub fn earliest(&self, group: &CacheGroup) -> u32 {
        if self.evicted == 0 {
            return 0;
        }
        // The inverse of `first_seen`: the position that sees the first page which is left, and nothing before it. It is
        // no more than the length of the sequence, or the page before would not have been evicted.
        let first_kept = self.evicted as u32 * PAGE_POSITIONS;
        first_kept.saturating_add(group.window.map_or(0, |window| window.saturating_sub(1)))
    }
}
