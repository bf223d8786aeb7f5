//! Lengths of sequences: how the valid positions of a layer are shared among them.
//!
//! A recurrent weight of which a case makes `T` uses has a Fisher block that depends on `T` more than linearly, so that
//! the mean length says too little. Every bin holds the weighted count of *positions* (not of cases) that belong to sequences of
//! its length: their sum is the weight of the input side, and what is a mean over cases of a sum over positions, divided
//! by the mean length, is a mean over positions.
//!
//! Lengths from 1 to [`EXACT`] have a bin each. Above, every doubling has 8 bins; a length between two of them is shared
//! so that both the number of cases and of positions stay exact. The sums that a chain takes over its lengths are piecewise
//! linear in each, with kinks beyond `EXACT`, whose terms carry a power of a correlation as large: below the rounding
//! of `f32` for `|x| < 0.77`, 4e-5 of `D` at `x = 0.95²`, 0.4 % at `x = 1`. Positions of sequences longer than
//! [`LONGEST`] count as those of a sequence of that length: where neighbours are correlated by `x`, a chain has then reached
//! its limit up to `2x / ((1 - x²) LONGEST)` of it, 0.1 % at `x = 0.95²`.

use kfac_linalg::Scalar;

/// Up to which length every one has a bin of its own.
pub const EXACT: usize = 64;

/// The length of the last bin.
pub const LONGEST: usize = EXACT << DOUBLINGS;

/// Bins of the histogram.
pub const BINS: usize = EXACT + BINS_OF_A_DOUBLING * DOUBLINGS;

const BINS_OF_A_DOUBLING: usize = 8;
const DOUBLINGS: usize = 7;

/// The length of a bin.
pub(crate) const fn length_of(bin: usize) -> usize {
    if bin < EXACT {
        return bin + 1;
    }
    let (doubling, place) = ((bin - EXACT) / BINS_OF_A_DOUBLING, (bin - EXACT) % BINS_OF_A_DOUBLING);
    (EXACT << doubling) / BINS_OF_A_DOUBLING * (BINS_OF_A_DOUBLING + 1 + place)
}

/// The first bin whose length is no smaller, or the last one.
fn bin_of(length: usize) -> usize {
    if length <= EXACT {
        return length.saturating_sub(1);
    }
    let doubling = ((length - 1) / EXACT).ilog2() as usize;
    if doubling >= DOUBLINGS {
        return BINS - 1;
    }
    let width = (EXACT << doubling) / BINS_OF_A_DOUBLING;
    let place = (length - (EXACT << doubling)).div_ceil(width) - 1;
    EXACT + doubling * BINS_OF_A_DOUBLING + place
}

/// Adds `positions` positions of sequences of one length, at least 1, to a histogram of [`BINS`].
pub(crate) fn add<T: Scalar>(histogram: &mut [T], length: usize, positions: T) {
    let upper = bin_of(length);
    let longer = length_of(upper);
    let mut into = |bin: usize, positions: T| {
        if let Some(count) = histogram.get_mut(bin) {
            *count += positions;
        }
    };
    if length >= longer {
        return into(upper, positions);
    }
    // Of one sequence, `share` counts as one of `longer` and the rest as one of `shorter` positions.
    let shorter = length_of(upper - 1);
    let ratio = |of: usize, to: usize| T::from_usize(of) / T::from_usize(to);
    let share = ratio(length - shorter, longer - shorter);
    into(upper - 1, positions * ((T::ONE - share) * ratio(shorter, length)));
    into(upper, positions * (share * ratio(longer, length)));
}

/// The share of each length, over the length: `(T, p_T / T)` with `Σ p_T = 1`, the longest first; lengths of no share are left
/// out.
///
/// # Errors
/// The sum of the counts, where it is not positive and finite.
pub(crate) fn shares<T: Scalar>(
    histogram: &[T],
) -> Result<impl Iterator<Item = (usize, T)> + Clone + '_, f64> {
    let total = histogram.iter().fold(T::ZERO, |total, &count| total + count);
    if !(total > T::ZERO && total.is_finite()) {
        return Err(total.to_f64());
    }
    let bins = histogram.iter().enumerate().rev().filter(|&(_, &count)| count > T::ZERO);
    Ok(bins.map(move |(bin, &count)| (length_of(bin), count / total / T::from_usize(length_of(bin)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_ascend_by_one_and_then_by_eighths_of_a_doubling() {
        assert_eq!((BINS, LONGEST, length_of(BINS - 1)), (120, 8192, LONGEST));
        assert_eq!([0, 1, 63, 64, 71, 72, 79, 80].map(length_of), [1, 2, 64, 72, 128, 144, 256, 288]);
        for bin in 0..BINS {
            let length = length_of(bin);
            assert_eq!(bin_of(length), bin);
            if bin + 1 < BINS {
                assert!(length < length_of(bin + 1) && bin_of(length + 1) == bin + 1, "{bin}");
            }
        }
        assert_eq!([LONGEST + 1, 10 * LONGEST, usize::MAX].map(bin_of), [BINS - 1; 3]);
    }

    #[test]
    fn positions_and_cases_are_kept_at_every_length_up_to_the_longest() {
        for length in 1..=LONGEST {
            let mut histogram = [0.0_f64; BINS];
            add(&mut histogram, length, 3.0 * length as f64);
            let positions: f64 = histogram.iter().sum();
            let cases: f64 = histogram.iter().enumerate().map(|(bin, x)| x / length_of(bin) as f64).sum();
            assert!((positions / length as f64 - 3.0).abs() < 1e-14, "{length}: {positions}");
            assert!((cases - 3.0).abs() < 1e-14, "{length}: {cases}");
            if length <= EXACT {
                assert_eq!(histogram[length - 1], 3.0 * length as f64);
            }
        }
        let mut histogram = [0.0_f64; BINS];
        add(&mut histogram, 100_000, 7.0);
        assert_eq!(histogram[BINS - 1], 7.0);
    }

    #[test]
    fn shares_add_up_to_one_and_a_histogram_of_nothing_has_none() {
        let mut histogram = [0.0_f32; BINS];
        for (length, positions) in [(2, 4.0), (1, 3.0), (9, 9.0)] {
            add(&mut histogram, length, positions);
        }
        let found: [(usize, f32); 3] = {
            let mut shares = shares(&histogram).unwrap();
            core::array::from_fn(|_| shares.next().unwrap())
        };
        assert_eq!(found, [(9, 9.0 / 16.0 / 9.0), (2, 4.0 / 16.0 / 2.0), (1, 3.0 / 16.0)]);
        assert_eq!(shares(&[0.0_f32; BINS]).err(), Some(0.0));
        histogram[3] = f32::INFINITY;
        assert_eq!(shares(&histogram).err(), Some(f64::INFINITY));
    }
}
