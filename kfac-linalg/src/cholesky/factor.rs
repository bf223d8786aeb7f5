//! Blocked Cholesky factorisation.

use super::{CholeskyError, factor_block};
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::lengths::countable;
use crate::product::{Accumulate, syrk_lower, syrk_scratch_len};
use crate::scalar::Scalar;
use crate::triangle::LARGEST;
use crate::triangle::factor::Write;
use crate::triangle::panel::{Panel, Sides, panel_len};
use crate::triangle::substitute::{Substitute, Way};
use crate::view::MatMut;

/// Scratch, in elements, that [`factor`] needs for an `n x n` matrix: a block, and beyond 64 rows some of its columns and `n`
/// of its rows.
pub const fn factor_scratch_len<T: Scalar>(n: usize) -> usize {
    if n == 0 {
        return 0;
    }
    if !countable(n, n) {
        return usize::MAX;
    }
    panel_len(n, sides(n)) + if n > LARGEST { syrk_scratch_len::<T>(n, LARGEST) } else { 0 }
}

/// A single block has no columns below it.
const fn sides(n: usize) -> Sides {
    Sides::new(n, if n > LARGEST { n } else { 0 })
}

/// `A = L Lᵀ` in place: reads the lower triangle of `a`, leaves `L` in it.
///
/// The strict upper triangle is neither read nor written. Blocked and right-looking: with the block column
/// `[D; P]`, `D = L_D L_Dᵀ`, `L_D Yᵀ = Pᵀ`, and the rest of the triangle loses `Y Yᵀ`.
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
    ShapeError::check("A", [n, n], a.shape())?;
    ScratchError::check(factor_scratch_len::<T>(n), scratch.len())?;
    if n == 0 {
        return Ok(());
    }
    let (mut panel, scratch) = Panel::new(scratch, n, sides(n));
    for start in (0..n).step_by(LARGEST) {
        let end = n.min(start + LARGEST);
        let diagonal = a.reborrow().block(start..end, start..end)?;
        let triangle = factor_block(kernel, diagonal.as_ref(), panel.triangle, start)?;
        kernel.run(Write { triangle, to: diagonal });
        if end == n {
            break;
        }
        // In rows of its own too, because Y is read while the rest of the triangle is written.
        let b = a.reborrow().block(end..n, start..end)?.transposed();
        let mut y = panel.solutions.rows(end - start)?.part(0, end..n);
        let (way, strip) = (Way::Forward, &mut *panel.strip);
        kernel.run(Substitute { triangle, way, b, first: Some(y.reborrow()), strip });
        let rest = a.reborrow().block(end..n, end..n)?;
        syrk_lower(kernel, rest, Accumulate::Add(-T::ONE), y.as_ref(), scratch)?;
    }
    Ok(())
}
