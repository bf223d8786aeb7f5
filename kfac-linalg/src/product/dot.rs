//! Inner product over a frozen number of partial sums.

use crate::arch::InstructionSet;
use crate::arch::simd::{Simd, Task};
use crate::error::ShapeError;
use crate::scalar::Scalar;

/// Partial sums: one 512-bit register of `f32`, so that every narrower machine can keep up with the order.
pub(super) const PARTIAL_SUMS: usize = 16;

/// `Σ x_i y_i`, summed as in [`sum_terms`].
///
/// # Errors
/// [`ShapeError`] when the lengths differ.
pub fn dot<T: Scalar>(x: &[T], y: &[T]) -> Result<T, ShapeError> {
    sum_terms([x, y], |[x, y]| x * y)
}

/// `Σ_i term(x_i, y_i, ...)` over slices of one length, with the same bits on every target and register width.
///
/// Term `i` joins partial sum `i mod 16`; the sums are then joined in halves, `s_l += s_(l+8)`, `s_l += s_(l+4)`
/// and so on. Multiplications and additions are not fused.
///
/// # Errors
/// [`ShapeError`] when the lengths differ.
pub fn sum_terms<T: Scalar, const SLICES: usize>(
    slices: [&[T]; SLICES],
    term: impl Fn([T; SLICES]) -> T,
) -> Result<T, ShapeError> {
    let len = slices.first().map_or(0, |first| first.len());
    for slice in slices {
        ShapeError::check([len, 1], [slice.len(), 1])?;
    }
    let work = Terms { slices, term };
    // Below that the way to wider registers is longer than the sum.
    if len < 64 { Ok(work.sum()) } else { Ok(InstructionSet::detect().run_unfused(work)) }
}

/// A sum to be compiled for each instruction set. Plain arithmetic, so that any term will do: nothing is fused that is
/// not asked for, and sixteen neighbours are what a compiler vectorises.
struct Terms<'a, T, F, const SLICES: usize> {
    slices: [&'a [T]; SLICES],
    term: F,
}

impl<T: Scalar, F: Fn([T; SLICES]) -> T, const SLICES: usize> Task<T> for Terms<'_, T, F, SLICES> {
    type Output = T;

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, _: S) -> T {
        self.sum()
    }
}

impl<T: Scalar, F: Fn([T; SLICES]) -> T, const SLICES: usize> Terms<'_, T, F, SLICES> {
    #[inline(always)]
    fn sum(self) -> T {
        let Self { slices, term } = self;
        let len = slices.first().map_or(0, |first| first.len());
        let mut sums = [T::ZERO; PARTIAL_SUMS];
        let (blocks, rests) =
            (slices.map(|slice| slice.as_chunks::<PARTIAL_SUMS>().0), len / PARTIAL_SUMS * PARTIAL_SUMS);
        for index in 0..len / PARTIAL_SUMS {
            let block = blocks.map(|blocks| &blocks[index]);
            for (lane, sum) in sums.iter_mut().enumerate() {
                *sum += term(block.map(|block| block[lane]));
            }
        }
        for (sum, index) in sums.iter_mut().zip(rests..len) {
            *sum += term(slices.map(|slice| slice[index]));
        }
        join(sums, |a, b| a + b)
    }
}

/// The sum of all partial sums, in halves.
#[inline(always)]
pub(super) fn join<V: Copy>(mut sums: [V; PARTIAL_SUMS], add: impl Fn(V, V) -> V) -> V {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] = add(sums[lane], sums[lane + half]);
        }
    }
    sums[0]
}
