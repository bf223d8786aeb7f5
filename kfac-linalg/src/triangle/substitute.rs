//! Solutions with a triangular block, a strip of right-hand sides at a time.

use super::copy::{gather, scatter};
use super::{GROUP, Triangle, WIDTH, padded};
use crate::arch::simd::{Simd, Task};
use crate::scalar::Scalar;
use crate::view::MatMut;
use core::ops::Range;

/// Which way through the block.
#[derive(Clone, Copy)]
pub(crate) enum Way<T> {
    /// `L Y = B`.
    Forward,
    /// `Lᵀ X = B`.
    Backward,
    /// `L Y = B` and `Lᵀ X = Y`, to be scaled.
    Through { scale: T },
}

/// Writes the solution in place of `B`.
pub struct Substitute<'a, T> {
    pub(crate) triangle: Triangle<'a, T>,
    pub(crate) way: Way<T>,
    pub(crate) b: MatMut<'a, T>,
    /// Where the solution is wanted too, the first one of two.
    pub(crate) first: Option<MatMut<'a, T>>,
    /// [`strip_len`](super::strip_len) numbers.
    pub(crate) strip: &'a mut [T],
}

/// Writes `(L Lᵀ)⁻¹`: the lower triangle, and what falls off of the upper one.
pub struct Inverse<'a, T> {
    pub(crate) triangle: Triangle<'a, T>,
    pub(crate) to: MatMut<'a, T>,
    /// [`strip_len`](super::strip_len) numbers.
    pub(crate) strip: &'a mut [T],
}

impl<T: Scalar> Task<T> for Substitute<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(mut self, simd: S) {
        each_strip(simd, self.b.cols(), &mut self);
    }
}

impl<T: Scalar> Task<T> for Inverse<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(mut self, simd: S) {
        each_strip(simd, self.triangle.n, &mut self);
    }
}

/// A right-hand side that can be worked on strip by strip.
trait Strips<T> {
    /// Works on some columns, `V` registers wide, `R` rows at a time.
    fn advance<S: Simd<Element = T>, const V: usize, const R: usize>(&mut self, simd: S, cols: Range<usize>);
}

impl<T: Scalar> Strips<T> for Substitute<'_, T> {
    #[inline(always)]
    fn advance<S: Simd<Element = T>, const V: usize, const R: usize>(&mut self, simd: S, cols: Range<usize>) {
        let (n, wide) = (self.triangle.n, V * S::LANES);
        let strip = &mut self.strip[..padded(n) * wide];
        gather(simd, self.b.as_ref().columns(cols.clone()), |_| 0, strip, wide);
        strip[n * wide..].fill(T::ZERO);
        if !matches!(self.way, Way::Backward) {
            forward::<S, V, R>(simd, self.triangle, strip, 0);
        } else {
            backward::<S, V, R>(simd, self.triangle, strip, 0);
        }
        if let Some(first) = &mut self.first {
            scatter(simd, strip, wide, T::ONE, first.reborrow().part(0, cols.clone()));
        }
        let mut scale = T::ONE;
        if let Way::Through { scale: wanted } = self.way {
            backward::<S, V, R>(simd, self.triangle, strip, 0);
            scale = wanted;
        }
        scatter(simd, strip, wide, scale, self.b.reborrow().part(0, cols));
    }
}

impl<T: Scalar> Strips<T> for Inverse<'_, T> {
    #[inline(always)]
    fn advance<S: Simd<Element = T>, const V: usize, const R: usize>(&mut self, simd: S, cols: Range<usize>) {
        let (n, wide) = (self.triangle.n, V * S::LANES);
        let strip = &mut self.strip[..padded(n) * wide];
        // The rows above these columns are zero in `L⁻¹`, and not wanted of the inverse.
        let first = cols.start / GROUP * GROUP;
        strip[first * wide..].fill(T::ZERO);
        for j in cols.clone() {
            strip[j * wide + j - cols.start] = T::ONE;
        }
        forward::<S, V, R>(simd, self.triangle, strip, first);
        backward::<S, V, R>(simd, self.triangle, strip, first);
        let below = self.to.reborrow().part(first, cols);
        scatter(simd, &strip[first * wide..], wide, T::ONE, below);
    }
}

/// Strips of even width, as wide as the registers allow.
#[inline(always)]
fn each_strip<S: Simd<Element: Scalar>>(simd: S, cols: usize, work: &mut impl Strips<S::Element>) {
    let registers = cols.div_ceil(S::LANES);
    let strips = registers.div_ceil(S::TILE[0]);
    let mut start = 0;
    for strip in 0..strips {
        // What is left, evenly.
        let wide = (registers - start).div_ceil(strips - strip);
        let cols = start * S::LANES..cols.min((start + wide) * S::LANES);
        start += wide;
        // As many rows as the registers hold: the chains are the same.
        if S::TILE[1] >= GROUP {
            match wide {
                1 => simd.vectorize(One::<_, 1, GROUP> { work, cols }),
                2 => simd.vectorize(One::<_, 2, GROUP> { work, cols }),
                _ => simd.vectorize(One::<_, 3, GROUP> { work, cols }),
            }
        } else {
            match wide {
                1 => simd.vectorize(One::<_, 1, 4> { work, cols }),
                _ => simd.vectorize(One::<_, 2, 4> { work, cols }),
            }
        }
    }
}

/// One strip. A task of its own for each width, as the tiles of a product are.
struct One<'a, W, const V: usize, const R: usize> {
    work: &'a mut W,
    cols: Range<usize>,
}

impl<T: Scalar, W: Strips<T>, const V: usize, const R: usize> Task<T> for One<'_, W, V, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        self.work.advance::<S, V, R>(simd, self.cols);
    }
}

