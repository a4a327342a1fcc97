//! The smaller ways of cutting, which stand before or after [`Words`](super::words::Words).

use super::chars::{Chars, Set, WHITE, before};
use crate::tokenizer::unicode::character_bytes;

/// Cuts out runs of a class: `lead?[of]{min,max}`, each as long as it can be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runs {
    pub of: Chars,
    /// What may stand once before a run; not in the class.
    pub lead: Set,
    pub min: usize,
    pub max: usize,
}

impl Runs {
    pub(super) fn split<'a>(&self, text: &'a [u8], piece: &mut dyn FnMut(&'a [u8])) {
        let (mut start, mut pos) = (0, 0); // of what is not handed out yet; of what is not looked at yet
        loop {
            pos = self.of.find(text, pos);
            let (end, count) = self.of.run(text, pos, self.max);
            if count == 0 {
                break;
            }
            if count >= self.min {
                let from = self.with_lead(text, start, pos);
                if start < from {
                    piece(&text[start..from]);
                }
                piece(&text[from..end]);
                start = end;
            }
            pos = end;
        }
        if start < text.len() {
            piece(&text[start..]);
        }
    }

    /// Where the run at `pos` starts when the character before it, not earlier than `start`, belongs to it.
    fn with_lead(&self, text: &[u8], start: usize, pos: usize) -> usize {
        if self.lead == 0 || start == pos {
            return pos;
        }
        let (kind, at) = before(text, pos);
        if kind & self.lead != 0 { at } else { pos }
    }
}

/// Cuts runs of a class into groups of three, counted from the right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thirds {
    pub of: Chars,
    /// Whether the end of a run is cut too; if not, its start is, where that starts a group of three.
    pub after: bool,
}

impl Thirds {
    pub(super) fn split<'a>(&self, text: &'a [u8], piece: &mut dyn FnMut(&'a [u8])) {
        let (mut start, mut pos) = (0, 0); // of what is not handed out yet; of what is not looked at yet
        loop {
            pos = self.of.find(text, pos);
            let (end, count) = self.of.run(text, pos, usize::MAX);
            if count == 0 {
                break;
            }
            let mut cut = pos;
            for i in 0..count {
                if (count - i) % 3 == 0 && (i > 0 || !self.after) && start < cut {
                    piece(&text[start..cut]);
                    start = cut;
                }
                cut += character_bytes(&text[cut..]);
            }
            if self.after {
                piece(&text[start..end]);
                start = end;
            }
            pos = end;
        }
        if start < text.len() {
            piece(&text[start..]);
        }
    }
}

/// Cuts off the white space at the end.
pub(super) fn split_trailing_white<'a>(text: &'a [u8], piece: &mut dyn FnMut(&'a [u8])) {
    let mut end = text.len();
    while let (kind, at) = before(text, end)
        && kind & WHITE != 0
    {
        end = at;
    }
    let (body, white) = text.split_at(end);
    for part in [body, white] {
        if !part.is_empty() {
            piece(part);
        }
    }
}

/// Cuts out what `match_len` recognises at a place: it answers with a length in bytes, or zero, and accepts only ASCII.
pub(super) fn split_matches<'a>(text: &'a [u8], match_len: fn(&[u8]) -> usize, piece: &mut dyn FnMut(&'a [u8])) {
    let (mut start, mut pos) = (0, 0); // of what is not handed out yet; of the byte at hand
    while let Some(rest) = text.get(pos..).filter(|rest| !rest.is_empty()) {
        let len_bytes = match_len(rest);
        if len_bytes == 0 {
            pos += 1;
            continue;
        }
        if start < pos {
            piece(&text[start..pos]);
        }
        piece(&text[pos..pos + len_bytes]);
        pos += len_bytes;
        start = pos;
    }
    if start < text.len() {
        piece(&text[start..]);
    }
}

/// `IMGIMG[A-I]{1,4}Z`
pub(super) fn image_len(bytes: &[u8]) -> usize {
    const HEAD: &[u8] = b"IMGIMG";
    let Some(rest) = bytes.strip_prefix(HEAD) else { return 0 };
    let letters = rest.iter().take(4).take_while(|byte| matches!(byte, b'A'..=b'I')).count();
    if letters > 0 && rest.get(letters) == Some(&b'Z') { HEAD.len() + letters + 1 } else { 0 }
}

/// A tab, a line feed, four spaces or two.
pub(super) fn indent_len(bytes: &[u8]) -> usize {
    match bytes {
        [b'\t' | b'\n', ..] => 1,
        [b' ', b' ', b' ', b' ', ..] => 4,
        [b' ', b' ', ..] => 2,
        _ => 0,
    }
}
