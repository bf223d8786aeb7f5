//! Matrix times vector, in both orders of summation.

use super::dot::{PARTIAL_SUMS, join};
use super::{Accumulate, chain_len};
use crate::arch::compiled::compiled_here;
use crate::arch::simd::{MOST_LANES, Simd, Task, transposed};
use crate::error::ShapeError;
use crate::kernel::Kernel;
use crate::scalar::Scalar;
use crate::view::MatRef;
use core::array;

compiled_here! {
    /// Products with a vector.
    VectorTasks: Gemv<'a> -> (), Dots<'a> -> (),
}

/// `y = scale A x` or `y += scale A x`, element by element the bits of [`gemm`](super::gemm()) with one column, under
/// every kernel with instructions of its own.
///
/// Fastest where the columns of `A` are contiguous; where its rows are, [`gemv_dots`] reads them as they are and rounds
/// otherwise.
///
/// # Shapes
/// `y`: `m`, `a`: `m x k`, any strides, `x`: `k`.
///
/// # Errors
/// [`ShapeError`]; `y` is untouched then.
pub fn gemv<T: Scalar, K: Kernel<T>>(
    kernel: K,
    y: &mut [T],
    accumulate: Accumulate<T>,
    a: MatRef<'_, T>,
    x: &[T],
) -> Result<(), ShapeError> {
    ShapeError::check("A", [y.len(), x.len()], a.shape())?;
    if x.is_empty() {
        without_terms(y, accumulate);
    } else {
        kernel.run(Gemv { y, store: accumulate, a, x });
    }
    Ok(())
}

/// `y = scale A x` or `y += scale A x`, every element of `A x` summed as in [`dot`](super::dot()): sixteen partial sums,
/// joined in halves. Under [`Reproducible`](crate::Reproducible) these are the bits of `dot`.
///
/// Fastest where the rows of `A` are contiguous; where its columns are, see [`gemv`].
///
/// # Shapes
/// `y`: `m`, `a`: `m x k`, any strides, `x`: `k`.
///
/// # Errors
/// [`ShapeError`]; `y` is untouched then.
pub fn gemv_dots<T: Scalar, K: Kernel<T>>(
    kernel: K,
    y: &mut [T],
    accumulate: Accumulate<T>,
    a: MatRef<'_, T>,
    x: &[T],
) -> Result<(), ShapeError> {
    ShapeError::check("A", [y.len(), x.len()], a.shape())?;
    if x.is_empty() {
        without_terms(y, accumulate);
    } else {
        kernel.run(Dots { y, store: accumulate, a, x });
    }
    Ok(())
}

/// `y` of empty sums.
fn without_terms<T: Scalar>(y: &mut [T], accumulate: Accumulate<T>) {
    if let Accumulate::Replace(_) = accumulate {
        y.fill(T::ZERO);
    }
}

/// Bytes of a column that are read at a time, and of sums under way, on the stack: a page, to whose end the processor
/// reads ahead; less on small machines.
const COLUMN_BYTES: usize = if cfg!(target_pointer_width = "64") { 4096 } else { 256 };

/// Columns that are read at a time.
const COLS: usize = 4;

pub struct Gemv<'a, T> {
    y: &'a mut [T],
    store: Accumulate<T>,
    a: MatRef<'a, T>,
    x: &'a [T],
}

impl<T: Scalar> Task<T> for Gemv<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        match T::BYTES {
            4 => self.in_pieces::<S, { COLUMN_BYTES / 4 }>(simd),
            _ => self.in_pieces::<S, { COLUMN_BYTES / 8 }>(simd),
        }
    }
}

