//! Triangular blocks of at most a few dozen rows: Cholesky factor, solutions and inverse, in registers.
//!
//! A block is kept as `U = Lᵀ`, row by row, beside the reciprocals `1 / u_ii`. Lanes are columns of the right-hand side,
//! so every element is a chain of multiply-adds of its own, in an order that no register width decides:
//!
//! ```text
//!     factor:    u_i = (a_i - Σ_(p<i) u_pi u_p) / u_ii      U = Lᵀ,     see `factor` for the order
//!     forward:   y_i = (b_i - Σ_(p<i) u_pi y_p) / u_ii      L Y = B,    from p = 0 up
//!     backward:  x_i = (y_i - Σ_(p>i) u_ip x_p) / u_ii      Lᵀ X = Y,   from the last p down
//! ```
//!
//! [`factor`] makes the block or reads it, [`substitute`] runs over right-hand sides, [`copy`] moves them in and out of strips: a few
//! registers of columns, row after row, that stay in the first-level cache while the block passes over them.
//!
//! Rows are padded to whole groups of [`GROUP`] with those of the identity.

/// The body for each row of a group, unrolled: only then do arrays of registers stay in registers, where an inner loop is
/// shorter for each row.
macro_rules! for_each_row {
    ($row:ident in 0..$rows:ident $body:block) => {
        for_each_row!($row, $rows, $body, 0, 1, 2, 3, 4, 5, 6, 7)
    };
    ($row:ident in (0..$rows:ident).rev() $body:block) => {
        for_each_row!($row, $rows, $body, 7, 6, 5, 4, 3, 2, 1, 0)
    };
    ($row:ident, $rows:ident, $body:block, $($index:literal),*) => {
        $(if $index < $rows {
            const $row: usize = $index;
            $body
        })*
    };
}
pub(crate) mod copy;
pub(crate) mod factor;
pub(crate) mod panel;
pub(crate) mod substitute;

use crate::arch::compiled::compiled_here;
use crate::arch::simd::MOST_LANES;
use crate::scalar::Scalar;
use copy::Mirror;
use factor::{BadPivot, Factor, Read, Write};
use substitute::{Inverse, Substitute};

compiled_here! {
    /// Tasks on triangular blocks, and on the triangles of a square.
    TriangleTasks:
        Factor<'a> -> Result<(), BadPivot<Self>>,
        Read<'a> -> (),
        Write<'a> -> (),
        Substitute<'a> -> (),
        Inverse<'a> -> (),
        Mirror<'a> -> (),
}

/// Rows that advance together; a block has whole groups.
pub(crate) const GROUP: usize = 8;

/// The widest strip, in numbers: three registers of the widest set.
const STRIP: usize = 48;

/// Rows of a padded block of `n` rows.
pub(crate) const fn padded(n: usize) -> usize {
    n.next_multiple_of(GROUP)
}

/// Rows of the largest block, frozen.
pub(crate) const LARGEST: usize = 64;

/// Distance between rows of a block: a register may begin at each column, rows begin on cache lines, and no power of
/// two puts them in the same place of a cache. A constant, so that eight rows are read through one pointer.
const WIDTH: usize = LARGEST + 16;

/// Numbers in a block of `n` rows, with the reciprocals of its diagonal.
pub(crate) const fn triangle_len(n: usize) -> usize {
    padded(n) * (WIDTH + 1)
}

/// Numbers in a strip for a block of `n` rows and so many right-hand sides: whole registers of every instruction set.
pub(crate) const fn strip_len(n: usize, cols: usize) -> usize {
    padded(n) * if cols < STRIP { cols.next_multiple_of(MOST_LANES) } else { STRIP }
}

/// A block to read: `U`, and the reciprocals of its diagonal.
#[derive(Clone, Copy)]
pub(crate) struct Triangle<'a, T> {
    /// Padded rows. Only columns from the diagonal on are meant.
    u: &'a [[T; WIDTH]],
    reciprocals: &'a [T],
    n: usize,
}

