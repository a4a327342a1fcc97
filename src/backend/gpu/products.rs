//! Products of matrices and activations: which shader serves which type and how many tokens, and its geometry.

use super::device::Gpu;
use super::experts::{Mixture, most_tiles};
use super::layout::Layout;
use super::rows::curve;
use super::shader::Variant;
use super::tiers::Tier;
use crate::program::Activation;
use bytemuck::{Pod, Zeroable};

/// The static parameters of a product, as `shared/product.wgsl` has them.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
#[allow(missing_docs)] // said there
pub struct ProductParams {
    pub columns: u32,
    pub row_units: u32,
    pub rows: u32,
    pub first_row: u32,
    pub x_start: u32,
    pub x_stride: u32,
    pub out_start: u32,
    pub out_stride: u32,
    pub bias_start: u32,
    pub outputs: u32,
    pub choices: u32,
    pub choice_width: u32,
    pub own_inputs: u32,
    pub first_matrix: u32,
    pub matrices: u32,
    pub routes_start: u32,
    pub routes_stride: u32,
}

/// What happens to the results of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epilogue {
    /// A vector is added.
    pub bias: bool,
    /// They are added to what is there.
    pub add: bool,
    /// Rows come in pairs, of which the first goes through this curve and is multiplied with the second.
    pub gate: Option<Activation>,
    /// They are written in eight bits only: see [`ProductKernel::rounds`].
    pub quantize: bool,
}

/// Up to so many tokens every weight is decoded for all of them at once; beyond, tiles are made.
pub const FEW_TOKENS: u32 = 8;
/// The most workgroups in one dimension.
const MOST_GROUPS: u32 = 65_535;

/// A product's shader and how it is cut for up to so many tokens.
#[derive(Debug, Clone)]
pub struct ProductKernel {
    /// The shader.
    pub variant: Variant,
    /// Rows that a workgroup takes.
    rows: u32,
    /// Tokens that a workgroup takes.
    tokens: u32,
    few: bool,
}

/// Choices that a workgroup takes where there are many.
pub const CHOICES_TILE: u32 = 32;

/// Whether products with weights of this type take activations rounded to eight bits.
pub fn takes_integers(gpu: &Gpu, layout: &Layout) -> bool {
    gpu.has(Tier::Dot) && !layout.is_float()
}

/// Lanes of a workgroup whose teams together make whole units of results.
const ROUNDING_LANES: u32 = 256;

impl ProductKernel {
    /// The kernel for a type of weights and up to `tokens` tokens. `integer` if it [`takes_integers`]; `largest_subgroup`
    /// as [`Gpu::largest_subgroup`]. The shader does not know tiers yet: see [`Variant::for_gpu`].
    pub fn new(
        integer: bool,
        layout: &Layout,
        columns: usize,
        tokens: u32,
        epilogue: Epilogue,
        largest_subgroup: Option<u32>,
    ) -> Self {
        let few = tokens <= FEW_TOKENS;
        let file = if few { "mat_vec.wgsl" } else { "mat_mul.wgsl" };
        let variant = Self::configured(file, layout, columns, epilogue).flag("INTEGER", integer);
        if !few {
            let pairs = if integer { 4 } else { 2 };
            // One subtraction for all tokens of a tile makes the offsets of some types go away.
            let variant = match layout.center().filter(|_| integer) {
                Some(center) => variant.without("OFFSETS").flag("CENTERED", true).constant("CENTER", center),
                None => variant,
            };
            let variant = variant.constant("PAIRS", pairs).constant("TOKENS", 8);
            return ProductKernel { variant, rows: 32 * pairs, tokens: 32, few };
        }
        // In floating point more tokens take more registers than there are.
        let at_once = tokens.next_power_of_two().min(if integer { 8 } else { 4 });
        let largest = largest_subgroup.unwrap_or(1);
        let team_rows = match epilogue.quantize {
            true => (64 * largest / ROUNDING_LANES).max(8),
            false if integer || at_once <= 2 => 8,
            false => 4,
        };
        let lanes = if epilogue.quantize { ROUNDING_LANES } else { 64 };
        let variant = variant
            .flag("QUANTIZE", epilogue.quantize)
            .constant("THREADS", lanes)
            .constant("LANES", lanes)
            .constant("XQ", 6)
            .constant("XS", 9)
            .constant("ROWS", team_rows)
            .constant("TOKENS", at_once);
        let teams = largest_subgroup.map_or(1, |largest| (lanes / largest).max(1));
        ProductKernel { variant, rows: teams * team_rows, tokens: at_once, few }
    }

