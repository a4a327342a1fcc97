//! The merge loop that SentencePiece and byte-pair tokenizers share.
//!
//! A piece of text starts as symbols (characters or bytes). Again and again the neighbouring pair with the lowest rank,
//! the leftmost of equals, becomes one symbol, until no pair has a rank. Short pieces, that is nearly all, are merged by
//! scanning a small array. Long ones go through a queue with one bucket a rank, so that ten million equal characters
//! cost little more a character than English does.

use super::interner::{mix, pack};
use super::seams::Seams;

/// A symbol that takes part in no merge: a character that the vocabulary lacks.
pub(super) const NO_SYMBOL: u32 = u32::MAX;
/// The rank of a pair that does not merge.
const NO_RANK: u32 = u32::MAX;
/// Up to this many symbols the quadratic scan is the faster one.
const SCAN_SYMBOLS: usize = 48;

/// What two neighbouring symbols become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merge {
    /// The order of merging: lower ranks first.
    pub(super) rank: u32,
    /// The symbol that takes the place of the two.
    pub(super) symbol: u32,
}

const NO_MERGE: Merge = Merge { rank: NO_RANK, symbol: NO_SYMBOL };

/// The rules of one vocabulary.
pub(super) trait Rules {
    /// One more than the highest rank.
    fn rank_count(&self) -> usize;
    /// Where no merge can cross.
    fn seams(&self) -> &Seams;
    /// The symbol that `text` starts with and its length in bytes, at least 1.
    fn first_symbol(&self, text: &[u8]) -> (u32, usize);
    /// The id of a word that is taken as it is, whatever the merges would make of it.
    fn whole(&self, _word: &[u8]) -> Option<u32> {
        None
    }
    /// What `left` and `right` become; `joined` is the text of the two together.
    fn merge(&self, left: u32, right: u32, joined: &[u8]) -> Option<Merge>;
    /// Writes the ids of one final symbol.
    fn emit(&self, symbol: u32, text: &[u8], ids: &mut Vec<u32>);
}

/// Working memory for one text, reused from piece to piece.
#[derive(Default)]
pub(super) struct Merger {
    scan: Vec<Scanned>,
    queue: Queue,
    pieces: PieceCache,
    pairs: PairCache,
}

impl Merger {
    /// For a text of this many bytes: short texts do without caches, which would not pay.
    pub(super) fn for_text(text_bytes: usize) -> Self {
        let mut merger = Merger::default();
        if text_bytes >= 2048 {
            merger.pieces = PieceCache::new();
            merger.pairs = PairCache::new();
        }
        merger
    }

    /// Appends the ids of one word, which may be a whole text. Equal words give equal ids, so recent ones are remembered.
    pub(super) fn encode(&mut self, rules: &impl Rules, word: &[u8], ids: &mut Vec<u32>) {
        if self.pieces.recall(word, ids) {
            return;
        }
        let before = ids.len();
        match rules.whole(word) {
            Some(id) => ids.push(id),
            None => self.encode_pieces(rules, word, ids),
        }
        self.pieces.remember(word, &ids[before..]);
    }

    fn encode_pieces(&mut self, rules: &impl Rules, word: &[u8], ids: &mut Vec<u32>) {
        let mut rest = word;
        while !rest.is_empty() {
            let piece;
            (piece, rest) = rest.split_at(rules.seams().first_piece_bytes(rest));
            if !self.pieces.recall(piece, ids) {
                let before = ids.len();
                self.merge(rules, piece, ids);
                self.pieces.remember(piece, &ids[before..]);
            }
        }
    }

    fn merge(&mut self, rules: &impl Rules, piece: &[u8], ids: &mut Vec<u32>) {
        self.scan.clear();
        let mut at = 0;
        while at < piece.len() {
            if self.scan.len() == SCAN_SYMBOLS {
                return self.queue.encode(rules, &mut self.pairs, piece, ids);
            }
            let (symbol, bytes) = rules.first_symbol(&piece[at..]);
            self.scan.push(Scanned { start: at as u32, symbol, merge: NO_MERGE });
            at += bytes;
        }
        self.scan_merge(rules, piece);
        for i in 0..self.scan.len() {
            let text = &piece[self.start_of(i, piece)..self.start_of(i + 1, piece)];
            rules.emit(self.scan[i].symbol, text, ids);
        }
    }

