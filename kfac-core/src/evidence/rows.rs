use super::Inputs;
use kfac_linalg::{MatRef, Scalar};

/// Inputs of a dense layer: one row per case, one position.
#[derive(Clone, Copy)]
pub struct Rows<'a, T>(
    /// `cases x features`.
    pub MatRef<'a, T>,
);

impl<T: Scalar> Inputs<T> for Rows<'_, T> {
    fn cases(&self) -> usize {
        self.0.rows()
    }

    fn positions(&self) -> usize {
        1
    }

    fn features(&self) -> usize {
        self.0.cols()
    }

    fn write_row(&self, case: usize, _position: usize, out: &mut [T]) {
        write_matrix_row(self.0, case, out);
    }

    fn add_row(&self, case: usize, _position: usize, out: &mut [T]) {
        add_matrix_row(T::ONE, self.0, case, out);
    }
}

/// Copies row `index` of `matrix` to `out`, whatever the strides.
pub(super) fn write_matrix_row<T: Scalar>(matrix: MatRef<'_, T>, index: usize, out: &mut [T]) {
    match matrix.row(index) {
        Some(row) => out.copy_from_slice(row),
        None => {
            for (column, value) in out.iter_mut().enumerate() {
                *value = matrix.at(index, column);
            }
        }
    }
}

/// Adds `scale` times row `index` of `matrix` to `out`, whatever the strides.
pub(super) fn add_matrix_row<T: Scalar>(scale: T, matrix: MatRef<'_, T>, index: usize, out: &mut [T]) {
    for (column, value) in out.iter_mut().enumerate() {
        *value += scale * matrix.at(index, column);
    }
}
