//! The eigenbasis of one factor, which several maps keep.

use super::{
    BatchRows, Cost, Cubic, MapError, RefreshUnit, Refreshed, Renewal, Routine, RowProducts, Workspace, cube,
    take,
};
use crate::memory::{LayerState, SideState};
use crate::shape::Side;
use crate::statistics::factor::largest_magnitude;
use kfac_linalg::eigh::Eigensolver;
use kfac_linalg::product::{Accumulate, dot, gemm};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar, ShapeError};

/// Scratch of [`decompose`], less the solver's: the factor, and the new eigenvectors and eigenvalues until they are known
/// to be good.
pub(super) const DECOMPOSITION: Workspace = Workspace { largest_squares: 2, vectors: 1, ..Workspace::NONE };

/// The routine of [`decompose`].
pub(super) const fn decomposition_routine<S: Renewal>() -> Routine {
    let method = <S::Solver as Eigensolver>::METHOD;
    if S::TESTS { Routine::EighAndProducts(method) } else { Routine::Eigh(method) }
}

/// Flops per `n³` that a schedule counts on for [`decompose`].
pub(super) fn decomposition_flops<S: Renewal>(renewal: S) -> u64 {
    let decomposition = <S::Solver as Eigensolver>::METHOD.flops(1, renewal.solver().planned_sweeps(1));
    decomposition + if S::TESTS { TEST_FLOPS } else { 0 }
}

/// The same as the cost of either side.
pub(super) fn decomposition_cost<S: Renewal>(renewal: S) -> Cost {
    Cost { unit: RefreshUnit::Side, cubic: Cubic::Both(decomposition_flops(renewal)) }
}

/// Flops of [`is_kept`] per `n³`.
const TEST_FLOPS: u64 = 4;

/// Eigenvectors into the first square of `arrays` and eigenvalues, not below 0, into its first vector; a warm start from
/// what was there, if the solver has use for it, or what was there itself. On failure nothing is written.
pub(super) fn decompose<T: Scalar, K: Kernel<T>, S: Renewal>(
    kernel: K,
    renewal: S,
    arrays: &mut SideState<'_, T>,
    side: Side,
    mut scratch: &mut [T],
) -> Result<Refreshed, MapError> {
    let n = arrays.size;
    let (factor, basis) = (take(&mut scratch, n * n)?, take(&mut scratch, n * n)?);
    let eigenvalues = take(&mut scratch, n)?;
    arrays.write_factor(factor)?;
    let zero_trace = is_zero(factor, n);
    // A fresh layer's basis is zero, which no orthogonal matrix is.
    let is_cold = arrays.square[..n * n].iter().all(|&value| value == T::ZERO);
    let test_flops = if S::TESTS && !is_cold { cube(n).saturating_mul(TEST_FLOPS) } else { 0 };
    if S::TESTS && !is_cold {
        if is_kept(kernel, arrays, renewal.tolerance(), [&mut *factor, &mut *basis], scratch)? {
            return Ok(Refreshed { flops: test_flops, sweeps: 0, zero_trace, is_kept: true });
        }
        arrays.write_factor(factor)?;
    }
    let kept = &mut arrays.square[..n * n];
    basis.copy_from_slice(kept);
    let decompose = if is_cold { S::Solver::cold::<T, K> } else { S::Solver::warm::<T, K> };
    let a = MatRef::row_major(factor, n, n)?;
    let q = MatMut::row_major(basis, n, n)?;
    let outcome = decompose(renewal.solver(), kernel, a, q, eigenvalues, scratch)
        .map_err(|error| MapError::Eigh { side, error })?;
    if basis.iter().chain(&*eigenvalues).any(|value| !value.is_finite()) {
        return Err(MapError::NotFinite { side });
    }
    kept.copy_from_slice(basis);
    // A second moment has no negative eigenvalue; rounding has.
    for (kept, &found) in arrays.diagonal.iter_mut().zip(&*eigenvalues) {
        *kept = found.maximum(T::ZERO);
    }
    let flops = <S::Solver as Eigensolver>::METHOD.flops(n, outcome.sweeps).saturating_add(test_flops);
    Ok(Refreshed { flops, sweeps: outcome.sweeps, zero_trace, is_kept: false })
}

