//! One sweep as a tournament: every row meets every other row once.
//!
//! `2h` rows sit at `h` tables, seat `s` opposite of seat `s + h`. In each of `2h - 1` rounds all tables play at
//! once (their rotations are disjoint), then everybody but the row in seat 0 moves one seat on:
//!
//! ```text
//!     0    1 -> 2 -> 3         seats 0 .. h
//!        ↗           ↓
//!     4 <- 5 <- 6 <- 7         seats h .. 2h
//! ```
//!
//! *Columns* really move, so that the two sides of all tables are the two halves of a row, and registers of tables play
//! at once: they are stored one place further than they were loaded. *Rows* stay where they are:
//! [`Seats::row_in`] computes who sits where. After a sweep all are home. With odd `n` a row of zeros fills the last
//! seat; nothing is ever rotated into it.

use super::{Budget, Outcome};
use crate::arch::compiled::compiled_here;
use crate::arch::simd::{Simd, Task};
use crate::eigh::partial::PartialSums;
use crate::error::ShapeError;
use crate::scalar::Scalar;
use crate::view::MatMut;

compiled_here! {
    /// Tasks of this solver.
    JacobiTasks: Sweeps<'a, 'b> -> Outcome,
}

/// The most lanes that a register of this machine can have.
const LANES: usize = if cfg!(target_arch = "x86_64") { 16 } else { 4 };

/// Numbers that [`Tournament`] works with.
pub(super) const fn tournament_len(n: usize) -> usize {
    // So much again at most until the first cache line.
    if n == 0 { 0 } else { LANES + matrix_len(n) + n * n + tables_len(n) }
}

/// Numbers in the matrix, as [`Seats`] has it on the widest registers.
const fn matrix_len(n: usize) -> usize {
    let tables = n.div_ceil(2);
    2 * tables * (2 * tables.next_multiple_of(LANES) + LANES)
}

/// Numbers that the tables keep.
const fn tables_len(n: usize) -> usize {
    4 * n.div_ceil(2).next_multiple_of(LANES)
}

/// The matrix, its eigenvectors so far, and the tables of one round.
pub(super) struct Tournament<'a, T> {
    n: usize,
    /// The matrix, both triangles; becomes `diag(d)`. First row after row, then as [`Seats`] has it.
    b: &'a mut [T],
    /// `Qᵀ`, `n x n`: eigenvectors are rows, contiguous while they rotate.
    pub(super) v: &'a mut [T],
    /// Per table: the diagonal elements of the two rows, before and after; the element where the two rows cross, then
    /// the sine of the angle; the tangent of half the angle. Four quarters, zero where there are no tables.
    pub(super) tables: &'a mut [T],
}

/// Where the elements of the matrix lie: the seats of either half of a row are neighbours and begin a register of zeros
/// apart, room to store one place further.
#[derive(Clone, Copy)]
struct Seats {
    /// Number of tables, `h`.
    tables: usize,
    /// Length of a half row, whole registers.
    half: usize,
    /// Where the second half begins.
    right: usize,
    /// Distance between rows.
    stride: usize,
}

impl Seats {
    #[inline(always)]
    fn new<S: Simd>(n: usize) -> Self {
        let tables = n.div_ceil(2);
        let half = tables.next_multiple_of(S::LANES);
        Self { tables, half, right: half + S::LANES, stride: 2 * half + S::LANES }
    }

    /// Where a seat lies in a row.
    #[inline(always)]
    fn at(self, seat: usize) -> usize {
        if seat < self.tables { seat } else { self.right + seat - self.tables }
    }

    /// The seat that follows on another: where a column is found after its row has moved.
    #[inline(always)]
    fn next(self, seat: usize) -> usize {
        let h = self.tables;
        match seat {
            _ if h == 1 => seat,
            0 => 0,
            _ if seat + 1 == h => 2 * h - 1,
            _ if seat < h => seat + 1,
            _ if seat == h => 1,
            _ => seat - 1,
        }
    }

    /// Which row sits in a seat. Counted along the way that rows move, seat `place` holds the row that started
    /// `round` places before it.
    #[inline(always)]
    fn row_in(self, seat: usize, round: usize) -> usize {
        let (h, places) = (self.tables, 2 * self.tables - 1);
        if seat == 0 {
            return 0;
        }
        let place = if seat < h { seat - 1 } else { 3 * h - 2 - seat };
        let start = if place >= round { place - round } else { place + places - round };
        if start + 1 < h { start + 1 } else { 3 * h - 2 - start }
    }
}

