//! Worker threads that wait for work by spinning for a moment, then by giving way, then by sleeping.
//!
//! A token is a few hundred short jobs with almost nothing between them, so handing one out must cost about a
//! microsecond: no thread is started and no lock is contended. [`Pool::share`] publishes a job, takes part in it as one
//! worker of many, and returns when everybody who took part is done: one barrier per job.
//!
//! # A job owns what it works on
//!
//! Threads that outlive a job cannot borrow from its caller. So what a job reads and writes is moved into it and comes
//! back when it is done: vectors, and handles to what is shared. Results are computed in memory of the worker's own and
//! then copied to their place under a lock, which is held for a thousandth of the time. [`Pool::change`] does this for
//! the elements of one vector. What happens once, at loading, can borrow after all: [`Pool::for_each`] starts threads.
//!
//! # Help, not duty
//!
//! A worker that has not begun when the caller finishes its own part is no longer waited for: it finds the job gone.
//! Work is therefore taken piece by piece from a shared counter, never dealt out by worker number. That is what makes
//! oversubscription gentle. With four workers on two cores, those that the system does not run just do not help, and
//! nobody waits for them to be scheduled.
//!
//! # Invariants
//!
//! - A job has one handle for each worker in it. It is over when the caller's is the last.
//! - A panic in any worker reaches the caller, after all others have left; the pool remains usable.
//! - A job from within a job, or from a second thread at the same time, is done by its caller alone.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a waiting worker keeps its core to itself. As long as a few small ops take.
const SPIN: Duration = Duration::from_micros(3);
/// How long it then offers its core to others before it sleeps. Longer than what lies between two jobs of one token.
const YIELD: Duration = Duration::from_micros(200);
/// More workers than any machine has cores.
const MAX_THREADS: usize = 1 << 16;

/// Set in [`Shared::state`] when the workers should end.
const QUIT: u64 = 1;
/// One job more.
const EPOCH: u64 = 2;

type Panic = Box<dyn Any + Send>;

/// What workers share: pieces are taken until none is left.
trait Job: Send + Sync {
    fn work(&self);
}

/// A job's pieces, what they work on, and how.
struct Pieces<S, W> {
    shared: S,
    work: W,
    next: AtomicUsize,
    count: usize,
    chunk: usize,
}

impl<S: Send + Sync, W: Fn(&S, Range<usize>) + Send + Sync> Job for Pieces<S, W> {
    fn work(&self) {
        loop {
            let start = self.next.fetch_add(self.chunk, Ordering::Relaxed);
            if start >= self.count {
                return;
            }
            (self.work)(&self.shared, start..self.count.min(start.saturating_add(self.chunk)));
        }
    }
}

/// A fixed set of worker threads.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    sleepers: Vec<Thread>,
    /// Held by the caller whose job it is.
    turn: Mutex<()>,
}

struct Shared {
    /// Number of the latest job, and whether the workers should end.
    state: AtomicU64,
    /// The job, as long as it can be joined.
    job: Mutex<Option<Arc<dyn Job>>>,
    panic: Mutex<Option<Panic>>,
    asleep: Vec<AtomicBool>, // [workers - 1]
}

