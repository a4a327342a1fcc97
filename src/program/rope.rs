//! Rotations of queries and keys by position.

use super::WeightId;

/// Which pairs of numbers a rotation turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Neighbours: 0 and 1, 2 and 3.
    Adjacent,
    /// The first half with the second: 0 and n/2, 1 and n/2 + 1.
    Halves,
}

/// Between which frequencies YaRN goes over from interpolating positions to leaving them alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// Pairs that turn more often than this within the original context are left alone.
    pub beta_fast: f32,
    /// Pairs that turn less often than this are interpolated.
    pub beta_slow: f32,
    /// The context that the model was first trained for.
    pub original_context: usize,
}

/// A rotation of queries and keys by position.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Which pairs.
    pub style: RopeStyle,
    /// How many numbers of each head are rotated, from its first.
    pub dimensions: usize,
    /// The base of the frequencies.
    pub base: f32,
    /// What positions are multiplied with.
    pub scale: f32,
    /// A divisor for each pair's frequency.
    pub factors: Option<WeightId>,
    /// How scaling depends on the frequency.
    pub yarn: Option<Yarn>,
    /// What sines and cosines are multiplied with.
    pub magnitude: f32,
}

impl Rope {
    /// The angle, in radians, that each pair turns by from one position to the next.
    pub fn angles(&self, factors: Option<&[f32]>) -> Vec<f32> {
        let pairs = self.dimensions / 2;
        let ramp = self.yarn.map(|yarn| self.yarn_ramp(yarn));
        let angle = |pair: usize| {
            let factor = factors.and_then(|factors| factors.get(pair)).map_or(1.0, |&factor| f64::from(factor));
            let free = f64::from(self.base).powf(-2.0 * pair as f64 / self.dimensions as f64) / factor;
            let scaled = free * f64::from(self.scale);
            let mix = ramp.map_or(0.0, |(low, high)| {
                let along = (pair as f64 - low) / (high - low).max(0.001);
                1.0 - along.clamp(0.0, 1.0)
            });
            (scaled * (1.0 - mix) + free * mix) as f32
        };
        (0..pairs).map(angle).collect()
    }

    /// The pairs between which YaRN goes over from leaving alone to interpolating.
    fn yarn_ramp(&self, yarn: Yarn) -> (f64, f64) {
        let pair_of = |turns: f32| {
            let wavelength = yarn.original_context as f64 / (f64::from(turns) * std::f64::consts::TAU);
            self.dimensions as f64 * wavelength.ln() / (2.0 * f64::from(self.base).ln())
        };
        let low = pair_of(yarn.beta_fast).floor().max(0.0);
        let high = pair_of(yarn.beta_slow).ceil().min(self.dimensions as f64 - 1.0);
        (low, high)
    }
}
