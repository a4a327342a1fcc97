//! What a step can be, and what it is told.

use super::{KeyValuesId, Reach, RopeId, SlotId, StateId, WeightId};
use std::ops::Range;

/// What is divided out of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// The root of the mean square.
    Rms,
    /// The mean is subtracted, then the standard deviation divided out.
    Layer,
    /// The root of the sum of squares.
    L2,
}

/// The curve between the matrices of a feed-forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(x)
    Silu,
    /// The tanh form of x · Φ(x).
    Gelu,
    /// x itself: a gated unit is a product then.
    Identity,
    /// x · sigmoid(1.702 x), with x at most 7; what it is multiplied with is squeezed between -7 and 7, and 1 added.
    ClampedSilu,
    /// sigmoid(x)
    Sigmoid,
    /// The square of x, and 0 where x is negative.
    SquaredRelu,
    /// tanh(x)
    Tanh,
}

/// Which tokens of its own text a token sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// All.
    All,
    /// Those that are at most so far away, on either side.
    Around(usize),
    /// Itself and those before it, as far back as this says.
    Before(Reach),
}

impl Sees {
    /// The tokens of a text that one of them sees.
    pub fn range(self, token: usize, tokens: usize) -> Range<usize> {
        match self {
            Sees::All => 0..tokens,
            Sees::Around(distance) => token.saturating_sub(distance)..tokens.min(token.saturating_add(distance + 1)),
            Sees::Before(reach) => reach.first_seen(token)..token + 1,
        }
    }
}

/// By what a row of a table is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOf {
    /// The token's position in its text.
    Position,
    /// It is the first for every token.
    First,
}

/// From the logits of a router to how much each expert counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gating {
    /// Softmax over all experts.
    Softmax,
    /// Each by itself.
    Sigmoid,
    /// Softmax over those that are chosen, which are chosen by their logits.
    SoftmaxOfChosen,
    /// The root of softplus, each by itself.
    RootSoftplus,
    /// Each by itself, as for [`Gating::Sigmoid`], but chosen by their logits: there are more of these than of numbers
    /// just below 1.
    SigmoidOfChosen,
}

/// How experts are chosen, and how much each of them counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    /// What logits become.
    pub gating: Gating,
    /// Added to that for the choice alone; one number for each expert.
    pub bias: Option<WeightId>,
    /// Neighbouring experts make groups of one size, and only those of the best groups are chosen: the groups whose two
    /// best experts add up to most. 1 if all belong together.
    pub groups: usize,
    /// How many groups those are.
    pub used_groups: usize,
    /// How many experts are chosen.
    pub used: usize,
    /// Weights are divided by their sum.
    pub normalise: bool,
    /// And multiplied with this.
    pub scale: f32,
    /// And with this, of which there is one number for each expert.
    pub scales: Option<WeightId>,
}

/// Some rows of a weight times the input of a [`Op::Linear`] or [`Op::Experts`].
#[derive(Debug, Clone, PartialEq)]
pub struct Product {
    /// The matrix.
    pub weight: WeightId,
    /// Its first row that counts: fused tensors hold several matrices one above the other.
    pub first_row: usize,
    /// Added to the result, and as long as the matrix has rows.
    pub bias: Option<WeightId>,
    /// Where the result goes; its width says how many rows count.
    pub out: SlotId,
}

/// Runs of numbers that an [`Op::Copy`] takes from a row of one slot to the same row of another: run `i` is `size`
/// numbers from `from_start + i * from_stride` on, and goes to `to_start + i * to_stride`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runs {
    /// Where they are.
    pub from: SlotId,
    /// Where in its row the first run begins.
    pub from_start: usize,
    /// From the beginning of one run there to that of the next; 0 takes the same run each time.
    pub from_stride: usize,
    /// Where in the row of the result the first run goes.
    pub to_start: usize,
    /// From the beginning of one run there to that of the next.
    pub to_stride: usize,
    /// Numbers in a run.
    pub size: usize,
    /// How many runs.
    pub count: usize,
}

/// A linear recurrence. Each head has a matrix, which a token changes and then reads: it fades, something is written to it,
/// and it is multiplied with a query.
///
/// ```text
/// step = softplus(steps + step_bias)      S = S · exp(step · decay)
/// S = S + write · (value - S · key) keyᵀ  with a slot for `writes`, where write = sigmoid(writes)
/// S = S + step · value keyᵀ               without one
/// out = S · query · scale + skip · value
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scan {
    /// Queries, keys and values of all heads, each somewhere in a row.
    pub input: SlotId,
    /// Where a row's queries begin.
    pub queries: usize,
    /// Where its keys begin.
    pub keys: usize,
    /// Where its values begin.
    pub values: usize,
    /// Heads of queries and keys, of which each serves several heads of values.
    pub key_heads: usize,
    /// Which those are.
    pub served: Served,
    /// Queries and keys are divided by the root of the sum of their squares and this.
    pub normalise: Option<f32>,
    /// Multiplied with queries.
    pub scale: f32,
    /// A number for each head.
    pub steps: SlotId,
    /// Added to it.
    pub step_bias: WeightId,
    /// How fast each head's matrix fades.
    pub decay: WeightId,
    /// How much of each head's value is written, in place of what its key would read.
    pub writes: Option<SlotId>,
    /// How much of each head's value is added to what is read.
    pub skip: Option<WeightId>,
    /// The matrices.
    pub over: StateId,
    /// What all heads read.
    pub out: SlotId,
}