impl Pool {
    /// A pool of `threads` workers, the caller of [`Pool::share`] included. Zero counts as one. If the system refuses
    /// threads, there are fewer.
    pub fn new(threads: usize) -> Self {
        let helpers = threads.clamp(1, MAX_THREADS) - 1;
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: Mutex::new(None),
            panic: Mutex::new(None),
            asleep: (0..helpers).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut workers = Vec::with_capacity(helpers);
        for index in 0..helpers {
            let shared = Arc::clone(&shared);
            match thread::Builder::new().name(format!("kiln-{}", index + 1)).spawn(move || live(&shared, index)) {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    log::warn!("worker {} of {threads} could not be started: {error}", index + 1);
                    break;
                }
            }
        }
        let sleepers = workers.iter().map(|worker| worker.thread().clone()).collect();
        Pool { shared, workers, sleepers, turn: Mutex::new(()) }
    }

    /// Workers, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work` with ranges of at most `chunk` indices that together are `0..count`, on all workers that are free in
    /// time, and gives `shared` back when all calls have returned. What is worth a single chunk is done on the caller
    /// alone.
    ///
    /// # Panics
    /// If a call panics.
    pub fn share<S, W>(&self, shared: S, count: usize, chunk: usize, work: W) -> S
    where
        S: Send + Sync + 'static,
        W: Fn(&S, Range<usize>) + Send + Sync + 'static,
    {
        let pieces = Pieces { shared, work, next: AtomicUsize::new(0), count, chunk: chunk.max(1) };
        let turn = self.turn.try_lock();
        if count <= chunk || self.workers.is_empty() || matches!(turn, Err(TryLockError::WouldBlock)) {
            pieces.work();
            return pieces.shared;
        }
        let mut job = Arc::new(pieces);
        self.shared.open(job.clone(), &self.sleepers);
        let own = catch_unwind(AssertUnwindSafe(|| job.work()));
        self.shared.close();
        let shared = loop {
            // The others let go of their handles when they are done, the last thing they do.
            wait(|| (Arc::strong_count(&job) == 1).then_some(()), thread::yield_now);
            match Arc::try_unwrap(job) {
                Ok(pieces) => break pieces.shared,
                Err(held) => job = held,
            }
        };
        let theirs = lock(&self.shared.panic).take();
        drop(turn);
        match own.err().or(theirs) {
            Some(panic) => resume_unwind(panic),
            None => shared,
        }
    }

    /// Calls `work` with the number of each chunk of `data` and the chunk, on all workers; in place if there is only one
    /// chunk or one worker. The last chunk may be shorter.
    ///
    /// # Panics
    /// If a call panics; the data are lost then.
    pub fn change<T, W>(&self, data: &mut Vec<T>, chunk: usize, work: W)
    where
        T: Copy + Send + 'static,
        W: Fn(usize, &mut [T]) + Send + Sync + 'static,
    {
        let chunk = chunk.max(1);
        if data.len() <= chunk || self.workers.is_empty() {
            return data.chunks_mut(chunk).enumerate().for_each(|(index, chunk)| work(index, chunk));
        }
        let count = data.len().div_ceil(chunk);
        let shared = Mutex::new(std::mem::take(data));
        let shared = self.share(shared, count, 1, move |data, indices| {
            let mut own = Vec::with_capacity(chunk);
            for index in indices {
                let start = index * chunk;
                own.clear();
                own.extend_from_slice(lock(data).chunks(chunk).nth(index).unwrap_or_default());
                work(index, &mut own);
                if let Some(place) = lock(data).get_mut(start..start + own.len()) {
                    place.copy_from_slice(&own);
                }
            }
        });
        *data = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    }

    /// Calls `work` with each item, on as many threads as the pool has, which are started for this: for what happens
    /// once. Items are taken under a lock, so they should be few and large.
    ///
    /// # Panics
    /// If a call panics.
    pub fn for_each<T>(&self, items: impl Iterator<Item = T> + Send, work: impl Fn(T) + Sync) {
        if self.workers.is_empty() {
            return items.for_each(work);
        }
        let items = Mutex::new(items);
        let take = || {
            loop {
                let next = lock(&items).next();
                let Some(item) = next else { return };
                work(item);
            }
        };
        thread::scope(|scope| {
            for _ in &self.workers {
                if let Err(error) = thread::Builder::new().spawn_scoped(scope, take) {
                    log::warn!("a thread could not be started: {error}");
                }
            }
            take();
        });
    }

    /// Calls `work` with the number of each chunk of `data` and the chunk, as [`Pool::for_each`] does; alone if there is
    /// only one. The last chunk may be shorter.
    pub fn for_each_chunk_mut<T: Send>(&self, data: &mut [T], chunk: usize, work: impl Fn(usize, &mut [T]) + Sync) {
        let chunk = chunk.max(1);
        if data.len() <= chunk {
            return data.chunks_mut(chunk).enumerate().for_each(|(index, chunk)| work(index, chunk));
        }
        self.for_each(data.chunks_mut(chunk).enumerate(), |(index, chunk)| work(index, chunk));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.fetch_or(QUIT, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // Workers catch the panics of jobs, so there is nothing to learn here.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

/// Locks; what a panic left behind is as good as before, as nothing here is changed in two steps.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `ready` gives a value: spins, gives way, then calls `sleep` between tries.
fn wait<T>(ready: impl Fn() -> Option<T>, sleep: impl Fn()) -> T {
    for _ in 0..64 {
        if let Some(value) = ready() {
            return value;
        }
        std::hint::spin_loop();
    }
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        match start.elapsed() {
            waited if waited < SPIN => (0..16).for_each(|_| std::hint::spin_loop()),
            waited if waited < YIELD => thread::yield_now(),
            _ => sleep(),
        }
    }
}

impl Shared {
    /// Lets the workers join `job`.
    fn open(&self, job: Arc<dyn Job>, sleepers: &[Thread]) {
        *lock(&self.job) = Some(job);
        self.state.fetch_add(EPOCH, Ordering::SeqCst);
        for (asleep, sleeper) in self.asleep.iter().zip(sleepers) {
            if asleep.swap(false, Ordering::SeqCst) {
                sleeper.unpark();
            }
        }
    }

    /// Ends joining.
    fn close(&self) {
        *lock(&self.job) = None;
    }

    /// The number of a job after `done`. `Some(None)` is the end.
    fn news(&self, done: u64) -> Option<Option<u64>> {
        let state = self.state.load(Ordering::SeqCst);
        match state / EPOCH {
            _ if state & QUIT != 0 => Some(None),
            epoch => (epoch != done).then_some(Some(epoch)),
        }
    }
}

/// The life of a worker.
fn live(shared: &Shared, index: usize) {
    let Some(asleep) = shared.asleep.get(index) else { return };
    let mut done = 0;
    loop {
        let sleep = || {
            asleep.store(true, Ordering::SeqCst);
            // Whoever opens a job after this look sees the flag and wakes this thread; park then returns at once.
            if shared.news(done).is_none() {
                thread::park();
            }
            asleep.store(false, Ordering::SeqCst);
        };
        let Some(epoch) = wait(|| shared.news(done), sleep) else { return };
        done = epoch;
        let job = lock(&shared.job).clone();
        if let Some(job) = job
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| job.work()))
        {
            lock(&shared.panic).get_or_insert(panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_index_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for count in [0, 1, 7, 64, 1000] {
                for chunk in [0, 1, 3, 64, 5000] {
                    let seen: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(0)).collect();
                    let seen = pool.share(seen, count, chunk, move |seen, range| {
                        assert!(range.len() <= chunk.max(1));
                        range.for_each(|i| _ = seen[i].fetch_add(1, Ordering::Relaxed));
                    });
                    assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} {count} {chunk}");
                }
            }
        }
    }

    #[test]
    fn chunks_to_write() {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            let mut data = vec![1; 1003];
            pool.change(&mut data, 10, |index, chunk| chunk.iter_mut().for_each(|value| *value += index));
            assert!(data.iter().enumerate().all(|(i, &value)| value == i / 10 + 1));
            pool.for_each_chunk_mut(&mut data, 10, |index, chunk| chunk.iter_mut().for_each(|value| *value -= index));
            assert_eq!(data, [1; 1003]);
        }
    }

    /// A job in which each of two workers waits until the other is there: would hang if the caller did everything.
    fn meet(pool: &Pool) {
        let there = pool.share(AtomicU32::new(0), 2, 1, |there, _| {
            there.fetch_add(1, Ordering::SeqCst);
            while there.load(Ordering::SeqCst) < 2 {
                thread::yield_now();
            }
        });
        assert_eq!(there.into_inner(), 2);
    }

    #[test]
    fn the_other_workers_help() {
        meet(&Pool::new(2));
    }

    #[test]
    fn panics_reach_the_caller_and_the_pool_lives() {
        let pool = Pool::new(4);
        for culprit in 0..100 {
            let panic = catch_unwind(AssertUnwindSafe(|| {
                pool.share((), 100, 1, move |(), range| {
                    if range.start == culprit {
                        resume_unwind(Box::new("culprit"));
                    }
                });
            }));
            assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"culprit"));
        }
        let sum =
            pool.share(AtomicUsize::new(0), 100, 1, |sum, range| _ = sum.fetch_add(range.start, Ordering::Relaxed));
        assert_eq!(sum.into_inner(), 4950);
    }

    #[test]
    fn a_job_within_a_job_and_two_callers() {
        let pool = Arc::new(Pool::new(3));
        let sum = Arc::new(AtomicUsize::new(0));
        let job = || {
            pool.share((pool.clone(), sum.clone()), 20, 1, |(pool, sum), _| {
                pool.share(sum.clone(), 20, 1, |sum, _| _ = sum.fetch_add(1, Ordering::Relaxed));
            });
        };
        thread::scope(|scope| {
            scope.spawn(job);
            scope.spawn(job);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 800);
    }

    #[test]
    fn what_a_job_owned_is_dropped_by_its_caller() {
        let pool = Pool::new(4);
        let owned = Arc::new(());
        for _ in 0..1000 {
            drop(pool.share(owned.clone(), 8, 1, |_, _| {}));
            assert_eq!(Arc::strong_count(&owned), 1);
        }
    }

    #[test]
    fn sleepers_wake() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            thread::sleep(YIELD * 10);
            meet(&pool);
        }
    }
}
