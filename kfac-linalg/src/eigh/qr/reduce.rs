//! Householder reduction to a tridiagonal matrix, `A = Q T Qᵀ`, one pass over the matrix per column.
//!
//! Columns go from the last to the second. For column `k`, `x` above its diagonal, a reflector `H = I - τ v vᵀ`, whose
//! `v` ends in row `k - 1` with a 1, leaves nothing of `x` but its last element `β = ∓||x||`. With `p = A v` and
//! `w = τ p - (τ²/2) (pᵀv) v` the rest of the matrix becomes
//!
//! ```text
//!     H A H = A - v wᵀ - w vᵀ
//! ```
//!
//! That update waits for the next column's pass, which reads each number of the matrix once: subtracts the update,
//! stores, and multiplies with the new `v` on both sides. So the reduction takes four multiply-adds per load and store
//! of half the matrix. (LAPACK's panels, measured: 1.0 to 1.2 times slower up to `n = 1024`.)
//!
//! # Storage
//! The matrix `M` is stored column by column, each down to the end of the diagonal block of 16 columns that it belongs
//! to. Such a block holds both of its triangles (which rounding makes differ a little). A symmetric product is then
//! `y = M x` and, above the diagonal blocks, `z = Mᵀ x`, and its result `y + z`: rectangles only, no masks. Dead columns
//! are still passed over, with zeros in `v` and `w`, up to the next multiple of four, dead rows up to that of 16.
//!
//! Four columns, which one pass takes together, lie in one piece: 16 rows of each, then the next 16 rows. The next four
//! follow them without a gap.
//!
//! Reflectors take the place of dead columns.
//!
//! Source: Golub and Van Loan, Matrix Computations, 4th edition, section 8.3.1.

use crate::arch::simd::{FROZEN_SUMS, MOST_LANES, Simd, Task};
use crate::scalar::Scalar;
use crate::view::MatRef;
use core::ops::Range;

/// Columns in one pass: their accumulators and the operands of a row of registers fit the register file.
const COLUMNS: usize = 4;

/// The most registers that partial sums take.
const MOST_REGISTERS: usize = FROZEN_SUMS / 2;

/// Rows that lie together, and columns of a diagonal block.
const ROWS: usize = FROZEN_SUMS;

/// Numbers that lie together.
const PIECE: usize = COLUMNS * ROWS;

/// Numbers in the columns of an `n x n` matrix, and in the vectors that the reduction works with.
pub(super) const fn column_len(n: usize) -> usize {
    n.next_multiple_of(ROWS)
}

/// Numbers in the columns of an `n x n` matrix, all of them.
pub(super) const fn columns_len(n: usize) -> usize {
    start(n.div_ceil(ROWS)) * PIECE
}

/// Pieces before a block of columns: the columns of the first block are one piece long, those of the second one two.
const fn start(block: usize) -> usize {
    ROWS / COLUMNS * (block * (block + 1) / 2)
}

/// Vectors of [`column_len`] numbers that the reduction works with.
pub(super) const VECTORS: usize = 5;

/// The columns of a symmetric matrix down to the ends of their diagonal blocks, one after the other.
pub(super) struct Columns<'a, T>(&'a mut [T]);

/// The pieces of a column.
const fn pieces_of(k: usize) -> Range<usize> {
    let block = k / ROWS;
    let first = start(block) + k % ROWS / COLUMNS * (block + 1);
    first..first + block + 1
}

impl<'a, T: Scalar> Columns<'a, T> {
    /// Takes [`columns_len`] numbers.
    pub(super) fn new(data: &'a mut [T]) -> Self {
        Self(data)
    }

    /// Rows `16 i` to `16 i + 15` of a column, for all `i`.
    #[inline(always)]
    fn column(&self, k: usize) -> impl Iterator<Item = &[T; ROWS]> {
        let pieces = self.0.as_chunks::<PIECE>().0[pieces_of(k)].iter();
        pieces.map(move |piece| &piece.as_chunks().0[k % COLUMNS])
    }

    /// As [`column`](Self::column), to write.
    #[inline(always)]
    fn column_mut(&mut self, k: usize) -> impl Iterator<Item = &mut [T; ROWS]> {
        let pieces = self.0.as_chunks_mut::<PIECE>().0[pieces_of(k)].iter_mut();
        pieces.map(move |piece| &mut piece.as_chunks_mut().0[k % COLUMNS])
    }

