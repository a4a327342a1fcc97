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

use crate::gguf::TensorType;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

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

/// What a program is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Its output are logits of the token that follows.
    #[default]
    Generate,
    /// Its output describe tokens. It keeps nothing from batch to batch, and takes several texts in one.
    Embed,
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

/// Which pairs of numbers a rotation turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Neighbours: 0 and 1, 2 and 3.
    Adjacent,
    /// The first half with the second: 0 and n/2, 1 and n/2 + 1.
    Halves,
}

/// Between which frequencies YaRN goes over from interpolating positions to leaving them alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// Pairs that turn more often than this within the original context are left alone.
    pub beta_fast: f32,
    /// Pairs that turn less often than this are interpolated.
    pub beta_slow: f32,
    /// The context that the model was first trained for.
    pub original_context: usize,
}

/// A rotation of queries and keys by position.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Which pairs.
    pub style: RopeStyle,
    /// How many numbers of each head are rotated, from its first.
    pub dimensions: usize,
    /// The base of the frequencies.
    pub base: f32,
    /// What positions are multiplied with.
    pub scale: f32,
    /// A divisor for each pair's frequency.
    pub factors: Option<WeightId>,
    /// How scaling depends on the frequency.
    pub yarn: Option<Yarn>,
    /// What sines and cosines are multiplied with.
    pub magnitude: f32,
}

impl Rope {
    /// The angle, in radians, that each pair turns by from one position to the next.
    pub fn angles(&self, factors: Option<&[f32]>) -> Vec<f32> {
        let pairs = self.dimensions / 2;
        let ramp = self.yarn.map(|yarn| self.yarn_ramp(yarn));
        let angle = |pair: usize| {
            let factor = factors.and_then(|factors| factors.get(pair)).map_or(1.0, |&factor| f64::from(factor));
            let free = f64::from(self.base).powf(-2.0 * pair as f64 / self.dimensions as f64) / factor;
            let scaled = free * f64::from(self.scale);
            let mix = ramp.map_or(0.0, |(low, high)| {
                let along = (pair as f64 - low) / (high - low).max(0.001);
                1.0 - along.clamp(0.0, 1.0)
            });
            (scaled * (1.0 - mix) + free * mix) as f32
        };
        (0..pairs).map(angle).collect()
    }

    /// The pairs between which YaRN goes over from leaving alone to interpolating.
    fn yarn_ramp(&self, yarn: Yarn) -> (f64, f64) {
        let pair_of = |turns: f32| {
            let wavelength = yarn.original_context as f64 / (f64::from(turns) * std::f64::consts::TAU);
            self.dimensions as f64 * wavelength.ln() / (2.0 * f64::from(self.base).ln())
        };
        let low = pair_of(yarn.beta_fast).floor().max(0.0);
        let high = pair_of(yarn.beta_slow).ceil().min(self.dimensions as f64 - 1.0);
        (low, high)
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

/// Neighbouring steps that run on one device, and what crosses over to it and from it. A slot stays on a device where it
/// was last written until another writes it, so only what another device has written is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The device, as an index.
    pub device: usize,
    /// Which steps.
    pub steps: Range<usize>,
    /// What has to be brought here before the first of them.
    pub given: Vec<SlotId>,
    /// What another device, or whoever runs the program, takes from here after the last of them.
    pub wanted: Vec<SlotId>,
}

impl Program {
    /// The program as one segment.
    pub fn whole(&self) -> Vec<Segment> {
        self.segments(&vec![0; self.steps.len()])
    }

    /// The program cut where the device changes. `devices` says where each step runs.
    pub fn segments(&self, devices: &[usize]) -> Vec<Segment> {
        let mut segments: Vec<Segment> = vec![];
        for (at, &device) in devices.iter().enumerate().take(self.steps.len()) {
            match segments.last_mut() {
                Some(last) if last.device == device => last.steps.end = at + 1,
                _ => segments.push(Segment { device, steps: at..at + 1, given: vec![], wanted: vec![] }),
            }
        }
        // Which devices have what a slot holds now, and which segment wrote it.
        let mut holders: Vec<(Vec<usize>, usize)> = vec![(vec![], 0); self.slots.len()];
        for index in 0..segments.len() {
            let Segment { device, steps, .. } = segments[index].clone();
            for op in self.steps[steps].iter().map(|step| &step.op) {
                for slot in op.reads() {
                    let (devices, writer) = &mut holders[slot.0];
                    if !devices.is_empty() && !devices.contains(&device) {
                        devices.push(device);
                        segments[index].given.push(slot);
                        if !segments[*writer].wanted.contains(&slot) {
                            segments[*writer].wanted.push(slot);
                        }
                    }
                }
                op.writes().into_iter().for_each(|slot| holders[slot.0] = (vec![device], index));
            }
        }
        if let Some(output) = self.output
            && let Some(segment) = segments.get_mut(holders[output.0].1)
        {
            segment.wanted.push(output);
        }
        segments
    }

