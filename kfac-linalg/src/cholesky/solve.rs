//! Solution of `A X = B` from the Cholesky factor of `A`.

use super::{CholeskyError, block_len, largest_block};
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::product::{Accumulate, gemm, gemm_scratch_len};
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};

/// Scratch, in elements, that [`solve`] needs for an `n x n` factor and `columns` right-hand sides.
pub const fn solve_scratch_len<T: Scalar>(n: usize, columns: usize) -> usize {
    largest_block(n) * columns + gemm_scratch_len::<T>(n, columns, largest_block(n))
}

/// `L Lᵀ X = B`, `X` in place of `B`: forward through `L`, then backward through `Lᵀ`.
///
/// # Shapes
/// `l`: `n x n`, its lower triangle is read; `b`: `n x columns`; `scratch`: [`solve_scratch_len`].
///
/// # Errors
/// [`CholeskyError::Shape`], [`CholeskyError::Scratch`]; `b` is untouched then.
/// [`CholeskyError::NotPositiveDefinite`] when a diagonal element of `l` is zero, negative or not finite (no
/// factor has one); `b` is untouched then too.
pub fn solve<T: Scalar, K: Kernel<T>>(
    kernel: K,
    l: MatRef<'_, T>,
    mut b: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<(), CholeskyError> {
    let (n, columns) = (l.rows(), b.cols());
    ShapeError::check([n, n], l.shape())?;
    ShapeError::check([n, columns], b.shape())?;
    ScratchError::check(solve_scratch_len::<T>(n, columns), scratch.len())?;
    for i in 0..n {
        let pivot = l.at(i, i);
        if !(pivot > T::ZERO && pivot.is_finite()) {
            return Err(CholeskyError::NotPositiveDefinite { pivot: i, value: pivot.to_f64() });
        }
    }
    let (solved, pack) = scratch.split_at_mut(largest_block(n) * columns);
    let blocks = || (0..n).step_by(block_len(n)).map(|start| start..n.min(start + block_len(n)));

    for rows in blocks() {
        let triangle = l.block(rows.clone(), rows.clone())?;
        let mut x = MatMut::row_major(solved, rows.len(), columns)?;
        x.copy_from(b.as_ref().block(rows.clone(), 0..columns)?)?;
        forward(triangle, solved, columns);
        let x = MatRef::row_major(solved, rows.len(), columns)?;
        b.reborrow().block(rows.clone(), 0..columns)?.copy_from(x)?;
        let below = b.reborrow().block(rows.end..n, 0..columns)?;
        gemm(kernel, below, Accumulate::Add(-T::ONE), l.block(rows.end..n, rows)?, x, pack)?;
    }
    for rows in blocks().rev() {
        let triangle = l.block(rows.clone(), rows.clone())?;
        let mut x = MatMut::row_major(solved, rows.len(), columns)?;
        x.copy_from(b.as_ref().block(rows.clone(), 0..columns)?)?;
        backward(triangle, solved, columns);
        let x = MatRef::row_major(solved, rows.len(), columns)?;
        b.reborrow().block(rows.clone(), 0..columns)?.copy_from(x)?;
        let left = l.block(rows.clone(), 0..rows.start)?.transposed();
        let above = b.reborrow().block(0..rows.start, 0..columns)?;
        gemm(kernel, above, Accumulate::Add(-T::ONE), left, x, pack)?;
    }
    Ok(())
}

/// `L X = B` for one diagonal block: `x_i = (b_i - Σ_(p<i) l_ip x_p) / l_ii`, whole rows at a time.
fn forward<T: Scalar>(l: MatRef<'_, T>, b: &mut [T], columns: usize) {
    for i in 0..l.rows() {
        let (solved, rest) = b.split_at_mut(i * columns);
        let row = &mut rest[..columns];
        for p in 0..i {
            subtract(row, l.at(i, p), &solved[p * columns..][..columns]);
        }
        row.iter_mut().for_each(|x| *x /= l.at(i, i));
    }
}

/// `Lᵀ X = B` for one diagonal block: `x_i = (b_i - Σ_(p>i) l_pi x_p) / l_ii`, whole rows at a time.
fn backward<T: Scalar>(l: MatRef<'_, T>, b: &mut [T], columns: usize) {
    for i in (0..l.rows()).rev() {
        let (rest, solved) = b.split_at_mut((i + 1) * columns);
        let row = &mut rest[i * columns..];
        for p in i + 1..l.rows() {
            subtract(row, l.at(p, i), &solved[(p - i - 1) * columns..][..columns]);
        }
        row.iter_mut().for_each(|x| *x /= l.at(i, i));
    }
}

/// `row -= factor * other`.
fn subtract<T: Scalar>(row: &mut [T], factor: T, other: &[T]) {
    for (x, &y) in row.iter_mut().zip(other) {
        *x -= factor * y;
    }
}
