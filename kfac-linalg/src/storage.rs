//! Storage that begins on a cache line, where products are fastest.

use core::ops::{Deref, DerefMut};

/// Anything, on a boundary of 64 bytes: an array in a `static` or on the stack.
///
/// ```
/// use kfac_linalg::{Aligned, MatMut};
///
/// let mut a = Aligned([0.0_f32; 48 * 48]);
/// let view = MatMut::row_major(&mut a[..], 48, 48)?;
/// # Ok::<(), kfac_linalg::ShapeError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(align(64))]
pub struct Aligned<A>(
    /// What is stored.
    pub A,
);

impl<A> Deref for Aligned<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.0
    }
}

impl<A> DerefMut for Aligned<A> {
    fn deref_mut(&mut self) -> &mut A {
        &mut self.0
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Numbers in a cache line, at most.
pub(crate) const IN_LINE: usize = LINE / size_of::<f32>();

/// Distance between rows of `cols` numbers: they begin on cache lines, and no power of two puts all of them in the same
/// place of a cache.
pub(crate) const fn row_len(cols: usize) -> usize {
    cols.next_multiple_of(2 * IN_LINE) + IN_LINE
}

/// Scratch from its first cache line on: at most [`IN_LINE`] numbers less.
pub(crate) fn from_line<T>(scratch: &mut [T]) -> &mut [T] {
    let skipped = scratch.as_ptr().align_offset(LINE).min(IN_LINE).min(scratch.len());
    &mut scratch[skipped..]
}

#[cfg(feature = "alloc")]
pub use heap::AlignedVec;

#[cfg(feature = "alloc")]
mod heap {
    extern crate alloc;

    use super::LINE;
    use crate::scalar::Scalar;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::fmt;
    use core::ops::{Deref, DerefMut, Range};

    /// Numbers on the heap, the first one on a boundary of 64 bytes. Their count is fixed.
    pub struct AlignedVec<T> {
        /// A line longer than what is used. Never grows, so it never moves.
        data: Vec<T>,
        used: Range<usize>,
    }

    impl<T: Scalar> AlignedVec<T> {
        /// `len` zeros.
        ///
        /// # Panics
        /// As `vec!` does where no memory holds so many: "capacity overflow".
        #[must_use]
        pub fn zeros(len: usize) -> Self {
            let spare = LINE / size_of::<T>();
            let data = vec![T::ZERO; len.saturating_add(spare)];
            let start = data.as_ptr().align_offset(LINE).min(spare);
            Self { data, used: start..start + len }
        }

        /// A copy of `numbers`.
        #[must_use]
        pub fn copied(numbers: &[T]) -> Self {
            let mut copy = Self::zeros(numbers.len());
            copy.copy_from_slice(numbers);
            copy
        }
    }

    impl<T> Deref for AlignedVec<T> {
        type Target = [T];

        fn deref(&self) -> &[T] {
            &self.data[self.used.clone()]
        }
    }

    impl<T> DerefMut for AlignedVec<T> {
        fn deref_mut(&mut self) -> &mut [T] {
            &mut self.data[self.used.clone()]
        }
    }

    impl<T: Scalar> Clone for AlignedVec<T> {
        fn clone(&self) -> Self {
            Self::copied(self)
        }
    }

    impl<T: Scalar> PartialEq for AlignedVec<T> {
        fn eq(&self, other: &Self) -> bool {
            **self == **other
        }
    }

    impl<T: Scalar> fmt::Debug for AlignedVec<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            (**self).fmt(f)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_aligned<T>(numbers: &[T]) -> bool {
        numbers.as_ptr().align_offset(64) == 0
    }

    #[test]
    fn arrays_begin_on_a_cache_line() {
        static STATIC: Aligned<[f32; 3]> = Aligned([1.0; 3]);
        let local = (1_u8, Aligned([0.0_f64; 5]));
        assert!(is_aligned(&STATIC[..]) && is_aligned(&local.1[..]));
        assert_eq!(size_of::<Aligned<[f32; 16]>>(), 64);
    }

    #[cfg(feature = "alloc")]
    #[test]
    fn vectors_begin_on_a_cache_line_and_so_do_their_copies() {
        for len in [0, 1, 5, 16, 1000] {
            let mut numbers = AlignedVec::<f32>::zeros(len);
            assert!(is_aligned(&numbers) && numbers.len() == len && numbers.iter().all(|&x| x == 0.0));
            numbers.iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
            let copy = numbers.clone();
            assert!(is_aligned(&copy) && copy == numbers);
            let moved = core::convert::identity(numbers);
            assert!(is_aligned(&moved) && copy == moved);
        }
    }
}
