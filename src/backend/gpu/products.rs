//! Products of matrices and activations: which shader serves which type and how many tokens, and its geometry.

use super::device::Gpu;
use super::layout::Layout;
use super::shader::Variant;
use super::tiers::Tier;
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
}

/// What happens to the results of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Epilogue {
    /// A vector is added.
    pub bias: bool,
    /// They are added to what is there.
    pub add: bool,
    /// Rows come in pairs, of which the first goes through this curve and is multiplied with the second.
    pub gate: Option<crate::program::Activation>,
}

/// Up to so many tokens every weight is decoded for all of them at once; beyond, tiles are made.
pub const FEW_TOKENS: u32 = 8;
/// Rows and tokens of a tile in `mat_mul.wgsl`.
const TILE: (u32, u32) = (64, 32);
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

/// Whether products with weights of this type take activations rounded to eight bits.
pub fn takes_integers(gpu: &Gpu, layout: &Layout) -> bool {
    gpu.has(Tier::Dot) && !layout.is_float()
}

impl ProductKernel {
    /// The kernel for a type of weights and up to `tokens` tokens; `integer` if it [`takes_integers`]. The shader does not
    /// know tiers yet: see [`Variant::for_gpu`].
    pub fn new(integer: bool, layout: &Layout, columns: usize, tokens: u32, epilogue: Epilogue) -> Self {
        let few = tokens <= FEW_TOKENS;
        // In floating point more tokens take more registers than there are.
        let most_at_once = if integer { 8 } else { 4 };
        let at_once = tokens.next_power_of_two().min(most_at_once);
        let rows = if at_once <= 2 { 8 } else { 4 };
        let gelu = epilogue.gate == Some(crate::program::Activation::Gelu);
        let file = if few { "mat_vec.wgsl" } else { "mat_mul.wgsl" };
        let variant = layout
            .configure(Variant::new(file, "uurrrrwrr"))
            .flag("INTEGER", integer)
            .flag("TAIL", !columns.is_multiple_of(32))
            .flag("BIAS", epilogue.bias)
            .flag("ADD", epilogue.add)
            .flag("GATE", epilogue.gate.is_some())
            .flag("GELU", gelu)
            .constant("ROWS", rows)
            .constant("TOKENS", at_once);
        match few {
            true => ProductKernel { variant, rows, tokens: at_once, few },
            false => ProductKernel { variant, rows: TILE.0, tokens: TILE.1, few },
        }
    }

    /// Workgroups for so many rows and tokens.
    pub fn groups(&self, rows: u32, tokens: u32) -> [u32; 3] {
        let (along_rows, along_tokens) = (rows.div_ceil(self.rows), tokens.div_ceil(self.tokens));
        let wide = along_rows.div_ceil(MOST_GROUPS).max(1);
        let row_groups = along_rows.div_ceil(wide);
        if self.few { [row_groups, wide, along_tokens] } else { [row_groups, along_tokens, wide] }
    }
}

/// Every shader of this family, without tiers: all types, and what can happen to results with one type of each kind.
pub(super) fn variants() -> Vec<Variant> {
    use crate::gguf::TensorType;
    use crate::program::Activation;
    let mut variants = vec![];
    for layout in super::layout::all() {
        for integer in [false, true] {
            for tokens in [1, 8, 64] {
                if !(integer && layout.is_float()) {
                    variants.push(ProductKernel::new(integer, layout, 256, tokens, Epilogue::default()).variant);
                }
            }
        }
    }
    let epilogues = [
        Epilogue { bias: true, ..Epilogue::default() },
        Epilogue { add: true, ..Epilogue::default() },
        Epilogue { gate: Some(Activation::Silu), ..Epilogue::default() },
        Epilogue { bias: true, add: false, gate: Some(Activation::Gelu) },
    ];
    let kinds = [TensorType::F32, TensorType::Q4_0, TensorType::IQ2_XS];
    for layout in super::layout::all().iter().filter(|layout| kinds.contains(&layout.kind())) {
        let integers: &[bool] = if layout.is_float() { &[false] } else { &[false, true] };
        for (&integer, epilogue) in integers.iter().flat_map(|integer| epilogues.iter().map(move |e| (integer, *e))) {
            for (columns, tokens) in [(256, 1), (256, 8), (256, 64), (331, 1)] {
                variants.push(ProductKernel::new(integer, layout, columns, tokens, epilogue).variant);
            }
        }
    }
    variants
}
