use super::places::Places;
use super::{EvidenceError, Inputs, OutputGradients};
use kfac_linalg::{MatRef, Scalar};

/// What a normalisation layer (of a layer, a batch, a group) hands to its scale `γ` and shift `β`: `y = γ ∘ x̂ + β`.
///
/// The gradient of a case is `v = [Σ g ∘ x̂; Σ g]` over its positions, `g = dl/dy`. The two parameters are one block
/// `[γ; β]` of `2 features x 1` ([`LayerShape::normalisation`](crate::LayerShape::normalisation)) whose input is the
/// number 1: `A = [1]`, `G = E[v vᵀ]`, so a map that keeps `G` has the full block, and
/// [`Diagonal`](crate::map::Diagonal) its diagonal. Positions are those of a sequence, or the locations of an image.
/// Output gradients are rows `(case, position)` of `features` numbers.
///
/// # Source
/// Osawa, Tsuji, Ueno, Naruse, Yokota and Matsuoka 2019, arXiv:1811.12019 (there in blocks of one `γ` and its `β`).
#[derive(Clone, Copy)]
pub struct Normalised<'a, T> {
    rows: MatRef<'a, T>,
    places: Places<'a>,
}

impl<'a, T: Scalar> Normalised<'a, T> {
    /// Cases that all have `positions` positions; `rows`: `x̂`, `(cases positions) x features`, case-major.
    ///
    /// # Errors
    /// [`EvidenceError::Shape`] when the rows are no multiple of `positions`, [`EvidenceError::NotFinite`].
    pub fn new(rows: MatRef<'a, T>, positions: usize) -> Result<Self, EvidenceError> {
        Self { rows, places: Places::all(rows.shape(), positions)? }.checked()
    }

    /// Cases padded to `positions` positions, of which case `i` has the first `lengths[i]`; the padding is masked.
    ///
    /// # Errors
    /// [`EvidenceError::Shape`] when the rows are not `lengths.len() positions`, or a length is longer than
    /// `positions`; [`EvidenceError::NotFinite`].
    pub fn with_lengths(
        rows: MatRef<'a, T>,
        positions: usize,
        lengths: &'a [usize],
    ) -> Result<Self, EvidenceError> {
        Self { rows, places: Places::with_lengths(rows.shape(), positions, lengths)? }.checked()
    }

    /// In the gradients that are made of them, a bad number could no longer be told from one of `g`.
    fn checked(self) -> Result<Self, EvidenceError> {
        let columns = 0..self.rows.cols();
        let mut entries = self.places.rows().flat_map(|row| columns.clone().map(move |column| (row, column)));
        match entries.find(|&(row, column)| !self.rows.at(row, column).is_finite()) {
            None => Ok(self),
            Some((row, column)) => Err(EvidenceError::NotFinite { row, column }),
        }
    }
}

impl<T: Scalar> Inputs<T> for Normalised<'_, T> {
    fn cases(&self) -> usize {
        self.places.cases()
    }

    /// The gradient of a case is one row.
    fn positions(&self) -> usize {
        1
    }

    /// The number 1.
    fn features(&self) -> usize {
        1
    }

    fn is_valid(&self, case: usize, _position: usize) -> bool {
        self.places.is_valid(case, 0)
    }

    fn write_row(&self, _case: usize, _position: usize, out: &mut [T]) {
        out.fill(T::ONE);
    }

    fn add_row(&self, _case: usize, _position: usize, out: &mut [T]) {
        out.iter_mut().for_each(|value| *value += T::ONE);
    }

    fn gradient_rows(&self) -> usize {
        self.places.positions()
    }

    fn gradient_width(&self, outputs: usize) -> Option<usize> {
        let features = self.rows.cols();
        (features.checked_mul(2) == Some(outputs)).then_some(features)
    }

    fn write_gradient(&self, gradients: &OutputGradients<'_, T>, place: (usize, usize), out: &mut [T]) {
        out.fill(T::ZERO);
        self.add_gradient(gradients, place, out);
    }

    fn add_gradient(&self, gradients: &OutputGradients<'_, T>, (case, _): (usize, usize), out: &mut [T]) {
        let (g, factor) = (gradients.rows(), gradients.factor());
        let (scale, shift) = out.split_at_mut(self.rows.cols());
        for position in (0..self.places.positions()).filter(|&at| self.places.is_valid(case, at)) {
            let row = self.places.row(case, position);
            for (column, (scale, shift)) in scale.iter_mut().zip(&mut *shift).enumerate() {
                let g = factor * g.at(row, column);
                *scale += g * self.rows.at(row, column);
                *shift += g;
            }
        }
    }
}
