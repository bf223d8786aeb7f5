//! The eigenbasis of one factor, which several maps keep.

use super::{Cost, Cubic, MapError, RefreshUnit, Refreshed, Routine, Workspace, take};
use crate::memory::{LayerState, SideState};
use crate::shape::Side;
use kfac_linalg::eigh::{Eigensolver, Method};
use kfac_linalg::product::{Accumulate, gemm};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar, ShapeError};

/// Scratch of [`decompose`], less the solver's: the factor, and the new eigenvectors and eigenvalues until they are known
/// to be good.
pub(super) const DECOMPOSITION: Workspace =
    Workspace { both_squares: 0, largest_squares: 2, vectors: 1, per_weight: 0, routine: Routine::None };

/// What a schedule counts on for [`decompose`] by this solver, on either side.
pub(super) const fn decomposition_cost(method: Method, sweeps: u32) -> Cost {
    Cost { unit: RefreshUnit::Side, cubic: Cubic::Both(method.flops(1, sweeps)) }
}

/// Eigenvectors into the first square of `arrays` and eigenvalues, not below 0, into its first vector; a warm start from
/// what was there, if the solver has use for it. On failure nothing is written.
pub(super) fn decompose<T: Scalar, K: Kernel<T>, S: Eigensolver>(
    kernel: K,
    solver: S,
    arrays: &mut SideState<'_, T>,
    side: Side,
    mut scratch: &mut [T],
) -> Result<Refreshed, MapError> {
    let n = arrays.size;
    let (factor, basis) = (take(&mut scratch, n * n)?, take(&mut scratch, n * n)?);
    let eigenvalues = take(&mut scratch, n)?;
    arrays.write_factor(factor)?;
    let zero_trace = is_zero(factor, n);
    let kept = &mut arrays.square[..n * n];
    basis.copy_from_slice(kept);

    // A fresh layer's basis is zero, which no orthogonal matrix is.
    let is_cold = kept.iter().all(|&value| value == T::ZERO);
    let decompose = if is_cold { S::cold::<T, K> } else { S::warm::<T, K> };
    let a = MatRef::row_major(factor, n, n)?;
    let q = MatMut::row_major(basis, n, n)?;
    let outcome = decompose(solver, kernel, a, q, eigenvalues, scratch)
        .map_err(|error| MapError::Eigh { side, error })?;
    if basis.iter().chain(&*eigenvalues).any(|value| !value.is_finite()) {
        return Err(MapError::NotFinite { side });
    }
    kept.copy_from_slice(basis);
    // A second moment has no negative eigenvalue; rounding has.
    for (kept, &found) in arrays.diagonal.iter_mut().zip(&*eigenvalues) {
        *kept = found.maximum(T::ZERO);
    }
    Ok(Refreshed { flops: S::METHOD.flops(n, outcome.sweeps), sweeps: outcome.sweeps, zero_trace })
}

/// Is the diagonal of a second moment zero, and with it all of it?
pub(super) fn is_zero<T: Scalar>(factor: &[T], n: usize) -> bool {
    factor.iter().step_by(n + 1).all(|&value| value == T::ZERO)
}

/// Scratch of [`in_eigenbases`]: the half-transformed gradient.
pub(super) const ROTATION: Workspace =
    Workspace { both_squares: 0, largest_squares: 0, vectors: 0, per_weight: 1, routine: Routine::Products };

/// `V <- Q_G [divide(Q_Gᵀ V Q_A)] Q_Aᵀ`.
pub(super) fn in_eigenbases<T: Scalar, K: Kernel<T>>(
    kernel: K,
    layer: &LayerState<'_, T>,
    v: &mut [T],
    scratch: &mut [T],
    divide: impl FnOnce(&mut [T]),
) -> Result<(), MapError> {
    let bases = bases(layer, 0)?;
    sandwich(kernel, bases.map(MatRef::transposed), Accumulate::Replace(T::ONE), v, scratch)?;
    divide(v);
    sandwich(kernel, bases, Accumulate::Replace(T::ONE), v, scratch)
}

/// Square number `index` of the gradient side and of the input side.
pub(super) fn bases<'a, T: Scalar>(
    layer: &'a LayerState<'_, T>,
    index: usize,
) -> Result<[MatRef<'a, T>; 2], ShapeError> {
    let square = |side: &'a SideState<'_, T>| {
        let n = side.size;
        MatRef::row_major(&side.square[index * n * n..], n, n)
    };
    Ok([square(&layer.output)?, square(&layer.input)?])
}

/// `V <- scale P V Qᵀ` or `V <- V + scale P V Qᵀ`, for `[P, Q]` of the gradient side and of the input side. Takes the scratch of
/// [`ROTATION`].
pub(super) fn sandwich<T: Scalar, K: Kernel<T>>(
    kernel: K,
    [left, right]: [MatRef<'_, T>; 2],
    accumulate: Accumulate<T>,
    v: &mut [T],
    mut scratch: &mut [T],
) -> Result<(), MapError> {
    let (m, n) = (left.rows(), right.rows());
    let half = take(&mut scratch, m * n)?;
    let into = MatMut::row_major(half, m, n)?;
    gemm(kernel, into, Accumulate::Replace(T::ONE), left, MatRef::row_major(v, m, n)?, scratch)?;
    let half = MatRef::row_major(half, m, n)?;
    Ok(gemm(kernel, MatMut::row_major(v, m, n)?, accumulate, half, right.transposed(), scratch)?)
}
