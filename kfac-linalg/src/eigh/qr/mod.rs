//! Householder reduction and implicit QR: the fast solver at every size.
//!
//! [`tridiagonal`] reduces the matrix to `A = Q T Qᵀ` ([`reduce`], [`form_q`]).

mod form_q;
mod reduce;

use super::EighError;
use super::scale::Scale;
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};
use reduce::Reduce;

/// Numbers in a cache line of the smaller type: room to begin on one.
const LINE: usize = 16;

/// Scratch, in elements, that [`tridiagonal`] needs for an `n x n` matrix: a square, 64 rows, and that of products.
pub const fn tridiagonal_scratch_len<T: Scalar>(n: usize) -> usize {
    LINE + n + reduce::VECTORS * reduce::stride(n) + reduce::halves_len(n) + form_q::scratch_len::<T>(n)
}

/// `A = Q T Qᵀ` with orthogonal `Q` and tridiagonal `T`, whose off-diagonal may have any signs.
///
/// # Shapes
/// `a`: `n x n`, its lower triangle is read; `q`: `n x n`; `diagonal`: `n`; `off_diagonal`: `n - 1` (0 for `n = 0`),
/// element `i` lies between rows `i` and `i + 1` of `T`; `scratch`: [`tridiagonal_scratch_len`].
///
/// # Errors
/// [`EighError::NotFinite`], [`EighError::Shape`], [`EighError::Scratch`]: nothing is written.
/// [`EighError::Overflow`]: an element of `T` exceeds the largest number though none of `A` does.
pub fn tridiagonal<T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: MatRef<'_, T>,
    q: MatMut<'_, T>,
    diagonal: &mut [T],
    off_diagonal: &mut [T],
    scratch: &mut [T],
) -> Result<(), EighError> {
    let n = a.rows();
    check(&a, &q, diagonal)?;
    ShapeError::check([n.saturating_sub(1), 1], [off_diagonal.len(), 1])?;
    ScratchError::check(tridiagonal_scratch_len::<T>(n), scratch.len())?;
    let scale = Scale::of_rows(kernel, &a)?;
    reduce_and_form(kernel, (a, scale), q, diagonal, off_diagonal, scratch)?;
    for x in diagonal.iter_mut().chain(&mut *off_diagonal) {
        *x *= scale.up;
    }
    let beyond = |x: &T| !x.is_finite();
    match diagonal.iter().position(beyond).or_else(|| off_diagonal.iter().position(beyond)) {
        Some(index) => Err(EighError::Overflow { index }),
        None => Ok(()),
    }
}

/// Shapes of both entries.
fn check<T: Scalar>(a: &MatRef<'_, T>, q: &MatMut<'_, T>, d: &[T]) -> Result<(), EighError> {
    let n = a.rows();
    ShapeError::check([n, n], a.shape())?;
    ShapeError::check([n, n], q.shape())?;
    ShapeError::check([n, 1], [d.len(), 1])?;
    Ok(())
}

/// The tridiagonal form of the scaled matrix.
fn reduce_and_form<T: Scalar, K: Kernel<T>>(
    kernel: K,
    (a, scale): (MatRef<'_, T>, Scale<T>),
    q: MatMut<'_, T>,
    diagonal: &mut [T],
    off_diagonal: &mut [T],
    scratch: &mut [T],
) -> Result<(), EighError> {
    let n = a.rows();
    let (halves, rest) = aligned(scratch).split_at_mut(reduce::halves_len(n));
    let (vectors, rest) = rest.split_at_mut(reduce::VECTORS * reduce::stride(n));
    let (tau, rest) = rest.split_at_mut(n);
    kernel.run(Reduce { a, scale: scale.down, halves, vectors, tau, diagonal, off_diagonal });
    Ok(form_q::form_q(kernel, halves, tau, q, rest)?)
}

/// The part of scratch from its first cache line on.
fn aligned<T>(scratch: &mut [T]) -> &mut [T] {
    let skip = scratch.as_ptr().align_offset(64).min(LINE);
    &mut scratch[skip..]
}
