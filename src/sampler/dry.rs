//! DRY ("don't repeat yourself", after p-e-w): the longer the repetition that a token would continue, the more it
//! costs, by a power. Breakers, such as line ends and quotes, stop a repetition, so that lists and dialogue may repeat
//! their form.

use super::options::SamplerOptions;
use std::collections::VecDeque;

/// Longer breaker texts are cut to this many bytes.
const MAX_TEXT_BYTES: usize = 40;
/// What follows the first token of a breaker is cut to this many tokens.
const MAX_TAIL_TOKENS: usize = 20;
/// e to this power still is an f32.
const MAX_EXPONENT: f32 = 88.7;

/// The token sequences that contain one of `texts`, for [`Sampler::with_breakers`](super::Sampler::with_breakers).
///
/// `piece` gives the bytes of a token, `encode` the tokens of some bytes, both without special tokens. A token whose
/// text holds a breaker is a sequence alone; one that ends with the beginning of a breaker is followed by the tokens of
/// the breaker's rest.
pub fn dry_breakers<P: AsRef<[u8]>>(
    texts: &[impl AsRef<str>],
    n_vocab: usize,
    piece: impl Fn(u32) -> P,
    encode: impl Fn(&[u8]) -> Vec<u32>,
) -> Vec<Vec<u32>> {
    let mut sequences = Vec::new();
    for text in texts.iter().map(|text| text.as_ref().as_bytes()) {
        let text = text.get(..MAX_TEXT_BYTES).unwrap_or(text);
        if text.is_empty() {
            continue;
        }
        for token in (0u32..).take(n_vocab) {
            let piece = piece(token);
            let piece = piece.as_ref();
            if piece.windows(text.len()).any(|window| window == text) {
                sequences.push(vec![token]);
                continue;
            }
            for (begun, rest) in (1..text.len()).map(|cut| text.split_at(cut)) {
                if piece.ends_with(begun) {
                    let tail = encode(rest).into_iter().take(MAX_TAIL_TOKENS);
                    sequences.push(std::iter::once(token).chain(tail).collect());
                }
            }
        }
    }
    sequences.sort_unstable();
    sequences.dedup();
    sequences
}

/// The breakers of a sampler: sequences of at least one token, sorted.
#[derive(Debug, Default)]
pub(super) struct Breakers(Vec<Vec<u32>>);

impl Breakers {
    pub(super) fn new(mut sequences: Vec<Vec<u32>>) -> Self {
        sequences.sort_unstable();
        Self(sequences)
    }

    /// The breakers that begin with `token`, without it.
    fn tails(&self, token: u32) -> impl Iterator<Item = &[u32]> {
        let start = self.0.partition_point(|sequence| sequence.first() < Some(&token));
        self.0.iter().skip(start).map_while(move |sequence| sequence.strip_prefix(&[token]))
    }

    /// How many tokens were said since the last breaker; all, if there was none.
    fn tokens_since(&self, said: &[u32]) -> usize {
        let mut after: &[u32] = &[];
        for (i, &token) in said.iter().enumerate().rev() {
            if let Some(longest) = self.tails(token).filter(|tail| after.starts_with(tail)).map(<[u32]>::len).max() {
                return after.len() - longest;
            }
            after = said.get(i..).unwrap_or_default();
        }
        said.len()
    }
}

/// The working memory of DRY, kept from token to token.
#[derive(Debug, Default)]
pub(super) struct Dry {
    window: Vec<u32>,
    overlaps: Vec<usize>,
    repeats: Vec<(u32, usize)>,
}

impl Dry {
    /// What each token that would continue a repetition costs.
    pub(super) fn costs(
        &mut self,
        history: &VecDeque<u32>,
        breakers: &Breakers,
        options: &SamplerOptions,
    ) -> impl Iterator<Item = (u32, f32)> {
        self.find_repeats(history, breakers, options);
        let (base, allowed) = (options.dry_base, options.dry_allowed_length);
        // Keeps the power in range. Of a base next to 1 no power that can occur leaves it.
        let most = if base > 1.000_001 { (MAX_EXPONENT / base.ln()) as i32 } else { i32::MAX };
        let multiplier = options.dry_multiplier;
        self.repeats.iter().map(move |&(token, length)| {
            let exponent = i32::try_from(length - allowed).unwrap_or(i32::MAX).min(most);
            (token, multiplier * base.powi(exponent))
        })
    }

