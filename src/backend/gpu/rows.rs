//! Kernels over rows: what is neither a matrix product nor attention.
//!
//! For each there is a struct of parameters, as the shader of the same name in `shaders/` reads them, with a function
//! that says which shader to run and in how many workgroups. Bindings are, in this order: the uniform of the step, that
//! of the parameters, storage that is read, storage that is written; each function lists the latter two.
//!
//! Plans are recorded once for many steps, so a grid is made for the most rows that a step can have. How many there are
//! is in the step; workgroups behind them return at once.

use super::shader::Variant;
use crate::program::{Activation, NormKind, Rows};
use crate::{Error, Result};
use bytemuck::{Pod, Zeroable};

/// A shader, and the workgroups that it is run in. The shader does not know tiers yet: see [`Variant::for_gpu`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The shader.
    pub variant: Variant,
    /// Along a row, then over rows.
    pub groups: [u32; 3],
}

/// Where the rows of a slot lie in its buffer: the number in column `i` of row `t` is at `start + t * stride + i`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct View {
    /// Numbers before the first row.
    pub start: u32,
    /// Numbers from one row to the next.
    pub stride: u32,
}

/// The `outputs` of all parameters: which number of the step says how many rows there are.
pub const fn outputs(rows: Rows) -> u32 {
    match rows {
        Rows::Tokens => 0,
        Rows::Outputs => 1,
    }
}

/// As many workgroups as a side of a grid may have.
pub(super) const MOST_GROUPS: u32 = 65_535;

/// Workgroups so that there are `along` for each row; shaders loop over what exceeds a side of the grid.
pub(super) fn grid(along: u32, most_rows: u32) -> [u32; 3] {
    [along.clamp(1, MOST_GROUPS), most_rows.clamp(1, MOST_GROUPS), most_rows.div_ceil(MOST_GROUPS).max(1)]
}

/// Columns of a workgroup of kernels with a lane for each, and of those with four columns for each of 64 lanes.
pub(super) const COLUMNS: u32 = 256;

fn simple(file: &'static str, bindings: &'static str, width: u32, most_rows: u32) -> Kernel {
    Kernel { variant: Variant::new(file, bindings), groups: grid(width.div_ceil(COLUMNS), most_rows) }
}

/// Multiplies a slot, in place.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct ScaleParams {
    /// See [`outputs`].
    pub outputs: u32,
    /// Numbers in a row.
    pub width: u32,
    /// What is multiplied.
    pub values: View,
    /// By how much.
    pub factor: f32,
}

impl ScaleParams {
    /// Writes the values.
    pub fn kernel(&self, most_rows: u32) -> Kernel {
        simple("scale.wgsl", "uuw", self.width, most_rows)
    }
}

/// Squeezes a slot between plus and minus a bound, in place.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct SoftcapParams {
    /// See [`outputs`].
    pub outputs: u32,
    /// Numbers in a row.
    pub width: u32,
    /// What is squeezed.
    pub values: View,
    /// The bound.
    pub cap: f32,
}

impl SoftcapParams {
    /// Writes the values.
    pub fn kernel(&self, most_rows: u32) -> Kernel {
        simple("softcap.wgsl", "uuw", self.width, most_rows)
    }
}

/// Multiplies queries by what grows with their position, in place.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct TemperParams {
    /// See [`outputs`]: positions are those of tokens, so there is a row for each.
    pub outputs: u32,
    /// Numbers in a row.
    pub width: u32,
    /// What is multiplied.
    pub values: View,
    /// How fast the factor grows.
    pub slope: f32,
    /// How many neighbouring positions share a factor.
    pub interval: u32,
    /// Added to positions.
    pub offset: u32,
}

impl TemperParams {
    /// Writes the values.
    pub fn kernel(&self, most_rows: u32) -> Kernel {
        simple("temper.wgsl", "uuw", self.width, most_rows)
    }
}

