//! Random runs of the cache against a model that knows nothing of pages: each sequence is a list of values, one per
//! position. A map from (group, page, offset) to a value stands for a backend's storage. After each step every sequence
//! must read its own values out of the storage, through its tables; windows must have dropped exactly what they may; and
//! the pool must count exactly the pages that the tables and open copies hold.

use kiln::Error;
use kiln::cache::{Cache, CacheGroup, CacheLimits, PAGE_POSITIONS, PageCopy, PageId, Sequence};
use proptest::prelude::*;
use std::collections::HashMap;

/// One step. Sequences are named by numbers, taken modulo how many there are.
#[derive(Debug, Clone)]
enum Step {
    Start,
    Fork(usize),
    SharePrefix { onto: usize, of: usize, tokens: u32 },
    Reserve { of: usize, tokens: u32, copy_now: bool },
    Commit { of: usize, tokens: u32 },
    Truncate { of: usize, tokens: u32 },
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let of = 0..64_usize;
    let tokens = prop_oneof![1 => 0..8_u32, 2 => 0..=64_u32, 5 => 0..260_u32];
    prop_oneof![
        1 => Just(Step::Start),
        3 => of.clone().prop_map(Step::Fork),
        2 => (of.clone(), of.clone(), tokens.clone()).prop_map(|(onto, of, tokens)| Step::SharePrefix { onto, of, tokens }),
        9 => (of.clone(), 0..=64_u32, any::<bool>())
            .prop_map(|(of, tokens, copy_now)| Step::Reserve { of, tokens, copy_now }),
        9 => (of.clone(), 0..80_u32).prop_map(|(of, tokens)| Step::Commit { of, tokens }),
        3 => (of.clone(), tokens).prop_map(|(of, tokens)| Step::Truncate { of, tokens }),
        1 => of.prop_map(Step::Drop),
    ]
}

fn window() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![
        Just(None),
        prop::sample::select(vec![1, 2, 31, 32, 33, 34, 64, 90]).prop_map(Some),
        (1..250_u32).prop_map(Some)
    ]
}

/// A sequence, and what is known of it without looking at pages.
struct Twin {
    sequence: Sequence,
    values: Vec<u64>,
    reserved: u32,
    /// For each group, the pages that must be gone.
    evicted: Vec<u32>,
    /// Copies that were asked for and are still to be made.
    pending: Vec<PageCopy>,
    /// Pages that are held on to because a copy reads them.
    copied: Vec<(usize, PageId)>,
}

struct World {
    cache: Cache,
    limits: CacheLimits,
    windows: Vec<Option<u32>>,
    twins: Vec<Twin>,
    most_twins: usize,
    storage: HashMap<(usize, PageId, u32), u64>,
    next_value: u64,
}

impl World {
    fn new(windows: Vec<Option<u32>>, limits: CacheLimits, most_twins: usize) -> Self {
        let groups = windows.iter().map(|window| CacheGroup { window: *window, layers: Vec::new() }).collect();
        let cache = Cache::new(groups, limits).unwrap();
        World { cache, limits, windows, twins: Vec::new(), most_twins, storage: HashMap::new(), next_value: 0 }
    }

    fn take(&mut self, step: &Step) {
        if matches!(step, Step::Start) || self.twins.is_empty() {
            return self.start();
        }
        let count = self.twins.len();
        match *step {
            Step::Start => {}
            Step::Fork(of) => self.fork(of % count),
            Step::SharePrefix { onto, of, tokens } => self.share_prefix(onto % count, of % count, tokens),
            Step::Reserve { of, tokens, copy_now } => self.reserve(of % count, tokens, copy_now),
            Step::Commit { of, tokens } => self.commit(of % count, tokens),
            Step::Truncate { of, tokens } => self.truncate(of % count, tokens),
            Step::Drop(of) => drop(self.twins.swap_remove(of % count)),
        }
    }

    fn start(&mut self) {
        if self.twins.len() < self.most_twins {
            let (sequence, evicted) = (self.cache.sequence(), vec![0; self.windows.len()]);
            let empty = Twin { sequence, evicted, values: vec![], reserved: 0, pending: vec![], copied: vec![] };
            self.twins.push(empty);
        }
    }

