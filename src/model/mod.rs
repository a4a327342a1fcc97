//! From a file to a program: hyper-parameters and flags from the metadata, and the steps that a family makes of them.
//!
//! [`program`] is the way in. `hyper` reads what all families share, `tensors` finds weights and checks their shapes,
//! `decoder` writes the steps of a decoder-only transformer, and `encoder` those of one that reads whole texts. A family
//! is a small file that sets the flags in which it differs (`decoder::Decoder`, `encoder::Encoder`); no family has a
//! forward pass of its own. [`facts()`] tells a file's size and kind, [`pooling()`] and [`head()`] how one vector comes of
//! what describes the tokens of a text.
//!
//! Everything that a program refers to is checked here, so backends can rely on it: a missing tensor, a wrong shape, an
//! unknown architecture or kind of rope is an error that names it.

mod bert;
mod bitnet;
mod cohere;
mod decoder;
mod deepseek2;
mod encoder;
mod exaone;
mod experts;
mod facts;
mod falcon;
mod gemma;
mod glm4;
mod gpt_oss;
mod granite;
mod head;
mod hunyuan;
mod hyper;
mod lfm2;
mod llama;
mod llama4;
mod mamba;
mod mistral3;
mod modern_bert;
mod nemotron;
mod olmo2;
mod phi3;
mod qwen;
mod qwen3next;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;
mod tensors;
mod unknown;

use crate::Result;
use crate::error::Error;
use crate::gguf::{Endian, Gguf, Metadata};
use crate::program::{Program, Purpose};
use decoder::Decoder;
use encoder::Encoder;
pub use facts::{Facts, facts, recipe_name};
pub use head::{Head, head, pooling};
use hyper::Hyper;
use tensors::Tensors;

/// What a file does not decide about its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramOptions {
    /// How many positions a sequence will have at most: some models rotate otherwise when it is long.
    pub context: usize,
}

/// Sets the flags in which a family differs.
type Family = fn(&Hyper, &Tensors, &mut Decoder) -> Result<()>;

const FAMILIES: &[(&str, Family)] = &[
    ("llama", llama::flags),
    ("mistral", llama::flags),
    ("qwen2", qwen::qwen2),
    ("qwen2moe", qwen::qwen2moe),
    ("qwen3", qwen::qwen3),
    ("qwen3moe", qwen::qwen3moe),
    ("gpt-oss", gpt_oss::flags),
    ("deepseek2", deepseek2::flags),
    ("olmoe", experts::olmoe),
    ("granitemoe", experts::granitemoe),
    ("glm4moe", experts::glm4moe),
    ("ernie4_5-moe", experts::ernie),
    ("minimax-m2", experts::minimax),
    ("bailingmoe2", experts::bailing),
    ("hunyuan-moe", experts::hunyuan),
    ("phimoe", experts::phimoe),
    ("gemma", gemma::gemma),
    ("gemma2", gemma::gemma2),
    ("gemma3", gemma::gemma3),
    ("gemma4", gemma::gemma4),
    ("gemma-embedding", gemma::embedding),
    ("phi3", phi3::flags),
    ("smollm3", smollm3::flags),
    ("granite", granite::flags),
    ("glm4", glm4::flags),
    ("olmo2", olmo2::flags),
    ("arcee", nemotron::arcee),
    ("bitnet", bitnet::flags),
    ("cohere2", cohere::cohere2),
    ("command-r", cohere::command_r),
    ("ernie4_5", llama::flags),
    ("exaone", exaone::exaone),
    ("exaone4", exaone::exaone4),
    ("falcon", falcon::falcon),
    ("gptneox", falcon::gptneox),
    ("hunyuan-dense", hunyuan::flags),
    ("hunyuan_vl", hunyuan::flags),
    ("internlm2", llama::flags),
    ("lfm2", lfm2::flags),
    ("lfm2moe", lfm2::with_experts),
    ("llama4", llama4::flags),
    ("mistral3", mistral3::flags),
    ("nemotron", nemotron::flags),
    ("phi2", falcon::phi2),
    ("qwen2vl", qwen::qwen2vl),
    ("qwen3vl", qwen::qwen3vl),
    ("seed_oss", seed_oss::flags),
    ("stablelm", stablelm::flags),
    ("starcoder2", starcoder2::flags),
    ("granitehybrid", mamba::granite_hybrid),
    ("mamba2", mamba::mamba2),
    ("qwen3next", qwen3next::qwen3next),
    ("qwen35", qwen3next::qwen35),
    ("qwen35moe", qwen3next::qwen35moe),
];

/// Sets the flags in which a family of encoders differs.
type EncoderFamily = fn(&Hyper, &Tensors, &mut Encoder) -> Result<()>;

