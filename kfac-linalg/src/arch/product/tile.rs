//! One tile of the result: a few registers of rows by a few columns, all of them accumulators.

use super::{Source, Target, Wanted};
use crate::arch::simd::{Simd, Task};
use crate::product::Accumulate;
use core::ops::Range;

/// Registers that the tile of a single column is high. Many chains hide the latency, and long pieces of a column of
/// `A` suit the prefetcher.
const TALL: usize = 8;

/// Longest column of a tile, in numbers.
const LONGEST: usize = 128;

/// What all tiles of one block share.
#[derive(Clone, Copy)]
pub(super) struct Block<T> {
    pub(super) c: Target<T>,
    pub(super) store: Accumulate<T>,
    pub(super) wanted: Wanted,
    /// Terms.
    pub(super) depth: usize,
}

/// A tile: where its operands begin, and what it is of the result.
pub(super) struct Tile<T> {
    /// Its first row, first term: neighbours are rows where `row` is 1.
    pub(super) a: Source<T>,
    /// Its first column, first term.
    pub(super) b: Source<T>,
    /// From a column of `B` to the third one after it. Columns are addressed from every third one, since a processor
    /// adds one or two strides to an address for nothing. The compiler must not know where this number comes from: it
    /// would walk through the columns, each address waiting for the one before.
    pub(super) three: usize,
    pub(super) rows: Range<usize>,
    pub(super) cols: Range<usize>,
}

/// Registers of a column of `A`, and how they are loaded.
trait Column<S: Simd, const V: usize> {
    /// The registers of the column at `from`.
    ///
    /// # Safety
    /// The rows of the tile exist there.
    unsafe fn load(&self, simd: S, from: *const S::Element) -> [S::Vector; V];
}

/// All lanes of all registers, from neighbours.
struct Whole;

impl<S: Simd, const V: usize> Column<S, V> for Whole {
    #[inline(always)]
    unsafe fn load(&self, simd: S, from: *const S::Element) -> [S::Vector; V] {
        let mut x = [simd.zero(); V];
        for (v, x) in x.iter_mut().enumerate() {
            // SAFETY: the tile has `V LANES` rows.
            *x = unsafe { simd.load_ptr(from.add(v * S::LANES)) };
        }
        x
    }
}

/// Some lanes of the last register only.
struct Part<M>(M);

impl<S: Simd, const V: usize> Column<S, V> for Part<S::Mask> {
    #[inline(always)]
    unsafe fn load(&self, simd: S, from: *const S::Element) -> [S::Vector; V] {
        let mut x = [simd.zero(); V];
        for (v, x) in x.iter_mut().enumerate().take(V - 1) {
            // SAFETY: the tile reaches into its last register, so those before it are whole.
            *x = unsafe { simd.load_ptr(from.add(v * S::LANES)) };
        }
        // SAFETY: the mask has the lanes of the rows that exist.
        x[V - 1] = unsafe { simd.load_masked(from.add((V - 1) * S::LANES), self.0) };
        x
    }
}

/// Rows that are not neighbours, one by one. For machines that do not pack.
struct Apart {
    stride: usize,
    rows: usize,
}

impl<S: Simd, const V: usize> Column<S, V> for Apart {
    #[inline(always)]
    unsafe fn load(&self, simd: S, from: *const S::Element) -> [S::Vector; V] {
        let mut x = [simd.zero(); V];
        for (v, x) in x.iter_mut().enumerate() {
            let mut lanes = [S::Element::default(); 16];
            for (lane, to) in lanes[..S::LANES].iter_mut().enumerate() {
                let row = v * S::LANES + lane;
                if row < self.rows {
                    // SAFETY: the row exists.
                    *to = unsafe { *from.add(row * self.stride) };
                }
            }
            *x = simd.load(&lanes);
        }
        x
    }
}

/// Computes one tile.
///
/// # Safety
/// The rows and columns of the tile exist in `A`, `B` and `C` for all terms of the block, and nobody else has them in
/// use; there are at most `S::TILE` registers of rows and columns, or [`highest`] of one column.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd>(simd: S, block: &Block<S::Element>, tile: &Tile<S::Element>) {
    let registers = tile.rows.len().div_ceil(S::LANES);
    // SAFETY: `registers` is what the rows need.
    unsafe {
        match registers {
            1 if tile.rows.len() <= S::Half::LANES => {
                columns::<S::Half, 1>(simd.half(), S::TILE[1], block, tile)
            }
            1 => columns::<S, 1>(simd, S::TILE[1], block, tile),
            2 if S::TILE[0] >= 2 => columns::<S, 2>(simd, S::TILE[1], block, tile),
            3 if S::TILE[0] >= 3 => columns::<S, 3>(simd, S::TILE[1], block, tile),
            _ => tall(simd, block, tile, registers),
        }
    }
}