/// Is the old basis `Q` of a factor still good to `tolerance`? If so, the diagonal of `QᵀAQ` becomes its eigenvalues. `squares`: `A`,
/// which is lost, and as many numbers again.
fn is_kept<T: Scalar, K: Kernel<T>>(
    kernel: K,
    arrays: &mut SideState<'_, T>,
    tolerance: f64,
    [factor, half]: [&mut [T]; 2],
    scratch: &mut [T],
) -> Result<bool, MapError> {
    let (n, one) = (arrays.size, Accumulate::Replace(T::ONE));
    let q = MatRef::row_major(arrays.square, n, n)?;
    gemm(kernel, MatMut::row_major(half, n, n)?, one, MatRef::row_major(factor, n, n)?, q, scratch)?;
    let (half, rotated) = (MatRef::row_major(half, n, n)?, factor);
    gemm(kernel, MatMut::row_major(rotated, n, n)?, one, q.transposed(), half, scratch)?;

    // In units of the largest, so that no square leaves the range.
    let unit = largest_magnitude(rotated).to_f64();
    let (mut all, mut off_diagonal) = (0.0, 0.0);
    for (row, values) in rotated.chunks_exact(n).enumerate() {
        for (column, value) in values.iter().enumerate() {
            let share = if unit > 0.0 { value.to_f64() / unit } else { 0.0 };
            let square = share * share;
            all += square;
            off_diagonal += if row == column { 0.0 } else { square };
        }
    }
    // What is not finite is for the solver to name.
    let is_kept = f64::is_finite(all) && off_diagonal <= (tolerance * tolerance) * all;
    if is_kept {
        for (kept, &found) in arrays.diagonal.iter_mut().zip(rotated.iter().step_by(n + 1)) {
            *kept = found.maximum(T::ZERO);
        }
    }
    Ok(is_kept)
}

/// The largest of numbers that are not negative.
pub(crate) fn largest<T: Scalar>(numbers: &[T]) -> T {
    numbers.iter().fold(T::ZERO, |most, &number| most.maximum(number))
}

/// Is the diagonal of a second moment zero, and with it all of it?
pub(crate) fn is_zero<T: Scalar>(factor: &[T], n: usize) -> bool {
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

/// `U <- Q_G [divide((1/b) (D Q_G)ᵀ (X Q_A))] Q_Aᵀ`, and the sums, which a rotation leaves as they are. `divide` is lent what is left
/// of the scratch.
pub(super) fn rows_in_eigenbases<T: Scalar, K: Kernel<T>>(
    kernel: K,
    layer: &LayerState<'_, T>,
    rows: BatchRows<'_, T>,
    scratch: &mut [T],
    divide: impl FnOnce(&mut [T], &mut [T]) -> Result<(), MapError>,
) -> Result<Option<RowProducts<T>>, MapError> {
    let (n, m, b) = (layer.input.size, layer.output.size, rows.inputs.rows());
    let bases = bases(layer, 0)?;
    let (share, [qg, qa], one) = (rows.share(), bases, Accumulate::Replace(T::ONE));
    let u = rows.u;
    let products = {
        let mut scratch = &mut *scratch;
        let v = take(&mut scratch, m * n)?;
        let (x, d) = (take(&mut scratch, b * n)?, take(&mut scratch, b * m)?);
        gemm(kernel, MatMut::row_major(x, b, n)?, one, rows.inputs, qa, scratch)?;
        gemm(kernel, MatMut::row_major(d, b, m)?, one, rows.gradients, qg, scratch)?;
        let (x, d) = (MatRef::row_major(x, b, n)?, MatRef::row_major(d, b, m)?);
        gemm(kernel, MatMut::row_major(u, m, n)?, Accumulate::Replace(share), d.transposed(), x, scratch)?;
        v.copy_from_slice(u);
        divide(u, scratch)?;
        RowProducts { inner: dot(v, u)?, gradient_squares: Some(dot(v, v)?) }
    };
    sandwich(kernel, bases, one, u, scratch)?;
    // Out of range: whether `V` is, too, only `V` itself can say.
    let is_in_range = products.inner.is_finite() && products.gradient_squares.is_some_and(T::is_finite);
    Ok(is_in_range.then_some(products))
}
