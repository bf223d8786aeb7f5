//! Eigenvalues upwards, and their eigenvectors with them.

use crate::arch::compiled::compiled_here;
use crate::arch::simd::{MOST_LANES, Simd, Task, transposed};
use crate::scalar::Scalar;
use crate::view::MatMut;
use core::cmp::Ordering;

compiled_here! {
    /// Tasks of sorting.
    OrderTasks: RowsToColumns<'a> -> (),
}

/// Fills `order` with the places of `keys`, smallest key first.
///
/// By key, then by place, so that the order is one whatever the algorithm of the sort. Places are numbers of the type at
/// hand, for want of other room: exact up to 2^24.
pub(super) fn ascending<T: Scalar>(keys: &[T], order: &mut [T]) {
    for (place, index) in order.iter_mut().enumerate() {
        *index = T::from_usize(place);
    }
    let key = |index: &T| (keys[place(*index)], *index);
    order.sort_unstable_by(|i, j| key(i).partial_cmp(&key(j)).unwrap_or(Ordering::Equal));
}

/// An element of an order as an index.
#[inline(always)]
pub(super) fn place<T: Scalar>(index: T) -> usize {
    index.to_f64() as usize
}

/// Row `order[j]` of a square becomes column `j` of `q`.
pub struct RowsToColumns<'a, T> {
    /// Row-major.
    pub(super) rows: &'a [T],
    pub(super) order: &'a [T],
    pub(super) q: MatMut<'a, T>,
}

impl<T: Scalar> Task<T> for RowsToColumns<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(mut self, simd: S) {
        let n = self.order.len();
        let row = |j: usize| &self.rows[place(self.order[j]) * n..][..n];
        let contiguous = self.q.col_stride() == 1 || n == 1;
        let whole = if contiguous { n / S::LANES * S::LANES } else { 0 };
        for j in (0..whole).step_by(S::LANES) {
            let mut from = [row(j); MOST_LANES];
            for (lane, from) in from[..S::LANES].iter_mut().enumerate() {
                *from = row(j + lane);
            }
            for i in (0..whole).step_by(S::LANES) {
                let mut square = [simd.zero(); MOST_LANES];
                for (from, x) in from[..S::LANES].iter().zip(&mut square) {
                    *x = simd.load(&from[i..]);
                }
                let stride = self.q.row_stride();
                let to = self.q.data_mut();
                for (row, &x) in transposed(simd, square)[..S::LANES].iter().enumerate() {
                    simd.store(&mut to[(i + row) * stride + j..], x);
                }
            }
        }
        for j in 0..n {
            let first = if j < whole { whole } else { 0 };
            (first..n).for_each(|i| self.q.set(i, j, row(j)[i]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Kernel, Reproducible};

    #[test]
    fn sorting_takes_the_rows_along() {
        let (d, rows) = ([3.0, 1.0, 2.0], [30.0, 31.0, 32.0, 10.0, 11.0, 12.0, 20.0, 21.0, 22.0]);
        let (mut order, mut q) = ([0.0; 3], [0.0; 9]);
        ascending(&d, &mut order);
        assert_eq!(order, [1.0, 2.0, 0.0]);
        let view = MatMut::row_major(&mut q, 3, 3).unwrap();
        Kernel::<f64>::run(Reproducible, RowsToColumns { rows: &rows, order: &order, q: view });
        assert_eq!(q, [10.0, 20.0, 30.0, 11.0, 21.0, 31.0, 12.0, 22.0, 32.0]);
    }

    #[test]
    fn equal_keys_keep_their_order() {
        let mut order = [0.0_f32; 5];
        ascending(&[1.0, 0.0, 1.0, -1.0, 0.0], &mut order);
        assert_eq!(order, [3.0, 1.0, 4.0, 0.0, 2.0]);
    }
}