    #[inline(always)]
    fn diagonal(&self, k: usize) -> T {
        let last = pieces_of(k).end - 1;
        self.0.as_chunks::<PIECE>().0[last][k % COLUMNS * ROWS + k % ROWS]
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
    /// Become the reflectors.
    pub(super) columns: &'r mut Columns<'a, T>,
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
        let (m, len) = (self.columns, column_len(n));
        self.vectors.fill(T::ZERO);
        let (v, rest) = self.vectors.split_at_mut(len);
        let (w, rest) = rest.split_at_mut(len);
        let (x, rest) = rest.split_at_mut(len);
        let (p, z) = rest.split_at_mut(len);
        let (mut v, mut x) = (v, x);
        // `w = factors[0] p - factors[1] v`.
        let mut factors = [T::ZERO; 2];
        for k in (1..n).rev() {
            let ends = [v[k], factors[0] * p[k] - factors[1] * v[k]];
            self.diagonal[k] = m.diagonal(k) - (ends[0] * ends[1] + ends[0] * ends[1]);
            let rows = k.next_multiple_of(ROWS);
            let update = Update { v: &mut v[..rows], w: &mut w[..rows], p: &p[..rows], factors, ends };
            let squares = column(simd, m, k, update, &mut x[..rows]);
            let alpha = x[k - 1];
            if k == 1 {
                self.off_diagonal[0] = alpha;
                break;
            }
            let reflector = Reflector::new(alpha, squares);
            self.off_diagonal[k - 1] = reflector.beta;
            self.tau[k] = reflector.tau;
            reflector.write(simd, m, k, &mut x[..rows]);
            let operands = Operands { v: &v[..rows], w: &w[..rows], x: &x[..rows] };
            product(simd, m, k, operands, [&mut p[..rows], &mut z[..rows]]);
            let p_v = add(simd, &mut p[..rows], &z[..rows], &x[..rows]);
            factors = [reflector.tau, p_v * reflector.tau * (reflector.tau / (T::ONE + T::ONE))];
            (v, x) = (x, v);
        }
        self.diagonal[0] = m.diagonal(0) - (v[0] * w[0] + v[0] * w[0]);
        self.tau[..n.min(2)].fill(T::ZERO);
    }
}

impl<T: Scalar> Reduce<'_, '_, T> {
    /// Writes the columns of the scaled matrix from the lower triangle of `a`: row `k` of one is column `k` of the
    /// other.
    #[inline(always)]
    fn copy<S: Simd<Element = T>>(&mut self, simd: S) {
        let (a, n, scale) = (self.a, self.a.rows(), self.scale);
        for k in 0..column_len(n) {
            for (first, piece) in (0..).step_by(ROWS).zip(self.columns.column_mut(k)) {
                // Rows of `a` from `k` on are read down their columns.
                let rows = first..n.min(first + ROWS);
                let above = if k < n { rows.len().min(k + 1 - first) } else { 0 };
                match a.row(k.min(n - 1)) {
                    Some(row) => {
                        let from = row[first..first + above].chunks(S::LANES);
                        for (to, from) in piece.chunks_mut(S::LANES).zip(from) {
                            simd.store(to, simd.mul(simd.splat(scale), simd.load_some(from)));
                        }
                    }
                    None => (0..above).for_each(|j| piece[j] = scale * a.at(k, first + j)),
                }
                for (j, x) in piece.iter_mut().enumerate().skip(above) {
                    *x = if k < n && first + j < n { scale * a.at(first + j, k) } else { T::ZERO };
                }
            }
        }
    }
}

/// The update that waits: `v`, and `w = factors[0] p - factors[1] v`.
struct Update<'a, T> {
    v: &'a mut [T],
    w: &'a mut [T],
    p: &'a [T],
    factors: [T; 2],
    /// `v_k` and `w_k` for the column `k` that is next.
    ends: [T; 2],
}

