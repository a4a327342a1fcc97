//! Where the time of a step goes, and how many bytes of weights it reads.
//!
//! Of experts those count that are chosen. What is not counted is small: norms, biases, and on GPUs rows of embeddings.

use crate::gguf::TensorType;
use std::fmt;

/// A product with a matrix of weights, or with a part of one that is larger than a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProductShape {
    /// How the weights are stored.
    pub kind: TensorType,
    /// Rows of the matrix, or of the part.
    pub rows: u32,
    /// Columns of the matrix.
    pub columns: u32,
    /// Whether only those tokens are multiplied whose logits are asked for.
    pub of_outputs: bool,
}

impl ProductShape {
    /// The multiplications and additions of a step with so many tokens, and outputs among them.
    pub(super) fn flops(&self, tokens: u32, outputs: u32) -> u64 {
        let count = if self.of_outputs { outputs } else { tokens };
        2 * u64::from(self.rows) * u64::from(self.columns) * u64::from(count)
    }
}

impl fmt::Display for ProductShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outputs = if self.of_outputs { ", outputs" } else { "" };
        write!(f, "{} {} x {}{outputs}", self.kind, self.rows, self.columns)
    }
}

/// What kernels of one shader, or steps of one kind on the CPU, took in a step: of one shape where they are products.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// The shader, or the kind.
    pub name: &'static str,
    /// What it multiplies with.
    pub product: Option<ProductShape>,
    /// How often it ran.
    pub dispatches: usize,
    /// How long, in all.
    pub seconds: f64,
    /// Bytes of weights that it read. Of experts that a GPU chooses for several tokens, the most that it may be.
    pub weight_bytes: u64,
    /// Multiplications and additions of products.
    pub flops: u64,
}

impl Timing {
    /// Gigabytes of weights a second, where there are weights.
    pub fn gb_per_s(&self) -> Option<f64> {
        self.a_second(self.weight_bytes)
    }

    /// Thousand millions of multiplications and additions a second, where there are products.
    pub fn gflop_per_s(&self) -> Option<f64> {
        self.a_second(self.flops)
    }

    fn a_second(&self, count: u64) -> Option<f64> {
        (count > 0 && self.seconds > 0.0).then(|| count as f64 / self.seconds / 1e9)
    }
}

/// The times of a step, longest first. Shown, it is a table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Profile {
    /// By shader and shape.
    pub timings: Vec<Timing>,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        let shape = |timing: &Timing| timing.product.map_or("-".into(), |product| product.to_string());
        let width = self.timings.iter().map(|timing| shape(timing).len()).max().unwrap_or(0).max(7);
        writeln!(
            f,
            "| kernel            | {:width$} | dispatches |         µs |  share | weights MB |   GB/s |  GFLOP/s |\n\
             | ----------------- | {:-<width$} | ---------: | ---------: | -----: | ---------: | -----: | -------: |",
            "weights", ""
        )?;
        for timing in self.timings.iter().chain([&total]) {
            let (micros, share) = (timing.seconds * 1e6, timing.seconds / total.seconds.max(1e-12) * 100.0);
            let speed = |speed: Option<f64>| speed.map_or("-".into(), |speed| format!("{speed:.1}"));
            writeln!(
                f,
                "| {:17} | {:width$} | {:10} | {micros:10.1} | {share:5.1}% | {:10.2} | {:>6} | {:>8} |",
                timing.name,
                shape(timing),
                timing.dispatches,
                timing.weight_bytes as f64 / 1e6,
                speed(timing.gb_per_s()),
                speed(timing.gflop_per_s()),
            )?;
        }
        Ok(())
    }
}

impl Profile {
    /// All kernels together.
    pub fn total(&self) -> Timing {
        let mut total = Timing { name: "all", product: None, dispatches: 0, seconds: 0.0, weight_bytes: 0, flops: 0 };
        self.timings.iter().for_each(|timing| total.add(timing));
        total
    }

    /// Brings what took longest to the front.
    pub(super) fn sort(&mut self) {
        self.timings.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    }

    /// Adds what a kernel took to what others took that are alike.
    pub(super) fn add(&mut self, timing: Timing) {
        let is_alike = |known: &&mut Timing| known.name == timing.name && known.product == timing.product;
        match self.timings.iter_mut().find(is_alike) {
            Some(known) => known.add(&timing),
            None => self.timings.push(timing),
        }
    }
}

impl Timing {
    /// Adds another's.
    fn add(&mut self, other: &Timing) {
        self.dispatches += other.dispatches;
        self.seconds += other.seconds;
        self.weight_bytes += other.weight_bytes;
        self.flops += other.flops;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_are_alike_are_added_up() {
        let product = |rows| ProductShape { kind: TensorType::Q4_0, rows, columns: 64, of_outputs: rows == 9 };
        assert_eq!([8, 9].map(|rows| product(rows).flops(5, 1)), [2 * 8 * 64 * 5, 2 * 9 * 64]);
        let timing = |product: Option<ProductShape>, seconds| Timing {
            name: "a.wgsl",
            product,
            dispatches: 1,
            seconds,
            weight_bytes: product.map_or(0, |product| u64::from(product.rows)),
            flops: product.map_or(0, |product| product.flops(5, 1)),
        };
        let mut profile = Profile::default();
        for (product, seconds) in [(Some(product(8)), 1e-6), (Some(product(9)), 2e-6), (None, 3e-6), (None, 4e-6)] {
            profile.add(timing(product, seconds));
        }
        let found: Vec<_> = profile.timings.iter().map(|timing| (timing.dispatches, timing.weight_bytes)).collect();
        assert_eq!(found, [(1, 8), (1, 9), (2, 0)]);
        let total = profile.total();
        assert!((total.dispatches, total.flops) == (4, 5120 + 1152) && (total.seconds - 1e-5).abs() < 1e-12);
        let table = profile.to_string();
        let width = table.lines().next().unwrap().chars().count();
        assert!(table.lines().all(|line| line.chars().count() == width), "{table}");
        assert!(
            table.contains(
                "| Q4_0 8 x 64          |          1 |        1.0 |  10.0% |       0.00 |    0.0 |      5.1 |"
            ),
            "{table}"
        );
        assert!(table.lines().last().unwrap().contains("| all  "), "{table}");
    }
}
