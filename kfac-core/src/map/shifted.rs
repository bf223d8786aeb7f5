use super::basis::{DECOMPOSITION, decompose, decomposition_flops, is_zero, rows_in_eigenbases};
use super::{
    BatchRows, Cost, Cubic, DampingInForce, FactorMap, Map, MapError, MomentMap, RefreshUnit, Refreshed,
    Renewal, Routine, RowProducts, RowsMap, RowsRoute, Workspace, take,
};
use crate::memory::{LayerState, Layout, SideLayout, SideState};
use crate::shape::Side;
use kfac_linalg::eigh::{Eigensolver, Method, Qr, qr};
use kfac_linalg::product::{Accumulate, gemm};
use kfac_linalg::shifted::{self, Shifts, Tridiagonal};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar, ShapeError};

/// The same `U` as [`Eigenbasis`](super::Eigenbasis), without eigenvectors of the larger side: exact damping at a
/// fraction of the refresh.
///
/// With `G = Q_G diag(d) Q_Gᵀ` the smaller factor, row `j` of `Q_Gᵀ V` is multiplied by `(d_j A + λ I)⁻¹` through the
/// tridiagonal form `A = Q T Qᵀ`: one tridiagonal system per row between the same four products. Where `A` is the smaller
/// one, the other way round. In single precision it is more accurate than eigenvectors when the spectrum falls
/// below the rounding of the largest eigenvalue. The damping is the current one.
///
/// # Source
/// Golub and Van Loan, Matrix Computations, 4th edition, sections 4.3 and 8.3; the damping is that of Martens and Grosse
/// 2015, appendix B, arXiv:1503.05671.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shifted<S = Qr> {
    /// What decomposes the smaller factors.
    pub solver: S,
}

impl Shifted<Qr> {
    /// Decomposes the smaller factors by QR, the fastest way at every size.
    pub const fn full() -> Self {
        Self { solver: Qr }
    }
}

impl<T: Scalar, S: Renewal> Map<T> for Shifted<S> {
    const NAME: &'static str = match <S::Solver as Eigensolver>::METHOD {
        Method::Qr => "shifted",
        Method::Jacobi => "shifted, jacobi",
    };
    /// The statistics; on the smaller side eigenvectors and eigenvalues, on the larger one `Q` and `T`.
    const LAYOUT: Layout = Layout::of_both_sides(SideLayout { square: 1, diagonal: 2, ..SideLayout::MOMENT });
    const UNIT: RefreshUnit = RefreshUnit::Side;
    const DAMPING: DampingInForce = DampingInForce::Current;
    /// Two squares and a vector as for a decomposition, and the off-diagonal of `T`.
    const REFRESH: Workspace = Workspace {
        vectors: DECOMPOSITION.vectors + 1,
        routine: Routine::Reduction(<S::Solver as Eigensolver>::METHOD),
        ..DECOMPOSITION
    };
    /// The half-transformed gradient.
    const APPLY: Workspace = Workspace {
        both_squares: 0,
        largest_squares: 0,
        vectors: 0,
        per_weight: 1,
        routine: Routine::Shifted,
    };

    fn cost(&self) -> Cost {
        let smaller = decomposition_flops(self.solver);
        Cost { unit: RefreshUnit::Side, cubic: Cubic::Sizes { smaller, larger: Method::Qr.flops(1, 0) } }
    }

    fn refresh<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &mut LayerState<'_, T>,
        side: Side,
        _lambda: T,
        scratch: &mut [T],
    ) -> Result<Refreshed, MapError> {
        if side == layer.shape.smaller_side() {
            decompose(kernel, self.solver, layer.side(side), side, scratch)
        } else {
            reduce(kernel, layer.side(side), side, scratch)
        }
    }

    fn apply<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, T>,
        lambda: T,
        v: &mut [T],
        mut scratch: &mut [T],
    ) -> Result<(), MapError> {
        let (n, m) = (layer.input.size, layer.output.size);
        let half = take(&mut scratch, m * n)?;
        let replace = Accumulate::Replace(T::ONE);
        // Of `V` or of its transpose, so that rows belong to the smaller side.
        let (v, half) = (MatMut::row_major(v, m, n)?, MatMut::row_major(half, m, n)?);
        let (rows, columns, v, mut half) = match layer.shape.smaller_side() {
            Side::Output => (&layer.output, &layer.input, v, half),
            Side::Input => (&layer.input, &layer.output, v.transposed(), half.transposed()),
        };
        let basis = MatRef::row_major(rows.square, rows.size, rows.size)?;
        let (form, shifts) = (tridiagonal_form(columns)?, Shifts { d: &rows.diagonal[..rows.size], lambda });

        gemm(kernel, half.reborrow(), replace, basis.transposed(), v.as_ref(), scratch)?;
        shifted::solve(kernel, form, shifts, half.reborrow().transposed(), scratch)
            .map_err(MapError::Shifted)?;
        Ok(gemm(kernel, v, replace, basis, half.as_ref(), scratch)?)
    }
}

