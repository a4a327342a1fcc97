//! Worker threads that wait for work by spinning for a moment, then by giving way, then by sleeping.
//!
//! A token is a few hundred short jobs with almost nothing between them, so handing one out must cost about a
//! microsecond: no thread is started, no lock is contended, no allocation is made. [`Pool::run`] publishes a closure,
//! takes part in it as worker 0, and returns when everybody who took part is done: one barrier per job.
//!
//! # Help, not duty
//!
//! A worker that has not begun when the caller finishes its own part is no longer waited for: it finds the job closed.
//! Work is therefore taken piece by piece from a shared counter ([`Pool::for_each_chunk`]), never dealt out by worker
//! number. That is what makes oversubscription gentle. With four workers on two cores, those that the system does not
//! run just do not help, and nobody waits for them to be scheduled.
//!
//! # Invariants
//!
//! - The closure is called by worker 0, which is the caller, and at most once by each other worker.
//! - When `run` returns, or panics, no other thread is in the closure, and none will enter it.
//! - A panic in any worker reaches the caller, after all others have left; the pool remains usable.
//! - `run` from within a job, or from a second thread at the same time, runs the closure on the caller alone.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a waiting worker keeps its core to itself. As long as a few small ops take.
const SPIN: Duration = Duration::from_micros(3);
/// How long it then offers its core to others before it sleeps. Longer than what lies between two jobs of one token.
const YIELD: Duration = Duration::from_micros(200);

/// The part of [`Shared::state`] that counts the workers in the job.
const ACTIVE: u64 = 0xffff;
/// Set while workers may join the job.
const OPEN: u64 = 1 << 16;
/// Set when the workers should end.
const QUIT: u64 = 1 << 17;
/// One job more.
const EPOCH: u64 = 1 << 18;

type Job<'a> = dyn Fn(usize) + Sync + 'a;
type Panic = Box<dyn Any + Send>;

/// A fixed set of worker threads.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    sleepers: Vec<Thread>,
    /// Held by the caller whose job it is.
    turn: Mutex<()>,
}

struct Shared {
    /// Number of the job, whether it can be joined, and how many have: all in one word, so that joining is one step.
    state: AtomicU64,
    job: Mutex<Option<&'static Job<'static>>>,
    panic: Mutex<Option<Panic>>,
    asleep: Vec<AtomicBool>, // [workers - 1]
}

