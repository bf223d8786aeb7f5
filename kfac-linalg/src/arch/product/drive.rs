//! A whole product, block by block.
//!
//! Blocks of terms, then blocks of rows, whose part of `A` is packed and stays in the second-level cache; then groups
//! of columns, whose part of `B` is packed; then strips of columns, whose part of `B` stays in the first-level cache
//! while the panels of `A` stream by and `C` is walked down its columns.

use super::blocks::{LINE, PACKS, Pieces, block_len, group_len, rows_len, rows_room, scratch_len};
use super::packing::{PackColumns, PackRows, Panels};
use super::tile::{Block, Tile, highest, tile};
use super::{Source, Target, Wanted};
use crate::arch::simd::{Simd, Task};
use crate::product::Accumulate;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};
use core::ops::Range;

/// Columns up to which rows of `A` are read where they are: copying does not pay. (The second number holds for columns
/// that all begin on a cache line.)
const IN_PLACE: [usize; 2] = [112, 256];

/// Rows from which on columns of `B` are packed. (The second number holds for crowded columns.)
const PACKED_FROM: [usize; 2] = [600, 192];

/// Terms of a column of `B`, times the power of two in the bytes between them, beyond which it is crowded: too many
/// terms compete for too few places of a second-level cache.
const CROWDED: usize = 1 << 20;

/// Which operands are copied. Moves no bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Where it pays.
    Measured,
    /// Both, for tests.
    #[cfg(test)]
    Always,
    /// Only what cannot be read in place, for tests.
    #[cfg(test)]
    Never,
}

/// `C = scale A B` or `C += scale A B`, for the wanted elements of `C`.
///
/// Shapes fit and scratch holds [`scratch_len`](super::scratch_len) numbers: the callers have checked both.
pub struct Product<'a, T> {
    pub(crate) c: MatMut<'a, T>,
    pub(crate) store: Accumulate<T>,
    pub(crate) a: MatRef<'a, T>,
    pub(crate) b: MatRef<'a, T>,
    pub(crate) wanted: Wanted,
    pub(crate) packing: Packing,
    pub(crate) scratch: &'a mut [T],
}

impl<T: Scalar> Task<T> for &mut Product<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        let ([m, n], k) = (self.c.shape(), self.a.cols());
        assert!(self.a.shape() == [m, k] && self.b.shape() == [k, n], "shapes have been checked");
        assert!(self.scratch.len() >= scratch_len::<T>(m, n, k), "scratch has been checked");
        if m == 0 || n == 0 {
            return;
        }
        if k == 0 {
            return self.without_terms();
        }
        let source =
            |x: &MatRef<'_, T>| Source { ptr: x.data().as_ptr(), row: x.row_stride(), col: x.col_stride() };
        let (row, col) = (self.c.row_stride(), self.c.col_stride());
        let frame = Frame {
            a: source(&self.a),
            b: source(&self.b),
            c: Target { row, col, ptr: self.c.data_mut().as_mut_ptr() },
            shape: [m, n, k],
            wanted: self.wanted,
        };
        // Lanes run along the neighbours of C; where it has none, along its longer side.
        let transpose = match (row == 1 && m > 1, col == 1 && n > 1) {
            (true, false) => false,
            (false, true) => true,
            _ => n > m,
        };
        let frame = if transpose { frame.transposed() } else { frame };
        // SAFETY: a view's slice reaches from its first element to its last, so the pointers are valid for the shapes
        // compared above. `MatMut` refuses strides under which two elements share memory, and its exclusive borrow, as
        // that of scratch, keeps the others apart from it.
        unsafe { frame.drive(simd, self.store, self.packing, &mut *self.scratch) }
    }
}

impl<T: Scalar> Product<'_, T> {
    /// `C` of an empty sum.
    fn without_terms(&mut self) {
        if let Accumulate::Replace(_) = self.store {
            for j in 0..self.c.cols() {
                for i in self.wanted.rows(&(0..self.c.rows()), j) {
                    self.c.set(i, j, T::ZERO);
                }
            }
        }
    }
}

/// The operands in the frame of this folder: rows of `C` are neighbours if anything is.
struct Frame<T> {
    a: Source<T>,
    b: Source<T>,
    c: Target<T>,
    /// Rows, columns, terms.
    shape: [usize; 3],
    wanted: Wanted,
}

impl<T: Scalar> Frame<T> {
    fn transposed(self) -> Self {
        let Self { a, b, c, shape: [m, n, k], wanted } = self;
        Self {
            a: b.transposed(),
            b: a.transposed(),
            c: c.transposed(),
            shape: [n, m, k],
            wanted: wanted.transposed(),
        }
    }