/// Registers of the highest tile, where the result has so many columns.
pub(super) const fn highest<S: Simd>(cols: usize) -> usize {
    if cols == 1 && S::TILE[0] > 1 { TALL } else { S::TILE[0] }
}

/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn tall<S: Simd>(simd: S, block: &Block<S::Element>, tile: &Tile<S::Element>, registers: usize) {
    if S::TILE[0] == 1 {
        return;
    }
    // SAFETY: handed on.
    unsafe {
        match registers {
            2 => rows::<S, 2, 1>(simd, block, tile),
            3 => rows::<S, 3, 1>(simd, block, tile),
            4 => rows::<S, 4, 1>(simd, block, tile),
            5 => rows::<S, 5, 1>(simd, block, tile),
            6 => rows::<S, 6, 1>(simd, block, tile),
            7 => rows::<S, 7, 1>(simd, block, tile),
            _ => rows::<S, TALL, 1>(simd, block, tile),
        }
    }
}

/// # Safety
/// As [`tile`], with `V` registers and at most `widest` columns.
#[inline(always)]
unsafe fn columns<S: Simd, const V: usize>(
    simd: S,
    widest: usize,
    block: &Block<S::Element>,
    tile: &Tile<S::Element>,
) {
    // SAFETY: handed on; the arm is the number of columns.
    unsafe {
        match tile.cols.len() {
            8 if widest >= 8 => rows::<S, V, 8>(simd, block, tile),
            7 if widest >= 7 => rows::<S, V, 7>(simd, block, tile),
            6 if widest >= 6 => rows::<S, V, 6>(simd, block, tile),
            5 if widest >= 5 => rows::<S, V, 5>(simd, block, tile),
            4 => rows::<S, V, 4>(simd, block, tile),
            3 => rows::<S, V, 3>(simd, block, tile),
            2 => rows::<S, V, 2>(simd, block, tile),
            _ => rows::<S, V, 1>(simd, block, tile),
        }
    }
}

/// # Safety
/// As [`tile`], with `V` registers and `N` columns.
#[inline(always)]
unsafe fn rows<S: Simd, const V: usize, const N: usize>(
    simd: S,
    block: &Block<S::Element>,
    tile: &Tile<S::Element>,
) {
    simd.vectorize(Exact::<S::Element, V, N> { block, tile });
}

/// A tile of `V` registers and `N` columns.
///
/// A task of its own, since a task is a call: otherwise the compiler computes the addresses of all shapes of tiles
/// before each one.
struct Exact<'t, T, const V: usize, const N: usize> {
    block: &'t Block<T>,
    tile: &'t Tile<T>,
}

impl<T: Copy + Default + 'static, const V: usize, const N: usize> Task<T> for Exact<'_, T, V, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        let Self { block, tile } = self;
        let rows = tile.rows.len();
        // SAFETY: `rows`, the only way here, has been promised these rows and columns; each case loads the rows that
        // the tile has.
        unsafe {
            let sums: [[S::Vector; V]; N] = if !super::blocks::PACKS && tile.a.row != 1 {
                sum(simd, block.depth, tile, Apart { stride: tile.a.row, rows })
            } else if rows == V * S::LANES {
                sum(simd, block.depth, tile, Whole)
            } else {
                sum(simd, block.depth, tile, Part(simd.mask(0..rows - (V - 1) * S::LANES)))
            };
            store(simd, block, tile, &sums);
        }
    }
}

