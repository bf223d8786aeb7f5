//! Rotations of the columns of `Q`, kept until many of them can be applied in one go.
//!
//! Sweep `p` of four rotates columns `(t - p, t - p + 1)` at step `t` of a *wavefront*, each sweep one column behind
//! the one before it. So five columns at a time are in registers: at every step one enters, four rotations meet it,
//! and one leaves that all four sweeps have passed.
//!
//! A rotation is three shears, with `a = s / (1 + c)`, `c >= 0`:
//!
//! ```text
//!     x += a y,  y -= s x,  x += a y        (x, y) <- (c x + s y, c y - s x)
//! ```
//!
//! Three multiply-adds instead of four operations, and orthogonality comes out twice as good, since a shear has
//! determinant 1 whatever the rounding of its number. Steps at which a sweep is not at work are shears by zero.
//!
//! `Q` lies in *strips* of one or two registers of rows, each column by column, so that nothing is far apart.

use crate::arch::simd::{MOST_LANES, Simd, Task, transposed};
use crate::eigh::order::place;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};
use core::ops::Range;

/// Sweeps in one wavefront.
const SWEEPS: usize = 4;

/// The most wavefronts that are applied in one pass over the strips.
const WAVEFRONTS: usize = 4;

/// Wavefronts that are applied in one pass over the strips of an `n x n` matrix: of a small one, all strips stay in the
/// nearest cache anyway. (Which sweeps form a wavefront does not depend on it, so neither do the bits.)
const fn wavefronts(n: usize) -> usize {
    if n <= 32 { 1 } else { WAVEFRONTS }
}

/// Columns of zeros on either side of a strip: a wavefront reaches so far beyond the outermost rotations.
const MARGIN: usize = SWEEPS - 1;

/// Registers of rows in a strip.
const TALL: usize = 2;

/// Steps of a wavefront over all `n` columns.
const fn steps(n: usize) -> usize {
    n + MARGIN
}

/// Numbers in the strips of an `n x n` matrix, for registers of any width.
pub(super) const fn strips_len(n: usize) -> usize {
    n.next_multiple_of(MOST_LANES) * (n + 2 * MARGIN)
}

/// Numbers in the rotations of one batch.
const fn batch_len(n: usize) -> usize {
    if n == 0 { 0 } else { wavefronts(n) * SWEEPS * 2 * steps(n) }
}

/// Numbers in the rotations of [`Waves`].
pub(super) const fn waves_len(n: usize) -> usize {
    2 * batch_len(n)
}

/// Work that can be cut into steps, to be done between those of a wavefront: a chain of operations that wait for each
/// other leaves the processor idle, and a wavefront fills it.
pub(super) trait Companion {
    /// Goes on by one step, if one is left.
    fn step(&mut self);
}

/// No work.
impl Companion for () {
    #[inline(always)]
    fn step(&mut self) {}
}

/// As many sweeps as one pass over the strips takes.
struct Batch<'a, T> {
    /// For each wavefront and sweep the numbers `a`, then the numbers `s`, by steps.
    data: &'a mut [T],
    sweeps: usize,
    /// Steps at which a wavefront does something.
    active: [Range<usize>; WAVEFRONTS],
}

impl<'a, T> Batch<'a, T> {
    fn new(data: &'a mut [T]) -> Self {
        Self { data, sweeps: 0, active: [const { 0..0 }; WAVEFRONTS] }
    }
}

/// Rotations that are not yet applied: one batch that grows, and one on its way over the strips.
pub(super) struct Waves<'a, T> {
    n: usize,
    growing: Batch<'a, T>,
    passing: Batch<'a, T>,
    /// The next wavefront of the passing batch, and the first row of the strip that it meets.
    wave: usize,
    row: usize,
}

impl<'a, T: Scalar> Waves<'a, T> {
    pub(super) fn new(data: &'a mut [T], n: usize) -> Self {
        let (growing, passing) = data.split_at_mut(batch_len(n));
        Self { n, growing: Batch::new(growing), passing: Batch::new(passing), wave: 0, row: n }
    }

    /// Room for the numbers `[a, s]` of the next sweep, whose rotations start at the given columns.
    #[inline(always)]
    pub(super) fn next_sweep<S: Simd<Element = T>>(
        &mut self,
        simd: S,
        strips: &mut [T],
        columns: Range<usize>,
    ) -> [&mut [T]; 2] {
        if self.growing.sweeps == wavefronts(self.n) * SWEEPS {
            self.turn(simd, strips);
        }
        let len = steps(self.n);
        let batch = &mut self.growing;
        let (wave, sweep) = (batch.sweeps / SWEEPS, batch.sweeps % SWEEPS);
        let range = columns.start + sweep..columns.end + sweep;
        let data = &mut batch.data[wave * SWEEPS * 2 * len..][..SWEEPS * 2 * len];
        let active = &mut batch.active[wave];
        if sweep == 0 {
            data.fill(T::ZERO);
            *active = range.clone();
        }
        *active = active.start.min(range.start)..active.end.max(range.end);
        batch.sweeps += 1;
        let (a, s) = data[sweep * 2 * len..][..2 * len].split_at_mut(len);
        [&mut a[range.clone()], &mut s[range]]
    }