    fn fork(&mut self, of: usize) {
        self.copy_pending(of);
        if self.twins.len() < self.most_twins {
            let Twin { sequence, values, evicted, .. } = &self.twins[of];
            let (sequence, values, evicted) = (sequence.fork(), values.clone(), evicted.clone());
            self.twins.push(Twin { sequence, values, evicted, reserved: 0, pending: vec![], copied: vec![] });
        }
    }

    fn share_prefix(&mut self, onto: usize, of: usize, tokens: u32) {
        if onto == of {
            return;
        }
        self.copy_pending(of);
        self.copy_pending(onto);
        let mut twin = std::mem::replace(&mut self.twins[onto].sequence, self.cache.sequence());
        let result = twin.share_prefix(&self.twins[of].sequence, tokens);
        self.twins[onto].sequence = twin;
        if tokens as usize > self.twins[of].values.len() {
            return assert!(matches!(result, Err(Error::Cache { .. })));
        }
        assert_eq!(result.is_ok(), self.can_see_all(of, tokens), "{result:?}");
        if result.is_ok() {
            let (values, evicted) = (self.twins[of].values.clone(), self.twins[of].evicted.clone());
            self.twins[onto].values = values;
            self.twins[onto].evicted = evicted;
            self.cut(onto, tokens);
        }
    }

    fn truncate(&mut self, of: usize, tokens: u32) {
        self.copy_pending(of);
        let result = self.twins[of].sequence.truncate(tokens);
        let tokens = tokens.min(self.twins[of].values.len() as u32);
        assert_eq!(result.is_ok(), self.can_see_all(of, tokens), "{result:?}");
        match result {
            Ok(()) => self.cut(of, tokens),
            Err(error) => assert!(matches!(error, Error::Evicted { .. })),
        }
    }

    /// Whether a sequence that went back to `tokens` positions has all that its next position sees.
    fn can_see_all(&self, of: usize, tokens: u32) -> bool {
        let sees_all = |(window, evicted): (&Option<u32>, &u32)| {
            window.is_none_or(|window| (tokens + 1).saturating_sub(window) >= evicted * PAGE_POSITIONS)
        };
        tokens == 0 || self.windows.iter().zip(&self.twins[of].evicted).all(sees_all)
    }

    fn cut(&mut self, of: usize, tokens: u32) {
        let twin = &mut self.twins[of];
        twin.values.truncate(tokens as usize);
        if tokens == 0 {
            twin.evicted.fill(0);
        }
        twin.reserved = 0;
        twin.copied.clear();
    }

    fn reserve(&mut self, of: usize, tokens: u32, copy_now: bool) {
        self.copy_pending(of);
        let twin = &mut self.twins[of];
        let used = twin.values.len() as u32;
        match twin.sequence.reserve(tokens) {
            Ok(copies) => {
                assert!(used + tokens <= self.limits.context_tokens);
                twin.reserved = twin.reserved.max(tokens);
                twin.copied.extend(copies.iter().map(|copy| (copy.group, copy.from)));
                twin.pending = copies;
            }
            Err(Error::ContextFull { used_tokens, asked_tokens, limit_tokens }) => {
                assert_eq!((used_tokens, asked_tokens), (used, tokens));
                assert!((used..used + tokens).contains(&limit_tokens));
                // As many sequences as were planned for never lack pages.
                let planned = self.most_twins <= self.limits.sequences as usize;
                assert!(!planned || limit_tokens == self.limits.context_tokens, "pages ran out at {limit_tokens}");
            }
            Err(other) => panic!("{other}"),
        }
        if copy_now {
            self.copy_pending(of);
        }
    }

    /// What the backend does with a list of copies. The rest of the new page is wiped, so that nobody can live on it.
    fn copy_pending(&mut self, of: usize) {
        for PageCopy { group, from, to, positions } in std::mem::take(&mut self.twins[of].pending) {
            for offset in 0..PAGE_POSITIONS {
                match self.storage.get(&(group, from, offset)).filter(|_| offset < positions) {
                    Some(value) => self.storage.insert((group, to, offset), *value),
                    None => self.storage.remove(&(group, to, offset)),
                };
            }
        }
    }