    /// Whether a device goes on with what it wrote before another had its turn: then a second batch cannot come in between.
    pub fn keeps_slots(&self, segments: &[Segment]) -> bool {
        segments.iter().any(|segment| {
            let mut here: HashSet<SlotId> = segment.given.iter().copied().collect();
            self.steps.get(segment.steps.clone()).unwrap_or_default().iter().any(|step| {
                let keeps = step.op.reads().iter().any(|slot| !here.contains(slot));
                here.extend(step.op.writes());
                keeps
            })
        })
    }

    /// The most positions that a text may have, as far as tables have rows for them.
    pub fn most_positions(&self) -> usize {
        let rows = self.steps.iter().filter_map(|step| match step.op {
            Op::AddRow { table, row: RowOf::Position, .. } => self.weights.get(table.0).map(|weight| weight.rows),
            _ => None,
        });
        rows.min().unwrap_or(usize::MAX)
    }

    /// The layers of which something is kept where these segments run.
    pub fn cached_layers(&self, segments: &[Segment]) -> HashSet<u32> {
        let steps = segments.iter().flat_map(|segment| self.steps.get(segment.steps.clone()).unwrap_or_default());
        let layer = |op: &Op| match (op.key_values(), op.state()) {
            (Some(id), _) => self.key_values.get(id.0).map(|kept| kept.layer),
            (None, Some(id)) => self.states.get(id.0).map(|state| state.layer),
            (None, None) => None,
        };
        steps.filter_map(|step| layer(&step.op)).map(|layer| layer as u32).collect()
    }

    /// How many matrices lie one above the other in the weights of a step, and how many of them a token is multiplied with.
    pub fn members(&self, op: &Op) -> (usize, usize) {
        let Op::Experts { experts, routes, .. } = op else { return (1, 1) };
        let used = routes.and_then(|routes| self.slots.get(routes.0)).map(|slot| slot.width / 2);
        (*experts, used.unwrap_or(*experts).max(1))
    }

