//! The dispatches of products: which kernel, and in which form activations come and go.

use super::draft::{Drafting, Drafts, missing};
use super::layout::Layout;
use super::memory::{EVEN_ROWS, Matrix, Part};
use super::plan::Stack;
use super::products::{Epilogue, FEW_TOKENS, ProductKernel, ProductParams, takes_integers};
use super::profile::ProductShape;
use super::record::{Draft, Size};
use super::rows::QuantizeParams;
use super::tiers::Tier;
use crate::Result;
use crate::program::{Program, SlotId};

/// Integers and scales.
type Rounded<'a> = &'a (wgpu::Buffer, wgpu::Buffer);

/// A product: its matrix, and what comes in and goes out in eight bits.
pub(super) struct Product<'a> {
    pub stack: &'a Stack,
    pub matrix: &'a Matrix,
    pub bias: Option<&'a wgpu::Buffer>,
    pub input: Option<Rounded<'a>>,
    pub result: Option<Rounded<'a>>,
}

/// Whether some of a stack's matrices take activations rounded to eight bits, on a device that multiplies such.
pub fn takes_integers_as(integers: bool, program: &Program, stack: &Stack) -> bool {
    let kinds = stack.products.iter().map(|product| program.weights[product.weight.0].tensor_type);
    integers && kinds.map(Layout::of).any(|layout| layout.is_ok_and(|layout| !layout.is_float()))
}

