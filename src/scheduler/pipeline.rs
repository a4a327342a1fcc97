//! Pieces of a prompt on their way through the devices: while one device works on a piece, another works on the next.

use crate::{Error, Result};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Takes `pieces` through the stages. `workers` says, for each stage, who does it. Every piece goes through all stages in
/// order, every stage gets the pieces in order, and no worker does two things at once; all else happens side by side.
///
/// # Errors
/// The first that a stage ends in; nothing is begun after it.
pub fn pipeline(pieces: usize, workers: &[usize], run: impl Fn(usize, usize) -> Result<()> + Sync) -> Result<()> {
    let mut all = workers.to_vec();
    all.sort_unstable();
    all.dedup();
    let belt = Belt {
        workers,
        state: Mutex::new(State { next: vec![0; pieces], busy: vec![false; pieces], failure: None }),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        let Some((first, others)) = all.split_first() else { return };
        for worker in others {
            scope.spawn(|| belt.work(*worker, &run));
        }
        belt.work(*first, &run);
    });
    let state = belt.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.failure.map_or(Ok(()), Err)
}

struct Belt<'a> {
    workers: &'a [usize],
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The stage that each piece comes to next.
    next: Vec<usize>,
    /// Whether a piece is there now.
    busy: Vec<bool>,
    failure: Option<Error>,
}

/// What a worker finds to do.
enum Task {
    Run { piece: usize, stage: usize },
    Wait,
    Done,
}

impl Belt<'_> {
    fn work(&self, worker: usize, run: &(impl Fn(usize, usize) -> Result<()> + Sync)) {
        let mut state = self.lock();
        loop {
            match self.task(&state, worker) {
                Task::Run { piece, stage } => {
                    state.busy[piece] = true;
                    drop(state);
                    let result = run(piece, stage);
                    state = self.lock();
                    state.busy[piece] = false;
                    match result {
                        Ok(()) => state.next[piece] += 1,
                        Err(error) => _ = state.failure.get_or_insert(error),
                    }
                    self.changed.notify_all();
                }
                Task::Wait => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Task::Done => return,
            }
        }
    }

    /// The oldest piece that waits for this worker, so that few are on their way.
    fn task(&self, state: &State, worker: usize) -> Task {
        let own_last = self.workers.iter().rposition(|own| *own == worker);
        let comes = |stage: usize| own_last.is_some_and(|last| stage <= last);
        if state.failure.is_some() || !state.next.iter().any(|&stage| comes(stage)) {
            return Task::Done;
        }
        let is_ready = |piece: usize| {
            let stage = state.next[piece];
            let before = piece.checked_sub(1).map(|before| state.next[before]);
            !state.busy[piece]
                && self.workers.get(stage) == Some(&worker)
                && before.is_none_or(|reached| reached > stage)
        };
        match (0..state.next.len()).find(|&piece| is_ready(piece)) {
            Some(piece) => Task::Run { piece, stage: state.next[piece] },
            None => Task::Wait,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Runs a pipeline, and returns what was begun, in order.
    fn order(pieces: usize, workers: &[usize]) -> Vec<(usize, usize)> {
        let begun = Mutex::new(vec![]);
        let busy: Vec<AtomicUsize> = (0..8).map(|_| AtomicUsize::new(0)).collect();
        pipeline(pieces, workers, |piece, stage| {
            assert_eq!(busy[workers[stage]].fetch_add(1, Ordering::SeqCst), 0, "a worker does two things at once");
            begun.lock().unwrap().push((piece, stage));
            std::thread::yield_now();
            busy[workers[stage]].fetch_sub(1, Ordering::SeqCst);
            Ok(())
        })
        .unwrap();
        begun.into_inner().unwrap()
    }

    #[test]
    fn pieces_and_stages_keep_their_order() {
        for (pieces, workers) in [(1, &[0][..]), (5, &[1, 0]), (4, &[0, 1, 0]), (6, &[2, 1, 2, 0, 1]), (3, &[0, 0])] {
            let order = order(pieces, workers);
            assert_eq!(order.len(), pieces * workers.len());
            let at = |piece, stage| order.iter().position(|task| *task == (piece, stage)).unwrap();
            for (piece, stage) in (0..pieces).flat_map(|piece| (0..workers.len()).map(move |stage| (piece, stage))) {
                assert!(stage == 0 || at(piece, stage - 1) < at(piece, stage), "{order:?}");
                assert!(piece == 0 || at(piece - 1, stage) < at(piece, stage), "{order:?}");
            }
        }
    }

    #[test]
    fn devices_work_side_by_side() {
        // The second piece on the first device and the first on the second wait for one another: each has to be running.
        let both = Barrier::new(2);
        pipeline(2, &[0, 1], |piece, stage| {
            if (piece, stage) == (1, 0) || (piece, stage) == (0, 1) {
                both.wait();
            }
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn the_first_failure_ends_it() {
        let begun = Mutex::new(vec![]);
        let result = pipeline(100, &[0, 1], |piece, stage| {
            begun.lock().unwrap().push((piece, stage));
            let lost = Error::GpuLost { name: "a test".into(), reason: format!("{piece}") };
            if (piece, stage) == (1, 1) { Err(lost) } else { Ok(()) }
        });
        assert!(matches!(result, Err(Error::GpuLost { ref reason, .. }) if reason == "1"), "{result:?}");
        let begun = begun.into_inner().unwrap();
        assert!(begun.contains(&(0, 1)) && !begun.contains(&(2, 1)), "{begun:?}");
    }
}
