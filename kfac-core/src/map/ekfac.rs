use super::basis::{DECOMPOSITION, ROTATION, decompose, decomposition_cost, in_eigenbases};
use super::{
    Cost, DampingInForce, FactorMap, Map, MapError, PerCase, RefreshUnit, Refreshed, Routine, SpectralMap,
    Workspace, take,
};
use crate::evidence::{Evidence, Inputs};
use crate::memory::{LayerState, Layout, SideLayout};
use crate::shape::Side;
use kfac_linalg::eigh::{Eigensolver, Jacobi, Method, Qr};
use kfac_linalg::product::{Accumulate, ProductError, gemm};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};

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
    /// What decomposes the factors.
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

impl<T: Scalar, S: Eigensolver> Map<T> for Ekfac<S> {
    const NAME: &'static str = match S::METHOD {
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
    const REFRESH: Workspace = Workspace { routine: Routine::Eigh(S::METHOD), ..DECOMPOSITION };
    const APPLY: Workspace = ROTATION;
    const PER_CASE: PerCase = PerCase::RotatedSquares;

    fn cost(&self) -> Cost {
        decomposition_cost(S::METHOD, self.solver.planned_sweeps(1))
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
        let normaliser = layer.output.normaliser();
        let largest = layer.per_weight.iter().fold(T::ZERO, |most, &sum| most.maximum(sum));
        if !(largest * normaliser + lambda).is_finite() {
            return Err(MapError::Scales { largest: (largest * normaliser).to_f64() });
        }
        in_eigenbases(kernel, layer, v, scratch, |v| {
            for (value, &sum) in v.iter_mut().zip(&*layer.per_weight) {
                *value /= sum * normaliser + lambda;
            }
        })
    }
}

impl<T: Scalar, S: Eigensolver> SpectralMap<T> for Ekfac<S> {
    fn curvature(layer: &LayerState<'_, T>, [row, column]: [usize; 2]) -> T {
        layer.per_weight[row * layer.input.size + column] * layer.output.normaliser()
    }
}

impl<T: Scalar, S: Eigensolver> FactorMap<T> for Ekfac<S> {
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
        let mut panel = Panel::new(kernel, bases, scratch)?;
        if evidence.positions_of_a_case() == 1 {
            panel.add_single_positions(evidence, per_case, layer.per_weight)
        } else {
            panel.add_sums_over_positions(evidence, per_case, layer.per_weight)
        }
    }
}

