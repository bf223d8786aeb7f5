//! Scaling by a power of two: squares then neither overflow nor underflow, whatever the units, and not a bit is lost.

use super::EighError;
use crate::arch::compiled::compiled_here;
use crate::arch::simd::{Simd, Task};
use crate::kernel::Kernel;
use crate::scalar::Scalar;
use crate::view::MatRef;

compiled_here! {
    /// Tasks of scaling.
    ScaleTasks: Largest<'a> -> Option<Self>,
}

/// A power of two and its inverse.
#[derive(Clone, Copy)]
pub(super) struct Scale<T> {
    pub(super) down: T,
    pub(super) up: T,
}

impl<T: Scalar> Scale<T> {
    /// The power of two that brings the largest element of the lower triangle into `[1, 2)`.
    ///
    /// Kept in the range of normal numbers on both sides, so that neither factor loses a bit: the largest element
    /// may then end in `[2, 4)`, or below 1 when it is subnormal.
    ///
    /// # Errors
    /// [`EighError::NotFinite`].
    pub(super) fn of(a: &MatRef<'_, T>) -> Result<Self, EighError> {
        let mut largest = T::ZERO;
        for row in 0..a.rows() {
            for col in 0..=row {
                let x = a.at(row, col).abs();
                if !x.is_finite() {
                    return Err(EighError::NotFinite { row, col });
                }
                largest = largest.maximum(x);
            }
        }
        Ok(Self::by(largest))
    }

    /// [`of`](Self::of), in registers where rows are neighbours.
    ///
    /// # Errors
    /// [`EighError::NotFinite`].
    pub(super) fn of_rows<K: Kernel<T>>(kernel: K, a: &MatRef<'_, T>) -> Result<Self, EighError> {
        kernel.run(Largest(*a)).map_or_else(|| Self::of(a), |largest| Ok(Self::by(largest)))
    }

    fn by(largest: T) -> Self {
        let limit = -exponent(T::MIN_POSITIVE.to_f64());
        let e = exponent(largest.to_f64()).clamp(-limit, limit);
        Self { down: T::from_f64(power_of_two(-e)), up: T::from_f64(power_of_two(e)) }
    }
}

/// The largest size of an element of the lower triangle; none where one is not finite or rows are not neighbours.
pub struct Largest<'a, T>(MatRef<'a, T>);

impl<T: Scalar> Task<T> for Largest<'_, T> {
    type Output = Option<T>;

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) -> Option<T> {
        let (mut largest, mut zeros) = (simd.zero(), simd.zero());
        for i in 0..self.0.rows() {
            let row = &self.0.row(i)?[..=i];
            for x in row.chunks(S::LANES) {
                let x = simd.load_chunk(x);
                largest = simd.max(simd.flip_sign(x, x), largest);
                // Infinity and NaN times zero is NaN, and stays.
                zeros = simd.mul_add(x, simd.zero(), zeros);
            }
        }
        let mut lanes = [T::ZERO; 16];
        simd.store(&mut lanes, largest);
        let largest = lanes.iter().fold(T::ZERO, |largest, &x| largest.maximum(x));
        (simd.sum(zeros) == T::ZERO).then_some(largest)
    }
}

/// `floor(log2 x)` of a positive normal number, from its bits; -1023 for zero and below the normal range.
fn exponent(x: f64) -> i32 {
    (x.to_bits() >> 52) as i32 - 1023
}

/// `2^e` for `e` from -1022 to 1023.
fn power_of_two(e: i32) -> f64 {
    f64::from_bits(((e + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Reproducible;

    #[test]
    fn a_scale_is_an_exact_power_of_two_and_its_inverse() {
        for x in [1.0_f32, 1.5, 3.0, 1e37, f32::MAX, 1e-30, f32::MIN_POSITIVE, 1e-44, 0.0] {
            let numbers = [-x];
            let Ok(Scale { down, up }) = Scale::of(&MatRef::row_major(&numbers, 1, 1).unwrap()) else {
                panic!("{x:e} is finite");
            };
            assert_eq!(down * up, 1.0, "{x:e}");
            assert!(
                x * down < 4.0 && (x * down >= 1.0 || x < f32::MIN_POSITIVE),
                "{x:e} becomes {:e}",
                x * down
            );
        }
    }

    #[test]
    fn registers_find_the_same_scale_and_the_same_culprit() {
        let n = 35;
        for culprit in [0.0, f64::MAX, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for at in [0, 1, 34 * 35, 34 * 35 + 34, 20 * 35 + 17] {
                let mut a = [0.5_f64; 35 * 35];
                a[at] = culprit;
                let a = MatRef::row_major(&a, n, n).unwrap();
                let (plain, fast) = (Scale::of(&a), Scale::of_rows(Reproducible, &a));
                assert_eq!(plain.map(|scale| scale.up), fast.map(|scale| scale.up), "{culprit} at {at}");
            }
        }
    }
}
