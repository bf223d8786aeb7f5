//! Householder reduction and implicit QR: the fast solver at every size.
//!
//! `A = Q T Qᵀ` with a tridiagonal `T` ([`tridiagonal`]; `reduce`, `form_q`), then sweeps of rotations until `T` is
//! diagonal (`sweep`), which are collected and applied to the columns of `Q` many at a time (`rotate`). Two to three
//! `n³` multiply-adds in rotations, `2/3 n³` in the reduction, `2/3 n³` in forming `Q`.
//!
//! The matrix is first scaled by a power of two to a largest element in `[1, 2)`. No parameter depends on `n`.
//!
//! Sources: Golub and Van Loan, Matrix Computations, 4th edition, section 8.3; Van Zee, van de Geijn and
//! Quintana-Orti 2014, ACM TOMS 40:18 (wavefronts).

mod form_q;
mod reduce;
mod rotate;
mod sweep;

use super::scale::Scale;
use super::{EighError, Outcome};
use crate::arch::simd::{Simd, Task};
use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::scalar::Scalar;
use crate::storage::{IN_LINE, from_line};
use crate::view::{MatMut, MatRef};
use core::cmp::Ordering;
use reduce::{Columns, Reduce};
use rotate::Waves;
use sweep::Diagonalise;

/// Scratch, in elements, that [`cold`] needs for an `n x n` matrix: at most a square, 110 rows, and that of
/// products.
pub const fn scratch_len<T: Scalar>(n: usize) -> usize {
    let (reduce, iterate) = (tridiagonal_scratch_len::<T>(n), IN_LINE + iterate_len(n));
    n + if reduce > iterate { reduce } else { iterate }
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
    let n = a.rows();
    check(&a, &q, d)?;
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

/// From `A = Q T Qᵀ` to the eigenvectors and eigenvalues, which are sorted.
struct Iterate<'a, T> {
    q: MatMut<'a, T>,
    d: &'a mut [T],
    e: &'a mut [T],
    scratch: &'a mut [T],
}

impl<T: Scalar> Task<T> for Iterate<'_, T> {
    type Output = Outcome;

    #[inline(always)]
    fn run<S: Simd<Element = T>>(mut self, simd: S) -> Outcome {
        let Self { d, e, .. } = self;
        let n = d.len();
        let (strips, rest) = from_line(self.scratch).split_at_mut(rotate::strips_len(n));
        let (waves, rest) = rest.split_at_mut(rotate::waves_len(n));
        let (chain, rest) = rest.split_at_mut(sweep::chain_len(n));
        let order = &mut rest[..n];

        // Sweeps run from large elements to small ones: in the other direction they are more, and less accurate.
        let size = |d: &[T]| d.iter().fold(T::ZERO, |sum, x| sum + x.abs());
        let reversed = size(&d[n / 2..]) > size(&d[..n / 2]);
        if reversed {
            d.reverse();
            e[..n.saturating_sub(1)].reverse();
        }
        if let Some(last) = e.last_mut() {
            *last = T::ZERO;
        }
        e.iter_mut().for_each(|e| *e *= e.abs());
        rotate::copy_in(simd, &self.q.as_ref(), strips, reversed);
        let waves = Waves::new(waves, n);
        let outcome = Diagonalise { d: &mut *d, e, chain, waves, strips: &mut *strips }.run(simd);

        for (i, index) in order.iter_mut().enumerate() {
            *index = T::from_usize(i);
        }
        // By value, then by place, so that the order is one whatever the algorithm of the sort.
        let key = |index: &T| (d[index.to_f64() as usize], *index);
        order.sort_unstable_by(|i, j| key(i).partial_cmp(&key(j)).unwrap_or(Ordering::Equal));
        rotate::copy_out(simd, strips, order, &mut self.q);
        for (sorted, index) in e.iter_mut().zip(&*order) {
            *sorted = d[index.to_f64() as usize];
        }
        d.copy_from_slice(e);
        outcome
    }
}

/// Scratch, in elements, that [`tridiagonal`] needs for an `n x n` matrix: half a square, 110 rows, and that of products.
pub const fn tridiagonal_scratch_len<T: Scalar>(n: usize) -> usize {
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
    let (columns, rest) = from_line(scratch).split_at_mut(reduce::columns_len(n));
    let (vectors, rest) = rest.split_at_mut(reduce::VECTORS * reduce::column_len(n));
    let (tau, rest) = rest.split_at_mut(reduce::column_len(n));
    let mut columns = Columns::new(columns);
    let scale = scale.down;
    kernel.run(Reduce { a, scale, columns: &mut columns, vectors, tau, diagonal, off_diagonal });
    Ok(form_q::form_q(kernel, &columns, tau, q, rest)?)
}
