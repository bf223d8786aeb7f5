//! Symmetric positive definite matrices: factor, solve, inverse.
//!
//! All three work on the lower triangle, block column by block column, and leave nearly all arithmetic to long
//! products; only the diagonal blocks are plain loops (`diagonal`).

mod diagonal;
mod factor;
mod inverse;
mod solve;

pub use factor::{factor, factor_scratch_len};
pub use inverse::{Outcome, inverse, inverse_scratch_len};
pub use solve::{solve, solve_scratch_len};

use crate::error::{ScratchError, ShapeError};
use crate::product::ProductError;
use core::fmt;

/// Columns of one diagonal block: frozen, since it decides the order of the sums.
const fn block_len(n: usize) -> usize {
    if n <= 128 { 32 } else { 64 }
}

/// Order of the largest diagonal block of an `n x n` matrix.
const fn largest_block(n: usize) -> usize {
    if n < block_len(n) { n } else { block_len(n) }
}

/// Why a factorisation, a solution or an inverse could not be formed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum CholeskyError {
    /// Shapes that do not fit together. Nothing was written.
    Shape(ShapeError),
    /// Scratch too short. Nothing was written.
    Scratch(ScratchError),
    /// The matrix is not positive definite in working precision, or not finite. Its contents are lost.
    NotPositiveDefinite {
        /// Index of the first pivot that is not a positive finite number.
        pivot: usize,
        /// That pivot: the diagonal element left when all rows before it have been eliminated.
        value: f64,
    },
}

impl fmt::Display for CholeskyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(error) => error.fmt(f),
            Self::Scratch(error) => error.fmt(f),
            Self::NotPositiveDefinite { pivot, value } => {
                write!(f, "the matrix is not positive definite: pivot {pivot} is {value:e}")
            }
        }
    }
}

impl core::error::Error for CholeskyError {}

impl From<ShapeError> for CholeskyError {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl From<ScratchError> for CholeskyError {
    fn from(error: ScratchError) -> Self {
        Self::Scratch(error)
    }
}

impl From<ProductError> for CholeskyError {
    fn from(error: ProductError) -> Self {
        match error {
            ProductError::Shape(error) => Self::Shape(error),
            ProductError::Scratch(error) => Self::Scratch(error),
        }
    }
}
