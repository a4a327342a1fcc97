//! The contract between models and backends: what is computed, and nothing of how.
//!
//! A model is a flat list of [`Step`]s over named activation [`Slot`]s. Steps are semantic (normalise, rotate, attend),
//! so a backend is free to fuse them; shapes are symbolic in the number of tokens, so one list serves a prompt and a
//! single token. The same list drives memory estimates, every backend, and the listing that `Display` prints:
//!
//! ```text
//! layer 0    norm      h = rms(x) * blk.0.attn_norm.weight
//! layer 0    linear    q = blk.0.attn_q.weight · h
//! ```
//!
//! Invariants: every slot is written before it is read; a step reads slots of one number of rows (tokens, or only those
//! whose logits are asked for) and writes slots of the same, except [`Op::Select`], which goes from the one to the other.
//!
//! What a step can be is in `ops`; `rope` has rotations, `segments` how a program is cut, `listing` how it is printed.

mod listing;
mod ops;
mod rope;
mod segments;

pub use ops::{Activation, Gating, NormKind, Op, Product, Routing, RowOf, Runs, Scan, Sees, Served, slope};
pub use rope::{Rope, RopeStyle, Yarn};
pub use segments::Segment;

use crate::gguf::TensorType;

/// An activation: one row of `width` numbers a token.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// For listings.
    pub name: &'static str,
    /// Numbers a row.
    pub width: usize,
    /// How many rows there are.
    pub rows: Rows,
}

/// How many rows a slot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// One for each token of the batch.
    Tokens,
    /// One for each token whose logits are asked for.
    Outputs,
}

/// A tensor of the file that steps refer to.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// The tensor's name.
    pub name: String,
    /// How it is stored.
    pub tensor_type: TensorType,
    /// Numbers a row: the width of what it is multiplied with.
    pub columns: usize, // a tensor's first dimension
    /// Rows: the width of the result.
    pub rows: usize, // the product of its other dimensions
}

/// Keys and values that stay from batch to batch, of one attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyValues {
    /// The layer.
    pub layer: usize,
    /// Heads of keys and values.
    pub heads: usize,
    /// Numbers in a key.
    pub key_size: usize,
    /// Numbers in a value.
    pub value_size: usize,
    /// A value is the beginning of its key, and is not kept again.
    pub values_in_keys: bool,
    /// How far back a token sees.
    pub reach: Reach,
}

/// What a recurrent layer keeps of all tokens so far, in one piece that does not grow: the last inputs of a convolution,
/// and a matrix for each head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The layer.
    pub layer: usize,
    /// How many inputs of the convolution are kept: one less than count.
    pub inputs: usize,
    /// Numbers in each of them.
    pub width: usize,
    /// Heads.
    pub heads: usize,
    /// Columns of a head's matrix.
    pub key_size: usize,
    /// Its rows.
    pub value_size: usize,
}

impl State {
    /// Numbers of all inputs.
    pub const fn input_numbers(&self) -> usize {
        self.inputs * self.width
    }

    /// Numbers of one head's matrix.
    pub const fn head_numbers(&self) -> usize {
        self.key_size * self.value_size
    }

    /// Numbers of the whole.
    pub const fn numbers(&self) -> usize {
        self.input_numbers() + self.heads * self.head_numbers()
    }
}

/// How far back a token sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To the first position.
    All,
    /// So many positions, its own among them.
    Window(usize),
    /// To the beginning of its chunk, where all positions are cut into chunks of this length.
    Chunk(usize),
}

impl Reach {
    /// The first position that is seen from a position. From later ones it is the same or a later one.
    pub fn first_seen(self, position: usize) -> usize {
        match self {
            Reach::All => 0,
            Reach::Window(positions) => (position + 1).saturating_sub(positions),
            Reach::Chunk(positions) => position - position % positions.max(1),
        }
    }

    /// The most positions that are seen at once, if there is such a bound.
    pub fn most_seen(self) -> Option<usize> {
        match self {
            Reach::All => None,
            Reach::Window(positions) | Reach::Chunk(positions) => Some(positions),
        }
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub usize);
    )*};
}

ids! {
    /// An index into [`Program::slots`].
    SlotId;
    /// An index into [`Program::weights`].
    WeightId;
    /// An index into [`Program::key_values`].
    KeyValuesId;
    /// An index into [`Program::states`].
    StateId;
    /// An index into [`Program::ropes`].
    RopeId;
}

/// What a program is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Its output are logits of the token that follows.
    #[default]
    Generate,
    /// Its output describe tokens. It keeps nothing from batch to batch, and takes several texts in one.
    Embed,
}

/// An op, and the layer it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The layer; none for what comes before the first and after the last.
    pub layer: Option<usize>,
    /// What to compute.
    pub op: Op,
}

/// A whole model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Program {
    /// The family that wrote it.
    pub architecture: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Layers.
    pub layers: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Positions that the model was trained for.
    pub context: usize,
    /// Activations.
    pub slots: Vec<Slot>,
    /// Tensors.
    pub weights: Vec<Weight>,
    /// Rotations.
    pub ropes: Vec<Rope>,
    /// Keys and values of the attention layers.
    pub key_values: Vec<KeyValues>,
    /// What recurrent layers keep.
    pub states: Vec<State>,
    /// What to compute, in order.
    pub steps: Vec<Step>,
    /// The slot that holds the result at the end.
    pub output: Option<SlotId>,
}
impl Program {
    /// The most positions that a text may have, as far as tables have rows for them.
    pub fn most_positions(&self) -> usize {
        let rows = self.steps.iter().filter_map(|step| match step.op {
            Op::AddRow { table, row: RowOf::Position, .. } => self.weights.get(table.0).map(|weight| weight.rows),
            _ => None,
        });
        rows.min().unwrap_or(usize::MAX)
    }

    /// How many matrices lie one above the other in the weights of a step, and how many of them a token is multiplied with.
    pub fn members(&self, op: &Op) -> (usize, usize) {
        let Op::Experts { experts, routes, .. } = op else { return (1, 1) };
        let used = routes.and_then(|routes| self.slots.get(routes.0)).map(|slot| slot.width / 2);
        (*experts, used.unwrap_or(*experts).max(1))
    }

    /// The bytes of weights that a single token reads: its row of the embedding table, and each matrix that it is
    /// multiplied with, that of the logits among them. Of experts only those that are used count.
    pub fn token_weight_bytes(&self) -> u64 {
        let row_bytes = |id: WeightId| {
            let weight = self.weights.get(id.0)?;
            Some(
                (weight.columns as u64).div_ceil(weight.tensor_type.block_elements())
                    * weight.tensor_type.block_bytes(),
            )
        };
        let product_bytes = |product: &Product| {
            let rows = self.slots.get(product.out.0).map_or(0, |slot| slot.width as u64);
            row_bytes(product.weight).unwrap_or(0) * rows
        };
        let op_bytes = |step: &Step| match &step.op {
            Op::Embed { table, .. } | Op::AddRow { table, .. } => row_bytes(*table).unwrap_or(0),
            // The result of experts is as wide as those that are used have rows.
            Op::Linear { products, .. } | Op::Experts { products, .. } => products.iter().map(product_bytes).sum(),
            _ => 0,
        };
        self.steps.iter().map(op_bytes).sum()
    }
}