impl<T: Scalar> Gemv<'_, T> {
    /// So many elements of `y` at a time.
    #[inline(always)]
    fn in_pieces<S: Simd<Element = T>, const ROWS: usize>(self, simd: S) {
        let Self { y, store, a, x } = self;
        let (data, row_stride, col_stride) = (a.data(), a.row_stride(), a.col_stride());
        let (chain, mut room) = (chain_len(x.len()), [T::ZERO; ROWS]);
        for (piece, y) in y.chunks_mut(ROWS).enumerate() {
            let (top, mut store) = (piece * ROWS, store);
            let sums = &mut room[..y.len().next_multiple_of(S::LANES)];
            for (block, x) in x.chunks(chain).enumerate() {
                sums.fill(T::ZERO);
                let from = &data[top * row_stride + block * chain * col_stride..];
                if row_stride == 1 {
                    columns(simd, sums, from, y.len(), col_stride, x);
                } else if col_stride == 1 {
                    rows(simd, sums, from, y.len(), row_stride, x);
                } else {
                    apart(simd, sums, from, y.len(), [row_stride, col_stride], x);
                }
                finish(simd, y, store, sums);
                store = store.next();
            }
        }
    }
}

/// `sums += A x`, columns contiguous.
#[inline(always)]
fn columns<S: Simd<Element: Scalar>>(
    simd: S,
    sums: &mut [S::Element],
    a: &[S::Element],
    rows: usize,
    stride: usize,
    x: &[S::Element],
) {
    let whole = rows / S::LANES * S::LANES;
    let column = |j: usize| &a[j * stride..][..rows];
    let (several, rest) = x.as_chunks::<COLS>();
    for (index, x) in several.iter().enumerate() {
        let columns: [&[S::Element]; COLS] = array::from_fn(|c| column(COLS * index + c));
        let x = x.map(|x| simd.splat(x));
        let mut registers = columns.map(|column| column[..whole].chunks_exact(S::LANES));
        for to in sums[..whole].chunks_exact_mut(S::LANES) {
            let mut sum = simd.load(to);
            for (x, registers) in x.iter().zip(&mut registers) {
                if let Some(a) = registers.next() {
                    sum = simd.mul_add(simd.load(a), *x, sum);
                }
            }
            simd.store(to, sum);
        }
        if whole < rows {
            let to = &mut sums[whole..];
            let mut sum = simd.load(to);
            for (x, column) in x.iter().zip(&columns) {
                sum = simd.mul_add(simd.load_some(&column[whole..]), *x, sum);
            }
            simd.store(to, sum);
        }
    }
    for (j, &x) in rest.iter().enumerate() {
        let (x, column) = (simd.splat(x), column(several.len() * COLS + j));
        for (to, a) in sums.chunks_exact_mut(S::LANES).zip(column.chunks(S::LANES)) {
            let a = simd.load_chunk(a);
            simd.store(to, simd.mul_add(a, x, simd.load(to)));
        }
    }
}

/// Registers of rows that are read at a time, where rows are contiguous: two chains hide the latency of each other.
const TWO: usize = 2;

/// `sums += A x`, rows contiguous: square by square, transposed.
#[inline(always)]
fn rows<S: Simd<Element: Scalar>>(
    simd: S,
    sums: &mut [S::Element],
    a: &[S::Element],
    rows: usize,
    stride: usize,
    x: &[S::Element],
) {
    let mut top = 0;
    while top + TWO * S::LANES <= rows {
        squares::<S, TWO>(simd, &mut sums[top..], &a[top * stride..], TWO * S::LANES, stride, x);
        top += TWO * S::LANES;
    }
    while top < rows {
        squares::<S, 1>(simd, &mut sums[top..], &a[top * stride..], S::LANES.min(rows - top), stride, x);
        top += S::LANES;
    }
}

