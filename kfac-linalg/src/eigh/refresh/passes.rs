//! What a step does beside its products: copies, scalings, small triangles and estimates, all in registers.

use crate::arch::compiled::compiled_here;
use crate::arch::simd::{Simd, Task};
use crate::eigh::partial::PartialSums;
use crate::scalar::Scalar;
use crate::triangle::copy::mirror;
use crate::view::{MatMut, MatRef};

compiled_here! {
    /// Tasks of a step.
    RefreshTasks: WithShift<'a> -> (), ScaleReversed<'a> -> (), Estimate<'a> -> [f64; 2],
}

/// `A + λI`, both triangles, from the lower triangle of `a`.
pub struct WithShift<'a, T> {
    pub(super) a: MatRef<'a, T>,
    pub(super) lambda: T,
    /// Row-major.
    pub(super) to: &'a mut [T],
}

impl<T: Scalar> Task<T> for WithShift<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        let (n, to) = (self.a.rows(), self.to);
        for (i, row) in to.chunks_exact_mut(n).enumerate() {
            match self.a.row(i) {
                Some(from) => row[..=i].copy_from_slice(&from[..=i]),
                None => row[..=i].iter_mut().enumerate().for_each(|(j, x)| *x = self.a.at(i, j)),
            }
            row[i] += self.lambda;
        }
        if let Ok(to) = MatMut::row_major(to, n, n) {
            mirror(simd, to);
        }
    }
}

/// Rows in the opposite order, row `i` of the result divided by `beta[i]`.
pub struct ScaleReversed<'a, T> {
    pub(super) from: &'a [T],
    pub(super) beta: &'a [T],
    pub(super) to: &'a mut [T],
}

impl<T: Scalar> Task<T> for ScaleReversed<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        let n = self.beta.len();
        let rows = self.from.chunks_exact(n).rev().zip(self.to.chunks_exact_mut(n));
        for ((from, to), &beta) in rows.zip(self.beta) {
            let scale = simd.splat(T::ONE / beta);
            for (from, to) in from.chunks(S::LANES).zip(to.chunks_mut(S::LANES)) {
                if from.len() == S::LANES {
                    simd.store(to, simd.mul(simd.load(from), scale));
                } else {
                    simd.store_some(to, simd.mul(simd.load_some(from), scale));
                }
            }
        }
    }
}

/// Numbers that [`Estimate`] works with.
pub(super) const fn vectors_len(n: usize) -> usize {
    4 * n
}

/// Eigenvalues and errors from `R = Lᵀ diag(β)`, as derived in the parent module; places count from the largest
/// eigenvalue down. Gives `[off_diagonal, inverse_error]`.
pub struct Estimate<'a, T> {
    pub(super) l: &'a [T],
    /// Old eigenvalues plus `λ`.
    pub(super) beta: &'a [T],
    pub(super) lambda: T,
    /// The new eigenvalues; then `Σ_(j>i) e_ij²`, `Σ_(j>i) r_jj e_ij²` and `r_ii`.
    pub(super) vectors: &'a mut [T],
}

impl<T: Scalar> Task<T> for Estimate<'_, T> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) -> [f64; 2] {
        let n = self.beta.len();
        let (found, rest) = self.vectors.split_at_mut(n);
        let (squares, rest) = rest.split_at_mut(n);
        let (weighted, r) = rest.split_at_mut(n);
        squares.fill(T::ZERO);
        weighted.fill(T::ZERO);
        for (k, l) in self.l.chunks_exact(n).enumerate() {
            r[k] = l[k] * self.beta[k];
            // `found` meanwhile holds Σ_(i<k) e_ik².
            found[k] =
                row(simd, &l[..k], [self.beta[k], r[k]], &r[..k], [&mut squares[..k], &mut weighted[..k]]);
        }

        let half = T::from_f64(0.5);
        let (largest, smallest) = r.iter().fold((T::ZERO, T::MAX), |(l, s), &r| (l.maximum(r), s.minimum(r)));
        let (largest, smallest) = (largest.to_f64(), smallest.to_f64());
        let [mut off, mut diagonal, mut inverse_off, mut inverse] = [0.0; 4];
        for k in 0..n {
            let before = found[k];
            // (1 + c/2) / (1 + b/2) is 1 + c/2 - b/2 to second order, and never negative.
            let shifted = r[k] * ((T::ONE + half * squares[k]) / (T::ONE + half * before)) + weighted[k];
            found[k] = shifted - self.lambda;
            let relative = r[k].to_f64() / largest;
            off += 2.0 * relative * relative * before.to_f64();
            let relative = found[k].to_f64() / largest;
            diagonal += relative * relative;
            let relative = smallest / r[k].to_f64();
            inverse_off += 2.0 * relative * relative * squares[k].to_f64();
            let relative = smallest / shifted.to_f64();
            inverse += relative * relative;
        }
        // The zero matrix has nothing off its diagonal.
        [if off > 0.0 { libm::sqrt(off / (off + diagonal)) } else { 0.0 }, libm::sqrt(inverse_off / inverse)]
    }
}

/// Adds `e_ik²` and `r_kk e_ik²`, with `e_ik = l_ki β_k / (r_ii + r_kk)`, to the sums of all `i < k`, and gives
/// `Σ_i e_ik²`, in sixteen partial sums whatever the register.
#[inline(always)]
fn row<S: Simd<Element: Scalar>>(
    simd: S,
    l: &[S::Element],
    [beta, last]: [S::Element; 2],
    r: &[S::Element],
    [squares, weighted]: [&mut [S::Element]; 2],
) -> S::Element {
    let (beta, last) = (simd.splat(beta), simd.splat(last));
    let mut sums = PartialSums::new(simd);
    let parts = l.chunks(S::LANES).zip(r.chunks(S::LANES));
    let sums_of = squares.chunks_mut(S::LANES).zip(weighted.chunks_mut(S::LANES));
    for (index, ((l, r), (squares, weighted))) in parts.zip(sums_of).enumerate() {
        if l.len() == S::LANES {
            let e = simd.div(simd.mul(simd.load(l), beta), simd.add(simd.load(r), last));
            let square = simd.mul(e, e);
            sums.add_squares(simd, index, e);
            simd.store(squares, simd.add(simd.load(squares), square));
            simd.store(weighted, simd.mul_add(square, last, simd.load(weighted)));
        } else {
            let e = simd.div(simd.mul(simd.load_some(l), beta), simd.add(simd.load_some(r), last));
            let square = simd.mul(e, e);
            sums.add_squares(simd, index, e);
            simd.store_some(squares, simd.add(simd.load_some(squares), square));
            simd.store_some(weighted, simd.mul_add(square, last, simd.load_some(weighted)));
        }
    }
    sums.total(simd)
}
