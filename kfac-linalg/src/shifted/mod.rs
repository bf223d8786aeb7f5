//! Shifted solves: `(d_j A + λ I)⁻¹ b_j` for many columns, each with a `d_j` of its own, without eigenvectors of `A`.
//!
//! One orthogonal reduction `A = Q T Qᵀ` to tridiagonal form serves every multiple and every shift,
//!
//! ```text
//!     (d_j A + λ I)⁻¹ b_j = Q (d_j T + λ I)⁻¹ Qᵀ b_j
//! ```
//!
//! and costs a fraction of the eigenvectors. Beside the two rotations the systems in the middle are nothing: a dozen
//! flops an element, one column to a lane of a register.
//!
//! With the eigenvectors of the smaller side of a Kronecker product, `G = V diag(d) Vᵀ`, this is exact damping:
//! column `j` of `(Vᵀ W)ᵀ` solved with `d_j A + λ I` is `(A (x) G + λ I)⁻¹ vec(W)` in the basis `V`. No eigenvalue of
//! `A` is ever formed, so that none drowns in the rounding of a larger one: in single precision the result is the more
//! accurate the faster the spectrum falls.
//!
//! # Example
//!
//! ```
//! use kfac_linalg::eigh::qr;
//! use kfac_linalg::shifted::{self, Shifts, Tridiagonal};
//! use kfac_linalg::{MatMut, MatRef, Reproducible, largest_len};
//!
//! let numbers = [2.0_f64, 1.0, 1.0, 2.0];
//! let mut scratch = [0.0; largest_len([
//!     qr::tridiagonal_scratch_len::<f64>(2),
//!     shifted::solve_scratch_len::<f64>(2, 3),
//! ])];
//! let (mut q, mut diagonal, mut off_diagonal) = ([0.0; 4], [0.0; 2], [0.0; 1]);
//! let (a, view) = (MatRef::row_major(&numbers, 2, 2)?, MatMut::row_major(&mut q, 2, 2)?);
//! qr::tridiagonal(Reproducible, a, view, &mut diagonal, &mut off_diagonal, &mut scratch)?;
//! let a = Tridiagonal {
//!     q: MatRef::row_major(&q, 2, 2)?,
//!     diagonal: &diagonal,
//!     off_diagonal: &off_diagonal,
//! };
//!
//! // Three columns, each with a multiple of its own: (0 A + I)⁻¹, (A + I)⁻¹ and (2 A + I)⁻¹ times (1, 0).
//! let mut b = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0];
//! let shifts = Shifts { d: &[0.0, 1.0, 2.0], lambda: 1.0 };
//! shifted::solve(Reproducible, a, shifts, MatMut::row_major(&mut b, 2, 3)?, &mut scratch)?;
//! for (x, exact) in b.iter().zip([1.0, 3.0 / 8.0, 5.0 / 21.0, 0.0, -1.0 / 8.0, -2.0 / 21.0]) {
//!     assert!((x - exact).abs() < 1e-15);
//! }
//! # Ok::<(), kfac_linalg::Error>(())
//! ```

mod lanes;

use crate::error::{ScratchError, ShapeError};
use crate::finite::AllFinite;
use crate::kernel::Kernel;
use crate::lengths::countable;
use crate::product::{Accumulate, ProductError, gemm, gemm_scratch_len};
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};
use core::fmt;
use core::ops::Range;
pub(crate) use lanes::ShiftedTasks;
use lanes::{FirstBadPivot, Solve, room_len, row_len};

/// `A = Q T Qᵀ` with `Q` orthogonal and `T` symmetric and tridiagonal, on borrowed memory.
#[derive(Clone, Copy, Debug)]
pub struct Tridiagonal<'a, T> {
    /// `Q`, `n x n`.
    pub q: MatRef<'a, T>,
    /// The diagonal of `T`: `n` numbers.
    pub diagonal: &'a [T],
    /// What stands beside it: `n - 1` numbers (none for `n = 0`), the first couples rows 0 and 1.
    pub off_diagonal: &'a [T],
}

/// Column `j` is solved with `d_j A + λ I`.
#[derive(Clone, Copy, Debug)]
pub struct Shifts<'a, T> {
    /// One factor per column.
    pub d: &'a [T],
    /// `λ`, the same for all.
    pub lambda: T,
}

/// An operand of [`solve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// `Q`.
    Basis,
    /// The diagonal of `T`, as a column.
    Diagonal,
    /// The numbers beside it, as a column.
    OffDiagonal,
    /// The factors `d`, as a column.
    Factors,
    /// `λ`.
    Lambda,
    /// The columns to be solved.
    RightHandSides,
}

