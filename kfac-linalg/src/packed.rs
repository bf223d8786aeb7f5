//! Symmetric matrices in `n(n+1)/2` numbers, see [`PackedRef`].

use crate::error::ShapeError;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};
use core::ops::Range;

/// Numbers in a packed symmetric `n x n` matrix: `n(n+1)/2`. Saturates where no memory holds them.
pub const fn packed_len(n: usize) -> usize {
    // The even one of the two factors is halved first: no product larger than the result.
    if n.is_multiple_of(2) { (n / 2).saturating_mul(n + 1) } else { n.div_ceil(2).saturating_mul(n) }
}

/// Where the three parts lie.
#[derive(Debug, Clone, Copy)]
struct Parts {
    n: usize,
    /// Order of the first triangle, columns of the rectangle, and the distance between rows of both.
    half: usize,
}

impl Parts {
    fn new(n: usize) -> Self {
        Self { n, half: n.div_ceil(2) }
    }

    /// First element of `F`, which `R` continues: one row down when `n` is even.
    fn first(self) -> usize {
        if self.n.is_multiple_of(2) { self.half } else { 0 }
    }

    /// First element of `S`, stored transposed: one column to the right when `n` is odd.
    fn second(self) -> usize {
        self.n % 2
    }

    /// Where element `(i, j)` lies, in any order of the two.
    #[inline]
    fn at(self, i: usize, j: usize) -> usize {
        let (i, j) = if i < j { (j, i) } else { (i, j) };
        assert!(i < self.n, "({i}, {j}) lies outside of {} x {}", self.n, self.n);
        if j < self.half {
            // Also the rows of the rectangle: it continues the first triangle.
            self.first() + i * self.half + j
        } else {
            self.second() + (i - self.half) + (j - self.half) * self.half
        }
    }

    fn check<T>(self, data: &[T]) -> Result<(), ShapeError> {
        ShapeError::check_room(packed_len(self.n), data.len())
    }
}

/// A packed symmetric matrix to read, `n x n`, in `n(n+1)/2` numbers: rectangular full packed storage.
///
/// The usual packed triangle has rows of every length, which no product can read. Cut the lower triangle in two
/// triangles and a rectangle instead, `h = ceil(n / 2)`:
///
/// ```text
///     A = [ F . ]    F: h x h triangle          n = 5, h = 3         n = 4, h = 2
///         [ R S ]    R: (n-h) x h rectangle     f00 s00 s10          s00 s10
///                    S: (n-h) x (n-h) triangle  f10 f11 s11          f00 s11
///                                               f20 f21 f22          f10 f11
///                                               r00 r01 r02          r00 r01
///                                               r10 r11 r12          r10 r11
/// ```
///
/// `F` and the transpose of `S` fill one square (one row higher when `n` is even), `R` follows. Each of the three
/// is a strided view, rows `h` apart, so [`syrk`](crate::product::syrk) writes straight into them.
///
/// # Source
/// The row-major counterpart of LAPACK's format of the same name: Gustavson, Waśniewski, Dongarra and Langou 2010, ACM
/// TOMS 37:18.
#[derive(Debug, Clone, Copy)]
pub struct PackedRef<'a, T> {
    data: &'a [T],
    parts: Parts,
}

impl<'a, T: Scalar> PackedRef<'a, T> {
    /// Views the first [`packed_len`] numbers of `data` as a symmetric `n x n` matrix.
    ///
    /// # Errors
    /// [`ShapeError`] when `data` is shorter.
    pub fn new(data: &'a [T], n: usize) -> Result<Self, ShapeError> {
        let parts = Parts::new(n);
        parts.check(data)?;
        Ok(Self { data: &data[..packed_len(n)], parts })
    }

    /// Number of rows, and of columns.
    pub fn n(&self) -> usize {
        self.parts.n
    }

    /// Element `(i, j)`, which is also `(j, i)`.
    ///
    /// # Panics
    /// If `(i, j)` lies outside, as indexing a slice does.
    #[inline]
    pub fn at(&self, i: usize, j: usize) -> T {
        self.data[self.parts.at(i, j)]
    }