    /// Sends the passing batch over the remaining strips, and the growing one after it.
    #[inline(always)]
    fn turn<S: Simd<Element = T>>(&mut self, simd: S, strips: &mut [T]) {
        while self.row < self.n {
            self.pass(simd, strips, ());
        }
        core::mem::swap(&mut self.growing, &mut self.passing);
        self.growing.sweeps = 0;
        (self.wave, self.row) = (0, 0);
    }

    /// Applies what is left.
    #[inline(always)]
    pub(super) fn finish<S: Simd<Element = T>>(&mut self, simd: S, strips: &mut [T]) {
        self.turn(simd, strips);
        self.turn(simd, strips);
    }

    /// Applies the next wavefront to the next strip, if there is one, in the company of other work.
    #[inline(always)]
    pub(super) fn pass<S: Simd<Element = T>, C: Companion>(
        &mut self,
        simd: S,
        strips: &mut [T],
        companion: C,
    ) -> C {
        if self.row >= self.n {
            return companion;
        }
        let rows = strip_rows::<S>(self.row, self.n);
        let batch = &self.passing;
        let mut companion = companion;
        if self.wave * SWEEPS < batch.sweeps {
            let (len, active) = (steps(self.n), batch.active[self.wave].clone());
            let strip = &mut strips[self.row * (self.n + 2 * MARGIN)..][active.start * rows..];
            let numbers = &batch.data[self.wave * SWEEPS * 2 * len..][..SWEEPS * 2 * len];
            companion = simd.vectorize(Wavefront { columns: strip, numbers, active, rows, companion });
            self.wave += 1;
        }
        if self.wave * SWEEPS >= batch.sweeps {
            (self.wave, self.row) = (0, self.row + rows);
        }
        companion
    }
}

/// Rows of the strip that starts at row `row`.
#[inline(always)]
fn strip_rows<S: Simd>(row: usize, n: usize) -> usize {
    if n - row > S::LANES { TALL * S::LANES } else { S::LANES }
}

/// Calls `body` with every strip: its first row, its number of rows, and its columns without the margins.
#[inline(always)]
fn for_each_strip<S: Simd>(
    strips: &mut [S::Element],
    n: usize,
    mut body: impl FnMut(usize, usize, &mut [S::Element]),
) {
    let (mut row, mut rest) = (0, strips);
    while row < n {
        let rows = strip_rows::<S>(row, n);
        let (strip, others) = rest.split_at_mut(rows * (n + 2 * MARGIN));
        body(row, rows, strip);
        row += rows;
        rest = others;
    }
}

/// One wavefront over one strip.
struct Wavefront<'w, T, C> {
    /// From the first column of the first step on.
    columns: &'w mut [T],
    /// Of all steps.
    numbers: &'w [T],
    active: Range<usize>,
    rows: usize,
    companion: C,
}

impl<T: Scalar, C: Companion> Task<T> for Wavefront<'_, T, C> {
    type Output = C;

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) -> C {
        let Self { columns, numbers, active, rows, companion } = self;
        let len = numbers.len() / (2 * SWEEPS);
        let mut slices: [&[T]; 2 * SWEEPS] = [&[]; 2 * SWEEPS];
        for (i, slice) in slices.iter_mut().enumerate() {
            *slice = &numbers[i * len..][active.clone()];
        }
        if rows == S::LANES {
            wavefront::<S, C, 1>(simd, columns, slices, companion)
        } else {
            wavefront::<S, C, TALL>(simd, columns, slices, companion)
        }
    }
}

/// One wavefront over one strip, from the first column of its first step on.
#[inline(always)]
fn wavefront<S: Simd, C: Companion, const V: usize>(
    simd: S,
    columns: &mut [S::Element],
    [a0, s0, a1, s1, a2, s2, a3, s3]: [&[S::Element]; 2 * SWEEPS],
    mut companion: C,
) -> C {
    let rows = V * S::LANES;
    let steps = a0.len();
    let (s0, a1, s1) = (&s0[..steps], &a1[..steps], &s1[..steps]);
    let (a2, s2, a3, s3) = (&a2[..steps], &s2[..steps], &a3[..steps], &s3[..steps]);
    let mut x = [[simd.zero(); V]; SWEEPS];
    for (i, x) in x.iter_mut().enumerate() {
        *x = column::<S, V>(simd, &columns[i * rows..]);
    }
    let [mut x0, mut x1, mut x2, mut x3] = x;
    for t in 0..steps {
        companion.step();
        let entering = column::<S, V>(simd, &columns[(t + SWEEPS) * rows..]);
        let (y3, y4) = shears::<S, V>(simd, x3, entering, a0[t], s0[t]);
        let (y2, y3) = shears::<S, V>(simd, x2, y3, a1[t], s1[t]);
        let (y1, y2) = shears::<S, V>(simd, x1, y2, a2[t], s2[t]);
        let (leaving, y1) = shears::<S, V>(simd, x0, y1, a3[t], s3[t]);
        store_column::<S, V>(simd, &mut columns[t * rows..], leaving);
        (x0, x1, x2, x3) = (y1, y2, y3, y4);
    }
    for (i, x) in [x0, x1, x2, x3].into_iter().enumerate() {
        store_column::<S, V>(simd, &mut columns[(steps + i) * rows..], x);
    }
    companion
}

