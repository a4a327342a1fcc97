//! Text to token ids and back, from a file's metadata alone.
//!
//! ```no_run
//! use kiln::gguf::Gguf;
//! use kiln::tokenizer::{Encode, Tokenizer};
//!
//! let file = Gguf::open("model.gguf")?;
//! let tokenizer = Tokenizer::load(file.metadata())?;
//! let ids = tokenizer.encode("Hello, world!", Encode::default().add_special(true));
//! assert_eq!(tokenizer.decode(&ids), "Hello, world!");
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! The ids are those of llama.cpp, on every string: models were trained on one way to cut text, and another way that
//! looks as good makes them worse.
//!
//! | `tokenizer.ggml.model` | algorithm | module |
//! |---|---|---|
//! | `llama` | SentencePiece merges by score | `spm` |
//! | `gpt2`, `gemma4`, `whitespace` | byte-pair merges by rank, after a pre-tokenizer ([`split`]) | `bpe` |
//! | `bert` | WordPiece, greedy | `wordpiece` |
//! | `t5` | SentencePiece unigram, the best of all cuts | `unigram` |
//! | `rwkv` | longest match | `rwkv` |
//!
//! A text first loses its special tokens (`partition`), then each part between them goes to the algorithm. Every
//! algorithm takes time linear in the text, whatever the text; none uses a regex engine.

mod bpe;
mod decode;
mod interner;
mod marked;
mod merge;
mod partition;
mod rwkv;
mod seams;
mod special;
pub mod split;
mod spm;
mod stream;
mod trie;
pub mod unicode;
mod unicode_tables;
mod unigram;
mod vocab;
mod wordpiece;

pub use marked::{Guard, unused_mark};
pub use special::SpecialTokens;
pub use stream::StreamDecoder;

use crate::Result;
use crate::error::Error;
use crate::gguf::Metadata;
use merge::Merger;
use partition::{Fragment, Partitioner};
use split::{Family, Splitter};
use vocab::{Attributes, Vocab, missing};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const KNOWN_MODELS: &str = "one of llama, gpt2, gemma4, whitespace, bert, t5, rwkv";

/// A vocabulary and the rules that cut text into its tokens. Shared freely between threads.
#[derive(Debug)]
pub struct Tokenizer {
    model: String,
    vocab: Vocab,
    special: SpecialTokens,
    partitioner: Partitioner,
    algorithm: Algorithm,
    pieces: interner::Interner,
    add_space_prefix: bool,
    clean_spaces: bool,
}

#[derive(Debug)]
enum Algorithm {
    Spm(spm::Spm),
    Bpe(bpe::Bpe),
    WordPiece(wordpiece::WordPiece),
    Unigram(unigram::Unigram),
    Rwkv(rwkv::Rwkv),
}

/// How to load a tokenizer from a file that is not quite right.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TokenizerOptions {
    /// The pre-tokenizer to use in place of the one that `tokenizer.ggml.pre` names; see [`split::names`].
    pub pre: Option<String>,
}

impl TokenizerOptions {
    /// Sets [`TokenizerOptions::pre`].
    pub fn pre(mut self, name: impl Into<String>) -> Self {
        self.pre = Some(name.into());
        self
    }
}

/// How to encode a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encode {
    /// Add what the file asks for around a text: BOS, EOS, or the marks of an encoder.
    pub add_special: bool,
    /// Recognise control tokens such as `<|im_end|>` in the text. Leave this off for what users type.
    pub parse_special: bool,
}

impl Encode {
    /// Sets [`Encode::add_special`].
    pub fn add_special(mut self, yes: bool) -> Self {
        self.add_special = yes;
        self
    }

    /// Sets [`Encode::parse_special`].
    pub fn parse_special(mut self, yes: bool) -> Self {
        self.parse_special = yes;
        self
    }
}

impl Tokenizer {
    /// Builds the tokenizer that the metadata describe.
    pub fn load(metadata: &Metadata) -> Result<Self> {
        Self::load_with(metadata, &TokenizerOptions::default())
    }

