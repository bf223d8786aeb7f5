//! The two errors that every operation shares, and one for all operations. Each operation wraps the two in an enum of its
//! own.

use crate::cholesky::CholeskyError;
use crate::eigh::EighError;
use crate::eigh::roots::RootError;
use crate::product::{ProductError, TrsmError};
use crate::shifted::ShiftedError;
use core::fmt;

/// What is wrong with a shape, and so what the numbers of a [`ShapeError`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A matrix, by its name in the routine's formula, has another shape: `[rows, columns]`.
    Matrix(&'static str),
    /// A vector, by its name, has another length: `[length, 1]`.
    Vector(&'static str),
    /// A slice holds fewer numbers than its view: `[length, 1]`.
    TooShort,
    /// Two elements of a view to write share memory: the strides of a row-major matrix of that shape, and those found.
    Overlap,
    /// A block ends before it begins: where it begins and where it ends, `[row, column]`.
    Reversed,
    /// A block ends outside of its matrix: the shape of the matrix, and where the block ends, `[row, column]`.
    Outside,
    /// Something else: `[rows, columns]`, or as its user says.
    Other,
}

/// A view, slice or matrix of the wrong size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShapeError {
    /// What is wrong.
    pub fault: Fault,
    /// What the operation needs; `usize::MAX` where that number does not fit a `usize`.
    pub expected: [usize; 2],
    /// What it was given.
    pub found: [usize; 2],
}

impl ShapeError {
    /// Of something without a name here, [`Fault::Other`].
    #[must_use]
    pub const fn new(expected: [usize; 2], found: [usize; 2]) -> Self {
        Self { fault: Fault::Other, expected, found }
    }

    /// Of a matrix, [`Fault::Matrix`]; both as `[rows, columns]`.
    #[must_use]
    pub const fn matrix(name: &'static str, expected: [usize; 2], found: [usize; 2]) -> Self {
        Self { fault: Fault::Matrix(name), expected, found }
    }

    /// Of a vector, [`Fault::Vector`]; both are lengths.
    #[must_use]
    pub const fn vector(name: &'static str, expected: usize, found: usize) -> Self {
        Self { fault: Fault::Vector(name), expected: [expected, 1], found: [found, 1] }
    }

    /// `Ok` when the two shapes of a matrix agree.
    pub(crate) fn check(name: &'static str, expected: [usize; 2], found: [usize; 2]) -> Result<(), Self> {
        if expected == found { Ok(()) } else { Err(Self::matrix(name, expected, found)) }
    }

    /// `Ok` when the two lengths of a vector agree.
    pub(crate) fn check_len(name: &'static str, expected: usize, found: usize) -> Result<(), Self> {
        if expected == found { Ok(()) } else { Err(Self::vector(name, expected, found)) }
    }

    /// `Ok` when a slice of `found` numbers holds at least `expected`.
    pub(crate) fn check_room(expected: usize, found: usize) -> Result<(), Self> {
        if found >= expected {
            return Ok(());
        }
        Err(Self { fault: Fault::TooShort, expected: [expected, 1], found: [found, 1] })
    }
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([rows, cols], [found_rows, found_cols]) = (self.expected, self.found);
        match self.fault {
            Fault::Matrix(name) => {
                write!(f, "{name} is {found_rows} x {found_cols}, {rows} x {cols} expected")
            }
            Fault::Vector(name) => write!(f, "{name} holds {found_rows} numbers, {rows} expected"),
            Fault::TooShort => write!(f, "the slice holds {found_rows} numbers, {rows} are needed"),
            Fault::Overlap => write!(
                f,
                "two elements of the view share memory: its strides are {found_rows} and {found_cols}, \
                 row after row they would be {rows} and {cols}"
            ),
            Fault::Reversed => write!(
                f,
                "the block ends before it begins: from ({rows}, {cols}) to ({found_rows}, {found_cols})"
            ),
            Fault::Outside => {
                write!(f, "the block ends at ({found_rows}, {found_cols}), outside of {rows} x {cols}")
            }
            Fault::Other => write!(f, "{rows} x {cols} expected, found {found_rows} x {found_cols}"),
        }
    }
}

impl core::error::Error for ShapeError {}

/// A scratch slice shorter than the operation's `..._scratch_len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScratchError {
    /// Elements needed.
    pub needed: usize,
    /// Elements given.
    pub found: usize,
}

impl ScratchError {
    /// `Ok` when scratch is long enough.
    pub(crate) fn check(needed: usize, found: usize) -> Result<(), Self> {
        if found >= needed { Ok(()) } else { Err(Self { needed, found }) }
    }
}

impl fmt::Display for ScratchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scratch must hold {} elements, found {}", self.needed, self.found)
    }
}

impl core::error::Error for ScratchError {}

/// Any error of this crate, for callers who pass all of them on: `?` makes it of each.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// Of a view, or of a routine without scratch.
    Shape(ShapeError),
    /// Of scratch.
    Scratch(ScratchError),
    /// Of a [product](crate::product).
    Product(ProductError),
    /// Of a [triangular system](crate::product::trsm_lower).
    Trsm(TrsmError),
    /// Of [`cholesky`](crate::cholesky).
    Cholesky(CholeskyError),
    /// Of [`eigh`](crate::eigh).
    Eigh(EighError),
    /// Of [`roots`](crate::eigh::roots).
    Root(RootError),
    /// Of [`shifted`](crate::shifted).
    Shifted(ShiftedError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(error) => error.fmt(f),
            Self::Scratch(error) => error.fmt(f),
            Self::Product(error) => error.fmt(f),
            Self::Trsm(error) => error.fmt(f),
            Self::Cholesky(error) => error.fmt(f),
            Self::Eigh(error) => error.fmt(f),
            Self::Root(error) => error.fmt(f),
            Self::Shifted(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

impl From<ShapeError> for Error {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl From<ScratchError> for Error {
    fn from(error: ScratchError) -> Self {
        Self::Scratch(error)
    }
}

impl From<ProductError> for Error {
    fn from(error: ProductError) -> Self {
        Self::Product(error)
    }
}

impl From<TrsmError> for Error {
    fn from(error: TrsmError) -> Self {
        Self::Trsm(error)
    }
}

impl From<CholeskyError> for Error {
    fn from(error: CholeskyError) -> Self {
        Self::Cholesky(error)
    }
}

impl From<EighError> for Error {
    fn from(error: EighError) -> Self {
        Self::Eigh(error)
    }
}

impl From<RootError> for Error {
    fn from(error: RootError) -> Self {
        Self::Root(error)
    }
}

impl From<ShiftedError> for Error {
    fn from(error: ShiftedError) -> Self {
        Self::Shifted(error)
    }
}
