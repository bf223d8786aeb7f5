//! Strided views of the caller's slices: `(i, j)` lies at `i * row_stride + j * col_stride`.
//!
//! Safe code throughout: a view holds exactly the part of the slice from its first to its last element, so an
//! index computed wrongly is caught by the slice and never leaves it.

use crate::error::{Fault, ShapeError};
use crate::scalar::Scalar;
use core::ops::Range;

/// Where the elements of a view lie in its slice.
#[derive(Debug, Clone, Copy)]
struct Layout {
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl Layout {
    /// Length of the slice from the first element to the last, both included.
    fn span(&self) -> Option<usize> {
        if self.rows == 0 || self.cols == 0 {
            return Some(0);
        }
        let down = (self.rows - 1).checked_mul(self.row_stride)?;
        let across = (self.cols - 1).checked_mul(self.col_stride)?;
        down.checked_add(across)?.checked_add(1)
    }

    /// The span, if `len` numbers hold it.
    fn span_within(&self, len: usize) -> Result<usize, ShapeError> {
        let span = self.span().unwrap_or(usize::MAX);
        ShapeError::check_room(span, len).map(|()| span)
    }

    /// Whether two elements share memory.
    ///
    /// `(i, j)` and `(i + u, j - v)` do when `u row_stride = v col_stride`. With `g` the common divisor of the
    /// strides, the smallest such step is `u = col_stride / g`, `v = row_stride / g`.
    fn overlaps_itself(&self) -> bool {
        let beside = self.col_stride == 1 && self.row_stride >= self.cols;
        let below = self.row_stride == 1 && self.col_stride >= self.rows;
        // The common layouts, without divisions.
        if beside || below {
            return false;
        }
        match common_divisor(self.row_stride, self.col_stride) {
            0 => self.rows > 1 && self.cols > 0 || self.cols > 1 && self.rows > 0,
            g => self.col_stride / g < self.rows && self.row_stride / g < self.cols,
        }
    }

    #[inline]
    fn at(&self, i: usize, j: usize) -> usize {
        assert!(i < self.rows && j < self.cols, "({i}, {j}) lies outside of {} x {}", self.rows, self.cols);
        i * self.row_stride + j * self.col_stride
    }

    fn transposed(self) -> Self {
        let Self { rows, cols, row_stride, col_stride } = self;
        Self { rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    /// The layout of a block, and where in the slice it begins and ends.
    fn block(self, rows: Range<usize>, cols: Range<usize>) -> Result<(Self, Range<usize>), ShapeError> {
        let ends = [rows.end, cols.end];
        if rows.start > rows.end || cols.start > cols.end {
            return Err(ShapeError {
                fault: Fault::Reversed,
                expected: [rows.start, cols.start],
                found: ends,
            });
        }
        if rows.end > self.rows || cols.end > self.cols {
            return Err(ShapeError { fault: Fault::Outside, expected: [self.rows, self.cols], found: ends });
        }
        let block = Self { rows: rows.len(), cols: cols.len(), ..self };
        match block.span() {
            // An empty block has no first element: its start may lie beyond the slice.
            None | Some(0) => Ok((block, 0..0)),
            Some(span) => {
                let start = rows.start * self.row_stride + cols.start * self.col_stride;
                Ok((block, start..start + span))
            }
        }
    }

    /// The layout of some columns and the rows from `top` on, and where in the slice they begin and end.
    #[inline]
    fn part(self, top: usize, cols: Range<usize>) -> (Self, Range<usize>) {
        assert!(top <= self.rows && cols.start <= cols.end && cols.end <= self.cols, "a part of the view");
        let part = Self { rows: self.rows - top, cols: cols.end - cols.start, ..self };
        if part.rows == 0 || part.cols == 0 {
            return (part, 0..0);
        }
        let start = top * self.row_stride + cols.start * self.col_stride;
        let span = (part.rows - 1) * self.row_stride + (part.cols - 1) * self.col_stride + 1;
        (part, start..start + span)
    }

    /// Whether every row ends before the next one begins.
    #[cfg(feature = "threads")]
    fn rows_lie_apart(&self) -> bool {
        self.rows <= 1 || self.cols == 0 || (self.cols - 1) * self.col_stride < self.row_stride
    }

    /// Where row `i` lies, when its elements are neighbours.
    #[inline]
    fn row(&self, i: usize) -> Option<Range<usize>> {
        if self.cols == 0 {
            return (i < self.rows).then_some(0..0);
        }
        let contiguous = self.col_stride == 1 || self.cols == 1;
        (contiguous && i < self.rows).then(|| i * self.row_stride..i * self.row_stride + self.cols)
    }
}

const fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// A matrix to read, `rows x cols`, on a borrowed slice.
#[derive(Debug, Clone, Copy)]
pub struct MatRef<'a, T> {
    data: &'a [T],
    layout: Layout,
}

impl<'a, T: Copy> MatRef<'a, T> {
    /// Rows one after the other: `(i, j)` lies at `i * cols + j`.
    ///
    /// # Errors
    /// [`Fault::TooShort`] when `data` holds fewer than `rows * cols` numbers.
    pub fn row_major(data: &'a [T], rows: usize, cols: usize) -> Result<Self, ShapeError> {
        Self::with_strides(data, [rows, cols], [cols, 1])
    }

    /// `(i, j)` lies at `i * strides[0] + j * strides[1]`. Elements may share memory: a stride of 0 repeats one.
    ///
    /// # Errors
    /// [`Fault::TooShort`] when the last element lies outside of `data`.
    pub fn with_strides(data: &'a [T], shape: [usize; 2], strides: [usize; 2]) -> Result<Self, ShapeError> {
        let ([rows, cols], [row_stride, col_stride]) = (shape, strides);
        let layout = Layout { rows, cols, row_stride, col_stride };
        let span = layout.span_within(data.len())?;
        Ok(Self { data: &data[..span], layout })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.layout.cols
    }

    /// `[rows, cols]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.layout.rows, self.layout.cols]
    }

    /// Distance in the slice from one row to the next.
    pub fn row_stride(&self) -> usize {
        self.layout.row_stride
    }

    /// Distance in the slice from one column to the next.
    pub fn col_stride(&self) -> usize {
        self.layout.col_stride
    }

    /// Element `(i, j)`.
    ///
    /// # Panics
    /// If `(i, j)` lies outside, as indexing a slice does.
    #[inline]
    pub fn at(&self, i: usize, j: usize) -> T {
        self.data[self.layout.at(i, j)]
    }

    /// The transpose, over the same numbers.
    pub fn transposed(self) -> Self {
        Self { layout: self.layout.transposed(), ..self }
    }

    /// The block of the given rows and columns.
    ///
    /// # Errors
    /// [`Fault::Outside`] when a range ends beyond this view, [`Fault::Reversed`] when one ends before it begins.
    pub fn block(self, rows: Range<usize>, cols: Range<usize>) -> Result<Self, ShapeError> {
        let (layout, range) = self.layout.block(rows, cols)?;
        Ok(Self { data: &self.data[range], layout })
    }

    /// Whether every row ends before the next one begins.
    #[cfg(feature = "threads")]
    pub(crate) fn rows_lie_apart(&self) -> bool {
        self.layout.rows_lie_apart()
    }

    /// Some columns, which exist.
    #[inline]
    pub(crate) fn columns(self, cols: Range<usize>) -> Self {
        let (layout, range) = self.layout.part(0, cols);
        Self { data: &self.data[range], layout }
    }

    /// Row `i` as a slice, when it exists and its elements are neighbours.
    #[inline]
    pub fn row(self, i: usize) -> Option<&'a [T]> {
        self.layout.row(i).map(|range| &self.data[range])
    }

