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
//! Four columns, which one pass takes together, lie in one piece: 16 rows of each, then the next 16 rows.
//!
//! Reflectors take the place of dead columns.
//!
//! Source: Golub and Van Loan, Matrix Computations, 4th edition, section 8.3.1.

use crate::arch::simd::{FROZEN_SUMS, Simd, Task};
use crate::scalar::Scalar;
use crate::view::MatRef;

/// Columns of a diagonal block, and reflectors that are applied together.
pub(super) const BLOCK: usize = 32;

/// Columns in one pass: their accumulators and the operands of a row of registers fit the register file.
const COLUMNS: usize = 4;

/// The most registers that partial sums take.
const MOST_REGISTERS: usize = FROZEN_SUMS / 2;

/// Rows that lie together.
const ROWS: usize = FROZEN_SUMS;

/// Numbers that lie together.
const PIECE: usize = COLUMNS * ROWS;

/// Numbers in the columns of an `n x n` matrix, and in the vectors that the reduction works with.
pub(super) const fn column_len(n: usize) -> usize {
    n.next_multiple_of(ROWS)
}

/// Numbers in the halves of an `n x n` matrix.
pub(super) const fn halves_len(n: usize) -> usize {
    column_len(n) * n.next_multiple_of(COLUMNS)
}

/// Vectors of [`column_len`] numbers that the reduction works with.
pub(super) const VECTORS: usize = 5;

/// A symmetric matrix in halves.
pub(super) struct Halves<'a, T> {
    data: &'a mut [T],
    column_len: usize,
}

impl<'a, T: Scalar> Halves<'a, T> {
    /// Takes [`halves_len`] numbers.
    pub(super) fn new(data: &'a mut [T], n: usize) -> Self {
        Self { data, column_len: column_len(n) }
    }

    /// All pieces, `column_len / 16` of them for each group of columns.
    #[inline(always)]
    fn pieces(&self) -> &[[T; PIECE]] {
        self.data.as_chunks().0
    }

    /// Rows `16 i` to `16 i + 15` of a column, for all `i`.
    #[inline(always)]
    fn column(&self, k: usize) -> impl Iterator<Item = &[T]> {
        let pieces = self.column_len / ROWS;
        let at = k % COLUMNS * ROWS;
        self.pieces()[k / COLUMNS * pieces..][..pieces].iter().map(move |piece| &piece[at..at + ROWS])
    }

    /// As [`column`](Self::column), to write.
    #[inline(always)]
    fn column_mut(&mut self, k: usize) -> impl Iterator<Item = &mut [T]> {
        let pieces = self.column_len / ROWS;
        let at = k % COLUMNS * ROWS;
        let (all, _) = self.data.as_chunks_mut::<PIECE>();
        all[k / COLUMNS * pieces..][..pieces].iter_mut().map(move |piece| &mut piece[at..at + ROWS])
    }

    #[inline(always)]
    fn at(&self, row: usize, k: usize) -> T {
        let pieces = self.column_len / ROWS;
        self.pieces()[k / COLUMNS * pieces + row / ROWS][k % COLUMNS * ROWS + row % ROWS]
    }

    /// Copies `v` of reflector `k` into the first rows of a column of its own, whose other rows become zero. The first
    /// two columns have no reflector.
    pub(super) fn write_reflector(&self, k: usize, to: &mut [T]) {
        to.fill(T::ZERO);
        if k >= 2 {
            for (to, from) in to[..k].chunks_mut(ROWS).zip(self.column(k)) {
                to.copy_from_slice(&from[..to.len()]);
            }
        }
    }
}

/// The smallest sum of squares with all its digits: what is smaller is zero beside a matrix with an element in `[1, 4)`.
pub(super) fn smallest_square<T: Scalar>() -> T {
    T::MIN_POSITIVE / T::EPSILON
}

/// The reduction of `scale a`; `T`'s diagonal and off-diagonal come out scaled.
pub struct Reduce<'r, 'a, T> {
    pub(super) a: MatRef<'a, T>,
    pub(super) scale: T,
    /// Becomes the reflectors.
    pub(super) halves: &'r mut Halves<'a, T>,
    /// [`VECTORS`] times [`column_len`] numbers.
    pub(super) vectors: &'a mut [T],
    /// `τ` of each reflector, zero for the first two.
    pub(super) tau: &'r mut [T],
    pub(super) diagonal: &'a mut [T],
    /// At least `n - 1` numbers; element `k` lies between rows `k` and `k + 1`.
    pub(super) off_diagonal: &'a mut [T],
}

