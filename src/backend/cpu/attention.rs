//! Attention over pages: each page of keys and values is decoded once for all query heads that share it and for a block
//! of tokens, and the softmax is kept up to date as pages go by, so nothing as long as the context is ever held.

use super::batch::missing_page;
use super::memory::PageMemory;
use super::ops;
use super::pool::Pool;
use crate::Result;
use crate::cache::{LayerPlace, PAGE_POSITIONS, Sequence};
use crate::program::KeyValues;
use std::sync::{Mutex, PoisonError};

/// Tokens that go through a page together.
const BLOCK_TOKENS: usize = 16;
const PAGE: usize = PAGE_POSITIONS as usize;

/// One attention of a batch.
pub(super) struct Attention<'a> {
    pub shape: KeyValues,
    pub heads: usize,
    pub scale: f32,
    pub softcap: Option<f32>,
    pub place: LayerPlace,
    pub sequence: &'a Sequence,
    pub memory: &'a PageMemory,
}

/// A softmax that is not finished: the weighted sum so far, scaled by the highest score so far.
struct Running {
    highest: f32,
    total: f32,
    sum: Vec<f32>, // [value_size]
}

impl Attention<'_> {
    /// Writes each token's sums of values for its queries.
    pub fn run(&self, queries: &[f32], sums: &mut [f32], pool: &Pool) -> Result<()> {
        let query_width = self.heads * self.shape.key_size;
        let tokens = queries.len() / query_width;
        let blocks = tokens.div_ceil(BLOCK_TOKENS);
        let (sums, failed) = (Mutex::new(sums), Mutex::new(None));
        pool.for_each_chunk(blocks * self.shape.heads, 1, |range| {
            for item in range {
                let (block, kv_head) = (item / self.shape.heads, item % self.shape.heads);
                let first = block * BLOCK_TOKENS;
                let count = BLOCK_TOKENS.min(tokens - first);
                let queries = &queries[first * query_width..][..count * query_width];
                match self.block(queries, first, kv_head) {
                    Ok(done) => {
                        self.write(&done, first, kv_head, &mut sums.lock().unwrap_or_else(PoisonError::into_inner))
                    }
                    Err(error) => *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
                }
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// The first position that is seen from a position.
    fn first_seen(&self, position: usize) -> usize {
        self.shape.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The sums of a block of tokens, for the query heads of one head of keys and values: `[tokens, group]`.
    fn block(&self, queries: &[f32], first: usize, kv_head: usize) -> Result<Vec<Running>> {
        let group = self.heads / self.shape.heads;
        let query_width = self.heads * self.shape.key_size;
        let start = self.sequence.len() as usize + first;
        let count = queries.len() / query_width;
        let fresh = || Running { highest: f32::NEG_INFINITY, total: 0.0, sum: vec![0.0; self.shape.value_size] };
        let mut running: Vec<Running> = (0..count * group).map(|_| fresh()).collect();
        let (mut keys, mut values) = (vec![], vec![]);
        let (from, to) = (self.first_seen(start), start + count);
        for page in from / PAGE..to.div_ceil(PAGE) {
            let positions = from.max(page * PAGE)..to.min((page + 1) * PAGE);
            let id = self.sequence.table(self.place.group).get(page).copied().flatten();
            let id = id.ok_or_else(|| missing_page(positions.start))?;
            keys.clear();
            values.clear();
            let within = positions.start - page * PAGE..positions.end - page * PAGE;
            self.memory.load(self.place, id, kv_head, within, &mut keys, &mut values)?;
            for (token, running) in running.chunks_mut(group).enumerate() {
                let position = start + token;
                let seen = self.first_seen(position).max(positions.start)..(position + 1).min(positions.end);
                if seen.is_empty() {
                    continue;
                }
                let rows = seen.start - positions.start..seen.end - positions.start;
                let keys = &keys[rows.start * self.shape.key_size..rows.end * self.shape.key_size];
                let values = &values[rows.start * self.shape.value_size..rows.end * self.shape.value_size];
                for (head, running) in running.iter_mut().enumerate() {
                    let query = token * query_width + (kv_head * group + head) * self.shape.key_size;
                    self.page(&queries[query..][..self.shape.key_size], keys, values, running);
                }
            }
        }
        Ok(running)
    }

    /// Takes the keys and values of a page, or a part of one, into a softmax.
    fn page(&self, query: &[f32], keys: &[f32], values: &[f32], running: &mut Running) {
        let mut scores = [f32::NEG_INFINITY; PAGE];
        let mut highest = running.highest;
        for (score, key) in scores.iter_mut().zip(keys.chunks(self.shape.key_size)) {
            *score = ops::dot(query, key) * self.scale;
            if let Some(cap) = self.softcap {
                *score = ops::softcap(*score, cap);
            }
            highest = highest.max(*score);
        }
        if highest > running.highest {
            let shrink = (running.highest - highest).exp();
            running.total *= shrink;
            running.sum.iter_mut().for_each(|sum| *sum *= shrink);
            running.highest = highest;
        }
        for (score, value) in scores.iter().zip(values.chunks(self.shape.value_size)) {
            let weight = (score - highest).exp();
            running.total += weight;
            running.sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += weight * value);
        }
    }

    /// Puts the sums of a block in their places.
    fn write(&self, done: &[Running], first: usize, kv_head: usize, sums: &mut [f32]) {
        let group = self.heads / self.shape.heads;
        let (size, width) = (self.shape.value_size, self.heads * self.shape.value_size);
        for (token, heads) in done.chunks(group).enumerate() {
            for (head, running) in heads.iter().enumerate() {
                let out = &mut sums[(first + token) * width + (kv_head * group + head) * size..][..size];
                out.iter_mut().zip(&running.sum).for_each(|(out, sum)| *out = sum / running.total);
            }
        }
    }
}