    fn scan_merge(&mut self, rules: &impl Rules, piece: &[u8]) {
        for i in 0..self.scan.len() {
            self.scan[i].merge = self.merge_at(rules, piece, i);
        }
        loop {
            let mut best = (NO_RANK, 0);
            for (i, scanned) in self.scan.iter().enumerate() {
                if scanned.merge.rank < best.0 {
                    best = (scanned.merge.rank, i);
                }
            }
            let (rank, i) = best;
            if rank == NO_RANK {
                return;
            }
            self.scan[i].symbol = self.scan[i].merge.symbol;
            self.scan.remove(i + 1);
            self.scan[i].merge = self.merge_at(rules, piece, i);
            if i > 0 {
                self.scan[i - 1].merge = self.merge_at(rules, piece, i - 1);
            }
        }
    }

    #[inline]
    fn merge_at(&mut self, rules: &impl Rules, piece: &[u8], i: usize) -> Merge {
        let [left, right, ..] = &self.scan[i..] else { return NO_MERGE };
        let joined = &piece[left.start as usize..self.start_of(i + 2, piece)];
        self.pairs.merge(rules, left.symbol, right.symbol, joined)
    }

    #[inline]
    fn start_of(&self, i: usize, piece: &[u8]) -> usize {
        self.scan.get(i).map_or(piece.len(), |scanned| scanned.start as usize)
    }
}

/// A symbol of a short piece, and what it and its right neighbour would become.
struct Scanned {
    start: u32,
    symbol: u32,
    merge: Merge,
}

/// No neighbour on this side.
const NO_LINK: u32 = u32::MAX;

/// A symbol of a long piece, kept at the index of its first byte, so that positions need no field of their own.
#[derive(Clone, Copy)]
struct Node {
    symbol: u32,
    previous: u32,
    next: u32,
    merge: Merge,
}

/// Merges long pieces: one bucket of positions a rank, and the ranks in use in a heap.
#[derive(Default)]
struct Queue {
    nodes: Vec<Node>,
    /// `bucket_of[rank]` is the bucket's index + 1; 0 is none.
    bucket_of: Vec<u32>,
    buckets: Vec<Bucket>,
    /// Emptied buckets, for reuse.
    free: Vec<u32>,
    ranks: std::collections::BinaryHeap<std::cmp::Reverse<u32>>,
}

/// The positions of one rank, handed out from left to right. Some are stale: their pair has changed since.
#[derive(Default)]
struct Bucket {
    positions: Vec<u32>,
    taken: usize,
    /// Positions that came out of order after the first was taken.
    late: std::collections::BinaryHeap<std::cmp::Reverse<u32>>,
    started: bool,
}

impl Bucket {
    fn push(&mut self, position: u32) {
        match self.positions.last() {
            Some(&last) if self.started && last > position => self.late.push(std::cmp::Reverse(position)),
            _ => self.positions.push(position),
        }
    }

    fn pop(&mut self) -> Option<u32> {
        if !self.started {
            self.started = true;
            self.positions.sort();
        }
        let next = self.positions.get(self.taken).copied();
        match (next, self.late.peek()) {
            (Some(next), Some(late)) if late.0 < next => self.late.pop().map(|late| late.0),
            (Some(next), _) => {
                self.taken += 1;
                Some(next)
            }
            (None, _) => self.late.pop().map(|late| late.0),
        }
    }

    fn clear(&mut self) {
        self.positions.clear();
        self.late.clear();
        self.taken = 0;
        self.started = false;
    }
}

