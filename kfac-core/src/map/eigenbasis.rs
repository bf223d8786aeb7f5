use super::basis::{
    DECOMPOSITION, ROTATION, decompose, decomposition_cost, decomposition_routine, in_eigenbases, largest,
    rows_in_eigenbases,
};
use super::{
    BatchRows, Cost, Cubic, DampingInForce, FactorMap, Map, MapError, MomentMap, RefreshUnit, Refreshed,
    Renewal, RowProducts, RowsMap, RowsRoute, SpectralMap, Workspace,
};
use crate::memory::{LayerState, Layout, SideLayout};
use crate::shape::Side;
use kfac_linalg::eigh::jacobi::Budget;
use kfac_linalg::eigh::{Eigensolver, Jacobi, Method, Qr};
use kfac_linalg::{Kernel, Scalar};

/// `U = Q_G [(Q_Gᵀ V Q_A) / (d_G d_Aᵀ + λ)] Q_Aᵀ`: the damping of `A (x) G + λ I` is exact for every `λ`, with no
/// new decomposition. Only the division costs `O(mn)`; the four products cost `O(mn(m+n))`.
///
/// The eigenbases come from the solver `S`: Householder reduction and QR, or Jacobi's method, whose code is smaller,
/// whose work is bounded, and which begins each refresh from the basis of the last one. The damping is the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Eigenbasis<S = Qr> {
    /// What renews the eigenbases.
    pub solver: S,
}

impl Eigenbasis<Qr> {
    /// Decomposes to full accuracy by QR, the fastest way at every size.
    pub const fn full() -> Self {
        Self { solver: Qr }
    }
}

impl Eigenbasis<Jacobi> {
    /// Decomposes to full accuracy by Jacobi's method; a factor on which the sweeps do not suffice is an error.
    pub const fn jacobi() -> Self {
        Self { solver: Jacobi { budget: Budget::FULL } }
    }

    /// Takes the basis that a bounded number of Jacobi's sweeps reaches. It is orthogonal whatever the number, and the
    /// next refresh goes on from it.
    pub const fn bounded(sweeps: u8) -> Self {
        Self { solver: Jacobi { budget: Budget::bounded(sweeps) } }
    }

    /// The cost of one refresh, for [`Schedule::worst_step_flops`](crate::schedule::Schedule::worst_step_flops).
    pub const fn refresh_cost(self) -> Cost {
        Cost {
            unit: RefreshUnit::Side,
            cubic: Cubic::Both(Method::Jacobi.flops(1, self.solver.budget.sweeps as u32)),
        }
    }
}

impl<T: Scalar, S: Renewal> Map<T> for Eigenbasis<S> {
    const NAME: &'static str = match <S::Solver as Eigensolver>::METHOD {
        Method::Qr => "eigenbasis",
        Method::Jacobi => "eigenbasis by jacobi",
    };
    /// The statistics, the eigenvectors, the eigenvalues.
    const LAYOUT: Layout = Layout::of_both_sides(SideLayout { square: 1, diagonal: 1, ..SideLayout::MOMENT });
    const UNIT: RefreshUnit = RefreshUnit::Side;
    const DAMPING: DampingInForce = DampingInForce::Current;
    const REFRESH: Workspace = Workspace { routine: decomposition_routine::<S>(), ..DECOMPOSITION };
    const APPLY: Workspace = ROTATION;

    fn cost(&self) -> Cost {
        decomposition_cost(self.solver)
    }

    fn refresh<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &mut LayerState<'_, T>,
        side: Side,
        _lambda: T,
        scratch: &mut [T],
    ) -> Result<Refreshed, MapError> {
        decompose(kernel, self.solver, layer.side(side), side, scratch)
    }

    fn apply<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, T>,
        lambda: T,
        v: &mut [T],
        scratch: &mut [T],
    ) -> Result<(), MapError> {
        expect_range(layer, lambda)?;
        in_eigenbases(kernel, layer, v, scratch, |v| divide(layer, lambda, v))
    }
}

impl<T: Scalar, S: Renewal> RowsMap<T> for Eigenbasis<S> {
    const ROWS: RowsRoute = RowsRoute::Bases;

    fn apply_rows<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, T>,
        lambda: T,
        rows: BatchRows<'_, T>,
        scratch: &mut [T],
    ) -> Result<Option<RowProducts<T>>, MapError> {
        expect_range(layer, lambda)?;
        rows_in_eigenbases(kernel, layer, rows, scratch, |v, _| {
            divide(layer, lambda, v);
            Ok(())
        })
    }
}

/// Refuses eigenvalues whose product is not finite: what is divided by it would vanish.
fn expect_range<T: Scalar>(layer: &LayerState<'_, T>, lambda: T) -> Result<(), MapError> {
    let (input, output) = (largest(layer.input.diagonal), largest(layer.output.diagonal));
    if (output * input + lambda).is_finite() {
        return Ok(());
    }
    Err(MapError::Range { input: input.to_f64(), output: output.to_f64() })
}

fn divide<T: Scalar>(layer: &LayerState<'_, T>, lambda: T, v: &mut [T]) {
    for (row, &dg) in v.chunks_exact_mut(layer.input.size).zip(&*layer.output.diagonal) {
        for (value, &da) in row.iter_mut().zip(&*layer.input.diagonal) {
            *value /= dg * da + lambda;
        }
    }
}

impl<T: Scalar, S: Renewal> SpectralMap<T> for Eigenbasis<S> {
    fn curvature(layer: &LayerState<'_, T>, [row, column]: [usize; 2]) -> T {
        layer.output.diagonal[row] * layer.input.diagonal[column]
    }
}

impl<T: Scalar, S: Renewal> FactorMap<T> for Eigenbasis<S> {}
impl<T: Scalar, S: Renewal> MomentMap<T> for Eigenbasis<S> {}