impl<'a, T: Scalar> Tournament<'a, T> {
    /// Divides `scratch`, which [`tournament_len`] measured.
    pub(super) fn new(scratch: &'a mut [T], n: usize) -> Self {
        let skip = scratch.as_ptr().align_offset(64).min(LANES).min(scratch.len());
        let (b, rest) = scratch[skip..].split_at_mut(matrix_len(n));
        let (v, rest) = rest.split_at_mut(n * n);
        Self { n, b, v, tables: &mut rest[..tables_len(n)] }
    }

    /// The matrix, until the sweeps.
    pub(super) fn matrix_mut(&mut self) -> Result<MatMut<'_, T>, ShapeError> {
        MatMut::row_major(self.b, self.n, self.n)
    }

    /// `Qᵀ`.
    pub(super) fn vectors_mut(&mut self) -> Result<MatMut<'_, T>, ShapeError> {
        MatMut::row_major(self.v, self.n, self.n)
    }

    /// `Qᵀ` and the matrix, both at once, until the sweeps.
    pub(super) fn parts_mut(&mut self) -> Result<(MatMut<'_, T>, MatMut<'_, T>), ShapeError> {
        let v = MatMut::row_major(self.v, self.n, self.n)?;
        let b = MatMut::row_major(self.b, self.n, self.n)?;
        Ok((v, b))
    }
}

/// Sweeps within the budget; `d` becomes the diagonal.
pub struct Sweeps<'a, 'b, T> {
    pub(super) tournament: &'b mut Tournament<'a, T>,
    pub(super) budget: Budget,
    pub(super) d: &'b mut [T],
}

impl<T: Scalar> Task<T> for Sweeps<'_, '_, T> {
    type Output = Outcome;

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) -> Outcome {
        let Self { tournament: Tournament { n, b, v, tables }, budget, d } = self;
        let (n, seats) = (*n, Seats::new::<S>(*n));
        let mut outcome = Outcome { sweeps: 0, off_diagonal: 0.0, converged: true };
        if n == 0 {
            return outcome;
        }
        spread(b, n, seats);
        let (here, rest) = tables.split_at_mut(seats.half);
        let (there, rest) = rest.split_at_mut(seats.half);
        let (sine, rest) = rest.split_at_mut(seats.half);
        let tangent = &mut rest[..seats.half];
        let mut game = Game { n, seats, b, v, here, there, sine, tangent, norm: T::ZERO };
        let enough = budget.tolerance * n as f64 * T::EPSILON.to_f64();
        let mut moving = true;
        loop {
            outcome.off_diagonal = game.off_diagonal(simd);
            outcome.converged = outcome.off_diagonal <= enough;
            if outcome.converged || !moving || outcome.sweeps == u32::from(budget.sweeps) {
                break;
            }
            moving = game.sweep(simd);
            outcome.sweeps += 1;
        }
        for (i, x) in d.iter_mut().enumerate() {
            *x = game.b[i * seats.stride + seats.at(i)];
        }
        outcome
    }
}

/// From row after row to [`Seats`].
#[inline(always)]
fn spread<T: Scalar>(b: &mut [T], n: usize, seats: Seats) {
    let (h, Seats { right, stride, .. }) = (seats.tables, seats);
    // From the last row on: rows move towards the end only.
    for i in (0..n).rev() {
        b.copy_within(i * n + h..i * n + n, i * stride + right);
        b.copy_within(i * n..i * n + h, i * stride);
        b[i * stride + h..i * stride + right].fill(T::ZERO);
        b[i * stride + right + n - h..(i + 1) * stride].fill(T::ZERO);
    }
    b[n * stride..2 * h * stride].fill(T::ZERO);
}

/// A [`Tournament`] under way.
struct Game<'a, T> {
    n: usize,
    seats: Seats,
    b: &'a mut [T],
    v: &'a mut [T],
    here: &'a mut [T],
    there: &'a mut [T],
    sine: &'a mut [T],
    tangent: &'a mut [T],
    norm: T,
}