impl Queue {
    fn encode(&mut self, rules: &impl Rules, pairs: &mut PairCache, piece: &[u8], ids: &mut Vec<u32>) {
        self.seed(rules, pairs, piece);
        while let Some(&std::cmp::Reverse(rank)) = self.ranks.peek() {
            let bucket = self.bucket_of[rank as usize] - 1;
            match self.buckets[bucket as usize].pop() {
                Some(position) if self.nodes[position as usize].merge.rank == rank => {
                    self.merge_at(rules, pairs, piece, position);
                }
                Some(_) => {}
                None => {
                    self.ranks.pop();
                    self.bucket_of[rank as usize] = 0;
                    self.buckets[bucket as usize].clear();
                    self.free.push(bucket);
                }
            }
        }
        let mut at = 0;
        while at != NO_LINK {
            let node = self.nodes[at as usize];
            let end = if node.next == NO_LINK { piece.len() } else { node.next as usize };
            rules.emit(node.symbol, &piece[at as usize..end], ids);
            at = node.next;
        }
    }

    fn seed(&mut self, rules: &impl Rules, pairs: &mut PairCache, piece: &[u8]) {
        const FREE: Node = Node { symbol: NO_SYMBOL, previous: NO_LINK, next: NO_LINK, merge: NO_MERGE };
        self.bucket_of.resize(rules.rank_count(), 0);
        self.nodes.clear();
        self.nodes.resize(piece.len(), FREE);
        let (mut at, mut previous) = (0, NO_LINK);
        while at < piece.len() {
            let (symbol, bytes) = rules.first_symbol(&piece[at..]);
            let next = if at + bytes < piece.len() { (at + bytes) as u32 } else { NO_LINK };
            self.nodes[at] = Node { symbol, previous, next, merge: NO_MERGE };
            if previous != NO_LINK {
                self.update(rules, pairs, piece, previous);
            }
            previous = at as u32;
            at += bytes;
        }
    }

    /// Joins the node with its right neighbour and looks at the two pairs that this makes.
    fn merge_at(&mut self, rules: &impl Rules, pairs: &mut PairCache, piece: &[u8], position: u32) {
        let node = self.nodes[position as usize];
        let right = self.nodes[node.next as usize];
        self.nodes[node.next as usize].merge = NO_MERGE;
        if right.next != NO_LINK {
            self.nodes[right.next as usize].previous = position;
        }
        self.nodes[position as usize] = Node { symbol: node.merge.symbol, next: right.next, ..node };
        if node.previous != NO_LINK {
            self.update(rules, pairs, piece, node.previous);
        }
        self.update(rules, pairs, piece, position);
    }

    /// Looks up what the node and its right neighbour become, and queues it.
    fn update(&mut self, rules: &impl Rules, pairs: &mut PairCache, piece: &[u8], position: u32) {
        let node = self.nodes[position as usize];
        let mut merge = NO_MERGE;
        if node.next != NO_LINK {
            let right = self.nodes[node.next as usize];
            let end = if right.next == NO_LINK { piece.len() } else { right.next as usize };
            merge = pairs.merge(rules, node.symbol, right.symbol, &piece[position as usize..end]);
        }
        self.nodes[position as usize].merge = merge;
        if merge.rank != NO_RANK {
            self.bucket(merge.rank).push(position);
        }
    }

    fn bucket(&mut self, rank: u32) -> &mut Bucket {
        let slot = &mut self.bucket_of[rank as usize];
        if *slot == 0 {
            let bucket = self.free.pop().unwrap_or_else(|| {
                self.buckets.push(Bucket::default());
                self.buckets.len() as u32 - 1
            });
            *slot = bucket + 1;
            self.ranks.push(std::cmp::Reverse(rank));
        }
        &mut self.buckets[*slot as usize - 1]
    }
}

/// The merges of symbol pairs looked up lately, small enough for the nearest cache of the processor.
#[derive(Default)]
struct PairCache {
    entries: Vec<(u32, u32, Merge)>,
}

const CACHED_PAIRS: usize = 1 << 11;

impl PairCache {
    fn new() -> Self {
        PairCache { entries: vec![(NO_SYMBOL, NO_SYMBOL, NO_MERGE); CACHED_PAIRS] }
    }

