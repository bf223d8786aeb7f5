//! Inner product over a frozen number of partial sums.

use crate::error::ShapeError;
use crate::scalar::Scalar;

/// Partial sums: one 512-bit register of `f32`, so that every narrower machine can keep up with the order.
const LANES: usize = 16;

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
    let mut sums = [T::ZERO; LANES];
    let (blocks, rests) = (slices.map(|slice| slice.as_chunks::<LANES>().0), len / LANES * LANES);
    for index in 0..len / LANES {
        let block = blocks.map(|blocks| &blocks[index]);
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(block.map(|block| block[lane]));
        }
    }
    for (sum, index) in sums.iter_mut().zip(rests..len) {
        *sum += term(slices.map(|slice| slice[index]));
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    Ok(sums[0])
}