    /// # Safety
    /// The pointers are valid for the shape, `C` for writing, and nobody else has it in use; scratch holds
    /// [`scratch_len`] numbers.
    #[inline(always)]
    unsafe fn drive<S: Simd<Element = T>>(
        self,
        simd: S,
        mut store: Accumulate<T>,
        packing: Packing,
        scratch: &mut [T],
    ) {
        let [m, n, k] = self.shape;
        let packs_a = PACKS && self.packs_rows(packing);
        let packs_b = PACKS && self.packs_columns(packing);
        let chain = block_len(k);
        let mut rooms = scratch.as_mut_ptr();
        if packs_a || packs_b {
            rooms = rooms.wrapping_add(rooms.align_offset(LINE).min(LINE / size_of::<T>()));
        }
        // Where columns are not packed, one group takes all of them.
        let most_cols = if packs_b { group_len::<T>() } else { n };
        let most_rows = if packs_a { rows_len::<T>(m, highest::<S>(n) * S::LANES) } else { m };
        let room_b = rooms.wrapping_add(chain * rows_room::<T>(m));

        let mut first = 0;
        while first < k {
            let depth = chain.min(k - first);
            let mut top = 0;
            while top < m {
                let rows = most_rows.min(m - top);
                let panels = Panels::new::<S>(rows, n);
                // SAFETY: these rows and terms exist.
                let mut a = unsafe { Source { ptr: self.a.at(top, first), ..self.a } };
                if packs_a {
                    let pack = PackRows { from: a, to: rooms, panels, depth };
                    // SAFETY: as above; scratch has room for the rows, see `scratch_len`.
                    unsafe { pack.run_on(simd) };
                    a.ptr = rooms;
                }
                let mut left = 0;
                while left < n {
                    let cols = most_cols.min(n - left);
                    let strips = Pieces::new(cols, S::TILE[1]);
                    // SAFETY: these terms and columns exist.
                    let mut b = unsafe { Source { ptr: self.b.at(first, left), ..self.b } };
                    if packs_b {
                        let pack = PackColumns { from: b, to: room_b, strips, depth };
                        // SAFETY: as above; scratch has room for the columns, see `scratch_len`.
                        unsafe { pack.run_on(simd) };
                        b.ptr = room_b;
                    }
                    let (block, packed) =
                        (Block { c: self.c, store, wanted: self.wanted, depth }, [packs_a, packs_b]);
                    Sweep { block, a, b, packed, top, panels, left, strips }.run(simd);
                    left += cols;
                }
                top += rows;
            }
            first += depth;
            store = store.next();
        }
    }

    /// Whether rows of `A` are copied.
    #[inline(always)]
    fn packs_rows(&self, packing: Packing) -> bool {
        let n = self.shape[1];
        if self.a.row != 1 {
            return true;
        }
        match packing {
            Packing::Measured => {
                let line = LINE / size_of::<T>();
                let aligned = || self.a.col.is_multiple_of(line) && self.a.ptr.align_offset(LINE) == 0;
                n > IN_PLACE[0] && (n > IN_PLACE[1] || !aligned())
            }
            #[cfg(test)]
            Packing::Always => true,
            #[cfg(test)]
            Packing::Never => false,
        }
    }

    /// Whether columns of `B` are copied.
    #[inline(always)]
    fn packs_columns(&self, packing: Packing) -> bool {
        match packing {
            Packing::Measured => {
                let ([m, _, k], stride) = (self.shape, self.b.row);
                let power = (stride & stride.wrapping_neg()).saturating_mul(size_of::<T>());
                let crowded = || block_len(k).saturating_mul(power) > CROWDED;
                stride != 1 && (m >= PACKED_FROM[0] || m >= PACKED_FROM[1] && crowded())
            }
            #[cfg(test)]
            Packing::Always => true,
            #[cfg(test)]
            Packing::Never => false,
        }
    }
}

/// All tiles of one block of rows and one group of columns.
struct Sweep<T> {
    block: Block<T>,
    /// First row of the block, first term.
    a: Source<T>,
    /// First term, first column of the group.
    b: Source<T>,
    /// Whether `a` and `b` are copies.
    packed: [bool; 2],
    /// First row of the block.
    top: usize,
    panels: Panels,
    /// First column of the group.
    left: usize,
    strips: Pieces,
}

impl<T: Scalar> Sweep<T> {
    /// Where a strip of `B` begins. `cols` is counted from the first column of the group.
    #[inline(always)]
    fn strip(&self, cols: &Range<usize>) -> Source<T> {
        if self.packed[1] {
            let ptr = self.b.ptr.wrapping_add(cols.start * self.block.depth);
            Source { ptr, row: cols.len(), col: 1 }
        } else {
            Source { ptr: self.b.ptr.wrapping_add(cols.start * self.b.col), ..self.b }
        }
    }

