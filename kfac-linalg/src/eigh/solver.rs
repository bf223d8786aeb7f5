//! The solvers as types, for those who leave the choice to their caller.

use super::jacobi::{self, Budget};
use super::{EighError, Outcome, qr};
use crate::kernel::Kernel;
use crate::scalar::Scalar;
use crate::view::{MatMut, MatRef};

/// A solver of `A = Q diag(d) Qᵀ`: [`Qr`] or [`Jacobi`] (sealed).
///
/// A type rather than a setting, so that firmware links the one it names. The contract is one for all: the lower
/// triangle of `a` is read, eigenvalues ascend, eigenvector `j` is column `j` of `q`, errors are those of
/// [`EighError`].
pub trait Eigensolver: sealed::Sealed + Copy + Send + Sync {
    /// The method, from which the length of scratch is known in constants: `S::METHOD.scratch_len::<T>(n)`.
    const METHOD: Method;

    /// Decomposes `a`.
    ///
    /// # Shapes
    /// `a`: `n x n`; `q`: `n x n`; `d`: `n`; `scratch`: [`Method::scratch_len`].
    ///
    /// # Errors
    /// Those of [`qr::cold`] or [`jacobi::cold`].
    fn cold<T: Scalar, K: Kernel<T>>(
        self,
        kernel: K,
        a: MatRef<'_, T>,
        q: MatMut<'_, T>,
        d: &mut [T],
        scratch: &mut [T],
    ) -> Result<Outcome, EighError>;

    /// Decomposes `a`, given the eigenvectors of a matrix nearby in `q`. [`Qr`] has no use for them and starts cold.
    ///
    /// # Shapes
    /// As [`cold`](Self::cold).
    ///
    /// # Errors
    /// Those of [`qr::cold`] or [`jacobi::warm`].
    fn warm<T: Scalar, K: Kernel<T>>(
        self,
        kernel: K,
        a: MatRef<'_, T>,
        q: MatMut<'_, T>,
        d: &mut [T],
        scratch: &mut [T],
    ) -> Result<Outcome, EighError>;
}

/// The method of an [`Eigensolver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// [`jacobi`].
    Jacobi,
    /// [`qr`].
    Qr,
}

impl Method {
    /// Scratch, in elements, for an `n x n` matrix.
    #[must_use]
    pub const fn scratch_len<T: Scalar>(self, n: usize) -> usize {
        match self {
            Self::Jacobi => jacobi::scratch_len::<T>(n),
            Self::Qr => qr::scratch_len::<T>(n),
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Jacobi {}
    impl Sealed for super::Qr {}
}

/// [`jacobi`]: the smallest code, bounded work, warm starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jacobi {
    /// How long to sweep.
    pub budget: Budget,
}

impl Default for Jacobi {
    fn default() -> Self {
        Self { budget: Budget::FULL }
    }
}

impl Eigensolver for Jacobi {
    const METHOD: Method = Method::Jacobi;

    fn cold<T: Scalar, K: Kernel<T>>(
        self,
        kernel: K,
        a: MatRef<'_, T>,
        q: MatMut<'_, T>,
        d: &mut [T],
        scratch: &mut [T],
    ) -> Result<Outcome, EighError> {
        jacobi::cold(kernel, a, q, d, self.budget, scratch)
    }

    fn warm<T: Scalar, K: Kernel<T>>(
        self,
        kernel: K,
        a: MatRef<'_, T>,
        q: MatMut<'_, T>,
        d: &mut [T],
        scratch: &mut [T],
    ) -> Result<Outcome, EighError> {
        jacobi::warm(kernel, a, q, d, self.budget, scratch)
    }
}

/// [`qr`]: the fastest at every size from a cold start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Qr;

impl Eigensolver for Qr {
    const METHOD: Method = Method::Qr;

    fn cold<T: Scalar, K: Kernel<T>>(
        self,
        kernel: K,
        a: MatRef<'_, T>,
        q: MatMut<'_, T>,
        d: &mut [T],
        scratch: &mut [T],
    ) -> Result<Outcome, EighError> {
        qr::cold(kernel, a, q, d, scratch)
    }

    fn warm<T: Scalar, K: Kernel<T>>(
        self,
        kernel: K,
        a: MatRef<'_, T>,
        q: MatMut<'_, T>,
        d: &mut [T],
        scratch: &mut [T],
    ) -> Result<Outcome, EighError> {
        qr::cold(kernel, a, q, d, scratch)
    }
}
