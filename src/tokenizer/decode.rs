//! Token ids back to text.

use super::Algorithm;
use super::interner::Interner;
use super::rwkv;
use super::vocab::{Attributes, Vocab, marks_to_spaces};

/// The bytes that each token prints as. Not always whole characters: those of byte-level vocabularies may be parts.
pub(super) fn pieces(vocab: &Vocab, algorithm: &Algorithm) -> Interner {
    let mut pieces = Interner::unindexed(vocab.len() as usize);
    let mut piece = Vec::new();
    for id in 0..vocab.len() {
        piece.clear();
        let (text, attributes) = (vocab.text(id), vocab.attributes(id));
        let verbatim = Attributes::UNKNOWN.with(Attributes::CONTROL).with(Attributes::USER_DEFINED);
        if let Algorithm::Rwkv(_) = algorithm {
            piece = rwkv::unescape(text);
        } else if attributes.has(verbatim) {
            piece.extend_from_slice(text);
        } else if attributes.has(Attributes::NORMAL) {
            match algorithm {
                Algorithm::Bpe(bpe) if bpe.family.byte_level => piece.extend_from_slice(bpe.token_bytes(id)),
                Algorithm::Bpe(bpe) if !bpe.family.escape_whitespace => piece.extend_from_slice(text),
                _ => piece.extend_from_slice(&marks_to_spaces(text)),
            }
        } else if attributes.has(Attributes::BYTE) {
            piece.extend(byte_of(text));
        }
        pieces.push_hidden(&piece);
    }
    pieces
}

/// The byte that a token such as `<0x0A>` stands for.
fn byte_of(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Takes out the spaces that byte-pair models of English learned to write before punctuation and contractions.
///
/// Three passes, as the reference makes them: before `?!.,`; around a lone apostrophe; before 's, 'm, 're and 've.
pub(super) fn clean_up_spaces(text: &[u8]) -> Vec<u8> {
    let text = without_spaces(text, |after| match after {
        [b'?' | b'!' | b'.' | b',', ..] => Some(0),
        _ => None,
    });
    let text = without_spaces(&text, |after| match after {
        [b'\'', b' ', ..] => Some(1),
        _ => None,
    });
    without_spaces(&text, |after| match after {
        [b'\'', b's' | b'm', ..] | [b'\'', b'r' | b'v', b'e', ..] => Some(0),
        _ => None,
    })
}

/// Leaves out each space for which `goes` answers when shown what follows it: with how many of the bytes behind the
/// first one go too.
fn without_spaces(text: &[u8], goes: impl Fn(&[u8]) -> Option<usize>) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, goes(after)) {
            (b' ', Some(more)) => {
                kept.push(after[0]);
                rest = &after[1 + more..];
            }
            _ => kept.push(byte),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::clean_up_spaces;

    #[test]
    fn spaces_before_punctuation_and_contractions_go() {
        let clean = |text: &str| String::from_utf8(clean_up_spaces(text.as_bytes())).unwrap();
        assert_eq!(clean("Hello , world ! Is it 1 . 5 ?"), "Hello, world! Is it 1. 5?");
        assert_eq!(clean("a ' b"), "a'b");
        assert_eq!(clean("it 's I 'm we 're they 've"), "it's I'm we're they've");
        assert_eq!(clean("can 't I 'd we 'll"), "can 't I 'd we 'll");
        assert_eq!(clean("  ..  , ' "), " .. ,' ".replace(",' ", ",'"));
        assert_eq!(clean(""), "");
    }
}
