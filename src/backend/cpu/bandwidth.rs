//! How fast this machine reads memory: what the speed of generation is measured against.

use super::huge::HugePages;
use super::pool::Pool;
use super::simd::{Isa, Level, Task, on};
use crate::Result;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// What a worker reads at once.
const CHUNK_BYTES: usize = 1 << 18;

/// A large buffer, in the kind of memory that packed weights are in.
pub struct Bandwidth {
    buffer: Arc<HugePages>,
}

impl Bandwidth {
    /// A buffer of so many bytes, which should be more than all caches hold.
    pub fn new(bytes: usize, pool: &Pool) -> Result<Self> {
        let mut buffer = HugePages::new(bytes)?;
        pool.for_each_chunk_mut(buffer.bytes_mut(), CHUNK_BYTES, |index, bytes| bytes.fill(index as u8));
        Ok(Bandwidth { buffer: Arc::new(buffer) })
    }

    /// Reads the buffer once on all workers of the pool, doing nothing else, and returns the speed in GB (10⁹ bytes) a
    /// second. Other programs can only slow it down, so the best of several times says most.
    pub fn measure(&self, pool: &Pool) -> f64 {
        let (len_bytes, level) = (self.buffer.bytes().len(), Level::best());
        let start = Instant::now();
        pool.share(self.buffer.clone(), len_bytes.div_ceil(CHUNK_BYTES), 1, move |buffer, chunks| {
            for chunk in chunks {
                let chunk = buffer.bytes().chunks(CHUNK_BYTES).nth(chunk).unwrap_or_default();
                black_box(on(level, Sum(chunk)));
            }
        });
        len_bytes as f64 / start.elapsed().as_secs_f64() / 1e9
    }
}

/// Adds up bytes, as words. Memory answers faster when it is asked for several places at once.
struct Sum<'a>(&'a [u8]);

impl Task for Sum<'_> {
    type Output = u64;

    #[inline(always)]
    fn run<S: Isa>(self, _: S) -> u64 {
        let (low, high) = self.0.split_at(self.0.len() / 2);
        let mut sums = [0u64; 16];
        for (low, high) in low.as_chunks::<64>().0.iter().zip(high.as_chunks::<64>().0) {
            for (sum, word) in sums.iter_mut().zip(low.as_chunks().0.iter().chain(high.as_chunks().0)) {
                *sum = sum.wrapping_add(u64::from_le_bytes(*word));
            }
        }
        sums.iter().fold(0, |all, &sum| all.wrapping_add(sum))
    }
}
