//! The books of recurrent layers' states: who holds the states behind which lengths, and in which slots.

use kiln::cache::{Cache, CacheGroup, CacheLayer, CacheLimits, CacheState, Sequence};
use std::collections::HashSet;

const LIMITS: CacheLimits =
    CacheLimits { context_tokens: 4096, sequences: 2, chunk_tokens: 64, rollback_tokens: 32, snapshots: 8 };

/// Books of an attention layer and of a recurrent one.
fn cache(limits: CacheLimits) -> Cache {
    let layer = CacheLayer { layer: 0, kv_heads: 2, key_size: 64, value_size: 64 };
    let states = vec![CacheState { layer: 1, numbers: 1000 }];
    Cache::with_states(vec![CacheGroup { window: None, layers: vec![layer] }], states, limits).unwrap()
}

/// Takes a sequence some tokens on; returns the slots that were read and written.
fn run(sequence: &mut Sequence, tokens: u32) -> (Option<usize>, usize) {
    sequence.reserve(tokens).unwrap();
    let slots = sequence.states().unwrap();
    sequence.commit(tokens).unwrap();
    (slots.from.map(|slot| slot.index()), slots.to.index())
}

fn used(cache: &Cache) -> u32 {
    cache.state_stats().used_pages
}

#[test]
fn a_step_reads_what_the_last_one_wrote_and_writes_elsewhere() {
    let mut sequence = cache(LIMITS).sequence();
    assert_eq!(sequence.states(), None);
    let (from, mut last) = run(&mut sequence, 5);
    assert_eq!(from, None);
    for _ in 0..40 {
        let (from, to) = run(&mut sequence, 1);
        assert_eq!(from, Some(last));
        assert_ne!(to, last);
        last = to;
    }
}

#[test]
fn the_last_batch_can_always_be_taken_back() {
    let mut sequence = cache(LIMITS).sequence();
    for tokens in [1, 7, 64, 1, 1, 30, 2] {
        let before = sequence.len();
        let (from, _) = run(&mut sequence, tokens);
        sequence.truncate(before).unwrap();
        assert_eq!(sequence.len(), before);
        assert_eq!(run(&mut sequence, tokens).0, from);
    }
}

#[test]
fn a_reservation_that_is_given_up_changes_nothing() {
    let cache = cache(LIMITS);
    let mut sequence = cache.sequence();
    let (_, last) = run(&mut sequence, 5);
    sequence.reserve(1).unwrap();
    sequence.truncate(5).unwrap();
    assert_eq!((sequence.len(), sequence.states(), used(&cache)), (5, None, 1));
    assert_eq!(run(&mut sequence, 1).0, Some(last));
    sequence.reserve(3).unwrap();
    assert!(sequence.commit(2).unwrap_err().to_string().contains("all of the 3 reserved"));
    sequence.commit(3).unwrap();
    assert_eq!(sequence.len(), 9);
}

#[test]
fn going_back_goes_to_a_length_that_has_states() {
    let cache = cache(LIMITS);
    let mut sequence = cache.sequence();
    for _ in 0..3 {
        run(&mut sequence, 64);
    }
    sequence.truncate(150).unwrap();
    assert_eq!((sequence.len(), used(&cache)), (128, 2));
    sequence.truncate(63).unwrap();
    assert_eq!((sequence.len(), used(&cache)), (0, 0));
    assert_eq!(run(&mut sequence, 10).0, None);
}

#[test]
fn states_stay_close_together_near_the_end_and_farther_apart_behind() {
    let cache = cache(LIMITS);
    let mut sequence = cache.sequence();
    for end in 1..=2000 {
        run(&mut sequence, 1);
        assert!(used(&cache) <= LIMITS.snapshots);
        if end % 37 != 0 {
            continue;
        }
        for back in [1, 2, 5, 20, 100, 500].into_iter().filter(|back| *back < end) {
            let mut other = sequence.fork();
            other.truncate(end - back).unwrap();
            // What has to be computed again is no more than a few times what was taken back.
            let again = end - back - other.len();
            assert!(again <= 4 * back, "{back} of {end} taken back, {again} to be computed again");
        }
    }
}