/// Why a shifted solve failed. The right-hand sides are untouched by all but [`Overflow`](Self::Overflow).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ShiftedError {
    /// Shapes that do not fit together.
    Shape(ShapeError),
    /// Scratch too short.
    Scratch(ScratchError),
    /// An element is infinite or NaN.
    NotFinite {
        /// Of which operand.
        operand: Operand,
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
    },
    /// `d_j A + λ I` is not positive definite in working precision.
    NotPositiveDefinite {
        /// The column `j`.
        column: usize,
        /// Index of the first pivot that is not positive.
        pivot: usize,
        /// That pivot: the diagonal element left when all rows of `d_j T + λ I` before it have been eliminated.
        value: f64,
    },
    /// Numbers beyond the largest of their type, from finite operands. Where they first appear in the solutions, the
    /// right-hand sides are lost: they hold these, with infinities or NaN.
    Overflow {
        /// The first column with such a number.
        column: usize,
    },
}

impl fmt::Display for ShiftedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(error) => error.fmt(f),
            Self::Scratch(error) => error.fmt(f),
            Self::NotFinite { operand, row, col } => {
                let name = match operand {
                    Operand::Basis => "the basis",
                    Operand::Diagonal => "the diagonal",
                    Operand::OffDiagonal => "the off-diagonal",
                    Operand::Factors => "the factors",
                    Operand::Lambda => "the shift",
                    Operand::RightHandSides => "the right-hand sides",
                };
                write!(f, "element ({row}, {col}) of {name} is not finite")
            }
            Self::NotPositiveDefinite { column, pivot, value } => {
                write!(
                    f,
                    "the matrix of column {column} is not positive definite: pivot {pivot} is {value:e}"
                )
            }
            Self::Overflow { column } => {
                write!(f, "the solution of column {column} exceeds the largest number")
            }
        }
    }
}

impl core::error::Error for ShiftedError {}

impl From<ShapeError> for ShiftedError {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl From<ScratchError> for ShiftedError {
    fn from(error: ScratchError) -> Self {
        Self::Scratch(error)
    }
}

impl From<ProductError> for ShiftedError {
    fn from(error: ProductError) -> Self {
        match error {
            ProductError::Shape(error) => Self::Shape(error),
            ProductError::Scratch(error) => Self::Scratch(error),
        }
    }
}

/// Scratch, in elements, that [`solve`] needs for `n x n` and so many columns: the rotated columns, and 64 numbers a
/// row at most.
pub const fn solve_scratch_len<T: Scalar>(n: usize, columns: usize) -> usize {
    if !countable(n, columns) {
        return usize::MAX;
    }
    n * row_len(columns) + room_len(n, columns) + gemm_scratch_len::<T>(n, columns, n)
}

/// `b_j <- (d_j A + λ I)⁻¹ b_j` for every column `j`, through `A = Q T Qᵀ`.
///
/// Two products of `2 n² columns` flops, and one `L D Lᵀ` of a tridiagonal matrix per column between them. The bits of
/// a column depend on that column, its factor, `λ` and `A` alone.
///
/// # Shapes
/// `a`: `n x n`; `b`: `n x columns`, any strides; `shifts.d`: `columns`; `scratch`: [`solve_scratch_len`].
///
/// # Units
/// `shifts.lambda`: that of `d_j` times an eigenvalue of `A`.
///
/// # Errors
/// [`ShiftedError`], with `b` untouched unless it is [`ShiftedError::Overflow`]. A pivot that is not positive means that `d_j A + λ I` is not
/// positive definite in working precision: a negative `d_j`, no damping on a singular matrix, or a damping that
/// drowns in the rounding of `d_j A`.
///
/// # Source
/// Golub and Van Loan, Matrix Computations, 4th edition, section 4.3 (the systems). Martens and Grosse 2015,
/// arXiv:1503.05671, appendix B (exact damping, there through the eigenvectors of both sides).
pub fn solve<T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: Tridiagonal<'_, T>,
    shifts: Shifts<'_, T>,
    mut b: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<(), ShiftedError> {
    let [n, columns] = b.shape();
    let needed = solve_scratch_len::<T>(n, columns);
    let Some([x, room, pack]) = checked_room(&a, &shifts, [n, columns], needed, scratch)? else {
        return Ok(());
    };
    let strides = [row_len(columns), 1];
    let replace = Accumulate::Replace(T::ONE);
    let rotated = MatMut::with_strides(x, [n, columns], strides)?;
    gemm(kernel, rotated, replace, a.q.transposed(), b.as_ref(), pack)?;
    if let Some(column) = kernel.run(Solve { a, shifts, x, room }) {
        return Err(cause(kernel, &a, &shifts, &b, column));
    }
    let rotated = MatRef::with_strides(x, [n, columns], strides)?;
    gemm(kernel, b.reborrow(), replace, a.q, rotated, pack)?;
    if !kernel.run(AllFinite(b.as_ref())) {
        return Err(ShiftedError::Overflow {
            column: first_not_finite(b.as_ref(), 0..columns).map_or(0, |[_, j]| j),
        });
    }
    Ok(())
}

/// Scratch, in elements, that [`solve_rotated`] needs for `n x n` and so many columns.
pub const fn solve_rotated_scratch_len<T: Scalar>(n: usize, columns: usize) -> usize {
    if !countable(n, columns) {
        return usize::MAX;
    }
    n * row_len(columns) + room_len(n, columns)
}

/// `b_j <- (d_j T + λ I)⁻¹ b_j` for every column `j`: what [`solve`] does between its two products, for columns `Qᵀb` that come
/// from elsewhere.
///
/// # Shapes
/// As for [`solve`]; `scratch`: [`solve_rotated_scratch_len`].
///
/// # Errors
/// As for [`solve`].
pub fn solve_rotated<T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: Tridiagonal<'_, T>,
    shifts: Shifts<'_, T>,
    mut b: MatMut<'_, T>,
    scratch: &mut [T],
) -> Result<(), ShiftedError> {
    let [n, columns] = b.shape();
    let needed = solve_rotated_scratch_len::<T>(n, columns);
    let Some([x, room, _]) = checked_room(&a, &shifts, [n, columns], needed, scratch)? else {
        return Ok(());
    };
    let strides = [row_len(columns), 1];
    MatMut::with_strides(x, [n, columns], strides)?.copy_from(b.as_ref())?;
    if let Some(column) = kernel.run(Solve { a, shifts, x, room }) {
        return Err(cause(kernel, &a, &shifts, &b, column));
    }
    Ok(b.copy_from(MatRef::with_strides(x, [n, columns], strides)?)?)
}

