//! Implicit QR on a tridiagonal matrix, without square roots on the critical path.
//!
//! A sweep with shift `σ` chases rotations down rows `lo ..= hi` (`π` is the diagonal element that a rotation meets, `c`
//! and `s` its cosine and sine). The Pal-Walker-Kahan form carries `P = π²` and `γ = c π`, the latter with the cosine of
//! the rotation before, and knows off-diagonal elements by their squares:
//!
//! ```text
//!     ρ  = P_i + e_i²                            c_i² = P_i / ρ,  s_i² = e_i² / ρ
//!     ν  = P_i (d_(i+1) - σ) - e_i² γ_i
//!     γ_(i+1) = ν / ρ,   P_(i+1) = (ν / ρ) (ν / P_i)
//!     d_i <- γ_i + (d_(i+1) - γ_(i+1)),   e_i² <- s_i² ρ_(i+1)
//! ```
//!
//! One division and four other operations follow each other per rotation; with cosines and sines on the way, as in
//! LAPACK's `steqr`, it is a square root, a division and nine others, two to three times the latency, and up to
//! `n = 256` that chain would be the largest part of a decomposition. `sterf` divides twice: `P_(i+1) = γ²/c_i²`.
//! Cosines, sines and the new elements follow in a second pass, in registers.
//!
//! `c >= 0` throughout. Signs: `s_i` has that of `e_i π_i`, the new `e_i` that of `e_i π_i π_(i+1)`, and `π_i` that of
//! `γ_i`. So the array of squares carries the signs of the elements, which the shears need and the squares do not.
//!
//! Sources: Parlett, The Symmetric Eigenvalue Problem (1998), section 8.15; LAPACK `ssterf`, `ssteqr`.

use super::reduce::smallest_square;
use super::rotate::{Companion, Waves};
use crate::arch::simd::{Simd, Task};
use crate::eigh::Outcome;
use crate::scalar::Scalar;

/// Most sweeps per row. Two are common.
const BUDGET: usize = 60;

/// Numbers beside the matrix and its rotations: `P`, `ρ` and `γ` of one sweep.
pub(super) const fn chain_len(n: usize) -> usize {
    3 * n
}

/// Diagonalises, and rotates the columns of the strips along.
pub(super) struct Diagonalise<'a, T> {
    pub(super) d: &'a mut [T],
    /// As long as `d`: squares of the off-diagonal elements, with their signs.
    pub(super) e: &'a mut [T],
    /// [`chain_len`] numbers.
    pub(super) chain: &'a mut [T],
    pub(super) waves: Waves<'a, T>,
    pub(super) strips: &'a mut [T],
}

impl<T: Scalar> Task<T> for Diagonalise<'_, T> {
    type Output = Outcome;

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) -> Outcome {
        let Self { d, e, chain, mut waves, strips } = self;
        let n = d.len();
        let (p, rest) = chain.split_at_mut(n);
        let (rho, gamma) = rest.split_at_mut(n);
        let norm_squared = d.iter().zip(&*e).fold(T::ZERO, |sum, (&d, e)| sum + d * d + e.abs() + e.abs());
        let (mut sweeps, mut left) = (0, T::ZERO);
        let mut hi = n.saturating_sub(1);
        while hi > 0 {
            if negligible(d, e, hi - 1) {
                left += e[hi - 1].abs();
                e[hi - 1] = T::ZERO;
                hi -= 1;
                continue;
            }
            if sweeps == BUDGET * n {
                break;
            }
            let mut lo = hi - 1;
            while lo > 0 && !negligible(d, e, lo - 1) {
                lo -= 1;
            }
            if lo > 0 {
                left += e[lo - 1].abs();
                e[lo - 1] = T::ZERO;
            }
            sweeps += 1;
            if hi == lo + 1 {
                pair(&mut d[lo..=hi], &mut e[lo], waves.next_sweep(simd, strips, lo..hi));
                continue;
            }
            let shift = shift(d[hi - 1], d[hi], e[hi - 1].abs());
            let (d, e) = (&mut d[lo..=hi], &mut e[lo..hi]);
            let chain = [&mut p[lo..=hi], &mut rho[lo..=hi], &mut gamma[lo..=hi]];
            let chase = waves.pass(simd, strips, Chase::new(d, e, shift, chain));
            let [p, rho, gamma] = chase.finish();
            let numbers = waves.next_sweep(simd, strips, lo..hi);
            rotations(simd, [p, rho, gamma], d, e, numbers);
            d[hi - lo] = shift + gamma[hi - lo];
        }
        waves.finish(simd, strips);
        left += e[..hi].iter().fold(T::ZERO, |sum, e| sum + e.abs());
        let off_diagonal = if left == T::ZERO { T::ZERO } else { ((left + left) / norm_squared).sqrt() };
        Outcome { sweeps: sweeps as u32, off_diagonal: off_diagonal.to_f64(), converged: hi == 0 }
    }
}

/// Whether the element between rows `i` and `i + 1` changes no eigenvalue in working precision.
#[inline(always)]
fn negligible<T: Scalar>(d: &[T], e: &[T], i: usize) -> bool {
    let half_eps = T::EPSILON / (T::ONE + T::ONE);
    e[i].abs() <= half_eps * half_eps * (d[i] * d[i + 1]).abs()
}

