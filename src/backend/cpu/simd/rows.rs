//! Everything that is neither a product nor attention: norms, rotations, gates and sums, row by row.
//!
//! The loops are plain Rust, simple enough for the compiler to turn them into the instructions of the unit that it
//! compiles for. What they compute is specified in [`ops`](crate::backend::cpu::ops); they add up in
//! another order and take exponentials from a polynomial, which is right to two units in the last place.

use super::{Isa, LANES, Task};
use crate::program::{Activation, NormKind, RopeStyle};

/// `e` to the power of `x`, as `(1 + p) * scale`; zero, nearly, below -87, and very large above 88.
#[inline(always)]
fn exp_parts(x: f32) -> (f32, f32) {
    // x = n ln 2 + r, with n whole and r at most half of ln 2; then 2^n comes from the exponent's bits, and e^r from its
    // series, whose first term that is left out is below 2^-25.
    const SHIFTER: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves n in the lowest bits
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const SERIES: [f32; 6] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0];
    // Comparisons this way round let what is not a number pass.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + SHIFTER;
    let n = shifted - SHIFTER;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let series = SERIES.iter().fold(1.0 / 5040.0, |sum, term| sum * r + term);
    (series * r, f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23)))
}

/// `e` to the power of `x`, within these limits.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let (p, scale) = exp_parts(x);
    (1.0 + p) * scale
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    // From e^2x - 1, which keeps its digits near zero; beyond 20 nothing changes any more.
    let x = if x > 20.0 { 20.0 } else { x };
    let (p, scale) = exp_parts(2.0 * x);
    let less_one = p * scale + (scale - 1.0);
    less_one / (less_one + 2.0)
}

/// Squeezes between plus and minus `cap`.
#[inline(always)]
pub(crate) fn softcap(x: f32, cap: f32) -> f32 {
    cap * tanh(x / cap)
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Where [`Activation::ClampedSilu`] ends.
const CLAMP: f32 = 7.0;

#[inline(always)]
fn clamped_silu(gate: f32, up: f32) -> f32 {
    let gate = if gate > CLAMP { CLAMP } else { gate };
    gate / (1.0 + exp(-1.702 * gate)) * (up.clamp(-CLAMP, CLAMP) + 1.0)
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    const ROOT_2_OVER_PI: f32 = 0.797_884_6;
    0.5 * x * (1.0 + tanh(ROOT_2_OVER_PI * x * (1.0 + 0.044_715 * x * x)))
}

#[inline(always)]
fn squared_relu(x: f32) -> f32 {
    let x = if x < 0.0 { 0.0 } else { x };
    x * x
}

/// The sum of what `term` makes of each value.
#[inline(always)]
fn total(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    // Enough sums side by side that no addition waits for the one before.
    const SIDES: usize = 4 * LANES;
    let (chunks, rest) = values.as_chunks::<SIDES>();
    let mut sums = [0.0; SIDES];
    for chunk in chunks {
        for lane in 0..SIDES {
            sums[lane] += term(chunk[lane]);
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum += term(value);
    }
    sums.iter().sum()
}

/// Normalises rows.
pub(crate) struct Norm<'a> {
    pub kind: NormKind,
    pub rows: &'a mut [f32], // [rows, width]
    pub width: usize,
    pub group: usize,
    pub epsilon: f32,
    pub weight: Option<&'a [f32]>, // [group] or [width]
    pub bias: Option<&'a [f32]>,   // as weight
}

impl Norm<'_> {
    #[inline(always)]
    fn group(&self, values: &mut [f32]) {
        let count = values.len() as f32;
        if self.kind == NormKind::Layer {
            let mean = total(values, |x| x) / count;
            values.iter_mut().for_each(|value| *value -= mean);
        }
        let squares = total(values, |x| x * x);
        let scale = match self.kind {
            NormKind::Rms | NormKind::Layer => 1.0 / (squares / count + self.epsilon).sqrt(),
            NormKind::L2 => 1.0 / squares.sqrt().max(self.epsilon),
        };
        values.iter_mut().for_each(|value| *value *= scale);
    }
}

impl Task for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(mut self, _: S) {
        let rows = std::mem::take(&mut self.rows);
        for row in rows.chunks_mut(self.width) {
            row.chunks_mut(self.group).for_each(|values| self.group(values));
            if let Some(weight) = self.weight {
                for values in row.chunks_mut(weight.len()) {
                    values.iter_mut().zip(weight).for_each(|(value, weight)| *value *= weight);
                }
            }
            if let Some(bias) = self.bias {
                for values in row.chunks_mut(bias.len()) {
                    values.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
                }
            }
        }
    }
}

/// Cosines and sines of the angles of one position, times the rope's magnitude.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn<'a> {
    pub cos: &'a [f32], // [pairs]
    pub sin: &'a [f32], // [pairs]
}

