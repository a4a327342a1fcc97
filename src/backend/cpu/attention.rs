//! Attention over pages: each page of keys and values is decoded once for all query heads that share it and for a block
//! of tokens, and the softmax is kept up to date as pages go by, so nothing as long as the context is ever held.
//!
//! Work is cut by blocks of tokens and heads of keys and values; where that gives too few pieces for the workers, as it
//! does for one token behind a long text, by pages too, and the unfinished softmaxes are put together at the end.

use super::memory::PageMemory;
use super::pool::Pool;
use super::simd::attend::{PAGE, Page, Softmaxes};
use super::simd::{Level, on};
use crate::backend::batch::missing_page;
use crate::cache::{LayerPlace, PageId};
use crate::program::KeyValues;
use crate::{Error, Result};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Queries that go through a page together, about: enough to make decoding it cheap, few enough to stay near.
const BLOCK_QUERIES: usize = 64;
/// Pieces of work that there should be for each worker.
const PIECES: usize = 2;
/// Pages that are worth a piece of their own.
const SPLIT_PAGES: usize = 8;
/// What is not worth waking anybody for: products of queries and keys.
const ALONE_PRODUCTS: usize = 1 << 14;

/// One attention of a batch.
pub(super) struct Attention {
    pub level: Level,
    pub shape: KeyValues,
    pub heads: usize,
    pub scale: f32,
    pub softcap: Option<f32>,
    /// One more score for each head; empty if there are none.
    pub sinks: Vec<f32>,
    pub place: LayerPlace,
    /// Positions before the batch.
    pub start: usize,
    /// The sequence's pages, in order.
    pub pages: Vec<Option<PageId>>,
    pub memory: PageMemory,
    pub queries: Arc<Vec<f32>>, // [tokens, heads, key_size]
}

/// An attention at work.
struct Job {
    attention: Attention,
    cut: Cut,
    /// Of each piece, where the work is cut by pages.
    unfinished: Vec<Mutex<Softmaxes>>,
    sums: Mutex<Vec<f32>>,
    failed: Mutex<Option<Error>>,
}

/// How the work is cut: pieces are `[blocks, heads of keys and values, splits]`.
struct Cut {
    tokens: usize,
    block_tokens: usize,
    splits: usize,
    pieces: usize,
}

/// What a worker has at hand while it goes over pages.
#[derive(Default)]
struct Scratch {
    keys: Vec<f32>,   // [PAGE, key_size]
    values: Vec<f32>, // [PAGE, value_size]
    softmaxes: Softmaxes,
}

impl Job {
    fn pieces(&self, range: Range<usize>) {
        let mut scratch = Scratch::default();
        for piece in range {
            if let Err(error) = self.attention.piece(&self.cut, piece, &mut scratch) {
                *lock(&self.failed) = Some(error);
            }
            match self.unfinished.get(piece) {
                Some(place) => *lock(place) = std::mem::take(&mut scratch.softmaxes),
                None => self.attention.write(&self.cut, piece, &scratch.softmaxes, &mut lock(&self.sums)),
            }
        }
    }
}

