//! Positive definite tridiagonal systems, one to a lane.
//!
//! With `m_i = d t_i + λ` on the diagonal and `e_i = d s_i` beside it, `L D Lᵀ` and both substitutions are
//!
//! ```text
//!     δ_i = m_i - l_i e_(i-1)        l_0 = 0
//!     y_i = x_i - l_i y_(i-1)
//!     l_(i+1) = e_i / δ_i            z_i = y_i / δ_i
//!
//!     x_i = z_i - l_(i+1) x_(i+1)    downwards from x_n = 0
//! ```
//!
//! One division a row, as the reciprocal of `δ_i`. The recurrence is one long chain, so several registers of columns go
//! down the rows together. Lanes never meet: the bits of a column do not depend on the register width.

use super::{Shifts, Tridiagonal};
use crate::arch::compiled::compiled_here;
use crate::arch::simd::{MOST_LANES, Simd, Task};
use crate::scalar::Scalar;

compiled_here! {
    /// Tasks of these systems.
    ShiftedTasks: Solve<'a> -> Option<usize>, FirstBadPivot<'a> -> Option<(usize, Self)>,
}

/// Registers that go down the rows together.
const TOGETHER: usize = 4;

/// Distance between the rows of the padded columns: whole registers of every instruction set.
pub(super) const fn row_len(columns: usize) -> usize {
    columns.next_multiple_of(MOST_LANES)
}

/// Numbers that [`Solve`] keeps between the two directions.
pub(super) const fn room_len(n: usize, columns: usize) -> usize {
    let (most, all) = (TOGETHER * MOST_LANES, row_len(columns));
    n * if all < most { all } else { most }
}

/// Solves column `j` of `x` (rows [`row_len`] apart) with `d_j T + λ I`, in place. Gives the first column that has a
/// pivot that is not positive, or a solution that is not finite.
pub struct Solve<'a, T> {
    pub(super) a: Tridiagonal<'a, T>,
    pub(super) shifts: Shifts<'a, T>,
    pub(super) x: &'a mut [T],
    /// [`room_len`] numbers.
    pub(super) room: &'a mut [T],
}

impl<T: Scalar> Task<T> for Solve<'_, T> {
    type Output = Option<usize>;

    #[inline(always)]
    fn run<S: Simd<Element = T>>(mut self, simd: S) -> Option<usize> {
        let columns = self.shifts.d.len();
        let mut first = 0;
        while first < columns {
            let registers = (columns - first).div_ceil(S::LANES);
            let (found, done) = match registers {
                TOGETHER.. => (self.strip::<S, TOGETHER>(simd, first), TOGETHER),
                2.. => (self.strip::<S, 2>(simd, first), 2),
                _ => (self.strip::<S, 1>(simd, first), 1),
            };
            if found.is_some() {
                return found;
            }
            first += done * S::LANES;
        }
        None
    }
}

