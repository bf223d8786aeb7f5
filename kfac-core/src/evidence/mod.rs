//! What a backward pass leaves for the statistics: rows of layer inputs and rows of output gradients.
//!
//! Every kind of layer is a source of rows `a` indexed by (case, position): one position for a dense layer, one
//! per time step, image location or use of a tied weight otherwise. Output gradients come in the same order, so
//! that row `case * positions + position` of both belongs together.

mod cases;
mod gradients;
mod moments;
mod patches;
mod reduced;
mod rows;
mod sequence;

pub use cases::Evidence;
pub use gradients::OutputGradients;
pub use moments::{ChainMoments, Moments};
pub use patches::Patches;
pub use reduced::Reduced;
pub use rows::Rows;
pub use sequence::Sequence;

use kfac_linalg::Scalar;

/// Layer inputs, row by row, without the bias column (the [`LayerShape`](crate::shape::LayerShape) adds it).
pub trait Inputs<T: Scalar> {
    /// Number of cases.
    fn cases(&self) -> usize;
    /// Most positions that a case has.
    fn positions(&self) -> usize;
    /// Numbers in a row.
    fn features(&self) -> usize;
    /// Is there a row at `position` of `case`? Masked positions count nowhere, and their gradients are not read.
    fn is_valid(&self, case: usize, position: usize) -> bool {
        let _ = (case, position);
        true
    }
    /// Writes the row at a valid `position` of `case` to `out` (`features` numbers).
    fn write_row(&self, case: usize, position: usize, out: &mut [T]);
    /// Adds the row at a valid `position` of `case` to `out`.
    fn add_row(&self, case: usize, position: usize, out: &mut [T]);
    /// Rows of gradients that a case has in [`OutputGradients`].
    fn gradient_rows(&self) -> usize {
        self.positions()
    }
    /// Writes the gradient that belongs to a valid `position` of `case` to `out`.
    fn write_gradient(
        &self,
        gradients: &OutputGradients<'_, T>,
        (case, position): (usize, usize),
        out: &mut [T],
    ) {
        gradients.write_row(case * self.gradient_rows() + position, out);
    }
}
