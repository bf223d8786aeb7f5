//! Symmetric positive definite matrices: factor, solve, inverse.
//!
//! All three work on the lower triangle, block column by block column, and leave nearly all arithmetic to long
//! products; the diagonal blocks and the block column beside them are worked on in registers.
//!
//! # Example
//!
//! Memory in a `static`, without an allocator: behind a lock here, in whatever cell the firmware has there.
//!
//! ```
//! use kfac_linalg::{MatMut, MatRef, Reproducible, cholesky, largest_len};
//! use std::sync::Mutex;
//!
//! const LEN: usize =
//!     largest_len([cholesky::factor_scratch_len::<f32>(2), cholesky::solve_scratch_len::<f32>(2, 1)]);
//! static SCRATCH: Mutex<[f32; LEN]> = Mutex::new([0.0; LEN]);
//!
//! let mut scratch = SCRATCH.lock().unwrap();
//! let (mut a, mut b) = ([4.0, 0.0, 2.0, 5.0], [8.0, 14.0]); // the upper triangle is not read
//! cholesky::factor(Reproducible, MatMut::row_major(&mut a, 2, 2)?, &mut *scratch)?;
//! assert_eq!(a, [2.0, 0.0, 1.0, 2.0]);
//! let l = MatRef::row_major(&a, 2, 2)?;
//! cholesky::solve(Reproducible, l, MatMut::row_major(&mut b, 2, 1)?, &mut *scratch)?;
//! assert_eq!(b, [0.75, 2.5]);
//! # Ok::<(), kfac_linalg::Error>(())
//! ```

mod factor;
mod inverse;
mod log_determinant;
mod solve;

pub use factor::{factor, factor_scratch_len};
pub use inverse::{Outcome, inverse, inverse_scratch_len};
pub use solve::{solve, solve_scratch_len};

use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::product::{ProductError, TrsmError};
use crate::scalar::Scalar;
use crate::triangle::Triangle;
use crate::triangle::factor::Factor;
use crate::view::MatRef;
use core::fmt;

/// Factors the lower triangle of a diagonal block, whose first row is row `first` of the matrix.
fn factor_block<'a, T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: MatRef<'_, T>,
    room: &'a mut [T],
    first: usize,
) -> Result<Triangle<'a, T>, CholeskyError> {
    let n = a.rows();
    kernel.run(Factor { a, room: &mut *room }).map_err(|bad| CholeskyError::NotPositiveDefinite {
        pivot: first + bad.index,
        value: bad.value.to_f64(),
    })?;
    Ok(Triangle::of(room, n))
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
        /// Index of the first pivot that is zero, negative, infinite or NaN, or positive but so small that its reciprocal
        /// exceeds the largest number (below 2.9e-39 in `f32`, 5.6e-309 in `f64`).
        pivot: usize,
        /// That pivot: the diagonal element left when all rows before it have been eliminated; in [`solve`], the
        /// diagonal element of the factor, its root.
        value: f64,
    },
    /// An element of the inverse, or a number on the way to it, exceeds the largest of its type. The contents of the matrix
    /// are lost.
    Overflow,
}

impl fmt::Display for CholeskyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(error) => error.fmt(f),
            Self::Scratch(error) => error.fmt(f),
            Self::NotPositiveDefinite { pivot, value } if *value > 0.0 && value.is_finite() => {
                write!(f, "pivot {pivot} is {value:e}, too small to be inverted")
            }
            Self::NotPositiveDefinite { pivot, value } if !value.is_finite() => {
                write!(f, "the matrix is not finite, or overflows on the way: pivot {pivot} is {value:e}")
            }
            Self::NotPositiveDefinite { pivot, value } => {
                write!(f, "the matrix is not positive definite: pivot {pivot} is {value:e}")
            }
            Self::Overflow => write!(f, "an element of the inverse exceeds the largest number"),
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

impl From<TrsmError> for CholeskyError {
    fn from(error: TrsmError) -> Self {
        match error {
            TrsmError::Shape(error) => Self::Shape(error),
            TrsmError::Scratch(error) => Self::Scratch(error),
            TrsmError::Diagonal { index, value } => Self::NotPositiveDefinite { pivot: index, value },
        }
    }
}
