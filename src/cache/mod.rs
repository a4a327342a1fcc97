//! What a model remembers of a sequence: pages of keys and values, and who holds which.
//!
//! # Pages, not rows
//!
//! Attention at one position reads the keys and values of the positions before it, so they are kept. Kept as one array
//! per sequence they would have to be copied whenever a sequence branches, and reserved for the longest text that might
//! come. Here they lie in *pages* of [`PAGE_POSITIONS`] positions, and a sequence is a table of page ids. What would be
//! a copy of the cache is then a change of a table:
//!
//! | operation | what it does |
//! |---|---|
//! | [`Sequence::fork`] | a second table with the same ids; each page counts one more holder |
//! | [`Sequence::share_prefix`] | the same, for the first positions only: two chats under one system prompt |
//! | [`Sequence::truncate`] | a shorter table: rejected drafts, an edited prompt |
//! | [`Sequence::commit`] | the positions stand; pages that have left a sliding window are given back |
//! | [`Sequence::reserve`] | ids for the positions to come, and the only copy there is: a page that is partly filled and has other holders, at most one per group |
//!
//! This module keeps the books and nothing else. It holds no key and no value: each backend owns storage in which a
//! page id is an index, and a cache that is split between devices is one set of books over several storages. A page has
//! no inner layout as far as this module knows.
//!
//! # Groups
//!
//! Layers that see equally far back form a [`CacheGroup`], with page ids and a table of its own. A page of a group holds
//! its positions for *all* layers of the group, so a table is looked up once per group, not per layer. A layer with a
//! sliding window of `w` positions sees, from position `p`, no further back than `p - w + 1`; pages that lie wholly
//! before that are dropped from its group's table, while groups without a window keep theirs. (Attention in fixed chunks
//! never sees further back than the chunk is long, so that length is a safe window for it.)
//!
//! A dropped page is gone: going back to a length at which it would be seen again is [`Error::Evicted`]. How far a
//! sequence can go back for certain, behind the furthest it has been, is [`CacheLimits::rollback_tokens`].
//!
//! # A step
//!
//! ```
//! use kiln::cache::{Cache, CacheGroup, CacheLayer, CacheLimits};
//!
//! let layer = CacheLayer { layer: 0, kv_heads: 8, key_size: 128, value_size: 128 };
//! let cache = Cache::new(vec![CacheGroup { window: None, layers: vec![layer] }], CacheLimits::new(4096))?;
//! let mut sequence = cache.sequence();
//! for copy in sequence.reserve(5)? {
//!     // The backend copies `copy.positions` positions of page `copy.from` to page `copy.to`.
//! }
//! let (page, offset) = sequence.slot_of(0, 4).unwrap();   // where the fifth position goes
//! # assert_eq!((page.index(), offset), (0, 4));
//! sequence.commit(5)?;                                    // the backend has written all five
//!
//! let mut other = sequence.fork();
//! assert_eq!(other.reserve(1)?.len(), 1);                 // the page is shared, so it is copied before it is written
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! # Invariants
//!
//! - A page's count of holders is the number of tables it stands in, plus one for each open copy that reads it. At zero
//!   it is free, and no sooner; dropping a sequence gives back all it held.
//! - A position, once committed, is never written again while any sequence holds it. Two sequences may share a page of
//!   which one still writes the positions behind the other's end.
//! - An operation that fails has changed nothing.
//! - With at most [`CacheLimits::sequences`] sequences alive, and reservations no longer than
//!   [`CacheLimits::chunk_tokens`], pages never run out before the context does.
//!
//! # States
//!
//! Layers that carry a recurrent state instead of keys and values have nothing to page. The states of all of them lie in
//! slots, and a sequence holds those behind some of its lengths: see `snapshots.rs`. A batch reads one slot and writes
//! another, so a fork shares slots as it does pages, and going back goes to the nearest length behind which there is one.

mod layout;
mod pool;
mod sequence;
mod snapshots;
mod table;

pub use crate::options::CacheFormat;
pub use layout::{CacheGroup, CacheLayer, CacheLimits, CacheState};
pub use pool::{GroupStats, PageId};
pub use sequence::{PageCopy, Sequence};
pub use snapshots::StateSlots;

use crate::program::Program;
use crate::{Error, Result};
use pool::Pool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The positions of a page.
pub const PAGE_POSITIONS: u32 = 32;

/// The pages that hold `positions` positions, counted from the first.
const fn pages_for(positions: u32) -> usize {
    positions.div_ceil(PAGE_POSITIONS) as usize
}

/// The books of one model's cache. Cloning it gives another handle to the same books.
#[derive(Debug, Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    groups: Vec<CacheGroup>,
    states: Vec<CacheState>,
    books: Mutex<Books>,
}

/// What changes, all of it under one lock: a step takes it twice for a sequence and never for longer than a few pages.
#[derive(Debug)]
struct Books {
    limits: CacheLimits,
    /// One for each group, in the same order.
    pools: Vec<Pool>,
    /// The slots of states, where any are kept.
    states: Option<Pool>,
}

/// Where a layer's keys and values are: in which group, and as which of its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerPlace {
    /// The index of the group.
    pub group: usize,
    /// The index among the layers of the group.
    pub index: usize,
}

/// Something that a device holds for sequences: a layer's part of pages, or its state in slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Keys and values.
    Pages(LayerPlace),
    /// The state of a layer, by its index in the model.
    State(u32),
}