/// Which heads of values a head of keys serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Neighbours.
    Neighbours,
    /// Each that is so many heads on as there are heads of keys.
    Every,
}

impl Served {
    /// The head of keys that serves a head of values.
    pub const fn by(self, head: usize, heads: usize, key_heads: usize) -> usize {
        match self {
            Served::Neighbours => head / (heads / key_heads),
            Served::Every => head % key_heads,
        }
    }
}

/// One thing to compute.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// The table's row of each token.
    Embed {
        /// One row a token of the vocabulary.
        table: WeightId,
        /// The rows.
        out: SlotId,
    },
    /// Adds a row of a table to each token's.
    AddRow {
        /// The table.
        table: WeightId,
        /// Which of its rows.
        row: RowOf,
        /// What it is added to.
        to: SlotId,
    },
    /// Keeps the rows whose logits are asked for.
    Select {
        /// All rows.
        input: SlotId,
        /// Those rows.
        out: SlotId,
    },
    /// Normalises each group of neighbouring numbers, then multiplies and adds.
    Norm {
        /// How.
        kind: NormKind,
        /// What.
        input: SlotId,
        /// Numbers that are normalised together: the slot's width, or the size of a head.
        group: usize,
        /// Added before the root is taken.
        epsilon: f32,
        /// Multiplied; as long as a group, or as the row.
        weight: Option<WeightId>,
        /// Added; as long as the weight.
        bias: Option<WeightId>,
        /// Where to; may be the input.
        out: SlotId,
    },
    /// Matrices times one input.
    Linear {
        /// The input of all.
        input: SlotId,
        /// The matrices.
        products: Vec<Product>,
    },
    /// Turns each head by its token's position, in place.
    Rotate {
        /// Heads one after the other.
        slot: SlotId,
        /// Numbers in a head.
        head_size: usize,
        /// How.
        rope: RopeId,
    },
    /// Appends each token's keys and values.
    Store {
        /// All heads' keys.
        keys: SlotId,
        /// All heads' values.
        values: Option<SlotId>, // none where values are in the keys
        /// Where.
        to: KeyValuesId,
    },
    /// Softmax-weighted sums of the values that a token sees.
    Attend {
        /// All heads' queries.
        queries: SlotId,
        /// Keys and values; each of their heads serves as many neighbouring query heads as there are more of those.
        over: KeyValuesId,
        /// Query heads.
        heads: usize,
        /// Multiplied with the products of queries and keys.
        scale: f32,
        /// Squeezes the scaled products between plus and minus this.
        softcap: Option<f32>,
        /// For each head one more logit, which takes part in the softmax and has no value.
        sinks: Option<WeightId>,
        /// All heads' sums.
        out: SlotId,
    },
    /// The same over the batch itself, of which each token sees its own text: nothing is kept.
    AttendTexts {
        /// All heads' queries.
        queries: SlotId,
        /// All heads' keys; each serves as many neighbouring query heads as there are more of those.
        keys: SlotId,
        /// All heads' values.
        values: SlotId,
        /// Query heads.
        heads: usize,
        /// Which tokens of its text a token sees.
        sees: Sees,
        /// Multiplied with the products of queries and keys.
        scale: f32,
        /// Squeezes the scaled products between plus and minus this.
        softcap: Option<f32>,
        /// Taken off the scaled products by distance, more in some heads than in others: see [`slope`].
        most_bias: Option<f32>,
        /// All heads' sums.
        out: SlotId,
    },
    /// activation(gate) · up
    Gate {
        /// The curve.
        activation: Activation,
        /// What goes through it.
        gate: SlotId,
        /// What it is multiplied with.
        up: SlotId,
        /// Where to; may be `gate`.
        out: SlotId,
    },
    /// activation(x), in place.
    Activate {
        /// The curve.
        activation: Activation,
        /// What goes through it.
        slot: SlotId,
    },
    /// Multiplies what belongs to later positions, in place: by 1 + slope · ln(1 + ⌊(position + offset) / interval⌋).
    Temper {
        /// A row for each token.
        slot: SlotId,
        /// How fast the factor grows.
        slope: f32,
        /// How many neighbouring positions share a factor.
        interval: usize,
        /// Added to positions.
        offset: usize,
    },
    /// Chooses experts for each token.
    Route {
        /// One number for each expert.
        logits: SlotId,
        /// How.
        routing: Routing,
        /// As many numbers of experts as are used, the best first, and then as many weights.
        out: SlotId,
    },
    /// Matrices of the experts that are chosen, side by side in the result, as in [`Op::Route`]'s.
    Experts {
        /// One input for all, or one for each that is chosen, side by side.
        input: SlotId,
        /// Who is chosen; if nobody chooses, the first input goes by the first matrix, the second by the second.
        routes: Option<SlotId>,
        /// How many experts there are.
        experts: usize,
        /// The matrices: a weight holds those of all experts one above the other, and a bias likewise. `first_row` counts
        /// within each expert's.
        products: Vec<Product>,
    },
    /// The sum of what experts came to, weighted.
    Mix {
        /// Side by side.
        parts: SlotId,
        /// Whose they are, and what they count.
        routes: SlotId,
        /// The sum.
        out: SlotId,
    },
    /// A causal convolution of each column by itself: the sum of what the last tokens have there, weighted.
    Convolve {
        /// Those of the batch.
        input: SlotId,
        /// Where those of earlier tokens are kept.
        over: StateId,
        /// For each column one number for each of the tokens that count, the latest last.
        weight: WeightId,
        /// Added; a number for each column.
        bias: Option<WeightId>,
        /// The sums.
        out: SlotId,
    },
    /// A linear recurrence.
    Scan(Scan),
    /// Puts rows together from pieces of others: parts of heads, or heads of parts.
    Copy {
        /// The pieces, which together make up the whole row of the result, each number of it once.
        parts: Vec<Runs>,
        /// The result, which is none of those that it is made of.
        out: SlotId,
    },
    /// Adds one slot to another.
    Add {
        /// What is added.
        from: SlotId,
        /// What it is added to.
        to: SlotId,
    },
    /// Multiplies in place.
    Scale {
        /// What.
        slot: SlotId,
        /// By how much.
        factor: f32,
    },
    /// Squeezes between plus and minus `cap`, in place: cap · tanh(x / cap).
    Softcap {
        /// What.
        slot: SlotId,
        /// The bound.
        cap: f32,
    },
}

