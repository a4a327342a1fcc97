//! A sequence of positions and its page tables. Every operation takes the lock of the books once, decides, and only then
//! changes anything.

use super::pool::PageId;
use super::snapshots::{Snapshots, StateSlots};
use super::table::Table;
use super::{Books, Cache, CacheGroup, Held, LayerPlace, PAGE_POSITIONS, pages_for, wrong};
use crate::{Error, Result};

/// What a backend must copy before it writes the positions of a reservation: the first `positions` of a page, for all
/// layers of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageCopy {
    /// The index of the group whose pages these are.
    pub group: usize,
    /// The page to read. It stays as it is until the sequence commits, truncates or is dropped.
    pub from: PageId,
    /// The page to write.
    pub to: PageId,
    /// How many of its positions matter, from the first.
    pub positions: u32,
}

/// The positions that one sequence holds, and in which pages.
///
/// Positions are written in two steps, so that a failure between them costs nothing: [`reserve`](Self::reserve) finds
/// pages, the backend writes, [`commit`](Self::commit) makes the positions count. Dropping a sequence gives back its
/// pages.
#[derive(Debug)]
pub struct Sequence {
    cache: Cache,
    /// One for each group, in the same order. They have pages for `len_tokens + reserved_tokens`.
    tables: Vec<Table>,
    /// What recurrent layers keep; there is always one behind `len_tokens`, if there are such layers.
    snapshots: Snapshots,
    len_tokens: u32,
    reserved_tokens: u32,
}

impl Sequence {
    pub(super) fn new(cache: Cache) -> Self {
        let tables = cache.groups().iter().map(|_| Table::default()).collect();
        Sequence { cache, tables, snapshots: Snapshots::default(), len_tokens: 0, reserved_tokens: 0 }
    }

    /// The cache that the pages belong to.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The positions that are committed. The next one to be written has this number.
    pub fn len(&self) -> u32 {
        self.len_tokens
    }

    /// Whether nothing is committed.
    pub fn is_empty(&self) -> bool {
        self.len_tokens == 0
    }

    /// The positions that may be written, and are not committed yet.
    pub fn reserved(&self) -> u32 {
        self.reserved_tokens
    }

    /// The pages of a group, reserved ones included: position `p` is in entry `p / PAGE_POSITIONS`. Pages that a window
    /// has left behind are `None`, and come first. A group that there is not has no pages.
    pub fn table(&self, group: usize) -> &[Option<PageId>] {
        self.tables.get(group).map_or(&[], Table::pages)
    }

    /// Where a position is kept in a group: the page, and which position of the page it is. `None` if it is neither
    /// committed nor reserved, or has been evicted.
    pub fn slot_of(&self, group: usize, position: u32) -> Option<(PageId, u32)> {
        let end = u64::from(self.len_tokens) + u64::from(self.reserved_tokens);
        let table = self.tables.get(group).filter(|_| u64::from(position) < end)?;
        Some((table.page_of(position)?, position % PAGE_POSITIONS))
    }

    /// Where the states of recurrent layers are read from, and written to, by a batch of all the positions that are
    /// reserved. `None` if nothing is reserved, or there are no such layers.
    pub fn states(&self) -> Option<StateSlots> {
        self.snapshots.slots()
    }

    /// Finds pages for the next `asked_tokens` positions, and returns the copies that must be made before they are
    /// written, and before anything else is done with this sequence but dropping it. There is at most one for each
    /// group, and none at all unless the sequence was forked.
    ///
    /// Asking again before the commit extends the reservation if more is asked for, and otherwise changes nothing.
    ///
    /// # Errors
    /// [`Error::ContextFull`] if the context is too short, or other sequences hold the pages. Nothing has changed then.
    pub fn reserve(&mut self, asked_tokens: u32) -> Result<Vec<PageCopy>> {
        if asked_tokens <= self.reserved_tokens {
            return Ok(Vec::new());
        }
        let mut books = self.cache.lock();
        let shared_tails = self.shared_tails(&books);
        let limit_tokens = self.reach(&shared_tails, &books);
        let end = self.len_tokens.checked_add(asked_tokens).filter(|end| *end <= limit_tokens);
        let full = |limit_tokens| Error::ContextFull { used_tokens: self.len_tokens, asked_tokens, limit_tokens };
        let end = end.ok_or_else(|| full(limit_tokens))?;
        if let Some(states) = &mut books.states
            && !self.snapshots.reserve(states)
        {
            return Err(full(self.len_tokens));
        }

        // From here on the pools are known to have what is taken from them.
        let mut copies = Vec::new();
        let rows = self.tables.iter_mut().zip(&mut books.pools).zip(shared_tails).enumerate();
        for (group, ((table, pool), shared)) in rows {
            let own = shared.and_then(|from| Some((from, table.replace_tail(from, self.len_tokens, pool)?)));
            let positions = self.len_tokens % PAGE_POSITIONS;
            copies.extend(own.map(|(from, to)| PageCopy { group, from, to, positions }));
            table.extend(end, pool);
        }
        self.reserved_tokens = asked_tokens;
        Ok(copies)
    }