/// The padded columns, the room of [`Solve`] and the rest of the scratch, once everything is found to fit together and every
/// element of every `d_j T + λ I` to be finite; `None` where there is nothing to solve.
fn checked_room<'s, T: Scalar>(
    a: &Tridiagonal<'_, T>,
    shifts: &Shifts<'_, T>,
    [n, columns]: [usize; 2],
    needed: usize,
    scratch: &'s mut [T],
) -> Result<Option<[&'s mut [T]; 3]>, ShiftedError> {
    check_shapes(a, shifts, [n, columns])?;
    ScratchError::check(needed, scratch.len())?;
    if n == 0 || columns == 0 {
        return Ok(None);
    }
    check_shifted(a, shifts)?;
    let (x, rest) = scratch.split_at_mut(n * row_len(columns));
    let (room, rest) = rest.split_at_mut(room_len(n, columns));
    Ok(Some([x, room, rest]))
}

fn check_shapes<T: Scalar>(
    a: &Tridiagonal<'_, T>,
    shifts: &Shifts<'_, T>,
    [n, columns]: [usize; 2],
) -> Result<(), ShapeError> {
    ShapeError::check("Q", [n, n], a.q.shape())?;
    ShapeError::check_len("the diagonal", n, a.diagonal.len())?;
    ShapeError::check_len("the off-diagonal", n.saturating_sub(1), a.off_diagonal.len())?;
    ShapeError::check_len("d", columns, shifts.d.len())
}

/// Whether every element of every `d_j T + λ I` is finite.
fn check_shifted<T: Scalar>(a: &Tridiagonal<'_, T>, shifts: &Shifts<'_, T>) -> Result<(), ShiftedError> {
    let largest = |numbers: &[T], operand| {
        let mut largest = T::ZERO;
        for (row, x) in numbers.iter().enumerate() {
            if !x.is_finite() {
                return Err(ShiftedError::NotFinite { operand, row, col: 0 });
            }
            largest = largest.maximum(x.abs());
        }
        Ok(largest)
    };
    let top = largest(a.diagonal, Operand::Diagonal)?.maximum(largest(a.off_diagonal, Operand::OffDiagonal)?);
    largest(shifts.d, Operand::Factors)?;
    largest(&[shifts.lambda], Operand::Lambda)?;
    let beyond = |d: &T| !(d.abs() * top + shifts.lambda.abs()).is_finite();
    shifts.d.iter().position(beyond).map_or(Ok(()), |column| Err(ShiftedError::Overflow { column }))
}

/// Row and column of the first element that is not finite, column by column.
fn first_not_finite<T: Scalar>(x: MatRef<'_, T>, cols: Range<usize>) -> Option<[usize; 2]> {
    let mut elements = cols.flat_map(|col| (0..x.rows()).map(move |row| [row, col]));
    elements.find(|&[row, col]| !x.at(row, col).is_finite())
}

/// Why the solution of a column is not finite, or a pivot of its matrix not positive.
#[cold]
fn cause<T: Scalar, K: Kernel<T>>(
    kernel: K,
    a: &Tridiagonal<'_, T>,
    shifts: &Shifts<'_, T>,
    b: &MatMut<'_, T>,
    column: usize,
) -> ShiftedError {
    let not_finite = |x, operand, cols| {
        first_not_finite(x, cols).map(|[row, col]| ShiftedError::NotFinite { operand, row, col })
    };
    let bad_pivot = || {
        let (pivot, value) =
            kernel.run(FirstBadPivot { a: *a, d: shifts.d[column], lambda: shifts.lambda })?;
        Some(ShiftedError::NotPositiveDefinite { column, pivot, value: value.to_f64() })
    };
    bad_pivot()
        .or_else(|| not_finite(b.as_ref(), Operand::RightHandSides, column..column + 1))
        .or_else(|| not_finite(a.q, Operand::Basis, 0..a.q.cols()))
        .unwrap_or(ShiftedError::Overflow { column })
}