/// [`rows`], `R` registers of them.
#[inline(always)]
fn squares<S: Simd<Element: Scalar>, const R: usize>(
    simd: S,
    to: &mut [S::Element],
    a: &[S::Element],
    rows: usize,
    stride: usize,
    x: &[S::Element],
) {
    let mut sums = [simd.zero(); R];
    for (sum, to) in sums.iter_mut().zip(to.chunks_exact(S::LANES)) {
        *sum = simd.load(to);
    }
    for (index, x) in x.chunks(S::LANES).enumerate() {
        for (r, sum) in sums.iter_mut().enumerate() {
            let top = r * S::LANES;
            let row = |i: usize| &a[(top + i) * stride + index * S::LANES..];
            if rows >= top + S::LANES && x.len() == S::LANES {
                let square = simd.load_square(row(0), stride);
                for (&a, &x) in transposed(simd, square)[..S::LANES].iter().zip(x) {
                    *sum = simd.mul_add(a, simd.splat(x), *sum);
                }
            } else {
                let mut square = [simd.zero(); MOST_LANES];
                for (i, to) in square[..S::LANES.min(rows - top)].iter_mut().enumerate() {
                    *to = simd.load_some(&row(i)[..x.len()]);
                }
                for (&a, &x) in transposed(simd, square).iter().zip(x) {
                    *sum = simd.mul_add(a, simd.splat(x), *sum);
                }
            }
        }
    }
    for (&sum, to) in sums.iter().zip(to.chunks_exact_mut(S::LANES)) {
        simd.store(to, sum);
    }
}

/// `sums += A x`, nothing contiguous.
#[inline(always)]
fn apart<S: Simd<Element: Scalar>>(
    simd: S,
    sums: &mut [S::Element],
    a: &[S::Element],
    rows: usize,
    [row_stride, col_stride]: [usize; 2],
    x: &[S::Element],
) {
    for (group, to) in sums.chunks_exact_mut(S::LANES).enumerate() {
        let (top, mut sum) = (group * S::LANES, simd.load(to));
        let height = S::LANES.min(rows - top);
        for (j, &x) in x.iter().enumerate() {
            let column = some_rows(simd, &a[top * row_stride + j * col_stride..], height, row_stride);
            sum = simd.mul_add(column, simd.splat(x), sum);
        }
        simd.store(to, sum);
    }
}

/// Hands sums over to `y`.
#[inline(always)]
fn finish<S: Simd<Element: Scalar>>(
    simd: S,
    y: &mut [S::Element],
    store: Accumulate<S::Element>,
    sums: &[S::Element],
) {
    for (y, sums) in y.chunks_mut(S::LANES).zip(sums.chunks_exact(S::LANES)) {
        let (lanes, sum) = (0..y.len(), simd.load(sums));
        let sum = match store {
            Accumulate::Replace(scale) => simd.mul(simd.splat(scale), sum),
            Accumulate::Add(scale) => simd.mul_add(simd.splat(scale), sum, simd.load_some(y)),
        };
        simd.store_lanes(y, sum, lanes);
    }
}

pub struct Dots<'a, T> {
    y: &'a mut [T],
    store: Accumulate<T>,
    a: MatRef<'a, T>,
    x: &'a [T],
}

impl<T: Scalar> Task<T> for Dots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        // Registers of sixteen partial sums, and rows that are read at a time: chains that hide each other's latency.
        // More rows are slower: rows that lie a power of two apart get in each other's way.
        match PARTIAL_SUMS / S::LANES {
            1 => self.sums::<S, 1, 4>(simd),
            2 => self.sums::<S, 2, 2>(simd),
            4 => self.sums::<S, 4, 2>(simd),
            _ => self.sums::<S, 8, 2>(simd),
        }
    }
}

impl<T: Scalar> Dots<'_, T> {
    #[inline(always)]
    fn sums<S: Simd<Element = T>, const V: usize, const R: usize>(self, simd: S) {
        let Self { y, store, a, x } = self;
        let (data, row_stride, col_stride) = (a.data(), a.row_stride(), a.col_stride());
        for (group, y) in y.chunks_mut(S::LANES).enumerate() {
            let top = group * S::LANES;
            let sums = if col_stride == 1 {
                let from = &data[top * row_stride..];
                row_sums::<S, V, R>(simd, from, y.len(), row_stride, x)
            } else {
                let from = |j: usize| &data[top * row_stride + j * col_stride..];
                let column = |j: usize| some_rows(simd, from(j), y.len(), row_stride);
                join(&mut column_sums(simd, column, x), |a, b| simd.add(a, b))
            };
            let mut lanes = [T::ZERO; MOST_LANES];
            simd.store(&mut lanes, sums);
            finish(simd, y, store, &lanes);
        }
    }
}

