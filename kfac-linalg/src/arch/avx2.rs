//! AVX2 with FMA: 16 registers of 32 bytes.

use super::simd::{Simd, Task};
use core::arch::x86_64::*;
use core::marker::PhantomData;
use core::ops::Range;

/// Proof that the processor has AVX2 and FMA.
pub struct Avx2<T>(PhantomData<T>);

impl<T> Clone for Avx2<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Avx2<T> {}

impl<T> Avx2<T> {
    /// # Safety
    /// The processor has AVX2 and FMA.
    pub(super) unsafe fn assume() -> Self {
        Self(PhantomData)
    }
}

/// Lanes 0 to 3 plus lanes 4 to 7, and so on.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(super) unsafe fn sum_ps(a: __m256) -> f32 {
    // SAFETY: the contract.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

/// As [`sum_ps`].
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(super) unsafe fn sum_pd(a: __m256d) -> f64 {
    // SAFETY: the contract.
    unsafe {
        let two = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd::<1>(a));
        _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
    }
}

// A macro, because the two impls differ in nothing but names of instructions.
macro_rules! avx2 {
    ($float:ident, $vector:ident, $int:ident, $lanes:literal, $splat:ident, $add:ident, $sub:ident, $mul:ident,
     $div:ident, $sqrt:ident, $min:ident, $max:ident, $fmadd:ident, $fnmadd:ident, $and:ident, $xor:ident, $sum:ident, $unpack_low:ident, $unpack_high:ident, $halves:ident,
     $splat_int:ident, $greater:ident, $numbers:expr, $load:ident, $mask_load:ident, $store:ident,
     $mask_store:ident) => {
        impl Simd for Avx2<$float> {
            type Element = $float;
            type Vector = $vector;
            type Mask = __m256i;
            type Half = Self;

            const LANES: usize = $lanes;
            const TILE: [usize; 2] = [2, 6];
            const PARTIAL_SUMS: usize = Self::LANES;

            #[inline(always)]
            fn half(self) -> Self {
                self
            }

            // Not on `compiled`: there the compiler ignores the attribute. It cannot pull the instructions in here.
            #[inline(never)]
            fn vectorize<W: Task<$float>>(self, task: W) -> W::Output {
                #[target_feature(enable = "avx2,fma")]
                fn compiled<W: Task<$float>>(simd: Avx2<$float>, task: W) -> W::Output {
                    task.run(simd)
                }
                // SAFETY: `self` is the proof that the processor has the instructions.
                unsafe { compiled(self, task) }
            }

            #[inline(always)]
            fn splat(self, x: $float) -> $vector {
                // SAFETY: as in `vectorize`; this holds for all methods below.
                unsafe { $splat(x) }
            }

            #[inline(always)]
            fn add(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: see `splat`.
                unsafe { $add(a, b) }
            }

            #[inline(always)]
            fn sub(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: see `splat`.
                unsafe { $sub(a, b) }
            }

            #[inline(always)]
            fn mul(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: see `splat`.
                unsafe { $mul(a, b) }
            }

            #[inline(always)]
            fn div(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: see `splat`.
                unsafe { $div(a, b) }
            }

            #[inline(always)]
            fn sqrt(self, a: $vector) -> $vector {
                // SAFETY: see `splat`.
                unsafe { $sqrt(a) }
            }

            #[inline(always)]
            fn min(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: see `splat`.
                unsafe { $min(a, b) }
            }

            #[inline(always)]
            fn mul_add(self, a: $vector, b: $vector, c: $vector) -> $vector {
                // SAFETY: see `splat`.
                unsafe { $fmadd(a, b, c) }
            }

            #[inline(always)]
            fn neg_mul_add(self, a: $vector, b: $vector, c: $vector) -> $vector {
                // SAFETY: see `splat`.
                unsafe { $fnmadd(a, b, c) }
            }

            #[inline(always)]
            fn zip(self, a: $vector, b: $vector) -> [$vector; 2] {
                // SAFETY: see `splat`.
                unsafe { [$unpack_low(a, b), $unpack_high(a, b)] }
            }

            #[inline(always)]
            fn unzip_pieces(self, a: $vector, b: $vector) -> [$vector; 2] {
                // SAFETY: see `splat`.
                unsafe { [$halves::<0x20>(a, b), $halves::<0x31>(a, b)] }
            }

            #[inline(always)]
            fn max(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: see `splat`.
                unsafe { $max(a, b) }
            }

            #[inline(always)]
            fn flip_sign(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: see `splat`.
                unsafe { $xor(a, $and(b, $splat(-0.0))) }
            }

            #[inline(always)]
            fn sum(self, a: $vector) -> $float {
                // SAFETY: see `splat`.
                unsafe { $sum(a) }
            }

            #[inline(always)]
            fn mask(self, range: Range<usize>) -> __m256i {
                // At most `LANES`, so the casts lose nothing.
                let (start, end) = (range.start.min($lanes) as $int, range.end.min($lanes) as $int);
                // SAFETY: see `splat`.
                unsafe {
                    let (lanes, start, end) = ($numbers, $splat_int(start), $splat_int(end));
                    _mm256_andnot_si256($greater(start, lanes), $greater(end, lanes))
                }
            }

            #[inline(always)]
            unsafe fn load_ptr(self, from: *const $float) -> $vector {
                // SAFETY: see `splat`; the caller vouches for the memory.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn load_masked(self, from: *const $float, mask: __m256i) -> $vector {
                // SAFETY: see `splat`; the caller vouches for the memory.
                unsafe { $mask_load(from, mask) }
            }

            #[inline(always)]
            unsafe fn store_ptr(self, to: *mut $float, x: $vector) {
                // SAFETY: see `splat`; the caller vouches for the memory.
                unsafe { $store(to, x) }
            }

            #[inline(always)]
            unsafe fn store_masked(self, to: *mut $float, x: $vector, mask: __m256i) {
                // SAFETY: see `splat`; the caller vouches for the memory.
                unsafe { $mask_store(to, mask, x) }
            }
        }
    };
}

avx2!(
    f32,
    __m256,
    i32,
    8,
    _mm256_set1_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_div_ps,
    _mm256_sqrt_ps,
    _mm256_min_ps,
    _mm256_max_ps,
    _mm256_fmadd_ps,
    _mm256_fnmadd_ps,
    _mm256_and_ps,
    _mm256_xor_ps,
    sum_ps,
    _mm256_unpacklo_ps,
    _mm256_unpackhi_ps,
    _mm256_permute2f128_ps,
    _mm256_set1_epi32,
    _mm256_cmpgt_epi32,
    _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
    _mm256_loadu_ps,
    _mm256_maskload_ps,
    _mm256_storeu_ps,
    _mm256_maskstore_ps
);
avx2!(
    f64,
    __m256d,
    i64,
    4,
    _mm256_set1_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_mul_pd,
    _mm256_div_pd,
    _mm256_sqrt_pd,
    _mm256_min_pd,
    _mm256_max_pd,
    _mm256_fmadd_pd,
    _mm256_fnmadd_pd,
    _mm256_and_pd,
    _mm256_xor_pd,
    sum_pd,
    _mm256_unpacklo_pd,
    _mm256_unpackhi_pd,
    _mm256_permute2f128_pd,
    _mm256_set1_epi64x,
    _mm256_cmpgt_epi64,
    _mm256_setr_epi64x(0, 1, 2, 3),
    _mm256_loadu_pd,
    _mm256_maskload_pd,
    _mm256_storeu_pd,
    _mm256_maskstore_pd
);
