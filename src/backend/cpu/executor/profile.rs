//! Where the time of a batch goes on the CPU: step by step, with the bytes of weights that each reads.
//!
//! A step's matrices are one job, so they are told together: by the type of the first, with the rows of all.

use super::{Executor, Scratch};
use crate::Result;
use crate::backend::batch::{Batch, Positions};
use crate::backend::cpu::matrix::Matrix;
use crate::backend::cpu::memory::{self, PageMemory};
use crate::backend::profile::{ProductShape, Profile, Timing};
use crate::cache::Sequence;
use crate::program::{Op, Product, Rows, SlotId, WeightId};
use crate::quant::Format;
use std::collections::HashSet;
use std::time::Duration;

impl Executor {
    /// Runs a batch as [`Executor::run`] does, once, and says where the time went.
    pub fn profile(&self, batch: Batch, sequence: &mut Sequence, memory: &mut PageMemory) -> Result<Profile> {
        memory::run(batch, self.program(), sequence, memory, |sequence, memory| {
            let mut profile = Profile::default();
            self.run_steps(0, batch, Positions::next(sequence), memory, (true, &[]), Some(&mut profile))?;
            profile.sort();
            Ok(profile)
        })
    }

    /// What a step was that has been run, and took so long.
    pub(super) fn timing(
        &self,
        (op, matrices): (&Op, &[Matrix]),
        batch: Batch,
        scratch: &Scratch,
        took: Duration,
    ) -> Result<Timing> {
        let (mut weight_bytes, mut product) = (0, None);
        match op {
            Op::Embed { table, .. } | Op::AddRow { table, .. } => {
                weight_bytes = self.row_bytes(*table)? * batch.tokens.len() as u64;
            }
            Op::Linear { input, .. } => {
                weight_bytes = matrices.iter().map(|matrix| matrix.weight_bytes() as u64).sum();
                product = self.shape(matrices, *input, 1);
            }
            Op::Experts { input, routes, experts, products } => {
                let (read, used) = self.experts_read((*routes, *experts), products, scratch);
                weight_bytes = matrices.iter().map(|matrix| matrix.weight_bytes() as u64 * read).sum();
                product = self.shape(matrices, *input, used);
            }
            _ => {}
        }
        let flops = product.map_or(0, |product| product.flops(batch.tokens.len() as u32, batch.outputs.len() as u32));
        Ok(Timing { name: name_of(op), product, dispatches: 1, seconds: took.as_secs_f64(), weight_bytes, flops })
    }

    /// How many experts' matrices a step read, and with how many each token is multiplied.
    fn experts_read(
        &self,
        (routes, count): (Option<SlotId>, usize),
        products: &[Product],
        scratch: &Scratch,
    ) -> (u64, usize) {
        let Some(first) = products.first() else { return (0, 0) };
        let (experts, slots) = (self.weights.experts(count, routes, first), &scratch.slots);
        let parts = slots[first.out.0].len() / experts.rows.max(1);
        let chosen = experts.chosen(routes.map(|slot| &slots[slot.0][..]), parts);
        (chosen.into_iter().flatten().collect::<HashSet<_>>().len() as u64, experts.used)
    }

    fn shape(&self, matrices: &[Matrix], input: SlotId, used: usize) -> Option<ProductShape> {
        let rows = matrices.iter().map(|matrix| matrix.rows() * used).sum::<usize>() as u32;
        let of_outputs = self.program().slots[input.0].rows == Rows::Outputs;
        let first = matrices.first()?;
        Some(ProductShape { kind: first.kind(), rows, columns: first.columns() as u32, of_outputs })
    }

    fn row_bytes(&self, table: WeightId) -> Result<u64> {
        let weight = &self.program().weights[table.0];
        Ok(Format::of(weight.tensor_type)?.bytes_for(weight.columns)? as u64)
    }
}

/// What steps are told by.
fn name_of(op: &Op) -> &'static str {
    match op {
        Op::Embed { .. } | Op::AddRow { .. } => "embed",
        Op::Norm { .. } => "norm",
        Op::Linear { .. } => "linear",
        Op::Rotate { .. } => "rotate",
        Op::Store { .. } => "store",
        Op::Attend { .. } | Op::AttendTexts { .. } => "attend",
        Op::Gate { .. } | Op::Activate { .. } => "gate",
        Op::Route { .. } => "route",
        Op::Experts { .. } => "experts",
        Op::Mix { .. } => "mix",
        _ => "other",
    }
}
