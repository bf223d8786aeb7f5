//! The two number types, and memory for them.

use crate::peers::peak::MultiplyAdd;
use kfac_linalg::{AlignedVec, MatMut, MatRef, Scalar};
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Single or double precision, as ids and goals name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// `f32`.
    F32,
    /// `f64`.
    F64,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
        })
    }
}

/// A number that every contender can work with.
pub trait Number:
    Scalar + MultiplyAdd + faer::traits::RealField + nalgebra::RealField + ndarray::LinalgScalar
{
    /// Which of the two it is.
    const PRECISION: Precision;
}

impl Number for f32 {
    const PRECISION: Precision = Precision::F32;
}

impl Number for f64 {
    const PRECISION: Precision = Precision::F64;
}

/// Relative error that rounding explains in sums of `terms` numbers: every one of them off by half a unit.
pub fn rounding<T: Number>(terms: usize) -> f64 {
    terms as f64 * Scalar::to_f64(T::EPSILON)
}

/// Numbers that begin on a cache line, so that no contender is lucky with its memory.
pub struct Buffer<T>(AlignedVec<T>);

impl<T: Scalar> Buffer<T> {
    /// Zeros.
    pub fn zeros(len: usize) -> Self {
        Self(AlignedVec::zeros(len))
    }

    /// The nearest numbers to those given.
    pub fn nearest(numbers: &[f64]) -> Self {
        let mut buffer = Self::zeros(numbers.len());
        buffer.iter_mut().zip(numbers).for_each(|(x, &number)| *x = T::from_f64(number));
        buffer
    }

    /// As a matrix, row by row.
    ///
    /// # Panics
    /// Where the length is another.
    pub fn matrix(&self, rows: usize, cols: usize) -> MatRef<'_, T> {
        MatRef::row_major(self, rows, cols).expect("the buffer has the length of the matrix")
    }

    /// As a matrix to write, row by row.
    ///
    /// # Panics
    /// Where the length is another.
    pub fn matrix_mut(&mut self, rows: usize, cols: usize) -> MatMut<'_, T> {
        MatMut::row_major(self, rows, cols).expect("the buffer has the length of the matrix")
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_on_a_cache_line() {
        for len in [0, 1, 7, 1000] {
            let (single, double) = (Buffer::<f32>::zeros(len), Buffer::<f64>::zeros(len));
            assert_eq!((single.len(), double.len()), (len, len));
            assert_eq!(single.as_ptr().align_offset(64), 0);
            assert_eq!(double.as_ptr().align_offset(64), 0);
        }
    }
}