/// Writes `w`, and column `k` with the update into `x`, both above the diagonal and zero below, where `v` becomes zero
/// too. Gives the sum of the squares of `x` without its last element.
#[inline(always)]
fn column<S: Simd<Element: Scalar>>(
    simd: S,
    m: &Columns<'_, S::Element>,
    k: usize,
    update: Update<'_, S::Element>,
    x: &mut [S::Element],
) -> S::Element {
    let Update { v, w, p, factors, ends } = update;
    let (tau, half) = (simd.splat(factors[0]), simd.splat(factors[1]));
    let (v_k, w_k) = (simd.splat(ends[0]), simd.splat(ends[1]));
    let mut sums = [[simd.zero()]; MOST_REGISTERS];
    let both = |v, p, m| {
        let w = simd.neg_mul_add(half, v, simd.mul(tau, p));
        (w, simd.neg_mul_add(w, v_k, simd.neg_mul_add(v, w_k, m)))
    };
    let mut pieces = m.column(k);
    let last = (k - 1) / ROWS * ROWS;
    let whole = v[..last].as_chunks::<ROWS>().0.iter().zip(p.as_chunks::<ROWS>().0);
    let results = w.as_chunks_mut::<ROWS>().0.iter_mut().zip(x.as_chunks_mut::<ROWS>().0);
    for (((v, p), (w, x)), m) in whole.zip(results).zip(&mut pieces) {
        for register in 0..ROWS / S::LANES {
            let at = register * S::LANES;
            let (new_w, new_x) = both(simd.load(&v[at..]), simd.load(&p[at..]), simd.load(&m[at..]));
            simd.store(&mut w[at..], new_w);
            simd.store(&mut x[at..], new_x);
            let [sum] = &mut sums[register % (S::PARTIAL_SUMS / S::LANES)];
            *sum = simd.mul_add(new_x, new_x, *sum);
        }
    }
    if let Some(m) = pieces.next() {
        for register in 0..ROWS / S::LANES {
            let at = last + register * S::LANES;
            let live = at.min(k)..k;
            let (v_live, p_live) = (simd.load_some(&v[live.clone()]), simd.load_some(&p[live.clone()]));
            let m_live = simd.load_some(&m[live.start - last..k - last]);
            let (new_w, new_x) = both(v_live, p_live, m_live);
            simd.store(&mut v[at..], v_live);
            simd.store(&mut w[at..], new_w);
            simd.store(&mut x[at..], new_x);
            let rest = simd.load_some(&x[at.min(k - 1)..k - 1]);
            let [sum] = &mut sums[register % (S::PARTIAL_SUMS / S::LANES)];
            *sum = simd.mul_add(rest, rest, *sum);
        }
    }
    let [sum] = join(simd, sums);
    simd.sum(sum)
}

/// The reflector that leaves `β` of a column: `v = scale x`, but `last` in its last place.
struct Reflector<T> {
    beta: T,
    tau: T,
    scale: T,
    last: T,
}

impl<T: Scalar> Reflector<T> {
    /// From the last element of the column and the sum of the squares of the others. `τ = 0`, `v = 0` where there is
    /// nothing to reflect.
    #[inline(always)]
    fn new(alpha: T, squares: T) -> Self {
        if squares == T::ZERO || squares + alpha * alpha < smallest_square::<T>() {
            return Self { beta: alpha, tau: T::ZERO, scale: T::ZERO, last: T::ZERO };
        }
        let norm = (alpha * alpha + squares).sqrt();
        let beta = if alpha < T::ZERO { norm } else { -norm };
        Self { beta, tau: (beta - alpha) / beta, scale: T::ONE / (alpha - beta), last: T::ONE }
    }

    /// Writes `v` in place of the column `x`, and in place of column `k`.
    #[inline(always)]
    fn write<S: Simd<Element = T>>(&self, simd: S, m: &mut Columns<'_, T>, k: usize, x: &mut [T]) {
        let scale = simd.splat(self.scale);
        let mut pieces = m.column_mut(k);
        let (last, place) = ((k - 1) / ROWS * ROWS, (k - 1) % ROWS);
        let (whole, rest) = x.split_at_mut(last);
        for (x, m) in whole.as_chunks_mut::<ROWS>().0.iter_mut().zip(&mut pieces) {
            for (x, m) in x.chunks_exact_mut(S::LANES).zip(m.chunks_exact_mut(S::LANES)) {
                let v = simd.mul(scale, simd.load(x));
                simd.store(x, v);
                simd.store(m, v);
            }
        }
        if let Some(m) = pieces.next() {
            // Whole registers, which the pass can load while they are still being stored.
            let mut unit = [T::ZERO; 2 * ROWS];
            unit[ROWS] = self.last;
            for register in 0..ROWS / S::LANES {
                let at = register * S::LANES;
                let others = simd.mul(scale, simd.load_some(&rest[at.min(place)..place]));
                let v = simd.add(others, simd.load(&unit[ROWS + at - place..]));
                simd.store(&mut rest[at..], v);
                simd.store(&mut m[at..], v);
            }
        }
    }
}

