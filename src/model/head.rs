//! What comes behind an encoder: how the rows of a text become one, and the small matrices that this one goes through.

use super::encoder::ENCODERS_EPSILON;
use super::tensors::Tensors;
use super::{Kind, family};
use crate::Result;
use crate::error::Error;
use crate::gguf::{Gguf, Metadata};
use crate::options::Pooling;
use crate::program::{Activation, NormKind, Op, Product, Program, Purpose, Rows, Segment, Slot, SlotId, Step};

/// How a text's rows become one vector, as the file says: none if it is no embedder. Encoders that say nothing average.
pub fn pooling(metadata: &Metadata) -> Result<Option<Pooling>> {
    let (architecture, kind) = family(metadata)?;
    let key = format!("{architecture}.pooling_type");
    let is_encoder = matches!(kind, Kind::Encoder(_)) || architecture == "gemma-embedding";
    Ok(match metadata.u32(&key)? {
        None => is_encoder.then_some(Pooling::Mean),
        Some(id) => Some(by_id(id).ok_or_else(|| Error::metadata(key, id.to_string(), "0 to 4"))?),
    })
}

fn by_id(id: u32) -> Option<Pooling> {
    Some(match id {
        0 => Pooling::None,
        1 => Pooling::Mean,
        2 => Pooling::First,
        3 => Pooling::Last,
        4 => Pooling::Rank,
        _ => return None,
    })
}

/// What is done to each text's one vector.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Head {
    /// The matrices, as a program in which each text is a token.
    pub program: Program,
    /// All of it. It is given the vectors, and what is wanted is the result.
    pub segment: Segment,
    /// How the vectors that it takes are pooled, where that is not what the file calls its pooling.
    pub pooling: Option<Pooling>,
    /// The results are scores of classes, of which a softmax makes likelihoods.
    pub is_softmax: bool,
}

/// The head of the model in a file: for vectors its dense layers, for ranks its classifier. None if it has none.
///
/// # Errors
/// If tensors have wrong shapes, or ranks are asked for and there is no classifier.
pub fn head(file: &Gguf, pooling: Pooling) -> Result<Option<Head>> {
    let (architecture, _) = family(file.metadata())?;
    let key = |name: &str| format!("{architecture}.{name}");
    let width = file.metadata().u32(&key("embedding_length"))?.unwrap_or(0) as usize;
    let tensors = Tensors::new(file);
    let mut writer = HeadWriter { tensors: &tensors, program: Program::default(), at: SlotId(0) };
    writer.slot("pooled", width);
    let mut head_pooling = None;
    if pooling == Pooling::Rank {
        let epsilon = file.metadata().f32(&key("attention.layer_norm_epsilon"))?.unwrap_or(ENCODERS_EPSILON);
        let is_modern = architecture == "modern-bert";
        writer.classifier(if is_modern { Activation::Gelu } else { Activation::Tanh }, epsilon)?;
        // Decoders have read everything only at the end.
        let is_decoder = matches!(family(file.metadata())?.1, Kind::Decoder(_));
        let named = file.metadata().u32(&key("classifier.pooling_type"))?.and_then(by_id);
        let default = if is_modern { Pooling::Mean } else { Pooling::First };
        let is_mean = named.unwrap_or(default) == Pooling::Mean;
        head_pooling = Some(match (is_mean, is_decoder) {
            (true, _) => Pooling::Mean,
            (false, true) => Pooling::Last,
            (false, false) => Pooling::First,
        });
    } else {
        writer.product("dense_2")?;
        writer.product("dense_3")?;
    }
    let HeadWriter { program, at, .. } = writer;
    if program.steps.is_empty() {
        return Ok(None);
    }
    let program = Program {
        architecture: architecture.to_owned(),
        purpose: Purpose::Embed,
        vocabulary: 1,
        context: usize::MAX,
        weights: tensors.into_weights(),
        output: Some(at),
        ..program
    };
    let steps = 0..program.steps.len();
    let segment = Segment { device: 0, steps, given: vec![SlotId(0)], wanted: vec![at] };
    Ok(Some(Head { program, segment, pooling: head_pooling, is_softmax: architecture == "qwen3" }))
}

struct HeadWriter<'a, 'f> {
    tensors: &'a Tensors<'f>,
    program: Program,
    /// The slot with what there is so far.
    at: SlotId,
}

impl HeadWriter<'_, '_> {
    fn classifier(&mut self, activation: Activation, epsilon: f32) -> Result<()> {
        if self.product("cls")? {
            self.push(Op::Activate { activation, slot: self.at });
            let width = self.program.slots[self.at.0].width;
            if let Some(weight) = self.tensors.optional_vector("cls.norm.weight", width)? {
                let (kind, input, out) = (NormKind::Layer, self.at, self.at);
                let weight = Some(weight);
                self.push(Op::Norm { kind, input, group: width, epsilon, weight, bias: None, out });
            }
        }
        self.product("cls.output")?;
        match self.program.steps.is_empty() {
            false => Ok(()),
            true => Err(Error::Model {
                subject: "tensor `cls.output.weight`".into(),
                found: "nothing".into(),
                expected: "a classifier, by which texts are ranked".into(),
            }),
        }
    }

    /// Multiplies with a matrix, if the file has it.
    fn product(&mut self, name: &str) -> Result<bool> {
        let tensor = format!("{name}.weight");
        let Some(rows) = self.tensors.rows(&tensor) else { return Ok(false) };
        let (input, columns) = (self.at, self.program.slots[self.at.0].width);
        let weight = self.tensors.matrix(&tensor, columns, rows)?;
        let bias = self.tensors.optional_vector(&format!("{name}.bias"), rows)?;
        let names = ["first", "second", "third"];
        self.slot(names.get(input.0).copied().unwrap_or("last"), rows);
        self.push(Op::Linear { input, products: vec![Product { weight, first_row: 0, bias, out: self.at }] });
        Ok(true)
    }

    /// Goes on in a slot of its own.
    fn slot(&mut self, name: &'static str, width: usize) {
        self.program.slots.push(Slot { name, width, rows: Rows::Tokens });
        self.at = SlotId(self.program.slots.len() - 1);
    }

    fn push(&mut self, op: Op) {
        self.program.steps.push(Step { layer: None, op });
    }
}
