//! From the tridiagonal form to eigenvectors and eigenvalues in their order.

use super::Outcome;
use super::form_q::Triangle;
use super::reduce::Reduce;
use super::rotate::{self, Waves};
use super::sweep::{self, Diagonalise};
use crate::arch::compiled::compiled_here;
use crate::arch::simd::{Simd, Task};
use crate::eigh::order::{ascending, place};
use crate::scalar::Scalar;
use crate::storage::from_line;
use crate::view::MatMut;

compiled_here! {
    /// Tasks of this solver.
    QrTasks: Reduce<'r, 'a> -> (), Triangle<'a> -> (), Iterate<'a> -> Outcome,
}

/// From `A = Q T Qᵀ` to the eigenvectors and eigenvalues, which are sorted.
pub struct Iterate<'a, T> {
    pub(super) q: MatMut<'a, T>,
    pub(super) d: &'a mut [T],
    pub(super) e: &'a mut [T],
    pub(super) scratch: &'a mut [T],
}

impl<T: Scalar> Task<T> for Iterate<'_, T> {
    type Output = Outcome;

    #[inline(always)]
    fn run<S: Simd<Element = T>>(mut self, simd: S) -> Outcome {
        let Self { d, e, .. } = self;
        let n = d.len();
        let (strips, rest) = from_line(self.scratch).split_at_mut(rotate::strips_len(n));
        let (waves, rest) = rest.split_at_mut(rotate::waves_len(n));
        let (chain, rest) = rest.split_at_mut(sweep::chain_len(n));
        let order = &mut rest[..n];

        // Sweeps run from large elements to small ones: in the other direction they are more, and less accurate.
        let size = |d: &[T]| d.iter().fold(T::ZERO, |sum, x| sum + x.abs());
        let reversed = size(&d[n / 2..]) > size(&d[..n / 2]);
        if reversed {
            d.reverse();
            e[..n.saturating_sub(1)].reverse();
        }
        if let Some(last) = e.last_mut() {
            *last = T::ZERO;
        }
        e.iter_mut().for_each(|e| *e *= e.abs());
        rotate::copy_in(simd, &self.q.as_ref(), strips, reversed);
        let waves = Waves::new(waves, n);
        let outcome = Diagonalise { d: &mut *d, e, chain, waves, strips: &mut *strips }.run(simd);

        ascending(d, order);
        rotate::copy_out(simd, strips, order, &mut self.q);
        for (sorted, &index) in e.iter_mut().zip(&*order) {
            *sorted = d[place(index)];
        }
        d.copy_from_slice(e);
        outcome
    }
}
