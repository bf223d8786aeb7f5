//! The other triangle of a symmetric matrix.

use crate::arch::simd::{MOST_LANES, Simd, Task, transposed};
use crate::scalar::Scalar;
use crate::view::MatMut;

/// Copies the lower triangle of an `n x n` matrix, rows `stride` apart, into the upper one: square by square, a register
/// of rows by as many columns; what remains, element by element.
#[inline(always)]
pub(super) fn mirror<S: Simd<Element: Scalar>>(simd: S, data: &mut [S::Element], n: usize, stride: usize) {
    let whole = n / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        for j in (0..i).step_by(S::LANES) {
            let mut square = [simd.zero(); MOST_LANES];
            for (row, x) in square[..S::LANES].iter_mut().enumerate() {
                *x = simd.load(&data[(i + row) * stride + j..]);
            }
            for (row, &x) in transposed(simd, square)[..S::LANES].iter().enumerate() {
                simd.store(&mut data[(j + row) * stride + i..], x);
            }
        }
        for row in i..i + S::LANES {
            (i..row).for_each(|j| data[j * stride + row] = data[row * stride + j]);
        }
    }
    for row in whole..n {
        (0..row).for_each(|j| data[j * stride + row] = data[row * stride + j]);
    }
}

/// Makes a square symmetric: its lower triangle decides.
pub(super) struct Mirror<'a, T>(pub(super) MatMut<'a, T>);

impl<T: Scalar> Task<T> for Mirror<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(mut self, simd: S) {
        let (n, stride) = (self.0.rows(), self.0.row_stride());
        if self.0.col_stride() == 1 {
            mirror(simd, self.0.data_mut(), n, stride);
        } else {
            (0..n).for_each(|i| (0..i).for_each(|j| self.0.set(j, i, self.0.at(i, j))));
        }
    }
}