/// Turns the pairs of each head of a row.
pub(crate) struct Rotate<'a> {
    pub row: &'a mut [f32], // [heads, head_size]
    pub head_size: usize,
    pub style: RopeStyle,
    pub turn: Turn<'a>,
}

impl Task for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        let Turn { cos, sin } = self.turn;
        let pairs = cos.len().min(sin.len());
        for head in self.row.chunks_mut(self.head_size) {
            match self.style {
                RopeStyle::Adjacent => {
                    for ([x, y], (cos, sin)) in head.as_chunks_mut().0.iter_mut().zip(cos.iter().zip(sin)) {
                        (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
                    }
                }
                RopeStyle::Halves => {
                    let Some((first, second)) = head.split_at_mut_checked(pairs) else { continue };
                    for ((x, y), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
                        (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
                    }
                }
            }
        }
    }
}

/// `gate` becomes its curve, times `up`.
pub(crate) struct Gate<'a> {
    pub activation: Activation,
    pub gate: &'a mut [f32],
    pub up: &'a [f32],
}

impl Task for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        let both = self.gate.iter_mut().zip(self.up);
        match self.activation {
            Activation::Silu => both.for_each(|(gate, up)| *gate = silu(*gate) * up),
            Activation::Identity => both.for_each(|(gate, up)| *gate *= up),
            Activation::Gelu => both.for_each(|(gate, up)| *gate = gelu(*gate) * up),
            Activation::ClampedSilu => both.for_each(|(gate, up)| *gate = clamped_silu(*gate, *up)),
            Activation::Sigmoid => both.for_each(|(gate, up)| *gate = sigmoid(*gate) * up),
            Activation::SquaredRelu => both.for_each(|(gate, up)| *gate = squared_relu(*gate) * up),
            Activation::Tanh => both.for_each(|(gate, up)| *gate = tanh(*gate) * up),
        }
    }
}

/// Each value becomes its curve.
pub(crate) struct Activate<'a> {
    pub activation: Activation,
    pub values: &'a mut [f32],
}

impl Task for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        let values = self.values.iter_mut();
        match self.activation {
            Activation::Silu => values.for_each(|x| *x = silu(*x)),
            Activation::Identity => {}
            Activation::Gelu => values.for_each(|x| *x = gelu(*x)),
            Activation::SquaredRelu => values.for_each(|x| *x = squared_relu(*x)),
            Activation::ClampedSilu => values.for_each(|x| *x = clamped_silu(*x, 0.0)),
            Activation::Sigmoid => values.for_each(|x| *x = sigmoid(*x)),
            Activation::Tanh => values.for_each(|x| *x = tanh(*x)),
        }
    }
}

/// Adds `from` to `to`.
pub(crate) struct Add<'a> {
    pub to: &'a mut [f32],
    pub from: &'a [f32],
}

impl Task for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        self.to.iter_mut().zip(self.from).for_each(|(to, from)| *to += from);
    }
}

/// Squeezes each value between plus and minus `cap`.
pub(crate) struct Softcap<'a> {
    pub values: &'a mut [f32],
    pub cap: f32,
}

impl Task for Softcap<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, _: S) {
        self.values.iter_mut().for_each(|value| *value = softcap(*value, self.cap));
    }
}

#[cfg(test)]
mod tests {
    use super::super::scalar::Scalar;
    use super::*;
    use crate::backend::cpu::ops;

    #[test]
    fn exponentials_are_right_to_the_last_places() {
        let mut x = -87.0f32;
        while x < 88.0 {
            for x in [x, -x.abs() * 1e-6] {
                let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
                assert!((found / expected - 1.0).abs() < 2.5e-7, "e^{x}: {found} is not {expected}");
            }
            x += 0.0173;
        }
        assert!(exp(-100.0) < 1e-37 && exp(f32::NEG_INFINITY) < 1e-37 && exp(1e9) > 1e38 && exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn curves_follow_their_specification() {
        for x in (-2000..2000).map(|i| i as f32 * 0.01) {
            let curves = [Activation::Silu, Activation::Gelu, Activation::SquaredRelu, Activation::ClampedSilu];
            for activation in curves.into_iter().chain([Activation::Tanh]) {
                let expected = ops::activate(activation, x);
                let (mut value, mut gate) = ([x], [x]);
                Activate { activation, values: &mut value }.run(Scalar);
                Gate { activation, gate: &mut gate, up: &[-2.0] }.run(Scalar);
                for (found, expected) in [(value[0], expected), (gate[0], ops::gate(activation, x, -2.0))] {
                    assert!(
                        (found - expected).abs() <= 2e-6 * (1.0 + x.abs()),
                        "{activation:?} of {x}: {found}, {expected}"
                    );
                }
            }
            for x in [x, x * 1e-4] {
                let (found, expected) = (softcap(x, 5.0), ops::softcap(x, 5.0));
                assert!((found - expected).abs() <= 5e-7 * expected.abs(), "softcap of {x}: {found}, {expected}");
            }
        }
    }
}