    /// The same, with parts of the file overruled.
    pub fn load_with(metadata: &Metadata, options: &TokenizerOptions) -> Result<Self> {
        let model = metadata.str(MODEL)?.ok_or_else(|| missing(MODEL, KNOWN_MODELS))?.to_owned();
        let family = match &model[..] {
            "gpt2" | "gemma4" | "whitespace" => Some(family(metadata, &model, options)?),
            "llama" | "bert" | "t5" | "rwkv" => None,
            _ => return Err(Error::metadata(MODEL, format!("`{model}`"), KNOWN_MODELS)),
        };
        let mut vocab = Vocab::load(metadata)?;
        let algorithm = match (family, &model[..]) {
            (Some(family), "whitespace") => Algorithm::Bpe(bpe::Bpe::load_whitespace(metadata, &vocab, family)?),
            (Some(family), _) => Algorithm::Bpe(bpe::Bpe::load(metadata, &vocab, family)?),
            (None, "bert") => Algorithm::WordPiece(wordpiece::WordPiece::load(metadata, &vocab)?),
            (None, "t5") => Algorithm::Unigram(unigram::Unigram::load(metadata, &vocab)?),
            (None, "rwkv") => Algorithm::Rwkv(rwkv::Rwkv::new(&vocab)),
            _ => Algorithm::Spm(spm::Spm::new(&vocab)),
        };
        let defaults = Defaults::of(&model, family);
        let mut special = defaults.special.load(metadata, &mut vocab)?;
        // Published conversions of Gemma 4 have the flag wrong.
        special.add_bos |= family.is_some_and(|family| family.gemma4);
        let add_space_prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(defaults.add_space_prefix);
        Ok(Tokenizer {
            partitioner: Partitioner::new(&vocab),
            pieces: decode::pieces(&vocab, &algorithm),
            add_space_prefix,
            clean_spaces: defaults.clean_spaces,
            model,
            vocab,
            special,
            algorithm,
        })
    }

    /// The name of the algorithm, as in `tokenizer.ggml.model`.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// How many tokens there are. Ids count up from 0.
    pub fn token_count(&self) -> u32 {
        self.vocab.len()
    }

    /// The special tokens and the flags that go with them.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The token whose text in the file is exactly this, such as `<|im_start|>`.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.vocab.id(text)
    }

    /// Whether the token steers a model rather than being text: users never see it, and never may type it.
    pub fn is_control(&self, id: u32) -> bool {
        self.vocab.attributes(id).has(Attributes::CONTROL.with(Attributes::UNKNOWN))
    }

    /// The bytes that a token prints as; a control token prints as its name. Not always whole characters, so collect
    /// them with a [`StreamDecoder`]. Empty for an id outside the vocabulary.
    pub fn piece(&self, id: u32) -> &[u8] {
        self.pieces.text(id)
    }

    /// The ids of a text.
    pub fn encode(&self, text: &str, how: Encode) -> Vec<u32> {
        self.encode_bytes(text.as_bytes(), how)
    }

    /// The ids of bytes that may not be UTF-8. SentencePiece and RWKV keep such bytes; the others see U+FFFD for each.
    pub fn encode_bytes(&self, text: &[u8], how: Encode) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 2);
        let (before, after) = if how.add_special { self.around() } else { (None, None) };
        ids.extend(before);
        let mut merger = Merger::for_text(text.len());
        let mut after_special = true;
        for fragment in self.partitioner.cut(text, how.parse_special, "") {
            match fragment {
                Fragment::Token(id) => {
                    ids.push(id);
                    after_special = true;
                }
                Fragment::Text(range) => {
                    for part in bounded(&text[range]) {
                        self.encode_fragment(part, after_special, &mut merger, &mut ids);
                        after_special = false;
                    }
                }
            }
        }
        ids.extend(after);
        ids
    }

    fn encode_fragment(&self, text: &[u8], after_special: bool, merger: &mut Merger, ids: &mut Vec<u32>) {
        let unknown = self.special.unknown;
        match &self.algorithm {
            Algorithm::Spm(spm) => {
                let space_before = self.add_space_prefix && after_special;
                spm.encode(text, space_before, unknown, merger, ids);
            }
            Algorithm::Bpe(bpe) => bpe.encode(text, merger, ids),
            Algorithm::WordPiece(wordpiece) => wordpiece.encode(text, unknown, ids),
            Algorithm::Unigram(unigram) => unigram.encode(&self.vocab, unknown, text, ids),
            Algorithm::Rwkv(rwkv) => rwkv.encode(text, unknown, ids),
        }
    }

    /// The tokens that go before and after a text if special tokens are added.
    fn around(&self) -> (Option<u32>, Option<u32>) {
        let special = &self.special;
        match &self.algorithm {
            Algorithm::WordPiece(_) => (special.bos, special.separator),
            Algorithm::Rwkv(_) => (None, None),
            _ => (special.bos.filter(|_| special.add_bos), special.eos.filter(|_| special.add_eos)),
        }
    }

    /// The text of some tokens, without control tokens. Bytes that are not UTF-8 come out as U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        String::from_utf8_lossy(&self.decode_bytes(ids, false)).into_owned()
    }

    /// The bytes of some tokens; control tokens are left out or written as their names.
    ///
    /// As in the reference, the space that SentencePiece puts in front of a text is taken away, and some byte-pair
    /// families lose spaces before punctuation: for them, decoding does not always give back what was encoded.
    pub fn decode_bytes(&self, ids: &[u32], write_control: bool) -> Vec<u8> {
        let mut text = Vec::with_capacity(ids.len() * 4);
        let mut strip_space = self.add_space_prefix;
        for &id in ids.iter().filter(|&&id| write_control || !self.is_control(id)) {
            let piece = self.piece(id);
            text.extend_from_slice(match piece.strip_prefix(b" ") {
                Some(stripped) if strip_space => stripped,
                _ => piece,
            });
            strip_space = false;
        }
        if self.clean_spaces { decode::clean_up_spaces(&text) } else { text }
    }
}

