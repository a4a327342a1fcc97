//! Vector units, and the kernels that are written once for all of them.
//!
//! `Isa` is a small vocabulary of vectors of eight lanes, one lane for each of eight neighbouring rows of weights.
//! The kernels (`kernels`) and the unpacking of weights (`formats`) are generic over it; they are safe code, compiled
//! anew for each unit. A unit is one implementation of the trait: `Scalar` is arrays and loops, works
//! anywhere and says what each word means; `Avx2`, `Avx512` and `Neon` are one or two instructions for most of them. All
//! units give the same integers; sums of numbers may be rounded in another order.
//!
//! A value of a type that implements `Isa` proves that the processor has the unit: the only way to one is its
//! `detect`, which asks the processor, and `on` calls that. That is why the words themselves are safe to call. All `unsafe`
//! of the kernels is in the implementations of the trait.

// Kernels count lanes and tokens of several arrays at once.
#![allow(clippy::needless_range_loop)]

pub(super) mod attend;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod float;
pub(super) mod formats;
pub(super) mod kernels;
#[cfg(test)]
mod model;
#[cfg(any(target_arch = "aarch64", test))]
pub(super) mod neon;
pub(super) mod rows;
pub(super) mod scalar;
pub(super) mod table;
#[cfg(test)]
mod tests;

/// Which vector unit to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust, on any processor.
    Scalar,
    /// AVX2 with FMA and F16C: x86-64 since 2013.
    Avx2,
    /// AVX-512 with VNNI on vectors of 256 bits: Intel's servers since 2019, AMD's processors since 2022.
    Avx512,
    /// NEON, with its dot products of bytes where the processor has them: all 64-bit ARM.
    Neon,
}

impl Level {
    /// The best that this processor has.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if avx512::Avx512::detect().is_some() {
            return Level::Avx512;
        } else if avx2::Avx2::detect().is_some() {
            return Level::Avx2;
        }
        if cfg!(target_arch = "aarch64") { Level::Neon } else { Level::Scalar }
    }
}

/// Something to be done on a vector unit. `run` must be `#[inline(always)]`, so that it is compiled for the unit.
pub(super) trait Task {
    type Output;
    fn run<S: Isa>(self, s: S) -> Self::Output;
}

/// Does it on the unit of this level, or on the best there is below it. Tests run the units that this machine has not on
/// models of their instructions.
pub(super) fn on<T: Task>(level: Level, task: T) -> T::Output {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => match avx512::Avx512::detect() {
            Some(s) => s.vectorize(task),
            #[cfg(test)]
            None if avx2::Avx2::detect().is_some() => match avx512::Avx512::modelled() {
                Some(s) => s.vectorize(task),
                None => task.run(scalar::Scalar),
            },
            None => on(Level::Avx2, task),
        },
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => match avx2::Avx2::detect() {
            Some(s) => s.vectorize(task),
            None => task.run(scalar::Scalar),
        },
        #[cfg(any(target_arch = "aarch64", test))]
        Level::Neon => match neon::Neon::<true>::detect() {
            Some(s) => s.vectorize(task),
            None => neon::Neon::<false>::new().vectorize(task),
        },
        _ => task.run(scalar::Scalar),
    }
}

/// Rows that are packed together: the lanes of a vector.
pub(super) const LANES: usize = 8;

