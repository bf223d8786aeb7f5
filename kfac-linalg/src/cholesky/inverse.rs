//! Inverse of a positive definite matrix by the sweep operator, one block at a time.
//!
//! Sweeping the block `k` of a symmetric matrix replaces
//!
//! ```text
//!     A_ij <- A_ij - A_ik A_kk⁻¹ A_kj     (i, j outside of k)
//!     A_ik <- A_ik A_kk⁻¹
//!     A_kk <- -A_kk⁻¹
//! ```
//!
//! and when every block has been swept, once and in any order, `A` has become `-A⁻¹`. With `A_kk = L Lᵀ` and
//! `Y = A_:k L⁻ᵀ` the three lines are `A_ij -= Y_i Y_jᵀ`, `A_ik = Y_i L⁻¹` and `A_kk = -L⁻ᵀ L⁻¹`: two symmetric
//! products and one general product as deep as the block. The block's own factor has the pivots that Cholesky's
//! would have had, so failure and log-determinant come out as there.
//!
//! Beside "factor, invert the factor, multiply" this is one loop over full-length products instead of three over
//! shrinking ones, for the same `n³` flops and the same accuracy.
//!
//! Source: Goodnight 1979, A tutorial on the SWEEP operator, The American Statistician 33:149.

use super::diagonal::{Block, padded_len};
use super::{CholeskyError, block_len, largest_block};
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::product::{Accumulate, gemm, syrk_lower, syrk_scratch_len};
use crate::scalar::Scalar;
use crate::view::MatMut;

/// What [`inverse`] learns about the matrix on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// `ln det A` of the matrix given, not of its inverse.
    pub log_determinant: f64,
}

/// Scratch, in elements, that [`inverse`] needs for an `n x n` matrix: about `n` rows of a block, and two blocks.
pub const fn inverse_scratch_len<T: Scalar>(n: usize) -> usize {
    let block = largest_block(n);
    2 * padded_len(block) + block * n + syrk_scratch_len::<T>(n, block)
}

/// `A <- A⁻¹` in place: reads the lower triangle of `a`, leaves the full inverse, symmetric to the bit.
///
/// # Shapes
/// `a`: `n x n`, any strides; `scratch`: [`inverse_scratch_len`].
///
/// # Errors
/// [`CholeskyError::NotPositiveDefinite`] with the first pivot that is not positive (or NaN, or infinite); the
/// contents of `a` are lost then. [`CholeskyError::Shape`], [`CholeskyError::Scratch`]; `a` is untouched then.
///
/// # Source
/// The module names it.
pub fn inverse<T: Scalar, K: Kernel<T>>(
    kernel: K,
    mut a: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<Outcome, CholeskyError> {
    let n = a.rows();
    ShapeError::check([n, n], a.shape())?;
    ScratchError::check(inverse_scratch_len::<T>(n), scratch.len())?;
    let (one, minus) = (Accumulate::Replace(T::ONE), Accumulate::Add(-T::ONE));
    let mut log_determinant = 0.0;
    for start in (0..n).step_by(block_len(n)) {
        let end = n.min(start + block_len(n));
        let block = end - start;
        let (factor, rest) = scratch.split_at_mut(padded_len(block));
        let (inverse, rest) = rest.split_at_mut(padded_len(block));
        let (panel, rest) = rest.split_at_mut(block * n);

        let factor = Block::factor(factor, a.as_ref().block(start..end, start..end)?, start)?;
        log_determinant += (0..block).map(|i| 2.0 * libm::log(factor.diagonal(i).to_f64())).sum::<f64>();
        let inverse = factor.invert_transposed(inverse);
        let inverse = inverse.view()?;

        // Yᵀ: the rows before the block are read from the block's row, those after it from its column.
        let mut y = MatMut::row_major(panel, block, n)?;
        let before = a.as_ref().block(start..end, 0..start)?;
        gemm(kernel, y.reborrow().block(0..block, 0..start)?, one, inverse, before, rest)?;
        let after = a.as_ref().block(end..n, start..end)?.transposed();
        gemm(kernel, y.reborrow().block(0..block, end..n)?, one, inverse, after, rest)?;
        let before = y.as_ref().block(0..block, 0..start)?;
        let after = y.as_ref().block(0..block, end..n)?;

        syrk_lower(kernel, a.reborrow().block(0..start, 0..start)?, minus, before, rest)?;
        let corner = a.reborrow().block(end..n, 0..start)?;
        gemm(kernel, corner, minus, after.transposed(), before, rest)?;
        syrk_lower(kernel, a.reborrow().block(end..n, end..n)?, minus, after, rest)?;

        let row = a.reborrow().block(start..end, 0..start)?;
        gemm(kernel, row, one, inverse.transposed(), before, rest)?;
        let column = a.reborrow().block(end..n, start..end)?;
        gemm(kernel, column, one, after.transposed(), inverse, rest)?;
        let diagonal = a.reborrow().block(start..end, start..end)?;
        syrk_lower(kernel, diagonal, Accumulate::Replace(-T::ONE), inverse, rest)?;
    }
    for i in 0..n {
        for j in 0..=i {
            let x = -a.at(i, j);
            a.set(i, j, x);
            a.set(j, i, x);
        }
    }
    Ok(Outcome { log_determinant })
}
