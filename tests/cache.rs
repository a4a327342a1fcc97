//! The books of the cache, case by case: sizes, errors and what they leave unchanged, copies, windows, growth, threads.
//! `tests/cache_model.rs` holds random runs to a naive model.

use kiln::Error;
use kiln::cache::{Cache, CacheFormat, CacheGroup, CacheLayer, CacheLimits, GroupStats, LayerPlace, Sequence};

fn layer(layer: u32) -> CacheLayer {
    CacheLayer { layer, kv_heads: 2, key_size: 64, value_size: 64 }
}

/// A cache with one group of one layer for each window.
fn cache(windows: &[Option<u32>], limits: CacheLimits) -> Cache {
    let layers =
        windows.iter().zip(0..).map(|(window, index)| CacheGroup { window: *window, layers: vec![layer(index)] });
    Cache::new(layers.collect(), limits).unwrap()
}

/// Reserves and commits, and returns the number of copies that asked for.
fn add(sequence: &mut Sequence, tokens: u32) -> usize {
    let copies = sequence.reserve(tokens).unwrap();
    sequence.commit(tokens).unwrap();
    copies.len()
}

fn used(cache: &Cache) -> Vec<u32> {
    cache.stats().iter().map(|group| group.used_pages).collect()
}

#[test]
fn rows_and_pages_have_the_sizes_of_their_formats() {
    assert_eq!(
        [CacheFormat::F32, CacheFormat::F16, CacheFormat::Q8_0].map(|format| format.row_bytes(64)),
        [256, 128, 68]
    );
    assert_eq!(CacheFormat::Q8_0.row_bytes(80), 3 * 34, "the third block is padded");
    assert_eq!(CacheFormat::F16.row_bytes(0), 0);
    // Two layers: 8 heads of 128 + 128 values, and one head of 576 values whose values are read from its keys.
    let wide = CacheLayer { layer: 0, kv_heads: 8, key_size: 128, value_size: 128 };
    let latent = CacheLayer { layer: 1, kv_heads: 1, key_size: 576, value_size: 0 };
    let group = CacheGroup { window: None, layers: vec![wide, latent] };
    assert_eq!(group.page_bytes(CacheFormat::F16), 32 * 2 * (8 * 256 + 576));
    assert_eq!(group.page_bytes(CacheFormat::Q8_0), 32 * 34 * (8 * 8 + 18));
    let cache = Cache::new(vec![group.clone()], CacheLimits::new(100)).unwrap();
    assert_eq!(cache.bytes(CacheFormat::F32), 4 * group.page_bytes(CacheFormat::F32), "100 positions are four pages");
    let absurd = CacheLayer { layer: 0, kv_heads: u32::MAX, key_size: u32::MAX, value_size: u32::MAX };
    assert_eq!(CacheGroup { window: None, layers: vec![absurd] }.page_bytes(CacheFormat::F32), u64::MAX);
}

#[test]
fn limits_say_how_many_pages_a_group_needs() {
    let limits = CacheLimits { context_tokens: 4096, sequences: 1, chunk_tokens: 64, rollback_tokens: 0, snapshots: 2 };
    let group = |window| CacheGroup { window, layers: Vec::new() };
    assert_eq!(limits.pages(&group(None)).unwrap(), 128);
    // The window's other 31 positions, up to 31 more in the page of the oldest, and the chunk.
    assert_eq!(limits.pages(&group(Some(32))).unwrap(), 4);
    assert_eq!(limits.pages(&group(Some(100_000))).unwrap(), 128, "no more than the context");
    let many = CacheLimits { sequences: 3, ..limits };
    assert_eq!(many.pages(&group(None)).unwrap(), 3 * 129, "and for each sequence a page that is being copied");
    let error = CacheLimits { context_tokens: u32::MAX, sequences: u32::MAX, ..limits }.pages(&group(None));
    assert!(matches!(error, Err(Error::Cache { subject: "limits", .. })));
}

