use super::basis::{
    DECOMPOSITION, ROTATION, decompose, decomposition_cost, decomposition_routine, in_eigenbases, largest,
    rows_in_eigenbases,
};
use super::case_gradients::{CaseGradients, divide_by_second_moments, expect_second_moments};
use super::{
    BatchRows, Cost, DampingInForce, FactorMap, Map, MapError, PerCase, RefreshUnit, Refreshed, Renewal,
    RowProducts, RowsMap, RowsRoute, SpectralMap, Workspace,
};
use crate::evidence::{Evidence, Inputs};
use crate::memory::{LayerState, Layout, SideLayout};
use crate::shape::Side;
use kfac_linalg::eigh::{Eigensolver, Jacobi, Method, Qr};
use kfac_linalg::product::ProductError;
use kfac_linalg::{Kernel, MatRef, Scalar};

/// `U = Q_G [(Q_Gᵀ V Q_A) / (s + λ)] Q_Aᵀ` with `s = E[(Q_Gᵀ ∇w Q_A)²]`, element by element, over the cases: K-FAC's
/// eigenbasis with the second moments that the gradients really have in it.
///
/// The gradient `∇w` of a case is the sum over its positions of `g āᵀ`, formed before it is squared. When both sides of a
/// layer have been renewed, `s` is set to `d_G d_Aᵀ`, the value of [`Eigenbasis`](super::Eigenbasis), as the old value of
/// the moving average that the following statistics updates continue. With `s` as it should be the Frobenius error of the
/// block is never larger than that of K-FAC, and its trace is exact. The damping is the current one.
///
/// Finished moments do not say what single cases were: they are refused by type.
///
/// # Source
/// George, Laurent, Bouthillier, Ballas and Vincent 2018, arXiv:1806.03884.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ekfac<S = Qr> {
    /// What renews the eigenbases.
    pub solver: S,
}

impl Ekfac<Qr> {
    /// Decomposes to full accuracy by QR, the fastest way at every size.
    pub const fn full() -> Self {
        Self { solver: Qr }
    }
}

impl Ekfac<Jacobi> {
    /// Takes the basis that a bounded number of Jacobi's sweeps reaches.
    pub const fn bounded(sweeps: u8) -> Self {
        Self { solver: Jacobi { budget: kfac_linalg::eigh::jacobi::Budget::bounded(sweeps) } }
    }
}

impl<T: Scalar, S: Renewal> Map<T> for Ekfac<S> {
    const NAME: &'static str = match <S::Solver as Eigensolver>::METHOD {
        Method::Qr => "ekfac",
        Method::Jacobi => "ekfac by jacobi",
    };
    /// The statistics, the eigenvectors, the eigenvalues, and the weighted sum of `(Q_Gᵀ ∇w Q_A)²`.
    const LAYOUT: Layout = Layout {
        per_weight: 1,
        ..Layout::of_both_sides(SideLayout { square: 1, diagonal: 1, ..SideLayout::MOMENT })
    };
    const UNIT: RefreshUnit = RefreshUnit::Side;
    const DAMPING: DampingInForce = DampingInForce::Current;
    const REFRESH: Workspace = Workspace { routine: decomposition_routine::<S>(), ..DECOMPOSITION };
    const APPLY: Workspace = ROTATION;
    const PER_CASE: PerCase = PerCase::RotatedSquares;

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
        expect_room_for_products(layer, side)?;
        decompose(kernel, self.solver, layer.side(side), side, scratch)
    }

    fn complete(&self, layer: &mut LayerState<'_, T>) {
        let (input, output) = (&layer.input, &layer.output);
        let weight = T::from_f64(output.weight);
        for (row, &dg) in layer.per_weight.chunks_exact_mut(input.size).zip(&*output.diagonal) {
            for (sum, &da) in row.iter_mut().zip(&*input.diagonal) {
                *sum = weight * (dg * da);
            }
        }
    }

    fn apply<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, T>,
        lambda: T,
        v: &mut [T],
        scratch: &mut [T],
    ) -> Result<(), MapError> {
        expect_second_moments(layer, lambda)?;
        in_eigenbases(kernel, layer, v, scratch, |v| divide_by_second_moments(layer, lambda, v))
    }
}

impl<T: Scalar, S: Renewal> RowsMap<T> for Ekfac<S> {
    const ROWS: RowsRoute = RowsRoute::Bases;

    fn apply_rows<K: Kernel<T>>(
        &self,
        kernel: K,
        layer: &LayerState<'_, T>,
        lambda: T,
        rows: BatchRows<'_, T>,
        scratch: &mut [T],
    ) -> Result<Option<RowProducts<T>>, MapError> {
        expect_second_moments(layer, lambda)?;
        rows_in_eigenbases(kernel, layer, rows, scratch, |v, _| {
            divide_by_second_moments(layer, lambda, v);
            Ok(())
        })
    }
}

impl<T: Scalar, S: Renewal> SpectralMap<T> for Ekfac<S> {
    fn curvature(layer: &LayerState<'_, T>, [row, column]: [usize; 2]) -> T {
        layer.per_weight[row * layer.input.size + column] * layer.output.normaliser()
    }
}

impl<T: Scalar, S: Renewal> FactorMap<T> for Ekfac<S> {
    fn learn<K: Kernel<T>, I: Inputs<T> + ?Sized>(
        &self,
        kernel: K,
        layer: &mut LayerState<'_, T>,
        evidence: &Evidence<'_, T, I>,
        per_case: T,
        scratch: &mut [T],
    ) -> Result<(), ProductError> {
        let bases = [
            MatRef::row_major(layer.input.square, layer.input.size, layer.input.size)?,
            MatRef::row_major(layer.output.square, layer.output.size, layer.output.size)?,
        ];
        let mut gradients = CaseGradients::in_bases(kernel, bases, scratch)?;
        gradients.add_squares(evidence, per_case, layer.per_weight)
    }
}

/// Refuses a refresh after which `weight d_G d_Aᵀ` could leave the range of the numbers: a trace is no less than any
/// eigenvalue, and the other side may still have those of an earlier factor.
fn expect_room_for_products<T: Scalar>(layer: &LayerState<'_, T>, side: Side) -> Result<(), MapError> {
    let (mut input, mut output) = (layer.input.trace()?, layer.output.trace()?);
    match side {
        Side::Input => output = output.maximum(largest(layer.output.diagonal)),
        Side::Output => input = input.maximum(largest(layer.input.diagonal)),
    }
    let weight = T::from_f64(layer.output.weight).maximum(T::ONE);
    if (weight * (output * input)).is_finite() {
        return Ok(());
    }
    Err(MapError::Range { input: input.to_f64(), output: output.to_f64() })
}
