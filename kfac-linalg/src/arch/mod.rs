//! Vector instructions, and the only folder where `unsafe` may stand.
//!
//! - [`simd`]: one register ([`Simd`](simd::Simd)), over `avx512`, `avx2` and `portable`;
//! - [`InstructionSet`]: which of them this processor has;
//! - [`compiled`]: which work on them is compiled once;
//! - [`product`]: the products, the one algorithm that needs raw pointers.
//!
//! `tests/shapes.rs` names the command that runs the products under valgrind.
//!
//! Without `std` nobody can be asked what the processor has: vector instructions are compiled where the target has them.
//!
//! Every other algorithm is safe code over [`Simd`](simd::Simd), packed in a [`Task`](simd::Task).
#![allow(unsafe_code)]

#[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
mod avx2;
#[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
mod avx512;
pub(crate) mod compiled;
mod instruction_set;
#[cfg(feature = "matrixmultiply")]
pub(crate) mod matrixmultiply;
mod portable;
pub(crate) mod product;
pub(crate) mod simd;

pub use instruction_set::InstructionSet;

use portable::Portable;
use simd::Simd;

/// What the kernels must know of a number type beyond its arithmetic: its registers.
///
/// Public in a private module, so that nobody else can implement [`Scalar`](crate::Scalar).
pub trait Registers: Copy {
    /// 64 bytes.
    #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
    type Avx512: Simd<Element = Self>;
    /// 32 bytes.
    #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
    type Avx2: Simd<Element = Self>;
    /// 16 bytes.
    type Portable: Simd<Element = Self>;

    /// Plain arrays.
    const PORTABLE: Self::Portable;

    /// # Safety
    /// The processor has AVX-512F and AVX-512VL.
    #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
    unsafe fn avx512() -> Self::Avx512;

    /// # Safety
    /// The processor has AVX2 and FMA.
    #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
    unsafe fn avx2() -> Self::Avx2;
}

macro_rules! registers {
    ($float:ident, $lanes:literal) => {
        impl Registers for $float {
            #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
            type Avx512 = avx512::Avx512<$float>;
            #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
            type Avx2 = avx2::Avx2<$float>;
            type Portable = Portable<$float, $lanes>;

            const PORTABLE: Self::Portable = Portable::NEW;

            #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
            #[inline]
            unsafe fn avx512() -> Self::Avx512 {
                // SAFETY: the same contract.
                unsafe { avx512::Avx512::assume() }
            }

            #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
            #[inline]
            unsafe fn avx2() -> Self::Avx2 {
                // SAFETY: the same contract.
                unsafe { avx2::Avx2::assume() }
            }
        }
    };
}

registers!(f32, 4);
registers!(f64, 2);

/// What [`Scalar`](crate::Scalar) asks of a number type.
#[cfg(not(feature = "matrixmultiply"))]
pub trait Element: Registers + product::ProductTasks {}

/// What [`Scalar`](crate::Scalar) asks of a number type.
#[cfg(feature = "matrixmultiply")]
pub trait Element: Registers + product::ProductTasks + matrixmultiply::Gemm {}

impl Element for f32 {}
impl Element for f64 {}
