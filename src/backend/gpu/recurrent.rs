//! Recurrent layers: short convolutions over a batch and the inputs before it, and scans that take a batch through each
//! head's matrix. What they keep lies in slots; a step is told which one to read and which one to write.
//!
//! Parameters and bindings are as in [`rows`](super::rows).

use super::draft::{Drafting, Drafts, missing};
use super::record::Draft;
use super::rows::{Kernel, Storage, View, grid};
use super::shader::Variant;
use crate::program::{Rows, Scan, Served, SlotId, State, StateId, WeightId};
use crate::{Error, Result};
use bytemuck::{Pod, Zeroable};

/// Lanes of a workgroup that scans.
const LANES: u32 = 64;
/// Quads of a matrix's row that a lane has at hand, if so many lanes can share the row.
const LANE_QUADS: u32 = 4;

/// Where a layer's states are.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct StatesView {
    /// Where the step's slots stand in the page tables.
    pub slots_start: u32,
    /// Numbers in a slot.
    pub numbers: u32,
}

/// Parameters of `convolve.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct ConvolveParams {
    /// See [`super::rows::outputs`]: there is a row for each token.
    pub outputs: u32,
    /// Columns: a multiple of 4.
    pub width: u32,
    /// Inputs that are kept: one less than count.
    pub inputs: u32,
    /// Where.
    pub states: StatesView,
    /// The batch's rows.
    pub input: View,
    /// The sums.
    pub output: View,
}

impl ConvolveParams {
    /// Reads what slots of states to use, a slot of the program, weights, and biases; writes states and another slot.
    ///
    /// # Errors
    /// If the columns are no quads.
    pub fn kernel(&self, has_bias: bool, most_rows: u32) -> Result<Kernel> {
        check("columns of a convolution", self.width)?;
        let variant = Variant::new("convolve.wgsl", "").flag("BIAS", has_bias);
        let storage = Storage::of(variant).read("SLOTS", true).read("INPUT", true).read("WEIGHTS", true);
        let storage = storage.read("BIASES", has_bias).write("STATES", true).write("OUTPUT", true);
        Ok(Kernel { variant: storage.variant(), groups: grid(self.width.div_ceil(256), most_rows) })
    }
}

/// Parameters of `scan.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct ScanParams {
    /// See [`super::rows::outputs`]: there is a row for each token.
    pub outputs: u32,
    /// Heads of values.
    pub heads: u32,
    /// Heads of queries and keys.
    pub key_heads: u32,
    /// Rows of a head's matrix.
    pub value_size: u32,
    /// Where states are.
    pub states: StatesView,
    /// Where in a slot the first head's matrix begins.
    pub matrices_start: u32,
    /// Queries, keys and values.
    pub input: View,
    /// Where in a row the queries begin.
    pub queries: u32,
    /// Where the keys do.
    pub keys: u32,
    /// Where the values do.
    pub values: u32,
    /// A number for each head.
    pub steps: View,
    /// Likewise, where there are such.
    pub writes: View,
    /// What is read.
    pub output: View,
    /// Multiplied with queries.
    pub scale: f32,
    /// Added to squares.
    pub epsilon: f32,
}

impl ScanParams {
    /// Reads what slots of states to use, a slot of the program, the heads' numbers, and vectors; writes states and another
    /// slot.
    ///
    /// # Errors
    /// If keys are no quads, or there are too many heads for a grid.
    pub fn kernel(&self, scan: &Scan, key_size: u32) -> Result<Kernel> {
        check("numbers of a key", key_size)?;
        let quads = key_size / 4;
        let row_lanes = (0..=LANES.ilog2()).map(|power| 1 << power).filter(|lanes| quads.is_multiple_of(*lanes));
        let row_lanes = row_lanes.reduce(|few, more| if quads / few <= LANE_QUADS { few } else { more }).unwrap_or(1);
        let groups = u64::from(self.heads) * u64::from(self.value_size.div_ceil(LANES / row_lanes));
        let along = u32::try_from(groups).ok().filter(|along| *along <= super::rows::MOST_GROUPS);
        let along = along.ok_or_else(|| Error::Gpu {
            subject: "heads of a scan".into(),
            found: format!("{} of {} numbers", self.heads, self.value_size),
            expected: format!("at most {} workgroups, not {groups}", super::rows::MOST_GROUPS),
        })?;
        let variant = Variant::new("scan.wgsl", "")
            .flag("NORMALISE", scan.normalise.is_some())
            .flag("EVERY", scan.served == Served::Every)
            .flag("WRITES", scan.writes.is_some())
            .flag("SKIP", scan.skip.is_some())
            .constant("ROW_LANES", row_lanes)
            .constant("QUADS", quads / row_lanes);
        let storage = Storage::of(variant).read("SLOTS", true).read("INPUT", true).read("STEPS", true);
        let storage = storage.read("WRITTEN", scan.writes.is_some()).read("BIASES", true).read("DECAYS", true);
        let storage = storage.read("SKIPS", scan.skip.is_some()).write("STATES", true).write("OUTPUT", true);
        Ok(Kernel { variant: storage.variant(), groups: [along, 1, 1] })
    }
}

