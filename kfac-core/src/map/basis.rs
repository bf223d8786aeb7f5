//! The eigenbasis of one factor, which several maps keep.

use super::{
    BatchRows, Cost, Cubic, MapError, RefreshUnit, Refreshed, Routine, RowProducts, Workspace, take,
};
use crate::memory::{LayerState, SideState};
use crate::shape::Side;
use kfac_linalg::eigh::{Eigensolver, Method};
use kfac_linalg::product::{Accumulate, dot, gemm};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};

/// Scratch of [`decompose`], less the solver's: the factor, and the new eigenvectors and eigenvalues until they are known
/// to be good.
pub(super) const DECOMPOSITION: Workspace = Workspace { largest_squares: 2, vectors: 1, ..Workspace::NONE };

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

/// The largest of numbers that are not negative.
pub(super) fn largest<T: Scalar>(numbers: &[T]) -> T {
    numbers.iter().fold(T::ZERO, |most, &number| most.maximum(number))
}

/// Is the diagonal of a second moment zero, and with it all of it?
pub(super) fn is_zero<T: Scalar>(factor: &[T], n: usize) -> bool {
    factor.iter().step_by(n + 1).all(|&value| value == T::ZERO)
}

/// Scratch of [`in_eigenbases`]: the half-transformed gradient.
pub(super) const ROTATION: Workspace =
    Workspace { per_weight: 1, routine: Routine::Products, ..Workspace::NONE };

/// `V <- Q_G [divide(Q_Gᵀ V Q_A)] Q_Aᵀ`.
pub(crate) fn in_eigenbases<T: Scalar, K: Kernel<T>>(
    kernel: K,
    layer: &LayerState<'_, T>,
    v: &mut [T],
    mut scratch: &mut [T],
    divide: impl FnOnce(&mut [T]),
) -> Result<(), MapError> {
    let (n, m) = (layer.input.size, layer.output.size);
    let qa = MatRef::row_major(layer.input.square, n, n)?;
    let qg = MatRef::row_major(layer.output.square, m, m)?;
    let half = take(&mut scratch, m * n)?;
    let replace = Accumulate::Replace(T::ONE);

    let into = MatMut::row_major(half, m, n)?;
    gemm(kernel, into, replace, qg.transposed(), MatRef::row_major(v, m, n)?, scratch)?;
    let into = MatMut::row_major(v, m, n)?;
    gemm(kernel, into, replace, MatRef::row_major(half, m, n)?, qa, scratch)?;
    divide(v);
    leave_eigenbases(kernel, layer, v, half, scratch)
}

/// `V <- Q_G V Q_Aᵀ`; `half`: `m n` numbers.
fn leave_eigenbases<T: Scalar, K: Kernel<T>>(
    kernel: K,
    layer: &LayerState<'_, T>,
    v: &mut [T],
    half: &mut [T],
    scratch: &mut [T],
) -> Result<(), MapError> {
    let (n, m) = (layer.input.size, layer.output.size);
    let qa = MatRef::row_major(layer.input.square, n, n)?;
    let qg = MatRef::row_major(layer.output.square, m, m)?;
    let replace = Accumulate::Replace(T::ONE);
    let into = MatMut::row_major(half, m, n)?;
    gemm(kernel, into, replace, qg, MatRef::row_major(v, m, n)?, scratch)?;
    let into = MatMut::row_major(v, m, n)?;
    Ok(gemm(kernel, into, replace, MatRef::row_major(half, m, n)?, qa.transposed(), scratch)?)
}

/// `U <- Q_G [divide((1/b) (D Q_G)ᵀ (X Q_A))] Q_Aᵀ`, and the sums, which a rotation leaves as they are.
pub(super) fn rows_in_eigenbases<T: Scalar, K: Kernel<T>>(
    kernel: K,
    layer: &LayerState<'_, T>,
    rows: BatchRows<'_, T>,
    mut scratch: &mut [T],
    divide: impl FnOnce(&mut [T]),
) -> Result<Option<RowProducts<T>>, MapError> {
    let (n, m, b) = (layer.input.size, layer.output.size, rows.inputs.rows());
    let qa = MatRef::row_major(layer.input.square, n, n)?;
    let qg = MatRef::row_major(layer.output.square, m, m)?;
    let half = take(&mut scratch, m * n)?;
    let (x, d) = (take(&mut scratch, b * n)?, take(&mut scratch, b * m)?);
    let one = Accumulate::Replace(T::ONE);

    gemm(kernel, MatMut::row_major(x, b, n)?, one, rows.inputs, qa, scratch)?;
    gemm(kernel, MatMut::row_major(d, b, m)?, one, rows.gradients, qg, scratch)?;
    let (x, d, share) = (MatRef::row_major(x, b, n)?, MatRef::row_major(d, b, m)?, rows.share());
    let u = rows.u;
    gemm(kernel, MatMut::row_major(u, m, n)?, Accumulate::Replace(share), d.transposed(), x, scratch)?;
    half.copy_from_slice(u);
    divide(u);
    let products = RowProducts { inner: dot(half, u)?, gradient_squares: dot(half, half)? };
    leave_eigenbases(kernel, layer, u, half, scratch)?;
    // Out of range: whether `V` is, too, only `V` itself can say.
    let is_in_range = products.inner.is_finite() && products.gradient_squares.is_finite();
    Ok(is_in_range.then_some(products))
}
