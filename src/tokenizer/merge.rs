//! The merge loop that SentencePiece and byte-pair tokenizers share.
//!
//! A piece of text starts as symbols (characters or bytes). Again and again the neighbouring pair with the lowest rank,
//! the leftmost of equals, becomes one symbol, until no pair has a rank.
//!
//! Words are cut at [`Seams`] first, and short pieces, that is nearly all, are merged by scanning a small array of runs
//! of equal symbols, so that a million spaces are one entry. Long pieces go through a queue with one bucket a rank.

use super::interner::{FREE, hash, mix, pack, tag};
use super::seams::Seams;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A symbol that takes part in no merge: a character that the vocabulary lacks.
pub(super) const NO_SYMBOL: u32 = u32::MAX;
/// What a pair that does not merge becomes.
pub(super) const NO_MERGE: u32 = u32::MAX;
/// The rank of a pair that does not merge.
const NO_RANK: u32 = u32::MAX;
/// Rules make no longer symbols, so that lengths stay small. No vocabulary has a use for them.
pub(super) const LONGEST_SYMBOL_BYTES: usize = u16::MAX as usize;
/// Up to this many runs of symbols the quadratic scan is the faster one.
const SCAN_RUNS: usize = 48;

/// The rules of one vocabulary.
pub(super) trait Rules {
    /// One more than the highest rank.
    fn rank_count(&self) -> usize;
    /// Where no merge can cross.
    fn seams(&self) -> &Seams;
    /// The symbol that `text` starts with and its length in bytes, at least 1.
    fn first_symbol(&self, text: &[u8]) -> (u32, usize);
    /// The id of a word that is taken as it is, whatever the merges would make of it. No seam runs through such a word.
    fn whole(&self, _word: &[u8]) -> Option<u32> {
        None
    }
    /// The symbol that two bytes merge to, if that is known without looking far. Where words are taken whole, it is what
    /// the word of these bytes is taken as.
    fn merged_bytes(&self, _first: u8, _second: u8) -> Option<u32> {
        None
    }
    /// The merge that `left` and `right` take part in; `joined` is the text of the two together.
    fn merge(&self, left: u32, right: u32, joined: &[u8]) -> Option<u32>;
    /// The order of a merge: lower ranks first.
    fn rank(&self, merge: u32) -> u32;
    /// The symbol that a merge makes.
    fn merged(&self, merge: u32) -> u32;
    /// Writes the ids of one final symbol.
    fn emit(&self, symbol: u32, text: &[u8], ids: &mut Vec<u32>);
}

/// The rank of a merge or of [`NO_MERGE`].
#[inline]
fn rank_of(rules: &impl Rules, merge: u32) -> u32 {
    if merge == NO_MERGE { NO_RANK } else { rules.rank(merge) }
}

/// Working memory for one text, reused from piece to piece.
#[derive(Default)]
pub(super) struct Merger {
    runs: Vec<Run>,
    queue: Queue,
    pieces: PieceCache,
    long_pieces: LongPieceCache,
    pairs: PairCache,
}

impl Merger {
    /// For a text of this many bytes: short texts do without caches, which would not pay.
    pub(super) fn for_text(text_bytes: usize) -> Self {
        let mut merger = Merger::default();
        if text_bytes >= 2048 {
            merger.pieces = PieceCache::new();
            merger.long_pieces = LongPieceCache::new();
            merger.pairs = PairCache::new();
        }
        merger
    }

    /// Appends the ids of the word that is the first `word_bytes` of `text`; it may be a whole text, or empty. Equal words
    /// give equal ids, so recent ones are remembered.
    #[inline]
    pub(super) fn encode(&mut self, rules: &impl Rules, text: &[u8], word_bytes: usize, ids: &mut Vec<u32>) {
        if !self.pieces.recall(text, word_bytes, ids) {
            self.encode_new(rules, text, word_bytes, ids);
        }
    }

