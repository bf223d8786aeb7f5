//! Eigenvectors and eigenvalues of a symmetric matrix, `A = Q diag(d) Qᵀ`.
//!
//! [`jacobi`] is the smallest and most independent solver: bounded work per sweep, cold or warm start. [`qr`] is the
//! fast one, by way of a tridiagonal matrix. [`Eigensolver`] is the choice between them, as a type. [`refresh`] goes from
//! an old basis a step towards the new one, [`roots`] forms inverse roots from a decomposition.
//!
//! # Scratch
//!
//! KiB of `f32`, beside `a`, `q` and `d`; twice as many of `f64`:
//!
//! | `n` | one square | Jacobi, 32-bit | QR, 32-bit | Jacobi, x86-64 | QR, x86-64 |
//! |---:|---:|---:|---:|---:|---:|
//! | 8 | 0.25 | 0.7 | 4.0 | 2.9 | 4.8 |
//! | 16 | 1 | 2.4 | 6.5 | 6.4 | 8.6 |
//! | 32 | 4 | 8.8 | 11.9 | 18.4 | 20.1 |
//! | 64 | 16 | 33.5 | 35.6 | 68.7 | 57.9 |
//!
//! # Example
//!
//! ```
//! use kfac_linalg::eigh::{jacobi, qr};
//! use kfac_linalg::{MatMut, MatRef, Reproducible, largest_len};
//!
//! // 1, 2 and 4 along the axes of a rotated frame.
//! let numbers = [2.0_f64, 0.0, 0.0, 0.0, 2.5, 1.5, 0.0, 1.5, 2.5];
//! let a = MatRef::row_major(&numbers, 3, 3)?;
//! let mut scratch = [0.0; largest_len([qr::scratch_len::<f64>(3), jacobi::scratch_len::<f64>(3)])];
//! let (mut q, mut d) = ([0.0; 9], [0.0; 3]);
//!
//! for method in ["QR", "Jacobi"] {
//!     let view = MatMut::row_major(&mut q, 3, 3)?;
//!     let outcome = match method {
//!         "QR" => qr::cold(Reproducible, a, view, &mut d, &mut scratch)?,
//!         _ => jacobi::cold(Reproducible, a, view, &mut d, jacobi::Budget::FULL, &mut scratch)?,
//!     };
//!     assert!(outcome.converged);
//!     // The residual A Q - Q diag(d), element by element.
//!     for (i, j) in (0..9).map(|at| (at / 3, at % 3)) {
//!         let a_q: f64 = (0..3).map(|k| a.at(i, k) * q[3 * k + j]).sum();
//!         assert!((a_q - q[3 * i + j] * d[j]).abs() < 1e-14, "{method}");
//!     }
//!     assert!(d.iter().zip([1.0, 2.0, 4.0]).all(|(d, exact)| (d - exact).abs() < 1e-14));
//! }
//! # Ok::<(), kfac_linalg::Error>(())
//! ```

pub mod jacobi;
mod order;
mod partial;
pub mod qr;
pub mod refresh;
pub mod roots;
mod scale;
mod solver;

pub(crate) use order::OrderTasks;
pub(crate) use scale::ScaleTasks;
pub use solver::{Eigensolver, Jacobi, Method, Qr};

use crate::error::{ScratchError, ShapeError};
use crate::product::ProductError;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};
use core::fmt;

// The table above, where no test runs.
#[cfg(all(target_pointer_width = "32", target_arch = "arm"))]
const _: () = {
    assert!(jacobi::scratch_len::<f32>(8) == 180 && qr::scratch_len::<f32>(8) == 1016);
    assert!(jacobi::scratch_len::<f32>(16) == 612 && qr::scratch_len::<f32>(16) == 1664);
    assert!(jacobi::scratch_len::<f32>(32) == 2244 && qr::scratch_len::<f32>(32) == 3056);
    assert!(jacobi::scratch_len::<f32>(64) == 8580 && qr::scratch_len::<f32>(64) == 9104);
};

/// The shapes of every solver: gives `n`, of `n x n` matrices and `n` eigenvalues.
fn check_shapes<T: Scalar>(a: &MatRef<'_, T>, q: &MatMut<'_, T>, d: &[T]) -> Result<usize, EighError> {
    let n = a.rows();
    ShapeError::check("A", [n, n], a.shape())?;
    ShapeError::check("Q", [n, n], q.shape())?;
    ShapeError::check_len("d", n, d.len())?;
    Ok(n)
}