    /// The kernel for up to `tokens` tokens and some of many matrices for each: see [`experts`](super::experts). Its last
    /// bindings are routes, or choices in order where there are many tokens, and then the bias, if there is one. It does
    /// not round results that have a bias: nobody has as many bindings.
    pub fn of_experts(
        integer: bool,
        layout: &Layout,
        columns: usize,
        tokens: u32,
        epilogue: Epilogue,
        largest_subgroup: Option<u32>,
        mixture: &Mixture,
    ) -> Self {
        let few = tokens <= FEW_TOKENS;
        let tokens = if few { 1 } else { tokens };
        let kernel = Self::new(integer, layout, columns, tokens, epilogue, largest_subgroup);
        let bindings = match (epilogue.bias, epilogue.quantize) {
            (true, _) => "uurrrrwrrr",
            (false, true) => "uurrrrwrrw",
            (false, false) => "uurrrrwrr",
        };
        let variant = Variant { bindings, ..kernel.variant };
        let variant = variant.flag("EXPERTS", true).flag("TILES", !few).flag("ROUTED", mixture.routes.is_some());
        ProductKernel { variant, ..kernel }
    }

    /// The kernel for more than [`FEW_TOKENS`] by units that multiply matrices, with activations in `f32`; the device has
    /// [`Tier::Matrix`], and all its subgroups have so many lanes.
    pub fn by_matrices(layout: &Layout, columns: usize, epilogue: Epilogue, subgroup: u32) -> Self {
        let variant = Self::configured("mat_mul_matrix.wgsl", layout, columns, epilogue).constant("SUBGROUP", subgroup);
        ProductKernel { variant, rows: 64, tokens: 64, few: false }
    }

    fn configured(file: &'static str, layout: &Layout, columns: usize, epilogue: Epilogue) -> Variant {
        let variant = Variant::new(file, if epilogue.quantize { "uurrrrwrrw" } else { "uurrrrwrr" });
        let variant = match epilogue.gate {
            Some(activation) => curve(variant, activation),
            None => variant,
        };
        layout
            .configure(variant)
            .flag("TAIL", !columns.is_multiple_of(32))
            .flag("BIAS", epilogue.bias)
            .flag("ADD", epilogue.add)
            .flag("GATE", epilogue.gate.is_some())
    }

    /// Whether there is a kernel that rounds gated pairs for up to so many tokens: the subgroups of a workgroup have to
    /// make whole units of results together, with sums that fit registers.
    pub fn rounds(tokens: u32, largest_subgroup: Option<u32>) -> bool {
        tokens <= FEW_TOKENS && largest_subgroup.is_some_and(|largest| largest <= if tokens == 1 { 64 } else { 32 })
    }

    /// Workgroups for so many rows and tokens.
    pub fn groups(&self, rows: u32, tokens: u32) -> [u32; 3] {
        let (along_rows, along_tokens) = (rows.div_ceil(self.rows), tokens.div_ceil(self.tokens));
        let wide = along_rows.div_ceil(MOST_GROUPS).max(1);
        let row_groups = along_rows.div_ceil(wide);
        if self.few { [row_groups, wide, along_tokens] } else { [row_groups, along_tokens, wide] }
    }

    /// Workgroups of [`ProductKernel::of_experts`] for so many rows of a matrix and tokens.
    pub fn groups_of_experts(&self, rows: u32, tokens: u32, mixture: &Mixture) -> [u32; 3] {
        let (choices, matrices) = (mixture.choices as u32, mixture.matrices as u32);
        let [x, y, z] = self.groups(rows, tokens * choices);
        match (self.few, mixture.routes) {
            (true, _) => [x, y, z],
            (false, Some(_)) => [x, most_tiles(tokens * choices, matrices, self.tokens), z],
            (false, None) => [x, choices * tokens.div_ceil(self.tokens), z],
        }
    }
}

