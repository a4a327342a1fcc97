//! What a file holds, in numbers and in words: what people tell models apart by.

use crate::Result;
use crate::gguf::{Gguf, TensorType};
use std::collections::BTreeMap;
use std::fmt;

/// The size of a model and the names of its kind. Shown, it is `llama 1.1B Q4_0`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// The family, as the file names it.
    pub architecture: String,
    /// How the weights are stored: the recipe that the file names, else the type that takes the most bytes.
    pub recipe: String,
    /// Numbers in all tensors together.
    pub parameters: u64,
    /// Their bytes in the file.
    pub weight_bytes: u64,
}

/// The facts about the model in a file, which need not be one that has a program.
pub fn facts(file: &Gguf) -> Result<Facts> {
    let architecture = file.metadata().str("general.architecture")?.unwrap_or("?").to_owned();
    let named = file.metadata().u32("general.file_type")?.and_then(recipe_name);
    let recipe = named.or_else(|| heaviest_type(file).map(TensorType::name)).unwrap_or("?").to_owned();
    let parameters = file.tensors().iter().map(|tensor| tensor.elements()).fold(0, u64::saturating_add);
    let weight_bytes = file.tensors().iter().map(|tensor| tensor.size_bytes()).fold(0, u64::saturating_add);
    Ok(Facts { architecture, recipe, parameters, weight_bytes })
}

/// The type that takes the most bytes.
fn heaviest_type(file: &Gguf) -> Option<TensorType> {
    let mut bytes = BTreeMap::<TensorType, u64>::new();
    for tensor in file.tensors() {
        let sum = bytes.entry(tensor.tensor_type()).or_default();
        *sum = sum.saturating_add(tensor.size_bytes());
    }
    bytes.into_iter().max_by_key(|&(_, bytes)| bytes).map(|(kind, _)| kind)
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.architecture, short_count(self.parameters), self.recipe)
    }
}

/// A count as people say it: 260K, 1.1B, 30.5B.
fn short_count(count: u64) -> String {
    let units = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")];
    let unit = units.into_iter().find(|(unit, _)| count as f64 >= *unit);
    let Some((unit, name)) = unit else { return count.to_string() };
    let tenths = format!("{:.1}", count as f64 / unit);
    format!("{}{name}", tenths.strip_suffix(".0").unwrap_or(&tenths))
}

/// The name of a recipe, from the number that files give it (`general.file_type`).
pub fn recipe_name(id: u32) -> Option<&'static str> {
    Some(match id {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4_MOE",
        39 => "NVFP4",
        40 => "Q1_0",
        41 => "Q2_0",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::short_count;

    #[test]
    fn counts_are_short() {
        let shown = [999, 1000, 292_800, 1_104_218_112, 8_000_000_000, 30_532_122_624].map(short_count);
        assert_eq!(shown, ["999", "1K", "292.8K", "1.1B", "8B", "30.5B"]);
    }
}
