use crate::statistics::lengths;
use core::iter::once;
use kfac_linalg::Scalar;

/// `D(x) = T + 2 Σ_{0<d<T} (T - d) x^d = Σ_{s,t=1..T} x^|s-t|`: what `T` steps of a chain add up to along a direction in which
/// neighbours are correlated by `x`.
///
/// By Horner's rule. The closed form, a quotient by `(1 - x)²`, loses every digit as `x` comes near 1. The
/// work is that of `T` steps, fewer where `x^d` falls below all rounding.
///
/// # Units
/// `T²` at `x = 1`, `T` at `x = 0`, next to nothing at `x = -1`; negative at no `x >= -1`, but for rounding.
/// # Source
/// Martens, Ba and Johnson 2018 (ICLR), option 1.
///
/// ```
/// use kfac_core::map::chain::chain_weight;
/// assert_eq!([1.0, 0.0, -1.0].map(|x| chain_weight(4, x)), [16.0, 4.0, 0.0]);
/// assert_eq!(chain_weight(3, 0.5), 3.0 + 2.0 * (2.0 * 0.5 + 1.0 * 0.25));
/// ```
pub fn chain_weight<T: Scalar>(length: usize, x: T) -> T {
    let (mut weight, mut at) = ([T::ZERO], [x]);
    mean_weights(once((length, T::ONE)), &mut at, &mut weight);
    weight[0]
}

/// The same for a [mean over positions](lengths::shares) of `D(x) / T`: for `x` in `ψ_G ψ_Aᵀ`, row by row.
///
/// `row`: a number for each of `psi_a`. `weights`: one for each product, row-major.
///
/// # Errors
/// The sum of the histogram, where it is not positive and finite.
pub(super) fn write_mean_weights<T: Scalar>(
    histogram: &[T],
    [psi_g, psi_a]: [&[T]; 2],
    row: &mut [T],
    weights: &mut [T],
) -> Result<(), f64> {
    let shares = lengths::shares(histogram)?;
    for (weights, &g) in weights.chunks_exact_mut(psi_a.len()).zip(psi_g) {
        row.iter_mut().zip(psi_a).for_each(|(x, &a)| *x = g * a);
        mean_weights(shares.clone(), row, weights);
    }
    Ok(())
}

/// `Σ_T q_T D_T(x)` for `(T, q_T)` with `T` descending.
///
/// The coefficient of `x^d`, twice `c_d = Σ_{T>d} q_T (T - d)`, is linear in `d` between two lengths.
fn mean_weights<T: Scalar>(lengths: impl Iterator<Item = (usize, T)>, x: &mut [T], weights: &mut [T]) {
    let reach = reach(x);
    weights.fill(T::ZERO);
    // `c` at the last length, and `Σ q` of those that were met.
    let (mut level, mut slope) = (T::ZERO, T::ZERO);
    let mut lengths = lengths.peekable();
    while let Some((length, share)) = lengths.next() {
        slope += share;
        let next = lengths.peek().map_or(0, |&(next, _)| next);
        let c = |d: usize| level + slope * T::from_usize(length - d);
        for d in (next.max(1)..length.min(reach)).rev() {
            let coefficient = c(d) + c(d);
            weights.iter_mut().zip(&*x).for_each(|(w, &x)| *w = *w * x + coefficient);
        }
        level = c(next);
    }
    weights.iter_mut().zip(&*x).for_each(|(w, &x)| *w = *w * x + level);
}

/// From which `d` on all `x^d` are below the square of the rounding, which no sum here tells from 0.
fn reach<T: Scalar>(x: &[T]) -> usize {
    let largest = x.iter().fold(T::ZERO, |most, x| most.maximum(x.abs()));
    let (mut d, mut power) = (0, T::ONE);
    while power > T::EPSILON * T::EPSILON {
        if d > lengths::LONGEST {
            return usize::MAX;
        }
        power *= largest;
        d += 1;
    }
    d
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is defined, over all pairs.
    fn over_pairs(length: usize, x: f64) -> f64 {
        let pairs = (0..length).flat_map(|s| (0..length).map(move |t| s.abs_diff(t)));
        pairs.map(|distance| (0..distance).fold(1.0, |power, _| power * x)).sum()
    }

    #[test]
    fn the_weight_is_the_sum_over_all_pairs_of_steps() {
        for length in [1, 2, 3, 7, 12, 40] {
            for x in [-1.0, -0.9, -0.3, 0.0, 1e-9, 0.5, 0.95, 1.0] {
                let (found, want) = (chain_weight(length, x), over_pairs(length, x));
                let size = over_pairs(length, x.abs());
                assert!((found - want).abs() <= 1e-14 * size, "{length} steps, {x}: {found} {want}");
            }
        }
        assert_eq!(chain_weight(0, 0.5), 0.0);
    }

    /// 2, 9 and 100 steps; the last one lies between bins.
    #[test]
    fn mean_weights_are_means_over_positions_of_the_weight_over_the_length() {
        let mut histogram = [0.0_f64; lengths::BINS];
        let cases = [(2, 3.0), (9, 1.5), (100, 0.25)];
        for (length, count) in cases {
            lengths::add(&mut histogram, length, count * length as f64);
        }
        let (psi_g, psi_a) = ([0.3, -0.8], [0.9, -0.5, 0.7]);
        let mut weights = [0.0; 6];
        write_mean_weights(&histogram, [&psi_g, &psi_a], &mut [0.0; 3], &mut weights).unwrap();
        let positions: f64 = cases.iter().map(|(length, count)| *length as f64 * count).sum();
        for (at, found) in weights.into_iter().enumerate() {
            let x = psi_g[at / 3] * psi_a[at % 3];
            let sum: f64 = cases.iter().map(|(length, count)| count * over_pairs(*length, x)).sum();
            assert!((found / (sum / positions) - 1.0).abs() < 1e-13, "{x}: {found} {}", sum / positions);
        }
    }

    /// What sharing a length between two bins costs, at the worst place of each.
    #[test]
    fn lengths_between_two_bins_err_by_as_little_as_is_said() {
        let error = |length: usize, x: f64| {
            let mut histogram = [0.0_f64; lengths::BINS];
            lengths::add(&mut histogram, length, length as f64);
            let mut found = [0.0];
            write_mean_weights(&histogram, [&[1.0], &[x]], &mut [0.0], &mut found).unwrap();
            (found[0] * length as f64 / chain_weight(length, x) - 1.0).abs()
        };
        for length in [65, 68, 70, 76, 100, 136, 200, 272, 1000, 1100, 3000, 8000] {
            assert!(error(length, 0.77) < f64::from(f32::EPSILON), "{length}");
            assert!(error(length, 0.9025) < 4e-5, "{length}: {:e}", error(length, 0.9025));
            assert!(error(length, 1.0) < 4e-3, "{length}: {:e}", error(length, 1.0));
        }
        assert!(error(68, 1.0) > 3e-3);
        // Longer than the longest: nearly the limit (1 + x) / (1 - x).
        assert!(error(100_000, 0.9025) < 1.3e-3);
    }
}
