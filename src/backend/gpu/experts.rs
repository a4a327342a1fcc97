//! Mixtures of experts: the kernels that choose experts, bring their work in order, and add up what they came to.
//!
//! What experts compute is a product like any other, of [`ProductKernel`](super::products::ProductKernel): a *choice* is a
//! token and one of its experts, and takes the place of a token there. For few tokens each choice is multiplied by itself,
//! with the matrix that its route names. For many, the choices are sorted by matrix first ([`SortParams`]), once for all
//! products with these routes, and a product goes over tiles of choices that share a matrix. Nothing of that passes
//! through the host: there are as many workgroups as there can be tiles, and those without one leave.
//!
//! Parameters and bindings are as in [`rows`](super::rows).

use super::rows::{COLUMNS, Kernel, Storage, View, grid};
use super::shader::Variant;
use crate::program::{Gating, Product, Program, Routing, Slot, SlotId};
use crate::{Error, Result};
use bytemuck::{Pod, Zeroable};

/// The most experts that can be chosen from, which is what workgroups have memory for.
pub const MOST_EXPERTS: usize = 512;

/// Chooses experts for each row.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct RouteParams {
    /// See [`outputs`](super::rows::outputs).
    pub outputs: u32,
    /// How many there are, at most [`MOST_EXPERTS`].
    pub experts: u32,
    /// One number for each.
    pub logits: View,
    /// How many are chosen.
    pub used: u32,
    /// Groups of neighbours.
    pub groups: u32,
    /// Those that experts are chosen from.
    pub used_groups: u32,
    /// What weights are multiplied with.
    pub scale: f32,
    /// Numbers of experts, then weights.
    pub routes: View,
}

impl RouteParams {
    /// Those of a routing, and the experts that there are.
    ///
    /// # Errors
    /// If there are more experts than workgroups have memory for, or fewer than are to be chosen.
    pub fn new(routing: &Routing, experts: usize) -> Result<Self> {
        let Routing { groups, used_groups, used, scale, .. } = *routing;
        let error = |found: String, expected: String| {
            Err(Error::Gpu { subject: format!("choice of {used} from {experts} experts"), found, expected })
        };
        if experts == 0 || experts > MOST_EXPERTS {
            return error(format!("{experts} experts"), format!("1 to {MOST_EXPERTS}"));
        }
        if groups == 0 || !experts.is_multiple_of(groups) || !(1..=groups).contains(&used_groups) {
            return error(format!("{used_groups} of {groups} groups"), "groups of one size, and some of them".into());
        }
        let most = experts / groups * used_groups;
        if used == 0 || used > most {
            return error(format!("{used} to be chosen"), format!("1 to {most}"));
        }
        let [experts, used, groups, used_groups] = [experts, used, groups, used_groups].map(|count| count as u32);
        Ok(RouteParams { experts, used, groups, used_groups, scale, ..RouteParams::default() })
    }

    /// Reads the logits, and the bias and the scales if there are any; writes the routes.
    pub fn kernel(&self, routing: &Routing, most_rows: u32) -> Kernel {
        let Routing { gating, normalise, .. } = *routing;
        let (softmax, has_scales) = (gating == Gating::SoftmaxOfChosen, routing.scales.is_some());
        let variant = Variant::new("route.wgsl", "")
            .flag("SOFTMAX", gating == Gating::Softmax)
            .flag("SIGMOID", gating == Gating::Sigmoid)
            .flag("ROOT_SOFTPLUS", gating == Gating::RootSoftplus)
            .flag("SOFTMAX_OF_CHOSEN", softmax)
            .flag("SIGMOID_OF_CHOSEN", gating == Gating::SigmoidOfChosen)
            .flag("NORMALISE", normalise && !softmax)
            .flag("SUM", normalise || softmax)
            .flag("BIAS", routing.bias.is_some())
            .flag("SCALES", has_scales)
            .flag("GROUPS", routing.groups > 1);
        let storage = Storage::of(variant).read("LOGITS", true).read("BIAS_AT", routing.bias.is_some());
        let storage = storage.read("SCALES_AT", has_scales);
        Kernel { variant: storage.write("ROUTES", true).variant(), groups: grid(1, most_rows) }
    }
}

