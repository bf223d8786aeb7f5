use super::rows::BAND;
use super::{
    BatchRows, Cost, Cubic, DampingInForce, FactorMap, Map, MapError, MomentMap, RefreshUnit, Refreshed,
    Routine, RowProducts, RowsMap, RowsRoute, Workspace, take,
};
use crate::damping::split::{Split, Trace, split_damping};
use crate::memory::{LayerState, Layout, SideLayout, SideState, unpack};
use crate::shape::Side;
use kfac_linalg::product::{Accumulate, gemm, sum_terms};
use kfac_linalg::{Kernel, MatMut, MatRef, PackedMut, Scalar, ShapeError, cholesky};

/// `U = (G + √λ/π I)⁻¹ V (A + π√λ I)⁻¹`: two inverses of positive definite matrices, damping split by `π`.
///
/// The cheapest map to refresh and to apply. Its damping is that of the last refresh. See
/// [`split_damping`] for `π` and its corner cases.
///
/// # Source
/// Martens and Grosse 2015, sections 4.2 and 6.3, arXiv:1503.05671.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Factored;

impl<T: Scalar> Map<T> for Factored {
    const NAME: &'static str = "factored";
    /// The statistics and the damped inverse, both packed.
    const LAYOUT: Layout = Layout::of_both_sides(SideLayout { packed: 1, ..SideLayout::MOMENT });
    const UNIT: RefreshUnit = RefreshUnit::Layer;
    const DAMPING: DampingInForce = DampingInForce::LastRefresh;
    /// Both damped factors side by side: they are committed together or not at all.
    const REFRESH: Workspace = Workspace {
        both_squares: 1,
        largest_squares: 0,
        vectors: 0,
        per_weight: 0,
        routine: Routine::Inverse,
    };
    /// One inverse unpacked at a time, and `G⁻¹V`.
    const APPLY: Workspace = Workspace {
        both_squares: 0,
        largest_squares: 1,
        vectors: 0,
        per_weight: 1,
        routine: Routine::Products,
    };

    fn cost(&self) -> Cost {
        Cost { unit: RefreshUnit::Layer, cubic: Cubic::Both(1) }
    }

    fn refresh<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &mut LayerState<'_, T>,
        side: Side,
        lambda: T,
        mut scratch: &mut [T],
    ) -> Result<Refreshed, MapError> {
        let (n, m) = (layer.input.size, layer.output.size);
        let split = split_damping(Trace::of(&layer.input)?, Trace::of(&layer.output)?, lambda)?;
        let (a_hat, g_hat) = (take(&mut scratch, n * n)?, take(&mut scratch, m * m)?);
        let zero_trace = match split {
            Split::Shift { input, output } => {
                write_damped(&layer.input, input, a_hat)?;
                write_damped(&layer.output, output, g_hat)?;
                false
            }
            Split::Replace { gamma } => {
                write_multiple_of_identity(n, gamma, a_hat);
                write_multiple_of_identity(m, gamma, g_hat);
                true
            }
        };
        invert(kernel, Side::Input, n, a_hat, scratch)?;
        invert(kernel, Side::Output, m, g_hat, scratch)?;
        // Both inverses stand: only now is the layer touched.
        PackedMut::new(layer.input.packed, n)?.pack(MatRef::row_major(a_hat, n, n)?)?;
        PackedMut::new(layer.output.packed, m)?.pack(MatRef::row_major(g_hat, m, m)?)?;
        let flops = Map::<T>::cost(self).flops(layer.shape, side);
        Ok(Refreshed { flops, sweeps: 0, zero_trace, is_kept: false })
    }

    fn apply<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, T>,
        _lambda: T,
        v: &mut [T],
        mut scratch: &mut [T],
    ) -> Result<(), MapError> {
        let (n, m) = (layer.input.size, layer.output.size);
        let largest = layer.shape.largest_side();
        let (square, left) = (take(&mut scratch, largest * largest)?, take(&mut scratch, m * n)?);
        let replace = Accumulate::Replace(T::ONE);

        let g_inverse = unpack(layer.output.packed, m, square)?;
        let into = MatMut::row_major(left, m, n)?;
        gemm(kernel, into, replace, g_inverse, MatRef::row_major(v, m, n)?, scratch)?;
        let a_inverse = unpack(layer.input.packed, n, square)?;
        let into = MatMut::row_major(v, m, n)?;
        Ok(gemm(kernel, into, replace, MatRef::row_major(left, m, n)?, a_inverse, scratch)?)
    }
}

