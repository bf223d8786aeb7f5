//! Warm start: the basis of a matrix that has changed a little.

use super::sweep::Tournament;
use super::{Budget, EighError, Outcome, Scale, check, finish};
use crate::kernel::Kernel;
use crate::product::{Accumulate, gemm, gemm_scratch_len};
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};

/// Largest `||QᵀQ - I||_F` that is mended. The step below converges from anything under 1.
const MENDABLE: f64 = 0.5;

/// `A = Q diag(d) Qᵀ`, starting from the basis in `q`.
///
/// Sweeps `QᵀAQ`, which is nearly diagonal when `q` holds the eigenvectors of a nearby matrix; with them, unchanged,
/// no sweep or one is left. `Q` is first made orthonormal again by one Newton-Schulz step,
/// `Q <- Q (3I - QᵀQ) / 2`: it squares the deviation, which otherwise grows from refresh to refresh (36,000 eps
/// after 2,000). A basis that deviates by more than `sqrt(eps)` takes as many steps as bring it below.
///
/// # Shapes
/// `a`: `n x n`, its lower triangle is read; `q`: `n x n`, columns are the basis; `d`: `n`, not read;
/// `scratch`: [`scratch_len`](super::scratch_len).
///
/// # Errors
/// As [`cold`](super::cold); [`EighError::NotFinite`] may name an element of `q` too.
/// [`EighError::NotOrthonormal`] when `||QᵀQ - I||_F` exceeds 1/2; `q` and `d` are untouched then.
pub fn warm<T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: MatRef<'_, T>,
    mut q: MatMut<'_, T>,
    d: &mut [T],
    budget: Budget,
    scratch: &mut [T],
) -> Result<Outcome, EighError> {
    let n = a.rows();
    check(&a, &q, d, scratch.len())?;
    let scale = Scale::of(&a)?;
    for (row, col) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
        if !q.at(row, col).is_finite() {
            return Err(EighError::NotFinite { row, col });
        }
    }
    let (scratch, pack) = scratch.split_at_mut(super::scratch_len::<T>(n) - gemm_scratch_len::<T>(n, n, n));
    let mut tournament = Tournament::new(scratch, n);
    tournament.vectors_mut()?.copy_from(q.as_ref().transposed())?;
    orthonormalise(kernel, &mut tournament, &mut q, pack)?;

    // B = V (A Vᵀ) with V = Qᵀ; q serves as the room between the two products.
    scale.copy(&a, tournament.matrix_mut()?);
    let (v, b) = tournament.parts_mut()?;
    gemm(kernel, q.reborrow(), Accumulate::Replace(T::ONE), b.as_ref(), v.as_ref().transposed(), pack)?;
    let (v, mut b) = tournament.parts_mut()?;
    gemm(kernel, b.reborrow(), Accumulate::Replace(T::ONE), v.as_ref(), q.as_ref(), pack)?;
    for i in 0..n {
        for j in 0..i {
            b.set(j, i, b.at(i, j));
        }
    }
    finish(kernel, tournament, (q, d), budget, scale)
}

/// `V <- (3I - V Vᵀ) V / 2` for `V = Qᵀ`, once, or until it was within `sqrt(eps)` of orthonormal before the step.
///
/// `q` must hold `Qᵀ`'s transpose; it is the room for the result, and written only once `V` is known to be mendable.
fn orthonormalise<T: Scalar, K: Kernel<T>>(
    kernel: K,
    tournament: &mut Tournament<'_, T>,
    q: &mut MatMut<'_, T>,
    pack: &mut [T],
) -> Result<(), EighError> {
    let (half, close) = (T::from_f64(0.5), T::EPSILON.sqrt().to_f64());
    let (mut v, mut gram) = tournament.parts_mut()?;
    // From 1/2 the deviation falls to 0.19, 0.03, 5e-4, 2e-7, 4e-14: the sixth step is the last in any precision.
    for _ in 0..6 {
        gemm(
            kernel,
            gram.reborrow(),
            Accumulate::Replace(T::ONE),
            v.as_ref(),
            v.as_ref().transposed(),
            pack,
        )?;
        let deviation = distance_from_identity(gram.as_ref());
        // NaN comes from an overflow.
        if deviation.is_nan() || deviation > MENDABLE {
            return Err(EighError::NotOrthonormal { deviation });
        }
        let mut next = q.reborrow().transposed();
        for (i, j) in (0..v.rows()).flat_map(|i| (0..v.cols()).map(move |j| (i, j))) {
            next.set(i, j, v.at(i, j) + half * v.at(i, j));
        }
        gemm(kernel, next.reborrow(), Accumulate::Add(-half), gram.as_ref(), v.as_ref(), pack)?;
        v.copy_from(next.as_ref())?;
        if deviation <= close {
            break;
        }
    }
    Ok(())
}

/// `||A - I||_F`.
fn distance_from_identity<T: Scalar>(a: MatRef<'_, T>) -> f64 {
    let mut squares = T::ZERO;
    for i in 0..a.rows() {
        for j in 0..a.cols() {
            let x = if i == j { a.at(i, j) - T::ONE } else { a.at(i, j) };
            squares += x * x;
        }
    }
    squares.sqrt().to_f64()
}
