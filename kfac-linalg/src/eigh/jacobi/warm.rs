//! Warm start: the basis of a matrix that has changed a little.

use super::sweep::Tournament;
use super::{Budget, EighError, Mirror, Outcome, Scale, check, fill, finish};
use crate::kernel::Kernel;
use crate::product::{Accumulate, dot, gemm, gemm_scratch_len};
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
    let scale = Scale::of_rows(kernel, &a)?;
    for row in 0..n {
        let mut elements = 0..n;
        let culprit = match q.row_mut(row) {
            // Without a branch an element: all of them first.
            Some(q) if q.iter().fold(true, |finite, x| finite & x.is_finite()) => None,
            _ => elements.find(|&col| !q.at(row, col).is_finite()),
        };
        if let Some(col) = culprit {
            return Err(EighError::NotFinite { row, col });
        }
    }
    let (scratch, pack) = scratch.split_at_mut(super::scratch_len::<T>(n) - gemm_scratch_len::<T>(n, n, n));
    let mut tournament = Tournament::new(scratch, n);
    tournament.vectors_mut()?.copy_from(q.as_ref().transposed())?;
    orthonormalise(kernel, &mut tournament, &mut q, pack)?;

    // B = V (A Vᵀ) with V = Qᵀ; q serves as the room between the two products.
    fill(kernel, a, &scale, tournament.matrix_mut()?);
    let (v, b) = tournament.parts_mut()?;
    gemm(kernel, q.reborrow(), Accumulate::Replace(T::ONE), b.as_ref(), v.as_ref().transposed(), pack)?;
    let (v, mut b) = tournament.parts_mut()?;
    gemm(kernel, b.reborrow(), Accumulate::Replace(T::ONE), v.as_ref(), q.as_ref(), pack)?;
    kernel.run(Mirror(b));
    finish(kernel, tournament, (q, d), budget, scale)
}

/// `V <- V - E V / 2`, `E = V Vᵀ - I`, for `V = Qᵀ`: once, or until it was within `sqrt(eps)` of orthonormal before the
/// step.
///
/// `q` is the room for the result, and written only once `V` is known to be mendable.
fn orthonormalise<T: Scalar, K: Kernel<T>>(
    kernel: K,
    tournament: &mut Tournament<'_, T>,
    q: &mut MatMut<'_, T>,
    pack: &mut [T],
) -> Result<(), EighError> {
    let (half, close) = (T::from_f64(0.5), T::EPSILON.sqrt().to_f64());
    let (mut v, mut error) = tournament.parts_mut()?;
    // From 1/2 the deviation falls to 0.19, 0.03, 5e-4, 2e-7, 4e-14: the sixth step is the last in any precision.
    for _ in 0..6 {
        let transposed = v.as_ref().transposed();
        gemm(kernel, error.reborrow(), Accumulate::Replace(T::ONE), v.as_ref(), transposed, pack)?;
        let mut squares = T::ZERO;
        for i in 0..v.rows() {
            error.set(i, i, error.at(i, i) - T::ONE);
            if let Some(row) = error.row_mut(i) {
                squares += dot(row, row)?;
            }
        }
        let deviation = squares.sqrt().to_f64();
        // NaN comes from an overflow.
        if deviation.is_nan() || deviation > MENDABLE {
            return Err(EighError::NotOrthonormal { deviation });
        }
        q.copy_from(v.as_ref())?;
        gemm(kernel, q.reborrow(), Accumulate::Add(-half), error.as_ref(), v.as_ref(), pack)?;
        v.copy_from(q.as_ref())?;
        if deviation <= close {
            break;
        }
    }
    Ok(())
}
