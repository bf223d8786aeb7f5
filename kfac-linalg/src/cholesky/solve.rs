//! Solution of `A X = B` from the Cholesky factor of `A`.

use super::CholeskyError;
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::product::{trsm_lower, trsm_scratch_len, trsm_upper};
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};

/// Scratch, in elements, that [`solve`] needs for an `n x n` factor and `columns` right-hand sides.
pub const fn solve_scratch_len<T: Scalar>(n: usize, columns: usize) -> usize {
    trsm_scratch_len::<T>(n, columns)
}

/// `L Lᵀ X = B`, `X` in place of `B`: forward through `L`, then backward through `Lᵀ`.
///
/// # Shapes
/// `l`: `n x n`, its lower triangle is read, unless `b` is empty; `b`: `n x columns`; `scratch`: [`solve_scratch_len`].
///
/// # Errors
/// [`CholeskyError::Shape`], [`CholeskyError::Scratch`]; `b` is untouched then.
/// [`CholeskyError::NotPositiveDefinite`] with the first diagonal element of `l` that is zero, negative, not finite, or
/// so small that it has no finite reciprocal (no factor has one); `b` is untouched then too. A solution that exceeds the
/// largest number is not looked for, and comes out infinite or NaN.
pub fn solve<T: Scalar, K: Kernel<T>>(
    kernel: K,
    l: MatRef<'_, T>,
    mut b: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<(), CholeskyError> {
    let (n, columns) = (l.rows(), b.cols());
    ShapeError::check("L", [n, n], l.shape())?;
    ShapeError::check("B", [n, columns], b.shape())?;
    ScratchError::check(solve_scratch_len::<T>(n, columns), scratch.len())?;
    // Without right-hand sides nothing bounds the order of the factor.
    for i in 0..if columns == 0 { 0 } else { n } {
        let pivot = l.at(i, i);
        if !(pivot > T::ZERO && pivot.is_finite()) {
            return Err(CholeskyError::NotPositiveDefinite { pivot: i, value: pivot.to_f64() });
        }
    }
    trsm_lower(kernel, l, b.reborrow(), scratch)?;
    trsm_upper(kernel, l.transposed(), b, scratch)?;
    Ok(())
}