#[test]
fn layers_are_grouped_by_window_and_found_again() {
    let windows = [Some(512), Some(512), None, Some(512), None];
    let groups = CacheGroup::by_window(windows.into_iter().zip((0..).map(layer)));
    let indices = |group: &CacheGroup| group.layers.iter().map(|layer| layer.layer).collect::<Vec<_>>();
    assert_eq!(groups.iter().map(|group| group.window).collect::<Vec<_>>(), [Some(512), None]);
    assert_eq!(groups.iter().map(indices).collect::<Vec<_>>(), [vec![0, 1, 3], vec![2, 4]]);
    let cache = Cache::new(groups, CacheLimits::new(64)).unwrap();
    assert_eq!(cache.place_of(3), Some(LayerPlace { group: 0, index: 2 }));
    assert_eq!(cache.place_of(4), Some(LayerPlace { group: 1, index: 1 }));
    assert_eq!(cache.place_of(5), None);
}

#[test]
fn what_no_cache_can_be_made_of_is_refused() {
    let message = |groups, limits| Cache::new(groups, limits).unwrap_err().to_string();
    let limits = CacheLimits::new(64);
    let group = |window, layers| CacheGroup { window, layers };
    assert_eq!(
        message(vec![group(None, vec![]), group(Some(0), vec![])], limits),
        "cache window: found 0 in group 1, expected at least 1, the position itself"
    );
    assert_eq!(
        message(vec![group(None, vec![layer(7)]), group(Some(8), vec![layer(7)])], limits),
        "cache groups: found layer 7 a second time, expected each layer once"
    );
    assert_eq!(
        message(vec![], CacheLimits { context_tokens: 0, ..limits }),
        "cache limit `context_tokens`: found 0, expected at least 1"
    );
    assert!(message(vec![], CacheLimits { sequences: 0, ..limits }).contains("sequences"));
    assert!(message(vec![], CacheLimits { chunk_tokens: 0, ..limits }).contains("chunk_tokens"));
}

#[test]
fn a_full_context_is_an_error_with_numbers_and_changes_nothing() {
    let cache = cache(&[None], CacheLimits::new(100));
    let mut sequence = cache.sequence();
    add(&mut sequence, 90);
    sequence.reserve(3).unwrap();
    let before = (cache.stats(), sequence.table(0).to_vec());
    let error = sequence.reserve(11).unwrap_err();
    assert!(matches!(error, Error::ContextFull { used_tokens: 90, asked_tokens: 11, limit_tokens: 100 }));
    assert_eq!(error.to_string(), "context full: 90 tokens used and 11 more asked for, of at most 100");
    assert!(matches!(sequence.reserve(u32::MAX), Err(Error::ContextFull { .. })));
    assert_eq!((cache.stats(), sequence.table(0).to_vec()), before);
    assert_eq!((sequence.len(), sequence.reserved()), (90, 3));
    assert_eq!(add(&mut sequence, 10), 0);
}

#[test]
fn pages_that_others_hold_are_part_of_the_limit() {
    let limits = CacheLimits::new(96); // Three pages, for one sequence; none is set aside for copies.
    let cache = cache(&[None], limits);
    let mut first = cache.sequence();
    add(&mut first, 40);
    let mut second = cache.sequence();
    assert!(matches!(second.reserve(33), Err(Error::ContextFull { used_tokens: 0, limit_tokens: 32, .. })));
    add(&mut second, 32);
    let mut forked = first.fork();
    let error = forked.reserve(1).unwrap_err();
    assert!(matches!(error, Error::ContextFull { used_tokens: 40, asked_tokens: 1, limit_tokens: 40 }), "{error}");
    drop(second);
    assert_eq!(add(&mut forked, 1), 1, "now there is a page to copy to");
}

#[test]
fn one_group_without_pages_leaves_the_others_unchanged() {
    let limits = CacheLimits { chunk_tokens: 32, rollback_tokens: 0, ..CacheLimits::new(320) };
    let cache = cache(&[None, Some(1)], limits); // 10 pages, and 2 for the window
    let mut sequence = cache.sequence();
    assert!(matches!(sequence.reserve(65), Err(Error::ContextFull { limit_tokens: 64, .. })));
    assert_eq!(used(&cache), [0, 0]);
    for _ in 0..10 {
        add(&mut sequence, 32);
    }
    assert_eq!(used(&cache), [10, 0], "a window of one position keeps no whole page");
}

