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
//! *Columns* really move, so that the two sides of all tables are the two halves of a row and one vector loop plays
//! them all. *Rows* stay where they are: [`Tournament::row_in`] computes who sits where. After a sweep all are home.
//! With odd `n` a row of zeros fills the last seat; nothing is ever rotated into it.

use crate::error::ShapeError;
use crate::product::dot;
use crate::scalar::Scalar;
use crate::view::MatMut;

/// The matrix, its eigenvectors so far, and the tables of one round.
pub(super) struct Tournament<'a, T> {
    n: usize,
    /// Number of tables, `h`.
    tables: usize,
    /// The matrix, `2h x 2h`, both triangles; becomes `diag(d)`.
    b: &'a mut [T],
    /// `Qᵀ`, `n x n`: eigenvectors are rows, contiguous while they rotate.
    pub(super) v: &'a mut [T],
    /// Per table: the diagonal elements of the two rows, before and after.
    here: &'a mut [T],
    there: &'a mut [T],
    /// Per table: the element where the two rows cross, then the sine of the angle.
    sine: &'a mut [T],
    /// Per table: the tangent of half the angle.
    tangent: &'a mut [T],
    /// One row with all tables played, before it moves.
    line: &'a mut [T],
    norm: T,
}

impl<'a, T: Scalar> Tournament<'a, T> {
    /// Divides `scratch`, which [`scratch_len`](super::scratch_len) measured. Zeros the matrix only.
    pub(super) fn new(scratch: &'a mut [T], n: usize) -> Self {
        let tables = n.div_ceil(2);
        let seats = 2 * tables;
        let (b, rest) = scratch.split_at_mut(seats * seats);
        let (v, rest) = rest.split_at_mut(n * n);
        let (here, rest) = rest.split_at_mut(tables);
        let (there, rest) = rest.split_at_mut(tables);
        let (sine, rest) = rest.split_at_mut(tables);
        let (tangent, rest) = rest.split_at_mut(tables);
        b.fill(T::ZERO);
        Self { n, tables, b, v, here, there, sine, tangent, line: &mut rest[..seats], norm: T::ZERO }
    }

    /// The matrix without the row of zeros.
    pub(super) fn matrix_mut(&mut self) -> Result<MatMut<'_, T>, ShapeError> {
        MatMut::with_strides(self.b, [self.n, self.n], [2 * self.tables, 1])
    }

    /// `Qᵀ`.
    pub(super) fn vectors_mut(&mut self) -> Result<MatMut<'_, T>, ShapeError> {
        MatMut::row_major(self.v, self.n, self.n)
    }

    /// `Qᵀ` and the matrix, both at once.
    pub(super) fn parts_mut(&mut self) -> Result<(MatMut<'_, T>, MatMut<'_, T>), ShapeError> {
        let v = MatMut::row_major(self.v, self.n, self.n)?;
        let b = MatMut::with_strides(self.b, [self.n, self.n], [2 * self.tables, 1])?;
        Ok((v, b))
    }

    /// The diagonal of the matrix.
    pub(super) fn diagonal(&self, d: &mut [T]) {
        let seats = 2 * self.tables;
        for (i, x) in d.iter_mut().enumerate() {
            *x = self.b[i * seats + i];
        }
    }

    /// `||offdiag||_F / ||A||_F`, with the norm found at the first call.
    ///
    /// Off-diagonal squares are summed as such. As a difference (all squares minus those of the diagonal) they
    /// would drown in rounding long before the last sweep.
    pub(super) fn off_diagonal(&mut self) -> f64 {
        let seats = 2 * self.tables;
        let (mut off, mut diagonal) = (T::ZERO, T::ZERO);
        for (i, row) in self.b.chunks_exact(seats.max(1)).enumerate() {
            let left = &row[..i];
            off += dot(left, left).unwrap_or(T::ZERO);
            diagonal += row[i] * row[i];
        }
        let off = off + off;
        if self.norm == T::ZERO {
            self.norm = (off + diagonal).sqrt();
        }
        if off == T::ZERO { 0.0 } else { (off.sqrt() / self.norm).to_f64().min(1.0) }
    }

    /// All rounds once. Whether any pair was rotated.
    pub(super) fn sweep(&mut self) -> bool {
        let mut moving = false;
        for round in 0..2 * self.tables - 1 {
            self.gather(round);
            self.angles();
            for table in 0..self.tables {
                moving |= self.play(round, table);
            }
        }
        moving
    }

    /// Which row sits in a seat. Counted along the way that rows move, seat `place` holds the row that started
    /// `round` places before it.
    fn row_in(&self, seat: usize, round: usize) -> usize {
        let (h, places) = (self.tables, 2 * self.tables - 1);
        if seat == 0 {
            return 0;
        }
        let place = if seat < h { seat - 1 } else { 3 * h - 2 - seat };
        let start = if place >= round { place - round } else { place + places - round };
        if start + 1 < h { start + 1 } else { 3 * h - 2 - start }
    }

    /// Reads the 2 x 2 problem of every table.
    fn gather(&mut self, round: usize) {
        let (h, seats) = (self.tables, 2 * self.tables);
        for table in 0..h {
            let here = self.row_in(table, round) * seats;
            let there = self.row_in(table + h, round) * seats;
            self.here[table] = self.b[here + table];
            self.there[table] = self.b[there + table + h];
            self.sine[table] = self.b[here + table + h];
        }
    }

    /// Solves them, all in one loop without branches.
    ///
    /// The smaller of the two angles that diagonalise `[[p, x], [x, r]]` has the tangent
    /// `t = sign(θ) / (|θ| + sqrt(θ² + 1))`, `θ = (r - p) / 2x`; the diagonal becomes `p - t x`, `r + t x`. Left alone
    /// when `x² <= (eps/2)² |p r|`, which changes no eigenvalue in working precision.
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

    /// Plays one table: rotates its two rows of the matrix and of `Qᵀ`, then plays all tables within the two rows
    /// and moves their columns. Whether its angle was not zero.
    fn play(&mut self, round: usize, table: usize) -> bool {
        let (h, seats) = (self.tables, 2 * self.tables);
        let (here, there) = (self.row_in(table, round), self.row_in(table + h, round));
        let (sine, tangent) = (self.sine[table], self.tangent[table]);
        let rotated = sine != T::ZERO;
        let (x, y) = two_rows(self.b, seats, here, there);
        if rotated {
            rotate(x, y, sine, tangent);
            let (x, y) = two_rows(self.v, self.n, here, there);
            rotate(x, y, sine, tangent);
        }
        for (row, mine) in [(x, true), (y, false)] {
            let (left, right) = row.split_at(h);
            let (line_left, line_right) = self.line.split_at_mut(h);
            rotate_columns([left, right], [line_left, line_right], self.sine, self.tangent);
            if rotated {
                // What these two become is known better than a rotation computes it: and exactly zero.
                line_left[table] = if mine { self.here[table] } else { T::ZERO };
                line_right[table] = if mine { T::ZERO } else { self.there[table] };
            }
            move_on(line_left, line_right, row);
        }
        rotated
    }
}

