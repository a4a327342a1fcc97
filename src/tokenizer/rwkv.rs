//! RWKV's world tokenizer (`rwkv`): the longest token that the rest of the text starts with, again and again.
//!
//! Tokens are bytes; the file spells those that are not text as `\n`, `\t`, `\r`, `\\` and `\x00`.

use super::trie::Trie;
use super::vocab::Vocab;

#[derive(Debug)]
pub(super) struct Rwkv {
    tokens: Trie,
}

impl Rwkv {
    pub(super) fn new(vocab: &Vocab) -> Self {
        let bytes: Vec<Vec<u8>> = (0..vocab.len()).map(|id| unescape(vocab.text(id))).collect();
        Rwkv { tokens: Trie::new(bytes.iter().zip(0..).map(|(bytes, id)| (&bytes[..], id))) }
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, text: &[u8], unknown: Option<u32>, ids: &mut Vec<u32>) {
        let mut rest = text;
        while !rest.is_empty() {
            let bytes = match self.tokens.longest(rest) {
                Some((token, bytes)) => {
                    ids.push(token);
                    bytes
                }
                None => {
                    ids.extend(unknown);
                    1
                }
            };
            rest = &rest[bytes..];
        }
    }
}

/// The bytes that a token's spelling stands for.
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let Some((&escaped, tail)) = rest.split_first() else { break };
        rest = tail;
        match escaped {
            b't' => bytes.push(b'\t'),
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b'x' => {
                let Some((&[high, low], tail)) = rest.split_first_chunk() else { break };
                rest = tail;
                bytes.push(hex_digit(high) << 4 | hex_digit(low));
            }
            other => bytes.push(other),
        }
    }
    bytes
}

fn hex_digit(digit: u8) -> u8 {
    char::from(digit).to_digit(16).unwrap_or(0) as u8
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn spellings_of_bytes() {
        assert_eq!(unescape(br"a\n\t\r\\\x00\xfF\'z"), b"a\n\t\r\\\x00\xff'z");
        assert_eq!(unescape(br"cut\x0"), b"cut");
        assert_eq!(unescape(br"cut\"), b"cut");
    }
}