/// Wilkinson's: the eigenvalue of the last two rows that is nearer to the last diagonal element.
#[inline(always)]
fn shift<T: Scalar>(above: T, last: T, square: T) -> T {
    let half = (above - last) / (T::ONE + T::ONE);
    let root = (half * half + square).sqrt();
    last - square / (if half < T::ZERO { half - root } else { half + root })
}

/// The chain down the rows, step by step.
struct Chase<'m, 'c, T> {
    /// The diagonal from the second element on.
    below: &'m [T],
    e: &'m [T],
    p: &'c mut [T],
    rho: &'c mut [T],
    gamma: &'c mut [T],
    shift: T,
    /// The next row, its `P` and `γ`.
    i: usize,
    square: T,
    g: T,
}

impl<'m, 'c, T: Scalar> Chase<'m, 'c, T> {
    #[inline(always)]
    fn new(d: &'m [T], e: &'m [T], shift: T, [p, rho, gamma]: [&'c mut [T]; 3]) -> Self {
        let (len, g) = (e.len(), d[0] - shift);
        let (p, rho, gamma) = (&mut p[..=len], &mut rho[..=len], &mut gamma[..=len]);
        Self { below: &d[1..=len], e, p, rho, gamma, shift, i: 0, square: g * g, g }
    }

    /// The rest of the way. `P`, `ρ` and `γ` of all rows; the last `ρ` is `P`.
    #[inline(always)]
    fn finish(mut self) -> [&'c [T]; 3] {
        while self.i < self.e.len() {
            self.step();
        }
        let len = self.e.len();
        (self.rho[len], self.gamma[len]) = (self.square, self.g);
        [self.p, self.rho, self.gamma]
    }
}

impl<T: Scalar> Companion for Chase<'_, '_, T> {
    #[inline(always)]
    fn step(&mut self) {
        let i = self.i;
        if i == self.e.len() {
            return;
        }
        if self.square < smallest_square() {
            // A diagonal element of (almost) zero is lifted to the smallest number with a square.
            let cosine = if i == 0 { T::ONE } else { (self.p[i - 1] / self.rho[i - 1]).sqrt() };
            self.square = smallest_square();
            let lifted = cosine * self.square.sqrt();
            self.g = if self.g < T::ZERO { -lifted } else { lifted };
        }
        let e = self.e[i].abs();
        let rho = self.square + e;
        let nu = self.square * (self.below[i] - self.shift) - e * self.g;
        (self.p[i], self.rho[i], self.gamma[i]) = (self.square, rho, self.g);
        self.g = nu / rho;
        self.square = self.g * (nu / self.square);
        self.i += 1;
    }
}

/// What follows from the chain, element by element: shears, the new diagonal but for its last element, the new squares.
#[inline(always)]
fn rotations<S: Simd>(
    simd: S,
    [p, rho, gamma]: [&[S::Element]; 3],
    d: &mut [S::Element],
    e: &mut [S::Element],
    [a, s]: [&mut [S::Element]; 2],
) where
    S::Element: Scalar,
{
    let len = e.len();
    let one = simd.splat(S::Element::ONE);
    let mut i = 0;
    while i < len {
        let end = (i + S::LANES).min(len);
        let some = end - i < S::LANES;
        let load = |from: &[S::Element]| if some { simd.load_some(from) } else { simd.load(from) };
        let store = |to: &mut [S::Element], x| if some { simd.store_some(to, x) } else { simd.store(to, x) };
        let next = i + 1..end + 1;
        let (square, r, r_next) = (load(&p[i..end]), load(&rho[i..end]), load(&rho[next.clone()]));
        let (g, g_next) = (load(&gamma[i..end]), load(&gamma[next.clone()]));
        let (below, signed) = (load(&d[next]), load(&e[i..end]));
        let inverse = simd.div(one, r);
        let (cosine, sine) = (simd.mul(square, inverse), simd.mul(simd.flip_sign(signed, signed), inverse));
        let sign = simd.flip_sign(simd.flip_sign(one, signed), g);
        let root = simd.mul(simd.sqrt(sine), sign);
        store(&mut s[i..end], root);
        store(&mut a[i..end], simd.div(root, simd.add(one, simd.sqrt(cosine))));
        store(&mut d[i..end], simd.add(g, simd.sub(below, g_next)));
        store(&mut e[i..end], simd.flip_sign(simd.mul(simd.mul(sine, r_next), sign), g_next));
        i = end;
    }
}

/// Two rows at once: the rotation by the smaller of the two angles that diagonalise them.
#[inline(always)]
fn pair<T: Scalar>(d: &mut [T], e: &mut T, [a, s]: [&mut [T]; 2]) {
    let (two, x) = (T::ONE + T::ONE, e.abs().sqrt());
    let x = if *e < T::ZERO { -x } else { x };
    let theta = (d[1] - d[0]) / (two * x);
    let t = T::ONE / (theta.abs() + (theta * theta + T::ONE).sqrt());
    let t = if theta < T::ZERO { -t } else { t };
    d[0] -= t * x;
    d[1] += t * x;
    *e = T::ZERO;
    let cosine = T::ONE / (t * t + T::ONE).sqrt();
    s[0] = -t * cosine;
    a[0] = s[0] / (T::ONE + cosine);
}
