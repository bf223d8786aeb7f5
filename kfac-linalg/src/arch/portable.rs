//! Plain arrays: the registers of every machine. The compiler turns them into whatever vectors the target has.

use super::simd::{FROZEN_SUMS, Simd, Task};
use crate::scalar::Scalar;
use core::array;
use core::marker::PhantomData;
use core::ops::Range;

/// `L` lanes of plain arithmetic. Nothing is fused, so that [`Unfused`](super::simd::Unfused) has nothing to undo.
pub struct Portable<T, const L: usize>(PhantomData<T>);

impl<T, const L: usize> Portable<T, L> {
    /// Needs no proof.
    pub(super) const NEW: Self = Self(PhantomData);
}

impl<T, const L: usize> Clone for Portable<T, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, const L: usize> Copy for Portable<T, L> {}

impl<T: Scalar, const L: usize> Simd for Portable<T, L> {
    type Element = T;
    type Vector = [T; L];
    type Mask = (usize, usize);
    type Half = Self;

    const LANES: usize = L;
    /// Small machines have 16 or 32 scalar registers and no vectors: one row of four accumulators at a time.
    const TILE: [usize; 2] = if cfg!(target_pointer_width = "64") { [2, 4] } else { [1, 4] };
    const PARTIAL_SUMS: usize = FROZEN_SUMS;

    #[inline(always)]
    fn half(self) -> Self {
        self
    }

    #[inline(never)]
    fn vectorize<W: Task<T>>(self, task: W) -> W::Output {
        task.run(self)
    }

    #[inline(always)]
    fn splat(self, x: T) -> [T; L] {
        [x; L]
    }

    #[inline(always)]
    fn add(self, a: [T; L], b: [T; L]) -> [T; L] {
        array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(self, a: [T; L], b: [T; L]) -> [T; L] {
        array::from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn mul(self, a: [T; L], b: [T; L]) -> [T; L] {
        array::from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn div(self, a: [T; L], b: [T; L]) -> [T; L] {
        array::from_fn(|lane| a[lane] / b[lane])
    }

    #[inline(always)]
    fn sqrt(self, a: [T; L]) -> [T; L] {
        a.map(T::sqrt)
    }

    #[inline(always)]
    fn min(self, a: [T; L], b: [T; L]) -> [T; L] {
        array::from_fn(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn mul_add(self, a: [T; L], b: [T; L], c: [T; L]) -> [T; L] {
        array::from_fn(|lane| c[lane] + a[lane] * b[lane])
    }

    #[inline(always)]
    fn neg_mul_add(self, a: [T; L], b: [T; L], c: [T; L]) -> [T; L] {
        array::from_fn(|lane| c[lane] - a[lane] * b[lane])
    }

    #[inline(always)]
    fn zip(self, a: [T; L], b: [T; L]) -> [[T; L]; 2] {
        let both = |from: usize| array::from_fn(|lane| if lane % 2 == 0 { a } else { b }[from + lane / 2]);
        [both(0), both(L / 2)]
    }

    #[inline(always)]
    fn unzip_pieces(self, a: [T; L], b: [T; L]) -> [[T; L]; 2] {
        [a, b]
    }

    #[inline(always)]
    fn max(self, a: [T; L], b: [T; L]) -> [T; L] {
        array::from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn flip_sign(self, a: [T; L], b: [T; L]) -> [T; L] {
        array::from_fn(|lane| if b[lane].is_sign_negative() { -a[lane] } else { a[lane] })
    }

    #[inline(always)]
    fn sum(self, mut a: [T; L]) -> T {
        let mut half = L / 2;
        while half > 0 {
            for lane in 0..half {
                a[lane] += a[lane + half];
            }
            half /= 2;
        }
        a[0]
    }

    #[inline(always)]
    fn mask(self, range: Range<usize>) -> (usize, usize) {
        (range.start, range.end.min(L))
    }

    #[inline(always)]
    unsafe fn load_ptr(self, from: *const T) -> [T; L] {
        // SAFETY: the caller vouches for `L` numbers; an array is as aligned as its elements.
        unsafe { from.cast::<[T; L]>().read() }
    }

    #[inline(always)]
    unsafe fn load_masked(self, from: *const T, (start, end): (usize, usize)) -> [T; L] {
        let mut x = [T::ZERO; L];
        for (lane, x) in x.iter_mut().enumerate().take(end).skip(start) {
            // SAFETY: the caller vouches for the lanes of the mask.
            *x = unsafe { *from.add(lane) };
        }
        x
    }

    #[inline(always)]
    unsafe fn store_ptr(self, to: *mut T, x: [T; L]) {
        // SAFETY: the caller vouches for `L` numbers.
        unsafe { to.cast::<[T; L]>().write(x) }
    }

    #[inline(always)]
    unsafe fn store_masked(self, to: *mut T, x: [T; L], (start, end): (usize, usize)) {
        for (lane, x) in x.into_iter().enumerate().take(end).skip(start) {
            // SAFETY: the caller vouches for the lanes of the mask.
            unsafe { *to.add(lane) = x };
        }
    }
}