/// Operands of one pass: whole blocks of rows.
struct Operands<'a, T> {
    v: &'a [T],
    w: &'a [T],
    x: &'a [T],
}

/// Subtracts the waiting update from the first `k` columns and multiplies: `y = M x`, and `z = Mᵀ x` above the diagonal
/// blocks.
#[inline(always)]
fn product<S: Simd<Element: Scalar>>(
    simd: S,
    m: &mut Columns<'_, S::Element>,
    k: usize,
    Operands { v, w, x }: Operands<'_, S::Element>,
    [y, z]: [&mut [S::Element]; 2],
) {
    let (v, w, x) = (v.as_chunks::<ROWS>().0, w.as_chunks::<ROWS>().0, x.as_chunks::<ROWS>().0);
    let (y, z) = (y.as_chunks_mut::<ROWS>().0, z.as_chunks_mut::<ROWS>().0);
    let mut rest = m.0.as_chunks_mut::<PIECE>().0;
    for (block, z) in z.iter_mut().enumerate() {
        let count = (ROWS / COLUMNS).min((k - block * ROWS).div_ceil(COLUMNS));
        let groups;
        (groups, rest) = rest.split_at_mut(count * (block + 1));
        let here = [&v[block], &w[block], &x[block]];
        let rows = [&v[..block], &w[..block], &x[..block]];
        let zs = z.as_chunks_mut::<COLUMNS>().0;
        for (group, (above, z)) in groups.chunks_exact_mut(block + 1).zip(zs).enumerate() {
            let mut operands = [[simd.zero(); COLUMNS]; 3];
            for (lanes, from) in operands.iter_mut().zip(here) {
                for (lanes, &x) in lanes.iter_mut().zip(&from.as_chunks::<COLUMNS>().0[group]) {
                    *lanes = simd.splat(x);
                }
            }
            let above = &mut above[..block];
            let passes = S::PARTIAL_SUMS / S::LANES;
            let sums = if passes == 1 {
                columns_above(simd, above, rows, &mut y[..block], &operands, 0)
            } else {
                let mut all = [[simd.zero(); COLUMNS]; MOST_REGISTERS];
                for (pass, all) in all.iter_mut().enumerate().take(passes) {
                    *all = columns_above(simd, above, rows, &mut y[..block], &operands, pass);
                }
                join(simd, all)
            };
            *z = sums_of(simd, sums);
        }
        diagonal_block(simd, groups, block, here, &mut y[block]);
    }
}

/// A diagonal block: subtracts the update and multiplies, `y = M x`, each column of a piece in a chain of its own.
#[inline(always)]
fn diagonal_block<S: Simd<Element: Scalar>>(
    simd: S,
    groups: &mut [[S::Element; PIECE]],
    block: usize,
    [v, w, x]: [&[S::Element; ROWS]; 3],
    y: &mut [S::Element; ROWS],
) {
    for register in 0..ROWS / S::LANES {
        let at = register * S::LANES;
        let (v_rows, w_rows) = (simd.load(&v[at..]), simd.load(&w[at..]));
        let mut sums = [simd.zero(); COLUMNS];
        let operands = v.as_chunks::<COLUMNS>().0.iter().zip(w.as_chunks::<COLUMNS>().0);
        let operands = operands.zip(x.as_chunks::<COLUMNS>().0);
        for (group, ((v, w), x)) in groups.chunks_exact_mut(block + 1).zip(operands) {
            let piece = &mut group[block];
            for c in 0..COLUMNS {
                let column = &mut piece[c * ROWS + at..][..S::LANES];
                let m = simd.neg_mul_add(v_rows, simd.splat(w[c]), simd.load(column));
                let m = simd.neg_mul_add(w_rows, simd.splat(v[c]), m);
                simd.store(column, m);
                sums[c] = simd.mul_add(m, simd.splat(x[c]), sums[c]);
            }
        }
        let [a, b, c, d] = sums;
        simd.store(&mut y[at..], simd.add(simd.add(a, b), simd.add(c, d)));
    }
}

