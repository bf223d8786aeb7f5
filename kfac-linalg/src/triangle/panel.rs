//! Room for a block and its right-hand sides.

use super::{LARGEST, strip_len, triangle_len};
use crate::error::ShapeError;
use crate::scalar::Scalar;
use crate::storage::{IN_LINE, from_line, row_len};
use crate::view::MatMut;

/// Room for a block, a strip of right-hand sides, and the solutions for all of them.
pub(crate) struct Panel<'a, T> {
    /// Becomes a [`Triangle`](super::Triangle).
    pub(crate) triangle: &'a mut [T],
    pub(crate) strip: &'a mut [T],
    pub(crate) solutions: Solutions<'a, T>,
}

/// Solutions: the rows of a block, as long as there are right-hand sides; none where a single block meets no others.
pub(crate) struct Solutions<'a, T> {
    data: &'a mut [T],
    cols: usize,
}

/// Order of the largest block of an `n x n` matrix. Frozen, since it decides the order of the sums.
pub(crate) const fn block_len(n: usize) -> usize {
    if n < LARGEST { n } else { LARGEST }
}

/// How many right-hand sides there are.
#[derive(Clone, Copy)]
pub(crate) struct Sides {
    /// That a block is solved with.
    pub(crate) solved: usize,
    /// Whose solutions are wanted beside them.
    pub(crate) kept: usize,
}

impl Sides {
    /// Those of an `n x n` matrix and `cols` right-hand sides: solutions with a single block meet no others.
    pub(crate) const fn new(n: usize, cols: usize) -> Self {
        Self { solved: cols, kept: if n > LARGEST { cols } else { 0 } }
    }
}

/// Numbers in a panel for the blocks of an `n x n` matrix.
pub(crate) const fn panel_len(n: usize, sides: Sides) -> usize {
    let (block, kept) = (block_len(n), if sides.kept == 0 { 0 } else { row_len(sides.kept) });
    IN_LINE
        + triangle_len(block).next_multiple_of(IN_LINE)
        + strip_len(block, sides.solved).next_multiple_of(IN_LINE)
        + block * kept
}

impl<'a, T: Scalar> Panel<'a, T> {
    /// The first [`panel_len`] numbers of scratch, each part on a cache line, and what is left.
    pub(crate) fn new(scratch: &'a mut [T], n: usize, sides: Sides) -> (Self, &'a mut [T]) {
        let block = block_len(n);
        let (scratch, rest) = scratch.split_at_mut(panel_len(n, sides));
        let len = triangle_len(block).next_multiple_of(IN_LINE);
        let (triangle, scratch) = from_line(scratch).split_at_mut(len);
        let (strip, data) = scratch.split_at_mut(strip_len(block, sides.solved).next_multiple_of(IN_LINE));
        (Self { triangle, strip, solutions: Solutions { data, cols: sides.kept } }, rest)
    }
}

impl<T: Scalar> Solutions<'_, T> {
    /// Those of a block of some rows.
    pub(crate) fn rows(&mut self, rows: usize) -> Result<MatMut<'_, T>, ShapeError> {
        MatMut::with_strides(self.data, [rows, self.cols], [row_len(self.cols), 1])
    }
}
