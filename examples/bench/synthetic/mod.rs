//! Models of known shapes with random weights, so that any machine can be measured without a file.
//!
//! A model is named `SHAPE:QUANT`, as in `llama-1b:q4_k_m`. Its weights are as many as the real model's and lie in the
//! same tensors; what they say is noise. Two machines make the same bytes of the same name. The vocabulary is made up as
//! well, so that a model that is written to a file can be opened by everything that reads such files.
//!
//! Which tensor is stored how: vectors and the routers of experts are F32. All matrices have the type that `QUANT`
//! names, embeddings and output included; `Q4_K_M` and `Q5_K_M` store `attn_v` and `ffn_down` of every layer in the
//! first and last eighth and of every third in between in Q6_K, and so the output (the embeddings, where these are the
//! output too). A matrix whose rows are no whole number of blocks falls back to another type, see [`Quant::type_of`].

pub mod blocks;
pub mod shapes;

use blocks::Blocks;
use kiln::backend::cpu::pool::Pool;
use kiln::gguf::{Gguf, GgufWriter, TensorType};
use kiln::model::recipe_name;
use kiln::quant::Format;
use shapes::{Contents, SHAPES, Shape, Tensor};
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

/// A model by its name.
#[derive(Debug, Clone, Copy)]
pub struct Synthetic {
    shape: &'static Shape,
    quant: Quant,
}

/// How matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quant {
    /// All alike.
    Plain(TensorType),
    /// Those that matter most in Q6_K, the others in this type.
    Mix(TensorType),
}

/// The mixes, and what most of their matrices are stored in.
const MIXES: [(&str, TensorType); 2] = [("Q4_K_M", TensorType::Q4_K), ("Q5_K_M", TensorType::Q5_K)];

impl FromStr for Synthetic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (shape, quant) = text.split_once(':').ok_or("expected SHAPE:QUANT, as in llama-1b:q4_0")?;
        let found = SHAPES.iter().find(|known| known.name == shape);
        let shape = found.ok_or_else(|| {
            let known: Vec<_> = SHAPES.iter().map(|shape| shape.name).collect();
            format!("no shape is called `{shape}`, expected one of {}", known.join(", "))
        })?;
        Ok(Synthetic { shape, quant: quant.parse()? })
    }
}

impl FromStr for Quant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is = |name: &str| name.eq_ignore_ascii_case(text);
        if let Some((_, base)) = MIXES.iter().find(|(name, _)| is(name)) {
            return Ok(Quant::Mix(*base));
        }
        weight_types().find(|kind| is(kind.name())).map(Quant::Plain).ok_or_else(|| {
            let types = weight_types().map(TensorType::name);
            let known: Vec<_> = types.chain(MIXES.iter().map(|(name, _)| *name)).collect();
            format!("no quantization is called `{text}`, expected one of {}", known.join(", "))
        })
    }
}

impl fmt::Display for Synthetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shape.name, self.quant.name())
    }
}

/// The types that weights are stored in.
pub fn weight_types() -> impl Iterator<Item = TensorType> {
    let for_activations = |kind: &TensorType| matches!(kind, TensorType::Q8_1 | TensorType::Q8_K);
    TensorType::ALL.into_iter().filter(move |kind| Format::of(*kind).is_ok() && !for_activations(kind))
}

impl Quant {
    fn name(self) -> &'static str {
        match self {
            Quant::Plain(kind) => kind.name(),
            Quant::Mix(base) => MIXES.iter().find(|(_, of)| *of == base).map_or(base.name(), |(name, _)| name),
        }
    }

    /// How a matrix is stored whose rows have `columns` numbers. Where they are no whole number of blocks, it is a type
    /// of smaller blocks: the one that the reference's quantizer takes, and Q4_0 for those that it has none for. Where
    /// those do not fit either, F16.
    pub fn type_of(self, columns: u64, matters: bool) -> TensorType {
        use TensorType::*;
        let kind = match self {
            Quant::Plain(kind) => kind,
            Quant::Mix(_) if matters => Q6_K,
            Quant::Mix(base) => base,
        };
        let smaller = match kind {
            Q4_K => Q5_0,
            Q5_K => Q5_1,
            Q6_K => Q8_0,
            IQ1_S | IQ1_M | IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S | IQ4_XS => IQ4_NL,
            _ => Q4_0,
        };
        let fits = |kind: &TensorType| columns.is_multiple_of(kind.block_elements());
        [kind, smaller].into_iter().find(fits).unwrap_or(F16)
    }
}

impl Synthetic {
    /// The model without its weights: enough to ask whether it can run.
    pub fn without_weights(&self) -> kiln::Result<Gguf> {
        let mut bytes = Vec::new();
        self.metadata()?.write(&mut bytes)?;
        Gguf::from_bytes(bytes)
    }

