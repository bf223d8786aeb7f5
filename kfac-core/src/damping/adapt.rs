//! Levenberg-Marquardt adaptation of the damping.

use crate::error::SettingError;
use kfac_linalg::Scalar;

/// Adapts `λ` to the reduction ratio `ρ = (h(θ+δ) - h(θ)) / predicted`, once every `every` steps: `ρ > 3/4` shrinks
/// it by `ω^every`, `ρ < 1/4` grows it by the same factor, within `[floor, cap]`.
///
/// A value, to be saved beside the preconditioner's state.
///
/// # Source
/// Martens and Grosse 2015, section 6.5, arXiv:1503.05671. The floor, the cap and the test on the size of the
/// prediction are measured repairs: on noisy batches `λ` would fall to nothing, and once the difference of two
/// losses drowns in rounding it would grow without end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevenbergMarquardt<T> {
    lambda: T,
    rule: AdaptationRule<T>,
    steps: u64,
    /// A rejected step since the last adaptation counts as `ρ = -∞` at the next one.
    rejected: bool,
    /// Adaptations skipped because the predicted change was too small to judge by.
    unjudged: u32,
}

/// The constants of [`LevenbergMarquardt`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptationRule<T> {
    /// `T₁`: steps between adaptations.
    pub every: u32,
    /// `ω`, below 1: the factor for one step; an adaptation applies `ω^every`.
    pub omega: T,
    /// Smallest damping.
    pub floor: T,
    /// Largest damping.
    pub cap: T,
}

impl<T: Scalar> AdaptationRule<T> {
    /// For networks with recurrent chains: `T₁ = 2`, `ω = 0.9`, `λ` in `[1e-4, 1e6]`.
    pub fn recurrent() -> Self {
        Self { every: 2, omega: T::from_f64(0.9), floor: T::from_f64(1e-4), cap: T::from_f64(1e6) }
    }

    /// For deep feed-forward networks: `T₁ = 5`, `ω = 0.9`, `λ` in `[1e-8, 1e6]`.
    pub fn feed_forward() -> Self {
        Self { every: 5, omega: T::from_f64(0.9), floor: T::from_f64(1e-8), cap: T::from_f64(1e6) }
    }

    /// `ω^every`.
    pub fn factor(&self) -> T {
        let (mut product, mut power, mut left) = (T::ONE, self.omega, self.every);
        while left > 0 {
            if left % 2 == 1 {
                product *= power;
            }
            power *= power;
            left /= 2;
        }
        product
    }
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "a rejected step asks for the weights from before it"]
pub enum Verdict<T> {
    /// Keep the step. `ρ` is `None` where the predicted change is too small to judge by.
    Accepted {
        /// The reduction ratio.
        rho: Option<T>,
    },
    /// The loss is not finite: put the weights back from a copy.
    Rejected,
}

impl<T: Scalar> LevenbergMarquardt<T> {
    /// Below this share of `|h|` a predicted change is not judged by.
    const SMALLEST_JUDGED: f64 = 1e-5;

    /// Starts at `lambda`.
    ///
    /// # Errors
    /// [`SettingError`] where `every` is 0, `omega` is not in (0, 1), the floor is not positive, lies above the cap, or
    /// the cap is not finite, or `lambda` does not lie between the two.
    pub fn new(lambda: T, rule: AdaptationRule<T>) -> Result<Self, SettingError> {
        SettingError::unless(rule.every > 0, "every", T::from_usize(rule.every as usize))?;
        SettingError::unless(rule.omega > T::ZERO && rule.omega < T::ONE, "omega", rule.omega)?;
        SettingError::unless(rule.floor > T::ZERO && rule.floor <= rule.cap, "floor", rule.floor)?;
        SettingError::unless(rule.cap.is_finite(), "cap", rule.cap)?;
        SettingError::unless(lambda >= rule.floor && lambda <= rule.cap, "lambda", lambda)?;
        Ok(Self { lambda, rule, steps: 0, rejected: false, unjudged: 0 })
    }

    /// The damping in force.
    pub fn lambda(&self) -> T {
        self.lambda
    }

    /// Is the damping at its cap? Then the model promises what never comes true: look for a wrong scale, such as Fisher
    /// products summed over the batch instead of averaged.
    pub fn is_at_cap(&self) -> bool {
        self.lambda >= self.rule.cap
    }

    /// Adaptations that were skipped because the prediction was too small to judge by.
    pub fn unjudged(&self) -> u32 {
        self.unjudged
    }

    /// Judges a step by the loss before and after it on the batch it was computed from, and adapts `λ` when it is
    /// time. `predicted` is the change of the loss that the quadratic model promised (negative).
    pub fn judge(&mut self, predicted: T, before: T, after: T) -> Verdict<T> {
        self.steps = self.steps.saturating_add(1);
        let verdict = match reduction_ratio(predicted, before, after) {
            Ratio::NotFinite => {
                self.rejected = true;
                Verdict::Rejected
            }
            Ratio::Negligible => Verdict::Accepted { rho: None },
            Ratio::Is(rho) => Verdict::Accepted { rho: Some(rho) },
        };
        if self.steps.is_multiple_of(u64::from(self.rule.every)) {
            match verdict {
                _ if self.rejected => self.lambda = self.adapted(-T::ONE / T::ZERO),
                Verdict::Accepted { rho: Some(rho) } => self.lambda = self.adapted(rho),
                _ => self.unjudged = self.unjudged.saturating_add(1),
            }
            self.rejected = false;
        }
        verdict
    }