/// Copies runs of numbers from each row of one slot to that of another.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct CopyParams {
    /// See [`outputs`].
    pub outputs: u32,
    /// Numbers in a run.
    pub size: u32,
    /// How many runs.
    pub count: u32,
    /// The first run of each row.
    pub from: View,
    /// From one run to the next.
    pub from_run: u32,
    /// Where the first run of each row goes.
    pub to: View,
    /// From one run to the next.
    pub run: u32,
}

impl CopyParams {
    /// Reads one slot; writes another.
    pub fn kernel(&self, most_rows: u32) -> Kernel {
        simple("copy.wgsl", "uurw", self.size * self.count, most_rows)
    }
}

/// Copies the rows of some tokens.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct SelectParams {
    /// Of the result: see [`outputs`].
    pub outputs: u32,
    /// Numbers in a row.
    pub width: u32,
    /// A row for each token of the batch.
    pub input: View,
    /// A row for each that is wanted.
    pub output: View,
}

impl SelectParams {
    /// Reads the input and the tokens that are wanted, as `u32`; writes the output.
    pub fn kernel(&self, most_rows: u32) -> Kernel {
        simple("select.wgsl", "uurrw", self.width, most_rows)
    }
}

/// Rounds to eight bits by units of 32 columns, as `shaders/shared/quantize.wgsl` lays them out.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct QuantizeParams {
    /// See [`outputs`].
    pub outputs: u32,
    /// Numbers in a row.
    pub width: u32,
    /// What is rounded.
    pub values: View,
}

impl QuantizeParams {
    /// Reads the values; writes the integers and the scales.
    pub fn kernel(&self, most_rows: u32) -> Kernel {
        let Kernel { variant, groups } = simple("quantize.wgsl", "uurww", self.width, most_rows);
        Kernel { variant: variant.constant("THREADS", 64).constant("XQ", 3).constant("XS", 4), groups }
    }
}

/// The bytes that a row of so many numbers takes in eight bits: those of the integers, and those of the scales.
pub const fn quantized_bytes(width: u32) -> (u64, u64) {
    let units = width.div_ceil(32) as u64;
    (units * 32, units * 16)
}

/// Where storage is bound: given to a shader as the constants that it names its bindings by.
pub(super) struct Storage {
    variant: Variant,
    reads: usize,
    writes: usize,
}

impl Storage {
    pub(super) fn of(variant: Variant) -> Self {
        Storage { variant, reads: 0, writes: 0 }
    }

    /// Storage that is read, if `yes`. All of it comes before what is written.
    pub(super) fn read(mut self, name: &'static str, yes: bool) -> Self {
        if yes {
            self.variant = self.variant.constant(name, 2 + self.reads);
            self.reads += 1;
        }
        self
    }

    /// Storage that is written, if `yes`.
    pub(super) fn write(mut self, name: &'static str, yes: bool) -> Self {
        if yes {
            self.variant = self.variant.constant(name, 2 + self.reads + self.writes);
            self.writes += 1;
        }
        self
    }

    pub(super) fn variant(self) -> Variant {
        let all = match self.reads {
            0 => "uuwwww",
            1 => "uurwwww",
            2 => "uurrwwww",
            3 => "uurrrwwww",
            4 => "uurrrrwwww",
            5 => "uurrrrrwww",
            _ => "uurrrrrrww",
        };
        let bindings = all.get(..2 + self.reads + self.writes).unwrap_or(all);
        Variant { bindings, ..self.variant }
    }
}

/// Which norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Norm {
    /// How; if not at all, what matters is the sum, which takes the place of the input.
    pub kind: Option<NormKind>,
    /// The result takes the place of the input.
    pub in_place: bool,
    /// A multiple of another slot is first added to the input, where the sum stays unless the result takes its place.
    pub add: bool,
    /// That slot is normalised by RMS before, and multiplied by weights of its own. Then a row has to be one group.
    pub addend_norm: bool,
    /// The result is multiplied.
    pub weight: bool,
    /// Then something is added to it.
    pub bias: bool,
    /// Another part of the row is normalised too, in place, with weights of its own. Then each part is one group.
    pub second: bool,
    /// The result is also written in eight bits. Then a row has to be one group.
    pub quantize: bool,
}