impl<T: Scalar> RowsMap<T> for Factored {
    const ROWS: RowsRoute = RowsRoute::Inverses;

    fn apply_rows<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, T>,
        _lambda: T,
        rows: BatchRows<'_, T>,
        mut scratch: &mut [T],
    ) -> Result<Option<RowProducts<T>>, MapError> {
        let (n, m, b) = (layer.input.size, layer.output.size, rows.inputs.rows());
        let (x, d, share) = (rows.inputs, rows.gradients, rows.share());
        let largest = layer.shape.largest_side();
        let square = take(&mut scratch, largest * largest)?;
        let (solved_x, solved_d) = (take(&mut scratch, b * n)?, take(&mut scratch, b * m)?);
        let (of_d, of_x) = (take(&mut scratch, b * b)?, take(&mut scratch, b * b)?);
        let one = Accumulate::Replace(T::ONE);

        let a_inverse = unpack(layer.input.packed, n, square)?;
        gemm(kernel, MatMut::row_major(solved_x, b, n)?, one, x, a_inverse, scratch)?;
        let g_inverse = unpack(layer.output.packed, m, square)?;
        gemm(kernel, MatMut::row_major(solved_d, b, m)?, one, d, g_inverse, scratch)?;
        let (solved_x, solved_d) = (MatRef::row_major(solved_x, b, n)?, MatRef::row_major(solved_d, b, m)?);
        let u = MatMut::row_major(rows.u, m, n)?;
        gemm(kernel, u, Accumulate::Replace(share), solved_d.transposed(), solved_x, scratch)?;

        // `Σ_kl (g_k · d_l) (a_k · x_l) / b²` with `g = G⁻¹ d`, `a = A⁻¹ x`; both factors are symmetric in `k` and `l`.
        for start in (0..b).step_by(BAND) {
            let (rows, end) = (start..b.min(start + BAND), b.min(start + BAND));
            for (of, solved, raw) in [(&mut *of_d, solved_d, d), (&mut *of_x, solved_x, x)] {
                let width = raw.cols();
                let into = MatMut::row_major(of, b, b)?.block(rows.clone(), 0..end)?;
                let (left, right) = (solved.block(rows.clone(), 0..width)?, raw.block(0..end, 0..width)?);
                gemm(kernel, into, one, left, right.transposed(), scratch)?;
            }
        }
        let (two, mut sum, mut magnitudes) = (T::from_usize(2), T::ZERO, T::ZERO);
        for (k, (of_d, of_x)) in of_d.chunks_exact(b).zip(of_x.chunks_exact(b)).enumerate() {
            let (below, diagonal) = ([&of_d[..k], &of_x[..k]], of_d[k] * of_x[k]);
            sum += two * sum_terms(below, |[d, x]| d * x)? + diagonal;
            magnitudes += two * sum_terms(below, |[d, x]| (d * x).abs())? + diagonal.abs();
        }
        // Each term is good to a few roundings of its own size: what is left of them must be far above that.
        let is_meaningful = magnitudes.is_finite() && sum > T::EPSILON.sqrt() * magnitudes;
        Ok(is_meaningful.then_some(RowProducts { inner: (share * sum) * share, gradient_squares: None }))
    }
}

impl<T: Scalar> FactorMap<T> for Factored {}
impl<T: Scalar> MomentMap<T> for Factored {}

/// The factor with `shift` added to its diagonal.
pub(crate) fn write_damped<T: Scalar>(
    side: &SideState<'_, T>,
    shift: T,
    out: &mut [T],
) -> Result<(), ShapeError> {
    side.write_factor(out)?;
    for value in out.iter_mut().step_by(side.size + 1) {
        *value += shift;
    }
    Ok(())
}

pub(crate) fn write_multiple_of_identity<T: Scalar>(size: usize, multiple: T, out: &mut [T]) {
    out.fill(T::ZERO);
    for value in out.iter_mut().step_by(size + 1) {
        *value = multiple;
    }
}

pub(crate) fn invert<T: Scalar, K: Kernel<T>>(
    kernel: K,
    side: Side,
    size: usize,
    square: &mut [T],
    scratch: &mut [T],
) -> Result<(), MapError> {
    cholesky::inverse(kernel, MatMut::row_major(square, size, size)?, scratch)
        .map_err(|error| MapError::Inverse { side, error })?;
    if square.iter().any(|value| !value.is_finite()) {
        return Err(MapError::NotFinite { side });
    }
    Ok(())
}