/// The vocabulary. Integer vectors are 8 lanes of 4 bytes; what the bytes mean is up to the word.
pub(super) trait Isa: Copy + Send + Sync + 'static {
    /// Eight lanes of four bytes, two 16-bit or one 32-bit integer.
    type I: Copy;
    /// Eight `f32`.
    type F: Copy;
    /// Eight sums of products of bytes, in whatever form the unit adds them up.
    type Sum: Copy;

    /// What is added to whole bytes with sign to make them the left side of [`dot`](Isa::dot): 0 or 128. `None` where
    /// sums have 16 bits, which neither whole bytes nor more quads than a format's span fit; with a bias, they have 32.
    const BIAS: Option<u8>;
    /// Whether [`Rows`](kernels::Rows) multiplies weights by several tokens while they are in registers. That is several times
    /// the code for each format, which a fallback that few processors need goes without.
    const SEVERAL: bool = true;

    /// Compiles `task` for this unit, and runs it.
    fn vectorize<T: Task>(self, task: T) -> T::Output;

    /// The first 32 bytes; zeros if there are fewer.
    fn load(self, bytes: &[u8]) -> Self::I;
    /// Eight 16-bit integers without sign, one for each lane; zeros if there are fewer.
    fn load_u16(self, bytes: &[u8]) -> Self::I;
    /// The same four bytes in each lane.
    fn splat(self, word: i32) -> Self::I;
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn xor(self, a: Self::I, b: Self::I) -> Self::I;
    /// Each lane shifted left as one 32-bit integer.
    fn shl<const N: i32>(self, a: Self::I) -> Self::I;
    /// Each lane shifted right as one 32-bit integer without sign.
    fn shr<const N: i32>(self, a: Self::I) -> Self::I;
    /// Each byte less the same of `b`, wrapping.
    fn sub_bytes(self, a: Self::I, b: Self::I) -> Self::I;
    /// Each byte, which must be below 16, replaced by that entry of the table.
    fn lookup(self, table: &[i8; 16], index: Self::I) -> Self::I;
    /// Bytes A and B of each lane, widened to two 16-bit integers with sign.
    fn pair<const A: usize, const B: usize>(self, a: Self::I) -> Self::I;
    fn add(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub(self, a: Self::I, b: Self::I) -> Self::I;
    /// For each lane the sum of the two products of its 16-bit integers.
    fn dot_i16(self, a: Self::I, b: Self::I) -> Self::I;

    /// No products yet.
    fn no_sum(self) -> Self::Sum;
    /// Adds for each lane the four products of bytes of `w`, which must be below 128, and bytes of `x`, with sign, which
    /// must not be -128. Without a [`BIAS`](Isa::BIAS) the products of two neighbouring bytes, over all additions to
    /// `sum`, must fit 16 bits; with one of 128, bytes of `w` may be up to 255, with one of 0, they have a sign.
    fn dot(self, sum: Self::Sum, w: Self::I, x: Self::I) -> Self::Sum;
    /// The same with signed bytes of `w`. Without a bias, `sum` must be [`no_sum`](Isa::no_sum).
    fn dot_signed(self, sum: Self::Sum, w: Self::I, x: Self::I) -> Self::Sum;
    /// For each lane its sum times its scale, which stands in the lane twice, as [`Isa::pair`] gives it.
    fn scaled(self, sum: Self::Sum, scale: Self::I) -> Self::I;

    fn to_f32(self, a: Self::I) -> Self::F;
    /// Eight 16-bit floating-point numbers; zeros if there are fewer bytes.
    fn load_f16(self, bytes: &[u8]) -> Self::F;
    /// Eight upper halves of `f32`; zeros if there are fewer bytes.
    fn load_bf16(self, bytes: &[u8]) -> Self::F;
    /// The numbers as 16-bit ones, rounded to the nearest, in the middle to even.
    fn to_f16(self, a: Self::F) -> [u8; 2 * LANES];
    /// Each lane as the bits of a number.
    fn to_float_bits(self, a: Self::I) -> Self::F;
    /// The first eight numbers; zeros if there are fewer.
    fn load_f32(self, values: &[f32]) -> Self::F;
    /// Halves of the powers of two that eight bytes stand for, as [`half_e8m0`](crate::quant::fp4::half_e8m0).
    fn load_half_e8m0(self, bytes: &[u8]) -> Self::F;
    fn splat_f32(self, value: f32) -> Self::F;
    fn add_f32(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul_f32(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once or twice.
    fn mul_add_f32(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The numbers, lane by lane.
    fn lanes(self, a: Self::F) -> [f32; LANES];
    /// The sum of all lanes.
    fn sum_f32(self, a: Self::F) -> f32;
    /// Says that what lies a little behind these bytes, which need not be there, will be read soon.
    fn prefetch_ahead(self, bytes: &[u8]);
}