    /// The damping that follows `lambda` at reduction ratio `rho`; a NaN counts as `-∞`.
    pub fn adapted(&self, rho: T) -> T {
        let (upper, lower) = (T::from_f64(0.75), T::from_f64(0.25));
        let factor = self.rule.factor();
        let lambda = if rho > upper {
            self.lambda * factor
        } else if rho >= lower {
            self.lambda
        } else {
            self.lambda / factor
        };
        lambda.maximum(self.rule.floor).minimum(self.rule.cap)
    }

    /// The counters, to be saved beside `lambda`.
    pub fn progress(&self) -> Progress {
        Progress { steps: self.steps, rejected: self.rejected, unjudged: self.unjudged }
    }

    /// Continues from a saved damping and its counters.
    ///
    /// # Errors
    /// As for [`LevenbergMarquardt::new`].
    pub fn resume(&mut self, lambda: T, progress: Progress) -> Result<(), SettingError> {
        let Progress { steps, rejected, unjudged } = progress;
        *self = Self { steps, rejected, unjudged, ..Self::new(lambda, self.rule)? };
        Ok(())
    }
}

/// The counters of [`LevenbergMarquardt`], for checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Steps judged.
    pub steps: u64,
    /// Was a step rejected since the last adaptation?
    pub rejected: bool,
    /// Adaptations skipped.
    pub unjudged: u32,
}

/// `ρ = (after - before) / predicted`, where it means anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ratio<T> {
    /// The ratio.
    Is(T),
    /// The loss after the step is not finite.
    NotFinite,
    /// The predicted change is not negative, or below `1e-5 |before|`.
    Negligible,
}

/// How much of the `predicted` (negative) change of the loss came true.
pub fn reduction_ratio<T: Scalar>(predicted: T, before: T, after: T) -> Ratio<T> {
    if !after.is_finite() {
        return Ratio::NotFinite;
    }
    let smallest = T::from_f64(LevenbergMarquardt::<T>::SMALLEST_JUDGED) * before.abs();
    let judged = predicted < T::ZERO && -predicted >= smallest;
    if judged { Ratio::Is((after - before) / predicted) } else { Ratio::Negligible }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adaptation(every: u32) -> LevenbergMarquardt<f64> {
        let rule = AdaptationRule { every, omega: 0.9, floor: 1e-8, cap: 1e6 };
        LevenbergMarquardt::new(1.0, rule).unwrap()
    }

    #[test]
    fn a_good_ratio_shrinks_and_a_bad_one_grows_only_every_t1_steps() {
        let mut lm = adaptation(2);
        let lambdas =
            [(-0.5, 1.0, 0.5), (-0.5, 1.0, 0.5), (-0.5, 1.0, 0.99), (-0.5, 1.0, 0.99), (-0.5, 1.0, 0.75)]
                .map(|(predicted, before, after)| {
                    let _ = lm.judge(predicted, before, after);
                    lm.lambda()
                });
        let shrunk = 0.9 * 0.9;
        assert_eq!(lambdas, [1.0, shrunk, shrunk, shrunk / shrunk, 1.0]);
    }

    #[test]
    fn a_rejected_step_is_remembered_until_the_next_adaptation() {
        let mut lm = adaptation(3);
        assert_eq!(lm.judge(-0.5, 1.0, f64::NAN), Verdict::Rejected);
        assert_eq!(lm.judge(-0.5, 1.0, 0.5), Verdict::Accepted { rho: Some(1.0) });
        assert_eq!(lm.lambda(), 1.0);
        let _ = lm.judge(-0.5, 1.0, 0.5);
        assert_eq!(lm.lambda(), 1.0 / (0.9 * 0.9 * 0.9));
    }

    #[test]
    fn a_prediction_that_drowns_in_rounding_leaves_lambda_alone_and_is_counted() {
        let mut lm = adaptation(1);
        for predicted in [0.0, 1.0, -0.9e-5] {
            assert_eq!(lm.judge(predicted, 1.0, 0.5), Verdict::Accepted { rho: None });
        }
        assert_eq!((lm.lambda(), lm.unjudged()), (1.0, 3));
    }

    #[test]
    fn the_factor_is_the_power_of_omega_however_long_the_period() {
        for every in [1, 2, 5, 6, 7, 100] {
            let want = (0..every).fold(1.0, |product: f64, _| product * 0.9);
            let factor = adaptation(every).rule.factor();
            assert!((factor / want - 1.0).abs() < f64::from(every) * f64::EPSILON, "{every}: {factor:e}");
        }
        // A loop of a billion rounds would be felt here.
        assert_eq!([1 << 30, u32::MAX].map(|every| adaptation(every).rule.factor()), [0.0; 2]);
    }

    #[test]
    fn lambda_stays_between_floor_and_cap() {
        let rule = AdaptationRule { every: 1, omega: 0.5, floor: 0.4, cap: 1.5 };
        let lm = LevenbergMarquardt::new(1.0, rule).unwrap();
        assert_eq!([lm.adapted(0.9), lm.adapted(0.5), lm.adapted(0.0)], [0.5, 1.0, 1.5]);
        let lm = LevenbergMarquardt::new(0.5, rule).unwrap();
        assert_eq!(lm.adapted(0.9), 0.4);
    }
}
