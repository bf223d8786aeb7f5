//! Matrix kernels for second-order training: products, symmetric updates, Cholesky, eigenvectors.
//!
//! No operating system, no heap, no panic on what comes from outside. The chapters:
//!
//! - [`MatRef`], [`MatMut`], [`PackedRef`], [`PackedMut`]: views of the caller's numbers;
//! - [`Aligned`]: storage that begins on a cache line;
//! - [`product`]: [`gemm`](product::gemm), [`syrk`](product::syrk), [`gemv`](product::gemv),
//!   [`trsm`](product::trsm_lower), [`dot`](product::dot);
//! - [`cholesky`]: [`factor`](cholesky::factor), [`solve`](cholesky::solve), [`inverse`](cholesky::inverse);
//! - [`eigh`]: eigenvectors and eigenvalues of a symmetric matrix;
//! - [`shifted`]: solutions with many multiples and shifts of one matrix, without its eigenvectors.
//!
//! # Conventions
//!
//! - **Row-major first.** `row_major` is the plain constructor; a transpose or a block is another view of
//!   the same numbers, never a copy. Every routine takes every pair of strides.
//! - **Symmetric matrices** are read from their lower triangle. What happens to the other one is said by each
//!   routine. Packed storage is [rectangular full packed](PackedRef), `n(n+1)/2` numbers.
//! - **The caller owns memory.** A routine that needs room takes a last argument `scratch`, at least as long as its
//!   `const fn` says, so that a `static` array can hold it. What scratch contains before and after never matters. No length
//!   shrinks when an argument grows (where no memory is large enough it saturates), so that one buffer of the
//!   [largest length](largest_len) serves all routines on all smaller matrices. Nothing here allocates, but `AlignedVec`
//!   (feature `alloc`), products on several threads (feature `threads`), and the `matrixmultiply` crate, where
//!   [`Fast`] takes its products from it.
//! - **Failure is a value.** Wrong shapes, short scratch, a pivot that is not positive, a number that is not
//!   finite: each has a name and carries the number that went wrong. [`Error`] is any of them.
//!
//! | routine | length of its scratch |
//! |---|---|
//! | [`gemm`](product::gemm()) | [`product::gemm_scratch_len`] |
//! | [`syrk`](product::syrk()), [`syrk_lower`](product::syrk_lower) | [`product::syrk_scratch_len`] |
//! | [`trsm_lower`](product::trsm_lower), [`trsm_upper`](product::trsm_upper) | [`product::trsm_scratch_len`] |
//! | [`dot`](product::dot()), [`gemv`](product::gemv()), [`gemv_dots`](product::gemv_dots) | none |
//! | methods of `product::OnThreads` | `product::threads_gemm_scratch_len`, `product::threads_syrk_scratch_len` |
//! | [`cholesky::factor`], [`cholesky::solve`] | [`cholesky::factor_scratch_len`], [`cholesky::solve_scratch_len`] |
//! | [`cholesky::inverse`] | [`cholesky::inverse_scratch_len`] |
//! | [`jacobi::cold`](eigh::jacobi::cold), [`jacobi::warm`](eigh::jacobi::warm) | [`eigh::jacobi::scratch_len`] |
//! | [`qr::cold`](eigh::qr::cold) | [`eigh::qr::scratch_len`] |
//! | [`qr::tridiagonal`](eigh::qr::tridiagonal) | [`eigh::qr::tridiagonal_scratch_len`] |
//! | methods of [`Eigensolver`](eigh::Eigensolver) | [`Method::scratch_len`](eigh::Method::scratch_len) |
//! | [`refresh::step`](eigh::refresh::step) | [`eigh::refresh::step_scratch_len`] |
//! | [`refresh::step_or_cold`](eigh::refresh::step_or_cold) | [`eigh::refresh::step_or_cold_scratch_len`] |
//! | [`roots::inverse_root`](eigh::roots::inverse_root) | [`eigh::roots::scratch_len`] |
//! | [`shifted::solve`] | [`shifted::solve_scratch_len`] |
//!
//! # Kernels, and what is frozen
//!
//! Products take their arithmetic from a [`Kernel`], a type: [`Reproducible`] or [`Fast`].
//! Under [`Reproducible`] the bits of a result depend on the operands alone, not on the target, on its
//! register width or on the view they came through. Frozen for it, and part of the crate's version:
//!
//! - an element of a product: [`chain_len`](product::chain_len) terms at a time, one chain of multiply-adds rounded
//!   twice each ([`gemm`](product::gemm));
//! - the sixteen partial sums of [`dot`](product::dot) and the tree that joins them;
//! - the block sizes of [`cholesky`], the order of rotations in [`eigh::jacobi`];
//! - the blocks of reflectors, the partial sums and the sweeps of [`eigh::qr`];
//! - the passes, probes and thresholds of [`eigh::refresh`], the recurrence of [`shifted`], the powers of
//!   [`eigh::roots`];
//! - square roots (correctly rounded everywhere) and the transcendental functions of [`Scalar`].
//!
//! No feature changes a bit of it. [`Fast`] promises accuracy and speed; its products have the same bits on AVX2 and on
//! AVX-512, on one thread and on several.
//!
//! # Features
//!
//! - `std` (default): run-time detection of vector instructions, hardware square roots. Without it, those that the
//!   program is compiled for.
//! - `alloc` (by `std`): `AlignedVec`. No routine needs it.
//! - `threads`: `product::OnThreads`, products on several threads with the bits of one.
//! - `matrixmultiply`: [`Fast`] takes its products from that crate where there are no vector instructions of our own
//!   (aarch64, wasm); it allocates in every call.
//!
//! # Example
//!
//! The damped inverse of a second moment, `(XᵀX / k + I/10)⁻¹`, in arrays on the stack:
//!
//! ```
//! use kfac_linalg::{MatMut, MatRef, Reproducible, cholesky, largest_len, product};
//!
//! let rows = [1.0_f64, 2.0, 0.5, -1.0, 3.0, 1.0]; // three observations of two numbers
//! let mut scratch = [0.0; largest_len([
//!     product::syrk_scratch_len::<f64>(2, 3),
//!     cholesky::inverse_scratch_len::<f64>(2),
//! ])];
//! let mut a = [0.0; 4];
//!
//! let x = MatRef::row_major(&rows, 3, 2)?;
//! let third = product::Accumulate::Replace(1.0 / 3.0);
//! product::syrk_lower(Reproducible, MatMut::row_major(&mut a, 2, 2)?, third, x, &mut scratch)?;
//! (0..2).for_each(|i| a[2 * i + i] += 0.1);
//!
//! let outcome = cholesky::inverse(Reproducible, MatMut::row_major(&mut a, 2, 2)?, &mut scratch)?;
//! assert_eq!(a[1], a[2]); // the full, symmetric inverse
//! assert!(outcome.log_determinant > 0.0);
//! # Ok::<(), kfac_linalg::Error>(())
//! ```
#![no_std]
#![deny(unsafe_code, missing_docs)]

#[cfg(feature = "std")]
extern crate std;

mod arch;
pub mod cholesky;
pub mod eigh;
mod elementary;
mod error;
mod finite;
mod kernel;
mod lengths;
mod packed;
pub mod product;
mod scalar;
pub mod shifted;
mod storage;
mod tasks;
mod triangle;
mod view;

pub use arch::InstructionSet;
pub use error::{Error, Fault, ScratchError, ShapeError};
pub use kernel::{Fast, Kernel, Reproducible, ReproducibleOn};
pub use lengths::largest_len;
pub use packed::{PackedMut, PackedRef, packed_len};
pub use scalar::Scalar;
pub use storage::Aligned;
#[cfg(feature = "alloc")]
pub use storage::AlignedVec;
pub use view::{MatMut, MatRef};
