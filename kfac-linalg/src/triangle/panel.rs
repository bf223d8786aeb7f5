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

/// Solutions: the rows of a block, as long as there are right-hand sides.
pub(crate) struct Solutions<'a, T> {
    data: &'a mut [T],
    cols: usize,
}

/// Order of the largest block of an `n x n` matrix. Frozen, since it decides the order of the sums.
pub(crate) const fn block_len(n: usize) -> usize {
    if n < LARGEST { n } else { LARGEST }
}

/// Numbers in a panel for the blocks of an `n x n` matrix and `cols` right-hand sides.
pub(crate) const fn panel_len(n: usize, cols: usize) -> usize {
    let block = block_len(n);
    IN_LINE
        + triangle_len(block).next_multiple_of(IN_LINE)
        + strip_len(block).next_multiple_of(IN_LINE)
        + block * row_len(cols)
}

impl<'a, T: Scalar> Panel<'a, T> {
    /// The first [`panel_len`] numbers of scratch, each part on a cache line, and what is left.
    pub(crate) fn new(scratch: &'a mut [T], n: usize, cols: usize) -> (Self, &'a mut [T]) {
        let block = block_len(n);
        let (scratch, rest) = scratch.split_at_mut(panel_len(n, cols));
        let len = triangle_len(block).next_multiple_of(IN_LINE);
        let (triangle, scratch) = from_line(scratch).split_at_mut(len);
        let (strip, data) = scratch.split_at_mut(strip_len(block).next_multiple_of(IN_LINE));
        (Self { triangle, strip, solutions: Solutions { data, cols } }, rest)
    }
}

impl<T: Scalar> Solutions<'_, T> {
    /// Those of a block of some rows.
    pub(crate) fn rows(&mut self, rows: usize) -> Result<MatMut<'_, T>, ShapeError> {
        MatMut::with_strides(self.data, [rows, self.cols], [row_len(self.cols), 1])
    }
}