impl<T: Scalar> Solve<'_, T> {
    /// `R` registers of columns, from column `first` on.
    #[inline(always)]
    fn strip<S: Simd<Element = T>, const R: usize>(&mut self, simd: S, first: usize) -> Option<usize> {
        let (width, columns) = (row_len(self.shifts.d.len()), R * S::LANES);
        let mut factors = [T::ZERO; TOGETHER * MOST_LANES];
        let real = columns.min(self.shifts.d.len() - first);
        factors[..real].copy_from_slice(&self.shifts.d[first..first + real]);
        let mut d = [simd.zero(); R];
        for (r, d) in d.iter_mut().enumerate() {
            *d = simd.load(&factors[r * S::LANES..]);
        }
        let lambda = simd.splat(self.shifts.lambda);

        let mut pivots = [Pivot::first(simd); R];
        let mut y = [simd.zero(); R];
        let mut least = [simd.splat(T::MAX); R];
        let rows = self.x.chunks_exact_mut(width).zip(self.room.chunks_exact_mut(columns));
        for (i, ((row, kept), &t)) in rows.zip(self.a.diagonal).enumerate() {
            let t = simd.splat(t);
            let s = simd.splat(self.a.off_diagonal.get(i).copied().unwrap_or(T::ZERO));
            let row = &mut row[first..first + columns];
            for r in 0..R {
                let pivot = pivots[r].next(simd, simd.mul_add(d[r], t, lambda));
                least[r] = simd.min(least[r], pivot);
                y[r] = simd.neg_mul_add(pivots[r].l, y[r], simd.load(&row[r * S::LANES..]));
                let inverse = pivots[r].eliminate(simd, pivot, simd.mul(d[r], s));
                simd.store(&mut row[r * S::LANES..], simd.mul(y[r], inverse));
                simd.store(&mut kept[r * S::LANES..], pivots[r].l);
            }
        }

        let mut x = [simd.zero(); R];
        let rows = self.x.chunks_exact_mut(width).zip(self.room.chunks_exact(columns));
        for (row, kept) in rows.rev() {
            let row = &mut row[first..first + columns];
            for r in 0..R {
                x[r] =
                    simd.neg_mul_add(simd.load(&kept[r * S::LANES..]), x[r], simd.load(&row[r * S::LANES..]));
                simd.store(&mut row[r * S::LANES..], x[r]);
            }
        }

        // What is not finite, here or on the way, has made the first row so: both substitutions hand it on.
        let (mut lowest, mut last) = ([T::ZERO; MOST_LANES * TOGETHER], [T::ZERO; MOST_LANES * TOGETHER]);
        for r in 0..R {
            simd.store(&mut lowest[r * S::LANES..], least[r]);
            simd.store(&mut last[r * S::LANES..], x[r]);
        }
        let mut columns = lowest[..real].iter().zip(&last[..real]);
        columns
            .position(|(&lowest, last)| !(lowest > T::ZERO && last.is_finite()))
            .map(|column| first + column)
    }
}

/// The elimination between two rows.
#[derive(Clone, Copy)]
struct Pivot<V> {
    /// `l_i`.
    l: V,
    /// `e_(i-1)`.
    e: V,
}

impl<V: Copy> Pivot<V> {
    /// Before row 0.
    #[inline(always)]
    fn first<S: Simd<Vector = V>>(simd: S) -> Self {
        Self { l: simd.zero(), e: simd.zero() }
    }

    /// `δ_i`, from `m_i`.
    #[inline(always)]
    fn next<S: Simd<Vector = V>>(self, simd: S, m: V) -> V {
        simd.neg_mul_add(self.l, self.e, m)
    }

    /// Moves on to the next row, and gives `1 / δ_i`.
    #[inline(always)]
    fn eliminate<S: Simd<Vector = V>>(&mut self, simd: S, pivot: V, e: V) -> V
    where
        S::Element: Scalar,
    {
        let inverse = simd.div(simd.splat(S::Element::ONE), pivot);
        *self = Self { l: simd.mul(e, inverse), e };
        inverse
    }
}

/// The first pivot of `d T + λ I` that is zero or negative, exactly as [`Solve`] computes it, and its row.
pub struct FirstBadPivot<'a, T> {
    pub(super) a: Tridiagonal<'a, T>,
    pub(super) d: T,
    pub(super) lambda: T,
}

impl<T: Scalar> Task<T> for FirstBadPivot<'_, T> {
    type Output = Option<(usize, T)>;

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) -> Option<(usize, T)> {
        let (d, lambda) = (simd.splat(self.d), simd.splat(self.lambda));
        let mut state = Pivot::first(simd);
        for (i, &t) in self.a.diagonal.iter().enumerate() {
            let s = simd.splat(self.a.off_diagonal.get(i).copied().unwrap_or(T::ZERO));
            let pivot = state.next(simd, simd.mul_add(d, simd.splat(t), lambda));
            let mut lanes = [T::ZERO; MOST_LANES];
            simd.store(&mut lanes, pivot);
            if lanes[0] <= T::ZERO {
                return Some((i, lanes[0]));
            }
            state.eliminate(simd, pivot, simd.mul(d, s));
        }
        None
    }
}
