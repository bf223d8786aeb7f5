//! The two errors that every operation shares. Each operation wraps them in an enum of its own.

use core::fmt;

/// A view, slice or matrix of the wrong size.
///
/// Both fields are `[rows, columns]`; the length of a slice counts as `[length, 1]`. Where strides are at fault or the
/// bounds of a block, both are strides or bounds of rows and of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShapeError {
    /// What the operation needs; `usize::MAX` where that number does not fit a `usize`.
    pub expected: [usize; 2],
    /// What it was given.
    pub found: [usize; 2],
}

impl ShapeError {
    /// `Ok` when the two shapes agree.
    pub(crate) fn check(expected: [usize; 2], found: [usize; 2]) -> Result<(), Self> {
        if expected == found { Ok(()) } else { Err(Self { expected, found }) }
    }

    /// `Ok` when a slice of `found` numbers holds at least `expected`.
    pub(crate) fn check_len(expected: usize, found: usize) -> Result<(), Self> {
        if found >= expected { Ok(()) } else { Err(Self { expected: [expected, 1], found: [found, 1] }) }
    }
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([rows, cols], [found_rows, found_cols]) = (self.expected, self.found);
        write!(f, "expected {rows} x {cols}, found {found_rows} x {found_cols}")
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