fn check(what: &str, numbers: u32) -> Result<()> {
    match numbers > 0 && numbers.is_multiple_of(4) {
        true => Ok(()),
        false => Err(Error::Gpu {
            subject: what.into(),
            found: numbers.to_string(),
            expected: "a multiple of 4 (such a model runs on the CPU)".into(),
        }),
    }
}

impl Drafting<'_> {
    fn states(&self, id: StateId) -> Result<(State, &wgpu::Buffer, StatesView)> {
        let state = self.program.states[id.0];
        let buffer = self.pages.states(state.layer as u32).ok_or_else(missing)?;
        Ok((state, buffer, StatesView { slots_start: self.step.slots_start, numbers: state.numbers() as u32 }))
    }

    /// The dispatch of a convolution.
    pub(super) fn convolve(
        &self,
        [input, out]: [SlotId; 2],
        over: StateId,
        weight: WeightId,
        bias: Option<WeightId>,
        drafts: &mut Drafts,
    ) -> Result<()> {
        let (state, buffer, states) = self.states(over)?;
        let params = ConvolveParams {
            outputs: super::rows::outputs(Rows::Tokens),
            width: self.width(out),
            inputs: state.inputs as u32,
            states,
            input: self.view(input),
            output: self.view(out),
        };
        let vector = |id| self.store.vector(id).ok_or_else(missing);
        let mut buffers = vec![&self.step.tables, self.slots.buffer(input), vector(weight)?];
        buffers.extend(bias.map(vector).transpose()?);
        buffers.extend([buffer, self.slots.buffer(out)]);
        drafts.list.push(self.rows(params.kernel(bias.is_some(), 1)?, params, &buffers, out));
        drafts.wrote(out, false);
        Ok(())
    }

    /// The dispatch of a scan.
    pub(super) fn scan(&self, scan: &Scan, drafts: &mut Drafts) -> Result<()> {
        let (state, buffer, states) = self.states(scan.over)?;
        let params = ScanParams {
            outputs: super::rows::outputs(Rows::Tokens),
            heads: state.heads as u32,
            key_heads: scan.key_heads as u32,
            value_size: state.value_size as u32,
            states,
            matrices_start: state.input_numbers() as u32,
            input: self.view(scan.input),
            queries: scan.queries as u32,
            keys: scan.keys as u32,
            values: scan.values as u32,
            steps: self.view(scan.steps),
            writes: scan.writes.map(|writes| self.view(writes)).unwrap_or_default(),
            output: self.view(scan.out),
            scale: scan.scale,
            epsilon: scan.normalise.unwrap_or_default(),
        };
        let vector = |id| self.store.vector(id).ok_or_else(missing);
        let slot = |id| self.slots.buffer(id);
        let mut buffers = vec![&self.step.tables, slot(scan.input), slot(scan.steps)];
        buffers.extend(scan.writes.map(slot));
        buffers.extend([vector(scan.step_bias)?, vector(scan.decay)?]);
        buffers.extend(scan.skip.map(vector).transpose()?);
        buffers.extend([buffer, slot(scan.out)]);
        let Kernel { variant, groups } = params.kernel(scan, state.key_size as u32)?;
        drafts.list.push(Draft::new(variant.for_gpu(self.gpu), params, &buffers, move |_| groups));
        drafts.wrote(scan.out, false);
        Ok(())
    }
}

/// Shaders of this family for common shapes.
pub(super) fn variants() -> Vec<Variant> {
    let plain = Scan {
        input: SlotId(0),
        queries: 0,
        keys: 0,
        values: 0,
        key_heads: 16,
        served: Served::Neighbours,
        normalise: None,
        scale: 1.0,
        steps: SlotId(0),
        step_bias: WeightId(0),
        decay: WeightId(0),
        writes: None,
        skip: Some(WeightId(0)),
        over: StateId(0),
        out: SlotId(0),
    };
    let delta = Scan { normalise: Some(0.0), writes: Some(SlotId(0)), skip: None, ..plain };
    let scans = [plain, delta, Scan { served: Served::Every, ..delta }];
    let (convolve, scan) = (ConvolveParams { width: 256, ..Default::default() }, ScanParams::default());
    let convolutions = [false, true].map(|has_bias| convolve.kernel(has_bias, 1));
    let scans = scans.iter().flat_map(|kind| [32, 128].map(|key_size| scan.kernel(kind, key_size)));
    convolutions.into_iter().chain(scans).flatten().map(|kernel| kernel.variant).collect()
}