    /// Fills `repeats` with each token that would continue a repetition and the length of the longest such, without
    /// the token itself.
    fn find_repeats(&mut self, history: &VecDeque<u32>, breakers: &Breakers, options: &SamplerOptions) {
        let allowed = options.dry_allowed_length;
        self.repeats.clear();
        self.window.clear();
        self.window.extend(history.iter().skip(history.len().saturating_sub(options.dry_last_n)));
        if self.window.len() <= allowed {
            return;
        }
        let longest = breakers.tokens_since(&self.window);
        if longest < allowed {
            return;
        }
        self.window.reverse();
        overlaps(&self.window, &mut self.overlaps);
        // The token said after an earlier occurrence of the window's end is the one that would continue it.
        for (&token, &overlap) in self.window.iter().zip(self.overlaps.iter().skip(1)) {
            let length = overlap.min(longest);
            if length >= allowed && !breakers.tails(token).any(<[u32]>::is_empty) {
                self.repeats.push((token, length));
            }
        }
        self.repeats.sort_unstable_by_key(|&(token, length)| (token, std::cmp::Reverse(length)));
        self.repeats.dedup_by_key(|&mut (token, _)| token);
    }
}

/// For each place in `text`, how many tokens from there on equal those from its start on: the Z-function, in linear
/// time. The first place is 0.
fn overlaps(text: &[u32], found: &mut Vec<usize>) {
    found.clear();
    found.push(0);
    // `start..end` is the stretch that equals the text's start and reaches furthest.
    let (mut start, mut end) = (0, 0);
    for place in 1..text.len() {
        // Within the stretch the answer is known from its twin at the text's start, as far as the stretch goes.
        let known = found.get(place - start).map_or(0, |&twin| twin.min(end.max(place) - place));
        let (ahead, behind) = (text.iter().skip(place + known), text.iter().skip(known));
        let length = known + ahead.zip(behind).take_while(|(a, b)| a == b).count();
        found.push(length);
        if place + length > end {
            (start, end) = (place, place + length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_those_found_by_looking() {
        let mut found = Vec::new();
        let mut state = 1u32;
        for length in 1..200 {
            let text: Vec<u32> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state >> 30
            })
            .take(length)
            .collect();
            overlaps(&text, &mut found);
            for place in 1..length {
                let equal = text[place..].iter().zip(&text).take_while(|(a, b)| a == b).count();
                assert_eq!(found[place], equal, "{text:?} at {place}");
            }
        }
        overlaps(&[7; 50], &mut found);
        assert_eq!(found[1..], (1..50).rev().collect::<Vec<_>>());
    }

    #[test]
    fn the_distance_to_a_breaker_counts_the_tokens_after_it() {
        let breakers = Breakers::new(vec![vec![9], vec![5, 6], vec![5], vec![7, 8, 9]]);
        assert_eq!(breakers.tokens_since(&[1, 2, 3]), 3);
        assert_eq!(breakers.tokens_since(&[1, 9, 3]), 1);
        assert_eq!(breakers.tokens_since(&[1, 2, 9]), 0);
        assert_eq!(breakers.tokens_since(&[9, 5, 6, 2, 2]), 2);
        assert_eq!(breakers.tokens_since(&[9, 5, 2, 2]), 2);
        assert_eq!(breakers.tokens_since(&[7, 8]), 2);
        assert_eq!(breakers.tokens_since(&[]), 0);
    }

    #[test]
    fn breakers_are_found_within_tokens_and_across_them() {
        let vocabulary = ["a", "\n", "x\n\n", "ab", "b", "xa", "end", "c"];
        let encode = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte) - u32::from(b'a')).collect::<Vec<_>>();
        let find = |texts: &[&str]| dry_breakers(texts, vocabulary.len(), |token| vocabulary[token as usize], encode);
        assert_eq!(find(&["\n"]), [[1], [2]]);
        assert_eq!(find(&["abc"]), [vec![0, 1, 2], vec![3, 2], vec![5, 1, 2]]);
        assert_eq!(find(&["", "\n", "\n"]), [[1], [2]]);
        assert_eq!(find(&[]), Vec::<Vec<u32>>::new());
    }
}