impl Cache {
    /// Books for these groups. Takes no memory to speak of, so it also serves to plan: see [`Cache::bytes`].
    ///
    /// # Errors
    /// [`Error::Cache`] for a window or limit of zero, a layer in two groups, and more pages than there are ids.
    pub fn new(groups: Vec<CacheGroup>, limits: CacheLimits) -> Result<Self> {
        Self::with_states(groups, vec![], limits)
    }

    /// The same, with states of recurrent layers.
    ///
    /// # Errors
    /// As [`Cache::new`], and for a layer whose state is kept twice.
    pub fn with_states(groups: Vec<CacheGroup>, states: Vec<CacheState>, limits: CacheLimits) -> Result<Self> {
        layout::check(&groups, &states, &limits)?;
        let pools = groups.iter().map(|group| Ok(Pool::new(limits.pages(group)?))).collect::<Result<_>>()?;
        let slots = if states.is_empty() { None } else { Some(Pool::new(limits.state_slots()?)) };
        let books = Mutex::new(Books { limits, pools, states: slots });
        Ok(Cache { shared: Arc::new(Shared { groups, states, books }) })
    }

    /// Books for all that a program keeps.
    ///
    /// # Errors
    /// As [`Cache::new`].
    pub fn of_program(program: &Program, limits: CacheLimits) -> Result<Self> {
        Self::with_states(CacheGroup::of_program(program), CacheState::of_program(program), limits)
    }

    /// A sequence without positions.
    pub fn sequence(&self) -> Sequence {
        Sequence::new(self.clone())
    }

    /// The groups, as they were given.
    pub fn groups(&self) -> &[CacheGroup] {
        &self.shared.groups
    }

    /// The states, as they were given.
    pub fn states(&self) -> &[CacheState] {
        &self.shared.states
    }

    /// Where a layer is kept; `None` if it has no keys and values of its own.
    pub fn place_of(&self, layer: u32) -> Option<LayerPlace> {
        self.groups().iter().enumerate().find_map(|(group, CacheGroup { layers, .. })| {
            layers.iter().position(|kept| kept.layer == layer).map(|index| LayerPlace { group, index })
        })
    }

    /// The limits as they are now.
    pub fn limits(&self) -> CacheLimits {
        self.lock().limits
    }

    /// Raises limits. Those that are lower than now stay as they are, since pages above them may be in use. A backend
    /// whose storage is to grow as well reads the new capacities from [`Cache::stats`].
    ///
    /// # Errors
    /// [`Error::Cache`] if there are not so many page ids; the limits are then as before.
    pub fn grow(&self, limits: CacheLimits) -> Result<()> {
        let mut books = self.lock();
        let limits = books.limits.max(limits);
        let capacities = self.groups().iter().map(|group| limits.pages(group)).collect::<Result<Vec<_>>>()?;
        let slots = limits.state_slots()?;
        for (pool, capacity_pages) in books.pools.iter_mut().zip(capacities) {
            pool.raise(capacity_pages);
        }
        books.states.iter_mut().for_each(|pool| pool.raise(slots));
        books.limits = limits;
        Ok(())
    }

    /// The bytes of all pages of all groups in a format, and of all states, whether in use or not.
    pub fn bytes(&self, format: CacheFormat) -> u64 {
        let books = self.lock();
        let rows = self.groups().iter().zip(&books.pools);
        let sizes = rows.map(|(group, pool)| group.page_bytes(format).saturating_mul(pool.capacity_pages().into()));
        let states = self.states().iter().map(CacheState::bytes).fold(0, u64::saturating_add);
        let slots = books.states.as_ref().map_or(0, Pool::capacity_pages);
        sizes.fold(0, u64::saturating_add).saturating_add(states.saturating_mul(slots.into()))
    }

    /// How many pages each group has, and what they are doing.
    pub fn stats(&self) -> Vec<GroupStats> {
        self.lock().pools.iter().map(Pool::stats).collect()
    }

    /// How many slots for states there are, and what they are doing.
    pub fn state_stats(&self) -> GroupStats {
        self.lock().states.as_ref().map(Pool::stats).unwrap_or_default()
    }

    /// The books. A thread that panicked while it held them cannot have left them half written (nothing that is done
    /// under the lock can fail), so a poisoned lock is taken as any other.
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.shared.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, other: &Cache) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

/// An error about something of the cache.
fn wrong(subject: &'static str, found: impl ToString, expected: impl ToString) -> Error {
    Error::Cache { subject, found: found.to_string(), expected: expected.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poisoned_lock_is_recovered() {
        let group = CacheGroup { window: None, layers: Vec::new() };
        let cache = Cache::new(vec![group], CacheLimits::new(64)).unwrap();
        let mut sequence = cache.sequence();
        sequence.reserve(40).unwrap();
        let poisoner = cache.clone();
        let poisoned = std::thread::spawn(move || {
            let _books = poisoner.lock();
            panic!("on purpose, with the lock held");
        });
        assert!(poisoned.join().is_err() && cache.shared.books.is_poisoned());
        sequence.commit(40).unwrap();
        assert_eq!(cache.stats()[0].used_pages, 2);
        drop(sequence);
        assert_eq!(cache.stats()[0].used_pages, 0);
    }
}
