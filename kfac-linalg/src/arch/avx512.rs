//! AVX-512: 32 registers of 64 bytes, or of the half of them, and masks of their own.

use super::avx2;
use super::simd::{Simd, Task};
use core::arch::x86_64::*;
use core::marker::PhantomData;
use core::ops::Range;

/// Proof that the processor has AVX-512F and, for other lengths than its own, AVX-512VL.
pub struct Avx512<T, const BYTES: usize = 64>(PhantomData<T>);

impl<T, const BYTES: usize> Clone for Avx512<T, BYTES> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, const BYTES: usize> Copy for Avx512<T, BYTES> {}

impl<T, const BYTES: usize> Avx512<T, BYTES> {
    /// # Safety
    /// The processor has AVX-512F and AVX-512VL.
    pub(super) unsafe fn assume() -> Self {
        Self(PhantomData)
    }
}

/// Lanes 0 to 7 plus lanes 8 to 15, and so on.
///
/// # Safety
/// The processor has AVX-512F.
#[inline(always)]
unsafe fn sum_ps(a: __m512) -> f32 {
    // SAFETY: the contract; AVX-512F includes AVX2.
    unsafe {
        let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(a)));
        avx2::sum_ps(_mm256_add_ps(_mm512_castps512_ps256(a), high))
    }
}

/// As [`sum_ps`].
///
/// # Safety
/// The processor has AVX-512F.
#[inline(always)]
unsafe fn sum_pd(a: __m512d) -> f64 {
    // SAFETY: the contract; AVX-512F includes AVX2.
    unsafe { avx2::sum_pd(_mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd::<1>(a))) }
}

// A macro, because the impls differ in nothing but names of instructions.
macro_rules! avx512 {
    ($float:ident, $bytes:literal, $vector:ident, $mask:ident, $lanes:literal, $splat:ident, $add:ident, $sub:ident,
     $mul:ident, $div:ident, $sqrt:ident, $min:ident, $max:ident, $fmadd:ident, $fnmadd:ident, $unpack_low:ident,
     $unpack_high:ident, $pieces:ident, [$even:literal, $odd:literal], $bits:ident, $numbers:ident, $and:ident,
     $xor:ident, $sign:expr, $sum:path, $load:ident, $maskz_load:ident, $store:ident, $mask_store:ident) => {
        impl Simd for Avx512<$float, $bytes> {
            type Element = $float;
            type Vector = $vector;
            type Mask = $mask;
            type Half = Avx512<$float, 32>;

            const LANES: usize = $lanes;
            const TILE: [usize; 2] = [3, 8];
            const PARTIAL_SUMS: usize = Self::LANES;

            #[inline(always)]
            fn half(self) -> Self::Half {
                Avx512(PhantomData)
            }

            // Not on `compiled`: there the compiler ignores the attribute. It cannot pull the instructions in here.
            #[inline(never)]
            fn vectorize<W: Task<$float>>(self, task: W) -> W::Output {
                #[target_feature(enable = "avx512f,avx512vl")]
                fn compiled<W: Task<$float>>(simd: Avx512<$float, $bytes>, task: W) -> W::Output {
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
                unsafe { [$pieces::<$even>(a, b), $pieces::<$odd>(a, b)] }
            }

            #[inline(always)]
            fn max(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: see `splat`.
                unsafe { $max(a, b) }
            }

            #[inline(always)]
            fn flip_sign(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: see `splat`.
                unsafe { $numbers($xor($bits(a), $and($bits(b), $sign))) }
            }

            #[inline(always)]
            fn sum(self, a: $vector) -> $float {
                // SAFETY: see `splat`.
                unsafe { $sum(a) }
            }

            #[inline(always)]
            fn mask(self, range: Range<usize>) -> $mask {
                let below = |lanes: usize| ((1_u32 << lanes.min($lanes)) - 1) as $mask;
                below(range.end) & !below(range.start)
            }

            #[inline(always)]
            unsafe fn load_ptr(self, from: *const $float) -> $vector {
                // SAFETY: see `splat`; the caller vouches for the memory.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn load_masked(self, from: *const $float, mask: $mask) -> $vector {
                // SAFETY: see `splat`; the caller vouches for the memory.
                unsafe { $maskz_load(mask, from) }
            }

            #[inline(always)]
            unsafe fn store_ptr(self, to: *mut $float, x: $vector) {
                // SAFETY: see `splat`; the caller vouches for the memory.
                unsafe { $store(to, x) }
            }

            #[inline(always)]
            unsafe fn store_masked(self, to: *mut $float, x: $vector, mask: $mask) {
                // SAFETY: see `splat`; the caller vouches for the memory.
                unsafe { $mask_store(to, mask, x) }
            }
        }
    };
}

avx512!(
    f32,
    64,
    __m512,
    __mmask16,
    16,
    _mm512_set1_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_div_ps,
    _mm512_sqrt_ps,
    _mm512_min_ps,
    _mm512_max_ps,
    _mm512_fmadd_ps,
    _mm512_fnmadd_ps,
    _mm512_unpacklo_ps,
    _mm512_unpackhi_ps,
    _mm512_shuffle_f32x4,
    [0x88, 0xdd],
    _mm512_castps_si512,
    _mm512_castsi512_ps,
    _mm512_and_si512,
    _mm512_xor_si512,
    _mm512_set1_epi32(i32::MIN),
    sum_ps,
    _mm512_loadu_ps,
    _mm512_maskz_loadu_ps,
    _mm512_storeu_ps,
    _mm512_mask_storeu_ps
);
avx512!(
    f64,
    64,
    __m512d,
    __mmask8,
    8,
    _mm512_set1_pd,
    _mm512_add_pd,
    _mm512_sub_pd,
    _mm512_mul_pd,
    _mm512_div_pd,
    _mm512_sqrt_pd,
    _mm512_min_pd,
    _mm512_max_pd,
    _mm512_fmadd_pd,
    _mm512_fnmadd_pd,
    _mm512_unpacklo_pd,
    _mm512_unpackhi_pd,
    _mm512_shuffle_f64x2,
    [0x88, 0xdd],
    _mm512_castpd_si512,
    _mm512_castsi512_pd,
    _mm512_and_si512,
    _mm512_xor_si512,
    _mm512_set1_epi64(i64::MIN),
    sum_pd,
    _mm512_loadu_pd,
    _mm512_maskz_loadu_pd,
    _mm512_storeu_pd,
    _mm512_mask_storeu_pd
);
avx512!(
    f32,
    32,
    __m256,
    __mmask8,
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
    _mm256_unpacklo_ps,
    _mm256_unpackhi_ps,
    _mm256_permute2f128_ps,
    [0x20, 0x31],
    _mm256_castps_si256,
    _mm256_castsi256_ps,
    _mm256_and_si256,
    _mm256_xor_si256,
    _mm256_set1_epi32(i32::MIN),
    avx2::sum_ps,
    _mm256_loadu_ps,
    _mm256_maskz_loadu_ps,
    _mm256_storeu_ps,
    _mm256_mask_storeu_ps
);
avx512!(
    f64,
    32,
    __m256d,
    __mmask8,
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
    _mm256_unpacklo_pd,
    _mm256_unpackhi_pd,
    _mm256_permute2f128_pd,
    [0x20, 0x31],
    _mm256_castpd_si256,
    _mm256_castsi256_pd,
    _mm256_and_si256,
    _mm256_xor_si256,
    _mm256_set1_epi64x(i64::MIN),
    avx2::sum_pd,
    _mm256_loadu_pd,
    _mm256_maskz_loadu_pd,
    _mm256_storeu_pd,
    _mm256_mask_storeu_pd
);