/// Refuses a refresh after which `weight d_G d_Aᵀ` could leave the range of the numbers: a trace is no less than any
/// eigenvalue, and the other side may still have those of an earlier factor.
fn expect_room_for_products<T: Scalar>(layer: &LayerState<'_, T>, side: Side) -> Result<(), MapError> {
    let largest = |diagonal: &[T]| diagonal.iter().fold(T::ZERO, |most, &d| most.maximum(d));
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

/// Rows of `ā` and `g` on their way through the eigenbases.
struct Panel<'a, T, K> {
    kernel: K,
    /// `Q_A` and `Q_G`.
    bases: [MatRef<'a, T>; 2],
    /// Rows of `ā` and `g` as they came.
    raw: [&'a mut [T]; 2],
    /// The same rows in the eigenbases.
    rotated: [&'a mut [T]; 2],
    /// `m x n`.
    gradient: &'a mut [T],
    gathered: usize,
    scratch: &'a mut [T],
}

impl<'a, T: Scalar, K: Kernel<T>> Panel<'a, T, K> {
    fn new(kernel: K, bases: [MatRef<'a, T>; 2], mut scratch: &'a mut [T]) -> Result<Self, ProductError> {
        let [n, m] = bases.map(|basis| basis.rows());
        let rows = K::PANEL_ROWS;
        let mut rows_of = |width: usize| take(&mut scratch, rows * width);
        let (raw, rotated) = ([rows_of(n)?, rows_of(m)?], [rows_of(n)?, rows_of(m)?]);
        let gradient = take(&mut scratch, m * n)?;
        Ok(Self { kernel, bases, raw, rotated, gradient, gathered: 0, scratch })
    }

    fn is_full(&self) -> bool {
        self.gathered == K::PANEL_ROWS
    }

    fn push<I: Inputs<T> + ?Sized>(&mut self, evidence: &Evidence<'_, T, I>, place: (usize, usize)) {
        let [n, m] = self.bases.map(|basis| basis.rows());
        let [inputs, gradients] = &mut self.raw;
        evidence.write_input(place, &mut inputs[self.gathered * n..][..n]);
        evidence.write_gradient(place, &mut gradients[self.gathered * m..][..m]);
        self.gathered += 1;
    }

    /// Rotates the gathered rows, says how many there were, and empties the panel.
    fn rotate(&mut self) -> Result<usize, ProductError> {
        let (rows, one) = (core::mem::take(&mut self.gathered), Accumulate::Replace(T::ONE));
        for ((raw, rotated), basis) in self.raw.iter().zip(&mut self.rotated).zip(self.bases) {
            let width = basis.rows();
            let (from, to) = (MatRef::row_major(raw, rows, width)?, MatMut::row_major(rotated, rows, width)?);
            gemm(self.kernel, to, one, from, basis, self.scratch)?;
        }
        Ok(rows)
    }

    /// With one position a case the square of its gradient is the product of squares: `(g āᵀ)² = g² (ā²)ᵀ`.
    fn add_single_positions<I: Inputs<T> + ?Sized>(
        &mut self,
        evidence: &Evidence<'_, T, I>,
        per_case: T,
        sums: &mut [T],
    ) -> Result<(), ProductError> {
        for place in evidence.positions() {
            self.push(evidence, place);
            if self.is_full() {
                self.flush_squares(per_case, sums)?;
            }
        }
        if self.gathered > 0 { self.flush_squares(per_case, sums) } else { Ok(()) }
    }

    fn flush_squares(&mut self, per_case: T, sums: &mut [T]) -> Result<(), ProductError> {
        let rows = self.rotate()?;
        let [inputs, gradients] = &mut self.rotated;
        let [n, m] = self.bases.map(|basis| basis.rows());
        for x in inputs[..rows * n].iter_mut().chain(&mut gradients[..rows * m]) {
            *x *= *x;
        }
        self.add_products(rows, Accumulate::Add(per_case), sums)
    }

    /// With several, the gradient of a case is formed before it is squared.
    fn add_sums_over_positions<I: Inputs<T> + ?Sized>(
        &mut self,
        evidence: &Evidence<'_, T, I>,
        per_case: T,
        sums: &mut [T],
    ) -> Result<(), ProductError> {
        let gradient = core::mem::take(&mut self.gradient);
        gradient.fill(T::ZERO);
        let mut places = evidence.positions().peekable();
        while let Some(place) = places.next() {
            self.push(evidence, place);
            let ends = places.peek().is_none_or(|next| next.0 != place.0);
            if ends || self.is_full() {
                self.flush_gradient(gradient)?;
            }
            if ends {
                for (sum, x) in sums.iter_mut().zip(&mut *gradient) {
                    *sum += per_case * (*x * *x);
                    *x = T::ZERO;
                }
            }
        }
        Ok(())
    }

    fn flush_gradient(&mut self, gradient: &mut [T]) -> Result<(), ProductError> {
        let rows = self.rotate()?;
        self.add_products(rows, Accumulate::Add(T::ONE), gradient)
    }

    /// The products `g āᵀ` of the rotated rows, added up.
    fn add_products(&mut self, rows: usize, add: Accumulate<T>, sum: &mut [T]) -> Result<(), ProductError> {
        let [n, m] = self.bases.map(|basis| basis.rows());
        let [inputs, gradients] = &self.rotated;
        let (inputs, gradients) =
            (MatRef::row_major(inputs, rows, n)?, MatRef::row_major(gradients, rows, m)?);
        gemm(self.kernel, MatMut::row_major(sum, m, n)?, add, gradients.transposed(), inputs, self.scratch)
    }
}
