//! Copies of operands with better strides.

use super::Source;
use super::blocks::Pieces;
use super::tile::highest;
use crate::arch::simd::{MOST_LANES, Simd, Task, transposed};
use core::ops::Range;

/// Columns from which on half a register of rows is a panel of its own: fewer chains wait for each other.
const HALVES_FROM: usize = 4;

/// How rows are cut into panels of a few registers, evenly.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    rows: usize,
    lanes: usize,
    registers: Pieces,
    /// Whether rows that fill at most half a register are a panel of their own, the last one.
    half: bool,
}

impl Panels {
    /// `rows` of a result with so many columns, in panels as high as its tiles may be.
    #[inline(always)]
    pub(super) fn new<S: Simd>(rows: usize, cols: usize) -> Self {
        let (whole, rest) = (rows / S::LANES, rows % S::LANES);
        let half = (1..=S::Half::LANES).contains(&rest) && S::Half::LANES < S::LANES && cols >= HALVES_FROM;
        let registers = Pieces::new(whole + usize::from(rest > 0 && !half), highest::<S>(cols));
        Self { rows, lanes: S::LANES, registers, half }
    }

    /// The rows of each panel, with the length of its columns when packed: whole registers.
    #[inline(always)]
    pub(super) fn iter(self) -> impl Iterator<Item = (Range<usize>, usize)> {
        (0..self.registers.count + usize::from(self.half)).map(move |index| {
            let last = self.rows / self.lanes;
            let registers =
                if index < self.registers.count { self.registers.get(index) } else { last..last + 1 };
            let (start, end) = (registers.start * self.lanes, registers.end * self.lanes);
            (start..end.min(self.rows), end - start)
        })
    }
}

/// Copies rows of `A`, panel after panel: the panel of row `i` begins at `i depth`, and its columns follow each other.
/// Lanes past the last row hold anything.
pub(super) struct PackRows<T> {
    /// First row, first term.
    pub(super) from: Source<T>,
    pub(super) to: *mut T,
    pub(super) panels: Panels,
    pub(super) depth: usize,
}

impl<T: Copy + Default + 'static> PackRows<T> {
    /// # Safety
    /// The panels exist in `from` for `depth` terms, and `to` is valid for as many whole registers.
    #[inline]
    pub(super) unsafe fn run_on<S: Simd<Element = T>>(self, simd: S) {
        simd.vectorize(self);
    }
}

impl<T: Copy + Default + 'static> Task<T> for PackRows<T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        for (rows, width) in self.panels.iter() {
            // SAFETY: `run_on`, the only way here, has been promised these rows and this room.
            unsafe {
                let from = Source { ptr: self.from.at(rows.start, 0), ..self.from };
                let to = self.to.add(rows.start * self.depth);
                let panel = Panel { from, to, rows: rows.len(), width, depth: self.depth };
                if from.row == 1 {
                    panel.copy(simd);
                } else if from.col == 1 && rows.len() <= S::Half::LANES {
                    panel.transpose(simd.half());
                } else if from.col == 1 {
                    panel.transpose(simd);
                } else {
                    panel.gather();
                }
            }
        }
    }
}

/// One panel to be packed.
struct Panel<T> {
    from: Source<T>,
    to: *mut T,
    rows: usize,
    width: usize,
    depth: usize,
}

impl<T: Copy + Default + 'static> Panel<T> {
    /// Rows are neighbours.
    ///
    /// # Safety
    /// The panel exists, with room for it.
    #[inline(always)]
    unsafe fn copy<S: Simd<Element = T>>(self, simd: S) {
        let whole = self.rows / S::LANES * S::LANES;
        let rest = simd.mask(0..self.rows - whole);
        for p in 0..self.depth {
            // SAFETY: term `p` exists.
            unsafe {
                let (from, to) = (self.from.at(0, p), self.to.add(p * self.width));
                let mut row = 0;
                while row < whole {
                    simd.store_ptr(to.add(row), simd.load_ptr(from.add(row)));
                    row += S::LANES;
                }
                if whole < self.rows {
                    simd.store_ptr(to.add(whole), simd.load_masked(from.add(whole), rest));
                }
            }
        }
    }

    /// Terms are neighbours: square by square, a register of rows by as many terms.
    ///
    /// # Safety
    /// The panel exists, with room for it.
    #[inline(always)]
    unsafe fn transpose<S: Simd<Element = T>>(self, simd: S) {
        let mut first = 0;
        while first < self.rows {
            let rows = S::LANES.min(self.rows - first);
            let mut p = 0;
            while p < self.depth {
                let terms = S::LANES.min(self.depth - p);
                // SAFETY: the square is cut to the rows and terms that exist.
                unsafe {
                    let from = Source { ptr: self.from.at(first, p), ..self.from };
                    let to = self.to.add(p * self.width + first);
                    if rows == S::LANES && terms == S::LANES {
                        let square = load_square(simd, from);
                        for (term, &x) in square[..S::LANES].iter().enumerate() {
                            simd.store_ptr(to.add(term * self.width), x);
                        }
                    } else {
                        let square = load_corner(simd, from, rows, terms);
                        for (term, &x) in square[..terms].iter().enumerate() {
                            simd.store_ptr(to.add(term * self.width), x);
                        }
                    }
                }
                p += S::LANES;
            }
            first += S::LANES;
        }
    }

    /// Any strides.
    ///
    /// # Safety
    /// The panel exists, with room for it.
    #[inline(always)]
    unsafe fn gather(self) {
        for p in 0..self.depth {
            for row in 0..self.rows {
                // SAFETY: this element exists.
                unsafe { *self.to.add(p * self.width + row) = *self.from.at(row, p) };
            }
        }
    }
}

