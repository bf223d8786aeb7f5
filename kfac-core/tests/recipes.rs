//! The two recipes on numbers that can be checked by hand.

use kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt, Verdict};
use kfac_core::linalg::ShapeError;
use kfac_core::recipe::{AdaptiveStep, ClippedStep, PredictedChange};
use kfac_core::report::Preconditioned;
use kfac_core::step::{ClipError, FisherProducts, KlClip, Slopes, StepBound, heavy_ball};

#[test]
fn heavy_ball_keeps_a_share_of_the_last_step_and_goes_downhill() {
    let mut delta = [1.0, -2.0];
    heavy_ball(&mut delta, &[4.0, 8.0], 0.25, 0.5).unwrap();
    assert_eq!(delta, [0.5 - 1.0, -1.0 - 2.0]);
    let error = Err(ShapeError::new([2, 1], [1, 1]));
    assert_eq!(heavy_ball(&mut delta, &[4.0], 0.25, 0.5), error);
    assert_eq!(delta, [-0.5, -3.0]);
}

#[test]
fn the_clipped_rate_is_the_rate_times_the_clip() {
    let clipped = ClippedStep { rate: 0.5, clip: KlClip::new(0.04).unwrap() };
    let of =
        |inner: f64| clipped.rate(&Preconditioned { inner, gradient_squares: Some(1.0), stale_layers: 0 });
    // sqrt(0.04 / (0.25 * 4)) = 0.2, and beyond the clip the rate itself.
    assert!((of(4.0).unwrap() - 0.1).abs() < 1e-16);
    assert_eq!(of(0.01), Ok(0.5));
    assert_eq!(of(-1.0), Err(ClipError::NotPositive { product: -1.0 }));
    let text = "the product of gradient and preconditioned gradient is not finite: inf";
    assert_eq!(of(f64::INFINITY).unwrap_err().to_string(), text);
    let endless = ClippedStep { rate: f64::INFINITY, ..clipped };
    let zero = Preconditioned { inner: 0.0, gradient_squares: Some(0.0), stale_layers: 0 };
    assert_eq!(endless.rate(&zero), Err(ClipError::Rate { rate: f64::INFINITY }));
}

/// `½ 2 α² - 4 α` with damping 1 on `|Δ|² = 2`: curvature 4, so `α = 1`, `½ δᵀFδ = 1`.
const SLOPES: Slopes<f64> = Slopes {
    gradient_delta: -4.0,
    gradient_previous: 0.0,
    delta_delta: 2.0,
    delta_previous: 0.0,
    previous_previous: 0.0,
};
const FISHER: FisherProducts<f64> =
    FisherProducts { delta_delta: 2.0, delta_previous: 0.0, previous_previous: 0.0 };

fn damping() -> LevenbergMarquardt<f64> {
    let rule = AdaptationRule { every: 1, omega: 0.5, floor: 1e-6, cap: 1e6 };
    LevenbergMarquardt::new(1.0, rule).unwrap()
}

#[test]
fn a_step_within_the_bound_is_the_minimum_of_the_model() {
    let mut recipe = AdaptiveStep::new(damping()).with_bound(StepBound::fixed(1.5).unwrap());
    let proposal = recipe.propose(SLOPES, FISHER).unwrap();
    assert_eq!([proposal.alpha, proposal.mu, proposal.divergence], [1.0, 0.0, 1.0]);
    assert_eq!([proposal.predicted, proposal.predicted_without_damping], [-2.0, -3.0]);
}

/// Half the length is a quarter of the divergence; what is promised, and judged, is the model at the shorter step:
/// `0.25 (1 + 1) - 2`.
#[test]
fn a_step_beyond_the_bound_is_scaled_down_to_it_and_judged_by_the_shorter_step() {
    for (counted, predicted) in
        [(PredictedChange::WithDamping, -1.5), (PredictedChange::WithoutDamping, -1.75)]
    {
        let mut recipe = AdaptiveStep::new(damping()).with_bound(StepBound::fixed(0.25).unwrap());
        recipe.predicted_change = counted;
        let proposal = recipe.propose(SLOPES, FISHER).unwrap();
        assert_eq!([proposal.alpha, proposal.divergence], [0.5, 0.25]);
        assert_eq!([proposal.predicted, proposal.predicted_without_damping], [-1.5, -1.75]);
        // Half of what was promised came true.
        let verdict = recipe.judge(3.0, 3.0 + 0.5 * predicted);
        assert_eq!(verdict, Verdict::Accepted { rho: Some(0.5) }, "{counted:?}");
        assert_eq!(recipe.lambda(), 1.0);
        assert_eq!(recipe.judge(3.0, 3.0 + predicted), Verdict::Accepted { rho: Some(1.0) });
        assert_eq!(recipe.lambda(), 0.5);
    }
}

/// The bound follows the last step's ratio on the next batch, and a loss that is not finite counts as a bad one.
#[test]
fn the_bound_adapts_to_the_next_batch() {
    let mut recipe = AdaptiveStep::new(damping()).with_bound(StepBound::adaptive(0.25, [0.1, 1.0]).unwrap());
    let proposal = recipe.propose(SLOPES, FISHER).unwrap();
    let kappa = |recipe: &AdaptiveStep<f64>| recipe.bound.unwrap().kappa();
    let grown = 0.25 * 1.1;
    for (after, want) in [
        (3.0 + 0.75 * proposal.predicted, grown),
        (3.0 + 0.25 * proposal.predicted, grown),
        (3.1, grown / 1.1),
        (f64::NAN, grown / 1.1 / 1.1),
    ] {
        recipe.next_batch(3.0, after);
        assert_eq!(kappa(&recipe), want, "after {after}");
    }
}