/// Normalises each group of a row.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct NormParams {
    /// See [`outputs`].
    pub outputs: u32,
    /// Numbers in a row.
    pub width: u32,
    /// Numbers that are normalised together.
    pub group: u32,
    /// Numbers from the weights of one group to those of the next: `group` if they are as long as the row, or else 0.
    /// For the bias as well.
    pub weight_stride: u32,
    /// Added before the root is taken.
    pub epsilon: f32,
    /// What is normalised.
    pub input: View,
    /// What is first added to it, if [`Norm::add`].
    pub addend: View,
    /// What that is multiplied with.
    pub addend_factor: f32,
    /// The first number of the other part, if [`Norm::second`].
    pub second_start: u32,
    /// How many numbers it has.
    pub second_width: u32,
    /// The result, if not [`Norm::in_place`].
    pub output: View,
}

/// Groups up to this length share a workgroup with others.
const SMALL_GROUP: u32 = 256;

impl NormParams {
    /// Reads the input (unless it is written), the addend, its weight, the weight, that of the second part, the bias;
    /// writes the input (if in place, or if added to), the output (if not in place), integers and scales.
    pub fn kernel(&self, norm: Norm, most_rows: u32) -> Result<Kernel> {
        let NormParams { width, group, .. } = *self;
        let is_whole = norm.quantize || norm.addend_norm || norm.second;
        let error = |found: String, expected: &str| {
            Err(Error::Gpu { subject: format!("norm of rows of {width}"), found, expected: expected.into() })
        };
        if group == 0 {
            return error("groups of 0".into(), "at least one number");
        }
        if is_whole && group != width {
            return error(format!("groups of {group} in {norm:?}"), "the whole row as a group");
        }
        if (norm.second || norm.kind.is_none()) && !norm.in_place {
            return error(format!("{norm:?}"), "one in place");
        }
        let is_small = group <= SMALL_GROUP && !is_whole;
        let teams = if is_small { 8 } else { 1 };
        let groups = if norm.second { 2 } else { width.div_ceil(group) };
        Ok(Kernel { variant: norm.variant(is_small), groups: grid(groups.div_ceil(teams), most_rows) })
    }
}

impl Norm {
    fn variant(self, is_small: bool) -> Variant {
        let Norm { kind, in_place, add, addend_norm, weight, bias, second, quantize } = self;
        let changes_input = in_place || add;
        let (lanes, steps) = if is_small { (32, 5) } else { (256, 8) };
        let variant = Variant::new("norm.wgsl", "")
            .flag("LAYER", kind == Some(NormKind::Layer))
            .flag("L2", kind == Some(NormKind::L2))
            .flag("KEEP", kind.is_none())
            .flag("IN_PLACE", in_place)
            .flag("CHANGES_INPUT", changes_input)
            .flag("ADD", add)
            .flag("ADDEND_NORM", addend_norm)
            .flag("WEIGHT", weight)
            .flag("BIAS", bias)
            .flag("SECOND", second)
            .flag("QUANTIZE", quantize)
            .flag("WHOLE", !is_small)
            .constant("LANES", lanes)
            .constant("STEPS", steps)
            .constant("THREADS", 256);
        Storage::of(variant)
            .read("INPUT", !changes_input)
            .read("ADDEND", add)
            .read("ADDEND_WEIGHT", addend_norm)
            .read("WEIGHT", weight)
            .read("SECOND_WEIGHT", second)
            .read("BIAS", bias)
            .write("INPUT", changes_input)
            .write("OUTPUT", !in_place)
            .write("XQ", quantize)
            .write("XS", quantize)
            .variant()
    }
}

