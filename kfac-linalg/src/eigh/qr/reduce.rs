//! Householder reduction to a tridiagonal matrix, `A = Q T Qᵀ`, one pass over the matrix per column.
//!
//! Columns go from the last to the second. For column `k`, `x` above its diagonal, a reflector `H = I - τ v vᵀ`, whose
//! `v` ends in row `k - 1` with a 1, leaves nothing of `x` but its last element `β = ∓||x||`. With `p = τ A v` and
//! `w = p - (τ/2) (pᵀv) v` the rest of the matrix becomes
//!
//! ```text
//!     H A H = A - v wᵀ - w vᵀ
//! ```
//!
//! That update waits for the next column's pass, which reads each number of the matrix once: subtracts the update,
//! stores, and multiplies with the new `v` on both sides. So the reduction takes four multiply-adds per load and store
//! of half the matrix. (LAPACK's panels, measured: 1.0 to 1.2 times slower up to `n = 1024`.)
//!
//! # Halves
//! The matrix is stored column by column, upper triangle only, in *halves*: in diagonal blocks of 32 columns
//! `M + Mᵀ = A`, above them `M = A`. A symmetric product is then `y = M x` and `z = Mᵀ x` over whole rectangles, and
//! its result `y + z`: no triangles, no masks. In a diagonal block the update subtracts `v wᵀ` only, which is half of
//! it. Dead rows and columns are still passed over, with zeros in `v` and `w`.
//!
//! Reflectors take the place of dead columns, zeros below.
//!
//! Source: Golub and Van Loan, Matrix Computations, 4th edition, section 8.3.1.

use crate::arch::simd::{FROZEN_SUMS, Simd, Task};
use crate::scalar::Scalar;
use crate::view::MatRef;

/// Columns of a diagonal block, and reflectors that are applied together.
pub(super) const BLOCK: usize = 32;

/// Columns in one pass: their accumulators and the operands of a row of registers fit the register file.
const COLUMNS: usize = 4;

/// Numbers from one column of the halves to the next: whole partial sums, and never a large power of two, which would
/// put neighbouring columns into the same lines of the cache.
pub(super) const fn stride(n: usize) -> usize {
    (n.div_ceil(FROZEN_SUMS) | 1) * FROZEN_SUMS
}

/// Numbers in the halves of an `n x n` matrix.
pub(super) const fn halves_len(n: usize) -> usize {
    stride(n) * n.next_multiple_of(COLUMNS)
}

/// Vectors of [`stride`] numbers that the reduction works with.
pub(super) const VECTORS: usize = 5;

/// The smallest sum of squares with all its digits: what is smaller is zero beside a matrix with an element in `[1, 4)`.
pub(super) fn smallest_square<T: Scalar>() -> T {
    T::MIN_POSITIVE / T::EPSILON
}

/// The reduction of `scale a`; `T`'s diagonal and off-diagonal come out scaled.
pub(super) struct Reduce<'a, T> {
    pub(super) a: MatRef<'a, T>,
    pub(super) scale: T,
    /// [`halves_len`] numbers. Column `k` becomes the `v` of reflector `k`, from 2 on; the first two become zero.
    pub(super) halves: &'a mut [T],
    /// [`VECTORS`] times [`stride`] numbers.
    pub(super) vectors: &'a mut [T],
    /// `τ` of each reflector, zero for the first two.
    pub(super) tau: &'a mut [T],
    pub(super) diagonal: &'a mut [T],
    /// At least `n - 1` numbers; element `k` lies between rows `k` and `k + 1`.
    pub(super) off_diagonal: &'a mut [T],
}

impl<T: Scalar> Task<T> for Reduce<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(mut self, simd: S) {
        let n = self.a.rows();
        if n == 0 {
            return;
        }
        self.copy(simd);
        let (m, stride) = (self.halves, stride(n));
        self.vectors.fill(T::ZERO);
        let (v, rest) = self.vectors.split_at_mut(stride);
        let (w, rest) = rest.split_at_mut(stride);
        let (x, rest) = rest.split_at_mut(stride);
        let (y, z) = rest.split_at_mut(stride);
        let (mut v, mut x) = (v, x);
        for k in (1..n).rev() {
            let corner = m[k * stride + k] + m[k * stride + k];
            self.diagonal[k] = corner - (v[k] * w[k] + v[k] * w[k]);
            column(m, stride, k, [v, w], x);
            if k == 1 {
                self.off_diagonal[0] = x[0];
                break;
            }
            // Row and column k are dead from here on: zeros keep the update away from them.
            (v[k], w[k]) = (T::ZERO, T::ZERO);
            let (beta, tau) = reflector(simd, &mut x[..k]);
            self.off_diagonal[k - 1] = beta;
            self.tau[k] = tau;
            let rows = k.next_multiple_of(S::PARTIAL_SUMS);
            product(simd, m, stride, k, Pass { v: &v[..rows], w: &w[..rows], x: &x[..rows], y, z });
            let block_end = (k / BLOCK * BLOCK + BLOCK).min(stride);
            m[k * stride..][..block_end].copy_from_slice(&x[..block_end]);
            let p = add(simd, &mut y[..rows], &z[..rows]);
            let half = dot(simd, p, &x[..rows]) * tau * (tau / (T::ONE + T::ONE));
            let (half, tau) = (simd.splat(half), simd.splat(tau));
            let lanes = p.chunks_exact(S::LANES).zip(x.chunks_exact(S::LANES));
            for (w, (p, v)) in w.chunks_exact_mut(S::LANES).zip(lanes) {
                let p = simd.mul(tau, simd.load(p));
                simd.store(w, simd.neg_mul_add(half, simd.load(v), p));
            }
            w[k..rows].fill(T::ZERO);
            (v, x) = (x, v);
            x[k - 1..rows].fill(T::ZERO);
        }
        let corner = m[0] + m[0];
        self.diagonal[0] = corner - (v[0] * w[0] + v[0] * w[0]);
        for dead in m.chunks_exact_mut(stride).take(2) {
            dead[..BLOCK.min(stride)].fill(T::ZERO);
        }
        self.tau[..n.min(2)].fill(T::ZERO);
    }
}

