use super::Inputs;
use super::places::Places;
use super::rows::{add_matrix_row, write_matrix_row};
use kfac_linalg::{MatRef, Scalar, ShapeError};

/// Inputs of a layer that is used at every step of a sequence: recurrent weights (`a_t = [x_t; h_{t-1}]`),
/// attention projections, a weight tied over several uses.
#[derive(Clone, Copy)]
pub struct Sequence<'a, T> {
    rows: MatRef<'a, T>,
    places: Places<'a>,
}

impl<'a, T: Scalar> Sequence<'a, T> {
    /// Sequences that all have `steps` steps; `rows`: `(cases steps) x features`, case-major.
    ///
    /// # Errors
    /// A [`ShapeError`] when the rows are no multiple of `steps`.
    pub fn new(rows: MatRef<'a, T>, steps: usize) -> Result<Self, ShapeError> {
        Ok(Self { rows, places: Places::all(rows.shape(), steps)? })
    }

    /// Sequences padded to `steps` steps, of which case `i` has the first `lengths[i]`; the padding is masked.
    /// A case of length 0 is no case: it weighs nothing in either factor.
    ///
    /// # Errors
    /// A [`ShapeError`] when the rows are not `lengths.len() steps`, or a length is longer than `steps`.
    pub fn with_lengths(rows: MatRef<'a, T>, steps: usize, lengths: &'a [usize]) -> Result<Self, ShapeError> {
        Ok(Self { rows, places: Places::with_lengths(rows.shape(), steps, lengths)? })
    }
}

impl<T: Scalar> Inputs<T> for Sequence<'_, T> {
    fn cases(&self) -> usize {
        self.places.cases()
    }

    fn positions(&self) -> usize {
        self.places.positions()
    }

    fn features(&self) -> usize {
        self.rows.cols()
    }

    fn is_valid(&self, case: usize, position: usize) -> bool {
        self.places.is_valid(case, position)
    }

    fn write_row(&self, case: usize, position: usize, out: &mut [T]) {
        write_matrix_row(self.rows, self.places.row(case, position), out);
    }

    fn add_row(&self, case: usize, position: usize, out: &mut [T]) {
        add_matrix_row(T::ONE, self.rows, self.places.row(case, position), out);
    }
}
