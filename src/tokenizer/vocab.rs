//! The vocabulary as the file gives it: the text, the score and the kind of each token.

use super::interner::Interner;
use crate::Result;
use crate::error::Error;
use crate::gguf::Metadata;
use std::borrow::Cow;

/// What a token is, as a set of bits. The file names one kind a token; loading may add others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Attributes(u16);

impl Attributes {
    pub(super) const UNKNOWN: Self = Attributes(1);
    pub(super) const UNUSED: Self = Attributes(1 << 1);
    pub(super) const NORMAL: Self = Attributes(1 << 2);
    pub(super) const CONTROL: Self = Attributes(1 << 3);
    pub(super) const USER_DEFINED: Self = Attributes(1 << 4);
    pub(super) const BYTE: Self = Attributes(1 << 5);
    /// The token swallows the white space before it.
    pub(super) const LSTRIP: Self = Attributes(1 << 6);
    /// The token swallows the white space after it.
    pub(super) const RSTRIP: Self = Attributes(1 << 7);

    /// From a number of `tokenizer.ggml.token_type`.
    fn from_file(kind: i32) -> Self {
        match kind {
            1 => Self::NORMAL,
            2 => Self::UNKNOWN,
            3 => Self::CONTROL,
            4 => Self::USER_DEFINED,
            5 => Self::UNUSED,
            6 => Self::BYTE,
            _ => Self::default(),
        }
    }

    /// Has at least one bit in common.
    pub(super) fn has(self, any_of: Self) -> bool {
        self.0 & any_of.0 != 0
    }

    pub(super) fn with(self, more: Self) -> Self {
        Attributes(self.0 | more.0)
    }

    pub(super) fn without(self, less: Self) -> Self {
        Attributes(self.0 & !less.0)
    }
}

/// Texts, scores and kinds of all tokens. The three are equally long.
#[derive(Debug)]
pub(super) struct Vocab {
    pub(super) texts: Interner,
    pub(super) scores: Vec<f32>,
    pub(super) attributes: Vec<Attributes>,
}

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";

impl Vocab {
    pub(super) fn load(metadata: &Metadata) -> Result<Self> {
        let tokens = metadata.strings(TOKENS)?.ok_or_else(|| missing(TOKENS, "an array of token texts"))?;
        let count = tokens.len();
        let scores = load_scores(metadata)?.unwrap_or_else(|| vec![0.0; count]);
        let kinds = metadata.i32s(TOKEN_TYPES)?.unwrap_or_else(|| vec![1; count]);
        for (key, length) in [(SCORES, scores.len()), (TOKEN_TYPES, kinds.len())] {
            if length < count {
                return Err(Error::metadata(
                    key,
                    format!("{length} entries"),
                    format!("one for each of {count} tokens"),
                ));
            }
        }
        let total_bytes: usize = tokens.clone().map(|text| text.len().max(16)).sum();
        if total_bytes > u32::MAX as usize || count >= u32::MAX as usize / 2 {
            let found = format!("{count} tokens of {total_bytes} bytes");
            return Err(Error::metadata(TOKENS, found, "a vocabulary below 4 GiB"));
        }
        let mut texts = Interner::with_capacity(count, total_bytes);
        for (id, text) in tokens.enumerate() {
            match text {
                b"" => texts.push(format!("[EMPTY_{id}]").as_bytes()),
                text => texts.push(text),
            };
        }
        let attributes = kinds.into_iter().take(count).map(Attributes::from_file).collect();
        Ok(Vocab { texts, scores, attributes })
    }

    pub(super) fn len(&self) -> u32 {
        self.attributes.len() as u32
    }

    /// The token with exactly this text.
    pub(super) fn id(&self, text: impl AsRef<[u8]>) -> Option<u32> {
        self.texts.get(text.as_ref())
    }

    /// Those of the texts that are tokens.
    pub(super) fn ids(&self, texts: &[&str]) -> Vec<u32> {
        texts.iter().filter_map(|text| self.id(text)).collect()
    }

    pub(super) fn text(&self, id: u32) -> &[u8] {
        self.texts.text(id)
    }

    pub(super) fn attributes(&self, id: u32) -> Attributes {
        self.attributes.get(id as usize).copied().unwrap_or_default()
    }

    /// Changes the bits of a token.
    pub(super) fn set(&mut self, id: u32, change: impl FnOnce(Attributes) -> Attributes) {
        if let Some(attributes) = self.attributes.get_mut(id as usize) {
            *attributes = change(*attributes);
        }
    }

    /// The token that stands for one byte, written `<0x0A>`, as SentencePiece has them.
    pub(super) fn byte_token(&self, byte: u8) -> Option<u32> {
        self.id(format!("<0x{byte:02X}>"))
    }
}

/// The scores, which some files have as integers.
fn load_scores(metadata: &Metadata) -> Result<Option<Vec<f32>>> {
    match metadata.i32s(SCORES) {
        Ok(scores) => Ok(scores.map(|scores| scores.into_iter().map(|score| score as f32).collect())),
        Err(_) => metadata.f32s(SCORES),
    }
}

/// The error for a key that has to be there.
pub(super) fn missing(key: &str, expected: &str) -> Error {
    Error::metadata(key, "nothing", expected)
}

/// U+2581, which SentencePiece writes for a space.
pub(super) const SPACE_MARK: &[u8] = "\u{2581}".as_bytes();

/// The text with a space for every [`SPACE_MARK`].
///
/// SentencePiece writes the mark for a space, and so cannot tell the two apart. Matching goes the other way round: marks
/// become spaces, in tokens and texts alike, which are a third as long and mostly stand in the text already.
pub(super) fn marks_to_spaces(text: &[u8]) -> Cow<'_, [u8]> {
    let is_mark = |at: &usize| text[*at..].starts_with(SPACE_MARK);
    let Some(first) = (0..text.len()).find(|at| text[*at] == SPACE_MARK[0] && is_mark(at)) else {
        return Cow::Borrowed(text);
    };
    let (head, mut rest) = text.split_at(first);
    let mut spaced = Vec::with_capacity(text.len());
    spaced.extend_from_slice(head);
    while let Some((&byte, tail)) = rest.split_first() {
        let (byte, after) = rest.strip_prefix(SPACE_MARK).map_or((byte, tail), |after| (b' ', after));
        spaced.push(byte);
        rest = after;
    }
    Cow::Owned(spaced)
}

/// A token's text as [`marks_to_spaces`] has it; `None` if it holds a space itself, which no escaped text does.
pub(super) fn spaced_token(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    (!text.contains(&b' ')).then(|| marks_to_spaces(text))
}

/// The bytes of a text in which spaces stand for marks.
pub(super) fn spaces_to_marks(text: &[u8]) -> impl Iterator<Item = u8> {
    text.iter().flat_map(|byte| if *byte == b' ' { SPACE_MARK } else { std::slice::from_ref(byte) }).copied()
}