#[test]
fn forks_share_states_until_they_go_on() {
    let cache = cache(LIMITS);
    let mut sequence = cache.sequence();
    run(&mut sequence, 10);
    let (_, last) = run(&mut sequence, 10);
    let mut fork = sequence.fork();
    assert_eq!((used(&cache), cache.state_stats().shared_pages), (2, 2));
    let ((from, to), (fork_from, fork_to)) = (run(&mut sequence, 1), run(&mut fork, 1));
    assert_eq!([from, fork_from], [Some(last); 2]);
    assert_eq!(HashSet::from([to, fork_to, last]).len(), 3);
    let mut third = cache.sequence();
    third.share_prefix(&fork, 15).unwrap();
    assert_eq!(third.len(), 10);
    drop((sequence, fork));
    assert_eq!(used(&cache), 1);
    drop(third);
    assert_eq!(used(&cache), 0);
}

#[test]
fn one_sequence_too_many_finds_no_slot_and_does_with_fewer_states() {
    let cache = cache(LIMITS);
    let [mut first, mut second, mut third] = [(); 3].map(|()| cache.sequence());
    for _ in 0..20 {
        run(&mut first, 3);
        run(&mut second, 3);
    }
    // Of 18 slots 16 are held: enough for the states behind two batches, and none to write those behind the third to.
    run(&mut third, 3);
    run(&mut third, 3);
    assert_eq!(third.reserve(3).unwrap_err().to_string(), full(6));
    assert_eq!((third.len(), third.reserved(), third.states()), (6, 0, None));
    // The others go on: each gives up one of its own.
    run(&mut first, 3);
    third.truncate(3).unwrap();
    run(&mut third, 1);
    drop(second);
    (0..20).for_each(|_| _ = run(&mut third, 3));
    assert_eq!(used(&cache), 16);
}

/// The error of a reservation of 3 positions behind so many.
fn full(held: u32) -> String {
    kiln::Error::ContextFull { used_tokens: held, asked_tokens: 3, limit_tokens: held }.to_string()
}

#[test]
fn a_reservation_that_finds_no_slot_gives_up_nothing() {
    let cache = cache(LIMITS);
    let mut first = cache.sequence();
    (0..20).for_each(|_| _ = run(&mut first, 3));
    let mut fork = first.fork();
    let mut other = cache.sequence();
    (0..20).for_each(|_| _ = run(&mut other, 3));
    let mut third = cache.sequence();
    while third.reserve(1).is_ok() {
        third.commit(1).unwrap();
    }
    let lengths = |sequence: &Sequence| -> Vec<u32> {
        (0..=sequence.len())
            .map(|to| {
                let mut back = sequence.fork();
                back.truncate(to).unwrap();
                back.len()
            })
            .collect()
    };
    let before = lengths(&fork);
    // The first holds all that the fork holds, so nothing would come of giving it up.
    assert!(fork.reserve(1).is_err());
    assert_eq!(lengths(&fork), before);
    // Nor do limits that cannot be: pages and slots stay as many as they were.
    let pages = cache.stats()[0].capacity_pages;
    assert!(cache.grow(CacheLimits { sequences: 4, snapshots: u32::MAX, ..LIMITS }).is_err());
    assert_eq!(cache.stats()[0].capacity_pages, pages);
}

#[test]
fn an_empty_sequence_is_restored_without_states() {
    let mut sequence = cache(LIMITS).sequence();
    sequence.restore(0, &[0]).unwrap();
    assert_eq!(run(&mut sequence, 4).0, None);
}

#[test]
fn limits_and_layers_are_checked() {
    let message = |states: &[u32], limits| {
        let states = states.iter().map(|&layer| CacheState { layer, numbers: 4 }).collect();
        Cache::with_states(vec![], states, limits).unwrap_err().to_string()
    };
    assert!(message(&[1, 1], LIMITS).contains("layer 1 a second time"));
    assert!(message(&[1], CacheLimits { snapshots: 1, ..LIMITS }).contains("snapshots"));
    assert!(message(&[1], CacheLimits { snapshots: u32::MAX, ..LIMITS }).contains("snapshots"));
    let cache = cache(LIMITS);
    assert_eq!(cache.state_stats().capacity_pages, 18);
    cache.grow(CacheLimits { sequences: 3, ..LIMITS }).unwrap();
    assert_eq!(cache.state_stats().capacity_pages, 27);
    let pages = cache.bytes(kiln::cache::CacheFormat::F16);
    let plain = Cache::new(cache.groups().to_vec(), CacheLimits { sequences: 3, ..LIMITS }).unwrap();
    assert_eq!(pages - plain.bytes(kiln::cache::CacheFormat::F16), 27 * 4000);
}