    #[inline]
    fn merge(&mut self, rules: &impl Rules, left: u32, right: u32, joined: &[u8]) -> Merge {
        let place = (left.wrapping_mul(0x9E37_79B1) ^ right.wrapping_mul(0x85EB_CA77)) >> 21;
        match self.entries.get_mut(place as usize) {
            // Unknown symbols differ in their texts, so they are no key.
            Some(entry) if left != NO_SYMBOL && right != NO_SYMBOL => {
                if (entry.0, entry.1) != (left, right) {
                    *entry = (left, right, rules.merge(left, right, joined).unwrap_or(NO_MERGE));
                }
                entry.2
            }
            _ => rules.merge(left, right, joined).unwrap_or(NO_MERGE),
        }
    }
}

const CACHED_PIECES: usize = 1 << 13;
const CACHED_IDS: usize = 5;
const CACHED_BYTES: usize = 16;

/// The ids of pieces seen lately. One entry a hash: a newer piece evicts an older one.
#[derive(Default)]
struct PieceCache {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    /// The piece itself: its bytes, packed, and their number (0: nothing is remembered here).
    packed: (u64, u64),
    piece_bytes: u8,
    id_count: u8,
    ids: [u32; CACHED_IDS],
}

impl PieceCache {
    fn new() -> Self {
        let free = Entry { packed: (0, 0), piece_bytes: 0, id_count: 0, ids: [0; CACHED_IDS] };
        PieceCache { entries: vec![free; CACHED_PIECES] }
    }

    fn slot(&self, piece: &[u8]) -> Option<((u64, u64), usize)> {
        if self.entries.is_empty() || piece.is_empty() || piece.len() > CACHED_BYTES {
            return None;
        }
        let packed = pack(piece);
        let hash = mix(packed.0 ^ piece.len() as u64, packed.1);
        Some((packed, hash as usize & (CACHED_PIECES - 1)))
    }

    #[inline]
    fn recall(&self, piece: &[u8], ids: &mut Vec<u32>) -> bool {
        let Some((packed, slot)) = self.slot(piece) else { return false };
        let entry = &self.entries[slot];
        let known = entry.packed == packed && usize::from(entry.piece_bytes) == piece.len();
        if known {
            ids.extend_from_slice(&entry.ids[..usize::from(entry.id_count)]);
        }
        known
    }

