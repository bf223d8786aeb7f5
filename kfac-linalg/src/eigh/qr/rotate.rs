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
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};
use core::ops::Range;

/// Sweeps in one wavefront.
const SWEEPS: usize = 4;

/// Wavefronts that are applied in one pass over the strips.
const WAVEFRONTS: usize = 8;

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
    n.next_multiple_of(16) * (n + 2 * MARGIN)
}

/// Numbers in the rotations of [`Waves`].
pub(super) const fn waves_len(n: usize) -> usize {
    WAVEFRONTS * SWEEPS * 2 * steps(n)
}

/// Rotations of as many sweeps as one pass takes.
pub(super) struct Waves<'a, T> {
    /// For each wavefront and sweep the numbers `a`, then the numbers `s`, by steps.
    data: &'a mut [T],
    n: usize,
    sweeps: usize,
    /// Steps at which a wavefront does something.
    active: [Range<usize>; WAVEFRONTS],
}

impl<'a, T: Scalar> Waves<'a, T> {
    pub(super) fn new(data: &'a mut [T], n: usize) -> Self {
        Self { data, n, sweeps: 0, active: [const { 0..0 }; WAVEFRONTS] }
    }

    pub(super) fn is_full(&self) -> bool {
        self.sweeps == WAVEFRONTS * SWEEPS
    }

    /// Room for the numbers `[a, s]` of the next sweep, whose rotations start at the given columns.
    #[inline(always)]
    pub(super) fn next_sweep(&mut self, columns: Range<usize>) -> [&mut [T]; 2] {
        let len = steps(self.n);
        let (wave, sweep) = (self.sweeps / SWEEPS, self.sweeps % SWEEPS);
        let range = columns.start + sweep..columns.end + sweep;
        let data = &mut self.data[wave * SWEEPS * 2 * len..][..SWEEPS * 2 * len];
        if sweep == 0 {
            data.fill(T::ZERO);
            self.active[wave] = range.clone();
        }
        let active = &mut self.active[wave];
        *active = active.start.min(range.start)..active.end.max(range.end);
        self.sweeps += 1;
        let (a, s) = data[sweep * 2 * len..][..2 * len].split_at_mut(len);
        [&mut a[range.clone()], &mut s[range]]
    }

    /// Applies all rotations to the strips and forgets them.
    #[inline(always)]
    pub(super) fn apply<S: Simd<Element = T>>(&mut self, simd: S, strips: &mut [T]) {
        simd.vectorize(Apply { waves: self, strips });
        self.sweeps = 0;
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

struct Apply<'w, 'a, T> {
    waves: &'w Waves<'a, T>,
    strips: &'w mut [T],
}

impl<T: Scalar> Task<T> for Apply<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) {
        let Self { waves, strips } = self;
        let len = steps(waves.n);
        for_each_strip::<S>(strips, waves.n, |_, rows, strip| {
            for wave in 0..waves.sweeps.div_ceil(SWEEPS) {
                let active = waves.active[wave].clone();
                let numbers = &waves.data[wave * SWEEPS * 2 * len..][..SWEEPS * 2 * len];
                let numbers: [&[T]; 2 * SWEEPS] =
                    core::array::from_fn(|i| &numbers[i * len..][..len][active.clone()]);
                let columns = &mut strip[active.start * rows..];
                if rows == S::LANES {
                    wavefront::<S, 1>(simd, columns, numbers);
                } else {
                    wavefront::<S, TALL>(simd, columns, numbers);
                }
            }
        });
    }
}

/// One wavefront over one strip, from the first column of its first step on.
#[inline(always)]
fn wavefront<S: Simd, const V: usize>(
    simd: S,
    columns: &mut [S::Element],
    numbers: [&[S::Element]; 2 * SWEEPS],
) {
    let rows = V * S::LANES;
    let steps = numbers[0].len();
    let [a0, s0, a1, s1, a2, s2, a3, s3] = numbers.map(|numbers| &numbers[..steps]);
    let load = |column: &[S::Element]| {
        let mut x = [simd.zero(); V];
        for (v, x) in x.iter_mut().enumerate() {
            *x = simd.load(&column[v * S::LANES..]);
        }
        x
    };
    let store = |column: &mut [S::Element], x: [S::Vector; V]| {
        for (v, x) in x.into_iter().enumerate() {
            simd.store(&mut column[v * S::LANES..], x);
        }
    };
    let shear = |x: [S::Vector; V], y: [S::Vector; V], a: S::Element, s: S::Element| {
        let (mut x, mut y, a, s) = (x, y, simd.splat(a), simd.splat(s));
        for v in 0..V {
            x[v] = simd.mul_add(a, y[v], x[v]);
            y[v] = simd.neg_mul_add(s, x[v], y[v]);
            x[v] = simd.mul_add(a, y[v], x[v]);
        }
        (x, y)
    };
    let (mut x0, mut x1) = (load(columns), load(&columns[rows..]));
    let (mut x2, mut x3) = (load(&columns[2 * rows..]), load(&columns[3 * rows..]));
    for t in 0..steps {
        let entering = load(&columns[(t + SWEEPS) * rows..][..rows]);
        let (y3, y4) = shear(x3, entering, a0[t], s0[t]);
        let (y2, y3) = shear(x2, y3, a1[t], s1[t]);
        let (y1, y2) = shear(x1, y2, a2[t], s2[t]);
        let (leaving, y1) = shear(x0, y1, a3[t], s3[t]);
        store(&mut columns[t * rows..][..rows], leaving);
        (x0, x1, x2, x3) = (y1, y2, y3, y4);
    }
    let columns = &mut columns[steps * rows..];
    store(columns, x0);
    store(&mut columns[rows..], x1);
    store(&mut columns[2 * rows..], x2);
    store(&mut columns[3 * rows..], x3);
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
                    Some(row) => load(simd, &row[cols.clone()]),
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
            for (index, x) in order[cols.clone()].iter().zip(&mut square[..S::LANES]) {
                *x = simd.load(&strip[index.to_f64() as usize * rows + top..]);
            }
            for (row, x) in (first + top..n).zip(&transposed(simd, square)[..S::LANES]) {
                match q.row_mut(row) {
                    Some(row) => store(simd, &mut row[cols.clone()], *x),
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

/// At most a register of neighbours.
#[inline(always)]
fn load<S: Simd>(simd: S, from: &[S::Element]) -> S::Vector {
    if from.len() == S::LANES { simd.load(from) } else { simd.load_some(from) }
}

/// At most a register of neighbours.
#[inline(always)]
fn store<S: Simd>(simd: S, to: &mut [S::Element], x: S::Vector) {
    if to.len() == S::LANES { simd.store(to, x) } else { simd.store_some(to, x) }
}

/// At most a register of numbers.
#[inline(always)]
fn gather<S: Simd>(simd: S, numbers: impl Iterator<Item = S::Element>) -> S::Vector {
    let mut lanes = [S::Element::default(); MOST_LANES];
    lanes.iter_mut().zip(numbers).for_each(|(lane, x)| *lane = x);
    simd.load(&lanes)
}
