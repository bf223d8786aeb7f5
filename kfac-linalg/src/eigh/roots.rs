//! Inverse roots `A^(-1/p) = Q diag(d^(-1/p)) Qᵀ` from a decomposition, and what becomes of small eigenvalues.
//!
//! Shampoo takes the root `p = 2k` of a tensor of order `k`, recurrent K-FAC `p = 2`, EKFAC `p = 1` now and then. In
//! finite precision a positive semidefinite matrix has eigenvalues of either sign around zero; whether they are noise
//! or an inverse of great size is not for the arithmetic to decide, so that a [`Root`] must say it.
//!
//! Roots of order `2^k` are `k` square roots and a reciprocal, each correctly rounded; that of all together is off by a
//! unit in the last place or two (in `16^(-1/8)`, say). Others go through `libm`'s power in double precision. Both have
//! the same bits on every target. [`inverse_root`] rounds further, since it multiplies two roots of order `2p`:
//! `16^(-1/4)` becomes 0.5000000000000001.
//!
//! # Example
//!
//! ```
//! use kfac_linalg::eigh::roots::{self, Below, Floor, Root};
//! use kfac_linalg::{MatMut, MatRef, Reproducible};
//!
//! // A = Q diag(1, 16) Qᵀ, its first eigenvalue with the noise that rounding leaves.
//! let (c, s) = (0.6_f64, 0.8);
//! let (q, d) = ([c, -s, s, c], [-1e-17, 16.0]);
//! let root = Root { order: 4, floor: Floor::Relative(2.0 * f64::EPSILON), below: Below::Drop };
//! let mut to = [0.0; 4];
//! let scratch = &mut [0.0; roots::scratch_len::<f64>(2)];
//! let (q, view) = (MatRef::row_major(&q, 2, 2)?, MatMut::row_major(&mut to, 2, 2)?);
//!
//! let outcome = roots::inverse_root(Reproducible, root, q, &d, view, scratch)?;
//! assert_eq!(outcome.below, 1);
//! for (x, exact) in to.iter().zip([s * s, -c * s, -c * s, c * c]) {
//!     assert!((x - exact / 2.0).abs() < 1e-15); // 16^(-1/4) = 1/2
//! }
//! # Ok::<(), kfac_linalg::Error>(())
//! ```

use crate::error::{ScratchError, ShapeError};
use crate::kernel::Kernel;
use crate::lengths::countable;
use crate::product::{Accumulate, ProductError, syrk_lower, syrk_scratch_len};
use crate::scalar::Scalar;
use crate::triangle::copy::Mirror;
use crate::view::{MatMut, MatRef};
use core::fmt;

/// Down to which size an eigenvalue counts as one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Floor<T> {
    /// This number, in units of an eigenvalue.
    Absolute(T),
    /// This number times the largest eigenvalue. Recommended: `n EPSILON`, the noise of a decomposition; with less, noise
    /// counts as eigenvalues.
    Relative(T),
}

/// What becomes of eigenvalues that are not above the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// They count as the floor itself.
    Raise,
    /// Their directions are left out: the root of the pseudo-inverse.
    Drop,
}

/// Which root.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Root<T> {
    /// `p` of `A^(-1/p)`, at least 1.
    pub order: u32,
    /// Down to which size an eigenvalue counts.
    pub floor: Floor<T>,
    /// What becomes of the others.
    pub below: Below,
}

/// What became of the eigenvalues.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// How many were not above the floor: raised, or dropped.
    pub below: usize,
    /// The floor, in units of an eigenvalue.
    pub floor: f64,
}

/// Why there is no such root. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RootError {
    /// Shapes that do not fit together.
    Shape(ShapeError),
    /// Scratch too short.
    Scratch(ScratchError),
    /// The root of order zero.
    OrderZero,
    /// A floor that is negative or not finite.
    Floor {
        /// The number that was given; infinity where its product with the largest eigenvalue exceeds all numbers.
        value: f64,
    },
    /// An eigenvalue is infinite or NaN.
    NotFinite {
        /// Its index.
        index: usize,
    },
    /// An eigenvalue is negative by more than the floor: the matrix is not positive semidefinite.
    Negative {
        /// Its index.
        index: usize,
        /// The eigenvalue.
        value: f64,
    },
    /// The floor is zero, and so is an eigenvalue that should be raised to it.
    Singular {
        /// Its index.
        index: usize,
    },
    /// The root of an eigenvalue exceeds the largest number: it, or the floor, is too small to be inverted.
    Overflow {
        /// Its index.
        index: usize,
    },
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(error) => error.fmt(f),
            Self::Scratch(error) => error.fmt(f),
            Self::OrderZero => write!(f, "there is no root of order zero"),
            Self::Floor { value } => write!(f, "the floor must be finite and not negative, found {value:e}"),
            Self::NotFinite { index } => write!(f, "eigenvalue {index} is not finite"),
            Self::Negative { index, value } => {
                write!(
                    f,
                    "eigenvalue {index} is {value:e}, negative by more than the floor (where that is rounding: `Floor::Relative(n * EPSILON)`)"
                )
            }
            Self::Singular { index } => write!(
                f,
                "eigenvalue {index} is zero, and so is the floor (`Floor::Relative(n * EPSILON)` is above the noise)"
            ),
            Self::Overflow { index } => {
                write!(f, "the inverse root of eigenvalue {index} exceeds the largest number")
            }
        }
    }
}

