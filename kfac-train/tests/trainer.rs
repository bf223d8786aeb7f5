//! One training run: when it evaluates and what, how it ends; and the refusal of what does not fit a network.

mod common;

use common::bits;
use kfac_train::data::{Batch, Sampled, Source, Targets, digits};
use kfac_train::kfac_core::error::SettingError;
use kfac_train::kfac_core::losses::{Loss, LossError};
use kfac_train::kfac_linalg::Reproducible;
use kfac_train::layer::{Activation, Dense, Layer, Nonlinearity, Readout, Recurrent};
use kfac_train::model::{
    ConvolutionStage, Init, InitError, Network, NetworkError, Pass, autoencoder, cnn, mlp, rnn,
};
use kfac_train::optimizer::{Optimizer, Sgd, SgdSettings, StepError, StepReport};
use kfac_train::trainer::{Continue, History, Plan, Point, Run};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::time::{Duration, Instant};

type Net64 = Network<f64, Reproducible>;

/// `y = w x + b`.
fn line() -> Net64 {
    Network::new(vec![Box::new(Dense::new(1, 1))], Loss::Square, 1, Reproducible).unwrap()
}

/// Counts its batches; every case is the point (1, 2).
struct Constant {
    batches: Vec<usize>,
}

impl Source<f64> for Constant {
    fn input_len(&self) -> usize {
        1
    }

    fn next_batch(&mut self, cases: usize, batch: &mut Batch<f64>) {
        self.batches.push(cases);
        *batch = Batch { cases, inputs: vec![1.0; cases], targets: Targets::Values(vec![2.0; cases]) };
    }
}

/// Adds one to every weight; from step `fails_at` on it refuses.
struct Counter {
    steps: u64,
    fails_at: u64,
}

impl Optimizer<f64, Reproducible> for Counter {
    fn step(&mut self, _: &mut Net64, weights: &mut [f64], _: &Batch<f64>) -> Result<StepReport, StepError> {
        self.steps += 1;
        if self.steps >= self.fails_at {
            return Err(StepError::LossNotFinite);
        }
        weights.iter_mut().for_each(|weight| *weight += 1.0);
        Ok(StepReport { loss: 0.0, lambda: None, rejected: false })
    }
}

const PLAN: Plan = Plan { batch: 3, updates: 10, evaluate_every: 4, averaging: None };

/// Trains the line from zero; the metric is its first weight unless something else is given.
fn train(
    plan: Plan,
    optimizer: &mut dyn Optimizer<f64, Reproducible>,
    metric: &mut dyn FnMut(&[f64]) -> f64,
    judge: &mut dyn FnMut(Point) -> Continue,
) -> (History, Vec<f64>, Vec<usize>) {
    let (mut network, mut weights) = (line(), vec![0.0; 2]);
    let mut source = Constant { batches: Vec::new() };
    let mut run = Run { network: &mut network, weights: &mut weights, source: &mut source, optimizer };
    let history = run.train(plan, &mut |_, weights| metric(weights), judge).unwrap();
    (history, weights, source.batches)
}

fn counter() -> Counter {
    Counter { steps: 0, fails_at: u64::MAX }
}

fn always(_: Point) -> Continue {
    Continue::Yes
}

fn updates_and_values(history: &History) -> Vec<(u64, f64)> {
    history.points.iter().map(|point| (point.updates, point.value)).collect()
}

#[test]
fn a_run_is_evaluated_before_it_every_so_often_and_at_its_end() {
    for (updates, evaluate_every, expected) in [
        (10, 4, vec![0, 4, 8, 10]),
        (10, 5, vec![0, 5, 10]),
        (3, 1, vec![0, 1, 2, 3]),
        (3, 7, vec![0, 3]),
        (0, 4, vec![0]),
    ] {
        let plan = Plan { updates, evaluate_every, ..PLAN };
        let (history, weights, batches) = train(plan, &mut counter(), &mut |w| w[0], &mut always);
        let want: Vec<_> = expected.iter().map(|&updates| (updates, updates as f64)).collect();
        assert_eq!(updates_and_values(&history), want, "{updates} updates, every {evaluate_every}");
        assert_eq!(history.failure, None);
        assert_eq!(weights, [updates as f64; 2]);
        assert_eq!(batches, vec![3; updates as usize]);
    }
}