    /// The model in memory.
    pub fn build(&self, pool: &Pool) -> kiln::Result<Gguf> {
        let mut bytes = Vec::new();
        // The vector must not grow by doubling. Memory for the header is not taken unless it is written.
        let room = usize::try_from(self.weight_bytes() + HEADER_ROOM_BYTES).unwrap_or(usize::MAX);
        if bytes.try_reserve_exact(room).is_err() {
            return Err(
                io::Error::new(io::ErrorKind::OutOfMemory, format!("no memory for {room} bytes of weights")).into()
            );
        }
        self.write(&mut bytes, pool)?;
        Gguf::from_bytes(bytes)
    }

    /// Writes the model as a file, and says how many bytes it has.
    pub fn write(&self, out: &mut impl Write, pool: &Pool) -> kiln::Result<u64> {
        let mut writer = self.metadata()?;
        for (seed, tensor) in self.shape.tensors().into_iter().enumerate() {
            let kind = self.type_of(&tensor);
            let Tensor { name, shape, contents, .. } = tensor;
            let columns = shape.first().copied().unwrap_or(1);
            // Each output is then of the size of the inputs.
            let blocks = Blocks::new(kind, 1.0 / (columns as f32).sqrt())?;
            let count = shape.iter().product::<u64>();
            writer.tensor_with(&name, &shape, kind, move |out| match contents {
                Contents::Constant(value) => (0..count).try_for_each(|_| out.write_all(&value.to_le_bytes())),
                _ => write_random(out, &blocks, count / kind.block_elements(), seed as u64, pool),
            })?;
        }
        writer.write(out)
    }

    /// The bytes of all tensors.
    pub fn weight_bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| {
            let kind = self.type_of(tensor);
            (tensor.shape.iter().product::<u64>() / kind.block_elements() * kind.block_bytes()).next_multiple_of(32)
        };
        self.shape.tensors().iter().map(bytes).sum()
    }

    fn type_of(&self, tensor: &Tensor) -> TensorType {
        match (tensor.contents, tensor.shape.first()) {
            (Contents::Matrix { matters }, Some(&columns)) => self.quant.type_of(columns, matters),
            _ => TensorType::F32,
        }
    }

    fn metadata<'a>(&self) -> kiln::Result<GgufWriter<'a>> {
        let mut writer = GgufWriter::new();
        writer.set("general.architecture", self.shape.architecture)?;
        writer.set("general.name", format!("random {self}").as_str())?;
        if let Some(recipe) = (0u32..64).find(|&id| recipe_name(id) == Some(self.quant.name())) {
            writer.set("general.file_type", recipe)?;
        }
        self.shape.write_metadata(&mut writer)?;
        write_vocabulary(&mut writer, self.shape.vocabulary)?;
        Ok(writer)
    }
}

/// More than metadata, vocabulary and directory of any shape take.
const HEADER_ROOM_BYTES: u64 = 32 << 20;

/// What a worker fills at once, and what is written at once.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS: usize = 16;

/// Writes random blocks; which, depends on the seed and nothing else.
fn write_random(out: &mut dyn Write, blocks: &Blocks, count: u64, seed: u64, pool: &Pool) -> io::Result<()> {
    let chunk = CHUNK_BYTES / blocks.block_bytes() * blocks.block_bytes();
    let mut left = count * blocks.block_bytes() as u64;
    let mut buffer = vec![0; left.min((chunk * CHUNKS) as u64) as usize];
    for round in 0u64.. {
        let part = left.min(buffer.len() as u64) as usize;
        if part == 0 {
            break;
        }
        pool.for_each_chunk_mut(&mut buffer[..part], chunk, |index, bytes| {
            blocks.fill((seed << 40) + round * CHUNKS as u64 + index as u64, bytes);
        });
        out.write_all(&buffer[..part])?;
        left -= part as u64;
    }
    Ok(())
}

/// A SentencePiece vocabulary: the three tokens that every one has, the bytes, and words of a letter and a number.
fn write_vocabulary(writer: &mut GgufWriter, size: u32) -> kiln::Result<()> {
    const NORMAL: i32 = 1;
    const UNKNOWN: i32 = 2;
    const CONTROL: i32 = 3;
    const BYTE: i32 = 6;
    let token = |id: u32| match id {
        0 => ("<unk>".to_owned(), UNKNOWN),
        1 => ("<s>".to_owned(), CONTROL),
        2 => ("</s>".to_owned(), CONTROL),
        3..259 => (format!("<0x{:02X}>", id - 3), BYTE),
        _ => (format!("\u{2581}w{id}"), NORMAL),
    };
    let (tokens, types): (Vec<String>, Vec<i32>) = (0..size).map(token).unzip();
    writer.set("tokenizer.ggml.model", "llama")?;
    writer.set("tokenizer.ggml.tokens", tokens)?;
    writer.set("tokenizer.ggml.token_type", types)?;
    writer.set("tokenizer.ggml.scores", (0..size).map(|id| -(id as f32)).collect::<Vec<_>>())?;
    writer.set("tokenizer.ggml.unknown_token_id", 0u32)?;
    writer.set("tokenizer.ggml.bos_token_id", 1u32)?;
    writer.set("tokenizer.ggml.eos_token_id", 2u32)?;
    Ok(())
}