impl core::error::Error for RootError {}

impl From<ShapeError> for RootError {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl From<ScratchError> for RootError {
    fn from(error: ScratchError) -> Self {
        Self::Scratch(error)
    }
}

impl From<ProductError> for RootError {
    fn from(error: ProductError) -> Self {
        match error {
            ProductError::Shape(error) => Self::Shape(error),
            ProductError::Scratch(error) => Self::Scratch(error),
        }
    }
}

impl<T: Scalar> Root<T> {
    /// `to_i = d_i^(-1/p)`, for eigenvalues in any order.
    ///
    /// # Errors
    /// [`RootError`]; `to` is untouched then.
    pub fn of_eigenvalues(&self, d: &[T], to: &mut [T]) -> Result<Outcome, RootError> {
        ShapeError::check_len("the result", d.len(), to.len())?;
        let outcome = self.check(d)?;
        self.write(d, T::from_f64(outcome.floor), to, |root| root);
        Ok(outcome)
    }

    /// Every error that eigenvalues can cause.
    fn check(&self, d: &[T]) -> Result<Outcome, RootError> {
        if self.order == 0 {
            return Err(RootError::OrderZero);
        }
        if let Some(index) = d.iter().position(|d| !d.is_finite()) {
            return Err(RootError::NotFinite { index });
        }
        let largest = d.iter().fold(T::ZERO, |largest, &d| largest.maximum(d));
        let (given, floor) = match self.floor {
            Floor::Absolute(floor) => (floor, floor),
            Floor::Relative(part) => (part, part * largest),
        };
        // Written so that NaN fails.
        if !(given >= T::ZERO && given.is_finite()) {
            return Err(RootError::Floor { value: given.to_f64() });
        }
        if !floor.is_finite() {
            return Err(RootError::Floor { value: floor.to_f64() });
        }
        let mut below = 0;
        for (index, &d) in d.iter().enumerate() {
            if d < -floor {
                return Err(RootError::Negative { index, value: d.to_f64() });
            }
            if d <= floor {
                below += 1;
                if self.below == Below::Drop {
                    continue;
                }
                if floor == T::ZERO {
                    return Err(RootError::Singular { index });
                }
            }
            if !self.inverse_root(d.maximum(floor)).is_finite() {
                return Err(RootError::Overflow { index });
            }
        }
        Ok(Outcome { below, floor: floor.to_f64() })
    }

    /// `form(d_i^(-1/p))` of checked eigenvalues.
    fn write(&self, d: &[T], floor: T, to: &mut [T], form: impl Fn(T) -> T) {
        for (to, &d) in to.iter_mut().zip(d) {
            let dropped = d <= floor && self.below == Below::Drop;
            *to = if dropped { T::ZERO } else { form(self.inverse_root(d.maximum(floor))) };
        }
    }

    /// `x^(-1/p)` of a positive number.
    fn inverse_root(&self, x: T) -> T {
        if self.order.is_power_of_two() {
            T::ONE / (0..self.order.trailing_zeros()).fold(x, |x, _| x.sqrt())
        } else {
            T::from_f64(libm::pow(x.to_f64(), -1.0 / f64::from(self.order)))
        }
    }
}

/// Scratch, in elements, that [`inverse_root`] needs for an `n x n` matrix.
pub const fn scratch_len<T: Scalar>(n: usize) -> usize {
    if !countable(n, n) {
        return usize::MAX;
    }
    n * n + n + syrk_scratch_len::<T>(n, n)
}

/// `A^(-1/p) = Q diag(d^(-1/p)) Qᵀ`, symmetric to the bit: the product of `Q diag(d^(-1/2p))` with its transpose.
///
/// # Shapes
/// `q`: `n x n`, eigenvector `j` is column `j`; `d`: `n`, in any order; `to`: `n x n`; `scratch`: [`scratch_len`].
///
/// # Errors
/// [`RootError`]; `to` is untouched then. An element of `q` that is not finite is not looked for, and spreads.
///
/// # Source
/// Gupta, Koren and Singer 2018, arXiv:1802.09568, section 2 (roots of preconditioners).
pub fn inverse_root<T: Scalar, K: Kernel<T>>(
    kernel: K,
    root: Root<T>,
    q: MatRef<'_, T>,
    d: &[T],
    mut to: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<Outcome, RootError> {
    let n = d.len();
    ShapeError::check("Q", [n, n], q.shape())?;
    ShapeError::check("the result", [n, n], to.shape())?;
    ScratchError::check(scratch_len::<T>(n), scratch.len())?;
    let outcome = root.check(d)?;
    let (scaled, rest) = scratch.split_at_mut(n * n);
    let (roots, pack) = rest.split_at_mut(n);
    root.write(d, T::from_f64(outcome.floor), roots, T::sqrt);
    for (i, row) in scaled.chunks_exact_mut(n.max(1)).enumerate() {
        match q.row(i) {
            Some(q) => row.iter_mut().zip(q).zip(&*roots).for_each(|((x, &q), &root)| *x = q * root),
            None => {
                row.iter_mut().zip(&*roots).enumerate().for_each(|(j, (x, &root))| *x = q.at(i, j) * root)
            }
        }
    }
    let half = MatRef::row_major(scaled, n, n)?.transposed();
    syrk_lower(kernel, to.reborrow(), Accumulate::Replace(T::ONE), half, pack)?;
    kernel.run(Mirror(to));
    Ok(outcome)
}
