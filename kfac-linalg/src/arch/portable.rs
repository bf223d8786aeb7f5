//! The product over plain arrays: the kernel of [`Reproducible`](crate::Reproducible), safe code only.
//!
//! A tile of `C`, a few rows by 8 columns, stays in registers while the terms pass by: each step multiplies 8
//! neighbours of a row of `B` by one element of each row of `A`. The compiler turns the arrays into whatever
//! vectors the target has; which ones moves no bit, since lanes are columns and never meet.
//!
//! `B` reaches the tile in pieces of 32 terms by 8 columns, copied to the stack, where rows are contiguous and full;
//! one piece serves up to 16 rows of `C`. Copying is a trifle where the rows of `B` are contiguous. Where they are
//! not, it is a gather of one element for 16 multiply-adds; the transposed problem `Cᵀ = Bᵀ Aᵀ` avoids it when
//! `A` is contiguous down its columns.

use crate::product::{Accumulate, PRODUCT_BLOCK};
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};
use core::array;
use core::ops::Range;

/// Columns of a tile.
const COLS: usize = 8;
/// Rows of `C` that share one piece of `B`.
const GROUP: usize = 16;
/// Terms of one piece. A divisor of [`PRODUCT_BLOCK`], though nothing but speed depends on it.
const DEPTH: usize = 32;

/// `C = scale A B` or `C += scale A B`, see [`gemm`](crate::product::gemm) for the frozen order; shapes have been
/// checked.
pub(crate) fn product<T: Scalar>(
    c: MatMut<'_, T>,
    accumulate: Accumulate<T>,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
) {
    if transpose_pays(&a, &b) {
        blocks(c.transposed(), accumulate, b.transposed(), a.transposed());
    } else {
        blocks(c, accumulate, a, b);
    }
}

/// Whether `Cᵀ = Bᵀ Aᵀ` is the faster order: to fill the lanes, then to find them contiguous.
fn transpose_pays<T: Scalar>(a: &MatRef<'_, T>, b: &MatRef<'_, T>) -> bool {
    let (m, n) = (a.rows(), b.cols());
    if m < COLS || n < COLS { n < m } else { b.col_stride() != 1 && a.row_stride() == 1 }
}

/// The product, one block of terms after the other.
fn blocks<T: Scalar>(mut c: MatMut<'_, T>, mut store: Accumulate<T>, a: MatRef<'_, T>, b: MatRef<'_, T>) {
    let k = a.cols();
    if k == 0 && matches!(store, Accumulate::Replace(_)) {
        c.fill(T::ZERO);
    }
    for start in (0..k).step_by(PRODUCT_BLOCK) {
        let terms = start..k.min(start + PRODUCT_BLOCK);
        // Registers decide: 4 x 8 accumulators of 8 bytes would fill all 16 of SSE2.
        if T::BYTES == 4 {
            block::<T, 4>(&mut c, store, &a, &b, terms);
        } else {
            block::<T, 2>(&mut c, store, &a, &b, terms);
        }
        store = store.next();
    }
}

/// One block of terms, in tiles of `R` rows.
fn block<T: Scalar, const R: usize>(
    c: &mut MatMut<'_, T>,
    store: Accumulate<T>,
    a: &MatRef<'_, T>,
    b: &MatRef<'_, T>,
    terms: Range<usize>,
) {
    let [m, n] = c.shape();
    let mut piece = [[T::ZERO; COLS]; DEPTH];
    for j in (0..n).step_by(COLS) {
        for i in (0..m).step_by(GROUP) {
            let rows = GROUP.min(m - i);
            let mut sums = [[T::ZERO; COLS]; GROUP];
            for p in terms.clone().step_by(DEPTH) {
                let depth = DEPTH.min(terms.end - p);
                let piece = &mut piece[..depth];
                copy_piece(piece, b, p, j);
                let (tiles, rest) = sums[..rows].as_chunks_mut::<R>();
                for (t, tile) in tiles.iter_mut().enumerate() {
                    accumulate_tile(tile, a, [i + t * R, p], piece);
                }
                let first = i + tiles.len() * R;
                for (t, tile) in rest.as_chunks_mut::<1>().0.iter_mut().enumerate() {
                    accumulate_tile(tile, a, [first + t, p], piece);
                }
            }
            for (r, sums) in sums[..rows].iter().enumerate() {
                store_row(c, store, [i + r, j], sums);
            }
        }
    }
}

/// Copies the elements of `B` from `(p, j)` on. Columns past the last one keep what they held: they are summed,
/// and not stored.
fn copy_piece<T: Scalar>(piece: &mut [[T; COLS]], b: &MatRef<'_, T>, p: usize, j: usize) {
    let width = COLS.min(b.cols() - j);
    let (down, across) = (b.row_stride(), b.col_stride());
    let from = &b.data()[p * down + j * across..];
    if across == 1 && width == COLS {
        for (p, to) in piece.iter_mut().enumerate() {
            to.copy_from_slice(&from[p * down..][..COLS]);
        }
    } else if down == 1 {
        for j in 0..width {
            for (to, &x) in piece.iter_mut().zip(&from[j * across..]) {
                to[j] = x;
            }
        }
    } else {
        for (p, to) in piece.iter_mut().enumerate() {
            for (j, to) in to[..width].iter_mut().enumerate() {
                *to = from[p * down + j * across];
            }
        }
    }
}

/// `sums_r += a_(i+r)(p+q) piece_q` for every term `q` of the piece in order.
#[inline(always)]
fn accumulate_tile<T: Scalar, const R: usize>(
    sums: &mut [[T; COLS]; R],
    a: &MatRef<'_, T>,
    [i, p]: [usize; 2],
    piece: &[[T; COLS]],
) {
    let (down, across, depth) = (a.row_stride(), a.col_stride(), piece.len());
    let from = &a.data()[i * down + p * across..];
    let mut local = *sums;
    if across == 1 {
        let rows: [&[T]; R] = array::from_fn(|r| &from[r * down..][..depth]);
        for (q, b) in piece.iter().enumerate() {
            step(&mut local, rows.map(|row| row[q]), b);
        }
    } else if down == 1 {
        for (q, b) in piece.iter().enumerate() {
            let column = &from[q * across..][..R];
            step(&mut local, array::from_fn(|r| column[r]), b);
        }
    } else {
        for (q, b) in piece.iter().enumerate() {
            step(&mut local, array::from_fn(|r| from[r * down + q * across]), b);
        }
    }
    *sums = local;
}

/// One term: the outer product of a column of `A` and a row of `B`, multiplied, then added.
#[inline(always)]
fn step<T: Scalar, const R: usize>(sums: &mut [[T; COLS]; R], a: [T; R], b: &[T; COLS]) {
    for r in 0..R {
        for j in 0..COLS {
            sums[r][j] += a[r] * b[j];
        }
    }
}

/// Stores the sums of one row of a tile, as many as `C` has columns from `(i, j)` on.
#[inline(always)]
fn store_row<T: Scalar>(c: &mut MatMut<'_, T>, store: Accumulate<T>, [i, j]: [usize; 2], sums: &[T; COLS]) {
    let width = COLS.min(c.cols() - j);
    let across = c.col_stride();
    let start = i * c.row_stride() + j * across;
    let to = &mut c.data_mut()[start..];
    match to.first_chunk_mut::<COLS>() {
        // Worth a case of its own: the compiler stores whole vectors.
        Some(to) if across == 1 && width == COLS => store.join(to.iter_mut(), sums),
        _ => store.join(to.iter_mut().step_by(across.max(1)).take(width), sums),
    }
}
