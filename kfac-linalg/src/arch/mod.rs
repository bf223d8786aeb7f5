//! The kernels, and the only folder where `unsafe` may stand.
//!
//! `portable` is safe code over plain arrays. `matrixmultiply` hands checked views to that crate.

#[cfg(feature = "matrixmultiply")]
pub(crate) mod matrixmultiply;
pub(crate) mod portable;

/// What the kernels must know of a number type beyond its arithmetic.
///
/// Public in a private module, so that nobody else can implement [`Scalar`](crate::Scalar).
#[cfg(not(feature = "matrixmultiply"))]
pub trait Element {}

/// What the kernels must know of a number type beyond its arithmetic.
///
/// Public in a private module, so that nobody else can implement [`Scalar`](crate::Scalar).
#[cfg(feature = "matrixmultiply")]
pub trait Element: matrixmultiply::Gemm {}

impl Element for f32 {}
impl Element for f64 {}
