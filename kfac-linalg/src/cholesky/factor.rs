//! Blocked Cholesky factorisation.

use super::diagonal::{Block, padded_len};
use super::{CholeskyError, block_len, largest_block};
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::product::{Accumulate, gemm, syrk_lower, syrk_scratch_len};
use crate::scalar::Scalar;
use crate::view::MatMut;

/// Scratch, in elements, that [`factor`] needs for an `n x n` matrix: about `n` rows of a block, and two blocks.
pub const fn factor_scratch_len<T: Scalar>(n: usize) -> usize {
    let block = largest_block(n);
    2 * padded_len(block) + block * (n - block) + syrk_scratch_len::<T>(n, block)
}

/// `A = L Lᵀ` in place: reads the lower triangle of `a`, leaves `L` in it.
///
/// The strict upper triangle is neither read nor written. Blocked and right-looking: with the block column
/// `[D; P]`, `D = L_D L_Dᵀ`, `Y = P L_D⁻ᵀ`, and the rest of the triangle loses `Y Yᵀ`.
///
/// # Shapes
/// `a`: `n x n`, any strides; `scratch`: [`factor_scratch_len`].
///
/// # Errors
/// [`CholeskyError::NotPositiveDefinite`] with the first pivot that is not positive (or NaN, or infinite); the
/// lower triangle is lost then. [`CholeskyError::Shape`], [`CholeskyError::Scratch`]; `a` is untouched then.
///
/// # Source
/// Golub and Van Loan, Matrix Computations, 4th edition, section 4.2.
pub fn factor<T: Scalar, K: Kernel<T>>(
    kernel: K,
    mut a: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<(), CholeskyError> {
    let n = a.rows();
    ShapeError::check([n, n], a.shape())?;
    ScratchError::check(factor_scratch_len::<T>(n), scratch.len())?;
    for start in (0..n).step_by(block_len(n)) {
        let end = n.min(start + block_len(n));
        let (block, below) = (end - start, n - end);
        let (factor, rest) = scratch.split_at_mut(padded_len(block));
        let (inverse, rest) = rest.split_at_mut(padded_len(block));
        let (panel, rest) = rest.split_at_mut(block * below);

        let diagonal = a.reborrow().block(start..end, start..end)?;
        let factor = Block::factor(factor, diagonal.as_ref(), start)?;
        factor.write_transposed(diagonal);
        if below == 0 {
            break;
        }
        let inverse = factor.invert_transposed(inverse);

        // Yᵀ = L_D⁻¹ Pᵀ, in scratch because Y is read while the rest of the triangle is written.
        let mut p = a.reborrow().block(end..n, start..end)?.transposed();
        let mut y = MatMut::row_major(panel, block, below)?;
        gemm(kernel, y.reborrow(), Accumulate::Replace(T::ONE), inverse.view()?, p.as_ref(), rest)?;
        p.copy_from(y.as_ref())?;
        let trailing = a.reborrow().block(end..n, end..n)?;
        syrk_lower(kernel, trailing, Accumulate::Add(-T::ONE), y.as_ref(), rest)?;
    }
    Ok(())
}