/// The pre-tokenizer that the options, or else the file, name.
fn family(metadata: &Metadata, model: &str, options: &TokenizerOptions) -> Result<&'static Family> {
    let named = match (&options.pre, model) {
        (Some(pre), _) => Some(&pre[..]),
        (None, "gemma4") => Some("gemma4"),
        (None, _) => metadata.str(PRE)?.filter(|pre| !pre.is_empty()),
    };
    let pre = named.unwrap_or_else(|| {
        log::warn!("{PRE} is missing: using `default`, which may cut words otherwise than the model expects");
        "default"
    });
    Splitter::by_name(pre).ok_or_else(|| {
        let names = split::names().collect::<Vec<_>>().join(", ");
        Error::metadata(PRE, format!("`{pre}`"), format!("one of these, or TokenizerOptions::pre set to one: {names}"))
    })
}

/// What holds where the file says nothing.
struct Defaults {
    special: SpecialTokens,
    add_space_prefix: bool,
    clean_spaces: bool,
}

impl Defaults {
    fn of(model: &str, family: Option<&Family>) -> Self {
        let mut special = SpecialTokens::default();
        match (model, family) {
            (_, Some(family)) => {
                if model != "gemma4" {
                    special.bos = Some(11).filter(|_| !family.no_default_bos);
                    special.eos = Some(11);
                }
                (special.add_bos, special.add_separator) = (family.add_bos, family.add_sep);
            }
            ("bert", _) => {
                (special.bos, special.separator) = (Some(101), Some(102));
                (special.unknown, special.padding, special.mask) = (Some(100), Some(0), Some(103));
                (special.add_bos, special.add_separator) = (true, true);
            }
            ("t5", _) => {
                (special.eos, special.unknown, special.padding) = (Some(1), Some(2), Some(0));
                special.add_eos = true;
            }
            ("rwkv", _) => {}
            _ => {
                (special.bos, special.eos, special.unknown) = (Some(1), Some(2), Some(0));
                special.add_bos = true;
            }
        }
        let clean_spaces = family.map_or(model == "bert", |family| family.clean_spaces);
        Defaults { special, add_space_prefix: model == "llama", clean_spaces }
    }
}

/// A text in parts that 32-bit positions can address, almost always one.
fn bounded(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    const LIMIT_BYTES: usize = 1 << 30;
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut cut = rest.len().min(LIMIT_BYTES);
        while cut < rest.len() && cut > 1 && rest[cut] & 0xC0 == 0x80 {
            cut -= 1;
        }
        let (part, after) = rest.split_at(cut);
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}
