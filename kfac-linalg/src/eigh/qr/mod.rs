//! Householder reduction and implicit QR: the fast solver at every size.
//!
//! `A = Q T Qᵀ` with a tridiagonal `T` ([`tridiagonal`]), then sweeps of rotations until `T` is diagonal, which are
//! collected and applied to the columns of `Q` many at a time. Two to three `n³` multiply-adds in rotations, `2/3 n³`
//! in the reduction, `2/3 n³` in forming `Q`.
//!
//! The matrix is first scaled by a power of two to a largest element in `[1, 2)`. No parameter depends on `n`.
//!
//! Sources: Golub and Van Loan, Matrix Computations, 4th edition, section 8.3; Van Zee, van de Geijn and
//! Quintana-Orti 2014, ACM TOMS 40:18 (wavefronts).
//!
//! # Example
//!
//! ```
//! use kfac_linalg::eigh::qr;
//! use kfac_linalg::{MatMut, MatRef, Reproducible};
//!
//! let numbers = [2.0_f32, 1.0, 1.0, 2.0];
//! let (mut q, mut d) = ([0.0; 4], [0.0; 2]);
//! let (a, view) = (MatRef::row_major(&numbers, 2, 2)?, MatMut::row_major(&mut q, 2, 2)?);
//! qr::cold(Reproducible, a, view, &mut d, &mut [0.0; qr::scratch_len::<f32>(2)])?;
//! assert!((d[0] - 1.0).abs() < 1e-6 && (d[1] - 3.0).abs() < 1e-6);
//! // Eigenvectors are columns: (1, -1) and (1, 1), normed, of either sign.
//! assert!((q[0] + q[2]).abs() < 1e-6 && (q[1] - q[3]).abs() < 1e-6);
//! # Ok::<(), kfac_linalg::Error>(())
//! ```

mod form_q;
mod iterate;
mod reduce;
mod rotate;
mod sweep;

use super::scale::Scale;
use super::{EighError, Outcome, check_shapes};
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::lengths::{countable, largest_len};
use crate::scalar::Scalar;
use crate::storage::{IN_LINE, from_line};
use crate::view::{MatMut, MatRef};
use iterate::Iterate;
use reduce::{Columns, Reduce};

pub(crate) use iterate::QrTasks;

/// Scratch, in elements, that [`cold`] needs for an `n x n` matrix.
///
/// At most `n² + 410 n + 200`, of which up to `450 n` hold copies of operands, on 64-bit targets; see the table in
/// [`eigh`](super).
pub const fn scratch_len<T: Scalar>(n: usize) -> usize {
    if n == 0 {
        return 0;
    }
    if !countable(n, n) {
        return usize::MAX;
    }
    let (reduce, iterate) = (tridiagonal_scratch_len::<T>(n), IN_LINE + iterate_len(n));
    n + largest_len([reduce, iterate])
}

/// Numbers that the iteration works with: strips, rotations, one sweep, and the order of the eigenvalues.
const fn iterate_len(n: usize) -> usize {
    rotate::strips_len(n) + rotate::waves_len(n) + sweep::chain_len(n) + n
}

/// `A = Q diag(d) Qᵀ`.
///
/// Eigenvalues ascend; eigenvector `j` is column `j` of `q`, of either sign.
///
/// # Shapes
/// `a`: `n x n`, its lower triangle is read; `q`: `n x n`; `d`: `n`; `scratch`: [`scratch_len`].
///
/// # Errors
/// [`EighError::NotFinite`], [`EighError::Shape`], [`EighError::Scratch`]: `q` and `d` are untouched.
/// [`EighError::BudgetSpent`] after `60 n` sweeps (one or two per eigenvalue are common, and no matrix is known to need
/// five): `q` and `d` hold the unconverged result, `q` orthonormal all the same.
/// [`EighError::Overflow`]: an eigenvalue exceeds the largest number though no element does.
pub fn cold<T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: MatRef<'_, T>,
    mut q: MatMut<'_, T>,
    d: &mut [T],
    scratch: &mut [T],
) -> Result<Outcome, EighError> {
    let n = check_shapes(&a, &q, d)?;
    ScratchError::check(scratch_len::<T>(n), scratch.len())?;
    let scale = Scale::of_rows(kernel, &a)?;
    let (e, scratch) = scratch.split_at_mut(n);
    reduce_and_form(kernel, (a, scale), q.reborrow(), d, e, scratch)?;
    let outcome = kernel.run(Iterate { q, d: &mut *d, e, scratch });
    d.iter_mut().for_each(|x| *x *= scale.up);
    match d.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(EighError::Overflow { index }),
        None if outcome.converged => Ok(outcome),
        None => Err(EighError::BudgetSpent(outcome)),
    }
}

/// Scratch, in elements, that [`tridiagonal`] needs for an `n x n` matrix: at most `n²/2 + 600 n + 200`, of which up to `450 n`
/// hold copies of operands, on 64-bit targets.
pub const fn tridiagonal_scratch_len<T: Scalar>(n: usize) -> usize {
    if n == 0 {
        return 0;
    }
    if !countable(n, n) {
        return usize::MAX;
    }
    IN_LINE
        + (reduce::VECTORS + 1) * reduce::column_len(n)
        + reduce::columns_len(n)
        + form_q::scratch_len::<T>(n)
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
    let n = check_shapes(&a, &q, diagonal)?;
    ShapeError::check_len("the off-diagonal", n.saturating_sub(1), off_diagonal.len())?;
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
    let (columns, rest) = from_line(scratch).split_at_mut(reduce::columns_len(n));
    let (vectors, rest) = rest.split_at_mut(reduce::VECTORS * reduce::column_len(n));
    let (tau, rest) = rest.split_at_mut(reduce::column_len(n));
    let mut columns = Columns::new(columns);
    let scale = scale.down;
    kernel.run(Reduce { a, scale, columns: &mut columns, vectors, tau, diagonal, off_diagonal });
    Ok(form_q::form_q(kernel, &columns, tau, q, rest)?)
}