/// Some rows of four columns above their diagonal block: subtracts the update and multiplies. Gives the partial sums of
/// one pass.
#[inline(always)]
fn columns_above<S: Simd>(
    simd: S,
    pieces: &mut [[S::Element; PIECE]],
    [v, w, x]: [&[[S::Element; ROWS]]; 3],
    y: &mut [[S::Element; ROWS]],
    [vs, ws, xs]: &[[S::Vector; COLUMNS]; 3],
    pass: usize,
) -> [S::Vector; COLUMNS] {
    let len = pieces.len();
    let (v, w, x, y) = (&v[..len], &w[..len], &x[..len], &mut y[..len]);
    let passes = S::PARTIAL_SUMS / S::LANES;
    let mut sums = [simd.zero(); COLUMNS];
    for i in 0..len {
        let piece = &mut pieces[i];
        for register in 0..ROWS / S::LANES / passes {
            let at = (register * passes + pass) * S::LANES;
            let (v, w) = (simd.load(&v[i][at..]), simd.load(&w[i][at..]));
            let (x, mut sum) = (simd.load(&x[i][at..]), simd.load(&y[i][at..]));
            for c in 0..COLUMNS {
                let column = &mut piece[c * ROWS + at..][..S::LANES];
                let m = simd.neg_mul_add(v, ws[c], simd.load(column));
                let m = simd.neg_mul_add(w, vs[c], m);
                simd.store(column, m);
                sum = simd.mul_add(m, xs[c], sum);
                sums[c] = simd.mul_add(m, x, sums[c]);
            }
            simd.store(&mut y[i][at..], sum);
        }
    }
    sums
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

/// The sums of four registers, each joined in halves as by [`Simd::sum`].
#[inline(always)]
fn sums_of<S: Simd>(simd: S, [a, b, c, d]: [S::Vector; COLUMNS]) -> [S::Element; COLUMNS] {
    // Lanes `l` and `l + LANES / 2` of two registers: their sums take turns in one.
    let halve = |a, b| {
        let [low, high] = simd.shuffle(a, b);
        simd.add(low, high)
    };
    let mut lanes = [S::Element::default(); MOST_LANES];
    let (even, odd) = (halve(a, c), halve(b, d));
    if S::LANES < COLUMNS {
        simd.store(&mut lanes, even);
        simd.store(&mut lanes[S::LANES..], odd);
        return [lanes[0], lanes[2], lanes[1], lanes[3]];
    }
    let (mut all, mut apart) = (halve(even, odd), 1);
    while apart < S::LANES / COLUMNS {
        all = halve(all, all);
        apart *= 2;
    }
    simd.store(&mut lanes, all);
    [lanes[0], lanes[apart], lanes[2 * apart], lanes[3 * apart]]
}

/// `p += z`. Gives `Σ p_i x_i` over partial sums.
#[inline(always)]
fn add<S: Simd>(simd: S, p: &mut [S::Element], z: &[S::Element], x: &[S::Element]) -> S::Element {
    let mut sums = [[simd.zero()]; MOST_REGISTERS];
    let others = z.as_chunks::<ROWS>().0.iter().zip(x.as_chunks::<ROWS>().0);
    for (p, (z, x)) in p.as_chunks_mut::<ROWS>().0.iter_mut().zip(others) {
        for register in 0..ROWS / S::LANES {
            let at = register * S::LANES;
            let sum = simd.add(simd.load(&p[at..]), simd.load(&z[at..]));
            simd.store(&mut p[at..], sum);
            let [partial] = &mut sums[register % (S::PARTIAL_SUMS / S::LANES)];
            *partial = simd.mul_add(sum, simd.load(&x[at..]), *partial);
        }
    }
    let [sum] = join(simd, sums);
    simd.sum(sum)
}
