//! Text in which some parts may be special tokens and others may not.
//!
//! A conversation is rendered to one text, in which the template's own control tokens have to be recognised and those that
//! a user has typed must not. So before it is rendered, whatever a user wrote goes through a [`Guard`]: it puts a mark (a
//! character that means nothing and occurs nowhere else) into each text of a token, so that the tokenizer does not find it
//! there. Behind the tokenizer's search for tokens, [`Tokenizer::encode_marked`] takes the marks out again.
//!
//! Marks survive whatever templates do with texts, such as trimming, cutting and writing them as JSON.

use super::merge::Merger;
use super::partition::Fragment;
use super::trie::Trie;
use super::vocab::Attributes;
use super::{Tokenizer, bounded};
use std::borrow::Cow;

/// Characters that Unicode has set aside for use inside of programs.
const MARKS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// Knows the texts that must not become tokens where users wrote them.
#[derive(Debug)]
pub struct Guard {
    tokens: Trie,
    /// The same texts backwards, to look at the beginning of a text.
    backwards: Trie,
}

impl Guard {
    fn new<'t>(texts: impl Iterator<Item = &'t [u8]> + Clone) -> Self {
        let reversed: Vec<Vec<u8>> = texts.clone().map(|text| text.iter().rev().copied().collect()).collect();
        Guard {
            tokens: Trie::new(texts.zip(0..)),
            backwards: Trie::new(reversed.iter().map(|text| &text[..]).zip(0..)),
        }
    }

    /// The text with a mark in each token that it holds, and at its ends if what is put beside it could complete one.
    pub fn mark<'t>(&self, text: &'t str, mark: char) -> Cow<'t, str> {
        let mut marked = String::new();
        let mut copied = 0;
        if self.may_end_a_token(text) {
            marked.push(mark);
        }
        for (start, c) in text.char_indices() {
            // Behind the first character, where no token can be recognised over it.
            if self.has_token(&text.as_bytes()[start..]) || self.may_begin_a_token(&text.as_bytes()[start..]) {
                let at = start + c.len_utf8();
                marked.push_str(&text[copied..at]);
                marked.push(mark);
                copied = at;
            }
        }
        if marked.is_empty() {
            return text.into();
        }
        marked.push_str(&text[copied..]);
        marked.into()
    }

    /// Whether a token stands at the beginning.
    fn has_token(&self, text: &[u8]) -> bool {
        let mut node = Trie::ROOT;
        for &byte in text {
            match self.tokens.step(node, byte) {
                Some(child) => node = child,
                None => return false,
            }
            if self.tokens.value(node).is_some() {
                return true;
            }
        }
        false
    }

    /// Whether all of this is the beginning of a token that is longer.
    fn may_begin_a_token(&self, text: &[u8]) -> bool {
        let step = |node, &byte: &u8| self.tokens.step(node, byte);
        text.iter().try_fold(Trie::ROOT, step).is_some()
    }

    /// Whether the text begins as a token that is longer ends.
    fn may_end_a_token(&self, text: &str) -> bool {
        // Of each length, backwards from the end of a token; lengths beyond the longest token fail at their first steps.
        (1..=text.len().min(LONGEST_BYTES)).any(|length| {
            let step = |node, &byte: &u8| self.backwards.step(node, byte);
            text.as_bytes()[..length].iter().rev().try_fold(Trie::ROOT, step).is_some()
        })
    }
}

/// Tokens are not longer; if one is, what is typed at the beginning of a text cannot be its end and be meant so.
const LONGEST_BYTES: usize = 64;

impl Tokenizer {
    /// A guard for the tokens that steer a model, and for those among the others that a template writes.
    pub fn guard(&self, template: &str) -> Guard {
        let names_something = |text: &[u8]| text.iter().any(u8::is_ascii_alphanumeric);
        let in_template = |text: &[u8]| std::str::from_utf8(text).is_ok_and(|text| template.contains(text));
        self.guard_of(|id| {
            let text = self.vocab.text(id);
            let is_special = self.vocab.attributes(id).has(Attributes::USER_DEFINED);
            self.steers(id) || (is_special && names_something(text) && in_template(text))
        })
    }

    /// A guard for the tokens that steer a model: for what the model wrote, which may write the others.
    pub fn control_guard(&self) -> Guard {
        self.guard_of(|id| self.steers(id))
    }

    /// Whether a token steers the model: a control token, or one that only is none because applications have to see it.
    fn steers(&self, id: u32) -> bool {
        let (attributes, text) = (self.vocab.attributes(id), self.vocab.text(id));
        let looks_so = text.starts_with(b"<|") && text.ends_with(b"|>");
        attributes.has(Attributes::CONTROL) || (attributes.has(Attributes::USER_DEFINED) && looks_so)
    }

    fn guard_of(&self, is_guarded: impl Fn(u32) -> bool) -> Guard {
        let guarded: Vec<u32> = (0..self.vocab.len()).filter(|&id| is_guarded(id)).collect();
        Guard::new(guarded.iter().map(|&id| self.vocab.text(id)).filter(|text| !text.is_empty()))
    }

    /// The ids of a text in which special tokens are recognised, but for those that have been marked. `is_first` says
    /// whether it begins a text rather than going on with one.
    pub fn encode_marked(&self, text: &str, mark: char, is_first: bool) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 2);
        let mut merger = Merger::for_text(text.len());
        let mut after_special = is_first;
        for fragment in self.partitioner.cut(text.as_bytes(), true, mark.encode_utf8(&mut [0; 4])) {
            match fragment {
                Fragment::Token(id) => {
                    ids.push(id);
                    after_special = true;
                }
                Fragment::Text(range) => {
                    // Tokens are cut out at characters, as long as their texts are some.
                    let part = String::from_utf8_lossy(&text.as_bytes()[range]);
                    self.encode_plain(&part.replace(mark, ""), after_special, &mut merger, &mut ids);
                    after_special = false;
                }
            }
        }
        ids
    }

    /// Text that has no special tokens in it. A vocabulary can have merges that lead to a control token all the same; the
    /// text is then cut where that begins, behind its first character.
    fn encode_plain(&self, text: &str, after_special: bool, merger: &mut Merger, ids: &mut Vec<u32>) {
        let first = ids.len();
        for part in bounded(text.as_bytes()) {
            self.encode_fragment(part, after_special && ids.len() == first, merger, ids);
        }
        let is_steering = |id: &u32| self.vocab.attributes(*id).has(Attributes::CONTROL);
        let Some(control) = ids[first..].iter().copied().find(is_steering) else { return };
        let place = std::str::from_utf8(self.vocab.text(control)).ok().and_then(|name| text.find(name));
        let second = |at: usize| text[at..].char_indices().nth(1).map(|(width, _)| at + width);
        if let Some((before, behind)) = place.and_then(second).and_then(|at| text.split_at_checked(at)) {
            ids.truncate(first);
            self.encode_plain(before, after_special, merger, ids);
            self.encode_plain(behind, false, merger, ids);
        }
    }
}

/// A mark that occurs in none of these texts, not even as it is written in JSON.
pub fn unused_mark<'t>(texts: impl Iterator<Item = &'t str> + Clone) -> Option<char> {
    MARKS.into_iter().find(|mark| {
        let escaped = format!("\\u{:04x}", u32::from(*mark));
        !texts.clone().any(|text| text.contains(*mark) || text.contains(&escaped))
    })
}