/// Every shader of this family, without tiers: all types, and what can happen to results with one type of each kind.
pub(super) fn variants() -> Vec<Variant> {
    use crate::gguf::TensorType;
    let mut variants = vec![];
    let mut add = |integer, layout, columns, tokens, epilogue| {
        variants.push(ProductKernel::new(integer, layout, columns, tokens, epilogue, Some(32)).variant);
    };
    for layout in super::layout::all() {
        for integer in [false, true] {
            for tokens in [1, 8, 64] {
                if !(integer && layout.is_float()) {
                    add(integer, layout, 256, tokens, Epilogue::default());
                }
            }
        }
    }
    let gate = |activation| Epilogue { gate: Some(activation), ..Epilogue::default() };
    let epilogues = [
        Epilogue { bias: true, ..Epilogue::default() },
        Epilogue { add: true, ..Epilogue::default() },
        gate(Activation::Silu),
        Epilogue { bias: true, ..gate(Activation::Gelu) },
        gate(Activation::SquaredRelu),
    ];
    let kinds = [TensorType::F32, TensorType::Q4_0, TensorType::IQ2_XS];
    for layout in super::layout::all().iter().filter(|layout| kinds.contains(&layout.kind())) {
        let integers: &[bool] = if layout.is_float() { &[false] } else { &[false, true] };
        for (&integer, epilogue) in integers.iter().flat_map(|integer| epilogues.iter().map(move |e| (integer, *e))) {
            for (columns, tokens) in [(256, 1), (256, 8), (256, 64), (331, 1), (331, 8), (331, 64)] {
                add(integer, layout, columns, tokens, epilogue);
                if integer && epilogue.gate.is_some() && tokens <= FEW_TOKENS {
                    add(integer, layout, columns, tokens, Epilogue { quantize: true, ..epilogue });
                }
            }
        }
    }
    variants.extend(variants_of_experts());
    for layout in super::layout::all() {
        variants.push(ProductKernel::by_matrices(layout, 256, Epilogue::default(), 32).variant);
    }
    for epilogue in epilogues {
        variants.extend(kinds.iter().filter_map(|&kind| {
            let layout = Layout::of(kind).ok()?;
            Some(ProductKernel::by_matrices(&layout, 331, epilogue, 32).variant)
        }));
    }
    variants
}

/// Those of experts: some types, and all that can happen to results.
fn variants_of_experts() -> Vec<Variant> {
    use crate::gguf::TensorType;
    let gate = |activation| Epilogue { gate: Some(activation), ..Epilogue::default() };
    let epilogues = [
        Epilogue::default(),
        Epilogue { bias: true, ..Epilogue::default() },
        gate(Activation::Silu),
        Epilogue { bias: true, ..gate(Activation::ClampedSilu) },
        Epilogue { quantize: true, ..gate(Activation::Silu) },
    ];
    let kinds = [TensorType::F32, TensorType::Q4_K, TensorType::MXFP4, TensorType::IQ2_XS];
    let mut variants = vec![];
    for layout in super::layout::all().iter().filter(|layout| kinds.contains(&layout.kind())) {
        for (integer, tokens) in [(false, 1), (false, 64), (true, 1), (true, 64)] {
            for routes in [None, Some(crate::program::SlotId(0))] {
                let mixture = Mixture { routes, choices: 2, matrices: 4, own_inputs: false };
                let can = |epilogue: &Epilogue| !epilogue.quantize || (integer && tokens <= FEW_TOKENS);
                if integer && layout.is_float() {
                    continue;
                }
                variants.extend(epilogues.into_iter().filter(can).map(|epilogue| {
                    ProductKernel::of_experts(integer, layout, 256, tokens, epilogue, Some(32), &mixture).variant
                }));
            }
        }
    }
    variants
}
