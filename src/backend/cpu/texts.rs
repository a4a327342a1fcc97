//! Attention over the texts of a batch: each token sees its own text, of which keys and values are at hand in slots.
//!
//! Work is cut by texts, blocks of their tokens, and heads of keys and values. A piece goes over the keys and values that
//! its tokens see as paged attention does: some positions at a time, with the softmax kept up to date, so texts may be as
//! long as they like.

use super::pool::Pool;
use super::simd::attend::{PAGE, Page, Softmaxes};
use super::simd::{Level, on};
use crate::program::{Sees, slope};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Queries that go over keys and values together, about.
const BLOCK_QUERIES: usize = 64;
/// Pieces that a worker takes at once, so that it need not ask for the place of results after each.
const PIECES: usize = 8;

/// One attention of a batch.
pub(super) struct TextAttention {
    pub level: Level,
    pub heads: usize,
    pub kv_heads: usize,
    pub key_size: usize,
    pub value_size: usize,
    pub sees: Sees,
    pub scale: f32,
    pub softcap: Option<f32>,
    pub most_bias: Option<f32>,
    pub texts: Vec<Range<usize>>,
    pub queries: Arc<Vec<f32>>, // [tokens, heads, key_size]
    pub keys: Arc<Vec<f32>>,    // [tokens, kv_heads, key_size]
    pub values: Arc<Vec<f32>>,  // [tokens, kv_heads, value_size]
}

/// Some tokens of a text, which are counted through the batch, and a head of keys and values.
struct Piece {
    text: Range<usize>,
    tokens: Range<usize>,
    kv_head: usize,
}

struct Job {
    attention: TextAttention,
    pieces: Vec<Piece>,
    sums: Mutex<Vec<f32>>,
}

/// What a worker has at hand.
#[derive(Default)]
struct Scratch {
    keys: Vec<f32>,   // [PAGE, key_size]
    values: Vec<f32>, // [PAGE, value_size]
}

impl TextAttention {
    /// Writes each token's sums of values for its queries.
    pub fn run(self, sums: &mut Vec<f32>, pool: &Pool) {
        let block = (BLOCK_QUERIES / self.group()).max(1);
        let kv_heads = self.kv_heads;
        let pieces = self.texts.iter().flat_map(|text| {
            let blocks = text.clone().step_by(block);
            blocks.flat_map(move |first| {
                let tokens = first..text.end.min(first + block);
                (0..kv_heads).map(move |kv_head| Piece { text: text.clone(), tokens: tokens.clone(), kv_head })
            })
        });
        let pieces: Vec<Piece> = pieces.collect();
        let count = pieces.len();
        let job = Job { pieces, sums: Mutex::new(std::mem::take(sums)), attention: self };
        let job = pool.share(job, count, PIECES, Job::work);
        *sums = job.sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    }

    /// Query heads that share a head of keys and values.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Takes what the tokens of a piece see into its softmaxes: `[tokens, group]` of them.
    fn softmaxes(&self, piece: &Piece, scratch: &mut Scratch) -> Softmaxes {
        let Piece { text, tokens, kv_head } = piece;
        let (group, key_size, value_size) = (self.group(), self.key_size, self.value_size);
        let mut softmaxes = Softmaxes::default();
        softmaxes.reset(tokens.len() * group, value_size);
        let seen = |token: usize| self.sees.range(token - text.start, text.len());
        let (first, last) = (seen(tokens.start), seen(tokens.end - 1));
        let all = text.start + first.start..text.start + last.end;
        for start in all.clone().step_by(PAGE) {
            let positions = start..all.end.min(start + PAGE);
            gather(&self.keys, self.kv_heads * key_size, kv_head * key_size, key_size, &positions, &mut scratch.keys);
            let (width, column) = (self.kv_heads * value_size, kv_head * value_size);
            gather(&self.values, width, column, value_size, &positions, &mut scratch.values);
            let query_of = |query: usize| {
                let (token, head) = (tokens.start + query / group, kv_head * group + query % group);
                let at = (token * self.heads + head) * key_size;
                self.queries.get(at..at + key_size).unwrap_or_default()
            };
            // Positions within the page.
            let seen_by = |query: usize| {
                let seen = seen(tokens.start + query / group);
                let within = |at: usize| (text.start + at).saturating_sub(start).min(positions.len());
                within(seen.start)..within(seen.end)
            };
            let fading_of = |query: usize| {
                let (own, head) = (tokens.start + query / group, kv_head * group + query % group);
                let slope = self.most_bias.map_or(0.0, |most| slope(head, self.heads, most));
                (slope, own as f32 - start as f32)
            };
            let page = Page {
                query_of,
                seen_by,
                fading_of: self.most_bias.is_some().then_some(&fading_of as &dyn Fn(usize) -> (f32, f32)),
                keys: &scratch.keys,
                key_size,
                values: &scratch.values,
                value_size,
                value_stride: value_size,
                scale: self.scale,
                softcap: self.softcap,
                softmaxes: &mut softmaxes,
            };
            on(self.level, page);
        }
        softmaxes
    }

    /// Puts finished sums in their places.
    fn write(&self, piece: &Piece, softmaxes: &Softmaxes, sums: &mut [f32]) {
        let (group, size) = (self.group(), self.value_size);
        for (query, (sum, inverse)) in softmaxes.means(size, |_| None).enumerate() {
            let (token, head) = (piece.tokens.start + query / group, piece.kv_head * group + query % group);
            let at = (token * self.heads + head) * size;
            if let Some(out) = sums.get_mut(at..at + size) {
                out.iter_mut().zip(sum).for_each(|(out, sum)| *out = sum * inverse);
            }
        }
    }
}

impl Job {
    fn work(&self, range: Range<usize>) {
        let mut scratch = Scratch::default();
        let pieces = self.pieces.get(range).unwrap_or_default();
        let done: Vec<Softmaxes> = pieces.iter().map(|piece| self.attention.softmaxes(piece, &mut scratch)).collect();
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        for (piece, softmaxes) in pieces.iter().zip(&done) {
            self.attention.write(piece, softmaxes, &mut sums);
        }
    }
}

/// Copies one head's columns of some rows, and fills the page up with zeros.
fn gather(rows: &[f32], width: usize, column: usize, size: usize, tokens: &Range<usize>, page: &mut Vec<f32>) {
    page.clear();
    let rows = rows.chunks_exact(width.max(1)).skip(tokens.start).take(tokens.len());
    rows.for_each(|row| page.extend_from_slice(row.get(column..column + size).unwrap_or_default()));
    page.resize(PAGE * size, 0.0);
}