/// `L Y = B` in a strip, from row `first` on; the rows before it are zero.
#[inline(always)]
fn forward<S: Simd<Element: Scalar>, const V: usize, const R: usize>(
    simd: S,
    Triangle { u, reciprocals, n }: Triangle<'_, S::Element>,
    strip: &mut [S::Element],
    first: usize,
) {
    let wide = V * S::LANES;
    for row in (first..padded(n)).step_by(R) {
        let (done, rest) = strip.split_at_mut(row * wide);
        let rows = &mut rest[..R * wide];
        let mut sums = load::<S, V, R>(simd, rows, wide);
        for (u, x) in u[first..row].iter().zip(done[first * wide..].chunks_exact(wide)) {
            let factors = &u[row..row + R];
            take_away(simd, &mut sums, x, |i| factors[i]);
        }
        solve_down(simd, &mut sums, &u[row..row + R], row, &reciprocals[row..row + R]);
        store(simd, &sums, rows, wide);
    }
}

/// `Lᵀ X = Y` in a strip, down to row `first`; the rows before it are not wanted.
#[inline(always)]
fn backward<S: Simd<Element: Scalar>, const V: usize, const R: usize>(
    simd: S,
    Triangle { u, reciprocals, n }: Triangle<'_, S::Element>,
    strip: &mut [S::Element],
    first: usize,
) {
    let wide = V * S::LANES;
    for row in (first..padded(n)).step_by(R).rev() {
        let (rest, done) = strip.split_at_mut((row + R) * wide);
        let rows = &mut rest[row * wide..];
        let mut sums = load::<S, V, R>(simd, rows, wide);
        let u = &u[row..row + R];
        for (p, x) in (row + R..padded(n)).zip(done.chunks_exact(wide)).rev() {
            take_away(simd, &mut sums, x, |i| u[i][p]);
        }
        solve_up(simd, &mut sums, u, row, &reciprocals[row..row + R]);
        store(simd, &sums, rows, wide);
    }
}

/// `R` rows of `V` registers.
#[inline(always)]
pub(super) fn load<S: Simd, const V: usize, const R: usize>(
    simd: S,
    rows: &[S::Element],
    stride: usize,
) -> [[S::Vector; V]; R] {
    let mut sums = [[simd.zero(); V]; R];
    for (sums, row) in sums.iter_mut().zip(rows.chunks(stride)) {
        for (sum, x) in sums.iter_mut().zip(row.chunks_exact(S::LANES)) {
            *sum = simd.load(x);
        }
    }
    sums
}

/// Writes what [`load`] has read.
#[inline(always)]
pub(super) fn store<S: Simd, const V: usize, const R: usize>(
    simd: S,
    sums: &[[S::Vector; V]; R],
    rows: &mut [S::Element],
    stride: usize,
) {
    for (sums, row) in sums.iter().zip(rows.chunks_mut(stride)) {
        for (&sum, x) in sums.iter().zip(row.chunks_exact_mut(S::LANES)) {
            simd.store(x, sum);
        }
    }
}

/// One term of each sum: `sums_i -= factor(i) x`.
#[inline(always)]
pub(super) fn take_away<S: Simd, const V: usize, const R: usize>(
    simd: S,
    sums: &mut [[S::Vector; V]; R],
    x: &[S::Element],
    factor: impl Fn(usize) -> S::Element,
) {
    let mut y = [simd.zero(); V];
    for (y, x) in y.iter_mut().zip(x.chunks_exact(S::LANES)) {
        *y = simd.load(x);
    }
    for (i, sums) in sums.iter_mut().enumerate() {
        subtract(simd, sums, factor(i), &y);
    }
}

/// The terms among the rows themselves, whose part of `U` begins at column `first`.
#[inline(always)]
fn solve_down<S: Simd<Element: Scalar>, const V: usize, const R: usize>(
    simd: S,
    sums: &mut [[S::Vector; V]; R],
    u: &[[S::Element; WIDTH]],
    first: usize,
    reciprocals: &[S::Element],
) {
    for_each_row!(I in 0..R {
        let x = times(simd, sums[I], reciprocals[I]);
        let factors = &u[I][first..first + R];
        for (sums, &factor) in sums[I + 1..].iter_mut().zip(&factors[I + 1..]) {
            subtract(simd, sums, factor, &x);
        }
        sums[I] = x;
    });
}

/// The same upwards, with the coefficients of the transpose.
#[inline(always)]
fn solve_up<S: Simd<Element: Scalar>, const V: usize, const R: usize>(
    simd: S,
    sums: &mut [[S::Vector; V]; R],
    u: &[[S::Element; WIDTH]],
    first: usize,
    reciprocals: &[S::Element],
) {
    for_each_row!(I in (0..R).rev() {
        let x = times(simd, sums[I], reciprocals[I]);
        for (sums, u) in sums[..I].iter_mut().zip(u) {
            subtract(simd, sums, u[first + I], &x);
        }
        sums[I] = x;
    });
}

/// `factor x`.
#[inline(always)]
pub(super) fn times<S: Simd, const V: usize>(
    simd: S,
    x: [S::Vector; V],
    factor: S::Element,
) -> [S::Vector; V] {
    let mut product = x;
    for product in &mut product {
        *product = simd.mul(*product, simd.splat(factor));
    }
    product
}

/// `sums -= factor x`.
#[inline(always)]
pub(super) fn subtract<S: Simd, const V: usize>(
    simd: S,
    sums: &mut [S::Vector; V],
    factor: S::Element,
    x: &[S::Vector; V],
) {
    let factor = simd.splat(factor);
    for (sum, &x) in sums.iter_mut().zip(x) {
        *sum = simd.neg_mul_add(factor, x, *sum);
    }
}