impl<T: Scalar> Task<T> for Reduce<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(mut self, simd: S) {
        let n = self.a.rows();
        if n == 0 {
            return;
        }
        self.copy(simd);
        let (m, len) = (self.halves, column_len(n));
        self.vectors.fill(T::ZERO);
        let (v, rest) = self.vectors.split_at_mut(len);
        let (w, rest) = rest.split_at_mut(len);
        let (x, rest) = rest.split_at_mut(len);
        let (y, z) = rest.split_at_mut(len);
        let (mut v, mut x) = (v, x);
        for k in (1..n).rev() {
            self.diagonal[k] = diagonal(m, k, [v, w]);
            column(m, k, [v, w], x);
            if k == 1 {
                self.off_diagonal[0] = x[0];
                break;
            }
            // Row and column k are dead from here on: zeros keep the update away from them.
            (v[k], w[k]) = (T::ZERO, T::ZERO);
            let (beta, tau) = reflector(simd, &mut x[..k]);
            self.off_diagonal[k - 1] = beta;
            self.tau[k] = tau;
            let rows = k.next_multiple_of(ROWS);
            product(simd, m, k, Pass { v: &v[..rows], w: &w[..rows], x: &x[..rows], y, z });
            for (to, from) in m.column_mut(k).zip(x[..rows].chunks_exact(ROWS)) {
                to.copy_from_slice(from);
            }
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
        self.diagonal[0] = diagonal(m, 0, [v, w]);
        self.tau[..n.min(2)].fill(T::ZERO);
    }
}

impl<T: Scalar> Reduce<'_, '_, T> {
    /// Writes the halves of the scaled matrix from the lower triangle of `a`: row `k` of one is column `k` of the
    /// other.
    #[inline(always)]
    fn copy<S: Simd<Element = T>>(&mut self, simd: S) {
        let (n, half) = (self.a.rows(), self.scale / (T::ONE + T::ONE));
        let scale = simd.splat(self.scale);
        for k in 0..n.next_multiple_of(COLUMNS) {
            let block_end = (k / BLOCK * BLOCK + BLOCK).min(column_len(n));
            let pieces = self.halves.column_mut(k).take(block_end / ROWS);
            for (first, piece) in (0..).step_by(ROWS).zip(pieces) {
                let above = if k < n { first.max(k.min(first + ROWS)) - first } else { 0 };
                match self.a.row(k) {
                    Some(row) if above > 0 => {
                        let from = row[first..first + above].chunks(S::LANES);
                        for (to, from) in piece.chunks_mut(S::LANES).zip(from) {
                            if from.len() == S::LANES {
                                simd.store(to, simd.mul(scale, simd.load(from)));
                            } else {
                                simd.store_some(&mut to[..from.len()], simd.mul(scale, simd.load_some(from)));
                            }
                        }
                    }
                    _ => {
                        for (j, x) in piece[..above].iter_mut().enumerate() {
                            *x = self.scale * self.a.at(k, first + j);
                        }
                    }
                }
                piece[above..].fill(T::ZERO);
                if k < n && k / ROWS == first / ROWS {
                    piece[k - first] = half * self.a.at(k, k);
                }
            }
        }
    }
}

/// Element `k` of the diagonal, with the waiting update.
#[inline(always)]
fn diagonal<T: Scalar>(m: &Halves<'_, T>, k: usize, [v, w]: [&[T]; 2]) -> T {
    let half = m.at(k, k) - v[k] * w[k];
    half + half
}

/// Column `k` of the matrix above its diagonal, with the waiting update.
#[inline(always)]
fn column<T: Scalar>(m: &Halves<'_, T>, k: usize, [v, w]: [&[T]; 2], x: &mut [T]) {
    for (to, from) in x[..k].chunks_mut(ROWS).zip(m.column(k)) {
        to.copy_from_slice(&from[..to.len()]);
    }
    for (r, x) in x[..k].iter_mut().enumerate().skip(k / BLOCK * BLOCK) {
        *x += m.at(k, r);
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
    m: &mut Halves<'_, S::Element>,
    k: usize,
    pass: Pass<'_, S::Element>,
) {
    let Pass { v, w, x, y, z } = pass;
    y[..x.len()].fill(S::Element::ZERO);
    let (pieces, _) = m.data.as_chunks_mut::<PIECE>();
    let groups = pieces.chunks_exact_mut(m.column_len / ROWS).zip(z.as_chunks_mut::<COLUMNS>().0);
    for (group, (pieces, z)) in groups.enumerate().take(k.div_ceil(COLUMNS)) {
        let first = group * COLUMNS;
        let block = first / BLOCK * BLOCK;
        let end = x.len().min(block + BLOCK);
        let mut operands = [[simd.zero(); COLUMNS]; 3];
        for (lanes, from) in operands.iter_mut().zip([v, w, x]) {
            let from = from.as_chunks::<COLUMNS>().0[group];
            for c in 0..COLUMNS {
                lanes[c] = simd.splat(from[c]);
            }
        }
        let (above, inside) = pieces[..end / ROWS].split_at_mut(block / ROWS);
        let mut sums = |pass| {
            let mut sums = [simd.zero(); COLUMNS];
            let rows = Rows { v: &v[..block], w: &w[..block], x: &x[..block], y: &mut y[..block] };
            columns::<S, true>(simd, above, rows, &operands, pass, &mut sums);
            let here = block..end;
            let (v, w, x) = (&v[here.clone()], &w[here.clone()], &x[here.clone()]);
            let rows = Rows { v, w, x, y: &mut y[here] };
            columns::<S, false>(simd, inside, rows, &operands, pass, &mut sums);
            sums
        };
        let passes = S::PARTIAL_SUMS / S::LANES;
        let sums = if passes == 1 {
            sums(0)
        } else {
            let mut all = [[simd.zero(); COLUMNS]; MOST_REGISTERS];
            for (pass, all) in all.iter_mut().enumerate().take(passes) {
                *all = sums(pass);
            }
            join(simd, all)
        };
        for (z, sum) in z.iter_mut().zip(sums) {
            *z = simd.sum(sum);
        }
    }
    z[k.next_multiple_of(COLUMNS)..x.len()].fill(S::Element::ZERO);
}

/// Operands of some rows.
struct Rows<'a, T> {
    v: &'a [T],
    w: &'a [T],
    x: &'a [T],
    y: &'a mut [T],
}