/// One column of a strip.
#[inline(always)]
fn column<S: Simd, const V: usize>(simd: S, from: &[S::Element]) -> [S::Vector; V] {
    let (from, mut x) = (&from[..V * S::LANES], [simd.zero(); V]);
    for (v, x) in x.iter_mut().enumerate() {
        *x = simd.load(&from[v * S::LANES..]);
    }
    x
}

/// As [`column`], to write.
#[inline(always)]
fn store_column<S: Simd, const V: usize>(simd: S, to: &mut [S::Element], x: [S::Vector; V]) {
    let to = &mut to[..V * S::LANES];
    for v in 0..V {
        simd.store(&mut to[v * S::LANES..], x[v]);
    }
}

/// One rotation of two columns.
#[inline(always)]
fn shears<S: Simd, const V: usize>(
    simd: S,
    mut x: [S::Vector; V],
    mut y: [S::Vector; V],
    a: S::Element,
    s: S::Element,
) -> ([S::Vector; V], [S::Vector; V]) {
    let (a, s) = (simd.splat(a), simd.splat(s));
    for v in 0..V {
        x[v] = simd.mul_add(a, y[v], x[v]);
        y[v] = simd.neg_mul_add(s, x[v], y[v]);
        x[v] = simd.mul_add(a, y[v], x[v]);
    }
    (x, y)
}

/// Copies a matrix into strips, its columns in reverse order where the iteration runs that way.
#[inline(always)]
pub(super) fn copy_in<S: Simd<Element: Scalar>>(
    simd: S,
    q: &MatRef<'_, S::Element>,
    strips: &mut [S::Element],
    reversed: bool,
) {
    let n = q.rows();
    let place = |j: usize| if reversed { n - 1 - j } else { j };
    for_each_strip::<S>(strips, n, |first, rows, strip| {
        strip[..MARGIN * rows].fill(S::Element::ZERO);
        strip[(n + MARGIN) * rows..].fill(S::Element::ZERO);
        let strip = &mut strip[MARGIN * rows..(n + MARGIN) * rows];
        for_each_square::<S>(n, rows, |top, cols| {
            let mut square = [simd.zero(); MOST_LANES];
            for (row, x) in (first + top..n).zip(&mut square[..S::LANES]) {
                *x = match q.row(row) {
                    Some(row) => simd.load_chunk(&row[cols.clone()]),
                    None => gather(simd, cols.clone().map(|j| q.at(row, j))),
                };
            }
            for (j, x) in cols.zip(transposed(simd, square)) {
                simd.store(&mut strip[place(j) * rows + top..], x);
            }
        });
    });
}

/// Copies strips into a matrix, whose column `j` is their column `order[j]`.
#[inline(always)]
pub(super) fn copy_out<S: Simd<Element: Scalar>>(
    simd: S,
    strips: &mut [S::Element],
    order: &[S::Element],
    q: &mut MatMut<'_, S::Element>,
) {
    let n = q.rows();
    for_each_strip::<S>(strips, n, |first, rows, strip| {
        let strip = &strip[MARGIN * rows..(n + MARGIN) * rows];
        for_each_square::<S>(n, rows, |top, cols| {
            let mut square = [simd.zero(); MOST_LANES];
            for (&index, x) in order[cols.clone()].iter().zip(&mut square[..S::LANES]) {
                *x = simd.load(&strip[place(index) * rows + top..]);
            }
            for (row, x) in (first + top..n).zip(&transposed(simd, square)[..S::LANES]) {
                match q.row_mut(row) {
                    Some(row) => simd.store_chunk(&mut row[cols.clone()], *x),
                    None => {
                        let mut lanes = [S::Element::ZERO; MOST_LANES];
                        simd.store(&mut lanes, *x);
                        cols.clone().zip(lanes).for_each(|(j, x)| q.set(row, j, x));
                    }
                }
            }
        });
    });
}

/// Calls `body` with squares of one register of a strip's rows: the first of them, and the columns.
#[inline(always)]
fn for_each_square<S: Simd>(n: usize, rows: usize, mut body: impl FnMut(usize, Range<usize>)) {
    for col in (0..n).step_by(S::LANES) {
        for top in (0..rows).step_by(S::LANES) {
            body(top, col..(col + S::LANES).min(n));
        }
    }
}

/// At most a register of numbers.
#[inline(always)]
fn gather<S: Simd>(simd: S, numbers: impl Iterator<Item = S::Element>) -> S::Vector {
    let mut lanes = [S::Element::default(); MOST_LANES];
    lanes.iter_mut().zip(numbers).for_each(|(lane, x)| *lane = x);
    simd.load(&lanes)
}