impl Attention {
    /// Writes each token's sums of values for its queries.
    pub fn run(self, sums: &mut Vec<f32>, pool: &Pool) -> Result<()> {
        let cut = self.cut(self.queries.len() / self.query_width(), pool.threads());
        let (pieces, products) = (cut.pieces, self.queries.len() * (self.start + cut.tokens));
        let job = Job {
            unfinished: (0..if cut.splits > 1 { pieces } else { 0 }).map(|_| Mutex::default()).collect(),
            sums: Mutex::new(std::mem::take(sums)),
            failed: Mutex::new(None),
            attention: self,
            cut,
        };
        let chunk = if products < ALONE_PRODUCTS { pieces } else { 1 };
        let job = pool.share(job, pieces, chunk, Job::pieces);
        *sums = job.sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (index, pieces) in job.unfinished.chunks(job.cut.splits).enumerate() {
            let mut whole = Softmaxes::default();
            pieces.iter().for_each(|part| whole.join(&lock(part), job.attention.shape.value_size));
            job.attention.write(&job.cut, index * job.cut.splits, &whole, sums);
        }
        job.failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn query_width(&self) -> usize {
        self.heads * self.shape.key_size
    }

    /// Query heads that share a head of keys and values.
    fn group(&self) -> usize {
        self.heads / self.shape.heads
    }

    fn cut(&self, tokens: usize, threads: usize) -> Cut {
        let block_tokens = (BLOCK_QUERIES / self.group()).max(1);
        let whole = tokens.div_ceil(block_tokens) * self.shape.heads;
        let pages = self.positions(0, tokens).len().div_ceil(PAGE);
        let wanted = if threads > 1 { (threads * PIECES).div_ceil(whole) } else { 1 };
        let splits = wanted.min(pages / SPLIT_PAGES).max(1);
        Cut { tokens, block_tokens, splits, pieces: whole * splits }
    }

    /// The first position that is seen from a position.
    fn first_seen(&self, position: usize) -> usize {
        self.shape.reach.first_seen(position)
    }

    /// All positions that some tokens of the batch see.
    fn positions(&self, first_token: usize, count: usize) -> Range<usize> {
        let start = self.start + first_token;
        self.first_seen(start)..start + count
    }

    /// The tokens of a piece, its head of keys and values, and its split.
    fn part(cut: &Cut, piece: usize, heads: usize) -> (Range<usize>, usize, usize) {
        let (whole, split) = (piece / cut.splits, piece % cut.splits);
        let first = whole / heads * cut.block_tokens;
        (first..cut.tokens.min(first + cut.block_tokens), whole % heads, split)
    }

    /// Takes the pages of a piece into its softmaxes: `[tokens, group]` of them.
    fn piece(&self, cut: &Cut, piece: usize, scratch: &mut Scratch) -> Result<()> {
        let (tokens, kv_head, split) = Self::part(cut, piece, self.shape.heads);
        let (group, start) = (self.group(), self.start);
        let Scratch { keys, values, softmaxes } = scratch;
        keys.resize(PAGE * self.shape.key_size, 0.0);
        values.resize(if self.shape.values_in_keys { 0 } else { PAGE * self.shape.value_size }, 0.0);
        softmaxes.reset(tokens.len() * group, self.shape.value_size);
        let seen = self.positions(tokens.start, tokens.len());
        let pages = seen.start / PAGE..seen.end.div_ceil(PAGE);
        let share = |split: usize| pages.start + pages.len() * split / cut.splits;
        for page in share(split)..share(split + 1) {
            let first = page * PAGE;
            let id = self.pages.get(page).copied().flatten();
            let id = id.ok_or_else(|| missing_page(seen.start.max(first)))?;
            let stored = seen.start.max(first) - first..seen.end.min(first + PAGE) - first;
            self.memory.load(self.place, id, kv_head, stored, keys, values)?;
            let query_of = |query: usize| {
                let (token, head) = (tokens.start + query / group, kv_head * group + query % group);
                let start = token * self.query_width() + head * self.shape.key_size;
                self.queries.get(start..start + self.shape.key_size).unwrap_or_default()
            };
            let seen_by = |query: usize| {
                let position = start + tokens.start + query / group;
                let from = self.first_seen(position).max(first) - first;
                from.min(PAGE)..(position + 1).saturating_sub(first).min(PAGE)
            };
            let (scale, softcap) = (self.scale, self.softcap);
            let (key_size, value_size) = (self.shape.key_size, self.shape.value_size);
            let in_keys = self.shape.values_in_keys;
            let (values, value_stride) = if in_keys { (&*keys, key_size) } else { (&*values, value_size) };
            let page = Page {
                query_of,
                seen_by,
                fading_of: None,
                keys,
                key_size,
                values,
                value_size,
                value_stride,
                scale,
                softcap,
                softmaxes,
            };
            on(self.level, page);
        }
        Ok(())
    }

    /// Puts finished sums in their places.
    fn write(&self, cut: &Cut, piece: usize, softmaxes: &Softmaxes, sums: &mut [f32]) {
        let (tokens, kv_head, _) = Self::part(cut, piece, self.shape.heads);
        let (group, size, width) = (self.group(), self.shape.value_size, self.heads * self.shape.value_size);
        let sink = |query: usize| self.sinks.get(kv_head * group + query % group).copied();
        for (query, (sum, factor)) in softmaxes.means(size, sink).enumerate() {
            let at = (tokens.start + query / group) * width + (kv_head * group + query % group) * size;
            if let Some(out) = sums.get_mut(at..at + size) {
                out.iter_mut().zip(sum).for_each(|(out, sum)| *out = sum * factor);
            }
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