    /// The slice from the first element to the last, gaps included.
    pub fn data(&self) -> &'a [T] {
        self.data
    }
}

/// A matrix to write, `rows x cols`, on a borrowed slice. No two of its elements share memory.
#[derive(Debug)]
pub struct MatMut<'a, T> {
    data: &'a mut [T],
    layout: Layout,
}

impl<'a, T: Copy> MatMut<'a, T> {
    /// Rows one after the other: `(i, j)` lies at `i * cols + j`.
    ///
    /// # Errors
    /// [`Fault::TooShort`] when `data` holds fewer than `rows * cols` numbers.
    pub fn row_major(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self, ShapeError> {
        Self::with_strides(data, [rows, cols], [cols, 1])
    }

    /// `(i, j)` lies at `i * strides[0] + j * strides[1]`.
    ///
    /// # Errors
    /// [`Fault::TooShort`] when the last element lies outside of `data`, [`Fault::Overlap`] when two elements would share
    /// memory.
    pub fn with_strides(
        data: &'a mut [T],
        shape: [usize; 2],
        strides: [usize; 2],
    ) -> Result<Self, ShapeError> {
        let ([rows, cols], [row_stride, col_stride]) = (shape, strides);
        let layout = Layout { rows, cols, row_stride, col_stride };
        let span = layout.span_within(data.len())?;
        if layout.overlaps_itself() {
            return Err(ShapeError { fault: Fault::Overlap, expected: [cols, 1], found: strides });
        }
        Ok(Self { data: &mut data[..span], layout })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.layout.cols
    }

    /// `[rows, cols]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.layout.rows, self.layout.cols]
    }

    /// Distance in the slice from one row to the next.
    pub fn row_stride(&self) -> usize {
        self.layout.row_stride
    }

    /// Distance in the slice from one column to the next.
    pub fn col_stride(&self) -> usize {
        self.layout.col_stride
    }

    /// Element `(i, j)`.
    ///
    /// # Panics
    /// If `(i, j)` lies outside, as indexing a slice does.
    #[inline]
    pub fn at(&self, i: usize, j: usize) -> T {
        self.data[self.layout.at(i, j)]
    }

    /// Writes element `(i, j)`.
    ///
    /// # Panics
    /// If `(i, j)` lies outside, as indexing a slice does.
    #[inline]
    pub fn set(&mut self, i: usize, j: usize, x: T) {
        self.data[self.layout.at(i, j)] = x;
    }