impl<T: Scalar> Reduce<'_, T> {
    /// Writes the halves of the scaled matrix from the lower triangle of `a`: row `k` of one is column `k` of the
    /// other.
    #[inline(always)]
    fn copy<S: Simd<Element = T>>(&mut self, simd: S) {
        let (n, half) = (self.a.rows(), self.scale / (T::ONE + T::ONE));
        let stride = stride(n);
        let scale = simd.splat(self.scale);
        for (k, column) in self.halves.chunks_exact_mut(stride).enumerate() {
            let block_end = (k / BLOCK * BLOCK + BLOCK).min(stride);
            if k >= n {
                column.fill(T::ZERO);
                continue;
            }
            match self.a.row(k) {
                Some(row) => {
                    let (to, from) = (column[..k].chunks_mut(S::LANES), row[..k].chunks(S::LANES));
                    for (to, from) in to.zip(from) {
                        if from.len() == S::LANES {
                            simd.store(to, simd.mul(scale, simd.load(from)));
                        } else {
                            simd.store_some(to, simd.mul(scale, simd.load_some(from)));
                        }
                    }
                }
                None => {
                    for (j, x) in column[..k].iter_mut().enumerate() {
                        *x = self.scale * self.a.at(k, j);
                    }
                }
            }
            column[k] = half * self.a.at(k, k);
            column[k + 1..block_end].fill(T::ZERO);
        }
    }
}

/// Column `k` of the matrix above its diagonal, with the waiting update.
#[inline(always)]
fn column<T: Scalar>(m: &[T], stride: usize, k: usize, [v, w]: [&[T]; 2], x: &mut [T]) {
    let block = k / BLOCK * BLOCK;
    x[..k].copy_from_slice(&m[k * stride..][..k]);
    for (r, x) in x[..k].iter_mut().enumerate().skip(block) {
        *x += m[r * stride + k];
    }
    let (vk, wk) = (v[k], w[k]);
    for (x, (&v, &w)) in x[..k].iter_mut().zip(v.iter().zip(w)) {
        *x = *x - v * wk - w * vk;
    }
}

/// The reflector that leaves the last element of `x`: `(β, τ)`, with `v` in the place of `x`.
///
/// `τ = 0`, `v = 0` where there is nothing to reflect.
#[inline(always)]
fn reflector<S: Simd<Element: Scalar>>(simd: S, x: &mut [S::Element]) -> (S::Element, S::Element) {
    let (zero, one) = (S::Element::ZERO, S::Element::ONE);
    let Some((last, rest)) = x.split_last_mut() else {
        return (zero, zero);
    };
    let alpha = *last;
    let squares = dot(simd, rest, rest);
    if squares == zero || squares + alpha * alpha < smallest_square::<S::Element>() {
        rest.fill(zero);
        *last = zero;
        return (alpha, zero);
    }
    let norm = (alpha * alpha + squares).sqrt();
    let beta = if alpha < zero { norm } else { -norm };
    let scale = one / (alpha - beta);
    rest.iter_mut().for_each(|x| *x *= scale);
    *last = one;
    (beta, (beta - alpha) / beta)
}

/// Operands of one pass: whole partial sums of rows.
struct Pass<'a, T> {
    v: &'a [T],
    w: &'a [T],
    x: &'a [T],
    y: &'a mut [T],
    z: &'a mut [T],
}