/// Sorts the choices of all rows by matrix, and cuts them into tiles.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct SortParams {
    /// See [`outputs`](super::rows::outputs).
    pub outputs: u32,
    /// Matrices that each row chooses.
    pub choices: u32,
    /// Matrices that there are, at most [`MOST_EXPERTS`].
    pub matrices: u32,
    /// Choices in a tile.
    pub tile: u32,
    /// Whose first numbers say which.
    pub routes: View,
    /// Where tiles begin in the result, in words: behind the choices of as many rows as there may be.
    pub tiles_start: u32,
}

impl SortParams {
    /// Reads the routes; writes words, as many as [`order_words`] says.
    pub fn kernel(&self) -> Kernel {
        Kernel { variant: Variant::new("sort_choices.wgsl", "uurw"), groups: [1, 1, 1] }
    }
}

/// The most tiles of so many choices by so many matrices: each may leave one that is not full.
pub fn most_tiles(choices: u32, matrices: u32, tile: u32) -> u32 {
    choices / tile + matrices.min(choices)
}

/// Words that a sorted list of choices takes, with its tiles.
pub fn order_words(choices: u32, matrices: u32, tile: u32) -> u64 {
    u64::from(choices) + 4 * u64::from(most_tiles(choices, matrices, tile))
}

/// The weighted sum of what experts came to.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct MixParams {
    /// See [`outputs`](super::rows::outputs).
    pub outputs: u32,
    /// Numbers of a part.
    pub width: u32,
    /// How many parts there are.
    pub choices: u32,
    /// Side by side.
    pub parts: View,
    /// As many numbers of experts, which do not matter here, and then as many weights.
    pub routes: View,
    /// The sum.
    pub output: View,
}

impl MixParams {
    /// Reads the parts and the routes; writes the output, or adds to it.
    pub fn kernel(&self, add: bool, most_rows: u32) -> Kernel {
        let variant = Variant::new("mix.wgsl", "uurrw").flag("ADD", add);
        Kernel { variant, groups: grid(self.width.div_ceil(COLUMNS), most_rows) }
    }
}

/// The matrices of a product, of which each token is multiplied with some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixture {
    /// Who says with which; if nobody does, there are as many matrices as choices, and each takes its own.
    pub routes: Option<SlotId>,
    /// With how many.
    pub choices: usize,
    /// How many there are, one above the other.
    pub matrices: usize,
    /// Each choice has an input of its own, side by side.
    pub own_inputs: bool,
}

impl Mixture {
    /// That of an [`Op::Experts`](crate::program::Op::Experts): of its first product, which all others are like.
    pub fn of(program: &Program, input: SlotId, routes: Option<SlotId>, matrices: usize, products: &[Product]) -> Self {
        let width = |slot: SlotId| program.slots.get(slot.0).map_or(0, |slot: &Slot| slot.width);
        let columns = products.first().and_then(|product| program.weights.get(product.weight.0)).map(|w| w.columns);
        let inputs = width(input) / columns.unwrap_or(1).max(1);
        let choices = routes.map_or(matrices, |routes| width(routes) / 2);
        // One input of one choice is both, and either way does for it.
        Mixture { routes, choices: choices.max(1), matrices: matrices.max(1), own_inputs: inputs > 1 }
    }
}

/// Every shader of this family, without tiers.
pub(super) fn variants() -> Vec<Variant> {
    let gatings =
        [Gating::Softmax, Gating::Sigmoid, Gating::SoftmaxOfChosen, Gating::RootSoftplus, Gating::SigmoidOfChosen];
    let mut variants = vec![SortParams::default().kernel().variant];
    variants.extend([false, true].map(|add| MixParams::default().kernel(add, 1).variant));
    for gating in gatings {
        for bits in 0..16 {
            let [bias, groups, normalise, scales] = [0, 1, 2, 3].map(|bit| bits >> bit & 1 == 1);
            let [bias, scales] = [bias, scales].map(|has| has.then_some(crate::program::WeightId(0)));
            let groups = if groups { 2 } else { 1 };
            let routing = Routing { gating, bias, groups, used_groups: 1, used: 1, normalise, scale: 1.0, scales };
            variants.push(RouteParams::default().kernel(&routing, 1).variant);
        }
    }
    variants
}
