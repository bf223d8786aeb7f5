//! Settings out of their range, losses that are no numbers, and how errors read.

mod common;

use common::Room;
use common::bad::shape_error;
use common::run::NET;
use kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt, Verdict};
use kfac_core::error::{Quantity, SettingError};
use kfac_core::linalg::Reproducible;
use kfac_core::linalg::cholesky::CholeskyError;
use kfac_core::map::{Factored, MapError};
use kfac_core::schedule::Schedule;
use kfac_core::shape::Side;
use kfac_core::step::{KlClip, StepBound};
use kfac_core::{LayerError, LayerErrorKind, Preconditioner};

#[test]
fn settings_out_of_range_are_refused_with_their_name_and_value() {
    let new = |room: &mut Room<f64>, set: &dyn Fn(Kfac<'_>) -> Result<(), SettingError>| {
        set(room.precondition(&NET, Factored, Reproducible).0)
    };
    let mut room = Room::new::<Factored, Reproducible>(&NET);
    let mut refused = |setting, value: f64, set: &dyn Fn(Kfac<'_>) -> Result<(), SettingError>| {
        let error = new(&mut room, set).unwrap_err();
        assert_eq!((error.setting, error.value.to_bits()), (setting, value.to_bits()));
    };
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused("damping", bad, &|mut kfac| kfac.set_damping(bad));
    }
    for bad in [1.0, -0.1, f64::NAN] {
        refused("decay", bad, &|kfac| kfac.with_decay(bad).map(|_| ()));
    }
    for bad in [-1e-3, f64::NAN, f64::INFINITY] {
        refused("l2", bad, &|kfac| kfac.with_l2(bad).map(|_| ()));
    }
    for (setting, statistics_every, refresh_every) in [("statistics_every", 0, 1), ("refresh_every", 1, 0)] {
        let schedule = Schedule { statistics_every, refresh_every };
        refused(setting, 0.0, &|kfac| kfac.with_schedule(schedule).map(|_| ()));
    }
    for bad in [0.0, -1.0, f64::NAN] {
        refused("kappa", bad, &|_| KlClip::new(bad).map(|_| ()));
        refused("lambda", bad, &|_| LevenbergMarquardt::new(bad, AdaptationRule::feed_forward()).map(|_| ()));
        refused("floor of the step bound", bad, &|_| StepBound::adaptive(0.1, [bad, 1.0]).map(|_| ()));
    }
    for bad in [0.9e-8, 1.1e6, f64::INFINITY] {
        refused("lambda", bad, &|_| LevenbergMarquardt::new(bad, AdaptationRule::feed_forward()).map(|_| ()));
    }
    let text = SettingError { setting: "decay", value: 1.0 }.to_string();
    assert_eq!(text, "decay is out of its range at 1e0");
}

type Kfac<'r> = Preconditioner<'r, f64, Factored, Reproducible>;

#[test]
fn a_loss_that_is_not_finite_rejects_the_step() {
    for after in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut damping = LevenbergMarquardt::new(1.0, AdaptationRule::feed_forward()).unwrap();
        assert_eq!(damping.judge(-0.1, 1.0, after), Verdict::Rejected, "{after}");
    }
}

#[test]
fn errors_read_as_sentences_with_the_layer_and_the_number() {
    let at = |layer, kind| LayerError { layer, kind }.to_string();
    let quantity = Quantity::OutputGradients;
    assert_eq!(
        at(4, LayerErrorKind::NotFinite { quantity, row: 31, column: 7 }),
        "layer 4: a number of the output gradients is not finite: row 31, column 7"
    );
    assert_eq!(
        at(0, shape_error(Quantity::Inputs, [6, 4], [6, 3])),
        "layer 0: wrong shape of the inputs: 6 x 3 instead of 6 x 4"
    );
    assert_eq!(
        at(1, LayerErrorKind::Overflow { quantity: Quantity::Inputs, largest: 1e30 }),
        "layer 1: the squares of the inputs overflow, the largest magnitude is 1e30"
    );
    let error = CholeskyError::NotPositiveDefinite { pivot: 2, value: -0.5 };
    let third = LayerErrorKind::ThirdFailure(MapError::Inverse { side: Side::Output, error });
    assert_eq!(
        at(2, third),
        "layer 2: the third refresh in a row failed: the gradient factor cannot be inverted: the matrix is not \
         positive definite: pivot 2 is -5e-1"
    );
}
