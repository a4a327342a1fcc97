//! Which kernels serve which type of weights.

use super::formats::{FloatScaled, Format, IntScaled, large, small};
use super::kernels::{Float, Int, Panels, Rows, Tiles, Tokens};
use super::{Isa, LANES, Level, Task, on};
use crate::backend::cpu::activations::{Activations, Forms};
use crate::gguf::TensorType;
use std::marker::PhantomData;

/// The kernels of one format, with the format's type forgotten.
pub(crate) trait Kernel: Sync {
    /// The form of activations that it takes.
    fn forms(&self) -> Forms;
    /// Columns of a unit.
    fn unit_columns(&self) -> usize;
    /// Bytes of a unit in the plane of quants and in that of scales.
    fn unit_bytes(&self) -> (usize, usize);
    /// Packs a panel: eight rows of blocks.
    fn pack(&self, level: Level, rows: [&[u8]; LANES], quants: &mut [u8], scales: &mut [u8]);
    /// One, two or four tokens from `token` on: `out` is `[tokens, panels * 8]`.
    fn rows(&self, level: Level, panels: Panels<'_>, x: &Activations, token: usize, tokens: usize, out: &mut [f32]);
    /// All tokens, filled up to a multiple of four: `out` is `[tokens, panels * 8]`.
    fn tiles(&self, level: Level, panels: Panels<'_>, x: &Activations, out: &mut [f32]);
}

/// Packs a panel. There is nothing in it but moving bytes, but vectors move more of them.
struct Pack<'a, F> {
    rows: [&'a [u8]; LANES],
    quants: &'a mut [u8],
    scales: &'a mut [u8],
    format: PhantomData<F>,
}

impl<F: Format> Task for Pack<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        let units = self.quants.chunks_exact_mut(F::QUANTS).zip(self.scales.chunks_exact_mut(F::SCALES));
        for (index, (quants, scales)) in units.enumerate() {
            F::pack(
                self.rows.map(|row| row.get(index * F::BLOCK..(index + 1) * F::BLOCK).unwrap_or_default()),
                quants,
                scales,
            );
        }
    }
}

macro_rules! kernel {
    ($name:ident, $family:ident, $form:ident) => {
        impl<F: $family> Kernel for $name<F> {
            fn forms(&self) -> Forms {
                Forms { $form: true, ..Forms::default() }
            }

            fn unit_columns(&self) -> usize {
                F::COLUMNS
            }

            fn unit_bytes(&self) -> (usize, usize) {
                (F::QUANTS, F::SCALES)
            }

            fn pack(&self, level: Level, rows: [&[u8]; LANES], quants: &mut [u8], scales: &mut [u8]) {
                on(level, Pack { rows, quants, scales, format: PhantomData::<F> });
            }

            fn rows(
                &self,
                level: Level,
                panels: Panels<'_>,
                x: &Activations,
                token: usize,
                tokens: usize,
                out: &mut [f32],
            ) {
                let x = Tokens { blocks: x.$form(), stride: x.stride() };
                match tokens {
                    1 => on(level, Rows::<Self, 1> { panels, x, token, out }),
                    2 => on(level, Rows::<Self, 2> { panels, x, token, out }),
                    _ => on(level, Rows::<Self, 4> { panels, x, token, out }),
                }
            }

            fn tiles(&self, level: Level, panels: Panels<'_>, x: &Activations, out: &mut [f32]) {
                let x = Tokens { blocks: x.$form(), stride: x.stride() };
                on(level, Tiles::<Self> { panels, x, out });
            }
        }
    };
}

kernel!(Float, FloatScaled, fine);
kernel!(Int, IntScaled, wide);

/// The kernels of a type; `None` for plain numbers and for the rare types, which are decoded instead.
pub(crate) fn kernel_of(kind: TensorType) -> Option<&'static dyn Kernel> {
    Some(match kind {
        TensorType::Q4_0 => &Float::<small::Q4_0>(PhantomData),
        TensorType::Q4_1 => &Float::<small::Q4_1>(PhantomData),
        TensorType::Q5_0 => &Float::<small::Q5_0>(PhantomData),
        TensorType::Q5_1 => &Float::<small::Q5_1>(PhantomData),
        TensorType::Q8_0 => &Float::<small::Q8_0>(PhantomData),
        TensorType::IQ4_NL => &Float::<small::IQ4_NL>(PhantomData),
        TensorType::MXFP4 => &Float::<small::MXFP4>(PhantomData),
        TensorType::Q2_K => &Int::<large::Q2_K>(PhantomData),
        TensorType::Q3_K => &Int::<large::Q3_K>(PhantomData),
        TensorType::Q4_K => &Int::<large::Q4_K>(PhantomData),
        TensorType::Q5_K => &Int::<large::Q5_K>(PhantomData),
        TensorType::Q6_K => &Int::<large::Q6_K>(PhantomData),
        TensorType::IQ4_XS => &Int::<large::IQ4_XS>(PhantomData),
        _ => return None,
    })
}