/// Some rows of four columns: subtracts both parts of the update, or within a diagonal block one of them, and
/// multiplies. Partial sums of one pass.
#[inline(always)]
fn columns<S: Simd, const BOTH: bool>(
    simd: S,
    pieces: &mut [[S::Element; PIECE]],
    rows: Rows<'_, S::Element>,
    [vs, ws, xs]: &[[S::Vector; COLUMNS]; 3],
    pass: usize,
    sums: &mut [S::Vector; COLUMNS],
) {
    let len = pieces.len();
    let (v, w) = (&rows.v.as_chunks::<ROWS>().0[..len], &rows.w.as_chunks::<ROWS>().0[..len]);
    let (x, y) = (&rows.x.as_chunks::<ROWS>().0[..len], &mut rows.y.as_chunks_mut::<ROWS>().0[..len]);
    let passes = S::PARTIAL_SUMS / S::LANES;
    for i in 0..len {
        let piece = &mut pieces[i];
        for register in 0..ROWS / S::LANES / passes {
            let at = if passes == 1 { register * S::LANES } else { (register * passes + pass) * S::LANES };
            let (v, w) = (simd.load(&v[i][at..]), simd.load(&w[i][at..]));
            let (x, mut sum) = (simd.load(&x[i][at..]), simd.load(&y[i][at..]));
            for c in 0..COLUMNS {
                let column = &mut piece[c * ROWS + at..][..S::LANES];
                let mut m = simd.neg_mul_add(v, ws[c], simd.load(column));
                if BOTH {
                    m = simd.neg_mul_add(w, vs[c], m);
                }
                simd.store(column, m);
                sum = simd.mul_add(m, xs[c], sum);
                sums[c] = simd.mul_add(m, x, sums[c]);
            }
            simd.store(&mut y[i][at..], sum);
        }
    }
}

/// Partial sums, register by register, joined in halves down to one register. Several sums at a time.
#[inline(always)]
fn join<S: Simd, const N: usize>(simd: S, mut sums: [[S::Vector; N]; MOST_REGISTERS]) -> [S::Vector; N] {
    let mut registers = S::PARTIAL_SUMS / S::LANES;
    while registers > 1 {
        registers /= 2;
        let (kept, others) = sums.split_at_mut(registers);
        for (kept, others) in kept.iter_mut().zip(others) {
            for (sum, &mut other) in kept.iter_mut().zip(others) {
                *sum = simd.add(*sum, other);
            }
        }
    }
    sums[0]
}

/// `Σ x_i y_i` over partial sums.
#[inline(always)]
fn dot<S: Simd>(simd: S, x: &[S::Element], y: &[S::Element]) -> S::Element {
    let mut sums = [[simd.zero()]; MOST_REGISTERS];
    let registers = S::PARTIAL_SUMS / S::LANES;
    let few = S::PARTIAL_SUMS;
    let (x_blocks, y_blocks) = (x.chunks_exact(few), y.chunks_exact(few));
    let (x_rest, y_rest) = (x_blocks.remainder(), y_blocks.remainder());
    for (x, y) in x_blocks.zip(y_blocks) {
        let lanes = x.chunks_exact(S::LANES).zip(y.chunks_exact(S::LANES));
        for ([sum], (x, y)) in sums[..registers].iter_mut().zip(lanes) {
            *sum = simd.mul_add(simd.load(x), simd.load(y), *sum);
        }
    }
    let lanes = x_rest.chunks(S::LANES).zip(y_rest.chunks(S::LANES));
    for ([sum], (x, y)) in sums[..registers].iter_mut().zip(lanes) {
        *sum = simd.mul_add(simd.load_some(x), simd.load_some(y), *sum);
    }
    let [sum] = join(simd, sums);
    simd.sum(sum)
}

/// `y += z`.
#[inline(always)]
fn add<'y, S: Simd>(simd: S, y: &'y mut [S::Element], z: &[S::Element]) -> &'y [S::Element] {
    for (y, z) in y.chunks_exact_mut(S::LANES).zip(z.chunks_exact(S::LANES)) {
        simd.store(y, simd.add(simd.load(y), simd.load(z)));
    }
    y
}