    fn encode_new(&mut self, rules: &impl Rules, text: &[u8], word_bytes: usize, ids: &mut Vec<u32>) {
        let (word, before) = (&text[..word_bytes], ids.len());
        let mut start = 0;
        while start < word_bytes {
            let piece_bytes = rules.seams().first_piece_bytes(&word[start..]);
            let piece = &word[start..start + piece_bytes];
            if piece_bytes == word_bytes {
                self.encode_piece(rules, true, piece, ids);
            } else if !self.pieces.recall(&text[start..], piece_bytes, ids) {
                let before = ids.len();
                self.encode_piece(rules, false, piece, ids);
                self.pieces.remember(piece, &ids[before..]);
            }
            start += piece_bytes;
        }
        self.pieces.remember(word, &ids[before..]);
    }

    /// Appends the ids of what has no seam.
    fn encode_piece(&mut self, rules: &impl Rules, is_word: bool, piece: &[u8], ids: &mut Vec<u32>) {
        match *piece {
            // One byte has nothing to merge with, and is a token whether or not words are taken whole.
            [_] => return rules.emit(rules.first_symbol(piece).0, piece, ids),
            // So is what two bytes merge to.
            [first, second] if let Some(symbol) = rules.merged_bytes(first, second) => {
                return rules.emit(symbol, piece, ids);
            }
            _ => {}
        }
        match if is_word { rules.whole(piece) } else { None } {
            Some(id) => ids.push(id),
            None if self.long_pieces.recall(piece, ids) => {}
            None => {
                let before = ids.len();
                self.merge(rules, piece, ids);
                self.long_pieces.remember(piece, &ids[before..]);
            }
        }
    }

    fn merge(&mut self, rules: &impl Rules, piece: &[u8], ids: &mut Vec<u32>) {
        if !self.collect_runs(rules, piece) || !self.merge_runs(rules, piece) {
            return self.queue.encode(rules, &mut self.pairs, piece, ids);
        }
        let mut rest = piece;
        for run in &self.runs {
            for _ in 0..run.count {
                let text;
                (text, rest) = rest.split_at(run.bytes as usize);
                rules.emit(run.symbol, text, ids);
            }
        }
    }

    /// The piece's symbols as runs, or false if there are too many.
    fn collect_runs(&mut self, rules: &impl Rules, piece: &[u8]) -> bool {
        self.runs.clear();
        let (mut rest, mut previous): (_, &[u8]) = (piece, &[]);
        while !rest.is_empty() {
            // Unknown symbols are no run, since equal ones may have different texts.
            if let Some(run) = self.runs.last_mut().filter(|run| run.symbol != NO_SYMBOL)
                && rest.starts_with(previous)
            {
                run.count += 1;
                rest = &rest[previous.len()..];
                continue;
            }
            if self.runs.len() == SCAN_RUNS {
                return false;
            }
            let (symbol, bytes) = rules.first_symbol(rest);
            (previous, rest) = rest.split_at(bytes);
            self.runs.push(Run { symbol, bytes: bytes as u32, count: 1, inner: NO_MERGE, outer: NO_MERGE });
        }
        true
    }

    /// Merges until nothing merges, or says false when runs fall apart into too many.
    fn merge_runs(&mut self, rules: &impl Rules, piece: &[u8]) -> bool {
        let mut start = 0;
        for i in 0..self.runs.len() {
            self.look_up(rules, piece, i, start);
            start += self.runs[i].total_bytes();
        }
        while let Some((i, inside)) = self.lowest(rules) {
            if self.runs.len() > 2 * SCAN_RUNS {
                return false;
            }
            let first = i.saturating_sub(1);
            let mut start = self.runs[..first].iter().map(Run::total_bytes).sum();
            let touched = match inside {
                true => self.merge_inside(rules, piece, i, start),
                false => self.merge_across(rules, i),
            };
            // The pairs before, in and behind the runs that changed.
            for i in first..(i + touched).min(self.runs.len()) {
                self.look_up(rules, piece, i, start);
                start += self.runs[i].total_bytes();
            }
        }
        true
    }

