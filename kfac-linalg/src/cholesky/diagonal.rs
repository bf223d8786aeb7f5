//! Diagonal blocks: Cholesky factor and inverse of a triangle of at most 64 rows, in plain loops.
//!
//! A block is kept as `U = Lᵀ`, since then row `i` of the factor and row `i` of the inverse are the same sweep over
//! contiguous rows:
//!
//! ```text
//!     u_i = (a_i - Σ_(p<i) u_pi u_p) / sqrt(pivot)      U = Lᵀ,  A = L Lᵀ
//!     x_i = (e_i - Σ_(p<i) u_pi x_p) / u_ii             X = L⁻¹
//! ```
//!
//! Eight neighbours of a row stay in registers while `p` runs. Rows are padded with zeros to whole groups of eight, so
//! there are no remainders; a padded zero meets only products with zero.

use super::CholeskyError;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};
use core::ops::Range;

/// Neighbours that advance together.
const LANES: usize = 8;

/// Distance between the rows of a block of `n` rows.
const fn width(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

/// Numbers in a padded block of `n` rows.
pub(super) const fn padded_len(n: usize) -> usize {
    n * width(n)
}

/// A padded square block: `L⁻¹`, or `Lᵀ`.
pub(super) struct Block<'a, T> {
    data: &'a mut [T],
    n: usize,
}

impl<'a, T: Scalar> Block<'a, T> {
    /// A block of zeros.
    pub(super) fn zeros(data: &'a mut [T], n: usize) -> Self {
        data.fill(T::ZERO);
        Self { data, n }
    }

    /// `U` with `UᵀU = A`, from the lower triangle of `a`; its strict lower triangle is scrap.
    ///
    /// # Errors
    /// [`CholeskyError::NotPositiveDefinite`], its index counted from `first`, the row of the whole matrix at which
    /// this block begins.
    pub(super) fn factor(data: &'a mut [T], a: MatRef<'_, T>, first: usize) -> Result<Self, CholeskyError> {
        let n = a.rows();
        let block = Self::zeros(data, n);
        for i in 0..n {
            let (done, row) = block.data.split_at_mut(i * width(n));
            let row = &mut row[..width(n)];
            for (j, x) in row[..n].iter_mut().enumerate().skip(i) {
                *x = a.at(j, i);
            }
            let groups = i / LANES..width(n) / LANES;
            eliminate(row, done, |p| done[p * width(n) + i], groups, |_| 0..i);
            let pivot = row[i];
            // Written so that NaN fails.
            if !(pivot > T::ZERO && pivot.is_finite()) {
                return Err(CholeskyError::NotPositiveDefinite { pivot: first + i, value: pivot.to_f64() });
            }
            let root = pivot.sqrt();
            row[i] = root;
            row[i + 1..].iter_mut().for_each(|x| *x /= root);
        }
        Ok(block)
    }

    /// `L⁻¹`, where this block is `Lᵀ`: zeros above its diagonal.
    pub(super) fn invert_transposed<'b>(&self, data: &'b mut [T]) -> Block<'b, T> {
        let (n, u) = (self.n, &*self.data);
        let inverse = Block::zeros(data, n);
        for i in 0..n {
            let (done, row) = inverse.data.split_at_mut(i * width(n));
            let row = &mut row[..width(n)];
            row[i] = T::ONE;
            // Row p of the inverse is zero before column p: a group starts at the row that its first column names.
            eliminate(row, done, |p| u[p * width(n) + i], 0..i / LANES + 1, |group| group * LANES..i);
            let pivot = u[i * width(n) + i];
            row[..=i].iter_mut().for_each(|x| *x /= pivot);
        }
        inverse
    }

    /// Diagonal element `i`.
    pub(super) fn diagonal(&self, i: usize) -> T {
        self.data[i * width(self.n) + i]
    }

    /// Writes this block's upper triangle into the lower triangle of `to`.
    pub(super) fn write_transposed(&self, mut to: MatMut<'_, T>) {
        for i in 0..self.n {
            for j in 0..=i {
                to.set(i, j, self.data[j * width(self.n) + i]);
            }
        }
    }

    /// The block without its padding.
    pub(super) fn view(&self) -> Result<MatRef<'_, T>, CholeskyError> {
        Ok(MatRef::with_strides(self.data, [self.n, self.n], [width(self.n), 1])?)
    }
}

/// `row -= Σ_p factor(p) source_p`, for some groups of eight columns; each says which rows `p` it takes.
#[inline(always)]
fn eliminate<T: Scalar>(
    row: &mut [T],
    source: &[T],
    factor: impl Fn(usize) -> T,
    groups: Range<usize>,
    rows: impl Fn(usize) -> Range<usize>,
) {
    let (width, row) = (row.len() / LANES, row.as_chunks_mut::<LANES>().0);
    let source = source.as_chunks::<LANES>().0;
    for group in groups {
        let mut sums = row[group];
        for p in rows(group) {
            let (factor, source) = (factor(p), &source[p * width + group]);
            for lane in 0..LANES {
                sums[lane] -= factor * source[lane];
            }
        }
        row[group] = sums;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `L` and `L⁻¹` by the formulas of the module, one element at a time.
    fn plain_twin(a: &[f32], n: usize) -> ([f32; 1024], [f32; 1024]) {
        let (mut l, mut x) = ([0.0; 1024], [0.0; 1024]);
        for i in 0..n {
            for j in i..n {
                let left = (0..i).fold(a[j * n + i], |sum, p| sum - l[i * n + p] * l[j * n + p]);
                l[j * n + i] = if i == j { left.sqrt() } else { left / l[i * n + i] };
            }
        }
        for i in 0..n {
            for j in 0..=i {
                let unit = if i == j { 1.0 } else { 0.0 };
                let left = (0..i).fold(unit, |sum, p| sum - l[i * n + p] * x[p * n + j]);
                x[i * n + j] = left / l[i * n + i];
            }
        }
        (l, x)
    }

    #[test]
    fn a_diagonal_block_equals_the_plain_loops_to_the_bit() {
        for n in [1, 2, 7, 8, 9, 16, 17, 31, 32] {
            let mut a = [0.0; 1024];
            for i in 0..n {
                for j in 0..=i {
                    a[i * n + j] = if i == j { 3.0 } else { 1.0 / (1 + i + 3 * j) as f32 };
                }
            }
            let (l, x) = plain_twin(&a, n);
            let (mut factor, mut inverse) = ([0.0; 1024], [0.0; 1024]);
            let (factor, inverse) = (&mut factor[..padded_len(n)], &mut inverse[..padded_len(n)]);
            let factor = Block::factor(factor, MatRef::row_major(&a, n, n).unwrap(), 0).unwrap();
            let inverse = factor.invert_transposed(inverse);
            let (factor, inverse) = (factor.view().unwrap(), inverse.view().unwrap());
            for (i, j) in (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))) {
                assert_eq!(factor.at(j, i).to_bits(), l[i * n + j].to_bits(), "L, n = {n}, ({i}, {j})");
                assert_eq!(inverse.at(i, j).to_bits(), x[i * n + j].to_bits(), "X, n = {n}, ({i}, {j})");
            }
        }
    }
}