impl<'a, T: Scalar> Triangle<'a, T> {
    /// The block of `n` rows that a task has left in `room`.
    pub(crate) fn of(room: &'a [T], n: usize) -> Self {
        let (u, rest) = room.split_at(padded(n) * WIDTH);
        Self { u: u.as_chunks().0, reciprocals: &rest[..padded(n)], n }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::factor::{Factor, Write};
    use super::substitute::{Inverse, Substitute, Way};
    use super::*;
    use crate::InstructionSet;
    use crate::view::{MatMut, MatRef};
    use std::format;
    use std::vec;
    use std::vec::Vec;

    const SIZES: [usize; 14] = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 24, 33, 63, 64];
    /// Right-hand sides: a few strips, the last one partly.
    const COLS: usize = 101;

    /// A matrix, row by row.
    type Rows<T> = Vec<Vec<T>>;

    fn rows<T: Scalar>(n: usize, cols: usize, element: impl Fn(usize, usize) -> f64) -> Rows<T> {
        (0..n).map(|i| (0..cols).map(|j| T::from_f64(element(i, j))).collect()).collect()
    }

    /// The lower triangle of a positive definite matrix; the upper one must not count.
    fn definite<T: Scalar>(n: usize) -> Rows<T> {
        rows(n, n, |i, j| match i.cmp(&j) {
            std::cmp::Ordering::Equal => 3.0 + i as f64 / 7.0,
            std::cmp::Ordering::Greater => 1.0 / (1 + i + 3 * j) as f64,
            std::cmp::Ordering::Less => f64::NAN,
        })
    }

    fn right_hand_sides<T: Scalar>(n: usize) -> Rows<T> {
        rows(n, COLS, |i, j| ((i * 7919 + j * 104_729) % 1009) as f64 / 1009.0 - 0.3)
    }

    /// The formulas, one element at a time.
    struct Plain<T> {
        u: Rows<T>,
        reciprocals: Vec<T>,
    }

    impl<T: Scalar> Plain<T> {
        fn factor(a: &Rows<T>) -> Self {
            let n = a.len();
            let mut u: Rows<T> = (0..n).map(|i| (0..n).map(|j| a[j][i]).collect()).collect();
            let mut reciprocals = vec![T::ZERO; n];
            for first in (0..n).step_by(GROUP) {
                for i in first..n.min(first + GROUP) {
                    for c in i..n {
                        u[i][c] = (0..first).fold(u[i][c], |sum, p| sum - u[p][i] * u[p][c]);
                    }
                    for j in first..i {
                        for c in i..n {
                            u[i][c] = u[i][c] - u[j][i] * (u[j][c] * (T::ONE / u[j][j]));
                        }
                    }
                }
                for i in first..n.min(first + GROUP) {
                    let root = u[i][i].sqrt();
                    reciprocals[i] = T::ONE / root;
                    (i..n).for_each(|c| u[i][c] *= reciprocals[i]);
                    u[i][i] = root;
                }
            }
            Self { u, reciprocals }
        }

        fn forward(&self, mut b: Rows<T>) -> Rows<T> {
            for i in 0..b.len() {
                for c in 0..b[i].len() {
                    let sum = (0..i).fold(b[i][c], |sum, p| sum - self.u[p][i] * b[p][c]);
                    b[i][c] = sum * self.reciprocals[i];
                }
            }
            b
        }

        fn backward(&self, mut b: Rows<T>) -> Rows<T> {
            let n = b.len();
            for i in (0..n).rev() {
                for c in 0..b[i].len() {
                    let sum = (i + 1..n).rev().fold(b[i][c], |sum, p| sum - self.u[i][p] * b[p][c]);
                    b[i][c] = sum * self.reciprocals[i];
                }
            }
            b
        }
    }

    #[track_caller]
    fn assert_bits<T: Scalar>(found: T, want: T, case: &str) {
        let same = found.to_f64().to_bits() == want.to_f64().to_bits();
        assert!(same, "{case}: {found:e} instead of {want:e}");
    }