    /// Whether nobody reads a slot from step `at` on before it is written anew.
    pub fn is_dead(&self, at: usize, slot: SlotId) -> bool {
        for Step { op, .. } in self.steps.iter().skip(at) {
            if op.reads().contains(&slot) {
                return false;
            }
            if op.writes().contains(&slot) {
                return true;
            }
        }
        self.output != Some(slot)
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

    fn slot(&self, id: SlotId) -> &str {
        self.slots.get(id.0).map_or("?", |slot| slot.name)
    }

    fn weight(&self, id: WeightId) -> &str {
        self.weights.get(id.0).map_or("?", |weight| &weight.name)
    }

    /// The op as one line of a listing.
    fn describe(&self, op: &Op, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slot, weight) = (|id: &SlotId| self.slot(*id), |id: &WeightId| self.weight(*id));
        match op {
            Op::Embed { table, out } => write!(f, "embed     {} = {}[token]", slot(out), weight(table)),
            Op::AddRow { table, row, to } => {
                let row = if *row == RowOf::Position { "position" } else { "0" };
                write!(f, "add row   {} += {}[{row}]", slot(to), weight(table))
            }
            Op::Select { input, out } => write!(f, "select    {} = rows of {} with outputs", slot(out), slot(input)),
            Op::Norm { kind, input, group, weight: by, bias, out, .. } => {
                let kind = format!("{kind:?}").to_lowercase();
                write!(f, "norm      {} = {kind}({}", slot(out), slot(input))?;
                if self.slots.get(input.0).is_some_and(|slot| slot.width != *group) {
                    write!(f, ", groups of {group}")?;
                }
                write!(f, ")")?;
                by.iter().try_for_each(|by| write!(f, " * {}", weight(by)))?;
                bias.iter().try_for_each(|bias| write!(f, " + {}", weight(bias)))
            }
            Op::Linear { input, products } | Op::Experts { input, products, .. } => {
                let is_mixture = matches!(op, Op::Experts { .. });
                write!(f, "{}", if is_mixture { "experts   " } else { "linear    " })?;
                for (i, product) in products.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{} = {}", slot(&product.out), weight(&product.weight))?;
                    let rows = self.slots.get(product.out.0).map_or(0, |slot| slot.width);
                    if !is_mixture && self.weights.get(product.weight.0).is_some_and(|weight| weight.rows != rows) {
                        write!(f, "[{}..{}]", product.first_row, product.first_row + rows)?;
                    }
                    write!(f, " · {}", slot(input))?;
                    product.bias.iter().try_for_each(|bias| write!(f, " + {}", weight(bias)))?;
                }
                Ok(())
            }
            Op::Rotate { slot: turned, rope, .. } => {
                let Some(rope) = self.ropes.get(rope.0) else { return write!(f, "rotate    {}", slot(turned)) };
                let Rope { dimensions, base, style, .. } = rope;
                let style = format!("{style:?}").to_lowercase();
                write!(f, "rotate    {} ({style}, {dimensions} dimensions, base {base})", slot(turned))
            }
            Op::Store { keys, values, to } => {
                write!(f, "store     {}", slot(keys))?;
                values.iter().try_for_each(|values| write!(f, ", {}", slot(values)))?;
                write!(f, " in cache {}", to.0)
            }
            Op::Attend { queries, over, heads, scale, softcap, sinks, out } => {
                write!(f, "attend    {} = {} over cache {} ({heads} heads, ", slot(out), slot(queries), over.0)?;
                write!(f, "scale {scale}")?;
                sinks.iter().try_for_each(|sinks| write!(f, ", sinks {}", weight(sinks)))?;
                softcap.iter().try_for_each(|cap| write!(f, ", softcap {cap}"))?;
                match self.key_values.get(over.0).map_or(Reach::All, |cache| cache.reach) {
                    Reach::All => write!(f, ")"),
                    Reach::Window(positions) => write!(f, ", window {positions})"),
                    Reach::Chunk(positions) => write!(f, ", chunks of {positions})"),
                }
            }
            Op::AttendTexts { queries, keys, values, heads, sees, scale, softcap, most_bias, out } => {
                let sees = format!("{sees:?}").to_lowercase();
                write!(f, "attend    {} = {} over {}, {} ", slot(out), slot(queries), slot(keys), slot(values))?;
                write!(f, "({heads} heads, scale {scale}, sees {sees}")?;
                softcap.iter().try_for_each(|cap| write!(f, ", softcap {cap}"))?;
                most_bias.iter().try_for_each(|bias| write!(f, ", bias up to {bias}"))?;
                write!(f, ")")
            }
            Op::Gate { activation, gate, up, out } => {
                let activation = format!("{activation:?}").to_lowercase();
                write!(f, "gate      {} = {activation}({}) * {}", slot(out), slot(gate), slot(up))
            }
            Op::Activate { activation, slot: curved } => {
                let activation = format!("{activation:?}").to_lowercase();
                write!(f, "activate  {0} = {activation}({0})", slot(curved))
            }
            Op::Temper { slot: tempered, slope, interval, .. } => {
                write!(f, "temper    {} (slope {slope}, each {interval} positions)", slot(tempered))
            }
            Op::Route { logits, routing, out } => {
                let Routing { gating, groups, used_groups, used, bias, scales, .. } = routing;
                let gating = format!("{gating:?}").to_lowercase();
                write!(f, "route     {} = {used} best of {gating}({})", slot(out), slot(logits))?;
                bias.iter().try_for_each(|bias| write!(f, " + {}", weight(bias)))?;
                scales.iter().try_for_each(|scales| write!(f, ", times {}", weight(scales)))?;
                if *groups > 1 {
                    write!(f, ", from {used_groups} of {groups} groups")?;
                }
                Ok(())
            }
            Op::Convolve { input, over, weight: by, bias, out } => {
                write!(f, "convolve  {} = {} and state {} * {}", slot(out), slot(input), over.0, weight(by))?;
                bias.iter().try_for_each(|bias| write!(f, " + {}", weight(bias)))
            }
            Op::Scan(scan) => {
                let Scan { input, steps, step_bias, decay, writes, skip, over, out, .. } = scan;
                write!(f, "scan      {} = {} over state {}, ", slot(out), slot(input), over.0)?;
                write!(f, "fades by {} + {}, {}", slot(steps), weight(step_bias), weight(decay))?;
                writes.iter().try_for_each(|writes| write!(f, ", writes {}", slot(writes)))?;
                skip.iter().try_for_each(|skip| write!(f, ", skips {}", weight(skip)))
            }
            Op::Mix { parts, routes, out } => {
                write!(f, "mix       {} = {} by {}", slot(out), slot(parts), slot(routes))
            }
            Op::Copy { parts, out } => {
                write!(f, "copy      {} = ", slot(out))?;
                parts.iter().enumerate().try_for_each(|(i, Runs { from, from_start, size, count, .. })| {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{count} of {}[{from_start}..{}]", slot(from), from_start + size)
                })
            }
            Op::Add { from, to } => write!(f, "add       {} += {}", slot(to), slot(from)),
            Op::Scale { slot: scaled, factor } => write!(f, "scale     {} *= {factor}", slot(scaled)),
            Op::Softcap { slot: capped, cap } => write!(f, "softcap   {0} = {cap} tanh({0} / {cap})", slot(capped)),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Program { architecture, layers, vocabulary, context, .. } = self;
        writeln!(f, "{architecture}: {layers} layers, vocabulary {vocabulary}, context {context}")?;
        for Step { layer, op } in &self.steps {
            match layer {
                Some(layer) => write!(f, "layer {layer:<5}")?,
                None => write!(f, "{:11}", "")?,
            }
            self.describe(op, f)?;
            writeln!(f)?;
        }
        Ok(())
    }
}
