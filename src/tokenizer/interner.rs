//! Byte strings with dense ids, and the way back from a string to its id.
//!
//! Vocabularies hold up to half a million short strings and are looked up for every word of a text, so the strings lie
//! end to end in one buffer and the index is one flat table of ids: two cache lines a lookup, no allocation a string.

/// A growing set of byte strings. Ids count up from 0 in the order of [`Interner::push`].
#[derive(Debug, Default)]
pub(super) struct Interner {
    bytes: Vec<u8>,
    /// `ends[id]` is where string `id` ends in `bytes`; it starts where the one before ends.
    ends: Vec<u32>,
    /// Open addressing with linear probing: a byte of each slot's hash, or [`FREE`]. Most strings that are looked up
    /// are not in the set, and these bytes alone, which stay in the processor's caches, tell so.
    tags: Vec<u8>,
    /// The id in each slot that is not free.
    slots: Vec<u32>,
    used: usize,
}

impl Interner {
    /// Room for `count` strings without growing.
    pub(super) fn with_capacity(count: usize, bytes: usize) -> Self {
        Interner {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(count),
            tags: vec![FREE; slots_for(count)],
            slots: vec![0; slots_for(count)],
            used: 0,
        }
    }

    /// Without the way back from strings to ids: for [`Interner::push_hidden`] only.
    pub(super) fn unindexed(count: usize) -> Self {
        Interner { ends: Vec::with_capacity(count), ..Interner::default() }
    }

    /// The string with this id; empty for an id that was never given out.
    pub(super) fn text(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// The id of a string: the last one pushed, if it was pushed several times.
    pub(super) fn get(&self, text: &[u8]) -> Option<u32> {
        let at = self.find(text, hash(text))?;
        (self.tags[at] != FREE).then(|| self.slots[at])
    }

    /// Adds a string under the next id and makes the string lead to that id.
    pub(super) fn push(&mut self, text: &[u8]) -> u32 {
        let id = self.push_hidden(text);
        self.index(id);
        id
    }

    /// Adds a string under the next id that no lookup will find.
    pub(super) fn push_hidden(&mut self, text: &[u8]) -> u32 {
        let id = self.ends.len() as u32;
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len() as u32);
        id
    }

    /// The id of a string, which is added if it is new.
    pub(super) fn intern(&mut self, text: &[u8]) -> u32 {
        match self.get(text) {
            Some(id) => id,
            None => self.push(text),
        }
    }

    fn index(&mut self, id: u32) {
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let hash = hash(self.text(id));
        let Some(at) = self.find(self.text(id), hash) else { return };
        self.used += usize::from(self.tags[at] == FREE);
        (self.tags[at], self.slots[at]) = (tag(hash), id);
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(16);
        let old_tags = std::mem::replace(&mut self.tags, vec![FREE; size]);
        let old_slots = std::mem::replace(&mut self.slots, vec![0; size]);
        for (_, id) in old_tags.into_iter().zip(old_slots).filter(|&(tag, _)| tag != FREE) {
            let hash = hash(self.text(id));
            let mut at = hash as usize & (size - 1);
            while self.tags[at] != FREE {
                at = (at + 1) & (size - 1);
            }
            (self.tags[at], self.slots[at]) = (tag(hash), id);
        }
    }

    /// Where the string stands in the table, or the free slot where it would.
    #[inline]
    fn find(&self, text: &[u8], hash: u64) -> Option<usize> {
        let mask = self.tags.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let found = self.tags[at];
            if found == FREE || (found == tag(hash) && self.text(self.slots[at]) == text) {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }
}

/// The tag of a slot without an entry.
pub(super) const FREE: u8 = 0;

/// A byte of the hash that has no part in choosing the slot; never [`FREE`].
#[inline]
pub(super) fn tag(hash: u64) -> u8 {
    (hash >> 57) as u8 | 0x80
}

/// A power of two that leaves tables for `count` entries at most half full.
pub(super) fn slots_for(count: usize) -> usize {
    (count * 2).next_power_of_two().max(16)
}

const K0: u64 = 0x9E37_79B9_7F4A_7C15;
const K1: u64 = 0xD1B5_4A32_D192_ED03;

/// The 128-bit product of two words, folded to 64 bits: every input bit reaches every output bit.
#[inline]
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ K0) * u128::from(b ^ K1);
    product as u64 ^ (product >> 64) as u64
}

/// A fast hash for short strings; not meant to resist an attacker, who could only slow down their own text.
#[inline]
pub(super) fn hash(text: &[u8]) -> u64 {
    let mut state = text.len() as u64;
    let mut rest = text;
    while rest.len() > 16 {
        let (head, tail) = rest.split_at(16);
        let (low, high) = pack(head);
        state = mix(low ^ state, high);
        rest = tail;
    }
    let (low, high) = pack(rest);
    mix(low ^ state, high.wrapping_add(state))
}

/// Up to 16 bytes as two words. Together with the length they determine the bytes.
#[inline]
pub(super) fn pack(text: &[u8]) -> (u64, u64) {
    if let (Some(head), Some(tail)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        (u64::from_le_bytes(*head), u64::from_le_bytes(*tail))
    } else if let (Some(head), Some(tail)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (u64::from(u32::from_le_bytes(*head)), u64::from(u32::from_le_bytes(*tail)))
    } else {
        let at = |i: usize| text.get(i).map_or(0, |&b| u64::from(b));
        (at(0) | at(1) << 8 | at(2) << 16, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_by_id_and_by_text_while_the_table_grows() {
        let mut set = Interner::default();
        for i in 0..5000u32 {
            assert_eq!(set.intern(format!("word{i}").as_bytes()), i);
        }
        for i in 0..5000u32 {
            let text = format!("word{i}");
            assert_eq!(set.get(text.as_bytes()), Some(i));
            assert_eq!(set.text(i), text.as_bytes());
        }
        assert_eq!(set.get(b"word5000"), None);
        assert_eq!(set.text(5000), b"");
    }

    #[test]
    fn the_last_of_equal_strings_is_found_and_hidden_ones_never() {
        let mut set = Interner::with_capacity(4, 16);
        assert_eq!((set.push(b"a"), set.push_hidden(b"b"), set.push(b"a")), (0, 1, 2));
        assert_eq!((set.get(b"a"), set.get(b"b")), (Some(2), None));
    }

    #[test]
    fn packing_is_injective_for_each_length() {
        let mut seen = std::collections::HashSet::new();
        for len in 0..=16usize {
            for position in 0..len {
                for value in [1u8, 7, 255] {
                    let mut text = vec![0u8; len];
                    text[position] = value;
                    assert!(seen.insert((len, pack(&text))), "{len} {position} {value}");
                }
            }
        }
    }
}
