//! Cutting special tokens out of a text before the rest is tokenized.
//!
//! The rule: longer tokens first, and each from left to right in whatever text the longer ones have left. Most texts
//! hold few special tokens, so one walk over the text finds out which occur at all, and only those are searched for.

use super::special::is_special;
use super::trie::{Node, Trie};
use super::vocab::{Attributes, Vocab};
use std::ops::Range;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fragment {
    /// Text to tokenize: its bytes' range.
    Text(Range<usize>),
    /// A special token that stands in the text.
    Token(u32),
}

/// The special tokens of a vocabulary, ready to be searched for.
#[derive(Debug)]
pub(super) struct Partitioner {
    /// Longest first; equally long ones in the order of their ids.
    tokens: Vec<Special>,
    trie: Trie,
    /// For each node of the trie, how many tokens end in it or below.
    below: Vec<u32>,
}

#[derive(Debug)]
struct Special {
    id: u32,
    text: Box<[u8]>,
    attributes: Attributes,
}

impl Partitioner {
    pub(super) fn new(vocab: &Vocab) -> Self {
        let mut tokens: Vec<Special> = (0..vocab.len())
            .filter(|&id| is_special(vocab.attributes(id)) && vocab.id(vocab.text(id)) == Some(id))
            .map(|id| Special { id, text: vocab.text(id).into(), attributes: vocab.attributes(id) })
            .collect();
        tokens.sort_by_key(|token| std::cmp::Reverse(token.text.len()));
        let trie = Trie::new(tokens.iter().zip(0..).map(|(token, index)| (&token.text[..], index)));
        let mut below = vec![0; trie.node_count()];
        for token in &tokens {
            walk(&trie, &token.text, |node| below[node as usize] += 1);
        }
        Partitioner { tokens, trie, below }
    }

    /// Cuts `text` up. Control and unknown tokens are recognised only if `parse_special`, user-defined ones always; and
    /// tokens of one character only where no `mark` follows, unless that is empty.
    pub(super) fn cut(&self, text: &[u8], parse_special: bool, mark: &str) -> Vec<Fragment> {
        let mut fragments = match text.len() {
            0 => vec![],
            length => vec![Fragment::Text(0..length)],
        };
        for index in self.occurring(text) {
            let token = &self.tokens[index as usize];
            if parse_special || !token.attributes.has(Attributes::CONTROL.with(Attributes::UNKNOWN)) {
                fragments = cut_out(token, text, mark, fragments);
            }
        }
        fragments
    }

    /// The tokens that stand anywhere in the text, in the order of `tokens`.
    fn occurring(&self, text: &[u8]) -> Vec<u32> {
        let mut found = Vec::new();
        if self.tokens.is_empty() {
            return found;
        }
        // Subtrees whose tokens have all been seen are not entered again, so a text full of them costs no more.
        let mut unseen = self.below.clone();
        for start in 0..text.len() {
            let mut node = Trie::ROOT;
            for &byte in &text[start..] {
                match self.trie.step(node, byte) {
                    Some(child) if unseen[child as usize] > 0 => node = child,
                    _ => break,
                }
                let Some(index) = self.trie.value(node) else { continue };
                if let Err(place) = found.binary_search(&index) {
                    found.insert(place, index);
                    walk(&self.trie, &self.tokens[index as usize].text, |node| unseen[node as usize] -= 1);
                }
            }
        }
        found
    }
}

/// Visits the nodes below the root along a text that the trie contains.
fn walk(trie: &Trie, text: &[u8], mut visit: impl FnMut(Node)) {
    let mut node = Trie::ROOT;
    for &byte in text {
        let Some(child) = trie.step(node, byte) else { return };
        node = child;
        visit(node);
    }
}

fn cut_out(token: &Special, text: &[u8], mark: &str, fragments: Vec<Fragment>) -> Vec<Fragment> {
    let can_be_marked =
        !mark.is_empty() && std::str::from_utf8(&token.text).is_ok_and(|text| text.chars().count() == 1);
    let mut result = Vec::with_capacity(fragments.len() + 2);
    for fragment in fragments {
        let Fragment::Text(mut rest) = fragment else {
            result.push(fragment);
            continue;
        };
        let mut from = rest.start;
        while let Some(at) = find(&text[from..rest.end], &token.text) {
            let (mut left_end, mut right_start) = (from + at, from + at + token.text.len());
            from = right_start;
            if can_be_marked && text[right_start..].starts_with(mark.as_bytes()) {
                continue;
            }
            if token.attributes.has(Attributes::LSTRIP) {
                while left_end > rest.start && is_space(text[left_end - 1]) {
                    left_end -= 1;
                }
            }
            if token.attributes.has(Attributes::RSTRIP) {
                while right_start < rest.end && is_space(text[right_start]) {
                    right_start += 1;
                }
            }
            if rest.start < left_end {
                result.push(Fragment::Text(rest.start..left_end));
            }
            result.push(Fragment::Token(token.id));
            rest = right_start..rest.end;
            from = right_start;
        }
        if !rest.is_empty() {
            result.push(Fragment::Text(rest));
        }
    }
    result
}

/// White space as the C library's `isspace` sees it.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Where `part` first stands in `text`. Blocks are searched for its first and last byte at their distance, without a
/// question for each byte, so that the compiler can look at many bytes at once.
fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    const BLOCK_BYTES: usize = 256;
    let (&first, &last) = (part.first()?, part.last()?);
    let firsts = text.get(..(text.len() + 1).checked_sub(part.len())?)?;
    let lasts = text.get(part.len() - 1..)?;
    for (block, (firsts, lasts)) in firsts.chunks(BLOCK_BYTES).zip(lasts.chunks(BLOCK_BYTES)).enumerate() {
        let fits = |(a, b): (&u8, &u8)| (*a == first) & (*b == last);
        if firsts.iter().zip(lasts).fold(false, |any, pair| any | fits(pair)) {
            let start = block * BLOCK_BYTES;
            let found = (start..start + firsts.len()).find(|&at| text[at..].starts_with(part));
            if found.is_some() {
                return found;
            }
        }
    }
    None
}