/// Subtracts the waiting update from the first `k` columns and multiplies: `y = M x`, `z = Mᵀ x`.
#[inline(always)]
fn product<S: Simd<Element: Scalar>>(
    simd: S,
    m: &mut [S::Element],
    stride: usize,
    k: usize,
    pass: Pass<'_, S::Element>,
) {
    let Pass { v, w, x, y, z } = pass;
    let rows = x.len();
    let y = &mut y[..rows];
    y.fill(S::Element::ZERO);
    for (group, columns) in m.chunks_exact_mut(COLUMNS * stride).enumerate().take(k.div_ceil(COLUMNS)) {
        let first = group * COLUMNS;
        let block = first / BLOCK * BLOCK;
        let end = rows.min(block + BLOCK);
        let (c0, columns) = columns.split_at_mut(stride);
        let (c1, columns) = columns.split_at_mut(stride);
        let (c2, c3) = columns.split_at_mut(stride);
        let mut operands = [[simd.zero(); COLUMNS]; 3];
        for (lanes, from) in operands.iter_mut().zip([v, w, x]) {
            for (lanes, &from) in lanes.iter_mut().zip(&from[first..]) {
                *lanes = simd.splat(from);
            }
        }
        let [vs, ws, xs] = operands;
        let mut all = [[simd.zero(); FROZEN_SUMS / 2]; COLUMNS];
        let passes = S::PARTIAL_SUMS / S::LANES;
        for pass in 0..passes {
            let mut sums = [simd.zero(); COLUMNS];
            for whole in [true, false] {
                let range = if whole { 0..block } else { block..end };
                let lanes = if passes == 1 { 0 } else { pass * S::LANES };
                let few = S::PARTIAL_SUMS;
                let columns =
                    c0[range.clone()].chunks_exact_mut(few).zip(c1[range.clone()].chunks_exact_mut(few)).zip(
                        c2[range.clone()].chunks_exact_mut(few).zip(c3[range.clone()].chunks_exact_mut(few)),
                    );
                let operands = v[range.clone()]
                    .chunks_exact(few)
                    .zip(w[range.clone()].chunks_exact(few))
                    .zip(x[range.clone()].chunks_exact(few).zip(y[range.clone()].chunks_exact_mut(few)));
                for (((c0, c1), (c2, c3)), ((v, w), (x, y))) in columns.zip(operands) {
                    let (v, w) = (simd.load(&v[lanes..]), simd.load(&w[lanes..]));
                    let (x, mut sum) = (simd.load(&x[lanes..]), simd.load(&y[lanes..]));
                    for (c, column) in [c0, c1, c2, c3].into_iter().enumerate() {
                        let column = &mut column[lanes..];
                        let mut m = simd.neg_mul_add(v, ws[c], simd.load(column));
                        if whole {
                            m = simd.neg_mul_add(w, vs[c], m);
                        }
                        simd.store(column, m);
                        sum = simd.mul_add(m, xs[c], sum);
                        sums[c] = simd.mul_add(m, x, sums[c]);
                    }
                    simd.store(&mut y[lanes..], sum);
                }
            }
            for (all, sum) in all.iter_mut().zip(sums) {
                all[pass] = sum;
            }
        }
        for (z, all) in z[first..].iter_mut().zip(all) {
            *z = join(simd, all);
        }
    }
    z[k.next_multiple_of(COLUMNS).min(rows)..rows].fill(S::Element::ZERO);
}

/// The sum of `PARTIAL_SUMS` partial sums, joined in halves.
#[inline(always)]
fn join<S: Simd>(simd: S, mut sums: [S::Vector; FROZEN_SUMS / 2]) -> S::Element {
    let mut registers = S::PARTIAL_SUMS / S::LANES;
    while registers > 1 {
        registers /= 2;
        for i in 0..registers {
            sums[i] = simd.add(sums[i], sums[i + registers]);
        }
    }
    simd.sum(sums[0])
}

/// `Σ x_i y_i` over partial sums.
#[inline(always)]
fn dot<S: Simd>(simd: S, x: &[S::Element], y: &[S::Element]) -> S::Element {
    let mut sums = [simd.zero(); FROZEN_SUMS / 2];
    let registers = S::PARTIAL_SUMS / S::LANES;
    let few = S::PARTIAL_SUMS;
    let (x_blocks, y_blocks) = (x.chunks_exact(few), y.chunks_exact(few));
    let (x_rest, y_rest) = (x_blocks.remainder(), y_blocks.remainder());
    for (x, y) in x_blocks.zip(y_blocks) {
        let lanes = x.chunks_exact(S::LANES).zip(y.chunks_exact(S::LANES));
        for (sum, (x, y)) in sums[..registers].iter_mut().zip(lanes) {
            *sum = simd.mul_add(simd.load(x), simd.load(y), *sum);
        }
    }
    let lanes = x_rest.chunks(S::LANES).zip(y_rest.chunks(S::LANES));
    for (sum, (x, y)) in sums[..registers].iter_mut().zip(lanes) {
        *sum = simd.mul_add(simd.load_some(x), simd.load_some(y), *sum);
    }
    join(simd, sums)
}

/// `y += z`.
#[inline(always)]
fn add<'y, S: Simd>(simd: S, y: &'y mut [S::Element], z: &[S::Element]) -> &'y [S::Element] {
    for (y, z) in y.chunks_exact_mut(S::LANES).zip(z.chunks_exact(S::LANES)) {
        simd.store(y, simd.add(simd.load(y), simd.load(z)));
    }
    y
}
