//! What this processor can do, and the way from there to its registers.

use super::Element;
use super::simd::Task;
#[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
use super::simd::Unfused;
use crate::arch::simd::Simd;
use core::fmt;

/// A set of vector instructions that this processor has.
///
/// A value rather than a name: only [`detect`](Self::detect) and [`available`](Self::available) make one, after asking
/// the processor (with the `std` feature) or the compiler's target (without).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionSet(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
    Avx512,
    #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
    Avx2,
    Portable,
}

impl InstructionSet {
    /// Every set, widest registers first.
    const ALL: &[Self] = &[
        #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
        Self(Level::Avx512),
        #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
        Self(Level::Avx2),
        Self(Level::Portable),
    ];

    /// The widest set of this processor.
    #[must_use]
    #[inline]
    pub fn detect() -> Self {
        Self::available().next().unwrap_or(Self(Level::Portable))
    }

    /// All sets of this processor, widest registers first. The last one is plain arrays, which every machine has.
    #[inline]
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|set| set.0.exists())
    }

    /// Whether fused multiply-adds, rounded once, are among the instructions.
    #[must_use]
    pub fn is_fused(self) -> bool {
        self.0 != Level::Portable
    }

    /// Runs a task on the registers of this set.
    #[inline]
    pub(crate) fn run<T: Element, W: Task<T>>(self, task: W) -> W::Output {
        match self.0 {
            // SAFETY: a level is a value only where the processor has the instructions.
            #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
            Level::Avx512 => unsafe { T::avx512() }.vectorize(task),
            // SAFETY: as above.
            #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
            Level::Avx2 => unsafe { T::avx2() }.vectorize(task),
            Level::Portable => T::PORTABLE.vectorize(task),
        }
    }

    /// [`run`](Self::run) with every multiply-add rounded twice.
    #[inline]
    pub(crate) fn run_unfused<T: Element, W: Task<T>>(self, task: W) -> W::Output {
        match self.0 {
            // SAFETY: as in `run`.
            #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
            Level::Avx512 => Unfused(unsafe { T::avx512() }).vectorize(task),
            // SAFETY: as in `run`.
            #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
            Level::Avx2 => Unfused(unsafe { T::avx2() }).vectorize(task),
            Level::Portable => T::PORTABLE.vectorize(task),
        }
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
            Level::Avx512 => "AVX-512",
            #[cfg(all(target_arch = "x86_64", any(feature = "std", target_feature = "avx2")))]
            Level::Avx2 => "AVX2 with FMA",
            Level::Portable => "plain arrays",
        })
    }
}

impl Level {
    /// Whether this processor has it; answered by the compiler's target where there is no operating system to ask.
    #[inline]
    fn exists(self) -> bool {
        match self {
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Self::Avx512 => {
                std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512vl")
            }
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Self::Avx2 => {
                std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
            }
            #[cfg(all(target_arch = "x86_64", target_feature = "avx2", not(feature = "std")))]
            Self::Avx512 => cfg!(all(target_feature = "avx512f", target_feature = "avx512vl")),
            #[cfg(all(target_arch = "x86_64", target_feature = "avx2", not(feature = "std")))]
            Self::Avx2 => cfg!(all(target_feature = "avx2", target_feature = "fma")),
            Self::Portable => true,
        }
    }
}