/// Rows `i` and `j` of a row-major matrix, `i != j`.
fn two_rows<T>(matrix: &mut [T], len: usize, i: usize, j: usize) -> (&mut [T], &mut [T]) {
    let (head, tail) = matrix.split_at_mut(i.max(j) * len);
    let (low, high) = (&mut head[i.min(j) * len..][..len], &mut tail[..len]);
    if i < j { (low, high) } else { (high, low) }
}

/// `(x, y) <- (c x - s y, s x + c y)` as three shears, `a = tan(φ/2)`: `x -= a y`, `y += s x`, `x -= a y`.
///
/// A shear has determinant 1 whatever the rounding of its number; orthogonality comes out twice as good as with
/// the four products.
fn rotate<T: Scalar>(x: &mut [T], y: &mut [T], s: T, a: T) {
    for (x, y) in x.iter_mut().zip(y) {
        let sheared = *x - a * *y;
        *y += s * sheared;
        *x = sheared - a * *y;
    }
}

/// [`rotate`] of one element each, with the angles of all tables.
fn rotate_columns<T: Scalar>([x, y]: [&[T]; 2], [to_x, to_y]: [&mut [T]; 2], s: &[T], a: &[T]) {
    for ((to_x, to_y), ((&x, &y), (&s, &a))) in
        to_x.iter_mut().zip(to_y).zip(x.iter().zip(y).zip(s.iter().zip(a)))
    {
        let sheared = x - a * y;
        *to_y = y + s * sheared;
        *to_x = sheared - a * *to_y;
    }
}

/// Everybody but seat 0 moves one seat on.
fn move_on<T: Copy>(left: &[T], right: &[T], row: &mut [T]) {
    let h = left.len();
    let (to_left, to_right) = row.split_at_mut(h);
    to_left[0] = left[0];
    if h == 1 {
        to_right[0] = right[0];
        return;
    }
    to_left[1] = right[0];
    to_left[2..].copy_from_slice(&left[1..h - 1]);
    to_right[..h - 1].copy_from_slice(&right[1..]);
    to_right[h - 1] = left[h - 1];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_meets_every_other_row_once_and_all_come_home() {
        for tables in 1..=8 {
            let (seats, mut scratch) = (2 * tables, [0.0_f64; 1024]);
            let tournament = Tournament::new(&mut scratch, seats);
            let mut columns: [usize; 16] = core::array::from_fn(|seat| seat);
            let mut met = [[0; 16]; 16];
            for round in 0..seats - 1 {
                for (seat, &row) in columns[..seats].iter().enumerate() {
                    assert_eq!(tournament.row_in(seat, round), row, "{tables} tables, round {round}");
                }
                for table in 0..tables {
                    let (here, there) = (columns[table], columns[table + tables]);
                    met[here.min(there)][here.max(there)] += 1;
                }
                let line = columns;
                move_on(&line[..tables], &line[tables..seats], &mut columns[..seats]);
            }
            for (i, row) in met[..seats].iter().enumerate() {
                for (j, &times) in row[..seats].iter().enumerate() {
                    assert_eq!(times, usize::from(i < j), "{tables} tables: {i} meets {j}");
                }
                assert_eq!(columns[i], i, "{tables} tables: home");
            }
        }
    }
}