    /// Sum of the diagonal, in order.
    pub fn trace(&self) -> T {
        (0..self.n()).fold(T::ZERO, |sum, i| sum + self.at(i, i))
    }

    /// Writes both triangles of the full matrix, symmetric to the bit.
    ///
    /// # Errors
    /// [`ShapeError`] when `full` is not `n x n`; nothing is written then.
    pub fn unpack(self, mut full: MatMut<'_, T>) -> Result<(), ShapeError> {
        ShapeError::check("the full matrix", [self.n(), self.n()], full.shape())?;
        let Parts { n, half } = self.parts;
        // Rows of `F` and `R` are rows of the lower triangle, columns of `S` such of the upper one.
        let rows = self.data[self.parts.first()..].chunks(half.max(1)).take(n);
        for (i, row) in rows.enumerate() {
            write_row(&mut full, i, 0, &row[..half.min(i + 1)]);
        }
        let columns = self.data[self.parts.second().min(self.data.len())..].chunks(half.max(1));
        for (j, column) in columns.enumerate().take(n - half) {
            write_row(&mut full, half + j, half + j, &column[j..n - half]);
        }
        // What has been written decides what has not.
        for first in (0..n).step_by(TILE) {
            let below = |first: usize| (first..n).step_by(TILE).map(|at| at..n.min(at + TILE));
            let tile = first..n.min(first + TILE);
            for other in below(first) {
                mirror(&mut full, half, tile.clone(), other);
            }
        }
        Ok(())
    }

    /// The numbers as they lie in memory.
    pub fn data(&self) -> &'a [T] {
        self.data
    }
}

/// Rows and columns that are transposed at once.
const TILE: usize = 16;

/// Writes numbers to row `row`, from column `first` on.
fn write_row<T: Scalar>(full: &mut MatMut<'_, T>, row: usize, first: usize, numbers: &[T]) {
    match full.row_mut(row) {
        Some(row) => row[first..first + numbers.len()].copy_from_slice(numbers),
        None => numbers.iter().enumerate().for_each(|(at, &x)| full.set(row, first + at, x)),
    }
}

/// Copies the elements between two ranges, of which `low` is the lower or the same, to where they are not yet: in the first `half`
/// columns from the lower triangle to the upper one, beyond them the other way.
fn mirror<T: Scalar>(full: &mut MatMut<'_, T>, half: usize, low: Range<usize>, high: Range<usize>) {
    if low == high || (low.contains(&half) && low.start < half) {
        for j in low {
            for i in high.start.max(j + 1)..high.end {
                let (from, to) = if j < half { ([i, j], [j, i]) } else { ([j, i], [i, j]) };
                let x = full.as_ref().at(from[0], from[1]);
                full.set(to[0], to[1], x);
            }
        }
        return;
    }
    let (from, to) = if low.start < half { (high, low) } else { (low, high) };
    if from.len() < TILE || to.len() < TILE {
        for (i, j) in from.flat_map(|i| to.clone().map(move |j| (i, j))) {
            let x = full.as_ref().at(i, j);
            full.set(j, i, x);
        }
        return;
    }
    let mut tile = [[T::ZERO; TILE]; TILE];
    for (numbers, i) in tile.iter_mut().zip(from.clone()) {
        match full.as_ref().row(i).and_then(|row| row[to.start..].first_chunk()) {
            Some(chunk) => *numbers = *chunk,
            None => numbers.iter_mut().zip(to.clone()).for_each(|(x, j)| *x = full.as_ref().at(i, j)),
        }
    }
    // All lengths are constants, so that the columns are shuffled in registers.
    let columns: [[T; TILE]; TILE] = core::array::from_fn(|j| core::array::from_fn(|i| tile[i][j]));
    for (at, column) in columns.into_iter().enumerate() {
        match full.row_mut(to.start + at).and_then(|row| row[from.start..].first_chunk_mut()) {
            Some(chunk) => *chunk = column,
            None => write_row(full, to.start + at, from.start, &column),
        }
    }
}

/// A packed symmetric matrix to write, `n x n`.
#[derive(Debug)]
pub struct PackedMut<'a, T> {
    data: &'a mut [T],
    parts: Parts,
}