    /// Writes all that is reserved, and commits some of it, or all, or for a high number more than there is.
    fn commit(&mut self, of: usize, tokens: u32) {
        self.copy_pending(of);
        let twin = &mut self.twins[of];
        let tokens = if tokens < 75 { tokens.min(twin.reserved) } else { tokens };
        let start = twin.values.len() as u32;
        let mut written = Vec::new();
        for position in start..start + twin.reserved {
            self.next_value += 1;
            written.push(self.next_value);
            for group in 0..self.windows.len() {
                let (page, offset) = twin.sequence.slot_of(group, position).expect("a reserved position has a slot");
                self.storage.insert((group, page, offset), self.next_value);
            }
        }
        if tokens > twin.reserved {
            return assert!(matches!(twin.sequence.commit(tokens), Err(Error::Cache { .. })));
        }
        twin.sequence.commit(tokens).unwrap();
        twin.values.extend(&written[..tokens as usize]);
        twin.reserved = 0;
        twin.copied.clear();
        let next = twin.values.len() as u32;
        for (window, evicted) in self.windows.iter().zip(&mut twin.evicted) {
            let behind = window.map_or(0, |window| (next + 1).saturating_sub(window + self.limits.rollback_tokens));
            *evicted = (*evicted).max(behind / PAGE_POSITIONS);
        }
    }

    fn check(&self) {
        for twin in &self.twins {
            self.check_twin(twin);
        }
        self.check_counts();
    }

    fn check_twin(&self, Twin { sequence, values, reserved, evicted, pending, .. }: &Twin) {
        let (len, end) = (values.len() as u32, values.len() as u32 + reserved);
        assert_eq!((sequence.len(), sequence.reserved()), (len, *reserved));
        for (group, evicted) in evicted.iter().enumerate() {
            let table = sequence.table(group);
            assert_eq!(table.len() as u32, end.div_ceil(PAGE_POSITIONS));
            let held = table.iter().enumerate().all(|(index, page)| page.is_some() == (index as u32 >= *evicted));
            assert!(held, "group {group}: {table:?} must lack exactly its first {evicted} pages");
            assert_eq!(sequence.slot_of(group, end), None);
            for (position, value) in (0..).zip(values).filter(|_| pending.is_empty()) {
                let slot = sequence.slot_of(group, position);
                assert_eq!(slot.is_some(), position / PAGE_POSITIONS >= *evicted);
                let read = slot.map(|(page, offset)| self.storage.get(&(group, page, offset)));
                assert!(read.is_none_or(|read| read == Some(value)), "group {group}, position {position}: {read:?}");
            }
        }
    }

    fn check_counts(&self) {
        for (group, stats) in self.cache.stats().into_iter().enumerate() {
            let mut holders: HashMap<PageId, u32> = HashMap::new();
            for twin in &self.twins {
                let copied = twin.copied.iter().filter(|(of, _)| *of == group).map(|(_, page)| page);
                for page in twin.sequence.table(group).iter().flatten().chain(copied) {
                    *holders.entry(*page).or_default() += 1;
                }
            }
            assert_eq!(stats.used_pages as usize, holders.len(), "group {group}: pages leak, or are free and held");
            assert_eq!(stats.shared_pages as usize, holders.values().filter(|count| **count > 1).count());
            assert_eq!(stats.used_pages + stats.free_pages, stats.capacity_pages);
            assert!(holders.keys().all(|page| page.get() < stats.touched_pages));
            assert!(stats.touched_pages <= stats.capacity_pages);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn sequences_read_back_their_own_values(
        windows in prop::collection::vec(window(), 1..4),
        (sequences, most_twins) in (1..5_u32, 1..8_usize),
        (context_tokens, rollback_tokens) in (prop_oneof![1..300_u32, 200..300_u32], prop_oneof![Just(0), 0..70_u32]),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let limits = CacheLimits { context_tokens, sequences, chunk_tokens: 64, rollback_tokens, snapshots: 2 };
        let mut world = World::new(windows, limits, most_twins);
        for step in &steps {
            world.take(step);
            world.check();
        }
        (0..world.twins.len()).for_each(|of| world.copy_pending(of));
        world.check();
        world.twins.clear();
        prop_assert!(world.cache.stats().iter().all(|group| group.used_pages == 0 && group.shared_pages == 0));
    }
}