/// Sums of up to a register of rows, contiguous rows. Lanes are rows.
#[inline(always)]
fn row_sums<S: Simd<Element: Scalar>, const V: usize, const R: usize>(
    simd: S,
    a: &[S::Element],
    rows: usize,
    stride: usize,
    x: &[S::Element],
) -> S::Vector {
    let mut sums = [[simd.zero(); V]; MOST_LANES];
    let row = |i: usize| &a[i * stride..][..x.len()];
    let (several, rest) = sums[..rows].as_chunks_mut::<R>();
    for (index, sums) in several.iter_mut().enumerate() {
        let first = index * R;
        *sums = dots(simd, array::from_fn::<_, R, _>(|i| row(first + i)), x);
    }
    for (i, sums) in rest.iter_mut().enumerate() {
        [*sums] = dots(simd, [row(several.len() * R + i)], x);
    }
    // Partial sums that are registers apart are joined before the square is transposed, the others after it.
    let add = |a, b| simd.add(a, b);
    let mut square = [simd.zero(); MOST_LANES];
    for (row, sums) in square.iter_mut().zip(&mut sums) {
        *row = join(sums, add);
    }
    join(&mut transposed(simd, square)[..S::LANES], add)
}

/// Sixteen partial sums of a few rows. Lanes are partial sums.
#[inline(always)]
fn dots<S: Simd, const V: usize, const R: usize>(
    simd: S,
    rows: [&[S::Element]; R],
    x: &[S::Element],
) -> [[S::Vector; V]; R] {
    let (mut sums, (whole, rest)) = ([[simd.zero(); V]; R], x.as_chunks::<PARTIAL_SUMS>());
    let chunks = rows.map(|row| row.as_chunks::<PARTIAL_SUMS>());
    for (index, x) in whole.iter().enumerate() {
        for v in 0..V {
            let x = simd.load(&x[v * S::LANES..]);
            for r in 0..R {
                let (a, _) = chunks[r];
                sums[r][v] = simd.mul_add(simd.load(&a[index][v * S::LANES..]), x, sums[r][v]);
            }
        }
    }
    // The other partial sums gain a zero, which moves no bit.
    for (sums, (_, a)) in sums.iter_mut().zip(&chunks) {
        for ((sum, a), x) in sums.iter_mut().zip(a.chunks(S::LANES)).zip(rest.chunks(S::LANES)) {
            *sum = simd.mul_add(simd.load_some(a), simd.load_some(x), *sum);
        }
    }
    sums
}

/// Sixteen partial sums of up to a register of rows, given column by column. Lanes are rows.
#[inline(always)]
fn column_sums<S: Simd>(
    simd: S,
    column: impl Fn(usize) -> S::Vector,
    x: &[S::Element],
) -> [S::Vector; PARTIAL_SUMS] {
    let mut sums = [simd.zero(); PARTIAL_SUMS];
    for (index, x) in x.chunks(PARTIAL_SUMS).enumerate() {
        for (j, (sum, &x)) in sums.iter_mut().zip(x).enumerate() {
            *sum = simd.mul_add(column(index * PARTIAL_SUMS + j), simd.splat(x), *sum);
        }
    }
    sums
}

/// Up to a register of numbers, `stride` apart.
#[inline(always)]
fn some_rows<S: Simd<Element: Scalar>>(
    simd: S,
    from: &[S::Element],
    rows: usize,
    stride: usize,
) -> S::Vector {
    if stride == 1 {
        return simd.load_chunk(&from[..rows]);
    }
    let mut lanes = [S::Element::ZERO; MOST_LANES];
    for (i, lane) in lanes[..rows].iter_mut().enumerate() {
        *lane = from[i * stride];
    }
    simd.load(&lanes)
}
