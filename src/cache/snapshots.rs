//! What one sequence keeps of its recurrent layers: their states behind some of its positions.
//!
//! A state is not made of positions, so nothing of it can be cut off or shared in part. But whoever runs a batch reads the
//! state before it from one slot and writes the one behind it to another, so the states of some earlier lengths can stay
//! where they are: going back means going on from one of those. A fork holds the same slots, and copies nothing.
//!
//! The two latest are always kept: that of the sequence as it is, and the one before the last batch, for who takes that
//! back. Of the others as many stay as the limits allow, close together near the end and farther apart behind: whenever one
//! has to go, it is the one whose neighbours are closest to one another, measured by how far back it is.

use super::pool::{PageId, Pool};

/// The slots that a step reads states from, and writes them to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateSlots {
    /// Where the states before the step are; none where nothing has been read yet, and they are zero.
    pub from: Option<PageId>,
    /// Where those behind it go.
    pub to: PageId,
}

/// The states that a sequence holds.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// The lengths of the sequence behind which they were, in ascending order, and where they are.
    kept: Vec<(u32, PageId)>,
    /// Where those of a reservation will be.
    next: Option<PageId>,
}

impl Snapshots {
    /// The slots of an open reservation.
    pub fn slots(&self) -> Option<StateSlots> {
        Some(StateSlots { from: self.latest(), to: self.next? })
    }

    /// The slot of the latest.
    pub fn latest(&self) -> Option<PageId> {
        self.kept.last().map(|(_, slot)| *slot)
    }

    /// Finds a slot for the states behind a batch. If there is none, one that nobody else holds and this sequence could do
    /// without is given up. Returns whether there is one; if not, nothing has changed.
    pub fn reserve(&mut self, pool: &mut Pool) -> bool {
        if self.next.is_none() {
            self.next = pool.take();
        }
        if self.next.is_none() && self.thin(pool, |slot, pool| !pool.is_shared(slot)) {
            self.next = pool.take();
        }
        self.next.is_some()
    }

    /// The states of a reservation are now those behind `len_tokens`.
    pub fn commit(&mut self, len_tokens: u32, most: u32, pool: &mut Pool) {
        self.kept.extend(self.next.take().map(|slot| (len_tokens, slot)));
        while self.kept.len() > most as usize && self.thin(pool, |_, _| true) {}
    }

    /// Gives up one that may be, if there are more than the two latest.
    fn thin(&mut self, pool: &mut Pool, may_be: impl Fn(PageId, &Pool) -> bool) -> bool {
        let end = self.kept.last().map_or(0, |(length, _)| *length);
        // How far apart its neighbours would be, for each step that it is back.
        let sparseness = |at: usize| {
            let before = at.checked_sub(1).map_or(0, |before| self.kept[before].0);
            f64::from(self.kept[at + 1].0 - before) / f64::from(end - self.kept[at].0)
        };
        let candidates = (0..self.kept.len().saturating_sub(2)).filter(|&at| may_be(self.kept[at].1, pool));
        let densest = candidates.min_by(|&a, &b| sparseness(a).total_cmp(&sparseness(b)));
        densest.is_some_and(|at| {
            pool.release(self.kept.remove(at).1);
            true
        })
    }

    /// The greatest length, at most `tokens`, that can be gone back to, if it is at least `earliest`; 0 is always possible.
    pub fn nearest(&self, tokens: u32, earliest: u32) -> u32 {
        let lengths = self.kept.iter().rev().map(|(length, _)| *length);
        lengths.into_iter().find(|length| *length <= tokens).filter(|length| *length >= earliest).unwrap_or(0)
    }

    /// Gives back what is behind a length, and what is reserved.
    pub fn cut(&mut self, len_tokens: u32, pool: &mut Pool) {
        let kept = self.kept.partition_point(|(length, _)| *length <= len_tokens);
        let gone = self.kept.drain(kept..).map(|(_, slot)| slot).chain(self.next.take());
        gone.for_each(|slot| pool.release(slot));
    }

    /// Holds the same states, up to a length.
    pub fn share(&self, len_tokens: u32, pool: &mut Pool) -> Snapshots {
        let kept: Vec<_> = self.kept.iter().copied().take_while(|(length, _)| *length <= len_tokens).collect();
        kept.iter().for_each(|(_, slot)| pool.hold(*slot));
        Snapshots { kept, next: None }
    }
}