impl<T: Scalar> Game<'_, T> {
    /// `||offdiag||_F / ||A||_F`, with the norm found at the first call; all rows are home.
    ///
    /// Off-diagonal squares are summed as such. As a difference (all squares minus those of the diagonal) they
    /// would drown in rounding long before the last sweep.
    #[inline(always)]
    fn off_diagonal<S: Simd<Element = T>>(&mut self, simd: S) -> f64 {
        let Seats { half, right, stride, .. } = self.seats;
        let (mut off, mut diagonal) = (PartialSums::new(simd), T::ZERO);
        for (i, row) in self.b.chunks_exact_mut(stride).take(self.n).enumerate() {
            // Away with it meanwhile.
            let at = self.seats.at(i);
            let x = core::mem::take(&mut row[at]);
            diagonal += x * x;
            for (index, first) in (0..half).step_by(S::LANES).enumerate() {
                off.add_squares(simd, index, simd.load(&row[first..]));
                off.add_squares(simd, index, simd.load(&row[right + first..]));
            }
            row[at] = x;
        }
        let off = off.total(simd);
        if self.norm == T::ZERO {
            self.norm = (off + diagonal).sqrt();
        }
        if off == T::ZERO { 0.0 } else { (off.sqrt() / self.norm).to_f64().min(1.0) }
    }

    /// All rounds once. Whether any pair was rotated.
    #[inline(always)]
    fn sweep<S: Simd<Element = T>>(&mut self, simd: S) -> bool {
        let (h, mut moving) = (self.seats.tables, false);
        for round in 0..2 * h - 1 {
            self.gather(round);
            self.angles();
            for table in 0..h {
                moving |= self.play(simd, round, table);
            }
        }
        moving
    }

    /// Reads the 2 x 2 problem of every table.
    #[inline(always)]
    fn gather(&mut self, round: usize) {
        let Seats { tables, right, stride, .. } = self.seats;
        for table in 0..tables {
            let here = self.seats.row_in(table, round) * stride;
            let there = self.seats.row_in(table + tables, round) * stride;
            self.here[table] = self.b[here + table];
            self.there[table] = self.b[there + right + table];
            self.sine[table] = self.b[here + right + table];
        }
        for idle in [&mut *self.here, &mut *self.there, &mut *self.sine] {
            idle[tables..].fill(T::ZERO);
        }
    }

    /// Solves them, all in one loop without branches.
    ///
    /// The smaller of the two angles that diagonalise `[[p, x], [x, r]]` has the tangent
    /// `t = sign(θ) / (|θ| + sqrt(θ² + 1))`, `θ = (r - p) / 2x`; the diagonal becomes `p - t x`, `r + t x`. Left alone
    /// when `x² <= (eps/2)² |p r|`, which changes no eigenvalue in working precision.
    #[inline(always)]
    fn angles(&mut self) {
        let (two, half_eps) = (T::ONE + T::ONE, T::EPSILON / (T::ONE + T::ONE));
        let tables =
            self.here.iter_mut().zip(&mut *self.there).zip(self.sine.iter_mut().zip(&mut *self.tangent));
        for ((p, r), (x, tangent)) in tables {
            let negligible = *x * *x <= half_eps * half_eps * (*p * *r).abs();
            let theta = (*r - *p) / (two * *x);
            let t = T::ONE / (theta.abs() + (theta * theta + T::ONE).sqrt());
            let t = if theta < T::ZERO { -t } else { t };
            let t = if negligible { T::ZERO } else { t };
            let cosine = T::ONE / (t * t + T::ONE).sqrt();
            let shift = if negligible { T::ZERO } else { t * *x };
            *p -= shift;
            *r += shift;
            *x = t * cosine;
            *tangent = *x / (T::ONE + cosine);
        }
    }

    /// Plays one table: rotates its two rows of the matrix and of `Qᵀ`, and in the same pass plays all tables within
    /// the two rows and moves their columns. Whether its angle was not zero.
    #[inline(always)]
    fn play<S: Simd<Element = T>>(&mut self, simd: S, round: usize, table: usize) -> bool {
        let (seats, h) = (self.seats, self.seats.tables);
        let (here, there) = (seats.row_in(table, round), seats.row_in(table + h, round));
        let (sine, tangent) = (self.sine[table], self.tangent[table]);
        let rotated = sine != T::ZERO;
        let mine = Angle { sine: simd.splat(sine), tangent: simd.splat(tangent) };
        if rotated {
            let (x, y) = two_rows(self.v, self.n, here, there);
            for (x, y) in x.chunks_mut(S::LANES).zip(y.chunks_mut(S::LANES)) {
                if x.len() == S::LANES {
                    let [to_x, to_y] = mine.rotate(simd, [simd.load(x), simd.load(y)]);
                    simd.store(x, to_x);
                    simd.store(y, to_y);
                } else {
                    let [to_x, to_y] = mine.rotate(simd, [simd.load_some(x), simd.load_some(y)]);
                    simd.store_some(x, to_x);
                    simd.store_some(y, to_y);
                }
            }
        }
        let (x, y) = two_rows(self.b, seats.stride, here, there);
        // The left half moves towards the right: a register is stored once the next one is loaded.
        let mut waiting = [simd.zero(); 2];
        for first in (0..seats.half).step_by(S::LANES) {
            let mut left = [simd.load(&x[first..]), simd.load(&y[first..])];
            let mut right = [simd.load(&x[seats.right + first..]), simd.load(&y[seats.right + first..])];
            if rotated {
                left = mine.rotate(simd, left);
                right = mine.rotate(simd, right);
            }
            let angle =
                Angle { sine: simd.load(&self.sine[first..]), tangent: simd.load(&self.tangent[first..]) };
            let [x_left, x_right] = angle.rotate(simd, [left[0], right[0]]);
            let [y_left, y_right] = angle.rotate(simd, [left[1], right[1]]);
            simd.store(&mut x[seats.right + first - 1..], x_right);
            simd.store(&mut y[seats.right + first - 1..], y_right);
            if first > 0 {
                simd.store(&mut x[first - S::LANES + 1..], waiting[0]);
                simd.store(&mut y[first - S::LANES + 1..], waiting[1]);
            }
            waiting = [x_left, y_left];
        }
        simd.store(&mut x[seats.half - S::LANES + 1..], waiting[0]);
        simd.store(&mut y[seats.half - S::LANES + 1..], waiting[1]);
        for row in [&mut *x, &mut *y] {
            // Seat 0 stays, the ends of the halves change sides, and what moved past the last table is no element.
            let (first, last, second) = (row[1], row[h], row[seats.right - 1]);
            row[0] = first;
            if h == 1 {
                row[seats.right] = second;
            } else {
                row[1] = second;
                row[seats.right + h - 1] = last;
            }
            row[h] = T::ZERO;
        }
        if rotated {
            // What these two become is known better than a rotation computes it: and exactly zero.
            let (left, right) = (seats.at(seats.next(table)), seats.at(seats.next(table + h)));
            (x[left], x[right]) = (self.here[table], T::ZERO);
            (y[left], y[right]) = (T::ZERO, self.there[table]);
        }
        rotated
    }
}