#[test]
fn the_judge_sees_every_point_after_an_update_and_can_end_the_run() {
    let mut seen = Vec::new();
    let mut judge = |point: Point| {
        seen.push(point);
        if point.updates == 8 { Continue::No } else { Continue::Yes }
    };
    let plan = Plan { updates: 100, ..PLAN };
    let (history, weights, _) = train(plan, &mut counter(), &mut |w| w[0], &mut judge);
    assert_eq!(updates_and_values(&history), [(0, 0.0), (4, 4.0), (8, 8.0)]);
    assert_eq!(seen, history.points[1..]);
    assert_eq!((history.failure, weights), (None, vec![8.0; 2]));
}

/// Weights 1, 2, 3, ... have the average `Σ d^(k-i) i / Σ d^(k-i)`.
#[test]
fn averaged_iterates_are_evaluated_while_training_goes_on_from_the_weights() {
    let decay: f64 = 0.5;
    let plan = Plan { updates: 6, evaluate_every: 2, averaging: Some(decay), ..PLAN };
    let (history, weights, _) = train(plan, &mut counter(), &mut |w| w[0], &mut always);
    assert_eq!(weights, [6.0; 2]);
    assert_eq!(history.points[0].value, 0.0);
    for (point, updates) in history.points[1..].iter().zip([2_i32, 4, 6]) {
        let shares = (1..=updates).map(|i| (decay.powi(updates - i), f64::from(i)));
        let (total, sum) = shares.fold((0.0, 0.0), |(total, sum), (d, x)| (total + d, sum + d * x));
        assert_eq!(point.updates, updates as u64);
        // A few roundings on either side.
        let (found, want) = (point.value, sum / total);
        assert!((found - want).abs() <= 4.0 * f64::EPSILON * want, "after {updates}: {found} is not {want}");
    }
}

#[test]
fn a_refused_update_ends_the_run_with_its_sentence() {
    let mut optimizer = Counter { steps: 0, fails_at: 7 };
    let (history, weights, _) = train(PLAN, &mut optimizer, &mut |w| w[0], &mut always);
    assert_eq!(updates_and_values(&history), [(0, 0.0), (4, 4.0)]);
    assert_eq!(history.failure.as_deref(), Some("the loss is not finite"));
    assert_eq!(weights, [6.0; 2]);
}

/// `½ (w + b - 2)²` has curvature 2: at rate 4 the error grows sevenfold a step.
#[test]
fn a_diverging_run_is_a_result_and_not_a_panic() {
    let mut sgd = Sgd::new(SgdSettings { rate: 4.0, momentum: 0.0, clip: f64::INFINITY }).unwrap();
    let plan = Plan { updates: 10_000, evaluate_every: 10, ..PLAN };
    let (history, weights, batches) = train(plan, &mut sgd, &mut |w| (w[0] + w[1] - 2.0).abs(), &mut always);
    assert_eq!(history.failure.as_deref(), Some("the loss is not finite"));
    // 7^k reaches the root of the largest number, 1e154, after 183 steps.
    assert!((180..190).contains(&batches.len()), "{} batches", batches.len());
    assert!(history.points.iter().all(|point| point.value.is_finite()));
    assert_eq!(history.points.last().unwrap().updates, 180);
    assert!(weights.iter().all(|weight| weight.is_finite()), "the weights of a refused step: {weights:?}");
}

#[test]
fn a_metric_that_is_not_finite_ends_the_run_wherever_it_comes() {
    for first_bad in [0.0, 8.0] {
        let mut metric = |w: &[f64]| if w[0] >= first_bad { f64::NAN } else { w[0] };
        let mut judged = 0;
        let mut judge = |_| {
            judged += 1;
            Continue::Yes
        };
        let (history, weights, _) = train(PLAN, &mut counter(), &mut metric, &mut judge);
        let last = history.points.last().unwrap();
        assert!(last.updates as f64 == first_bad && last.value.is_nan(), "{history:?}");
        assert_eq!(history.failure.as_deref(), Some("the metric is not finite"));
        assert_eq!(weights[0], first_bad);
        assert_eq!(judged, (first_bad / 4.0 - 1.0).max(0.0) as i32, "a bad metric is not judged");
    }
}

#[test]
fn data_that_does_not_fit_the_network_is_a_failure_and_not_a_panic() {
    let (mut network, mut weights) = (line(), vec![0.0; 2]);
    let digits = digits::load().autoencoding();
    let mut source = Sampled::new(&digits, 0).unwrap();
    let mut optimizer = Sgd::new(SgdSettings { rate: 1.0, momentum: 0.0, clip: 1.0 }).unwrap();
    let mut run =
        Run { network: &mut network, weights: &mut weights, source: &mut source, optimizer: &mut optimizer };
    let history = run.train(PLAN, &mut |_, _| 0.0, &mut always).unwrap();
    assert_eq!(history.failure.as_deref(), Some("3 cases take 3 inputs, 192 were given"));
    assert_eq!(history.points.len(), 1);
}