/// The transpose of a square whose rows are registers.
///
/// # Safety
/// `LANES` rows of `LANES` neighbours exist.
#[inline(always)]
unsafe fn load_square<S: Simd>(simd: S, from: Source<S::Element>) -> [S::Vector; MOST_LANES] {
    let mut square = [simd.zero(); MOST_LANES];
    for (row, x) in square[..S::LANES].iter_mut().enumerate() {
        // SAFETY: the row exists, all of it.
        *x = unsafe { simd.load_ptr(from.at(row, 0)) };
    }
    transposed(simd, square)
}

/// As [`load_square`], of fewer rows and terms.
///
/// # Safety
/// `rows` rows of `terms` neighbours exist.
#[inline(always)]
unsafe fn load_corner<S: Simd>(
    simd: S,
    from: Source<S::Element>,
    rows: usize,
    terms: usize,
) -> [S::Vector; MOST_LANES] {
    let mut square = [simd.zero(); MOST_LANES];
    let mask = simd.mask(0..terms);
    for (row, x) in square[..S::LANES].iter_mut().enumerate() {
        if row < rows {
            // SAFETY: the row exists, and the mask ends with its terms.
            *x = unsafe { simd.load_masked(from.at(row, 0), mask) };
        }
    }
    transposed(simd, square)
}

/// Copies columns of `B`, strip after strip: the strip of column `j` begins at `j depth`, and its rows follow each
/// other.
pub(super) struct PackColumns<T> {
    /// First term, first column.
    pub(super) from: Source<T>,
    pub(super) to: *mut T,
    pub(super) strips: Pieces,
    pub(super) depth: usize,
}

impl<T: Copy + Default + 'static> PackColumns<T> {
    /// # Safety
    /// The columns exist in `from` for `depth` terms, and `to` is valid for as many numbers.
    #[inline]
    pub(super) unsafe fn run_on<S: Simd<Element = T>>(self, simd: S) {
        simd.vectorize(self);
    }
}

impl<T: Copy + Default + 'static> Task<T> for PackColumns<T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, _: S) {
        let mut first = 0;
        while first < self.depth {
            let terms = TERMS.min(self.depth - first);
            for strip in 0..self.strips.count {
                let cols = self.strips.get(strip);
                // SAFETY: `run_on`, the only way here, has been promised these columns and this room.
                unsafe {
                    let from = Source { ptr: self.from.at(first, cols.start), ..self.from };
                    let to = self.to.add(cols.start * self.depth + first * cols.len());
                    if self.from.col == 1 {
                        copy(from, to, terms, cols.len());
                    } else {
                        for p in 0..terms {
                            for j in 0..cols.len() {
                                *to.add(p * cols.len() + j) = *from.at(p, j);
                            }
                        }
                    }
                }
            }
            first += terms;
        }
    }
}

/// Terms of all strips that are copied before the next ones: few enough to stay in the first-level cache while strip
/// after strip takes its part, even where rows of `B` lie a power of two apart and compete for the same places.
const TERMS: usize = 8;

/// A few terms of a strip whose columns are neighbours, with the number of columns known to the compiler.
///
/// # Safety
/// So many terms and columns exist, with room for them.
#[inline(always)]
unsafe fn copy<T: Copy>(from: Source<T>, to: *mut T, terms: usize, cols: usize) {
    // SAFETY: handed on; the arm is the number of columns.
    unsafe {
        match cols {
            8 => rows::<T, 8>(from, to, terms),
            7 => rows::<T, 7>(from, to, terms),
            6 => rows::<T, 6>(from, to, terms),
            5 => rows::<T, 5>(from, to, terms),
            4 => rows::<T, 4>(from, to, terms),
            3 => rows::<T, 3>(from, to, terms),
            2 => rows::<T, 2>(from, to, terms),
            _ => rows::<T, 1>(from, to, terms),
        }
    }
}

/// # Safety
/// As [`copy`], with `N` columns.
#[inline(always)]
unsafe fn rows<T: Copy, const N: usize>(from: Source<T>, to: *mut T, terms: usize) {
    for p in 0..terms {
        // SAFETY: the contract; an array is as aligned as its elements.
        unsafe { to.add(p * N).cast::<[T; N]>().write(from.at(p, 0).cast::<[T; N]>().read()) };
    }
}
