//! Sums across lanes whose bits do not depend on how many lanes there are.

use crate::arch::simd::{MOST_LANES, Simd};

/// Sixteen partial sums, in as many registers as that takes: term `i` joins sum `i mod 16`.
pub(super) struct PartialSums<V>([V; MOST_LANES]);

impl<V: Copy> PartialSums<V> {
    /// Zero.
    #[inline(always)]
    pub(super) fn new<S: Simd<Vector = V>>(simd: S) -> Self {
        Self([simd.zero(); MOST_LANES])
    }

    /// Adds the squares of a register, number `index` of its row.
    #[inline(always)]
    pub(super) fn add_squares<S: Simd<Vector = V>>(&mut self, simd: S, index: usize, x: V) {
        let sum = &mut self.0[index % (MOST_LANES / S::LANES)];
        *sum = simd.mul_add(x, x, *sum);
    }

    /// All of them, joined in halves.
    #[inline(always)]
    pub(super) fn total<S: Simd<Vector = V>>(mut self, simd: S) -> S::Element {
        let mut registers = MOST_LANES / S::LANES;
        while registers > 1 {
            registers /= 2;
            for i in 0..registers {
                self.0[i] = simd.add(self.0[i], self.0[i + registers]);
            }
        }
        simd.sum(self.0[0])
    }
}
