//! Special tokens: which ids mark the beginning, the end, the gaps to fill, and what ends a generation.
//!
//! Files name most of them by id. What a file leaves out is found by the text that known models use, as the reference
//! does; many published files depend on it.

use super::vocab::{Attributes, Vocab};
use crate::Result;
use crate::gguf::Metadata;

/// The ids with a meaning of their own, and the flags that say which are added to a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends a text.
    pub eos: Option<u32>,
    /// Ends a turn.
    pub eot: Option<u32>,
    /// Ends a message that expects a tool's answer.
    pub eom: Option<u32>,
    /// Stands for what the vocabulary cannot express.
    pub unknown: Option<u32>,
    /// Separates two texts.
    pub separator: Option<u32>,
    /// Fills up a batch.
    pub padding: Option<u32>,
    /// Hides a token from an encoder.
    pub mask: Option<u32>,
    /// Fill in the middle: before the prefix.
    pub fim_prefix: Option<u32>,
    /// Fill in the middle: before the suffix.
    pub fim_suffix: Option<u32>,
    /// Fill in the middle: before the part to write.
    pub fim_middle: Option<u32>,
    /// Fill in the middle: padding.
    pub fim_padding: Option<u32>,
    /// Fill in the middle: before a repository's name.
    pub fim_repository: Option<u32>,
    /// Fill in the middle: between two files.
    pub fim_file_separator: Option<u32>,
    /// Whether the file asks for `bos` before a text.
    pub add_bos: bool,
    /// Whether the file asks for `eos` after a text.
    pub add_eos: bool,
    /// Whether the file asks for `separator` between two texts.
    pub add_separator: bool,
    /// Every token that ends a generation, in ascending order.
    pub end_of_generation: Vec<u32>,
    /// Tokens that must never be sampled, as the file lists them.
    pub suppressed: Vec<u32>,
}

const EOT_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];
const EOM_TEXTS: &[&str] = &["<|eom_id|>"];
const FIM_PREFIX_TEXTS: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
];
const FIM_SUFFIX_TEXTS: &[&str] = &[
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
];
const FIM_MIDDLE_TEXTS: &[&str] = &[
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];
const FIM_PADDING_TEXTS: &[&str] = &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"];
const FIM_REPOSITORY_TEXTS: &[&str] = &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"];
const FIM_FILE_SEPARATOR_TEXTS: &[&str] = &["<|file_sep|>"];
const END_OF_GENERATION_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];
/// The channel marks of gpt-oss: an application has to see them, so they are printed like text.
const ALWAYS_PRINTED_TEXTS: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

impl SpecialTokens {
    /// Completes the defaults of the tokenizer's model from the file, and marks what is special in the vocabulary.
    pub(super) fn load(mut self, metadata: &Metadata, vocab: &mut Vocab) -> Result<Self> {
        self.read_ids(metadata, vocab)?;
        for (flag, key) in [
            (&mut self.add_bos, "tokenizer.ggml.add_bos_token"),
            (&mut self.add_eos, "tokenizer.ggml.add_eos_token"),
            (&mut self.add_separator, "tokenizer.ggml.add_sep_token"),
        ] {
            *flag = metadata.bool(key)?.unwrap_or(*flag);
        }
        let suppressed = metadata.i32s("tokenizer.ggml.suppress_tokens")?.unwrap_or_default();
        self.suppressed = suppressed.into_iter().filter_map(|id| u32::try_from(id).ok()).collect();
        self.suppressed.retain(|&id| id < vocab.len());
        self.find_by_text(vocab);
        mark_unused(vocab);
        self.collect_end_of_generation(vocab);
        mark_stripping(metadata, vocab)?;
        Ok(self)
    }

    /// Whether a generation ends with this token.
    pub fn ends_generation(&self, id: u32) -> bool {
        self.end_of_generation.binary_search(&id).is_ok()
    }

    fn read_ids(&mut self, metadata: &Metadata, vocab: &Vocab) -> Result<()> {
        let fields: [(&mut Option<u32>, &[&str]); 14] = [
            (&mut self.bos, &["bos"]),
            (&mut self.eos, &["eos"]),
            (&mut self.eot, &["eot"]),
            (&mut self.eom, &["eom"]),
            (&mut self.unknown, &["unknown"]),
            // The format's own spelling.
            (&mut self.separator, &["seperator"]),
            (&mut self.padding, &["padding"]),
            (&mut self.mask, &["mask"]),
            // Older files have the second names.
            (&mut self.fim_prefix, &["fim_pre", "prefix"]),
            (&mut self.fim_suffix, &["fim_suf", "suffix"]),
            (&mut self.fim_middle, &["fim_mid", "middle"]),
            (&mut self.fim_padding, &["fim_pad"]),
            (&mut self.fim_repository, &["fim_rep"]),
            (&mut self.fim_file_separator, &["fim_sep"]),
        ];
        for (field, names) in fields {
            *field = field.filter(|&id| id < vocab.len());
            for name in names {
                let key = format!("tokenizer.ggml.{name}_token_id");
                let Some(id) = metadata.i64(&key)? else { continue };
                match u32::try_from(id) {
                    Ok(id) if id < vocab.len() => *field = Some(id),
                    _ => log::warn!("{key} is {id}, outside the vocabulary of {}: ignored", vocab.len()),
                }
            }
        }
        Ok(())
    }

