//! The kernel that looks up rows of the embedding table, or adds rows of others.

use super::layout::Layout;
use super::shader::Variant;

/// The kernel for tables of a type, which writes rows or adds them to what is there.
///
/// Bindings: step, params, ids, quants, scales, table of the type, out; without scales or table where the type has none.
/// It takes a workgroup for each [`COLUMNS`] columns and, in the second dimension, each token.
pub fn variant(layout: &Layout, add: bool) -> Variant {
    let bindings = match (layout.is_float(), layout.table().is_some()) {
        (true, _) => "uurrw",
        (false, false) => "uurrrw",
        (false, true) => "uurrrrw",
    };
    layout.configure(Variant::new("embed.wgsl", bindings).flag("ADD", add))
}

/// Columns that a workgroup decodes.
pub const COLUMNS: u32 = 256;

/// Every shader of this family, without tiers.
pub(super) fn variants() -> Vec<Variant> {
    super::layout::all().iter().flat_map(|layout| [variant(layout, false), variant(layout, true)]).collect()
}
