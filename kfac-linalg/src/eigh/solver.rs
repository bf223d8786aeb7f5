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

    /// Sweeps that a plan of the work counts on, for [`Method::flops`].
    ///
    /// [`Jacobi`]: its budget, which it never exceeds. [`Qr`]: five per eigenvalue, where common matrices take less than two
    /// and none is known that takes more; its own limit is twelve times that, and a device that must not exceed its
    /// plan whatever comes uses [`Jacobi`].
    fn planned_sweeps(self, n: usize) -> u32;

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

    /// Decomposes `a`, given the eigenvectors of a matrix nearby in `q`: a solver without use for them, as [`Qr`], starts cold.
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
    ) -> Result<Outcome, EighError> {
        self.cold(kernel, a, q, d, scratch)
    }
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

    /// Flops of a decomposition of order `n` in so many sweeps, leading order.
    ///
    /// [`Jacobi`]: a sweep rotates rows, columns and eigenvectors, `n²/2` rotations of `n` pairs each, at 6 flops a pair;
    /// before the first one a warm start makes its basis orthonormal and applies it, four products. [`Qr`]: reduction and
    /// `Q`, `8/3 n³`; a sweep is `n/2` rotations of `n` pairs, since the matrix shrinks as eigenvalues are found.
    #[must_use]
    pub const fn flops(self, n: usize, sweeps: u32) -> u64 {
        let (n, sweeps) = (n as u64, sweeps as u64);
        let square = n.saturating_mul(n);
        let per_row = match self {
            Self::Jacobi => n.saturating_mul(8 + 9 * sweeps),
            Self::Qr => n.saturating_mul(3).saturating_add(3 * sweeps),
        };
        square.saturating_mul(per_row)
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

    fn planned_sweeps(self, _n: usize) -> u32 {
        self.budget.sweeps.into()
    }

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

    fn planned_sweeps(self, n: usize) -> u32 {
        u32::try_from(n.saturating_mul(5)).unwrap_or(u32::MAX)
    }

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
}
