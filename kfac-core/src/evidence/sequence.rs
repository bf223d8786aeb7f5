use super::Inputs;
use super::rows::{add_matrix_row, write_matrix_row};
use kfac_linalg::{MatRef, Scalar, ShapeError};

/// Inputs of a layer that is used at every step of a sequence: recurrent weights (`a_t = [x_t; h_{t-1}]`),
/// attention projections, a weight tied over several uses.
#[derive(Clone, Copy)]
pub struct Sequence<'a, T> {
    rows: MatRef<'a, T>,
    steps: usize,
    lengths: Option<&'a [usize]>,
}

impl<'a, T: Scalar> Sequence<'a, T> {
    /// Sequences that all have `steps` steps; `rows`: `(cases steps) x features`, case-major.
    ///
    /// # Errors
    /// A [`ShapeError`] when the rows are no multiple of `steps`.
    pub fn new(rows: MatRef<'a, T>, steps: usize) -> Result<Self, ShapeError> {
        if steps == 0 || !rows.rows().is_multiple_of(steps) {
            return Err(ShapeError::new([steps, rows.cols()], [rows.rows(), rows.cols()]));
        }
        Ok(Self { rows, steps, lengths: None })
    }

    /// Sequences padded to `steps` steps, of which case `i` has the first `lengths[i]`; the padding is masked.
    /// A case of length 0 is no case: it weighs nothing in either factor.
    ///
    /// # Errors
    /// A [`ShapeError`] when the rows are not `lengths.len() steps`, or a length is longer than `steps`.
    pub fn with_lengths(rows: MatRef<'a, T>, steps: usize, lengths: &'a [usize]) -> Result<Self, ShapeError> {
        let found = [rows.rows(), rows.cols()];
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if longest > steps {
            return Err(ShapeError::new([steps, rows.cols()], [longest, rows.cols()]));
        }
        if steps == 0 || lengths.len().checked_mul(steps) != Some(rows.rows()) {
            return Err(ShapeError::new([lengths.len().saturating_mul(steps), rows.cols()], found));
        }
        Ok(Self { rows, steps, lengths: Some(lengths) })
    }
}

impl<T: Scalar> Inputs<T> for Sequence<'_, T> {
    fn cases(&self) -> usize {
        self.rows.rows() / self.steps
    }

    fn positions(&self) -> usize {
        self.steps
    }

    fn features(&self) -> usize {
        self.rows.cols()
    }

    fn is_valid(&self, case: usize, position: usize) -> bool {
        self.lengths.is_none_or(|lengths| position < lengths[case])
    }

    fn write_row(&self, case: usize, position: usize, out: &mut [T]) {
        write_matrix_row(self.rows, case * self.steps + position, out);
    }

    fn add_row(&self, case: usize, position: usize, out: &mut [T]) {
        add_matrix_row(T::ONE, self.rows, case * self.steps + position, out);
    }
}
