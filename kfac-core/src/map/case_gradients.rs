//! Gradients of single cases, `Σ g āᵀ` over the positions of each, as they are or in the eigenbases, and sums of their
//! squares.

use super::basis::largest;
use super::{MapError, take};
use crate::evidence::{Evidence, Inputs};
use crate::memory::LayerState;
use crate::shape::LayerShape;
use kfac_linalg::product::{Accumulate, ProductError, gemm};
use kfac_linalg::{Kernel, MatMut, MatRef, Scalar};

/// Rows of `ā` and `g`, gathered until [`Kernel::PANEL_ROWS`] are there, and multiplied at once.
pub(super) struct CaseGradients<'a, T, K> {
    kernel: K,
    /// `n` and `m`.
    widths: [usize; 2],
    /// Where there are none, the rows stay as they come.
    bases: Option<Bases<'a, T>>,
    /// Rows of `ā` and `g` as they are multiplied.
    rows: [&'a mut [T]; 2],
    /// `m x n`.
    gradient: &'a mut [T],
    gathered: usize,
    scratch: &'a mut [T],
}

/// `Q_A` and `Q_G`, and the rows on their way into them.
struct Bases<'a, T> {
    bases: [MatRef<'a, T>; 2],
    raw: [&'a mut [T]; 2],
}

impl<'a, T: Scalar, K: Kernel<T>> CaseGradients<'a, T, K> {
    /// In the space of the weights.
    pub(super) fn of_weights(
        kernel: K,
        shape: LayerShape,
        mut scratch: &'a mut [T],
    ) -> Result<Self, ProductError> {
        let widths @ [n, m] = [shape.inputs(), shape.outputs()];
        let rows = [take(&mut scratch, K::PANEL_ROWS * n)?, take(&mut scratch, K::PANEL_ROWS * m)?];
        let gradient = take(&mut scratch, m * n)?;
        Ok(Self { kernel, widths, bases: None, rows, gradient, gathered: 0, scratch })
    }

    /// In the eigenbases `Q_A` and `Q_G`.
    pub(super) fn in_bases(
        kernel: K,
        bases: [MatRef<'a, T>; 2],
        mut scratch: &'a mut [T],
    ) -> Result<Self, ProductError> {
        let widths @ [n, m] = bases.map(|basis| basis.rows());
        let mut rows_of = |width: usize| take(&mut scratch, K::PANEL_ROWS * width);
        let (raw, rows) = ([rows_of(n)?, rows_of(m)?], [rows_of(n)?, rows_of(m)?]);
        let gradient = take(&mut scratch, m * n)?;
        let bases = Some(Bases { bases, raw });
        Ok(Self { kernel, widths, bases, rows, gradient, gathered: 0, scratch })
    }

    /// `sums += per_case Σ_cases (Σ_positions g āᵀ)²`, element by element.
    pub(super) fn add_squares<I: Inputs<T> + ?Sized>(
        &mut self,
        evidence: &Evidence<'_, T, I>,
        per_case: T,
        sums: &mut [T],
    ) -> Result<(), ProductError> {
        if evidence.positions_of_a_case() == 1 {
            self.add_single_positions(evidence, per_case, sums)
        } else {
            self.add_sums_over_positions(evidence, per_case, sums)
        }
    }

    /// `sum += scale Σ g āᵀ` over all places.
    pub(super) fn add_sum<I: Inputs<T> + ?Sized>(
        &mut self,
        evidence: &Evidence<'_, T, I>,
        scale: T,
        sum: &mut [T],
    ) -> Result<(), ProductError> {
        for place in evidence.positions() {
            self.push(evidence, place);
            if self.is_full() {
                let count = self.gathered_rows()?;
                self.add_products(count, Accumulate::Add(scale), sum)?;
            }
        }
        let count = self.gathered_rows()?;
        self.add_products(count, Accumulate::Add(scale), sum)
    }

    fn is_full(&self) -> bool {
        self.gathered == K::PANEL_ROWS
    }

    fn push<I: Inputs<T> + ?Sized>(&mut self, evidence: &Evidence<'_, T, I>, place: (usize, usize)) {
        let [n, m] = self.widths;
        let [inputs, gradients] = match &mut self.bases {
            Some(bases) => &mut bases.raw,
            None => &mut self.rows,
        };
        evidence.write_input(place, &mut inputs[self.gathered * n..][..n]);
        evidence.write_gradient(place, &mut gradients[self.gathered * m..][..m]);
        self.gathered += 1;
    }

    /// Brings the gathered rows into the bases, says how many there were, and empties the panel.
    fn gathered_rows(&mut self) -> Result<usize, ProductError> {
        let (count, one) = (core::mem::take(&mut self.gathered), Accumulate::Replace(T::ONE));
        if let Some(Bases { bases, raw }) = &self.bases {
            for ((raw, rotated), &basis) in raw.iter().zip(&mut self.rows).zip(bases) {
                let width = basis.rows();
                let (from, to) =
                    (MatRef::row_major(raw, count, width)?, MatMut::row_major(rotated, count, width)?);
                gemm(self.kernel, to, one, from, basis, self.scratch)?;
            }
        }
        Ok(count)
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
        let count = self.gathered_rows()?;
        let [inputs, gradients] = &mut self.rows;
        let [n, m] = self.widths;
        for x in inputs[..count * n].iter_mut().chain(&mut gradients[..count * m]) {
            *x *= *x;
        }
        self.add_products(count, Accumulate::Add(per_case), sums)
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
                let count = self.gathered_rows()?;
                self.add_products(count, Accumulate::Add(T::ONE), gradient)?;
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

    /// The products `g āᵀ` of the rows, added up.
    fn add_products(&mut self, count: usize, add: Accumulate<T>, sum: &mut [T]) -> Result<(), ProductError> {
        let [n, m] = self.widths;
        let [inputs, gradients] = &self.rows;
        let (inputs, gradients) =
            (MatRef::row_major(inputs, count, n)?, MatRef::row_major(gradients, count, m)?);
        gemm(self.kernel, MatMut::row_major(sum, m, n)?, add, gradients.transposed(), inputs, self.scratch)
    }
}

/// Refuses sums of squares whose mean is not finite with the damping: what is divided by it would vanish.
pub(super) fn expect_second_moments<T: Scalar>(layer: &LayerState<'_, T>, lambda: T) -> Result<(), MapError> {
    let largest = largest(layer.per_weight) * layer.output.normaliser();
    if (largest + lambda).is_finite() {
        return Ok(());
    }
    Err(MapError::Scales { largest: largest.to_f64() })
}

/// `V <- V / (s + λ)`, element by element.
pub(super) fn divide_by_second_moments<T: Scalar>(layer: &LayerState<'_, T>, lambda: T, v: &mut [T]) {
    let normaliser = layer.output.normaliser();
    for (value, &sum) in v.iter_mut().zip(&*layer.per_weight) {
        *value /= sum * normaliser + lambda;
    }
}
