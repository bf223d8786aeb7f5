//! Every optimizer against its definition, written out with explicit matrices; and what an update that fails leaves.

mod common;

use common::dense::{assert_close, dot};
use common::nets::{Cliff, Net, batch, of_two_blocks, weights};
use common::oracle::{Oracle, Rule, Seen, Settings};
use common::{LOSSES, bits, moved, random};
use kfac_train::data::{Batch, Targets};
use kfac_train::kfac_core::LayerShape;
use kfac_train::kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt};
use kfac_train::kfac_core::error::SettingError;
use kfac_train::kfac_core::losses::Loss;
use kfac_train::kfac_core::map::RowsRoute;
use kfac_train::kfac_core::recipe::{AdaptiveStep, ClippedStep};
use kfac_train::kfac_core::schedule::Schedule;
use kfac_train::kfac_core::step::{KlClip, StepBound};
use kfac_train::kfac_linalg::Reproducible;
use kfac_train::layer::{Activation, Dense, Layer, Nonlinearity};
use kfac_train::model::{Network, NetworkError};
use kfac_train::optimizer::{
    Adam, AdamSettings, IterateAverage, Kfac, KfacSettings, MapChoice, Optimizer, Sgd, SgdSettings,
    StepError, StepReport, StepRule,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A few steps of elementwise arithmetic: each rounds a handful of times.
const ELEMENTWISE: f64 = 1e-14;

/// Explicit inverses of damped factors have condition numbers of up to 1e4, their rounding of `1e4 ε` goes through
/// seven steps of training, and step sizes are quotients of differences: 5e-12 is the worst that was met.
const DENSE: f64 = 1e-10;

type Net64 = Network<f64, Reproducible>;

/// A small classifier of the plane.
const CLASSIFIER: Net<Reproducible> = Net {
    name: "dense, tanh, dense",
    layers: || {
        let tanh = Activation::new(Nonlinearity::Tanh, 4);
        vec![Box::new(Dense::new(2, 4)), Box::new(tanh), Box::new(Dense::new(4, 3))]
    },
    outputs: 3,
    cases: 6,
};

/// Mean loss and gradient.
fn loss_and_gradient(network: &mut Net64, weights: &[f64], batch: &Batch<f64>) -> (f64, Vec<f64>) {
    network.forward(weights, batch).unwrap();
    let loss = network.mean_loss(&batch.targets).unwrap();
    network.backward(weights, &batch.targets).unwrap();
    let mut gradient = vec![f64::NAN; weights.len()];
    network.gradient(&mut gradient).unwrap();
    (loss, gradient)
}

/// Runs `optimizer` and `slow` side by side, on batches of 5 to 9 cases.
fn run_beside(
    optimizer: &mut dyn Optimizer<f64, Reproducible>,
    mut slow: impl FnMut(&mut Vec<f64>, &mut Net64, &Batch<f64>) -> f64,
) {
    let mut network = CLASSIFIER.build(Loss::Softmax, Reproducible);
    let mut found = weights(&network, 1);
    let mut want = found.clone();
    for step in 0..8 {
        let batch = batch(&network, &CLASSIFIER, 5 + step % 5, 30 + step as u64);
        let report = optimizer.step(&mut network, &mut found, &batch).unwrap();
        let loss = slow(&mut want, &mut network, &batch);
        assert_close(&format!("loss at step {step}"), &[report.loss], &[loss], ELEMENTWISE);
        assert_eq!((report.lambda, report.rejected), (None, false));
        assert_close(&format!("weights after step {step}"), &found, &want, ELEMENTWISE);
    }
}

/// Sutskever et al. 2013: the gradient is taken at `θ + μ v`, which is what the optimizer stores.
#[test]
fn sgd_is_nesterovs_method_at_the_look_ahead_weights_with_clipped_gradients() {
    for clip in [0.6, f64::INFINITY] {
        let (rate, momentum) = (0.3, 0.9);
        let mut sgd = Sgd::new(SgdSettings { rate, momentum, clip }).unwrap();
        let (mut velocity, mut clipped) = (Vec::new(), 0);
        run_beside(&mut sgd, |look_ahead, network, batch| {
            velocity.resize(look_ahead.len(), 0.0);
            let theta = moved(look_ahead, -momentum, &velocity);
            let (loss, gradient) = loss_and_gradient(network, look_ahead, batch);
            let norm = dot(&gradient, &gradient).sqrt();
            clipped += u32::from(norm > clip);
            let shrink = (clip / norm).min(1.0);
            for (v, g) in velocity.iter_mut().zip(&gradient) {
                *v = momentum * *v - rate * shrink * g;
            }
            *look_ahead = moved(&moved(&theta, 1.0, &velocity), momentum, &velocity);
            loss
        });
        assert_eq!((1..8).contains(&clipped), clip.is_finite(), "clip {clip} shortened {clipped} of 8 steps");
    }
}

/// Kingma and Ba 2015 in closed form, from all gradients so far; Loshchilov and Hutter 2019 for the decay.
#[test]
fn adam_divides_the_mean_gradient_by_the_root_of_the_mean_square_both_without_bias() {
    for weight_decay in [0.0, 0.1] {
        let settings = AdamSettings { rate: 0.05, betas: [0.8, 0.95], epsilon: 1e-3, weight_decay };
        let mut gradients: Vec<Vec<f64>> = Vec::new();
        run_beside(&mut Adam::new(settings).unwrap(), |theta, network, batch| {
            let (loss, gradient) = loss_and_gradient(network, theta, batch);
            gradients.push(gradient);
            let mean = |beta: f64, i: usize, of: fn(f64) -> f64| {
                let shares = (0..gradients.len()).map(|age| beta.powi(age as i32));
                let total: f64 = shares.clone().sum();
                shares.zip(gradients.iter().rev()).map(|(share, g)| share * of(g[i])).sum::<f64>() / total
            };
            for (i, theta) in theta.iter_mut().enumerate() {
                let (first, second) = (mean(0.8, i, |g| g), mean(0.95, i, |g| g * g));
                *theta -= 0.05 * (first / (second.sqrt() + 1e-3) + weight_decay * *theta);
            }
            loss
        });
    }
}

#[test]
fn the_iterate_average_weighs_every_iterate_by_its_age() {
    let mut average = IterateAverage::new(0.7).unwrap();
    assert!(average.mean().is_empty());
    let iterates: Vec<Vec<f64>> = (0..6).map(|seed| random(5, seed)).collect();
    for count in 1..=iterates.len() {
        average.add(&iterates[count - 1]);
        let shares: Vec<f64> = (0..count).rev().map(|age| 0.7_f64.powi(age as i32)).collect();
        let total: f64 = shares.iter().sum();
        let want: Vec<f64> = (0..5)
            .map(|i| iterates.iter().zip(&shares).map(|(x, s)| s * x[i]).sum::<f64>() / total)
            .collect();
        assert_close(&format!("after {count}"), average.mean(), &want, ELEMENTWISE);
    }
}

/// The settings as the library takes them.
fn library_settings(settings: Settings) -> KfacSettings<f64> {
    let Settings { map, schedule, decay, l2, lambda, seed, rule } = settings;
    let rule = match rule {
        Rule::Clipped { rate, momentum, kappa } => {
            let step = ClippedStep { rate, clip: KlClip::new(kappa).unwrap() };
            StepRule::Clipped { step, momentum, damping: lambda }
        }
        Rule::Adaptive { every, omega, bound } => {
            let rule = AdaptationRule { every: every as u32, omega, floor: 1e-8, cap: 1e8 };
            let mut step = AdaptiveStep::new(LevenbergMarquardt::new(lambda, rule).unwrap());
            step.bound = bound.map(|(kappa, range)| StepBound::adaptive(kappa, range).unwrap());
            StepRule::Adaptive(step)
        }
    };
    KfacSettings { map, schedule, decay, l2, rule, seed }
}

const CLIPPED: Rule = Rule::Clipped { rate: 0.4, momentum: 0.8, kappa: 0.02 };
const FREE: Rule = Rule::Adaptive { every: 2, omega: 0.8, bound: None };
const BOUNDED: Rule = Rule::Adaptive { every: 1, omega: 0.9, bound: Some((0.01, [2e-3, 0.02])) };

/// Every combination of map, rule, schedule and l2.
fn all_settings() -> Vec<Settings> {
    let mut all = Vec::new();
    for map in [MapChoice::Factored, MapChoice::Eigenbasis, MapChoice::Shifted] {
        for rule in [CLIPPED, FREE, BOUNDED] {
            for [statistics_every, refresh_every] in [[1, 1], [2, 3]] {
                for l2 in [0.0, 0.03] {
                    let schedule = Schedule { statistics_every, refresh_every };
                    // A decay that the ramp reaches at the third update.
                    all.push(Settings { map, schedule, decay: 0.6, l2, lambda: 0.01, seed: 9, rule });
                }
            }
        }
    }
    all
}

/// Runs K-FAC beside the explicit matrices.
fn run_beside_oracle(net: &Net<Reproducible>, loss: Loss, settings: Settings, scale: f64) -> Seen {
    let mut network = net.build(loss, Reproducible);
    let mut kfac = Kfac::new(&network, library_settings(settings)).unwrap();
    let mut oracle = Oracle::new(net.build(loss, Reproducible), settings);
    let mut found = weights(&network, 2);
    let mut want = found.clone();
    for step in 0..7 {
        let mut batch = batch(&network, net, net.cases + step % 3, 50 + step as u64);
        if let Targets::Values(values) = &mut batch.targets {
            values.iter_mut().for_each(|y| *y *= scale);
        }
        let what = format!("{} under {loss:?}, {settings:?}, step {step}", net.name);
        let before = found.clone();
        let report = kfac.step(&mut network, &mut found, &batch).unwrap();
        let expected = oracle.step(&mut want, &batch);
        let numbers = |loss: f64, lambda: f64| [loss, lambda];
        let got = numbers(report.loss, report.lambda.unwrap());
        assert_close(&what, &got, &numbers(expected.loss, expected.lambda), DENSE);
        assert_eq!(report.rejected, expected.rejected, "{what}");
        if report.rejected {
            assert_eq!(bits(&found), bits(&before), "{what}");
        }
        assert_close(&what, &found, &want, DENSE);
    }
    oracle.seen
}

#[test]
fn kfac_is_its_definition_with_explicit_matrices_for_every_map_rule_schedule_and_l2() {
    let mut seen = Seen::default();
    for net in of_two_blocks() {
        for loss in LOSSES {
            for settings in all_settings() {
                let run = run_beside_oracle(&net, loss, settings, 1.0);
                seen.clipped += run.clipped;
                seen.bounded += run.bounded;
                seen.kappa_raised += run.kappa_raised;
                seen.kappa_lowered += run.kappa_lowered;
                seen.lambda_raised += run.lambda_raised;
                seen.lambda_lowered += run.lambda_lowered;
            }
        }
    }
    let Seen { clipped, bounded, kappa_raised, kappa_lowered, lambda_raised, lambda_lowered, .. } = seen;
    for count in [clipped, bounded, kappa_raised, kappa_lowered, lambda_raised, lambda_lowered] {
        assert!(count >= 10, "a branch was hardly reached: {seen:?}");
    }
}

/// Layers that are wide beside their batch: with a clip, `U` comes from the rows, and without l2 there is no gradient.
#[test]
fn kfac_from_the_rows_of_small_batches_is_its_definition_too() {
    let net = Net {
        name: "dense, tanh, dense; few cases",
        layers: || {
            let tanh = Activation::new(Nonlinearity::Tanh, 8);
            vec![Box::new(Dense::new(9, 8)), Box::new(tanh), Box::new(Dense::new(8, 7))]
        },
        outputs: 7,
        cases: 2,
    };
    for (map, route) in [
        (MapChoice::Factored, RowsRoute::Inverses),
        (MapChoice::Eigenbasis, RowsRoute::Bases),
        (MapChoice::Shifted, RowsRoute::Tridiagonal),
    ] {
        let shapes = [LayerShape::dense(9, 8), LayerShape::dense(8, 7)];
        assert!(shapes.iter().all(|&shape| route.is_cheaper(shape, 4)));
        for loss in LOSSES {
            let schedule = Schedule { statistics_every: 2, refresh_every: 2 };
            let settings =
                Settings { map, schedule, decay: 0.6, l2: 0.0, lambda: 0.01, seed: 9, rule: CLIPPED };
            run_beside_oracle(&net, loss, settings, 1.0);
        }
    }
}

/// Large targets and little damping make steps that fall off a cliff, until the damping has grown.
#[test]
fn a_rejected_step_leaves_the_weights_to_the_bit_and_is_forgotten_but_for_the_damping() {
    let net = Net {
        name: "dense, cliff, dense",
        layers: || {
            let cliff = Cliff { len: 3, height: 4.0, forward_passes: Arc::default() };
            vec![Box::new(Dense::new(2, 3)), Box::new(cliff), Box::new(Dense::new(3, 2))]
        },
        outputs: 2,
        cases: 5,
    };
    for map in [MapChoice::Factored, MapChoice::Eigenbasis, MapChoice::Shifted] {
        for bound in [None, Some((500.0, [1.0, 1000.0]))] {
            let rule = Rule::Adaptive { every: 2, omega: 0.4, bound };
            let schedule = Schedule::EVERY_STEP;
            let settings = Settings { map, schedule, decay: 0.6, l2: 0.0, lambda: 0.05, seed: 9, rule };
            let seen = run_beside_oracle(&net, Loss::Square, settings, 30.0);
            assert!((1..7).contains(&seen.rejected), "{map:?}: {seen:?}");
        }
    }
}

/// A step runs its batch forward at the weights and where it leads; a bound that adapts also looks back from the next
/// batch to the weights before the step.
#[test]
fn only_a_bound_that_adapts_costs_a_forward_pass() {
    let bounds = [None, Some(StepBound::fixed(0.01)), Some(StepBound::adaptive(0.01, [0.001, 0.1]))];
    for (bound, passes) in bounds.into_iter().zip([2, 2, 3]) {
        let forward_passes = Arc::new(AtomicUsize::new(0));
        let cliff = Cliff { len: 2, height: f64::INFINITY, forward_passes: forward_passes.clone() };
        let layers: Vec<Box<dyn Layer<f64, Reproducible>>> =
            vec![Box::new(Dense::new(3, 2)), Box::new(cliff)];
        let mut network = Network::new(layers, Loss::Square, 2, Reproducible).unwrap();
        let mut step =
            AdaptiveStep::new(LevenbergMarquardt::new(0.1, AdaptationRule::feed_forward()).unwrap());
        step.bound = bound.map(Result::unwrap);
        let settings = KfacSettings {
            map: MapChoice::Factored,
            schedule: Schedule::EVERY_STEP,
            decay: 0.9,
            l2: 0.0,
            rule: StepRule::Adaptive(step),
            seed: 1,
        };
        let mut kfac = Kfac::new(&network, settings).unwrap();
        let mut weights = random(8, 1);
        let batch = |seed| Batch {
            cases: 4,
            inputs: random(12, seed),
            targets: Targets::Values(random(8, seed + 1)),
        };
        kfac.step(&mut network, &mut weights, &batch(2)).unwrap();
        let first = forward_passes.load(Ordering::Relaxed);
        kfac.step(&mut network, &mut weights, &batch(4)).unwrap();
        let second = forward_passes.load(Ordering::Relaxed) - first;
        assert_eq!((first, second), (2, passes), "{bound:?}");
    }
}

/// Makes an optimizer for a network, at rest.
type Build = fn(&Net64) -> Box<dyn Optimizer<f64, Reproducible>>;

const SGD_SETTINGS: SgdSettings = SgdSettings { rate: 0.1, momentum: 0.9, clip: 1.0 };
const SGD: Build = |_| Box::new(Sgd::new(SGD_SETTINGS).unwrap());
const ADAM: Build = |_| Box::new(Adam::new(AdamSettings::at_rate(0.01)).unwrap());

fn kfac(network: &Net64, map: MapChoice, rule: Rule) -> Box<dyn Optimizer<f64, Reproducible>> {
    let schedule = Schedule::EVERY_STEP;
    let settings = Settings { map, schedule, decay: 0.9, l2: 0.0, lambda: 0.1, seed: 3, rule };
    Box::new(Kfac::new(network, library_settings(settings)).unwrap())
}

const KFACS: [(&str, Build); 9] = [
    ("factored, clipped", |network| kfac(network, MapChoice::Factored, CLIPPED)),
    ("factored, free", |network| kfac(network, MapChoice::Factored, FREE)),
    ("factored, bounded", |network| kfac(network, MapChoice::Factored, BOUNDED)),
    ("eigenbasis, clipped", |network| kfac(network, MapChoice::Eigenbasis, CLIPPED)),
    ("eigenbasis, free", |network| kfac(network, MapChoice::Eigenbasis, FREE)),
    ("eigenbasis, bounded", |network| kfac(network, MapChoice::Eigenbasis, BOUNDED)),
    ("shifted, bounded", |network| kfac(network, MapChoice::Shifted, BOUNDED)),
    ("ekfac, clipped", |network| kfac(network, MapChoice::Ekfac, CLIPPED)),
    ("ekfac, bounded", |network| kfac(network, MapChoice::Ekfac, BOUNDED)),
];

fn all_optimizers() -> impl Iterator<Item = (&'static str, Build)> {
    [("SGD", SGD), ("Adam", ADAM)].into_iter().chain(KFACS)
}

/// A regression whose last input is zero but in bad batches, and so are its weights.
const REGRESSION: Net<Reproducible> = Net {
    name: "dense, tanh, dense",
    layers: || {
        let tanh = Activation::new(Nonlinearity::Tanh, 3);
        vec![Box::new(Dense::new(3, 3)), Box::new(tanh), Box::new(Dense::new(3, 2))]
    },
    outputs: 2,
    cases: 5,
};

fn regression() -> (Net64, Vec<f64>) {
    let network = REGRESSION.build(Loss::Square, Reproducible);
    let mut weights = weights(&network, 5);
    forget_last_input(&mut weights);
    (network, weights)
}

/// The gradient of these weights is zero, but a rotation into an eigenbasis and back leaves a rounding.
fn forget_last_input(weights: &mut [f64]) {
    (0..3).for_each(|unit| weights[4 * unit + 2] = 0.0);
}

fn good_batch(network: &Net64, seed: u64) -> Batch<f64> {
    let mut batch = batch(network, &REGRESSION, REGRESSION.cases, seed);
    batch.inputs.iter_mut().skip(2).step_by(3).for_each(|x| *x = 0.0);
    batch
}

/// Spoils a batch.
type Spoil = fn(&mut Batch<f64>);

/// Four steps; `bad` is tried before the third and refused with a sentence of the given pieces. Returns losses and
/// weights, to the bit.
fn run_with(build: Build, bad: Option<(Spoil, &str)>, what: &str) -> Vec<u64> {
    let (mut network, mut weights) = regression();
    let mut optimizer = build(&network);
    let mut record = Vec::new();
    for step in 0..4 {
        if let Some((spoil, pieces)) = bad.filter(|_| step == 2) {
            let mut batch = good_batch(&network, 99);
            spoil(&mut batch);
            let before = bits(&weights);
            let error = optimizer.step(&mut network, &mut weights, &batch).unwrap_err();
            let said = error.to_string();
            assert!(pieces.split(" ... ").all(|piece| said.contains(piece)), "{what}: {said}");
            assert_eq!(bits(&weights), before, "{what}: the weights of a refused step");
        }
        let batch = good_batch(&network, 70 + step);
        let StepReport { loss, lambda, .. } = optimizer.step(&mut network, &mut weights, &batch).unwrap();
        record.extend(bits(&[loss, lambda.unwrap_or(0.0)]));
        record.extend(bits(&weights));
        forget_last_input(&mut weights);
    }
    record
}

#[test]
fn a_bad_batch_in_the_middle_of_a_run_is_refused_by_name_and_leaves_no_trace() {
    let cases: [(&str, Spoil, &str); 9] = [
        ("a NaN in the last row", |batch| batch.inputs[14] = f64::NAN, "the loss is not finite"),
        ("an infinite target", |batch| values(batch)[9] = f64::INFINITY, "the loss is not finite"),
        ("a loss that overflows", |batch| values(batch)[9] = 1e200, "the loss is not finite"),
        (
            "a gradient that overflows though the loss does not",
            |batch| {
                batch.inputs[14] = 1e308;
                values(batch).fill(1e4);
            },
            "layer 0: ... gradient ... not finite ... row 0, column 2",
        ),
        (
            "a gradient whose square overflows",
            |batch| batch.inputs[14] = 1e200,
            "layer 0: ... squares of the gradient overflow",
        ),
        ("a missing input", |batch| batch.inputs.truncate(14), "5 cases take 15 inputs, 14 were given"),
        ("a missing target", |batch| values(batch).truncate(9), "the outputs take 10 targets, 9 were given"),
        (
            "more targets than outputs",
            |batch| values(batch).extend([0.0; 5]),
            "the outputs take 10 targets, 15 were given",
        ),
        ("no case", |batch| *batch = Batch::default(), "0 cases take 0 inputs, 0 were given"),
    ];
    for (name, build) in all_optimizers() {
        let clean = run_with(build, None, name);
        for (bad, spoil, sentence) in cases {
            let what = format!("{name}: {bad}");
            assert_eq!(run_with(build, Some((spoil, sentence)), &what), clean, "{what}: the steps after it");
        }
    }
}

fn values(batch: &mut Batch<f64>) -> &mut Vec<f64> {
    match &mut batch.targets {
        Targets::Values(values) => values,
        Targets::Classes(_) => panic!("a regression has values"),
    }
}

/// The square of the input is out of range for `A`, that of the gradient, a fifth of it, is not.
#[test]
fn inputs_whose_squares_overflow_are_refused_by_kfac_and_leave_no_trace() {
    let sentence = "layer 0: ... squares of the inputs overflow ... 1.2e154";
    for (name, build) in KFACS {
        let bad: (Spoil, _) = (|batch| batch.inputs[14] = 1.2e154, sentence);
        assert_eq!(run_with(build, Some(bad), name), run_with(build, None, name), "{name}");
    }
}

#[test]
fn another_network_than_the_optimizers_is_an_error_and_not_a_panic() {
    let (network, _) = regression();
    for (name, build) in KFACS {
        let mut optimizer = build(&network);
        let mut other = CLASSIFIER.build(Loss::Softmax, Reproducible);
        let mut weights = weights(&other, 1);
        let batch = batch(&other, &CLASSIFIER, 3, 1);
        let error = NetworkError::Weights { expected: 20, found: 27 };
        let found = optimizer.step(&mut other, &mut weights, &batch);
        assert_eq!(found, Err(StepError::Network(error)), "{name}");
    }
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let (network, _) = regression();
    let good = Settings {
        map: MapChoice::Factored,
        schedule: Schedule::EVERY_STEP,
        decay: 0.9,
        l2: 0.0,
        lambda: 0.1,
        seed: 0,
        rule: CLIPPED,
    };
    let never = Schedule { statistics_every: 0, refresh_every: 1 };
    for (settings, setting, value) in [
        (Settings { decay: 1.0, ..good }, "decay", 1.0),
        (Settings { l2: -1.0, ..good }, "l2", -1.0),
        (Settings { lambda: 0.0, ..good }, "damping", 0.0),
        (Settings { schedule: never, ..good }, "statistics_every", 0.0),
    ] {
        let error = Kfac::new(&network, library_settings(settings)).err();
        assert_eq!(error, Some(StepError::Setting(SettingError { setting, value })));
    }
    let step = ClippedStep { rate: 0.1, clip: KlClip::new(0.1).unwrap() };
    let rule = StepRule::Clipped { step, momentum: 1.0, damping: 0.1 };
    let error = Kfac::new(&network, KfacSettings { rule, ..library_settings(good) }).err();
    let refused = |setting, value| Some(SettingError { setting, value });
    assert_eq!(error, refused("momentum", 1.0).map(StepError::Setting));
    assert_eq!(network.shapes(), [LayerShape::dense(3, 3), LayerShape::dense(3, 2)]);

    let good = SgdSettings { rate: 0.1, momentum: 0.0, clip: f64::INFINITY };
    assert!(Sgd::<f64>::new(good).is_ok());
    for (settings, setting, value) in [
        (SgdSettings { rate: 0.0, ..good }, "learning rate", 0.0),
        (SgdSettings { rate: f64::INFINITY, ..good }, "learning rate", f64::INFINITY),
        (SgdSettings { momentum: 1.0, ..good }, "momentum", 1.0),
        (SgdSettings { momentum: -0.1, ..good }, "momentum", -0.1),
        (SgdSettings { clip: 0.0, ..good }, "clip", 0.0),
    ] {
        assert_eq!(Sgd::<f64>::new(settings).err(), refused(setting, value));
    }
    let good = AdamSettings::at_rate(0.1);
    assert!(Adam::<f64>::new(good).is_ok());
    for (settings, setting, value) in [
        (AdamSettings { rate: -0.1, ..good }, "learning rate", -0.1),
        (AdamSettings { betas: [1.0, 0.9], ..good }, "beta", 1.0),
        (AdamSettings { betas: [0.9, 1.0], ..good }, "beta", 1.0),
        (AdamSettings { epsilon: 0.0, ..good }, "epsilon", 0.0),
        (AdamSettings { weight_decay: -1.0, ..good }, "weight decay", -1.0),
    ] {
        assert_eq!(Adam::<f64>::new(settings).err(), refused(setting, value));
    }
    for decay in [1.0, -0.5] {
        let name = "decay of the averaged iterates";
        assert_eq!(IterateAverage::<f64>::new(decay).err(), refused(name, decay));
    }
    // No comparison holds of what is no number.
    let nan = f64::NAN;
    let sgd = [SgdSettings { rate: nan, ..SGD_SETTINGS }, SgdSettings { clip: nan, ..SGD_SETTINGS }];
    assert!(sgd.iter().all(|&settings| Sgd::<f64>::new(settings).is_err()));
    assert!(
        Adam::<f64>::new(AdamSettings::at_rate(nan)).is_err() && IterateAverage::<f64>::new(nan).is_err()
    );
}