/// Which gated unit, or which curve alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// The curve.
    pub activation: Activation,
    /// What comes of it is multiplied with something.
    pub is_gated: bool,
    /// The result takes the place of the gate.
    pub in_place: bool,
    /// The result is also written in eight bits.
    pub quantize: bool,
}

/// activation(gate) · up, or activation(gate)
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct GateParams {
    /// See [`outputs`].
    pub outputs: u32,
    /// Numbers in a row.
    pub width: u32,
    /// What goes through the curve.
    pub gate: View,
    /// What it is multiplied with, if [`Gate::is_gated`].
    pub up: View,
    /// The result, if not [`Gate::in_place`].
    pub output: View,
}

impl GateParams {
    /// Reads the gate (if not in place) and what it is multiplied with (if anything); writes the gate (if in place) or the output,
    /// integers and scales.
    pub fn kernel(&self, gate: Gate, most_rows: u32) -> Kernel {
        Kernel { variant: gate.variant(), groups: grid(self.width.div_ceil(COLUMNS), most_rows) }
    }
}

/// All curves.
pub const CURVES: [Activation; 7] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::ClampedSilu,
    Activation::Sigmoid,
    Activation::SquaredRelu,
    Activation::Tanh,
    Activation::Identity,
];

/// Sets the flag of a curve, as `shaders/shared/gate.wgsl` has it.
pub(super) fn curve(variant: Variant, activation: Activation) -> Variant {
    variant
        .flag("GELU", activation == Activation::Gelu)
        .flag("CLAMPED", activation == Activation::ClampedSilu)
        .flag("SIGMOID", activation == Activation::Sigmoid)
        .flag("SQUARED_RELU", activation == Activation::SquaredRelu)
        .flag("TANH", activation == Activation::Tanh)
        .flag("IDENTITY", activation == Activation::Identity)
}

impl Gate {
    fn variant(self) -> Variant {
        let Gate { activation, is_gated, in_place, quantize } = self;
        let variant = curve(Variant::new("gate.wgsl", ""), activation)
            .flag("GATED", is_gated)
            .flag("IN_PLACE", in_place)
            .flag("QUANTIZE", quantize)
            .constant("THREADS", 64);
        Storage::of(variant)
            .read("GATE", !in_place)
            .read("UP", is_gated)
            .write("GATE", in_place)
            .write("OUTPUT", !in_place)
            .write("XQ", quantize)
            .write("XS", quantize)
            .variant()
    }
}

/// Each row's largest number and its index.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct ArgmaxParams {
    /// See [`outputs`].
    pub outputs: u32,
    /// Numbers in a row.
    pub width: u32,
    /// The numbers.
    pub values: View,
    /// Candidates of a row between the two passes, of eight bytes each.
    pub parts: u32,
}

impl ArgmaxParams {
    /// For both passes.
    pub fn new(outputs: u32, width: u32, values: View) -> Self {
        const PART: u32 = 4096;
        ArgmaxParams { outputs, width, values, parts: width.div_ceil(PART).clamp(1, MOST_GROUPS) }
    }

    /// Two passes, one after the other. The first reads the values and writes the candidates, which the second reads,
    /// to write a pair of `u32`, the bits of the number and its index, for each row.
    pub fn kernels(&self, most_rows: u32) -> [Kernel; 2] {
        let variant = Variant::new("argmax.wgsl", "uurw");
        [
            Kernel { variant: variant.clone(), groups: grid(self.parts, most_rows) },
            Kernel { variant: variant.flag("MERGE", true), groups: grid(1, most_rows) },
        ]
    }
}

/// A round of finding the largest numbers of each row.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct TopKParams {
    /// See [`outputs`].
    pub outputs: u32,
    /// Numbers in a row, or candidates that are left of them.
    pub width: u32,
    /// Where they are.
    pub values: View,
    /// What a row is divided into.
    pub parts: u32,
    /// How many of each part are kept.
    pub k: u32,
}

