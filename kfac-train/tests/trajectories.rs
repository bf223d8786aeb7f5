//! Twenty steps of every optimizer in f64 under `Reproducible`, to the last digit: the same on every target, in debug
//! and in release. A change here is a change of arithmetic; `cargo insta review` shows it.

use kfac_train::data::adding::Adding;
use kfac_train::data::{Batch, Sampled, Source, digits};
use kfac_train::kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt};
use kfac_train::kfac_core::recipe::{AdaptiveStep, ClippedStep};
use kfac_train::kfac_core::schedule::Schedule;
use kfac_train::kfac_core::step::{KlClip, StepBound};
use kfac_train::kfac_linalg::Reproducible;
use kfac_train::layer::Nonlinearity;
use kfac_train::model::{Init, Network, autoencoder, rnn};
use kfac_train::optimizer::{
    Adam, AdamSettings, Kfac, KfacSettings, MapChoice, Optimizer, Sgd, SgdSettings, StepRule,
};
use std::fmt::Write;

const STEPS: usize = 20;
const SEED: u64 = 1;

type Net64 = Network<f64, Reproducible>;

/// `step loss lambda weights` per line; the last is `Σ (1 + i/count) θ_i`, summed in order.
fn trajectory(
    mut network: Net64,
    mut weights: Vec<f64>,
    source: &mut dyn Source<f64>,
    optimizer: &mut dyn Optimizer<f64, Reproducible>,
) -> String {
    let (mut batch, mut lines) = (Batch::default(), String::new());
    for step in 1..=STEPS {
        source.next_batch(64, &mut batch);
        let report = optimizer.step(&mut network, &mut weights, &batch).unwrap();
        assert!(!report.rejected, "step {step}");
        let count = weights.len() as f64;
        let checksum =
            weights.iter().enumerate().fold(0.0, |sum, (i, weight)| sum + (1.0 + i as f64 / count) * weight);
        let lambda = report.lambda.map_or("-".to_owned(), |lambda| format!("{lambda:.16e}"));
        writeln!(lines, "{step:2} {:.16e} {lambda} {checksum:.16e}", report.loss).unwrap();
    }
    lines
}

/// The autoencoder 64-16-4-16-64 on the embedded digits.
fn digits_autoencoder(build: impl FnOnce(&Net64) -> Box<dyn Optimizer<f64, Reproducible>>) -> String {
    let network = autoencoder(&[64, 16, 4], Nonlinearity::Sigmoid, Reproducible).unwrap();
    let weights = network.initial_weights(SEED, |_| Init::Sparse).unwrap();
    let digits = digits::load().autoencoding();
    let mut optimizer = build(&network);
    trajectory(network, weights, &mut Sampled::new(&digits, SEED).unwrap(), &mut *optimizer)
}

fn kfac(network: &Net64, map: MapChoice, rule: StepRule<f64>) -> Box<dyn Optimizer<f64, Reproducible>> {
    let schedule = Schedule { statistics_every: 1, refresh_every: 2 };
    let settings = KfacSettings { map, schedule, decay: 0.95, l2: 1e-5, rule, seed: SEED };
    Box::new(Kfac::new(network, settings).unwrap())
}

fn adaptive(rule: AdaptationRule<f64>) -> AdaptiveStep<f64> {
    AdaptiveStep::new(LevenbergMarquardt::new(0.1, rule).unwrap())
}

#[test]
fn sgd_with_nesterov_momentum_and_clip_on_the_digits_autoencoder() {
    let settings = SgdSettings { rate: 0.05, momentum: 0.9, clip: 3.0 };
    insta::assert_snapshot!(digits_autoencoder(|_| Box::new(Sgd::new(settings).unwrap())));
}

#[test]
fn adam_on_the_digits_autoencoder() {
    let settings = AdamSettings { weight_decay: 0.01, ..AdamSettings::at_rate(0.01) };
    insta::assert_snapshot!(digits_autoencoder(|_| Box::new(Adam::new(settings).unwrap())));
}

#[test]
fn kfac_factored_and_clipped_on_the_digits_autoencoder() {
    let step = ClippedStep { rate: 0.3, clip: KlClip::new(0.5).unwrap() };
    let rule = StepRule::Clipped { step, momentum: 0.9, damping: 0.3 };
    insta::assert_snapshot!(digits_autoencoder(|network| kfac(network, MapChoice::Factored, rule)));
}

#[test]
fn kfac_factored_and_adaptive_on_the_digits_autoencoder() {
    let rule = StepRule::Adaptive(adaptive(AdaptationRule::feed_forward()));
    insta::assert_snapshot!(digits_autoencoder(|network| kfac(network, MapChoice::Factored, rule)));
}

#[test]
fn kfac_eigenbasis_and_adaptive_on_the_digits_autoencoder() {
    let rule = StepRule::Adaptive(adaptive(AdaptationRule::feed_forward()));
    insta::assert_snapshot!(digits_autoencoder(|network| kfac(network, MapChoice::Eigenbasis, rule)));
}

#[test]
fn kfac_ekfac_and_adaptive_on_the_digits_autoencoder() {
    let rule = StepRule::Adaptive(adaptive(AdaptationRule::feed_forward()));
    insta::assert_snapshot!(digits_autoencoder(|network| kfac(network, MapChoice::Ekfac, rule)));
}

#[test]
fn kfac_shifted_and_adaptive_on_the_digits_autoencoder() {
    let rule = StepRule::Adaptive(adaptive(AdaptationRule::feed_forward()));
    insta::assert_snapshot!(digits_autoencoder(|network| kfac(network, MapChoice::Shifted, rule)));
}

#[test]
fn kfac_factored_adaptive_and_bounded_on_the_adding_problem() {
    let network = rnn(2, 8, 10, Reproducible).unwrap();
    let weights = network.initial_weights(SEED, |block| match block {
        0 => Init::OrthogonalRecurrent { inputs: 2 },
        _ => Init::ScaledNormal,
    });
    let weights = weights.unwrap();
    let rule = adaptive(AdaptationRule::recurrent()).with_bound(StepBound::recurrent());
    let mut kfac = kfac(&network, MapChoice::Factored, StepRule::Adaptive(rule));
    let mut source = Adding::new(10, SEED).unwrap();
    insta::assert_snapshot!(trajectory(network, weights, &mut source, &mut *kfac));
}