    /// Where some rows of a panel begin: those from `skipped` on. `first` is the panel's, counted from the first row of
    /// the block.
    #[inline(always)]
    fn panel(&self, first: usize, skipped: usize, width: usize) -> Source<T> {
        if self.packed[0] {
            Source { ptr: self.a.ptr.wrapping_add(first * self.block.depth + skipped), row: 1, col: width }
        } else {
            Source { ptr: self.a.ptr.wrapping_add((first + skipped) * self.a.row), ..self.a }
        }
    }

    /// Forms them, panel by panel down each strip.
    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        for strip in 0..self.strips.count {
            let cols = self.strips.get(strip);
            let b = self.strip(&cols);
            let cols = self.left + cols.start..self.left + cols.end;
            for (panel, width) in self.panels.iter() {
                let rows = self.top + panel.start..self.top + panel.end;
                // What of the panel is wanted in some column of the strip, in whole registers, or one half.
                let start = self.block.wanted.rows(&rows, cols.start).start;
                let end = self.block.wanted.rows(&rows, cols.end - 1).end;
                if start >= end {
                    continue;
                }
                let half = start / S::Half::LANES * S::Half::LANES;
                let lanes = if end - half <= S::Half::LANES { S::Half::LANES } else { S::LANES };
                let (start, end) = (start / lanes * lanes, end.next_multiple_of(lanes).min(rows.len()));
                let a = self.panel(panel.start, start, width);
                let wanted = Tile {
                    a,
                    b,
                    three: b.col.wrapping_mul(3),
                    rows: rows.start + start..rows.start + end,
                    cols: cols.clone(),
                };
                // SAFETY: `drive`, the only way here, has been promised these rows and columns for all terms; a panel
                // has no more registers than a tile, a strip no more columns.
                unsafe { tile(simd, &self.block, &wanted) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::InstructionSet;
    use std::format;
    use std::vec;
    use std::vec::Vec;

    /// Small numbers, all different.
    fn numbers<T: Scalar>(len: usize) -> Vec<T> {
        (0..len).map(|i| T::from_f64((i * 7919 % 1009) as f64 / 1009.0 - 0.3)).collect()
    }

    /// One product in a given packing.
    struct Case {
        shape: [usize; 3],
        strides: [[usize; 2]; 3],
        wanted: Wanted,
        packing: Packing,
    }

    impl Case {
        fn result<T: Scalar>(&self, set: InstructionSet, fused: bool) -> Vec<T> {
            let [m, n, k] = self.shape;
            let [a, b, mut c] = [m * k, k * n, m * n].map(|len| numbers::<T>(len.max(1)));
            let mut scratch = vec![T::from_f64(f64::NAN); scratch_len::<T>(m, n, k)];
            let mut product = Product {
                c: MatMut::with_strides(&mut c, [m, n], self.strides[0]).unwrap(),
                store: Accumulate::Add(T::from_f64(0.7)),
                a: MatRef::with_strides(&a, [m, k], self.strides[1]).unwrap(),
                b: MatRef::with_strides(&b, [k, n], self.strides[2]).unwrap(),
                wanted: self.wanted,
                packing: self.packing,
                scratch: &mut scratch,
            };
            if fused {
                set.run(&mut product)
            } else {
                set.run_unfused(&mut product)
            }
            c
        }
    }

    fn packing_moves_no_bit<T: Scalar>() {
        for shape in [[1, 1, 1], [5, 7, 3], [49, 50, 30], [100, 130, 513], [400, 9, 17]] {
            let [m, n, k] = shape;
            for layout in 0..8 {
                let strides = |bit: usize, [rows, cols]: [usize; 2]| {
                    if layout >> bit & 1 == 0 { [cols, 1] } else { [1, rows] }
                };
                let strides = [strides(0, [m, n]), strides(1, [m, k]), strides(2, [k, n])];
                for wanted in [Wanted::All, Wanted::Lower, Wanted::Upper] {
                    for set in InstructionSet::available() {
                        for fused in [true, false] {
                            let result =
                                |packing| Case { shape, strides, wanted, packing }.result::<T>(set, fused);
                            let measured = result(Packing::Measured);
                            let case = format!("{shape:?}, layout {layout}, {set}, fused: {fused}");
                            assert!(result(Packing::Always) == measured, "always: {case}");
                            assert!(result(Packing::Never) == measured, "never: {case}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn packed_operands_give_the_bits_of_those_in_place() {
        packing_moves_no_bit::<f32>();
        packing_moves_no_bit::<f64>();
    }
}