    /// Looks up what merges inside run `i`, which starts at byte `start`, and between it and the next run.
    fn look_up(&mut self, rules: &impl Rules, piece: &[u8], i: usize, start: usize) {
        let (run, bytes) = (self.runs[i], self.runs[i].bytes as usize);
        let mut inner = NO_MERGE;
        if run.count > 1 {
            inner = self.pairs.merge(rules, run.symbol, run.symbol, &piece[start..start + 2 * bytes]);
        }
        let mut outer = NO_MERGE;
        if let Some(&next) = self.runs.get(i + 1) {
            let end = start + run.total_bytes();
            outer = self.pairs.merge(rules, run.symbol, next.symbol, &piece[end - bytes..end + next.bytes as usize]);
        }
        self.runs[i] = Run { inner, outer, ..run };
    }

    /// The run in or behind which the next merge happens, and whether it is in it: the lowest rank, the leftmost of
    /// equals.
    #[inline]
    fn lowest(&self, rules: &impl Rules) -> Option<(usize, bool)> {
        let (mut lowest, mut found) = (NO_RANK, None);
        for (i, run) in self.runs.iter().enumerate() {
            for (merge, inside) in [(run.inner, true), (run.outer, false)] {
                let rank = rank_of(rules, merge);
                if rank < lowest {
                    (lowest, found) = (rank, Some((i, inside)));
                }
            }
        }
        found
    }

    /// Merges the symbols of run `i` two by two, all at once where nothing can come between, otherwise the first two.
    /// The run before it, or it itself if it is the first, starts at byte `start`. Returns how many runs are new.
    fn merge_inside(&mut self, rules: &impl Rules, piece: &[u8], i: usize, start: usize) -> usize {
        let run = self.runs[i];
        let merged = rules.merged(run.inner);
        let bytes = run.bytes as usize;
        let before = if i > 0 { Some(self.runs[i - 1]) } else { None };
        let start = start + before.map_or(0, |before| before.total_bytes());
        // A new symbol comes to stand behind the one before the run, before an old one and behind another new one. The
        // run's next two merge next, unless one of these pairs goes first.
        let mut waits = |left, right, joined: &[u8]| {
            let merge = self.pairs.merge(rules, left, right, joined);
            rank_of(rules, merge) > rules.rank(run.inner)
        };
        let all_at_once = run.count > 2
            && waits(merged, run.symbol, &piece[start..start + 3 * bytes])
            && (run.count < 4 || waits(merged, merged, &piece[start..start + 4 * bytes]))
            && before.is_none_or(|b| waits(b.symbol, merged, &piece[start - b.bytes as usize..start + 2 * bytes]));
        let pairs = if all_at_once { run.count / 2 } else { 1 };
        self.runs[i] = Run { symbol: merged, bytes: 2 * run.bytes, count: pairs, ..run };
        if run.count > 2 * pairs {
            self.runs.insert(i + 1, Run { count: run.count - 2 * pairs, ..run });
        }
        2
    }

    /// Merges the last symbol of run `i` with the first of the next. Returns how many runs are new or shorter.
    fn merge_across(&mut self, rules: &impl Rules, i: usize) -> usize {
        let (left, right) = (self.runs[i], self.runs[i + 1]);
        let merged = Run { symbol: rules.merged(left.outer), bytes: left.bytes + right.bytes, count: 1, ..left };
        self.runs[i].count -= 1;
        self.runs[i + 1].count -= 1;
        match (left.count > 1, right.count > 1) {
            (true, true) => {
                self.runs.insert(i + 1, merged);
                3
            }
            (true, false) => {
                self.runs[i + 1] = merged;
                2
            }
            (false, true) => {
                self.runs[i] = merged;
                2
            }
            (false, false) => {
                self.runs[i] = merged;
                self.runs.remove(i + 1);
                1
            }
        }
    }
}

/// Neighbouring equal symbols of a short piece.
#[derive(Clone, Copy)]
struct Run {
    symbol: u32,
    /// Of one symbol.
    bytes: u32,
    count: u32,
    /// The merge of two symbols of the run.
    inner: u32,
    /// The merge of the last symbol with the next run's first.
    outer: u32,
}

impl Run {
    #[inline]
    fn total_bytes(&self) -> usize {
        self.bytes as usize * self.count as usize
    }
}

/// A symbol of a long piece, kept at the index of its first byte, so that positions need no field of their own.
#[derive(Clone, Copy)]
struct Node {
    symbol: u32,
    /// The merge with the next symbol.
    merge: u32,
    /// The lengths of the symbol before and of this one.
    previous_bytes: u16,
    bytes: u16,
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
    ranks: BinaryHeap<Reverse<u32>>,
}

