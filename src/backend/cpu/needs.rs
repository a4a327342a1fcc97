//! What some segments of a program take in the machine's memory, known before anything is loaded.
//!
//! Packed matrices are counted as they are packed, others and the rows of embedding tables as they lie in the file, whose
//! pages are in memory once they were read. Left out is what does not grow with the model.

use super::activations::{Forms, bytes_of};
use super::matrix::{Matrix, MatrixOptions};
use crate::Result;
use crate::backend::needs::Needs;
use crate::cache::{Cache, CacheFormat, PAGE_POSITIONS};
use crate::program::{Op, Program, Rows, Segment, Step};
use crate::quant::Format;
use std::collections::HashMap;

/// What some segments of a program need, run with as many tokens at a time as the cache allows.
///
/// # Errors
/// If a type holds no weights.
pub fn needs(
    program: &Program,
    segments: &[Segment],
    cache: &Cache,
    format: CacheFormat,
    options: MatrixOptions,
) -> Result<Needs> {
    let steps = || segments.iter().flat_map(|segment| program.steps.get(segment.steps.clone()).unwrap_or_default());
    let tokens = cache.limits().chunk_tokens as usize;
    Ok(Needs {
        weight_bytes: weights(program, steps(), options)?,
        cache_bytes: pages(program, segments, cache, format),
        scratch_bytes: slots(program, tokens) + activations(program, steps(), tokens, options),
    })
}

fn weights<'a>(program: &Program, steps: impl Iterator<Item = &'a Step>, options: MatrixOptions) -> Result<u64> {
    let mut matrices = HashMap::new();
    for Step { op, .. } in steps {
        match op {
            Op::Embed { table, .. } | Op::AddRow { table, .. } => {
                let weight = &program.weights[table.0];
                let row_bytes = Format::of(weight.tensor_type)?.bytes_for(weight.columns)?;
                matrices.insert((*table, 0, false), (row_bytes * weight.rows) as u64);
            }
            Op::Linear { products, .. } | Op::Experts { products, .. } => {
                for product in products {
                    let (weight, rows) = (&program.weights[product.weight.0], program.slots[product.out.0].width);
                    let (members, parts) = program.members(op);
                    let bytes = Matrix::bytes_for(weight.tensor_type, rows / parts, weight.columns, options)?;
                    matrices.insert((product.weight, product.first_row, true), bytes * members as u64);
                }
            }
            _ => {}
        }
    }
    let vectors = program.weights.iter().filter(|weight| weight.rows == 1).map(|weight| weight.columns as u64 * 4);
    Ok(matrices.into_values().chain(vectors).sum())
}

fn pages(program: &Program, segments: &[Segment], cache: &Cache, format: CacheFormat) -> u64 {
    let own = program.cached_layers(segments);
    let layers = cache.groups().iter().zip(cache.stats()).flat_map(|(group, stats)| {
        let positions = u64::from(stats.capacity_pages) * u64::from(PAGE_POSITIONS);
        group.layers.iter().map(move |layer| (layer, positions))
    });
    let kept = layers.filter(|(layer, _)| own.contains(&layer.layer));
    let pages: u64 = kept.map(|(layer, positions)| layer.position_bytes(format) * positions).sum();
    let slots = u64::from(cache.state_stats().capacity_pages);
    let states = cache.states().iter().filter(|state| own.contains(&state.layer));
    pages + states.map(|state| state.bytes() * slots).sum::<u64>()
}

/// Slots keep their memory; of those with a row for each output, one row is what a session asks for.
fn slots(program: &Program, tokens: usize) -> u64 {
    let numbers = |rows| if rows == Rows::Tokens { tokens } else { 1 };
    program.slots.iter().map(|slot| (slot.width * numbers(slot.rows) * 4) as u64).sum()
}

/// The input of one linear step at a time, as its matrices want it.
fn activations<'a>(
    program: &Program,
    steps: impl Iterator<Item = &'a Step>,
    tokens: usize,
    options: MatrixOptions,
) -> u64 {
    let mut most = [0; 2];
    for Step { op, .. } in steps {
        if let Op::Linear { input, products } | Op::Experts { input, products, .. } = op {
            let (slot, kinds) = (&program.slots[input.0], products.iter().map(|product| product.weight));
            let forms = kinds.map(|id| Matrix::forms_for(program.weights[id.0].tensor_type, options));
            let rows = if slot.rows == Rows::Tokens { tokens } else { 1 };
            let bytes = bytes_of(forms.fold(Forms::default(), |all, forms| all | forms), rows, slot.width);
            most.iter_mut().zip(bytes).for_each(|(most, bytes)| *most = bytes.max(*most));
        }
    }
    most.iter().sum()
}