/// How far the sweeps came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Sweeps taken: over all pairs of rows ([`jacobi`]), or down the tridiagonal matrix ([`qr`]).
    pub sweeps: u32,
    /// `||offdiag||_F / ||A||_F` of what was left unrotated at the end, in `[0, 1]`; 0 for the zero matrix.
    pub off_diagonal: f64,
    /// Whether that is as small as was asked for.
    pub converged: bool,
}

/// Why a decomposition could not be formed, or not to the accuracy asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum EighError {
    /// Shapes that do not fit together. Nothing was written.
    Shape(ShapeError),
    /// Scratch too short. Nothing was written.
    Scratch(ScratchError),
    /// An element of the matrix, or of the basis of a warm start, is infinite or NaN. Nothing was written.
    NotFinite {
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
    },
    /// The basis of a warm start or of a step is too far from orthonormal. Nothing was written.
    NotOrthonormal {
        /// `||QᵀQ - I||_F`. The limit is 1/2, from where a warm start mends it; a step, which does not and estimates this
        /// number from one product, takes 1e-3.
        deviation: f64,
    },
    /// The sweeps are spent; the outcome says how far they came. `q` and `d` hold that result.
    BudgetSpent(Outcome),
    /// A step from an old basis lost the independence of its columns. Nothing was written; only a cold start helps.
    SubspaceLost {
        /// The first relative pivot that is not positive, or the smallest of all: the squared sine of the angle between a
        /// column and those before it. NaN where it, or what it is made of, is not finite. Columns may be lost without a
        /// small one, where many of them nearly depend on each other; two passes then left them apart from orthonormal.
        pivot: f64,
    },
    /// A step's estimate of its error is larger than what is accepted. Nothing was written.
    Inaccurate {
        /// [`Refreshed::inverse_error`](refresh::Refreshed::inverse_error), or NaN where a number on the way to it is beyond
        /// the largest.
        inverse_error: f64,
    },
    /// The damping of a step is negative, infinite or NaN, or too small to be divided by where an old eigenvalue is zero.
    /// Nothing was written.
    Damping {
        /// The number that was given.
        value: f64,
    },
    /// An eigenvalue exceeds the largest number of its type. `q` and `d` hold the result, `d` with infinities.
    Overflow {
        /// Index of the first such eigenvalue.
        index: usize,
    },
}

impl fmt::Display for EighError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(error) => error.fmt(f),
            Self::Scratch(error) => error.fmt(f),
            Self::NotFinite { row, col } => write!(f, "element ({row}, {col}) is not finite"),
            Self::NotOrthonormal { deviation } => {
                write!(f, "the starting basis is not orthonormal: it deviates by {deviation:e}")
            }
            Self::BudgetSpent(Outcome { sweeps, off_diagonal, .. }) => {
                write!(f, "{sweeps} sweeps left a relative off-diagonal norm of {off_diagonal:e}")
            }
            Self::SubspaceLost { pivot } => {
                write!(
                    f,
                    "the old basis is of no use for this matrix: its smallest relative pivot is {pivot:e}"
                )
            }
            Self::Inaccurate { inverse_error } => {
                write!(f, "the step leaves an estimated relative error of {inverse_error:e} in the inverse")
            }
            Self::Damping { value } if *value >= 0.0 && value.is_finite() => {
                write!(f, "the damping must be above zero where an old eigenvalue is zero, found {value:e}")
            }
            Self::Damping { value } => {
                write!(f, "the damping must be finite and not negative, found {value:e}")
            }
            Self::Overflow { index } => write!(f, "eigenvalue {index} exceeds the largest number"),
        }
    }
}

impl core::error::Error for EighError {}

impl From<ShapeError> for EighError {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl From<ScratchError> for EighError {
    fn from(error: ScratchError) -> Self {
        Self::Scratch(error)
    }
}

impl From<ProductError> for EighError {
    fn from(error: ProductError) -> Self {
        match error {
            ProductError::Shape(error) => Self::Shape(error),
            ProductError::Scratch(error) => Self::Scratch(error),
        }
    }
}