/// The positions of one rank, handed out from left to right. Some are stale: their pair has changed since.
#[derive(Default)]
struct Bucket {
    positions: Vec<u32>,
    taken: usize,
    /// Positions that came out of order after the first was taken.
    late: BinaryHeap<Reverse<u32>>,
    started: bool,
}

impl Bucket {
    #[inline]
    fn push(&mut self, position: u32) {
        match self.positions.last() {
            Some(&last) if self.started && last > position => self.late.push(Reverse(position)),
            _ => self.positions.push(position),
        }
    }

    #[inline]
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
        while let Some(&Reverse(rank)) = self.ranks.peek() {
            let bucket = self.bucket_of[rank as usize] - 1;
            match self.buckets[bucket as usize].pop() {
                Some(position) if rank_of(rules, self.nodes[position as usize].merge) == rank => {
                    self.merge_at(rules, pairs, piece, position as usize);
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
        while let Some(node) = self.nodes.get(at) {
            let end = at + usize::from(node.bytes);
            rules.emit(node.symbol, &piece[at..end], ids);
            at = end;
        }
    }

    fn seed(&mut self, rules: &impl Rules, pairs: &mut PairCache, piece: &[u8]) {
        self.bucket_of.resize(rules.rank_count(), 0);
        self.nodes.clear();
        self.nodes.reserve_exact(piece.len());
        let (mut symbol, mut previous): (_, &[u8]) = (NO_SYMBOL, &[]);
        while self.nodes.len() < piece.len() {
            let (at, previous_bytes) = (self.nodes.len(), previous.len());
            if previous.is_empty() || !piece[at..].starts_with(previous) {
                let bytes;
                (symbol, bytes) = rules.first_symbol(&piece[at..]);
                previous = &piece[at..at + bytes];
            }
            let (bytes, previous_bytes16) = (previous.len() as u16, previous_bytes as u16);
            let node = Node { symbol, merge: NO_MERGE, previous_bytes: previous_bytes16, bytes };
            self.nodes.resize(at + previous.len(), node);
            if at > 0 {
                self.update(rules, pairs, piece, at - previous_bytes);
            }
        }
    }

    /// Joins the node with its right neighbour and looks at the two pairs that this makes.
    #[inline]
    fn merge_at(&mut self, rules: &impl Rules, pairs: &mut PairCache, piece: &[u8], at: usize) {
        let node = self.nodes[at];
        let right = at + usize::from(node.bytes);
        self.nodes[right].merge = NO_MERGE;
        let bytes = node.bytes + self.nodes[right].bytes;
        self.nodes[at] = Node { symbol: rules.merged(node.merge), merge: NO_MERGE, bytes, ..node };
        if let Some(next) = self.nodes.get_mut(at + usize::from(bytes)) {
            next.previous_bytes = bytes;
        }
        if at > 0 {
            self.update(rules, pairs, piece, at - usize::from(node.previous_bytes));
        }
        self.update(rules, pairs, piece, at);
    }

    /// Looks up what the node and its right neighbour become, and queues it.
    #[inline]
    fn update(&mut self, rules: &impl Rules, pairs: &mut PairCache, piece: &[u8], at: usize) {
        let node = self.nodes[at];
        let right = at + usize::from(node.bytes);
        let Some(next) = self.nodes.get(right) else { return };
        let end = right + usize::from(next.bytes);
        let merge = pairs.merge(rules, node.symbol, next.symbol, &piece[at..end]);
        self.nodes[at].merge = merge;
        if merge != NO_MERGE {
            self.bucket(rules.rank(merge)).push(at as u32);
        }
    }

    #[inline]
    fn bucket(&mut self, rank: u32) -> &mut Bucket {
        let slot = &mut self.bucket_of[rank as usize];
        if *slot == 0 {
            let bucket = self.free.pop().unwrap_or_else(|| {
                self.buckets.push(Bucket::default());
                self.buckets.len() as u32 - 1
            });
            *slot = bucket + 1;
            self.ranks.push(Reverse(rank));
        }
        &mut self.buckets[*slot as usize - 1]
    }
}

/// The merges of symbol pairs looked up lately, small enough for the nearest cache of the processor.
#[derive(Default)]
struct PairCache {
    /// Left symbol, right symbol, merge.
    entries: Vec<(u32, u32, u32)>,
}

const CACHED_PAIRS: usize = 1 << 11;

impl PairCache {
    fn new() -> Self {
        PairCache { entries: vec![(NO_SYMBOL, NO_SYMBOL, NO_MERGE); CACHED_PAIRS] }
    }

    #[inline]
    fn merge(&mut self, rules: &impl Rules, left: u32, right: u32, joined: &[u8]) -> u32 {
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

const CACHED_PIECES: usize = 1 << 15;
const CACHED_IDS: usize = 3;
const CACHED_BYTES: usize = 16;

/// The ids of pieces seen lately. One entry a hash: a newer piece evicts an older one.
#[derive(Default)]
struct PieceCache {
    /// As in [`Interner`](super::interner::Interner): these bytes alone tell of most new pieces that they are new.
    tags: Vec<u8>,
    entries: Vec<Entry>,
}

/// Two of them make one line of the processor's caches, and none lies in two.
#[derive(Clone, Copy)]
#[repr(align(32))]
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
        PieceCache { tags: vec![FREE; CACHED_PIECES], entries: vec![free; CACHED_PIECES] }
    }

    /// The key, the tag and the place of the piece that is the first `piece_bytes` of `text`.
    #[inline]
    fn slot(&self, text: &[u8], piece_bytes: usize) -> Option<((u64, u64), u8, usize)> {
        let masks = MASKS.get(piece_bytes).filter(|_| !self.entries.is_empty())?;
        let (low, high) = match text.first_chunk::<CACHED_BYTES>() {
            // Pieces of all lengths are loaded alike: no question is asked whose answer the processor cannot foresee.
            Some(chunk) => pack(chunk),
            None => pack(&padded(&text[..piece_bytes])),
        };
        let packed = (low & masks.0, high & masks.1);
        let hash = mix(packed.0 ^ piece_bytes as u64, packed.1);
        Some((packed, tag(hash), hash as usize & (CACHED_PIECES - 1)))
    }

    #[inline]
    fn recall(&self, text: &[u8], piece_bytes: usize, ids: &mut Vec<u32>) -> bool {
        let Some((packed, tag, slot)) = self.slot(text, piece_bytes) else { return false };
        if self.tags[slot] != tag {
            return false;
        }
        let entry = &self.entries[slot];
        let known = entry.packed == packed && usize::from(entry.piece_bytes) == piece_bytes;
        if known {
            // As above: always all, then as many as there are.
            let end = ids.len() + usize::from(entry.id_count);
            ids.extend_from_slice(&entry.ids);
            ids.truncate(end);
        }
        known
    }

    fn remember(&mut self, piece: &[u8], ids: &[u32]) {
        if ids.len() <= CACHED_IDS
            && let Some((packed, tag, slot)) = self.slot(piece, piece.len())
        {
            let mut kept = [0; CACHED_IDS];
            kept[..ids.len()].copy_from_slice(ids);
            self.tags[slot] = tag;
            self.entries[slot] = Entry { packed, piece_bytes: piece.len() as u8, id_count: ids.len() as u8, ids: kept };
        }
    }
}

/// The ids of pieces too long for a [`PieceCache`], of which few occur, the same few again and again: rows of one sign.
#[derive(Default)]
struct LongPieceCache {
    /// Pieces and their ids. One entry a hash, here too.
    entries: Vec<(Vec<u8>, Vec<u32>)>,
}

const LONG_PIECES: usize = 1 << 8;
const LONG_PIECE_BYTES: std::ops::RangeInclusive<usize> = CACHED_BYTES + 1..=256;

impl LongPieceCache {
    fn new() -> Self {
        LongPieceCache { entries: vec![(vec![], vec![]); LONG_PIECES] }
    }

    #[inline]
    fn slot(&self, piece: &[u8]) -> Option<usize> {
        let fits = LONG_PIECE_BYTES.contains(&piece.len()) && !self.entries.is_empty();
        fits.then(|| hash(piece) as usize & (LONG_PIECES - 1))
    }

    #[inline]
    fn recall(&self, piece: &[u8], ids: &mut Vec<u32>) -> bool {
        let entry = self.slot(piece).map(|slot| &self.entries[slot]).filter(|entry| entry.0 == piece);
        ids.extend(entry.iter().flat_map(|entry| &entry.1));
        entry.is_some()
    }

    fn remember(&mut self, piece: &[u8], ids: &[u32]) {
        if let Some(slot) = self.slot(piece) {
            self.entries[slot].0.clear();
            self.entries[slot].0.extend_from_slice(piece);
            self.entries[slot].1.clear();
            self.entries[slot].1.extend_from_slice(ids);
        }
    }
}

/// `MASKS[n]` keeps the first `n` of [`CACHED_BYTES`] bytes that [`pack`] has packed.
const MASKS: [(u64, u64); CACHED_BYTES + 1] = {
    let mut masks = [(0, 0); CACHED_BYTES + 1];
    let mut bytes = 1;
    while bytes <= CACHED_BYTES {
        let mask = u128::MAX >> (8 * (CACHED_BYTES - bytes));
        masks[bytes] = (mask as u64, (mask >> 64) as u64);
        bytes += 1;
    }
    masks
};

/// A piece of at most [`CACHED_BYTES`] bytes with zeros behind it.
fn padded(piece: &[u8]) -> [u8; CACHED_BYTES] {
    let mut padded = [0; CACHED_BYTES];
    padded[..piece.len()].copy_from_slice(piece);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vocabulary over lower-case letters, its merges drawn at random: symbols are indices into `words`.
    struct Toy {
        words: Vec<Vec<u8>>,
        seams: Seams,
        /// The index of each pair's merge in `made`.
        merges: std::collections::HashMap<(u32, u32), u32>,
        /// Rank and symbol of each merge.
        made: Vec<(u32, u32)>,
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
                made: vec![],
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
                toy.merges.insert((left, right), toy.made.len() as u32);
                toy.made.push((rank_of(i), symbol as u32));
            }
            toy
        }

        /// The definition, as slowly and plainly as possible.
        fn naive(&self, piece: &[u8]) -> Vec<u32> {
            let mut symbols: Vec<u32> = piece.iter().map(|&b| u32::from(b - b'a')).collect();
            loop {
                let pairs =
                    symbols.windows(2).enumerate().filter_map(|(i, w)| Some((self.merges.get(&(w[0], w[1]))?, i)));
                let Some((&merge, i)) = pairs.min_by_key(|&(&merge, i)| (self.rank(merge), i)) else { return symbols };
                symbols[i] = self.merged(merge);
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
        fn merge(&self, left: u32, right: u32, joined: &[u8]) -> Option<u32> {
            let merge = self.merges.get(&(left, right)).copied();
            assert!(merge.is_none_or(|merge| self.words[self.merged(merge) as usize] == joined));
            merge
        }
        fn rank(&self, merge: u32) -> u32 {
            self.made[merge as usize].0
        }
        fn merged(&self, merge: u32) -> u32 {
            self.made[merge as usize].1
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
            let run = 1 + random(state) % 9;
            let mut letter = 0;
            let piece: Vec<u8> = (0..length)
                .map(|i| {
                    letter = if i % run == 0 { random(state) % letters } else { letter };
                    b'a' + letter as u8
                })
                .collect();
            let mut ids = Vec::new();
            merger.encode(toy, &piece, piece.len(), &mut ids);
            assert_eq!(ids, toy.naive(&piece), "{}", String::from_utf8_lossy(&piece));
            let mut recalled = Vec::new();
            merger.encode(toy, &piece, piece.len(), &mut recalled);
            assert_eq!(ids, recalled, "the second time: {}", String::from_utf8_lossy(&piece));
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
            toy.merges.insert((level, level), level);
            toy.made.push((level, level + 1));
        }
        let mut ids = Vec::new();
        let text = vec![b'a'; (1 << 20) + 5];
        Merger::default().encode(&toy, &text, text.len(), &mut ids);
        let mut expected = vec![4; 1 << 16];
        expected.extend([2, 0]);
        assert_eq!(ids, expected);
    }
}
