//! The moving average of the statistics.

use kfac_linalg::Scalar;

/// `ε = min(1 - 1/k, decay)`: how much of the old average the `k`-th statistic leaves, `k` counted from 1.
///
/// The first statistic is taken whole, the first `1/(1 - decay)` are averaged evenly, later ones fade out
/// exponentially: `new = ε old + (1 - ε) batch`. `k = 0` counts as 1.
///
/// # Source
/// Martens and Grosse 2015, section 5.
pub fn ramp<T: Scalar>(k: u32, decay: T) -> T {
    (T::ONE - T::ONE / T::from_usize(k.max(1) as usize)).minimum(decay)
}

#[cfg(test)]
mod tests {
    use super::ramp;

    #[test]
    fn the_ramp_is_the_plain_mean_until_it_reaches_the_decay() {
        let epsilons: [f64; 4] = [1, 2, 3, 1000].map(|k| ramp(k, 0.95));
        assert_eq!(epsilons, [0.0, 0.5, 1.0 - 1.0 / 3.0, 0.95]);
        assert_eq!(ramp(0, 0.95), 0.0);
    }
}
