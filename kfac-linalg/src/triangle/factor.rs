//! Cholesky factor of one block.
//!
//! Eight rows at a time, so that their first columns fit into registers. What the rows above take away comes first; then,
//! among the eight, elimination without square roots, so that only a division stands between two pivots; in the end each
//! row is scaled:
//!
//! ```text
//!     s_i = a_i - Σ_p u_pi u_p             rows p above the eight, from p = 0 up
//!     s_i = s_i - s_ji (s_j (1 / s_jj))    rows j among the eight, from the first one down to i - 1
//!     u_i = s_i (1 / sqrt(s_ii))           but u_ii = sqrt(s_ii)
//! ```

use super::copy::{gather, scatter_lower};
use super::substitute::{load, store, subtract, take_away, times};
use super::{GROUP, Triangle, WIDTH, padded, triangle_len};
use crate::arch::simd::{MOST_LANES, Simd, Task};
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};

/// Factors the lower triangle of `a` in `room`, [`triangle_len`] numbers that become a [`Triangle`].
///
/// Gives the first pivot that is not a positive finite number with a finite reciprocal.
pub struct Factor<'a, T> {
    pub(crate) a: MatRef<'a, T>,
    pub(crate) room: &'a mut [T],
}

/// A pivot that no elimination can go on from.
pub struct BadPivot<T> {
    pub(crate) index: usize,
    pub(crate) value: T,
}

impl<T: Scalar> Task<T> for Factor<'_, T> {
    type Output = Result<(), BadPivot<T>>;

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) -> Self::Output {
        let n = self.a.rows();
        let (u, reciprocals) = load_block(simd, self.a.transposed(), self.room);
        for (first, reciprocals) in (0..padded(n)).step_by(GROUP).zip(reciprocals.as_chunks_mut().0) {
            // As many registers as hold eight columns.
            let group = match GROUP.div_ceil(S::LANES) {
                1 => Group::pivots::<S, 1>(simd, u, first, reciprocals)?,
                2 => Group::pivots::<S, 2>(simd, u, first, reciprocals)?,
                _ => Group::pivots::<S, 4>(simd, u, first, reciprocals)?,
            };
            let mut start = first + GROUP.next_multiple_of(S::LANES);
            while start < n {
                let left = (n - start).div_ceil(S::LANES);
                // Three registers at a time where the set has them, and no single one at the end but for want of another.
                start += S::LANES
                    * match (S::TILE[1] >= GROUP, left) {
                        (false, _) | (true, 1) => group.finish::<S, 1>(simd, u, start, reciprocals),
                        (true, 2 | 4) => group.finish::<S, 2>(simd, u, start, reciprocals),
                        (true, _) => group.finish::<S, 3>(simd, u, start, reciprocals),
                    };
            }
        }
        Ok(())
    }
}

/// Eight rows whose first columns have been eliminated.
struct Group<T> {
    /// The first row.
    first: usize,
    /// `s_ji`, not scaled.
    factors: [[T; GROUP]; GROUP],
    /// `1 / s_jj`.
    inverses: [T; GROUP],
}

impl<T: Scalar> Group<T> {
    /// Finishes the first `V` registers of the rows, and their `1 / sqrt(s_jj)`.
    #[inline(always)]
    fn pivots<S: Simd<Element = T>, const V: usize>(
        simd: S,
        u: &mut [[T; WIDTH]],
        first: usize,
        reciprocals: &mut [T; GROUP],
    ) -> Result<Self, BadPivot<T>> {
        let (done, rows) = u.split_at_mut(first);
        let rows = &mut rows.as_flattened_mut()[first..];
        let mut s = load::<S, V, GROUP>(simd, rows, WIDTH);
        for row in done {
            let row = &row[first..first + GROUP.next_multiple_of(S::LANES)];
            take_away(simd, &mut s, row, |i| row[i]);
        }
        let (mut factors, mut inverses) = ([[T::ZERO; GROUP]; GROUP], [T::ZERO; GROUP]);
        for_each_row!(J in 0..GROUP {
            let row = &mut rows[J * WIDTH..][..GROUP.next_multiple_of(S::LANES)];
            for (x, &s) in row.chunks_exact_mut(S::LANES).zip(&s[J]) {
                simd.store(x, s);
            }
            factors[J].copy_from_slice(&row[..GROUP]);
            let value = row[J];
            let inverse = T::ONE / value;
            // Written so that NaN fails.
            if !(value > T::ZERO && value.is_finite() && inverse.is_finite()) {
                return Err(BadPivot { index: first + J, value });
            }
            inverses[J] = inverse;
            let unit = times(simd, s[J], inverse);
            for (s, &factor) in s[J + 1..].iter_mut().zip(&row[J + 1..]) {
                subtract(simd, s, factor, &unit);
            }
        });
        for (j, reciprocal) in reciprocals.iter_mut().enumerate() {
            *reciprocal = T::ONE / factors[j][j].sqrt();
            s[j] = times(simd, s[j], *reciprocal);
        }
        store(simd, &s, rows, WIDTH);
        for (j, factors) in factors.iter().enumerate() {
            rows[j * WIDTH + j] = factors[j].sqrt();
        }
        Ok(Self { first, factors, inverses })
    }