#[test]
fn seconds_grow_with_training_and_leave_evaluation_out() {
    let long = Duration::from_millis(40);
    let mut metric = |w: &[f64]| {
        let start = Instant::now();
        while start.elapsed() < long {
            std::hint::spin_loop();
        }
        w[0]
    };
    let (history, ..) = train(PLAN, &mut counter(), &mut metric, &mut always);
    let seconds: Vec<f64> = history.points.iter().map(|point| point.seconds).collect();
    assert!(seconds[0] == 0.0 && seconds.is_sorted(), "{seconds:?}");
    assert!(seconds[3] < long.as_secs_f64(), "{seconds:?}: ten updates of nothing");
}

#[test]
fn a_plan_out_of_range_is_refused_and_nothing_is_run() {
    for (plan, setting, value) in [
        (Plan { batch: 0, ..PLAN }, "batch", 0.0),
        (Plan { evaluate_every: 0, ..PLAN }, "evaluate_every", 0.0),
        (Plan { averaging: Some(1.0), ..PLAN }, "decay of the averaged iterates", 1.0),
    ] {
        let (mut network, mut weights, mut optimizer) = (line(), vec![0.0; 2], counter());
        let mut source = Constant { batches: Vec::new() };
        let mut run = Run {
            network: &mut network,
            weights: &mut weights,
            source: &mut source,
            optimizer: &mut optimizer,
        };
        let refused = run.train(plan, &mut |_, _| unreachable!("nothing is evaluated"), &mut always);
        assert_eq!(refused, Err(SettingError { setting, value }));
        assert_eq!((optimizer.steps, source.batches.len(), weights), (0, 0, vec![0.0; 2]));
    }
}

#[test]
fn a_history_knows_when_a_target_was_reached() {
    let point = |updates, value| Point { updates, value, seconds: 0.5 };
    let points = vec![point(0, 3.0), point(5, 1.0), point(10, 2.0), point(20, 0.5)];
    let history = History { points, failure: None };
    assert_eq!(history.reached(1.0), Some(point(5, 1.0)));
    assert_eq!(history.reached(0.4), None);
    assert_eq!((history.final_value(), history.milliseconds_per_update()), (0.5, 25.0));
    assert!(History::default().final_value().is_nan());
}

type Layers = Vec<Box<dyn Layer<f64, Reproducible>>>;

fn refusal(layers: Layers, outputs: usize) -> (NetworkError, String) {
    let error = Network::new(layers, Loss::Square, outputs, Reproducible).err().unwrap();
    (error, error.to_string())
}

#[test]
fn a_network_that_cannot_be_chained_is_refused_by_name() {
    let dense = |n, m| -> Box<dyn Layer<f64, Reproducible>> { Box::new(Dense::new(n, m)) };
    let chain = NetworkError::Chain { layer: 1, given: 3, taken: 4 };
    assert_eq!(
        refusal(vec![dense(2, 3), dense(4, 1)], 1),
        (chain, "layer 1 takes 4 numbers, the one before it gives 3".to_owned())
    );
    let rows = NetworkError::Outputs { given: 3, outputs: 2 };
    assert_eq!(
        refusal(vec![dense(2, 3)], 2),
        (rows, "the last layer gives 3 numbers, which are no rows of 2".to_owned())
    );
    assert_eq!(refusal(vec![dense(2, 3)], 0).0, NetworkError::Outputs { given: 3, outputs: 0 });
    assert_eq!(refusal(Vec::new(), 1).0, NetworkError::Outputs { given: 0, outputs: 1 });
    let empty: [Box<dyn Layer<f64, Reproducible>>; 5] = [
        dense(0, 2),
        dense(2, 0),
        Box::new(Activation::new(Nonlinearity::Relu, 0)),
        Box::new(Dense::new(2, 2).at_positions(0)),
        Box::new(Recurrent::new(2, 2, 0, Readout::Last)),
    ];
    for layer in empty {
        let (error, sentence) = refusal(vec![layer], 1);
        assert_eq!(error, NetworkError::EmptyLayer { layer: 0 });
        assert_eq!(sentence, "layer 0 has no input or no output");
    }
}

