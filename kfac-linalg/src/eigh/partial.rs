//! Sums across lanes whose bits do not depend on how many lanes there are.

use crate::arch::simd::{MOST_LANES, Simd};
use crate::scalar::Scalar;

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
    pub(super) fn total<S: Simd<Vector = V, Element: Scalar>>(self, simd: S) -> S::Element {
        let mut lanes = [S::Element::ZERO; MOST_LANES];
        for (sum, lanes) in self.0.iter().zip(lanes.chunks_exact_mut(S::LANES)) {
            simd.store(lanes, *sum);
        }
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                let other = lanes[lane + half];
                lanes[lane] += other;
            }
        }
        lanes[0]
    }
}