#[test]
fn a_shared_tail_is_copied_once_and_only_when_it_is_written() {
    let cache = cache(&[None, Some(64)], CacheLimits { sequences: 2, ..CacheLimits::new(256) });
    let mut first = cache.sequence();
    add(&mut first, 40);
    let mut second = first.fork();
    assert_eq!((used(&cache), cache.stats()[0].shared_pages), (vec![2, 2], 2));
    assert!(second.reserve(0).unwrap().is_empty());
    let copies = second.reserve(5).unwrap();
    assert_eq!(copies.len(), 2, "one for each group");
    for (group, copy) in copies.iter().enumerate() {
        assert_eq!((copy.group, copy.positions), (group, 8));
        assert_eq!(Some((copy.from, 7)), first.slot_of(group, 39));
        assert_eq!(Some((copy.to, 8)), second.slot_of(group, 40));
    }
    assert!(second.reserve(30).unwrap().is_empty(), "more of the same reservation");
    second.commit(30).unwrap();
    assert_eq!(add(&mut first, 1), 0, "nobody else holds the original any more");
    assert_eq!(first.slot_of(0, 3), second.slot_of(0, 3), "the full page is still one");
    // At the end of a page nothing needs to be copied.
    first.truncate(32).unwrap();
    assert_eq!(add(&mut first.fork(), 1), 0);
}

#[test]
fn the_original_of_an_open_copy_is_not_given_away() {
    let limits = CacheLimits::new(256);
    let cache = cache(&[None], limits);
    let mut first = cache.sequence();
    add(&mut first, 10);
    let mut second = first.fork();
    let from = second.reserve(1).unwrap()[0].from;
    drop(first);
    let mut third = cache.sequence();
    third.reserve(192).unwrap();
    assert!(!third.table(0).contains(&Some(from)));
    second.commit(1).unwrap();
    third.reserve(224).unwrap();
    assert!(third.table(0).contains(&Some(from)), "after the commit it is free");
}

#[test]
fn a_window_keeps_what_the_next_position_sees_and_the_rollback() {
    for (window, rollback_tokens) in [(1, 0), (5, 0), (32, 0), (33, 0), (64, 10), (40, 100)] {
        let cache = cache(&[Some(window)], CacheLimits { rollback_tokens, ..CacheLimits::new(2048) });
        let mut sequence = cache.sequence();
        for len in 1..400_u32 {
            add(&mut sequence, 1);
            let first_seen = (len + 1).saturating_sub(window + rollback_tokens);
            let kept = (0..len).filter(|p| sequence.slot_of(0, *p).is_some()).min();
            // Pages go whole; at the end of a page a window of one position holds nothing.
            let expected = first_seen / 32 * 32;
            assert_eq!(kept.unwrap_or(len), expected, "window {window}, {len} positions");
            assert_eq!(used(&cache)[0], len.div_ceil(32) - expected / 32);
        }
        sequence.fork().truncate(399 - rollback_tokens).unwrap();
    }
}

#[test]
fn going_back_behind_a_window_is_an_error_that_says_how_far_is_possible() {
    let cache = cache(&[None, Some(20)], CacheLimits { rollback_tokens: 0, ..CacheLimits::new(256) });
    let mut sequence = cache.sequence();
    assert_eq!(sequence.earliest_rollback(), 0);
    add(&mut sequence, 100); // The next position sees from 81 on; pages 0 and 1 are gone.
    assert_eq!(sequence.table(1).iter().flatten().count(), 2);
    assert_eq!(sequence.earliest_rollback(), 64 + 19);
    let before = (cache.stats(), sequence.table(1).to_vec());
    let error = sequence.truncate(82).unwrap_err();
    assert!(matches!(error, Error::Evicted { asked_tokens: 82, earliest_tokens: 83 }));
    assert!(error.to_string().contains("82 tokens") && error.to_string().contains("at least 83"), "{error}");
    let mut other = cache.sequence();
    assert!(matches!(other.share_prefix(&sequence, 50), Err(Error::Evicted { .. })));
    assert_eq!((cache.stats(), sequence.table(1).to_vec(), sequence.len()), (before.0, before.1, 100));
    other.share_prefix(&sequence, 83).unwrap();
    sequence.truncate(200).unwrap();
    assert_eq!(sequence.len(), 100, "there is nothing to take away");
    sequence.truncate(0).unwrap();
    assert_eq!((sequence.len(), sequence.table(1).len(), sequence.earliest_rollback()), (0, 0, 0));
    add(&mut sequence, 10);
    assert!(sequence.slot_of(1, 0).is_some());
}

