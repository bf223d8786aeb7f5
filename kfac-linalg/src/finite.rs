//! Whether numbers are finite, without a branch an element.

use crate::arch::compiled::compiled_here;
use crate::arch::simd::{Simd, Task};
use crate::scalar::Scalar;
use crate::view::MatRef;

compiled_here! {
    /// Tasks that look for what is not finite.
    FiniteTasks: AllFinite<'a> -> bool,
}

/// Whether every element of a view is finite.
pub struct AllFinite<'a, T>(pub(crate) MatRef<'a, T>);

impl<T: Scalar> Task<T> for AllFinite<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd<Element = T>>(self, simd: S) -> bool {
        if self.0.shape().contains(&0) {
            return true;
        }
        // Lines of neighbours, where there are any.
        let lines = if self.0.row(0).is_some() { self.0 } else { self.0.transposed() };
        let (mut zeros, mut finite) = ([simd.zero(); 4], true);
        for i in 0..lines.rows() {
            let Some(line) = lines.row(i) else {
                finite &= (0..lines.cols()).all(|j| lines.at(i, j).is_finite());
                continue;
            };
            // Infinity and NaN times zero is NaN, and stays. Four sums, since one would wait for itself.
            let (whole, rest) = line.split_at(line.len() / (4 * S::LANES) * (4 * S::LANES));
            for four in whole.chunks_exact(4 * S::LANES) {
                for (x, zeros) in four.chunks_exact(S::LANES).zip(&mut zeros) {
                    *zeros = simd.mul_add(simd.load(x), simd.zero(), *zeros);
                }
            }
            for (x, zeros) in rest.chunks(S::LANES).zip(&mut zeros) {
                *zeros = simd.mul_add(simd.load_chunk(x), simd.zero(), *zeros);
            }
        }
        finite && zeros.iter().all(|&zeros| simd.sum(zeros) == T::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InstructionSet;

    fn every_element_is_looked_at<T: Scalar>() {
        for (set, strides) in
            InstructionSet::available().flat_map(|set| [[37, 1], [1, 41], [80, 2]].map(|s| (set, s)))
        {
            let (shape, mut data) = ([41, 37], [T::MAX; 41 * 80]);
            // Gaps are nobody's business.
            if strides[1] == 2 {
                data.iter_mut().skip(1).step_by(2).for_each(|gap| *gap = T::from_f64(f64::NAN));
            }
            let finite =
                |data: &[T]| set.run_unfused(AllFinite(MatRef::with_strides(data, shape, strides).unwrap()));
            assert!(finite(&data), "{set}, {strides:?}");
            for (i, j) in [(0, 0), (0, 36), (40, 0), (40, 36), (17, 16), (16, 17), (3, 33)] {
                for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                    let mut data = data;
                    data[i * strides[0] + j * strides[1]] = T::from_f64(bad);
                    assert!(!finite(&data), "{set}, {strides:?}, {bad} at ({i}, {j})");
                }
            }
        }
        let empty = MatRef::<T>::with_strides(&[], [usize::MAX, 0], [2, 2]).unwrap();
        assert!(InstructionSet::detect().run(AllFinite(empty)));
    }

    #[test]
    fn every_element_of_every_view_is_looked_at_and_nothing_else() {
        every_element_is_looked_at::<f32>();
        every_element_is_looked_at::<f64>();
    }
}