#[test]
fn models_of_size_0_are_refused() {
    let stage = |channels, stride| ConvolutionStage { channels, stride };
    for (model, error) in [
        mlp::<f64, _>(&[], Reproducible).err(),
        mlp::<f64, _>(&[3], Reproducible).err(),
        autoencoder::<f64, _>(&[], Nonlinearity::Tanh, Reproducible).err(),
        autoencoder::<f64, _>(&[4], Nonlinearity::Tanh, Reproducible).err(),
    ]
    .iter()
    .enumerate()
    {
        assert!(matches!(error, Some(NetworkError::Outputs { given: 0, .. })), "model {model}: {error:?}");
    }
    let refused = [
        (mlp::<f64, _>(&[3, 0, 2], Reproducible).err(), 0),
        (mlp::<f64, _>(&[0, 2], Reproducible).err(), 0),
        (mlp::<f64, _>(&[3, 0], Reproducible).err(), 0),
        (autoencoder::<f64, _>(&[4, 0], Nonlinearity::Tanh, Reproducible).err(), 0),
        (autoencoder::<f64, _>(&[0, 2], Nonlinearity::Tanh, Reproducible).err(), 0),
        (rnn::<f64, _>(0, 2, 2, Reproducible).err(), 0),
        (rnn::<f64, _>(2, 0, 2, Reproducible).err(), 0),
        (rnn::<f64, _>(2, 2, 0, Reproducible).err(), 0),
        (cnn::<f64, _>(0, &[stage(2, 1)], 3, Reproducible).err(), 0),
        (cnn::<f64, _>(4, &[stage(0, 1)], 3, Reproducible).err(), 0),
        (cnn::<f64, _>(4, &[stage(2, 0)], 3, Reproducible).err(), 0),
        (cnn::<f64, _>(4, &[stage(2, 1)], 0, Reproducible).err(), 2),
        (cnn::<f64, _>(0, &[], 3, Reproducible).err(), 0),
    ];
    for (model, (error, layer)) in refused.into_iter().enumerate() {
        assert_eq!(error, Some(NetworkError::EmptyLayer { layer }), "model {model}");
    }
}

/// 20,000 times a loss of 0.1 in single precision: summed there, the mean is off by 1e-4 of itself.
#[test]
fn the_mean_loss_is_rounded_once_however_many_cases_there_are() {
    let cases = 20_000;
    let mut network =
        Network::<f32, _>::new(vec![Box::new(Dense::new(1, 1))], Loss::Square, 1, Reproducible).unwrap();
    let batch = Batch { cases, inputs: vec![0.0; cases], targets: Targets::Values(vec![0.447_213_6; cases]) };
    network.forward(&[0.0, 0.0], &batch).unwrap();
    let one = 0.5 * 0.447_213_6_f32 * 0.447_213_6;
    assert_eq!(network.mean_loss(&batch.targets), Ok(one));
}

#[test]
fn wrong_lengths_are_refused_by_every_pass_and_change_nothing() {
    let mut network = mlp::<f64, _>(&[2, 3], Reproducible).unwrap();
    let weights = common::random(9, 1);
    let batch = Batch { cases: 2, inputs: common::random(4, 2), targets: Targets::Classes(vec![2, 0]) };
    network.forward(&weights, &batch).unwrap();
    network.backward(&weights, &batch.targets).unwrap();
    let mut gradient = vec![0.0; 9];
    network.gradient(&mut gradient).unwrap();

    let short = NetworkError::Weights { expected: 9, found: 8 };
    assert_eq!(short.to_string(), "the network has 9 weights, not 8");
    assert_eq!(network.forward(&weights[..8], &batch), Err(short));
    assert_eq!(network.backward(&weights[..8], &batch.targets), Err(short));
    assert_eq!(network.gradient(&mut [0.0; 8]), Err(short));
    assert_eq!(network.tangent(&weights, &weights[..8]).err(), Some(short));
    assert_eq!(network.tangent(&weights[..8], &weights).err(), Some(short));
    assert_eq!(network.fisher_products(&weights, &weights, &weights[..8]), Err(short));
    assert_eq!(network.fisher_products(&weights, &weights[..8], &weights), Err(short));

    for (cases, len) in [(2, 3), (2, 5), (0, 0), (1, 4), (usize::MAX / 2 + 1, 0), (usize::MAX / 2 + 3, 4)] {
        let bad = Batch { cases, inputs: vec![0.0; len], targets: batch.targets.clone() };
        let error = NetworkError::Inputs { expected: cases.saturating_mul(2), found: len, cases };
        assert_eq!(network.forward(&weights, &bad), Err(error));
    }
    let targets = [
        (Targets::Classes(vec![0]), NetworkError::Targets { expected: 2, found: 1 }),
        (Targets::Classes(vec![0; 3]), NetworkError::Targets { expected: 2, found: 3 }),
        (Targets::Classes(vec![0, 3]), NetworkError::Loss(LossError::NoSuchClass { class: 3, outputs: 3 })),
        (Targets::Values(vec![0.0; 6]), NetworkError::Loss(LossError::WrongTarget)),
    ];
    for (targets, error) in targets {
        assert_eq!(network.mean_loss(&targets), Err(error));
        assert_eq!(network.backward(&weights, &targets), Err(error));
    }
    assert_eq!(
        NetworkError::Targets { expected: 2, found: 3 }.to_string(),
        "the outputs take 2 targets, 3 were given"
    );

    let mut again = vec![0.0; 9];
    network.gradient(&mut again).unwrap();
    assert_eq!(bits(&again), bits(&gradient));
}