/// The most that [`TopKParams::rounds`] finds in a row.
pub const MOST_OF_A_ROW: u32 = 64;

impl TopKParams {
    /// The rounds that find the `k` largest numbers of each row, at most [`MOST_OF_A_ROW`]; one after the other, each
    /// reading what the one before it wrote: `parts * k` pairs of `u32` for each row.
    ///
    /// The last writes `k` pairs for each row: the bits of a number and its index, largest first. If a row is shorter
    /// than `k`, indices of what is missing are [`u32::MAX`].
    pub fn rounds(outputs: u32, width: u32, values: View, k: u32, most_rows: u32) -> Vec<(TopKParams, Kernel)> {
        const PART: u32 = 1024;
        let k = k.clamp(1, MOST_OF_A_ROW);
        let mut rounds = vec![];
        let (mut width, mut values) = (width, values);
        loop {
            let parts = width.div_ceil(PART).clamp(1, MOST_GROUPS);
            let variant = Variant::new("top_k.wgsl", "uurw").flag("FIRST", rounds.is_empty()).flag("LAST", parts == 1);
            let kernel = Kernel { variant, groups: grid(parts, most_rows) };
            rounds.push((TopKParams { outputs, width, values, parts, k }, kernel));
            if parts == 1 {
                return rounds;
            }
            width = parts * k;
            values = View { start: 0, stride: width };
        }
    }
}

/// Draws one of the likeliest numbers of the first row.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct DrawParams {
    /// How many there are, at most [`MOST_OF_A_ROW`].
    pub candidates: u32,
}

impl DrawParams {
    /// Reads a [`Draw`](super::Draw), a uniform, and what the last of [`TopKParams::rounds`] wrote; writes an index as `u32`.
    pub fn kernel(&self) -> Kernel {
        Kernel { variant: Variant::new("draw.wgsl", "uuurw"), groups: [1, 1, 1] }
    }
}

/// Every shader of this family, without tiers.
pub(super) fn variants() -> Vec<Variant> {
    let mut variants = vec![];
    for kind in [Some(NormKind::Rms), Some(NormKind::Layer), Some(NormKind::L2), None] {
        for bits in 0..32 {
            let [in_place, add, weight, bias, quantize] = [0, 1, 2, 3, 4].map(|bit| bits >> bit & 1 == 1);
            let norm = Norm { kind, in_place, add, addend_norm: false, weight, bias, second: false, quantize };
            if kind.is_none() && !in_place {
                continue;
            }
            variants.push(norm.variant(false));
            if add {
                variants.push(Norm { addend_norm: true, ..norm }.variant(false));
            }
            if in_place && !add && !quantize {
                variants.push(Norm { second: true, ..norm }.variant(false));
            }
            if !quantize {
                variants.push(norm.variant(true));
            }
        }
    }
    for activation in CURVES {
        for bits in 0..8 {
            let [is_gated, in_place, quantize] = [0, 1, 2].map(|bit| bits >> bit & 1 == 1);
            variants.push(Gate { activation, is_gated, in_place, quantize }.variant());
        }
    }
    let kernels = [
        ScaleParams::default().kernel(1),
        SoftcapParams::default().kernel(1),
        TemperParams::default().kernel(1),
        SelectParams::default().kernel(1),
        CopyParams::default().kernel(1),
        QuantizeParams::default().kernel(1),
        DrawParams::default().kernel(),
    ];
    let choices = ArgmaxParams::default().kernels(1);
    // One round, which is first and last; then three, of which one is neither.
    let rounds = [1, 1 << 16].map(|width| TopKParams::rounds(0, width, View::default(), 64, 1));
    let rounds = rounds.into_iter().flatten().map(|(_, kernel)| kernel);
    variants.extend(kernels.into_iter().chain(choices).chain(rounds).map(|kernel| kernel.variant));
    variants
}