impl Drafting<'_> {
    /// The dispatches of a product, one for each part of its matrix.
    pub(super) fn product(&self, index: usize, stack: &Stack, drafts: &mut Drafts) -> Result<()> {
        let matrix = self.store.stack(self.program, stack).ok_or_else(missing)?;
        let input = self.slots.rounded(stack.input).filter(|_| self.takes_integers(stack, &matrix.layout));
        if let Some((integers, scales)) = input
            && drafts.rounded.insert(stack.input)
        {
            let (outputs, width) = (self.outputs(stack.input), self.width(stack.input));
            let params = QuantizeParams { outputs, width, values: self.view(stack.input) };
            let buffers = [self.slots.buffer(stack.input), integers, scales];
            drafts.list.push(self.rows(params.kernel(1), params, &buffers, stack.input));
        }
        let bias = self.store.bias(self.program, stack);
        let rounds = input.is_some() && self.rounds(stack, matrix, bias.is_some());
        let result = self.only_rounded(index, stack.out).filter(|_| rounds);
        let product = Product { stack, matrix, bias, input, result };
        match &stack.mixture {
            None => matrix.parts.iter().for_each(|part| self.part(&product, part, &mut drafts.list)),
            Some(mixture) => {
                self.sort(mixture, drafts);
                for part in &matrix.parts {
                    self.part_of_experts(&product, mixture, part, &mut drafts.list)?;
                }
            }
        }
        let others = stack.products.iter().map(|product| product.out).filter(|out| *out != stack.out);
        others.for_each(|out| drafts.wrote(out, false));
        drafts.wrote(stack.out, result.is_some());
        Ok(())
    }

    /// Whether a kernel can round results that are gated pairs.
    fn rounds(&self, stack: &Stack, matrix: &Matrix, has_bias: bool) -> bool {
        let is_even = || matrix.parts.iter().all(|part| (part.first_row as usize).is_multiple_of(EVEN_ROWS));
        let (tokens, is_whole) = match stack.mixture {
            None => (self.tokens, is_even()),
            // Each choice is taken by itself, and has to be whole units; there is no binding for a bias then.
            Some(mixture) => {
                let units = (self.width(stack.out) as usize).is_multiple_of(32 * mixture.choices);
                (if self.tokens <= FEW_TOKENS { 1 } else { self.tokens }, units && !has_bias)
            }
        };
        stack.gate.is_some() && ProductKernel::rounds(tokens, self.gpu.largest_subgroup()) && is_whole
    }

    /// What any product binds first: weights, activations, results, tables.
    pub(super) fn product_buffers<'a>(&'a self, product: &Product<'a>, part: &'a Part) -> Vec<&'a wgpu::Buffer> {
        let Product { stack, matrix, input, result, .. } = product;
        let nothing = &self.store.nothing;
        let activations =
            input.map_or([self.slots.buffer(stack.input), nothing], |(integers, scales)| [integers, scales]);
        vec![
            &part.quants,
            &part.scales,
            activations[0],
            activations[1],
            result.map_or(self.slots.buffer(stack.out), |(integers, _)| integers),
            matrix.tables.as_ref().unwrap_or(nothing),
        ]
    }

    /// The dispatches of one part.
    fn part(&self, product: &Product, part: &Part, list: &mut Vec<Draft>) {
        let Product { stack, matrix, bias, result, .. } = product;
        let (x, out) = (self.slots.view(stack.input), self.slots.view(stack.out));
        let outputs = self.outputs(stack.input);
        let params = ProductParams {
            columns: matrix.columns as u32,
            row_units: matrix.row_units(),
            rows: part.rows,
            first_row: part.first_row,
            x_start: x.start,
            x_stride: x.stride,
            out_start: out.start,
            out_stride: if result.is_some() { self.width(stack.out).div_ceil(32) } else { out.stride },
            outputs,
            ..ProductParams::default()
        };
        let mut buffers = self.product_buffers(product, part);
        buffers.push(bias.unwrap_or(&self.store.nothing));
        buffers.extend(result.map(|(_, scales)| scales));
        let is_output = outputs == 1;
        let (kind, rows, columns) = (matrix.layout.kind(), part.rows, matrix.columns as u32);
        let shape = Some(ProductShape { kind, rows, columns, of_outputs: is_output });
        let weight_bytes = u64::from(rows) * matrix.row_bytes();
        // A long batch mostly has one output, which needs no tiles: so there is a kernel for each number of them.
        let few = [1, FEW_TOKENS].into_iter().filter(|&few| is_output && few < self.tokens);
        let mut fewer = 0;
        for most in few.chain([self.tokens]) {
            let kernel = self.kernel(product, most);
            let variant = kernel.variant.clone().for_gpu(self.gpu);
            let groups = move |size: Size| {
                let count = if is_output { size.outputs } else { size.tokens };
                if (fewer + 1..=most).contains(&count) { kernel.groups(rows, count) } else { [0; 3] }
            };
            list.push(Draft { weight_bytes, product: shape, ..Draft::new(variant, params, &buffers, groups) });
            fewer = most;
        }
    }

    /// The kernel for up to so many tokens or outputs.
    pub(super) fn kernel(&self, product: &Product, most: u32) -> ProductKernel {
        let Product { stack, matrix, bias, input, result } = product;
        let epilogue = Epilogue { bias: bias.is_some(), add: stack.add, gate: stack.gate, quantize: result.is_some() };
        let (layout, columns, largest) = (&matrix.layout, matrix.columns, self.gpu.largest_subgroup());
        if let Some(mixture) = &stack.mixture {
            return ProductKernel::of_experts(input.is_some(), layout, columns, most, epilogue, largest, mixture);
        }
        match self.matrix_units(stack) {
            Some(subgroup) => ProductKernel::by_matrices(layout, columns, epilogue, subgroup),
            None => ProductKernel::new(input.is_some(), layout, columns, most, epilogue, largest),
        }
    }

    /// The size of subgroups, if a product is computed by units for matrices: where there are many tokens, and all of
    /// them are wanted. There is no such kernel for experts yet.
    fn matrix_units(&self, stack: &Stack) -> Option<u32> {
        let is_long = self.tokens > FEW_TOKENS && self.outputs(stack.input) == 0 && stack.mixture.is_none();
        self.gpu.largest_subgroup().filter(|_| is_long && self.gpu.has(Tier::Matrix))
    }

    fn takes_integers(&self, stack: &Stack, layout: &Layout) -> bool {
        takes_integers(self.gpu, layout) && self.matrix_units(stack).is_none()
    }

    /// What the slot that a node writes is rounded to, if all that follows takes it so.
    pub(super) fn only_rounded(&self, node: usize, slot: SlotId) -> Option<Rounded<'_>> {
        let takes = |stack: &Stack| {
            let matrix = self.store.stack(self.program, stack);
            matrix.is_some_and(|matrix| self.takes_integers(stack, &matrix.layout))
        };
        let products = self.plan.products_of(node, slot).filter(|_| self.program.output != Some(slot))?;
        self.slots.rounded(slot).filter(|_| products.into_iter().all(takes))
    }
}
