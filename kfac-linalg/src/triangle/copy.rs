//! Between strided views and *strips*: rows of a few whole registers, one after the other.

use crate::arch::simd::{MOST_LANES, Simd, Task, transposed};
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};

/// Copies a view into a strip whose rows are `width` numbers, whole registers; the numbers past the view's columns
/// become zero. Of row `i` the columns from `start(i)` on are wanted, which never falls; those before it may stay as they
/// were.
#[inline(always)]
pub(crate) fn gather<S: Simd<Element: Scalar>>(
    simd: S,
    from: MatRef<'_, S::Element>,
    start: impl Fn(usize) -> usize,
    strip: &mut [S::Element],
    width: usize,
) {
    let ([rows, cols], data) = (from.shape(), from.data());
    let (row_stride, col_stride) = (from.row_stride(), from.col_stride());
    if cols == 0 {
        return;
    }
    if col_stride == 1 {
        for (i, to) in strip.chunks_exact_mut(width).take(rows).enumerate() {
            let start = start(i) / S::LANES * S::LANES;
            let from = data[i * row_stride..][start..cols].chunks(S::LANES);
            for (from, to) in from.zip(to[start..].chunks_exact_mut(S::LANES)) {
                simd.store(to, simd.load_chunk(from));
            }
        }
    } else if row_stride == 1 {
        for left in (0..cols).step_by(S::LANES) {
            let lanes = S::LANES.min(cols - left);
            for top in (0..rows).step_by(S::LANES).take_while(|&top| start(top) < left + S::LANES) {
                let height = S::LANES.min(rows - top);
                let mut square = [simd.zero(); MOST_LANES];
                for (j, x) in square[..S::LANES].iter_mut().enumerate() {
                    if j < lanes {
                        let from = &data[(left + j) * col_stride + top..][..height];
                        *x = simd.load_chunk(from);
                    }
                }
                let square = transposed(simd, square);
                let to = strip[top * width..].chunks_exact_mut(width);
                for (to, &x) in to.zip(&square[..height]) {
                    simd.store(&mut to[left..], x);
                }
            }
        }
    } else {
        for (i, to) in strip.chunks_exact_mut(width).take(rows).enumerate() {
            to[cols..].fill(S::Element::ZERO);
            for (j, to) in to[..cols].iter_mut().enumerate().skip(start(i)) {
                *to = data[i * row_stride + j * col_stride];
            }
        }
    }
}

/// Writes `scale` times a strip into a view; the strip's numbers past the view's columns are left out.
#[inline(always)]
pub(crate) fn scatter<S: Simd<Element: Scalar>>(
    simd: S,
    strip: &[S::Element],
    width: usize,
    scale: S::Element,
    mut to: MatMut<'_, S::Element>,
) {
    let ([rows, cols], row_stride, col_stride) = (to.shape(), to.row_stride(), to.col_stride());
    let factor = simd.splat(scale);
    if cols == 0 {
        return;
    }
    let data = to.data_mut();
    if col_stride == 1 {
        for (i, from) in strip.chunks_exact(width).take(rows).enumerate() {
            let to = data[i * row_stride..][..cols].chunks_mut(S::LANES);
            for (to, from) in to.zip(from.chunks_exact(S::LANES)) {
                let x = simd.mul(factor, simd.load(from));
                simd.store_chunk(to, x);
            }
        }
    } else if row_stride == 1 {
        for left in (0..cols).step_by(S::LANES) {
            let lanes = S::LANES.min(cols - left);
            for top in (0..rows).step_by(S::LANES) {
                let height = S::LANES.min(rows - top);
                let mut square = [simd.zero(); MOST_LANES];
                let from = strip[top * width..].chunks_exact(width).take(height);
                for (x, from) in square[..S::LANES].iter_mut().zip(from) {
                    *x = simd.mul(factor, simd.load(&from[left..]));
                }
                let square = transposed(simd, square);
                for (j, &x) in square[..lanes].iter().enumerate() {
                    let to = &mut data[(left + j) * col_stride + top..][..height];
                    simd.store_chunk(to, x);
                }
            }
        }
    } else {
        for (i, from) in strip.chunks_exact(width).take(rows).enumerate() {
            for (j, &x) in from[..cols].iter().enumerate() {
                data[i * row_stride + j * col_stride] = scale * x;
            }
        }
    }
}

