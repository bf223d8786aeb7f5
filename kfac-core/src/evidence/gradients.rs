use kfac_linalg::{MatRef, Scalar};

/// Gradients at a layer's output, one row per (case, position), with the scale of the loss they belong to.
///
/// The statistic needs `g = dl/ds` of one case's summed loss. If what was differentiated is a mean over the batch,
/// or a weighted negative log-likelihood, the constructor says so and the rows are put right here; a wrong factor
/// is the commonest bug of K-FAC implementations and still trains.
#[derive(Clone, Copy)]
pub struct OutputGradients<'a, T> {
    rows: MatRef<'a, T>,
    factor: T,
}

impl<'a, T: Scalar> OutputGradients<'a, T> {
    /// Gradients of each case's own loss, not divided by anything.
    pub fn per_case(rows: MatRef<'a, T>) -> Self {
        Self { rows, factor: T::ONE }
    }

    /// Gradients of the mean loss over a batch of `batch` cases: multiplied by `batch`, which must not be 0.
    ///
    /// Of a loss that is a mean over cases and positions, as frameworks give it for tokens, `cases positions` makes the rows
    /// those of each position's own loss; the Fisher matrix is then that of the *sum* over positions, and `V` must be that of
    /// the sum, too: multiply it by the number of positions.
    pub fn of_mean_loss(rows: MatRef<'a, T>, batch: usize) -> Self {
        Self { rows, factor: T::from_usize(batch) }
    }

    /// Gradients of `weight` times a negative log-likelihood, at targets drawn from the model: multiplied by
    /// `1/sqrt(weight)`, so that sampled and exact Fisher agree (`E g gᵀ = weight H`).
    ///
    /// A weight that is not positive and finite is refused by name when the rows are added.
    pub fn of_weighted_nll(rows: MatRef<'a, T>, weight: T) -> Self {
        Self { rows, factor: T::ONE / weight.sqrt() }
    }

    /// Gradients of each case's own loss that began as one of `columns` columns of a root of the loss Hessian
    /// ([`Loss::hessian_column`](crate::losses::Loss::hessian_column)): multiplied by `√columns`. The statistic of a type-2
    /// Fisher is the sum over the columns, and a mean over all that is added.
    ///
    /// Announce `columns` times the cases to `observe`, and add the same inputs with the gradients of each column.
    pub fn of_hessian_column(rows: MatRef<'a, T>, columns: usize) -> Self {
        Self { rows, factor: T::from_usize(columns).sqrt() }
    }

    /// `(cases positions) x outputs`, unscaled.
    pub fn rows(&self) -> MatRef<'a, T> {
        self.rows
    }

    /// What every row is multiplied by.
    pub fn factor(&self) -> T {
        self.factor
    }

    /// Writes row `index` in the scale of the statistic.
    pub fn write_row(&self, index: usize, out: &mut [T]) {
        super::rows::write_matrix_row(self.rows, index, out);
        if self.factor != T::ONE {
            for value in out {
                *value *= self.factor;
            }
        }
    }

    /// Adds row `index`, in the scale of the statistic.
    pub fn add_row(&self, index: usize, out: &mut [T]) {
        super::rows::add_matrix_row(self.factor, self.rows, index, out);
    }
}