    /// The same view, to read.
    pub fn as_ref(&self) -> MatRef<'_, T> {
        MatRef { data: self.data, layout: self.layout }
    }

    /// The same view, to read from now on.
    pub(crate) fn into_ref(self) -> MatRef<'a, T> {
        MatRef { data: self.data, layout: self.layout }
    }

    /// The same view for a shorter time, so that this one can be used again.
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        MatMut { data: self.data, layout: self.layout }
    }

    /// The transpose, over the same numbers.
    pub fn transposed(self) -> Self {
        Self { layout: self.layout.transposed(), ..self }
    }

    /// The block of the given rows and columns.
    ///
    /// # Errors
    /// [`Fault::Outside`] when a range ends beyond this view, [`Fault::Reversed`] when one ends before it begins.
    pub fn block(self, rows: Range<usize>, cols: Range<usize>) -> Result<Self, ShapeError> {
        let (layout, range) = self.layout.block(rows, cols)?;
        Ok(Self { data: &mut self.data[range], layout })
    }

    /// Whether every row ends before the next one begins.
    #[cfg(feature = "threads")]
    pub(crate) fn rows_lie_apart(&self) -> bool {
        self.layout.rows_lie_apart()
    }

    /// The rows before `at` and those from there on, both of which exist and [lie apart](Self::rows_lie_apart).
    #[cfg(feature = "threads")]
    pub(crate) fn split_rows(self, at: usize) -> (Self, Self) {
        let Layout { rows, row_stride, .. } = self.layout;
        // The last row ends before its stride does.
        let middle = if at == rows { self.data.len() } else { (at * row_stride).min(self.data.len()) };
        let (above, below) = self.data.split_at_mut(middle);
        let part = |rows: usize| Layout { rows, ..self.layout };
        (Self { data: above, layout: part(at) }, Self { data: below, layout: part(rows - at) })
    }

    /// Some columns of the rows from `top` on, which exist.
    #[inline]
    pub(crate) fn part(self, top: usize, cols: Range<usize>) -> Self {
        let (layout, range) = self.layout.part(top, cols);
        Self { data: &mut self.data[range], layout }
    }

    /// Row `i` as a slice, when it exists and its elements are neighbours.
    #[inline]
    pub fn row_mut(&mut self, i: usize) -> Option<&mut [T]> {
        self.layout.row(i).map(|range| &mut self.data[range])
    }

    /// The slice from the first element to the last, gaps included.
    pub fn data_mut(&mut self) -> &mut [T] {
        self.data
    }

    /// Writes `x` everywhere.
    pub fn fill(&mut self, x: T) {
        if self.cols() == 0 {
            return;
        }
        for i in 0..self.rows() {
            match self.row_mut(i) {
                Some(row) => row.fill(x),
                None => (0..self.cols()).for_each(|j| self.set(i, j, x)),
            }
        }
    }

    /// Multiplies every element by `x`: `C <- x C`.
    ///
    /// Before a product that [adds](crate::product::Accumulate::Add), this is the `β` of `C = β C + α A B`. For `β = 0`
    /// take [`Replace`](crate::product::Accumulate::Replace): infinity or NaN times zero is NaN.
    ///
    /// ```
    /// use kfac_linalg::product::{Accumulate, syrk_lower, syrk_scratch_len};
    /// use kfac_linalg::{MatMut, MatRef, Reproducible};
    ///
    /// // A moving average: C = 0.75 C + 0.25 XᵀX.
    /// let (mut c, x) = ([4.0_f32, 0.0, 8.0, 4.0], [1.0, 2.0]);
    /// let mut view = MatMut::row_major(&mut c, 2, 2)?;
    /// view.scale(0.75);
    /// let scratch = &mut [0.0; syrk_scratch_len::<f32>(2, 1)];
    /// syrk_lower(Reproducible, view, Accumulate::Add(0.25), MatRef::row_major(&x, 1, 2)?, scratch)?;
    /// assert_eq!(c, [3.25, 0.0, 6.5, 4.0]);
    /// # Ok::<(), kfac_linalg::Error>(())
    /// ```
    pub fn scale(&mut self, x: T)
    where
        T: Scalar,
    {
        if self.cols() == 0 {
            return;
        }
        for i in 0..self.rows() {
            match self.row_mut(i) {
                Some(row) => row.iter_mut().for_each(|a| *a *= x),
                None => (0..self.cols()).for_each(|j| self.set(i, j, x * self.at(i, j))),
            }
        }
    }

    /// Copies `other`, element by element.
    ///
    /// # Errors
    /// [`ShapeError`] when the shapes differ; nothing is written then.
    pub fn copy_from(&mut self, other: MatRef<'_, T>) -> Result<(), ShapeError> {
        ShapeError::check("the other matrix", self.shape(), other.shape())?;
        if self.cols() == 0 {
            return Ok(());
        }
        for i in 0..self.rows() {
            match (self.row_mut(i), other.row(i)) {
                (Some(to), Some(from)) => to.copy_from_slice(from),
                _ => (0..self.cols()).for_each(|j| self.set(i, j, other.at(i, j))),
            }
        }
        Ok(())
    }
}