    /// For each group, the page that is about to be written and that others hold too. An open reservation has dealt
    /// with it: whoever came to share the page since then sees positions before those that are written.
    fn shared_tails(&self, books: &Books) -> Vec<Option<PageId>> {
        let first = self.reserved_tokens == 0;
        let rows = self.tables.iter().zip(&books.pools);
        rows.map(|(table, pool)| table.shared_tail(self.len_tokens, pool).filter(|_| first)).collect()
    }

    /// The length that the sequence could get to, as things are.
    fn reach(&self, shared_tails: &[Option<PageId>], books: &Books) -> u32 {
        let rows = self.tables.iter().zip(&books.pools).zip(shared_tails);
        let reaches = rows.map(|((table, pool), shared)| {
            let reach = table.reach(usize::from(shared.is_some()), pool);
            reach.map_or(self.len_tokens, |reach| u32::try_from(reach).unwrap_or(u32::MAX))
        });
        reaches.fold(books.limits.context_tokens, u32::min)
    }

    /// Makes the first `written_tokens` of the reservation count, and gives back the pages of the rest and those that
    /// have left their window.
    ///
    /// # Errors
    /// [`Error::Cache`] if fewer are reserved, or where states are kept, which are those behind all of them, more. Nothing
    /// has changed then.
    pub fn commit(&mut self, written_tokens: u32) -> Result<()> {
        if written_tokens > self.reserved_tokens {
            let expected = format!("at most the {} reserved", self.reserved_tokens);
            return Err(wrong("commit", format!("{written_tokens} tokens"), expected));
        }
        let Books { limits, pools, states } = &mut *self.cache.lock();
        if states.is_some() && written_tokens < self.reserved_tokens {
            let expected = format!("all of the {} reserved", self.reserved_tokens);
            return Err(wrong("commit", format!("{written_tokens} tokens"), expected));
        }
        self.len_tokens += written_tokens;
        self.reserved_tokens = 0;
        if let Some(pool) = states {
            self.snapshots.commit(self.len_tokens, limits.snapshots, pool);
        }
        for ((table, pool), group) in self.tables.iter_mut().zip(pools).zip(self.cache.groups()) {
            table.cut(self.len_tokens, pool);
            table.evict(limits.evictable_pages(group, self.len_tokens), pool);
        }
        Ok(())
    }

    /// All that devices hold of the positions that are committed, layer by layer: the layer's index, and where.
    pub fn holdings(&self) -> Vec<(u32, Held, Vec<PageId>)> {
        let mut holdings = vec![];
        for (group, (table, of_layers)) in self.tables.iter().zip(self.cache.groups()).enumerate() {
            let pages: Vec<PageId> = table.pages().iter().take(pages_for(self.len_tokens)).copied().flatten().collect();
            let places = (0..of_layers.layers.len()).map(|index| LayerPlace { group, index });
            let layers = of_layers.layers.iter().zip(places);
            holdings.extend(layers.map(|(layer, place)| (layer.layer, Held::Pages(place), pages.clone())));
        }
        let states = self.cache.states().iter().map(|state| state.layer);
        let slot: Vec<PageId> = self.snapshots.latest().into_iter().collect();
        holdings.extend(states.map(|layer| (layer, Held::State(layer), slot.clone())));
        holdings
    }

    /// How many pages each group has given back because its window has left them behind.
    pub fn evicted_pages(&self) -> Vec<u32> {
        self.tables.iter().map(|table| table.evicted() as u32).collect()
    }