impl<'a, T: Scalar> PackedMut<'a, T> {
    /// Views the first [`packed_len`] numbers of `data` as a symmetric `n x n` matrix.
    ///
    /// # Errors
    /// [`ShapeError`] when `data` is shorter.
    pub fn new(data: &'a mut [T], n: usize) -> Result<Self, ShapeError> {
        let parts = Parts::new(n);
        parts.check(data)?;
        Ok(Self { data: &mut data[..packed_len(n)], parts })
    }

    /// Number of rows, and of columns.
    pub fn n(&self) -> usize {
        self.parts.n
    }

    /// The same view, to read.
    pub fn as_ref(&self) -> PackedRef<'_, T> {
        PackedRef { data: self.data, parts: self.parts }
    }

    /// The same view for a shorter time, so that this one can be used again.
    pub fn reborrow(&mut self) -> PackedMut<'_, T> {
        PackedMut { data: self.data, parts: self.parts }
    }

    /// Element `(i, j)`, which is also `(j, i)`.
    ///
    /// # Panics
    /// If `(i, j)` lies outside, as indexing a slice does.
    #[inline]
    pub fn at(&self, i: usize, j: usize) -> T {
        self.data[self.parts.at(i, j)]
    }

    /// Writes element `(i, j)`, which is also `(j, i)`.
    ///
    /// # Panics
    /// If `(i, j)` lies outside, as indexing a slice does.
    #[inline]
    pub fn set(&mut self, i: usize, j: usize, x: T) {
        self.data[self.parts.at(i, j)] = x;
    }

    /// Adds `x` to element `(i, j)`, which is also `(j, i)`: once, also off the diagonal.
    ///
    /// # Panics
    /// If `(i, j)` lies outside, as indexing a slice does.
    #[inline]
    pub fn add(&mut self, i: usize, j: usize, x: T) {
        self.data[self.parts.at(i, j)] += x;
    }

    /// Sum of the diagonal, in order.
    pub fn trace(&self) -> T {
        self.as_ref().trace()
    }

    /// Multiplies every element by `x`.
    pub fn scale(&mut self, x: T) {
        self.data.iter_mut().for_each(|a| *a *= x);
    }

    /// Reads the lower triangle of a full matrix.
    ///
    /// # Errors
    /// [`ShapeError`] when `full` is not `n x n`; nothing is written then.
    pub fn pack(&mut self, full: MatRef<'_, T>) -> Result<(), ShapeError> {
        ShapeError::check("the full matrix", [self.n(), self.n()], full.shape())?;
        for i in 0..self.n() {
            for j in 0..=i {
                self.set(i, j, full.at(i, j));
            }
        }
        Ok(())
    }

    /// [`PackedRef::unpack`].
    ///
    /// # Errors
    /// [`ShapeError`] when `full` is not `n x n`; nothing is written then.
    pub fn unpack(&self, full: MatMut<'_, T>) -> Result<(), ShapeError> {
        self.as_ref().unpack(full)
    }

    /// The numbers as they lie in memory.
    pub fn data_mut(&mut self) -> &mut [T] {
        self.data
    }

    /// Order of the first triangle.
    pub(crate) fn half(&self) -> usize {
        self.parts.half
    }

    /// `F` and `R` below it, the lower part of the first columns; the strict upper triangle of `F` belongs to `S`.
    pub(crate) fn first_columns(&mut self) -> Result<MatMut<'_, T>, ShapeError> {
        let Parts { n, half } = self.parts;
        MatMut::with_strides(&mut self.data[self.parts.first()..], [n, half], [half, 1])
    }

    /// `S`, in the lower triangle of a square; its strict upper triangle belongs to `F`.
    pub(crate) fn second_triangle(&mut self) -> Result<MatMut<'_, T>, ShapeError> {
        let Parts { n, half } = self.parts;
        // For n = 1 the empty triangle begins past the end.
        let start = self.parts.second().min(self.data.len());
        MatMut::with_strides(&mut self.data[start..], [n - half, n - half], [1, half])
    }
}