#[test]
fn commits_and_prefixes_that_cannot_be_are_refused() {
    let cache_a = cache(&[None], CacheLimits::new(64));
    let cache_b = cache(&[None], CacheLimits::new(64));
    let mut sequence = cache_a.sequence();
    sequence.reserve(4).unwrap();
    let error = sequence.commit(5).unwrap_err().to_string();
    assert_eq!(error, "cache commit: found 5 tokens, expected at most the 4 reserved");
    sequence.commit(4).unwrap();
    assert!(sequence.commit(1).is_err(), "the reservation is closed");
    let mut other = cache_a.sequence();
    let error = other.share_prefix(&sequence, 5).unwrap_err().to_string();
    assert_eq!(error, "cache prefix: found 5 tokens, expected at most the 4 there are");
    let error = cache_b.sequence().share_prefix(&sequence, 2).unwrap_err().to_string();
    assert_eq!(error, "cache prefix: found a sequence of another cache, expected one of the same");
}

#[test]
fn slots_and_tables_end_where_the_reservation_ends() {
    let cache = cache(&[None], CacheLimits::new(256));
    let mut sequence = cache.sequence();
    sequence.reserve(40).unwrap();
    assert!(sequence.is_empty() && sequence.reserved() == 40);
    assert!(sequence.slot_of(0, 39).is_some() && sequence.slot_of(0, 40).is_none());
    assert!(sequence.slot_of(1, 0).is_none() && sequence.table(1).is_empty(), "there is no such group");
    sequence.commit(10).unwrap();
    assert_eq!((sequence.len(), sequence.table(0).len()), (10, 1), "the second page is given back");
    assert!(sequence.slot_of(0, 9).is_some() && sequence.slot_of(0, 10).is_none());
}

#[test]
fn limits_grow_and_never_shrink() {
    let cache = cache(&[None], CacheLimits::new(32));
    let mut sequence = cache.sequence();
    add(&mut sequence, 32);
    assert!(sequence.reserve(1).is_err());
    cache.grow(CacheLimits { chunk_tokens: 1, ..CacheLimits::new(128) }).unwrap();
    assert_eq!(cache.limits(), CacheLimits::new(128), "the lower chunk is ignored");
    add(&mut sequence, 96);
    let full = GroupStats { capacity_pages: 4, used_pages: 4, shared_pages: 0, free_pages: 0, touched_pages: 4 };
    assert_eq!(cache.stats(), [full]);
    cache.grow(CacheLimits::new(32)).unwrap();
    assert_eq!(cache.stats(), [full]);
    assert!(cache.grow(CacheLimits { sequences: u32::MAX, ..CacheLimits::new(u32::MAX) }).is_err());
    assert_eq!(cache.limits(), CacheLimits::new(128));
}

#[test]
fn pages_given_back_are_used_again_before_new_ones() {
    let cache = cache(&[None], CacheLimits::new(4096));
    for _ in 0..10 {
        add(&mut cache.sequence(), 64);
    }
    assert_eq!(cache.stats()[0].touched_pages, 2);
}

#[test]
fn a_cache_without_groups_still_counts_positions() {
    let cache = cache(&[], CacheLimits::new(10));
    let mut sequence = cache.sequence();
    assert_eq!(add(&mut sequence, 10), 0);
    assert!(matches!(sequence.reserve(1), Err(Error::ContextFull { limit_tokens: 10, .. })));
}

#[test]
fn threads_share_the_books() {
    let cache = cache(&[None, Some(48)], CacheLimits { sequences: 5, ..CacheLimits::new(512) });
    let mut root = cache.sequence();
    add(&mut root, 50);
    std::thread::scope(|scope| {
        for thread in 1..=4 {
            let mut sequence = root.fork();
            scope.spawn(move || {
                for round in 0..200 {
                    add(&mut sequence, (thread * 7 + round) % 60 + 1);
                    sequence.truncate(50).or_else(|_| sequence.truncate(0)).unwrap();
                }
            });
        }
    });
    assert_eq!(used(&cache), [2, 2]);
    drop(root);
    assert_eq!(used(&cache), [0, 0]);
}