impl Op {
    /// The slots that it reads.
    pub fn reads(&self) -> Vec<SlotId> {
        match self {
            Op::Embed { .. } => vec![],
            Op::AddRow { to, .. } => vec![*to],
            Op::Select { input, .. } | Op::Norm { input, .. } | Op::Linear { input, .. } => vec![*input],
            Op::Rotate { slot, .. } | Op::Scale { slot, .. } | Op::Softcap { slot, .. } => vec![*slot],
            Op::Store { keys, values, .. } => [*keys].into_iter().chain(*values).collect(),
            Op::Activate { slot, .. } | Op::Temper { slot, .. } => vec![*slot],
            Op::Attend { queries, .. } => vec![*queries],
            Op::AttendTexts { queries, keys, values, .. } => vec![*queries, *keys, *values],
            Op::Gate { gate, up, .. } => vec![*gate, *up],
            Op::Route { logits, .. } => vec![*logits],
            Op::Experts { input, routes, .. } => [*input].into_iter().chain(*routes).collect(),
            Op::Mix { parts, routes, .. } => vec![*parts, *routes],
            Op::Convolve { input, .. } => vec![*input],
            Op::Scan(scan) => [scan.input, scan.steps].into_iter().chain(scan.writes).collect(),
            Op::Copy { parts, .. } => parts.iter().map(|part| part.from).collect(),
            Op::Add { from, to } => vec![*from, *to],
        }
    }

    /// The slots that it writes.
    pub fn writes(&self) -> Vec<SlotId> {
        match self {
            Op::Embed { out, .. } | Op::Select { out, .. } | Op::Norm { out, .. } => vec![*out],
            Op::Linear { products, .. } | Op::Experts { products, .. } => {
                products.iter().map(|product| product.out).collect()
            }
            Op::Rotate { slot, .. } | Op::Scale { slot, .. } | Op::Softcap { slot, .. } => vec![*slot],
            Op::Activate { slot, .. } | Op::Temper { slot, .. } => vec![*slot],
            Op::AddRow { to, .. } => vec![*to],
            Op::Store { .. } => vec![],
            Op::Attend { out, .. } | Op::AttendTexts { out, .. } | Op::Gate { out, .. } => vec![*out],
            Op::Route { out, .. } | Op::Mix { out, .. } => vec![*out],
            Op::Convolve { out, .. } | Op::Copy { out, .. } | Op::Scan(Scan { out, .. }) => vec![*out],
            Op::Add { to, .. } => vec![*to],
        }
    }

    /// The keys and values that it writes or reads.
    pub fn key_values(&self) -> Option<KeyValuesId> {
        match self {
            Op::Store { to: id, .. } | Op::Attend { over: id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The state that it changes.
    pub fn state(&self) -> Option<StateId> {
        match self {
            Op::Convolve { over: id, .. } | Op::Scan(Scan { over: id, .. }) => Some(*id),
            _ => None,
        }
    }
}

/// How much less a head counts a token for each step that it is away (ALiBi): powers of one root, of which the heads
/// behind the last power of two have those in between.
pub fn slope(head: usize, heads: usize, most_bias: f32) -> f32 {
    let even = heads.max(1).ilog2();
    let power = |exponent: f32| (-most_bias * exponent / (1u32 << even) as f32).exp2();
    match head.checked_sub(1 << even) {
        None => power((head + 1) as f32),
        Some(behind) => power((2 * behind + 1) as f32 / 2.0),
    }
}
