//! Solutions with a triangular matrix.

use super::{Accumulate, ProductError, gemm, gemm_scratch_len};
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::lengths::countable;
use crate::scalar::Scalar;
use crate::triangle::factor::Read;
use crate::triangle::panel::{Panel, Sides, panel_len};
use crate::triangle::substitute::{Substitute, Way};
use crate::triangle::{LARGEST, Triangle};
use crate::view::{MatMut, MatRef};
use core::fmt;

/// Why a triangular system could not be solved. The right-hand side is untouched.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum TrsmError {
    /// Shapes that do not fit together.
    Shape(ShapeError),
    /// Scratch too short.
    Scratch(ScratchError),
    /// A diagonal element that is zero or not finite, or has no finite reciprocal: the first of them.
    Diagonal {
        /// Its row.
        index: usize,
        /// That element.
        value: f64,
    },
}

impl fmt::Display for TrsmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(error) => error.fmt(f),
            Self::Scratch(error) => error.fmt(f),
            Self::Diagonal { index, value } => {
                write!(f, "the triangle cannot be divided by: diagonal element {index} is {value:e}")
            }
        }
    }
}

impl core::error::Error for TrsmError {}

impl From<ShapeError> for TrsmError {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl From<ScratchError> for TrsmError {
    fn from(error: ScratchError) -> Self {
        Self::Scratch(error)
    }
}

impl From<ProductError> for TrsmError {
    fn from(error: ProductError) -> Self {
        match error {
            ProductError::Shape(error) => Self::Shape(error),
            ProductError::Scratch(error) => Self::Scratch(error),
        }
    }
}

/// Scratch, in elements, that [`trsm_lower`] and [`trsm_upper`] need for an `n x n` triangle and `cols` right-hand sides:
/// a block, some right-hand sides, and beyond 64 rows the solutions of a block for all of them.
pub const fn trsm_scratch_len<T: Scalar>(n: usize, cols: usize) -> usize {
    if n == 0 || cols == 0 {
        return 0;
    }
    if !countable(n, cols) {
        return usize::MAX;
    }
    panel_len(n, Sides::new(n, cols)) + if n > LARGEST { gemm_scratch_len::<T>(n, cols, LARGEST) } else { 0 }
}

/// `T X = B` for a lower triangle, `X` in place of `B`.
///
/// Sixty-four rows at a time, from the first one down: `x_i = (b_i - Σ_p t_ip x_p) (1 / t_ii)` among them, then the rows
/// below lose their product with them ([`gemm`]). Systems from the right, `X T = B`, are those of the transposed views,
/// `Tᵀ Xᵀ = Bᵀ`, for [`trsm_upper`].
///
/// # Shapes
/// `t`: `n x n`, only its lower triangle counts, and nothing of it where `b` is empty; `b`: `n x cols`, any strides;
/// `scratch`: [`trsm_scratch_len`].
///
/// # Errors
/// [`TrsmError`]; `b` is untouched then.
pub fn trsm_lower<T: Scalar, K: Kernel<T>>(
    kernel: K,
    t: MatRef<'_, T>,
    mut b: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<(), TrsmError> {
    let [n, cols] = check(t, b.as_ref(), scratch)?;
    if n == 0 || cols == 0 {
        return Ok(());
    }
    let (mut panel, scratch) = Panel::new(scratch, n, Sides::new(n, cols));
    for start in (0..n).step_by(LARGEST) {
        let rows = start..n.min(start + LARGEST);
        let block = t.block(rows.clone(), rows.clone())?.transposed();
        let x =
            solve_block(kernel, block, Way::Forward, b.reborrow().block(rows.clone(), 0..cols)?, &mut panel)?;
        if rows.end == n {
            break;
        }
        let below = b.reborrow().block(rows.end..n, 0..cols)?;
        gemm(kernel, below, Accumulate::Add(-T::ONE), t.block(rows.end..n, rows)?, x, scratch)?;
    }
    Ok(())
}

/// `T X = B` for an upper triangle, `X` in place of `B`: as [`trsm_lower`], from the last row up.
///
/// # Shapes
/// `t`: `n x n`, only its upper triangle counts; `b`: `n x cols`, any strides; `scratch`: [`trsm_scratch_len`].
///
/// # Errors
/// [`TrsmError`]; `b` is untouched then.
pub fn trsm_upper<T: Scalar, K: Kernel<T>>(
    kernel: K,
    t: MatRef<'_, T>,
    mut b: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<(), TrsmError> {
    let [n, cols] = check(t, b.as_ref(), scratch)?;
    if n == 0 || cols == 0 {
        return Ok(());
    }
    let (mut panel, scratch) = Panel::new(scratch, n, Sides::new(n, cols));
    for start in (0..n).step_by(LARGEST).rev() {
        let rows = start..n.min(start + LARGEST);
        let block = t.block(rows.clone(), rows.clone())?;
        let x = solve_block(
            kernel,
            block,
            Way::Backward,
            b.reborrow().block(rows.clone(), 0..cols)?,
            &mut panel,
        )?;
        if start == 0 {
            break;
        }
        let above = b.reborrow().block(0..start, 0..cols)?;
        gemm(kernel, above, Accumulate::Add(-T::ONE), t.block(0..start, rows)?, x, scratch)?;
    }
    Ok(())
}

/// Every error; else the shape of `B`.
fn check<T: Scalar>(t: MatRef<'_, T>, b: MatRef<'_, T>, scratch: &[T]) -> Result<[usize; 2], TrsmError> {
    let (n, cols) = (t.rows(), b.cols());
    ShapeError::check("T", [n, n], t.shape())?;
    ShapeError::check("B", [n, cols], b.shape())?;
    ScratchError::check(trsm_scratch_len::<T>(n, cols), scratch.len())?;
    // Without right-hand sides nothing bounds the order of the triangle.
    for index in 0..if cols == 0 { 0 } else { n } {
        let value = t.at(index, index);
        if !(value.is_finite() && (T::ONE / value).is_finite()) {
            return Err(TrsmError::Diagonal { index, value: value.to_f64() });
        }
    }
    Ok([n, cols])
}

/// Solves with one diagonal block, given as an upper triangle. Gives a copy of the solutions, where there are other
/// blocks.
fn solve_block<'a, T: Scalar, K: Kernel<T>>(
    kernel: K,
    u: MatRef<'_, T>,
    way: Way<T>,
    b: MatMut<'_, T>,
    panel: &'a mut Panel<'_, T>,
) -> Result<MatRef<'a, T>, TrsmError> {
    let n = u.rows();
    kernel.run(Read { u, room: &mut *panel.triangle });
    let triangle = Triangle::of(panel.triangle, n);
    let mut x = panel.solutions.rows(n)?;
    let first = (x.cols() > 0).then(|| x.reborrow());
    kernel.run(Substitute { triangle, way, b, first, strip: &mut *panel.strip });
    Ok(x.into_ref())
}