    /// A view of some numbers, filled.
    fn filled<'a, T: Scalar>(
        data: &'a mut [T],
        from: &Rows<T>,
        cols: usize,
        strides: [usize; 2],
    ) -> MatMut<'a, T> {
        let mut view = MatMut::with_strides(data, [from.len(), cols], strides).unwrap();
        for (i, row) in from.iter().enumerate() {
            row.iter().enumerate().for_each(|(j, &x)| view.set(i, j, x));
        }
        view
    }

    /// Row-major, column-major, and with gaps.
    fn layouts(rows: usize, cols: usize) -> [[usize; 2]; 3] {
        [[cols, 1], [1, rows], [3 * cols, 2]]
    }

    fn factor_equals<T: Scalar>(set: InstructionSet, a: &Rows<T>, plain: &Plain<T>) {
        let n = a.len();
        for strides in layouts(n, n) {
            let mut data = vec![T::ZERO; 3 * n * n];
            let mut room = vec![T::from_f64(f64::NAN); triangle_len(n)];
            let mut view = filled(&mut data, a, n, strides);
            assert!(set.run_unfused(Factor { a: view.as_ref(), room: &mut room }).is_ok());
            let triangle = Triangle::of(&room, n);
            set.run_unfused(Write { triangle, to: view.reborrow() });
            for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let want = if j <= i { plain.u[j][i] } else { a[i][j] };
                assert_bits(
                    view.at(i, j),
                    want,
                    &format!("{set}, n = {n}, strides {strides:?}, L ({i}, {j})"),
                );
            }
        }
    }

    fn solutions_equal<T: Scalar>(set: InstructionSet, triangle: Triangle<'_, T>, plain: &Plain<T>) {
        let n = triangle.n;
        let strip = &mut vec![T::from_f64(f64::NAN); strip_len(n, COLS)];
        let (b, minus) = (right_hand_sides::<T>(n), -T::ONE);
        let (forward, backward) = (plain.forward(b.clone()), plain.backward(b.clone()));
        let mut through = plain.backward(forward.clone());
        through.iter_mut().flatten().for_each(|x| *x = minus * *x);
        let ways =
            [(Way::Forward, &forward), (Way::Backward, &backward), (Way::Through { scale: minus }, &through)];
        for (strides, (way, want)) in layouts(n, COLS).into_iter().flat_map(|s| ways.map(|way| (s, way))) {
            let (mut data, mut y) = (vec![T::ZERO; 3 * n * COLS], vec![T::ZERO; n * COLS]);
            let mut view = filled(&mut data, &b, COLS, strides);
            let y_view = MatMut::row_major(&mut y, n, COLS).unwrap();
            set.run_unfused(Substitute { triangle, way, b: view.reborrow(), first: Some(y_view), strip });
            for (i, j) in (0..n).flat_map(|i| (0..COLS).map(move |j| (i, j))) {
                let case = format!("{set}, n = {n}, strides {strides:?}, ({i}, {j})");
                assert_bits(view.at(i, j), want[i][j], &case);
                let want = if let Way::Backward = way { &backward } else { &forward };
                assert_bits(y[i * COLS + j], want[i][j], &format!("Y: {case}"));
            }
        }
    }

    fn inverse_equals<T: Scalar>(set: InstructionSet, triangle: Triangle<'_, T>, plain: &Plain<T>) {
        let n = triangle.n;
        let (strip, mut x) = (&mut vec![T::from_f64(f64::NAN); strip_len(n, n)], vec![T::ZERO; n * n]);
        let identity = rows::<T>(n, n, |i, j| if i == j { 1.0 } else { 0.0 });
        let want = plain.backward(plain.forward(identity));
        set.run_unfused(Inverse { triangle, to: MatMut::row_major(&mut x, n, n).unwrap(), strip });
        for (i, j) in (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))) {
            assert_bits(x[i * n + j], want[i][j], &format!("{set}, n = {n}, inverse ({i}, {j})"));
        }
    }

    fn blocks_equal_the_plain_loops<T: Scalar>() {
        for (set, n) in InstructionSet::available().flat_map(|set| SIZES.map(|n| (set, n))) {
            let a = definite::<T>(n);
            let plain = Plain::factor(&a);
            factor_equals(set, &a, &plain);
            let (a, mut room) = (a.concat(), vec![T::from_f64(f64::NAN); triangle_len(n)]);
            let a = MatRef::row_major(&a, n, n).unwrap();
            assert!(set.run_unfused(Factor { a, room: &mut room }).is_ok());
            let triangle = Triangle::of(&room, n);
            solutions_equal(set, triangle, &plain);
            inverse_equals(set, triangle, &plain);
        }
    }

    #[test]
    fn blocks_equal_the_plain_loops_to_the_bit_on_every_instruction_set() {
        blocks_equal_the_plain_loops::<f32>();
        blocks_equal_the_plain_loops::<f64>();
    }
}