/// Rows `i` and `j` of a row-major matrix, `i != j`.
#[inline(always)]
fn two_rows<T>(matrix: &mut [T], len: usize, i: usize, j: usize) -> (&mut [T], &mut [T]) {
    let (head, tail) = matrix.split_at_mut(i.max(j) * len);
    let (low, high) = (&mut head[i.min(j) * len..][..len], &mut tail[..len]);
    if i < j { (low, high) } else { (high, low) }
}

/// A rotation, one to a lane.
#[derive(Clone, Copy)]
struct Angle<V> {
    sine: V,
    /// Of half the angle.
    tangent: V,
}

impl<V: Copy> Angle<V> {
    /// `(x, y) <- (c x - s y, s x + c y)` as three shears, `a = tan(φ/2)`: `x -= a y`, `y += s x`, `x -= a y`.
    ///
    /// A shear has determinant 1 whatever the rounding of its number; orthogonality comes out twice as good as with
    /// the four products.
    #[inline(always)]
    fn rotate<S: Simd<Vector = V>>(self, simd: S, [x, y]: [V; 2]) -> [V; 2] {
        let sheared = simd.neg_mul_add(self.tangent, y, x);
        let y = simd.mul_add(self.sine, sheared, y);
        [simd.neg_mul_add(self.tangent, y, sheared), y]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_meets_every_other_row_once_and_all_come_home() {
        for tables in 1..=8 {
            let count = 2 * tables;
            let seats = Seats { tables, half: 16, right: 32, stride: 48 };
            let mut columns: [usize; 16] = core::array::from_fn(|seat| seat);
            let mut met = [[0; 16]; 16];
            for round in 0..count - 1 {
                for (seat, &row) in columns[..count].iter().enumerate() {
                    assert_eq!(seats.row_in(seat, round), row, "{tables} tables, round {round}");
                }
                for table in 0..tables {
                    let (here, there) = (columns[table], columns[table + tables]);
                    met[here.min(there)][here.max(there)] += 1;
                }
                let before = columns;
                (0..count).for_each(|seat| columns[seats.next(seat)] = before[seat]);
            }
            for (i, row) in met[..count].iter().enumerate() {
                for (j, &times) in row[..count].iter().enumerate() {
                    assert_eq!(times, usize::from(i < j), "{tables} tables: {i} meets {j}");
                }
                assert_eq!(columns[i], i, "{tables} tables: home");
            }
        }
    }
}