impl<T: Scalar, S: Renewal> RowsMap<T> for Shifted<S> {
    const ROWS: RowsRoute = RowsRoute::Tridiagonal;

    fn apply_rows<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, T>,
        lambda: T,
        rows: BatchRows<'_, T>,
        scratch: &mut [T],
    ) -> Result<Option<RowProducts<T>>, MapError> {
        let smaller = layer.shape.smaller_side();
        let (n, m) = (layer.input.size, layer.output.size);
        rows_in_eigenbases(kernel, layer, rows, scratch, |v, scratch| {
            let v = MatMut::row_major(v, m, n)?;
            let (rows, columns, v) = match smaller {
                Side::Output => (&layer.output, &layer.input, v.transposed()),
                Side::Input => (&layer.input, &layer.output, v),
            };
            let shifts = Shifts { d: &rows.diagonal[..rows.size], lambda };
            let form = tridiagonal_form(columns)?;
            shifted::solve_rotated(kernel, form, shifts, v, scratch).map_err(MapError::Shifted)
        })
    }
}

fn tridiagonal_form<'a, T: Scalar>(side: &'a SideState<'_, T>) -> Result<Tridiagonal<'a, T>, ShapeError> {
    let n = side.size;
    Ok(Tridiagonal {
        q: MatRef::row_major(side.square, n, n)?,
        diagonal: &side.diagonal[..n],
        off_diagonal: &side.diagonal[n..][..n - 1],
    })
}

impl<T: Scalar, S: Renewal> FactorMap<T> for Shifted<S> {}
impl<T: Scalar, S: Renewal> MomentMap<T> for Shifted<S> {}

/// `Q` into the square of `arrays`, diagonal and off-diagonal of `T` into its vectors. On failure nothing is written.
fn reduce<T: Scalar, K: Kernel<T>>(
    kernel: K,
    arrays: &mut SideState<'_, T>,
    side: Side,
    mut scratch: &mut [T],
) -> Result<Refreshed, MapError> {
    let n = arrays.size;
    let (factor, basis) = (take(&mut scratch, n * n)?, take(&mut scratch, n * n)?);
    let (diagonal, off_diagonal) = take(&mut scratch, 2 * n)?.split_at_mut(n);
    arrays.write_factor(factor)?;
    let zero_trace = is_zero(factor, n);
    let (a, q) = (MatRef::row_major(factor, n, n)?, MatMut::row_major(basis, n, n)?);
    qr::tridiagonal(kernel, a, q, diagonal, &mut off_diagonal[..n - 1], scratch)
        .map_err(|error| MapError::Eigh { side, error })?;
    off_diagonal[n - 1] = T::ZERO;
    if basis.iter().any(|value| !value.is_finite()) {
        return Err(MapError::NotFinite { side });
    }
    arrays.square.copy_from_slice(basis);
    arrays.diagonal[..n].copy_from_slice(diagonal);
    arrays.diagonal[n..].copy_from_slice(off_diagonal);
    // QR without a sweep.
    Ok(Refreshed { flops: Method::Qr.flops(n, 0), sweeps: 0, zero_trace, is_kept: false })
}