/// All terms of the block: `sums_jv = Σ_p a_vp b_pj`, one chain per lane, in order.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn sum<S: Simd, const V: usize, const N: usize>(
    simd: S,
    depth: usize,
    tile: &Tile<S::Element>,
    column: impl Column<S, V>,
) -> [[S::Vector; V]; N] {
    let mut sums = [[simd.zero(); V]; N];
    let (mut a, stride) = (tile.a.ptr, tile.b.col);
    let mut b = [0, 1, 2].map(|third: usize| tile.b.ptr.wrapping_add(third.wrapping_mul(tile.three)));
    for _ in 0..depth {
        // SAFETY: this term exists in the rows of `A` and the columns of `B`.
        unsafe {
            let x = column.load(simd, a);
            for (j, sums) in sums.iter_mut().enumerate() {
                let y = simd.splat(*b[j / 3].add(j % 3 * stride));
                for v in 0..V {
                    sums[v] = simd.mul_add(x[v], y, sums[v]);
                }
            }
        }
        // The step after the last term leads outside, and is not followed.
        a = a.wrapping_add(tile.a.col);
        b = b.map(|b| b.wrapping_add(tile.b.row));
    }
    sums
}

/// Hands the sums over to `C`.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn store<S: Simd, const V: usize, const N: usize>(
    simd: S,
    block: &Block<S::Element>,
    tile: &Tile<S::Element>,
    sums: &[[S::Vector; V]; N],
) {
    let len = V * S::LANES;
    let whole = |col| block.wanted.rows(&tile.rows, col) == (0..len);
    // A triangle that has its first and its last column whole has all of them.
    if block.c.row == 1 && whole(tile.cols.start) && whole(tile.cols.end - 1) {
        // SAFETY: the first element of the tile is wanted.
        let mut to = unsafe { block.c.at(tile.rows.start, tile.cols.start) };
        for sums in sums {
            for (v, &sum) in sums.iter().enumerate() {
                // SAFETY: all rows of the tile exist, and are neighbours.
                unsafe {
                    let to = to.add(v * S::LANES);
                    let c = match block.store {
                        Accumulate::Replace(scale) => simd.mul(simd.splat(scale), sum),
                        Accumulate::Add(scale) => simd.mul_add(simd.splat(scale), sum, simd.load_ptr(to)),
                    };
                    simd.store_ptr(to, c);
                }
            }
            to = to.wrapping_add(block.c.col);
        }
    } else {
        // A copy, so that the sums of a whole tile never leave their registers.
        let sums = *sums;
        for (j, sums) in sums.iter().enumerate() {
            let col = tile.cols.start + j;
            let wanted = block.wanted.rows(&tile.rows, col);
            // SAFETY: wanted rows exist.
            unsafe {
                let to = block.c.at(tile.rows.start, 0).wrapping_add(col * block.c.col);
                if block.c.row == 1 {
                    store_some(simd, block.store, to, sums, wanted);
                } else {
                    store_apart(simd, block, to, sums, wanted);
                }
            }
        }
    }
}

/// The wanted rows of a column, which are neighbours.
///
/// # Safety
/// They exist from `to` on.
#[inline(always)]
unsafe fn store_some<S: Simd, const V: usize>(
    simd: S,
    store: Accumulate<S::Element>,
    to: *mut S::Element,
    sums: &[S::Vector; V],
    wanted: Range<usize>,
) {
    for (v, &sum) in sums.iter().enumerate() {
        let first = v * S::LANES;
        let lanes = wanted.start.saturating_sub(first)..wanted.end.saturating_sub(first);
        if lanes.start >= lanes.end {
            continue;
        }
        let (mask, to) = (simd.mask(lanes), to.wrapping_add(first));
        // SAFETY: the mask has wanted rows only.
        unsafe {
            let c = match store {
                Accumulate::Replace(scale) => simd.mul(simd.splat(scale), sum),
                Accumulate::Add(scale) => simd.mul_add(simd.splat(scale), sum, simd.load_masked(to, mask)),
            };
            simd.store_masked(to, c, mask);
        }
    }
}

/// The wanted rows of a column, which are not neighbours: through a column that has them side by side.
///
/// # Safety
/// They exist from `to` on, at the row stride of `C`.
#[inline(always)]
unsafe fn store_apart<S: Simd, const V: usize>(
    simd: S,
    block: &Block<S::Element>,
    to: *mut S::Element,
    sums: &[S::Vector; V],
    wanted: Range<usize>,
) {
    let mut column = [S::Element::default(); LONGEST];
    // SAFETY: wanted rows exist, and `V LANES` numbers fit the column.
    unsafe {
        if let Accumulate::Add(_) = block.store {
            for row in wanted.clone() {
                column[row] = *to.add(row * block.c.row);
            }
        }
        store_some(simd, block.store, column.as_mut_ptr(), sums, 0..V * S::LANES);
        for row in wanted {
            *to.add(row * block.c.row) = column[row];
        }
    }
}
