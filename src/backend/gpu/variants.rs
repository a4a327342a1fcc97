//! Every shader that can be asked for: so that tests can prove that other compilers take them, too.

use super::shader::Variant;
use super::{attention, embed, experts, products, recurrent, rotate, rows, texts, trials};
use std::collections::HashSet;

/// All variants, in all combinations of tiers that make a difference to their text.
pub fn all() -> Vec<Variant> {
    let families = [
        rows::variants(),
        embed::variants(),
        products::variants(),
        attention::variants(),
        rotate::variants(),
        recurrent::variants(),
        experts::variants(),
        texts::variants(),
    ];
    let mut texts = HashSet::new();
    let mut all: Vec<Variant> = families.into_iter().flatten().flat_map(tiers).collect();
    all.extend(trials::variants());
    // What cannot be expanded stays, for whoever asks for its text to see why.
    all.retain(|variant| variant.text().map_or(true, |text| texts.insert(text)));
    all
}

/// A variant with each combination of the tiers' flags, in the order of [`Variant::for_gpu`]. Only subgroups can round the
/// results of products.
fn tiers(variant: Variant) -> impl Iterator<Item = Variant> {
    // Units for matrices come with the other tiers.
    let needed = if variant.file == "mat_mul_matrix.wgsl" { 3 } else { 0 };
    let needs_subgroups = variant.file == "mat_vec.wgsl" && variant.flags.contains(&"QUANTIZE");
    (0..8).filter(move |bits| (bits & 1 == 1 || !needs_subgroups) && bits & needed == needed).map(move |bits| {
        let has = |bit: u32| bits >> bit & 1 == 1;
        variant.clone().flag("SUBGROUPS", has(0)).flag("F16", has(1)).flag("DOT", has(2))
    })
}
