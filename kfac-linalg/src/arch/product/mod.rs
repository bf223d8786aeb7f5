//! Matrix products on raw pointers: [`tile`] does the arithmetic, [`packing`] copies operands to better strides,
//! [`drive`] cuts a product into blocks.
//!
//! One frame throughout: **the rows of `C` are neighbours in memory, and lanes are rows.** `A` is read in registers
//! down its columns, `B` element by element. A row-major `C` is the transposed problem `Cᵀ = Bᵀ Aᵀ`, in place.
//!
//! The bits of an element of `C` depend on its row of `A`, its column of `B` and their length alone, since every lane
//! is a chain of its own: tiles, masks, packing, orientation and register width do not enter.

mod blocks;
mod drive;
mod packing;
mod tile;

pub(crate) use blocks::{block_len, scratch_len};
pub(crate) use drive::Packing;
pub(crate) use drive::Product;

use super::compiled::compiled_here;
use core::ops::Range;

/// By reference: a product is too large to be handed from call to call.
type Form<'r, 'a, T> = &'r mut Product<'a, T>;

compiled_here! {
    /// Products.
    ProductTasks: Form<'r, 'a> -> (),
}

/// An operand to read: element `(i, j)` lies at `ptr + i row + j col`.
#[derive(Clone, Copy)]
pub(crate) struct Source<T> {
    ptr: *const T,
    row: usize,
    col: usize,
}

impl<T> Source<T> {
    /// Element `(i, j)`.
    ///
    /// # Safety
    /// It exists.
    #[inline(always)]
    unsafe fn at(self, i: usize, j: usize) -> *const T {
        // SAFETY: within the operand, by the contract.
        unsafe { self.ptr.add(i * self.row + j * self.col) }
    }

    fn transposed(self) -> Self {
        Self { row: self.col, col: self.row, ..self }
    }
}

/// The result: element `(i, j)` lies at `ptr + i row + j col`.
#[derive(Clone, Copy)]
pub(crate) struct Target<T> {
    ptr: *mut T,
    row: usize,
    col: usize,
}

impl<T> Target<T> {
    /// Element `(i, j)`.
    ///
    /// # Safety
    /// It exists.
    #[inline(always)]
    unsafe fn at(self, i: usize, j: usize) -> *mut T {
        // SAFETY: within the result, by the contract.
        unsafe { self.ptr.add(i * self.row + j * self.col) }
    }

    fn transposed(self) -> Self {
        Self { row: self.col, col: self.row, ..self }
    }
}

/// Which elements of the result are wanted. Others are neither read nor written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of them.
    All,
    /// Row at least column.
    Lower,
    /// Row at most column.
    Upper,
}

impl Wanted {
    fn transposed(self) -> Self {
        match self {
            Self::All => Self::All,
            Self::Lower => Self::Upper,
            Self::Upper => Self::Lower,
        }
    }

    /// Those of the given rows that are wanted in a column, counted from the first of them.
    #[inline(always)]
    fn rows(self, rows: &Range<usize>, col: usize) -> Range<usize> {
        let len = rows.end - rows.start;
        match self {
            Self::All => 0..len,
            Self::Lower => col.saturating_sub(rows.start).min(len)..len,
            Self::Upper => 0..(col + 1).saturating_sub(rows.start).min(len),
        }
    }
}