const ENCODERS: &[(&str, EncoderFamily)] = &[
    ("bert", bert::bert),
    ("nomic-bert", bert::nomic),
    ("nomic-bert-moe", bert::nomic_moe),
    ("jina-bert-v2", bert::jina_v2),
    ("modern-bert", modern_bert::flags),
];

/// A family of either kind.
#[derive(Clone, Copy)]
enum Kind {
    Decoder(Family),
    Encoder(EncoderFamily),
}

fn families() -> impl Iterator<Item = (&'static str, Kind)> {
    let decoders = FAMILIES.iter().map(|&(name, family)| (name, Kind::Decoder(family)));
    decoders.chain(ENCODERS.iter().map(|&(name, family)| (name, Kind::Encoder(family))))
}

/// The architectures that have programs.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    families().map(|(name, _)| name)
}

/// How many positions the model in a file was trained for.
pub fn trained_context(metadata: &Metadata) -> Result<u32> {
    let (architecture, _) = family(metadata)?;
    let key = format!("{architecture}.context_length");
    metadata
        .u32(&key)?
        .filter(|&context| context > 0)
        .ok_or_else(|| Error::metadata(&key, "nothing", "a positive number"))
}

fn family(metadata: &Metadata) -> Result<(&str, Kind)> {
    const KEY: &str = "general.architecture";
    let known = || format!("one of {}", architectures().collect::<Vec<_>>().join(", "));
    let architecture = metadata.str(KEY)?.ok_or_else(|| Error::metadata(KEY, "nothing", known()))?;
    let family = families().find(|(name, _)| *name == architecture);
    let unknown =
        || Error::metadata(KEY, format!("`{architecture}`"), format!("{}{}", known(), unknown::hint(architecture)));
    let (_, family) = family.ok_or_else(unknown)?;
    Ok((architecture, family))
}

/// The program of the model in a file: one that embeds if the file is an encoder, or says how to pool.
pub fn program(file: &Gguf, options: ProgramOptions) -> Result<Program> {
    program_for(file, options, pooling(file.metadata())?.map_or(Purpose::Generate, |_| Purpose::Embed))
}

/// The program that embeds texts, whatever else the model in a file could do.
pub fn embedding_program(file: &Gguf, options: ProgramOptions) -> Result<Program> {
    program_for(file, options, Purpose::Embed)
}

fn program_for(file: &Gguf, options: ProgramOptions, purpose: Purpose) -> Result<Program> {
    let metadata = file.metadata();
    let (architecture, family) = family(metadata)?;
    refuse_big_endian(file)?;
    let hyper = Hyper::read(metadata, architecture)?;
    let tensors = Tensors::new(file);
    let mut decoder = Decoder::new(&hyper, options);
    match family {
        Kind::Decoder(family) => {
            decoder.purpose = purpose;
            decoder.causal = hyper.flag("attention.causal")?.unwrap_or(true);
            family(&hyper, &tensors, &mut decoder)?;
            if let (Some(experts), None) =
                (hyper.optional("expert_count")?.filter(|&count| count > 0), &decoder.experts)
            {
                let expected = "none: models of this architecture have no experts";
                return Err(Error::metadata(hyper.key("expert_count"), experts.to_string(), expected));
            }
            let keeps_more = decoder.latent.is_some() || decoder.convolution.is_some() || decoder.recurrent.is_some();
            if decoder.purpose == Purpose::Embed && (decoder.sinks || keeps_more) {
                let found = "attention with sinks, or latent, or layers without attention".into();
                let expected = "one that can embed texts".into();
                return Err(Error::Model { subject: format!("architecture `{architecture}`"), found, expected });
            }
            if !decoder.causal && decoder.purpose == Purpose::Generate {
                let expected = "true: what sees later tokens cannot generate them";
                return Err(Error::metadata(hyper.key("attention.causal"), "false", expected));
            }
            decoder.write(&hyper, tensors)
        }
        Kind::Encoder(family) => {
            let mut encoder = Encoder::new(&hyper, decoder)?;
            family(&hyper, &tensors, &mut encoder)?;
            encoder.write(&hyper, tensors)
        }
    }
}

/// Says plainly what this crate cannot run yet, where nonsense would come of it.
fn refuse_big_endian(file: &Gguf) -> Result<()> {
    match file.endian() {
        Endian::Little => Ok(()),
        Endian::Big => Err(Error::Model {
            subject: "file".into(),
            found: "weights in big-endian byte order".into(),
            expected: "little-endian weights (metadata and tokenizers can be read in both orders)".into(),
        }),
    }
}
