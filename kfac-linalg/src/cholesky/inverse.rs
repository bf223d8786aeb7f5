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
//! `L Y_k: = A_k:` the three lines are `A_ij -= Y_iᵀ Y_j`, `Lᵀ A_ki = Y_i` and `A_kk = -L⁻ᵀ L⁻¹`: a symmetric product as
//! deep as the block, and solutions with its triangle. The block's own factor has the pivots that Cholesky's would have
//! had, so failure and log-determinant come out as there.
//!
//! Here swept blocks are kept with the opposite sign among themselves, so that `A⁻¹` itself remains. The products then
//! add there, and the solutions change their sign where swept rows meet unswept ones.
//!
//! Beside "factor, invert the factor, multiply" this is one loop over full-length products instead of three over
//! shrinking ones, for the same `n³` flops and the same accuracy.
//!
//! Source: Goodnight 1979, A tutorial on the SWEEP operator, The American Statistician 33:149.

use super::log_determinant::LogDeterminant;
use super::{CholeskyError, factor_block};
use crate::error::{ScratchError, ShapeError};
use crate::finite::AllFinite;
use crate::kernel::Kernel;
use crate::lengths::countable;
use crate::product::{Accumulate, gemm, syrk_lower, syrk_scratch_len};
use crate::scalar::Scalar;
use crate::triangle::LARGEST;
use crate::triangle::copy::Mirror;
use crate::triangle::panel::{Panel, Sides, panel_len};
use crate::triangle::substitute::{Inverse, Substitute, Way};
use crate::view::MatMut;

/// What [`inverse`] learns about the matrix on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// `ln det A` of the matrix given, not of its inverse.
    pub log_determinant: f64,
}

/// Scratch, in elements, that [`inverse`] needs for an `n x n` matrix: a block and some of its columns, and beyond 64
/// rows `n` of its rows.
pub const fn inverse_scratch_len<T: Scalar>(n: usize) -> usize {
    if n == 0 {
        return 0;
    }
    if !countable(n, n) {
        return usize::MAX;
    }
    let products = if n > LARGEST { syrk_scratch_len::<T>(n, LARGEST) } else { 0 };
    panel_len(n, Sides::new(n, n)) + products
}

/// `A <- A⁻¹` in place: reads the lower triangle of `a`, leaves the full inverse, symmetric to the bit.
///
/// # Shapes
/// `a`: `n x n`, any strides; `scratch`: [`inverse_scratch_len`].
///
/// # Errors
/// [`CholeskyError::NotPositiveDefinite`] with the first pivot that is not positive (or NaN, or infinite); the
/// contents of `a` are lost then, as with [`CholeskyError::Overflow`]. [`CholeskyError::Shape`], [`CholeskyError::Scratch`]; `a` is untouched then.
///
/// # Source
/// Goodnight 1979, A tutorial on the SWEEP operator, The American Statistician 33:149; here block by block, each block
/// by its Cholesky factor.
pub fn inverse<T: Scalar, K: Kernel<T>>(
    kernel: K,
    mut a: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<Outcome, CholeskyError> {
    let n = a.rows();
    ShapeError::check("A", [n, n], a.shape())?;
    ScratchError::check(inverse_scratch_len::<T>(n), scratch.len())?;
    if n == 0 {
        return Ok(Outcome { log_determinant: 0.0 });
    }
    let (add, subtract) = (Accumulate::Add(T::ONE), Accumulate::Add(-T::ONE));
    let (mut panel, scratch) = Panel::new(scratch, n, Sides::new(n, n));
    let mut log_determinant = LogDeterminant::new();
    for start in (0..n).step_by(LARGEST) {
        let end = n.min(start + LARGEST);
        let rows = start..end;
        let diagonal = a.reborrow().block(rows.clone(), rows.clone())?;
        let triangle = factor_block(kernel, diagonal.as_ref(), panel.triangle, start)?;
        triangle.diagonal().for_each(|root| log_determinant.multiply_squared(root.to_f64()));
        kernel.run(Inverse { triangle, to: diagonal, strip: &mut *panel.strip });
        if n <= LARGEST {
            break;
        }

        let mut y = panel.solutions.rows(end - start)?;
        if start > 0 {
            let (b, way) = (a.reborrow().block(rows.clone(), 0..start)?, Way::Through { scale: T::ONE });
            let first = Some(y.reborrow().part(0, 0..start));
            kernel.run(Substitute { triangle, way, b, first, strip: &mut *panel.strip });
        }
        if end < n {
            let b = a.reborrow().block(end..n, rows)?.transposed();
            let (way, first) = (Way::Through { scale: -T::ONE }, Some(y.reborrow().part(0, end..n)));
            kernel.run(Substitute { triangle, way, b, first, strip: &mut *panel.strip });
        }
        let (swept, unswept) = (y.as_ref().columns(0..start), y.as_ref().columns(end..n));
        syrk_lower(kernel, a.reborrow().block(0..start, 0..start)?, add, swept, scratch)?;
        let corner = a.reborrow().block(end..n, 0..start)?;
        gemm(kernel, corner, subtract, unswept.transposed(), swept, scratch)?;
        syrk_lower(kernel, a.reborrow().block(end..n, end..n)?, subtract, unswept, scratch)?;
    }
    kernel.run(Mirror(a.reborrow()));
    if !kernel.run(AllFinite(a.as_ref())) {
        return Err(CholeskyError::Overflow);
    }
    Ok(Outcome { log_determinant: log_determinant.value() })
}