/// Writes the upper triangle of a strip into the lower one of a square view, transposed, and nothing else.
#[inline(always)]
pub(crate) fn scatter_lower<S: Simd<Element: Scalar>>(
    simd: S,
    strip: &[S::Element],
    width: usize,
    mut to: MatMut<'_, S::Element>,
) {
    let (n, row_stride, col_stride) = (to.rows(), to.row_stride(), to.col_stride());
    let data = to.data_mut();
    if col_stride == 1 {
        for top in (0..n).step_by(S::LANES) {
            let height = S::LANES.min(n - top);
            for left in (0..=top).step_by(S::LANES) {
                let lanes = S::LANES.min(n - left);
                let mut square = [simd.zero(); MOST_LANES];
                let from = strip[left * width..].chunks_exact(width).take(lanes);
                for (x, from) in square[..S::LANES].iter_mut().zip(from) {
                    *x = simd.load(&from[top..]);
                }
                let square = transposed(simd, square);
                for (i, &x) in square[..height].iter().enumerate() {
                    let wanted = if left == top { i + 1 } else { lanes };
                    simd.store_lanes(&mut data[(top + i) * row_stride + left..][..wanted], x, 0..wanted);
                }
            }
        }
    } else {
        for (j, from) in strip.chunks_exact(width).take(n).enumerate() {
            if row_stride == 1 {
                data[j * col_stride + j..][..n - j].copy_from_slice(&from[j..n]);
            } else {
                for (i, &x) in from[..n].iter().enumerate().skip(j) {
                    data[i * row_stride + j * col_stride] = x;
                }
            }
        }
    }
}

/// Copies the lower triangle of a square view into the upper one.
#[inline(always)]
pub(crate) fn mirror<S: Simd<Element: Scalar>>(simd: S, mut a: MatMut<'_, S::Element>) {
    let n = a.rows();
    let (row_stride, col_stride) = (a.row_stride(), a.col_stride());
    if row_stride != 1 && col_stride != 1 {
        for (i, j) in (0..n).flat_map(|i| (0..i).map(move |j| (i, j))) {
            let x = a.at(i, j);
            a.set(j, i, x);
        }
        return;
    }
    // Rows in memory, which are the columns of the matrix where those are contiguous.
    let (lower, stride) = if col_stride == 1 { (true, row_stride) } else { (false, col_stride) };
    let data = a.data_mut();
    for below in (0..n).step_by(S::LANES) {
        let height = S::LANES.min(n - below);
        for before in (0..=below).step_by(S::LANES) {
            let lanes = S::LANES.min(n - before);
            // The square below the diagonal begins at (below, before).
            let (from, to) =
                if lower { ([below, before], [before, below]) } else { ([before, below], [below, before]) };
            let (rows, cols) = if lower { (height, lanes) } else { (lanes, height) };
            let mut square = [simd.zero(); MOST_LANES];
            for (i, x) in square[..S::LANES].iter_mut().enumerate() {
                if i < rows {
                    *x = simd.load_some(&data[(from[0] + i) * stride + from[1]..][..cols]);
                }
            }
            let square = transposed(simd, square);
            for (i, &x) in square[..cols].iter().enumerate() {
                let to = &mut data[(to[0] + i) * stride + to[1]..][..rows];
                let wanted = match (below == before, lower) {
                    (false, _) => 0..rows,
                    (true, true) => i..rows,
                    (true, false) => 0..i,
                };
                simd.store_lanes(to, x, wanted);
            }
        }
    }
}

/// Makes a square symmetric: its lower triangle decides.
pub struct Mirror<'a, T>(pub(crate) MatMut<'a, T>);

impl<T: Scalar> Task<T> for Mirror<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        mirror(simd, self.0);
    }
}