/// Each pass on the traces that it needs: none of them may be missing, or be another batch's.
#[test]
fn a_pass_without_the_one_it_builds_on_is_refused_by_name() {
    let weights = common::random(9, 1);
    let batch = |cases: usize| Batch {
        cases,
        inputs: common::random(2 * cases, 2),
        targets: Targets::Classes(vec![1; cases]),
    };
    let mut network = mlp::<f64, _>(&[2, 3], Reproducible).unwrap();
    let [no_forward, no_backward] =
        [Pass::Forward, Pass::Backward].map(|missing| NetworkError::NoPass { missing });
    let mut gradient = vec![7.0; 9];
    let no_targets = Targets::Classes(Vec::new());
    let mut generator = ChaCha8Rng::seed_from_u64(0);

    assert_eq!(network.outputs().rows(), 0);
    assert_eq!(network.mean_loss(&no_targets), Err(no_forward));
    assert_eq!(network.backward(&weights, &no_targets), Err(no_forward));
    assert_eq!(network.backward_sampled(&weights, &mut generator), Err(no_forward));
    assert_eq!(network.tangent(&weights, &weights).err(), Some(no_forward));
    assert_eq!(network.fisher_products(&weights, &weights, &weights), Err(no_forward));
    assert_eq!(network.gradient(&mut gradient), Err(no_backward));
    assert_eq!(network.evidence().err(), Some(no_backward));

    // A backward pass belongs to the forward pass before it, whether the next batch has as many cases or not.
    for cases in [5, 10] {
        network.forward(&weights, &batch(10)).unwrap();
        network.backward(&weights, &batch(10).targets).unwrap();
        network.forward(&weights, &batch(cases)).unwrap();
        assert_eq!(network.gradient(&mut gradient), Err(no_backward));
        assert_eq!(network.evidence().err(), Some(no_backward));
        network.fisher_products(&weights, &weights, &weights).unwrap();
    }
    assert_eq!(gradient, [7.0; 9]);
    network.backward_sampled(&weights, &mut generator).unwrap();
    network.gradient(&mut gradient).unwrap();
    assert_eq!(no_forward.to_string(), "no batch has been run forward yet");
    assert_eq!(no_backward.to_string(), "no backward pass has followed the last forward pass");
}

/// Beside three inputs, or fewer, an orthogonal matrix of four units has no place in a block of three columns.
#[test]
fn a_recurrent_rule_on_a_block_that_is_not_recurrent_is_refused() {
    let init = |inputs| move |_| Init::OrthogonalRecurrent { inputs };
    let dense = mlp::<f64, _>(&[3, 4], Reproducible).unwrap();
    for inputs in [0, 1, 2, 3, 100, usize::MAX] {
        let (shape, rule) = (dense.shapes()[0], init(inputs)(0));
        let refused = Err(InitError::Misfit { block: 0, shape, rule });
        assert_eq!(dense.initial_weights(1, init(inputs)), refused);
    }
    let error = dense.initial_weights(1, init(2)).unwrap_err();
    let sentence = "OrthogonalRecurrent { inputs: 2 } does not fit block 0 of 4 x 3 weights and a bias";
    assert_eq!(error.to_string(), sentence);

    let recurrent: Layers = vec![Box::new(Recurrent::new(3, 4, 2, Readout::All))];
    let network = Network::new(recurrent, Loss::Square, 8, Reproducible).unwrap();
    assert!(network.initial_weights(1, init(2)).is_err() && network.initial_weights(1, init(0)).is_err());
    let weights = network.initial_weights(1, init(3)).unwrap();
    let rows: Vec<&[f64]> = weights.chunks_exact(8).collect();
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row[7], 0.0, "the bias of unit {i}");
        for (j, other) in rows.iter().enumerate() {
            let product: f64 = row[3..7].iter().zip(&other[3..7]).map(|(a, b)| a * b).sum();
            let want = if i == j { 1.0 } else { 0.0 };
            assert!((product - want).abs() < 1e-14, "rows {i} and {j}: {product:e}");
        }
    }
}