    fn remember(&mut self, piece: &[u8], ids: &[u32]) {
        let Some((packed, slot)) = self.slot(piece) else { return };
        if ids.len() <= CACHED_IDS {
            let mut kept = [0; CACHED_IDS];
            kept[..ids.len()].copy_from_slice(ids);
            self.entries[slot] = Entry { packed, piece_bytes: piece.len() as u8, id_count: ids.len() as u8, ids: kept };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vocabulary over lower-case letters, its merges drawn at random: symbols are indices into `words`.
    struct Toy {
        words: Vec<Vec<u8>>,
        seams: Seams,
        merges: std::collections::HashMap<(u32, u32), Merge>,
    }

    fn random(state: &mut u64) -> u32 {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*state >> 33) as u32
    }

    impl Toy {
        /// `rank_of` says which rank the n-th merge gets.
        fn new(seed: u64, letters: u32, merges: u32, rank_of: impl Fn(u32) -> u32) -> Self {
            let mut state = seed;
            let mut toy = Toy {
                words: (0..letters).map(|i| vec![b'a' + i as u8]).collect(),
                merges: Default::default(),
                seams: Seams::of_bytes(),
            };
            for i in 0..merges {
                let pick = toy.words.len() as u32;
                let (left, right) = (random(&mut state) % pick, random(&mut state) % pick);
                if toy.merges.contains_key(&(left, right)) {
                    continue;
                }
                let (left_word, right_word) = (toy.words[left as usize].clone(), toy.words[right as usize].clone());
                toy.seams.add_joint(&left_word, &right_word);
                let word = [left_word, right_word].concat();
                let symbol = toy.words.iter().position(|w| *w == word).unwrap_or_else(|| {
                    toy.words.push(word);
                    toy.words.len() - 1
                });
                toy.merges.insert((left, right), Merge { rank: rank_of(i), symbol: symbol as u32 });
            }
            toy
        }

        /// The definition, as slowly and plainly as possible.
        fn naive(&self, piece: &[u8]) -> Vec<u32> {
            let mut symbols: Vec<u32> = piece.iter().map(|&b| u32::from(b - b'a')).collect();
            loop {
                let pairs =
                    symbols.windows(2).enumerate().filter_map(|(i, w)| Some((self.merges.get(&(w[0], w[1]))?, i)));
                let Some((merge, i)) = pairs.min_by_key(|(merge, i)| (merge.rank, *i)) else { return symbols };
                symbols[i] = merge.symbol;
                symbols.remove(i + 1);
            }
        }
    }

    impl Rules for Toy {
        fn rank_count(&self) -> usize {
            1000
        }
        fn seams(&self) -> &Seams {
            &self.seams
        }
        fn first_symbol(&self, text: &[u8]) -> (u32, usize) {
            (u32::from(text[0] - b'a'), 1)
        }
        fn merge(&self, left: u32, right: u32, joined: &[u8]) -> Option<Merge> {
            let merge = self.merges.get(&(left, right)).copied();
            assert!(merge.is_none_or(|merge| self.words[merge.symbol as usize] == joined));
            merge
        }
        fn emit(&self, symbol: u32, text: &[u8], ids: &mut Vec<u32>) {
            assert_eq!(self.words[symbol as usize], text);
            ids.push(symbol);
        }
    }

    fn check(toy: &Toy, state: &mut u64, longest: u32) {
        let mut merger = Merger::for_text(1 << 20);
        let letters = toy.words.iter().filter(|w| w.len() == 1).count() as u32;
        for _ in 0..300 {
            let length = random(state) % longest;
            let run = 1 + random(state) % 4;
            let mut letter = 0;
            let piece: Vec<u8> = (0..length)
                .map(|i| {
                    letter = if i % run == 0 { random(state) % letters } else { letter };
                    b'a' + letter as u8
                })
                .collect();
            let mut ids = Vec::new();
            merger.encode(toy, &piece, &mut ids);
            assert_eq!(ids, toy.naive(&piece), "{}", String::from_utf8_lossy(&piece));
            let mut queued = Vec::new();
            if !piece.is_empty() {
                merger.queue.encode(toy, &mut merger.pairs, &piece, &mut queued);
            }
            assert_eq!(ids, queued, "{}", String::from_utf8_lossy(&piece));
        }
    }

    #[test]
    fn both_ways_of_merging_do_what_the_definition_says() {
        let mut state = 7;
        for seed in 0..30 {
            // Ranks in order, ranks shuffled (a later merge may come first), few distinct ranks, one rank for all.
            check(&Toy::new(seed, 3, 60, |i| i), &mut state, 150);
            check(&Toy::new(seed, 2, 40, |i| (i * 37) % 997), &mut state, 150);
            check(&Toy::new(seed, 2, 40, |i| i % 3), &mut state, 150);
            check(&Toy::new(seed, 2, 40, |_| 0), &mut state, 150);
        }
    }

    #[test]
    fn a_million_equal_letters_are_merged_by_halves() {
        let mut toy = Toy::new(0, 1, 0, |i| i);
        for level in 0..4u32 {
            let word = [toy.words[level as usize].clone(), toy.words[level as usize].clone()].concat();
            toy.words.push(word);
            toy.seams.add_joint(b"a", b"a");
            toy.merges.insert((level, level), Merge { rank: level, symbol: level + 1 });
        }
        let mut ids = Vec::new();
        Merger::default().encode(&toy, &vec![b'a'; (1 << 20) + 5], &mut ids);
        let mut expected = vec![4; 1 << 16];
        expected.extend([2, 0]);
        assert_eq!(ids, expected);
    }
}
