//! What a backward pass leaves for the statistics: rows of layer inputs and rows of output gradients.
//!
//! Every kind of layer is a source of rows `a` indexed by (case, position): one position for a dense layer, one
//! per time step, image location or use of a tied weight otherwise. Output gradients come in the same order, so
//! that row `case * positions + position` of both belongs together.

mod cases;
mod gradients;
mod moments;
mod normalised;
mod patches;
mod places;
mod reduced;
mod rows;
mod sequence;
mod tokens;

pub use cases::Evidence;
pub use gradients::OutputGradients;
pub use moments::{ChainMoments, Moments};
pub use normalised::Normalised;
pub use patches::Patches;
pub use reduced::Reduced;
pub use rows::Rows;
pub use sequence::Sequence;
pub use tokens::Tokens;

use core::fmt;
use kfac_linalg::{Scalar, ShapeError};

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
    /// The place of the one in the row at a valid `position` of `case`, where the row is known to be zero beside it.
    fn token(&self, case: usize, position: usize) -> Option<usize> {
        let _ = (case, position);
        None
    }
    /// Rows of gradients that a case has in [`OutputGradients`].
    fn gradient_rows(&self) -> usize {
        self.positions()
    }
    /// Numbers in such a row, where the layer has `outputs` outputs; `None` where it cannot have so many.
    fn gradient_width(&self, outputs: usize) -> Option<usize> {
        Some(outputs)
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
    /// Adds the gradient that belongs to a valid `position` of `case` to `out`.
    fn add_gradient(
        &self,
        gradients: &OutputGradients<'_, T>,
        (case, position): (usize, usize),
        out: &mut [T],
    ) {
        gradients.add_row(case * self.gradient_rows() + position, out);
    }
}

/// Evidence that contradicts itself before any layer has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvidenceError {
    /// Rows that do not make whole cases, or a length beyond the padding.
    Shape(ShapeError),
    /// A token that the vocabulary does not have.
    UnknownToken {
        /// `case * positions + position`.
        row: usize,
        /// Its id.
        token: u32,
        /// Tokens that there are.
        vocabulary: usize,
    },
    /// A number is NaN or infinite.
    NotFinite {
        /// `case * positions + position`.
        row: usize,
        /// Its column.
        column: usize,
    },
}

impl From<ShapeError> for EvidenceError {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl fmt::Display for EvidenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(error) => error.fmt(f),
            Self::UnknownToken { row, token, vocabulary } => {
                write!(f, "the token {token} in row {row} is beyond a vocabulary of {vocabulary}")
            }
            Self::NotFinite { row, column } => {
                write!(f, "a number is not finite: row {row}, column {column}")
            }
        }
    }
}

impl core::error::Error for EvidenceError {}