    fn find_by_text(&mut self, vocab: &mut Vocab) {
        for (field, texts) in [
            (&mut self.eot, EOT_TEXTS),
            (&mut self.eom, EOM_TEXTS),
            (&mut self.fim_prefix, FIM_PREFIX_TEXTS),
            (&mut self.fim_suffix, FIM_SUFFIX_TEXTS),
            (&mut self.fim_middle, FIM_MIDDLE_TEXTS),
            (&mut self.fim_padding, FIM_PADDING_TEXTS),
            (&mut self.fim_repository, FIM_REPOSITORY_TEXTS),
            (&mut self.fim_file_separator, FIM_FILE_SEPARATOR_TEXTS),
        ] {
            if field.is_none() {
                *field = texts.iter().find_map(|text| vocab.id(text));
                field.iter().for_each(|&id| vocab.set(id, |bits| bits.with(Attributes::CONTROL)));
            }
        }
    }

    fn collect_end_of_generation(&mut self, vocab: &mut Vocab) {
        let by_text = vocab.ids(END_OF_GENERATION_TEXTS);
        by_text.iter().for_each(|&id| vocab.set(id, |bits| bits.with(Attributes::CONTROL)));
        vocab.ids(ALWAYS_PRINTED_TEXTS).iter().for_each(|&id| vocab.set(id, |_| Attributes::USER_DEFINED));
        let by_meaning = [self.eos, self.eot, self.eom, self.fim_padding, self.fim_repository, self.fim_file_separator];
        self.end_of_generation = by_text.into_iter().chain(by_meaning.into_iter().flatten()).collect();
        self.end_of_generation.sort_unstable();
        self.end_of_generation.dedup();

        // Where other tokens end the message, `<|end|>` only ends a part of it, and `</s>` may be a mere word.
        let ends = |text: &str| vocab.id(text).filter(|&id| self.ends_generation(id));
        let has = |text: &str| ends(text).is_some();
        let calls = has("<|call|>") || has("<|calls|>");
        let inner_end = ends("<|end|>").filter(|_| calls && (has("<|return|>") || has("<|flush|>")));
        let plain_s = ends("</s>").filter(|_| has("<|tool_response>") || has("<|plamo:eos|>"));
        for (id, kind) in [(inner_end, Attributes::USER_DEFINED), (plain_s, Attributes::NORMAL)] {
            let Some(id) = id else { continue };
            self.end_of_generation.retain(|&other| other != id);
            vocab.set(id, |_| kind);
        }
    }
}

/// Control tokens that call themselves unused.
fn mark_unused(vocab: &mut Vocab) {
    for id in 0..vocab.len() {
        if vocab.attributes(id).has(Attributes::CONTROL) && contains(vocab.text(id), b"unused") {
            vocab.set(id, |bits| bits.with(Attributes::UNUSED));
        }
    }
}

/// White space around some tokens of some models goes with the token. No key says so; the model's name has to.
fn mark_stripping(metadata: &Metadata, vocab: &mut Vocab) -> Result<()> {
    let text = |key| -> Result<String> { Ok(metadata.str(key)?.unwrap_or_default().to_owned()) };
    let pre = text("tokenizer.ggml.pre")?;
    let architecture = text("general.architecture")?;
    let name = text("general.name")?.to_ascii_lowercase();
    let any = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));

    if any(&pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code"])
        || any(&architecture, &["nomic-bert-moe", "jina-bert-v3"])
    {
        strip_left(vocab, "<mask>");
    } else if any(&name, &["phi-3", "phi3"]) {
        for id in 0..vocab.len() {
            if is_special(vocab.attributes(id)) || vocab.text(id) == b"</s>" {
                vocab.set(id, |bits| bits.with(Attributes::RSTRIP));
            }
        }
        for id in vocab.ids(&["<unk>", "<s>", "<|endoftext|>"]) {
            vocab.set(id, |bits| bits.without(Attributes::RSTRIP));
        }
    } else if any(&name, &["modern-bert"]) {
        strip_left(vocab, "[MASK]");
    }
    Ok(())
}

fn strip_left(vocab: &mut Vocab, text: &str) {
    match vocab.id(text) {
        Some(id) => vocab.set(id, |bits| bits.with(Attributes::LSTRIP)),
        None => log::warn!("this model should have a token {text}, but its vocabulary lacks it"),
    }
}

/// Whether the token is looked for in a text before everything else.
pub(super) fn is_special(attributes: Attributes) -> bool {
    attributes.has(Attributes::CONTROL.with(Attributes::USER_DEFINED).with(Attributes::UNKNOWN))
}

pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