    /// Finishes `V` registers more, from column `start` on. Gives their number.
    #[inline(always)]
    fn finish<S: Simd<Element = T>, const V: usize>(
        &self,
        simd: S,
        u: &mut [[T; WIDTH]],
        start: usize,
        reciprocals: &[T; GROUP],
    ) -> usize {
        let first = self.first;
        let (done, rows) = u.split_at_mut(first);
        let rows = &mut rows.as_flattened_mut()[start..];
        let mut s = load::<S, V, GROUP>(simd, rows, WIDTH);
        for row in done {
            let factors = &row[first..first + GROUP];
            take_away(simd, &mut s, &row[start..start + V * S::LANES], |i| factors[i]);
        }
        for_each_row!(J in 0..GROUP {
            let unit = times(simd, s[J], self.inverses[J]);
            for (s, &factor) in s[J + 1..].iter_mut().zip(&self.factors[J][J + 1..]) {
                subtract(simd, s, factor, &unit);
            }
            s[J] = times(simd, s[J], reciprocals[J]);
        });
        store(simd, &s, rows, WIDTH);
        V
    }
}

/// Reads the upper triangle of `u`, which is finished, into `room`, [`triangle_len`] numbers that become a [`Triangle`].
pub struct Read<'a, T> {
    pub(crate) u: MatRef<'a, T>,
    pub(crate) room: &'a mut [T],
}

impl<T: Scalar> Task<T> for Read<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        let n = self.u.rows();
        let (numbers, reciprocals) = load_block(simd, self.u, self.room);
        for (i, (row, reciprocal)) in numbers.iter().zip(reciprocals).enumerate() {
            *reciprocal = if i < n { T::ONE / row[i] } else { T::ONE };
        }
    }
}

/// The upper triangle of a view, padded with the identity, and the room for its reciprocals.
#[inline(always)]
fn load_block<'a, S: Simd<Element: Scalar>>(
    simd: S,
    from: MatRef<'_, S::Element>,
    room: &'a mut [S::Element],
) -> (&'a mut [[S::Element; WIDTH]], &'a mut [S::Element]) {
    let n = from.rows();
    let (numbers, reciprocals) = room[..triangle_len(n)].split_at_mut(padded(n) * WIDTH);
    gather(simd, from, |row| row, numbers, WIDTH);
    let u = numbers.as_chunks_mut().0;
    for row in &mut *u {
        // What registers reach past the block.
        row[n..n + MOST_LANES].fill(S::Element::ZERO);
    }
    for (i, row) in u.iter_mut().enumerate().skip(n) {
        row.fill(S::Element::ZERO);
        row[i] = S::Element::ONE;
    }
    (u, reciprocals)
}

/// Writes `L` into the lower triangle of a square view, and nothing above its diagonal.
pub struct Write<'a, T> {
    pub(crate) triangle: Triangle<'a, T>,
    pub(crate) to: MatMut<'a, T>,
}

impl<T: Scalar> Task<T> for Write<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        scatter_lower(simd, self.triangle.u.as_flattened(), WIDTH, self.to);
    }
}

impl<T: Scalar> Triangle<'_, T> {
    /// The diagonal of the block.
    pub(crate) fn diagonal(&self) -> impl Iterator<Item = T> {
        (0..self.n).map(|i| self.u[i][i])
    }
}