impl Pool {
    /// A pool of `threads` workers, the caller of [`Pool::run`] included. Zero counts as one. If the system refuses
    /// threads, there are fewer.
    pub fn new(threads: usize) -> Self {
        let helpers = threads.clamp(1, ACTIVE as usize) - 1;
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: Mutex::new(None),
            panic: Mutex::new(None),
            asleep: (0..helpers).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut workers = Vec::with_capacity(helpers);
        for index in 0..helpers {
            let shared = Arc::clone(&shared);
            match thread::Builder::new().name(format!("kiln-{}", index + 1)).spawn(move || work(&shared, index)) {
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

    /// Calls `job` with 0 here, and with their number on those other workers that are free in time. Returns when all
    /// calls have returned.
    ///
    /// # Panics
    /// If a call panics.
    pub fn run(&self, job: impl Fn(usize) + Sync) {
        let turn = self.turn.try_lock();
        if self.workers.is_empty() || matches!(turn, Err(std::sync::TryLockError::WouldBlock)) {
            return job(0);
        }
        self.shared.open(&job, &self.sleepers);
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        let theirs = self.shared.close();
        drop(turn);
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Calls `work` with ranges of at most `chunk` indices that together are `0..count`, on all workers. What is worth
    /// a single chunk is done on the caller alone.
    pub fn for_each_chunk(&self, count: usize, chunk: usize, work: impl Fn(Range<usize>) + Sync) {
        let chunk = chunk.max(1);
        if count <= chunk || self.workers.is_empty() {
            return (0..count).step_by(chunk).for_each(|start| work(start..count.min(start.saturating_add(chunk))));
        }
        let next = AtomicUsize::new(0);
        self.run(|_| {
            loop {
                let start = next.fetch_add(chunk, Ordering::Relaxed);
                if start >= count {
                    return;
                }
                work(start..count.min(start.saturating_add(chunk)));
            }
        });
    }

    /// Calls `work` with each item, on all workers. Items are taken under a lock, so they should be few and large.
    pub fn for_each<T>(&self, items: impl Iterator<Item = T> + Send, work: impl Fn(T) + Sync) {
        if self.workers.is_empty() {
            return items.for_each(work);
        }
        let items = Mutex::new(items);
        self.run(|_| {
            loop {
                let next = lock(&items).next();
                let Some(item) = next else { return };
                work(item);
            }
        });
    }

    /// Calls `work` with the number of each chunk of `data` and the chunk, on all workers; alone if there is only one.
    /// The last chunk may be shorter.
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
    fn open(&self, job: &Job<'_>, sleepers: &[Thread]) {
        // SAFETY: only the lifetime changes. A worker takes the reference out of the slot and uses it between joining
        // (it adds itself to the active count of an open job, in one atomic step) and leaving (it subtracts itself).
        // `close`, which `Pool::run` calls on every path before it returns or unwinds, first ends joining, then waits
        // for the count to be zero, then empties the slot; so the reference is never used after `job` is gone.
        let job = unsafe { std::mem::transmute::<&Job<'_>, &'static Job<'static>>(job) };
        *lock(&self.job) = Some(job);
        self.state.fetch_add(EPOCH | OPEN, Ordering::SeqCst);
        for (asleep, sleeper) in self.asleep.iter().zip(sleepers) {
            if asleep.swap(false, Ordering::SeqCst) {
                sleeper.unpark();
            }
        }
    }

    /// Ends joining, waits for those who have joined, and returns the first panic.
    fn close(&self) -> Option<Panic> {
        self.state.fetch_and(!OPEN, Ordering::SeqCst);
        wait(|| (self.state.load(Ordering::Acquire) & ACTIVE == 0).then_some(()), thread::yield_now);
        *lock(&self.job) = None;
        lock(&self.panic).take()
    }

    /// Joins the open job if it is not `done` yet, and returns its number. `Some(None)` is the end.
    fn join(&self, done: u64) -> Option<Option<u64>> {
        let state = self.state.load(Ordering::SeqCst);
        if state & QUIT != 0 {
            return Some(None);
        }
        let epoch = state / EPOCH;
        if epoch == done || state & OPEN == 0 {
            return None;
        }
        let joined = self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
        joined.ok().map(|_| Some(epoch))
    }
}

/// The life of a worker.
fn work(shared: &Shared, index: usize) {
    let Some(asleep) = shared.asleep.get(index) else { return };
    let mut done = 0;
    loop {
        let sleep = || {
            asleep.store(true, Ordering::SeqCst);
            // Whoever opens a job after this look sees the flag and wakes this thread; park then returns at once.
            let state = shared.state.load(Ordering::SeqCst);
            if state & QUIT == 0 && (state & OPEN == 0 || state / EPOCH == done) {
                thread::park();
            }
            asleep.store(false, Ordering::SeqCst);
        };
        let Some(epoch) = wait(|| shared.join(done), sleep) else { return };
        done = epoch;
        let job = *lock(&shared.job);
        if let Some(job) = job
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(index + 1)))
        {
            lock(&shared.panic).get_or_insert(panic);
        }
        shared.state.fetch_sub(1, Ordering::Release);
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
                    pool.for_each_chunk(count, chunk, |range| {
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
        let pool = Pool::new(3);
        let mut data = vec![0; 1003];
        pool.for_each_chunk_mut(&mut data, 10, |index, chunk| chunk.fill(index + 1));
        assert!(data.iter().enumerate().all(|(i, &value)| value == i / 10 + 1));
    }

    #[test]
    fn the_other_workers_help() {
        let pool = Pool::new(2);
        // Each waits until the other is there: would hang if the caller did everything.
        let there = AtomicU32::new(0);
        pool.run(|_| {
            there.fetch_add(1, Ordering::SeqCst);
            while there.load(Ordering::SeqCst) < 2 {
                thread::yield_now();
            }
        });
        assert_eq!(there.into_inner(), 2);
    }

    #[test]
    fn panics_reach_the_caller_and_the_pool_lives() {
        let pool = Pool::new(4);
        for culprit in 0..100 {
            let panic = catch_unwind(AssertUnwindSafe(|| {
                pool.for_each_chunk(100, 1, |range| {
                    if range.start == culprit {
                        resume_unwind(Box::new("culprit"));
                    }
                });
            }));
            assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"culprit"));
        }
        let sum = AtomicUsize::new(0);
        pool.for_each_chunk(100, 1, |range| _ = sum.fetch_add(range.start, Ordering::Relaxed));
        assert_eq!(sum.into_inner(), 4950);
    }

    #[test]
    fn a_job_within_a_job_and_two_callers() {
        let pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        let job = || {
            pool.for_each_chunk(20, 1, |_| {
                pool.for_each_chunk(20, 1, |_| _ = sum.fetch_add(1, Ordering::Relaxed));
            });
        };
        thread::scope(|scope| {
            scope.spawn(job);
            scope.spawn(job);
        });
        assert_eq!(sum.into_inner(), 800);
    }

    #[test]
    fn sleepers_wake() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            thread::sleep(YIELD * 10);
            let there = AtomicU32::new(0);
            pool.run(|_| {
                there.fetch_add(1, Ordering::SeqCst);
                while there.load(Ordering::SeqCst) < 2 {
                    thread::yield_now();
                }
            });
        }
    }
}
