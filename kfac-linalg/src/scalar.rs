//! The two number types, and every function of one number that the crates above need.

use core::fmt::{Debug, Display, LowerExp};
use core::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

/// `f32` or `f64` (sealed).
///
/// Every operation gives the same bits on every target: IEEE 754 fixes the four basic ones and the square
/// root; the transcendental functions are plain arithmetic of our own (`f32`, where they are used in loops) or come
/// from `libm`, never from the host, whose differ in the last bit.
pub trait Scalar:
    crate::arch::Element
    + crate::tasks::Tasks
    + Copy
    + PartialOrd
    + Default
    + Debug
    + Display
    + LowerExp
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
{
    /// `0`.
    const ZERO: Self;
    /// `1`.
    const ONE: Self;
    /// The distance from 1 to the next larger number.
    const EPSILON: Self;
    /// The largest finite number.
    const MAX: Self;
    /// The smallest positive normal number.
    const MIN_POSITIVE: Self;
    /// Bytes of one number, in memory and in [`write_le`](Self::write_le).
    const BYTES: usize;

    /// The nearest number to `x`.
    fn from_f64(x: f64) -> Self;
    /// This number, exactly.
    fn to_f64(self) -> f64;
    /// The nearest number to `n`.
    fn from_usize(n: usize) -> Self;

    /// Square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// `e` to the power of this number.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// `1 / (1 + e^-x)`, without overflow at either end.
    fn sigmoid(self) -> Self;
    /// `ln(1 + e^x)`, without overflow at either end.
    fn softplus(self) -> Self;
    /// Sine of an angle in radians.
    fn sin(self) -> Self;
    /// Cosine of an angle in radians.
    fn cos(self) -> Self;

    /// Absolute value.
    fn abs(self) -> Self;
    /// The larger of two numbers; `self` where they cannot be compared, so a NaN in `self` stays.
    fn maximum(self, other: Self) -> Self;
    /// The smaller of two numbers; `self` where they cannot be compared, so a NaN in `self` stays.
    fn minimum(self, other: Self) -> Self;
    /// Neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// Whether the sign bit is set: below zero, or `-0.0`.
    fn is_sign_negative(self) -> bool;

    /// Writes the little-endian bytes of this number.
    ///
    /// # Panics
    /// If `bytes` does not hold exactly [`BYTES`](Self::BYTES) bytes.
    fn write_le(self, bytes: &mut [u8]);
    /// Reads back what [`write_le`](Self::write_le) wrote, to the bit.
    ///
    /// # Panics
    /// If `bytes` does not hold exactly [`BYTES`](Self::BYTES) bytes.
    fn read_le(bytes: &[u8]) -> Self;
}

// A macro, because the two impls differ in nothing but names of functions, which generics cannot abstract.
macro_rules! scalar {
    ($float:ident, $sqrt:ident, $ln:ident, $sin:ident, $cos:ident, $loops:path) => {
        impl Scalar for $float {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const EPSILON: Self = $float::EPSILON;
            const MAX: Self = $float::MAX;
            const MIN_POSITIVE: Self = $float::MIN_POSITIVE;
            const BYTES: usize = size_of::<$float>();

            #[inline]
            fn from_f64(x: f64) -> Self {
                x as $float
            }

            #[inline]
            fn to_f64(self) -> f64 {
                self.into()
            }

            #[inline]
            fn from_usize(n: usize) -> Self {
                n as $float
            }

            #[inline]
            fn sqrt(self) -> Self {
                // Both are correctly rounded, so the feature moves no bit; the instruction is faster.
                #[cfg(feature = "std")]
                return $float::sqrt(self);
                #[cfg(not(feature = "std"))]
                return libm::$sqrt(self);
            }

            #[inline]
            fn exp(self) -> Self {
                use $loops as loops;
                loops::exp(self)
            }

            #[inline]
            fn ln(self) -> Self {
                libm::$ln(self)
            }

            #[inline]
            fn tanh(self) -> Self {
                use $loops as loops;
                loops::tanh(self)
            }

            #[inline]
            fn sigmoid(self) -> Self {
                use $loops as loops;
                loops::sigmoid(self)
            }

            #[inline]
            fn softplus(self) -> Self {
                use $loops as loops;
                loops::softplus(self)
            }

            #[inline]
            fn sin(self) -> Self {
                libm::$sin(self)
            }

            #[inline]
            fn cos(self) -> Self {
                libm::$cos(self)
            }

            #[inline]
            fn abs(self) -> Self {
                $float::abs(self)
            }

            #[inline]
            fn maximum(self, other: Self) -> Self {
                if other > self { other } else { self }
            }

            #[inline]
            fn minimum(self, other: Self) -> Self {
                if other < self { other } else { self }
            }

            #[inline]
            fn is_finite(self) -> bool {
                $float::is_finite(self)
            }

            #[inline]
            fn is_sign_negative(self) -> bool {
                $float::is_sign_negative(self)
            }

            #[inline]
            fn write_le(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn read_le(bytes: &[u8]) -> Self {
                let mut exact = [0; size_of::<$float>()];
                exact.copy_from_slice(bytes);
                $float::from_le_bytes(exact)
            }
        }
    };
}

scalar!(f32, sqrtf, logf, sinf, cosf, crate::elementary);
scalar!(f64, sqrt, log, sin, cos, double);

/// What `elementary` has in single precision.
mod double {
    pub(super) use libm::{exp, tanh};

    pub(super) fn sigmoid(x: f64) -> f64 {
        let decay = exp(-x.abs());
        let upper = 1.0 / (1.0 + decay);
        if x >= 0.0 { upper } else { decay * upper }
    }

    pub(super) fn softplus(x: f64) -> f64 {
        let positive = if x < 0.0 { 0.0 } else { x };
        positive + libm::log1p(exp(-x.abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_come_back<T: Scalar>() {
        for x in [0.0, -0.0, 1.5, -1e-30, f64::INFINITY] {
            let (x, mut bytes) = (T::from_f64(x), [0xff; 8]);
            x.write_le(&mut bytes[..T::BYTES]);
            let back = T::read_le(&bytes[..T::BYTES]);
            assert!(back == x && (T::ONE / back == T::ONE / x), "{x:e} came back as {back:e}");
        }
    }

    #[test]
    fn bytes_are_little_endian_and_come_back_to_the_bit() {
        bytes_come_back::<f32>();
        bytes_come_back::<f64>();
        let mut bytes = [0; 4];
        1.0_f32.write_le(&mut bytes);
        assert_eq!(bytes, [0, 0, 0x80, 0x3f]);
        assert!(f64::read_le(&f64::NAN.to_le_bytes()).is_nan());
    }

    #[test]
    fn a_nan_stays_where_it_is_compared_first() {
        assert!(Scalar::maximum(f32::NAN, 1.0).is_nan() && Scalar::minimum(f32::NAN, 1.0).is_nan());
        assert_eq!((Scalar::maximum(1.0, f64::NAN), Scalar::minimum(1.0, f64::NAN)), (1.0, 1.0));
        assert_eq!((Scalar::maximum(1.0, 2.0), Scalar::minimum(1.0, 2.0)), (2.0, 1.0));
    }
}
