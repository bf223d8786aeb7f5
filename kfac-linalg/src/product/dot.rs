//! Inner product over a frozen number of partial sums.

use crate::error::ShapeError;
use crate::scalar::Scalar;

/// Partial sums: one 512-bit register of `f32`, so that every narrower machine can keep up with the order.
///
/// A compiler vectorises sixteen neighbours by itself, and wider registers would not help: one addition waits for the
/// other on all of them (measured).
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
        ShapeError::check_len("another slice", len, slice.len())?;
    }
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
    Ok(join(&mut sums, |a, b| a + b))
}

/// The sum of all partial sums, in halves. So many of them are a power of two.
#[inline(always)]
pub(super) fn join<V: Copy>(sums: &mut [V], add: impl Fn(V, V) -> V) -> V {
    let mut half = sums.len() / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] = add(sums[lane], sums[lane + half]);
        }
        half /= 2;
    }
    sums[0]
}
