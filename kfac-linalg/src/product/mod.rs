//! Products of matrices and of vectors.
//!
//! [`gemm`] multiplies two matrices, [`syrk`] and [`syrk_lower`] form the lower triangle of `XᵀX` for half the
//! flops, [`gemv`] and [`gemv_dots`] multiply a matrix and a vector, [`trsm_lower`] and [`trsm_upper`] divide by a triangle, [`dot`] multiplies two vectors.

mod dot;
mod gemm;
mod gemv;
mod syrk;
#[cfg(feature = "threads")]
mod threads;
mod trsm;

pub use dot::{dot, sum_terms};
pub use gemm::{gemm, gemm_scratch_len};
pub(crate) use gemv::VectorTasks;
pub use gemv::{gemv, gemv_dots};
pub use syrk::{syrk, syrk_lower, syrk_scratch_len};
#[cfg(feature = "threads")]
pub use threads::{OnThreads, threads_gemm_scratch_len, threads_syrk_scratch_len};
pub use trsm::{TrsmError, trsm_lower, trsm_scratch_len, trsm_upper};

use crate::error::{ScratchError, ShapeError};
use crate::scalar::Scalar;
use core::fmt;

/// Terms of one chain of multiply-adds in an element of a product of `k` terms: `k` in the fewest blocks of at most
/// 512, evenly. Frozen, see [`gemm`].
pub const fn chain_len(k: usize) -> usize {
    crate::arch::product::block_len(k)
}

/// What becomes of the result matrix, and the number that scales the product.
#[derive(Clone, Copy, Debug)]
pub enum Accumulate<T> {
    /// `C = scale A B`; `C` is not read, so it may hold anything.
    Replace(T),
    /// `C += scale A B`.
    Add(T),
}

impl<T: Scalar> Accumulate<T> {
    /// What becomes of `C` when further terms follow: they are added.
    pub(crate) fn next(self) -> Self {
        match self {
            Self::Replace(scale) | Self::Add(scale) => Self::Add(scale),
        }
    }
}

/// Why a product could not be formed. The result is untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProductError {
    /// Shapes that do not fit together.
    Shape(ShapeError),
    /// Scratch too short.
    Scratch(ScratchError),
}

impl fmt::Display for ProductError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(error) => error.fmt(f),
            Self::Scratch(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ProductError {}

impl From<ShapeError> for ProductError {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl From<ScratchError> for ProductError {
    fn from(error: ScratchError) -> Self {
        Self::Scratch(error)
    }
}