    /// Makes this sequence one of so many positions, with pages for all but the first `evicted` of each group. What they
    /// hold is to be written before anything else is done with it: see [`holdings`](Self::holdings).
    ///
    /// # Errors
    /// [`Error::ContextFull`] if there are no pages for it, [`Error::Cache`] if more are evicted than windows allow. It has
    /// no positions then.
    pub fn restore(&mut self, len_tokens: u32, evicted: &[u32]) -> Result<()> {
        self.give_back(0);
        let Books { limits, pools, states } = &mut *self.cache.lock();
        let groups = self.cache.groups();
        let may_be =
            |(group, &evicted): (&CacheGroup, &u32)| evicted as usize <= limits.evictable_pages(group, len_tokens);
        if evicted.len() != groups.len() || !groups.iter().zip(evicted).all(may_be) {
            let expected = format!("as many as windows leave behind in {} groups", groups.len());
            return Err(wrong("evicted pages", format!("{evicted:?}"), expected));
        }
        let mut has_room = len_tokens <= limits.context_tokens;
        for ((table, pool), &evicted) in self.tables.iter_mut().zip(pools.iter_mut()).zip(evicted) {
            has_room = has_room && table.restore(len_tokens, evicted as usize, pool);
        }
        if let Some(pool) = states.as_mut().filter(|_| has_room && len_tokens > 0) {
            has_room = self.snapshots.reserve(pool);
            self.snapshots.commit(len_tokens, limits.snapshots, pool);
        }
        if has_room {
            self.len_tokens = len_tokens;
            return Ok(());
        }
        self.tables.iter_mut().zip(pools).for_each(|(table, pool)| table.cut(0, pool));
        states.iter_mut().for_each(|pool| self.snapshots.cut(0, pool));
        Err(Error::ContextFull { used_tokens: 0, asked_tokens: len_tokens, limit_tokens: limits.context_tokens })
    }

    /// Another sequence with the same positions, which shares all pages and states. What is reserved is not shared.
    pub fn fork(&self) -> Sequence {
        let (tables, snapshots) = self.share(self.len_tokens);
        let (cache, len_tokens) = (self.cache.clone(), self.len_tokens);
        Sequence { cache, tables, snapshots, len_tokens, reserved_tokens: 0 }
    }

    /// Makes this sequence the first `tokens` positions of another, sharing its pages. What this one held, or had
    /// reserved, is given back. Where states are kept it becomes the most positions, up to so many, behind which there are
    /// some.
    ///
    /// # Errors
    /// [`Error::Cache`] if the other is shorter or belongs to another cache, [`Error::Evicted`] if its windows have
    /// moved too far on. Nothing has changed then.
    pub fn share_prefix(&mut self, other: &Sequence, tokens: u32) -> Result<()> {
        if !self.cache.is(&other.cache) {
            return Err(wrong("prefix", "a sequence of another cache", "one of the same"));
        }
        if tokens > other.len_tokens {
            let expected = format!("at most the {} there are", other.len_tokens);
            return Err(wrong("prefix", format!("{tokens} tokens"), expected));
        }
        let tokens = other.reachable(tokens)?;
        let (tables, snapshots) = other.share(tokens);
        self.give_back(0);
        (self.tables, self.snapshots) = (tables, snapshots);
        self.len_tokens = tokens;
        Ok(())
    }

    /// Goes back to the first `tokens` positions, and closes an open reservation. If there are no more than that, only
    /// the reservation is closed. Where states are kept it goes back farther if it must, to the last position behind which
    /// there are some: [`len`](Self::len) says what is left.
    ///
    /// # Errors
    /// [`Error::Evicted`] if the last of these positions would see pages that a window has left behind. Nothing has
    /// changed then. Zero is always possible, and so is whatever [`earliest_rollback`](Self::earliest_rollback) allows.
    pub fn truncate(&mut self, tokens: u32) -> Result<()> {
        let tokens = self.reachable(tokens.min(self.len_tokens))?;
        self.give_back(tokens);
        Ok(())
    }

    /// The shortest length, other than zero, that [`truncate`](Self::truncate) can go back to.
    pub fn earliest_rollback(&self) -> u32 {
        let rows = self.tables.iter().zip(self.cache.groups());
        rows.map(|(table, group)| table.earliest(group)).fold(0, u32::max)
    }

    /// The length that comes of going back to so many positions.
    fn reachable(&self, asked_tokens: u32) -> Result<u32> {
        let earliest_tokens = self.earliest_rollback();
        if !self.cache.states().is_empty() {
            return Ok(self.snapshots.nearest(asked_tokens, earliest_tokens));
        }
        if asked_tokens > 0 && asked_tokens < earliest_tokens {
            return Err(Error::Evicted { asked_tokens, earliest_tokens });
        }
        Ok(asked_tokens)
    }

    fn share(&self, tokens: u32) -> (Vec<Table>, Snapshots) {
        let Books { pools, states, .. } = &mut *self.cache.lock();
        let tables = self.tables.iter().zip(pools).map(|(table, pool)| table.share(tokens, pool)).collect();
        (tables, states.as_mut().map(|pool| self.snapshots.share(tokens, pool)).unwrap_or_default())
    }

    fn give_back(&mut self, kept_tokens: u32) {
        let Books { pools, states, .. } = &mut *self.cache.lock();
        for (table, pool) in self.tables.iter_mut().zip(pools) {
            table.cut(kept_tokens, pool);
        }
        if let Some(pool) = states {
            self.snapshots.cut(kept_tokens, pool);
        }
        self.len_tokens = kept_tokens;
        self.reserved_tokens = 0;
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.give_back(0);
    }
}
