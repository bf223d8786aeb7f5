//! What the processor could do at most: fused multiply-adds on registers, and nothing else.

use crate::contest::Contender;
use crate::numbers::Number;
use pulp::{Arch, Simd, WithSimd};
use std::hint::black_box;

/// Name of this contender.
pub const NAME: &str = "FMA peak";

/// Independent chains: enough to hide the latency of four or five cycles on two ports, and few enough for the sixteen
/// registers of AVX2.
const CHAINS: usize = 12;

/// `x = x a + b` in many chains.
pub trait MultiplyAdd {
    /// Does at least `flops` operations and returns a number that depends on all of them.
    fn multiply_add(arch: Arch, flops: usize) -> Self;
}

struct Chains<T> {
    flops: usize,
    factor: T,
    term: T,
}

macro_rules! multiply_add {
    ($float:ident, $lanes:ident, $splat:ident, $multiply_add:ident, $sum:ident) => {
        impl WithSimd for Chains<$float> {
            type Output = $float;

            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) -> $float {
                let (factor, term) = (simd.$splat(self.factor), simd.$splat(self.term));
                let mut chains = [simd.$splat(1.0); CHAINS];
                for _ in 0..self.flops.div_ceil(2 * CHAINS * S::$lanes) {
                    for chain in &mut chains {
                        *chain = simd.$multiply_add(*chain, factor, term);
                    }
                }
                chains.into_iter().map(|chain| simd.$sum(chain)).sum()
            }
        }

        impl MultiplyAdd for $float {
            fn multiply_add(arch: Arch, flops: usize) -> Self {
                // Converges to 2, so that no number ever becomes slow.
                let (factor, term): ($float, $float) = black_box((0.5, 1.0));
                arch.dispatch(Chains { flops, factor, term })
            }
        }
    };
}

multiply_add!(f32, F32_LANES, splat_f32s, mul_add_f32s, reduce_sum_f32s);
multiply_add!(f64, F64_LANES, splat_f64s, mul_add_f64s, reduce_sum_f64s);

/// As many operations, as fast as they go.
pub fn flops<T: Number>(flops: usize) -> Contender<'static> {
    Contender::without_result(NAME, Arch::new(), move |arch| {
        black_box(T::multiply_add(*arch, flops));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chain_converges_to_two() {
        let arch = Arch::new();
        assert_eq!(f32::multiply_add(arch, 1_000_000) % (2.0 * CHAINS as f32), 0.0);
        assert_eq!(f64::multiply_add(arch, 1_000_000) % (2.0 * CHAINS as f64), 0.0);
    }
}
