use super::case_gradients::{CaseGradients, divide_by_second_moments, expect_second_moments};
use super::{
    Cost, Cubic, DampingInForce, FactorMap, Map, MapError, PerCase, RefreshUnit, Refreshed, Workspace, take,
};
use crate::evidence::{Evidence, Inputs};
use crate::memory::{LayerState, Layout, Moment, SideLayout};
use crate::shape::Side;
use kfac_linalg::product::ProductError;
use kfac_linalg::{Kernel, Scalar};

/// `U = V / (s + λ)`, element by element, with `s = E[(Σ g āᵀ)²]`: the exact diagonal of the Fisher block, as the mean over
/// the cases of the square of a case's gradient, which is the sum over its positions.
///
/// The map of weights that no factors fit: the scale and shift of a normalisation
/// ([`Normalised`](crate::evidence::Normalised)). It keeps one number a weight and no moments; there is nothing to
/// refresh, and a refresh costs nothing. `s` is the running average as it stands, the damping the current one. Finished
/// moments do not say what single cases were: they are refused by type.
///
/// # Source
/// Becker and LeCun 1989, "Improving the convergence of back-propagation learning with second order methods", for the
/// diagonal; Martens 2020, arXiv:1412.1193, section 11, for that of a Fisher matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diagonal;

impl<T: Scalar> Map<T> for Diagonal {
    const NAME: &'static str = "diagonal";
    /// The weighted sum of `(Σ g āᵀ)²`.
    const LAYOUT: Layout = Layout {
        per_weight: 1,
        ..Layout::of_both_sides(SideLayout { moment: Moment::None, ..SideLayout::MOMENT })
    };
    const UNIT: RefreshUnit = RefreshUnit::Layer;
    const DAMPING: DampingInForce = DampingInForce::Current;
    const REFRESH: Workspace = Workspace::NONE;
    const APPLY: Workspace = Workspace::NONE;
    const PER_CASE: PerCase = PerCase::Squares;

    fn cost(&self) -> Cost {
        Cost { unit: RefreshUnit::Layer, cubic: Cubic::Both(0) }
    }

    /// Nothing to recompute; says whether there is anything but damping.
    fn refresh<K: Kernel<T>>(
        &self,
        _kernel: K,
        layer: &mut LayerState<'_, T>,
        _side: Side,
        _lambda: T,
        _scratch: &mut [T],
    ) -> Result<Refreshed, MapError> {
        let zero_trace = layer.per_weight.iter().all(|&sum| sum == T::ZERO);
        Ok(Refreshed { flops: 0, sweeps: 0, zero_trace, is_kept: false })
    }

    fn apply<K: Kernel<T>>(
        &self,
        _kernel: K,
        layer: &LayerState<'_, T>,
        lambda: T,
        v: &mut [T],
        _scratch: &mut [T],
    ) -> Result<(), MapError> {
        expect_second_moments(layer, lambda)?;
        divide_by_second_moments(layer, lambda, v);
        Ok(())
    }
}

impl<T: Scalar> FactorMap<T> for Diagonal {
    fn learn<K: Kernel<T>, I: Inputs<T> + ?Sized>(
        &self,
        kernel: K,
        layer: &mut LayerState<'_, T>,
        evidence: &Evidence<'_, T, I>,
        per_case: T,
        scratch: &mut [T],
    ) -> Result<(), ProductError> {
        if evidence.positions().all(|place| evidence.token(place).is_some()) {
            return add_squares_of_tokens(layer, evidence, per_case, scratch);
        }
        let mut gradients = CaseGradients::of_weights(kernel, layer.shape, scratch)?;
        gradients.add_squares(evidence, per_case, layer.per_weight)
    }
}

/// Where every row is a unit vector, the gradient of a case is zero but in the columns of its tokens, and in that of the
/// bias: a column of the vocabulary is touched only where it has to be.
fn add_squares_of_tokens<T: Scalar, I: Inputs<T> + ?Sized>(
    layer: &mut LayerState<'_, T>,
    evidence: &Evidence<'_, T, I>,
    per_case: T,
    mut scratch: &mut [T],
) -> Result<(), ProductError> {
    let (n, m) = (layer.shape.inputs(), layer.shape.outputs());
    let (row, total) = (take(&mut scratch, m)?, take(&mut scratch, m)?);
    let mut add_column = |column: usize, total: &[T]| {
        for (sum, &x) in layer.per_weight.iter_mut().skip(column).step_by(n).zip(total) {
            *sum += per_case * (x * x);
        }
    };
    for (case, position) in evidence.positions() {
        let is_before = |place: &(usize, usize)| place.1 < position;
        let of_case = || evidence.positions_of(case);
        let token = evidence.token((case, position));
        // A token that comes again has been added with its first use.
        let is_again = of_case().take_while(is_before).any(|place| evidence.token(place) == token);
        if let Some(column) = token.filter(|_| !is_again) {
            let uses = of_case().filter(|&place| evidence.token(place) == token);
            add_column(column, sum_gradients(evidence, uses, row, total));
        }
        if layer.shape.has_bias() && of_case().next() == Some((case, position)) {
            add_column(n - 1, sum_gradients(evidence, of_case(), row, total));
        }
    }
    Ok(())
}

/// `Σ g` over the places.
fn sum_gradients<'t, T: Scalar, I: Inputs<T> + ?Sized>(
    evidence: &Evidence<'_, T, I>,
    places: impl Iterator<Item = (usize, usize)>,
    row: &mut [T],
    total: &'t mut [T],
) -> &'t [T] {
    total.fill(T::ZERO);
    for place in places {
        evidence.write_gradient(place, row);
        total.iter_mut().zip(&*row).for_each(|(total, &g)| *total += g);
    }
    total
}
