//! The pages of one group: which are free, and how many hold each of the others.

/// The name of a page within its group, or of a slot for states: an index into the storage that a backend keeps for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageId(u32);

impl PageId {
    /// The index, for storage in memory.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The index, for page tables on a GPU.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// What the pages of a group are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupStats {
    /// The pages there may be. Every id is less.
    pub capacity_pages: u32,
    /// Pages that somebody holds.
    pub used_pages: u32,
    /// Pages that several hold.
    pub shared_pages: u32,
    /// Pages that nobody holds: the rest.
    pub free_pages: u32,
    /// Pages that were ever held. Every id so far is less, so storage may grow with this number instead of being
    /// taken at once.
    pub touched_pages: u32,
}

/// Free lists and counts of holders. Ids are handed out from zero up, and the one given back last goes first, so that
/// few pages of the storage are ever touched and those stay warm.
#[derive(Debug)]
pub(super) struct Pool {
    /// For each id handed out so far, how many hold it.
    holders: Vec<u32>,
    /// The ids among them that nobody holds.
    free: Vec<PageId>,
    capacity_pages: u32,
}

impl Pool {
    pub fn new(capacity_pages: u32) -> Self {
        Pool { holders: Vec::new(), free: Vec::new(), capacity_pages }
    }

    /// Allows more pages; never fewer.
    pub fn raise(&mut self, capacity_pages: u32) {
        self.capacity_pages = self.capacity_pages.max(capacity_pages);
    }

    pub fn capacity_pages(&self) -> u32 {
        self.capacity_pages
    }

    fn touched(&self) -> u32 {
        self.holders.len() as u32 // No more ids than `capacity_pages` are made.
    }

    /// The pages that can be taken.
    pub fn available(&self) -> usize {
        self.free.len() + (self.capacity_pages - self.touched()) as usize
    }

    /// Takes a page, with one holder.
    pub fn take(&mut self) -> Option<PageId> {
        if let Some(page) = self.free.pop() {
            self.hold(page);
            return Some(page);
        }
        let fresh = PageId(self.touched());
        (fresh.0 < self.capacity_pages).then(|| {
            self.holders.push(1);
            fresh
        })
    }

    /// Adds a holder. (As many as overflow the count do not fit in memory, as each has a table of its own.)
    pub fn hold(&mut self, page: PageId) {
        if let Some(holders) = self.holders.get_mut(page.index()) {
            *holders += 1;
        }
    }

    /// Takes a holder away; the last one frees the page.
    pub fn release(&mut self, page: PageId) {
        match self.holders.get_mut(page.index()) {
            Some(holders @ 1..) => {
                *holders -= 1;
                if *holders == 0 {
                    self.free.push(page);
                }
            }
            _ => log::error!("cache page {} is given back and nobody holds it", page.0),
        }
    }

    /// Whether more than one hold the page.
    pub fn is_shared(&self, page: PageId) -> bool {
        self.holders.get(page.index()).is_some_and(|holders| *holders > 1)
    }

    pub fn stats(&self) -> GroupStats {
        let used_pages = self.touched() - self.free.len() as u32;
        GroupStats {
            capacity_pages: self.capacity_pages,
            used_pages,
            shared_pages: self.holders.iter().filter(|holders| **holders > 1).count() as u32,
            free_pages: self.capacity_pages - used_pages,
            touched_pages: self.touched(),
        }
    }
}
