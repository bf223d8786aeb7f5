//! Golden vectors of the pieces of a step: the quadratic model, the reduction ratio, Levenberg-Marquardt, the
//! statistics' moving average.

mod common;

use common::dense::{Matrix, dot, largest};
use common::golden::{Array, Body, Case, list, number, on_every_kernel};
use common::{Room, factor, widened};
use kfac_core::LayerShape;
use kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt, Ratio, Verdict, reduction_ratio};
use kfac_core::evidence::Moments;
use kfac_core::linalg::{Kernel, MatRef, Scalar};
use kfac_core::map::Factored;
use kfac_core::shape::Side;
use kfac_core::statistics::average::ramp;
use kfac_core::step::{FisherProducts, ModelError, Proposal, QuadraticModel, Slopes};
use serde_json::Value;

#[test]
fn golden_pieces_of_a_step() {
    on_every_kernel("step_pieces", &Pieces);
}

struct Pieces;

impl Body for Pieces {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case) {
        match case.family.as_str() {
            "quadratic_model" => quadratic_model::<T>(case),
            "quadratic_sequence" => quadratic_sequence::<T>(case),
            "levenberg_marquardt" => levenberg_marquardt::<T>(case),
            "reduction_ratio" => ratio::<T>(case),
            "moving_average" => moving_average(kernel, case),
            _ => case.unknown_family(),
        }
        case.assert_compared::<T>();
    }
}

/// `vᵀFw` by plain loops.
fn products<T: Scalar>(fisher: &Matrix, delta: &[T], previous: &[T]) -> FisherProducts<T> {
    let (delta, previous) = (widened(delta), widened(previous));
    let product = |v: &[f64], w: &[f64]| T::from_f64(dot(v, &fisher.times(w)));
    FisherProducts {
        delta_delta: product(&delta, &delta),
        delta_previous: product(&delta, &previous),
        previous_previous: product(&previous, &previous),
    }
}

/// `α Δ + μ δ₀`.
fn step<T: Scalar>(proposal: &Proposal<T>, delta: &[T], previous: &[T]) -> Vec<T> {
    let element = |(&d, &p): (&T, &T)| proposal.alpha * d + proposal.mu * p;
    delta.iter().zip(previous).map(element).collect()
}

fn quadratic_model<T: Scalar>(case: &Case) {
    let [gradient, delta, previous] =
        ["gradient", "proposed", "previous"].map(|key| case.input::<T>(key).data);
    let model =
        QuadraticModel { lambda: T::from_f64(case.number("lambda")), l2: T::from_f64(case.number("eta")) };
    let mut slopes = Slopes::default();
    slopes.add(&gradient, &delta, &previous).unwrap();
    let outcome = model.minimise(slopes, products(&case.input::<T>("fisher").matrix(), &delta, &previous));
    match case.expected["status"].as_str() {
        Some("ok") => {
            let proposal = outcome.unwrap();
            case.expect("alpha", &[proposal.alpha]);
            case.expect("mu", &[proposal.mu]);
            case.expect("delta", &step(&proposal, &delta, &previous));
            case.expect("predicted_with_damping", &[proposal.predicted]);
            case.expect("predicted_without_damping", &[proposal.predicted_without_damping]);
        }
        Some("no_curvature") => {
            let error = outcome.expect_err(&case.label);
            assert!(matches!(error, ModelError::NoCurvature { .. }), "{}: {error}", case.label);
            case.count_comparison();
        }
        other => panic!("{}: no status {other:?}", case.label),
    }
}

/// Rescaling and momentum on a fixed quadratic are preconditioned conjugate gradients, with `ρ = 1` at every step.
fn quadratic_sequence<T: Scalar>(case: &Case) {
    let [q, p] = ["q", "p"].map(|key| case.input::<T>(key).matrix());
    let [b, mut theta] = ["b", "theta0"].map(|key| widened(&case.input::<T>(key).data));
    let value = |theta: &[f64]| 0.5 * dot(theta, &q.times(theta)) + dot(&b, theta);
    let rounded = |x: &[f64]| -> Vec<T> { x.iter().map(|&x| T::from_f64(x)).collect() };
    let model = QuadraticModel { lambda: T::ZERO, l2: T::ZERO };
    let mut previous = vec![T::ZERO; theta.len()];
    for want in list(&case.expected["steps"]) {
        case.compare("theta_before", &want["theta_before"], &rounded(&theta));
        let gradient: Vec<f64> = q.times(&theta).iter().zip(&b).map(|(x, b)| x + b).collect();
        let delta: Vec<T> = p.solve(&gradient).iter().map(|x| T::from_f64(-x)).collect();
        let mut slopes = Slopes::default();
        slopes.add(&rounded(&gradient), &delta, &previous).unwrap();
        let proposal = model.minimise(slopes, products(&q, &delta, &previous)).unwrap();
        previous = step(&proposal, &delta, &previous);
        let before = value(&theta);
        theta.iter_mut().zip(&previous).for_each(|(theta, step)| *theta += step.to_f64());
        case.compare("alpha", &want["alpha"], &[proposal.alpha]);
        case.compare("mu", &want["mu"], &[proposal.mu]);
        case.compare("predicted", &want["predicted"], &[proposal.predicted]);
        // Near the minimum the promise may be too small to judge by, which the file does not know.
        let (before, after) = (T::from_f64(before), T::from_f64(value(&theta)));
        if let Ratio::Is(rho) = reduction_ratio(proposal.predicted, before, after) {
            case.compare("rho", &want["rho"], &[rho]);
        }
        case.compare("theta_after", &want["theta_after"], &rounded(&theta));
    }
    if list(&case.expected["steps"]).len() == theta.len() {
        case.expect("minimum", &rounded(&theta));
    }
}

fn levenberg_marquardt<T: Scalar>(case: &Case) {
    let rule = AdaptationRule {
        every: case.count("t1") as u32,
        omega: T::from_f64(case.number("omega_base")),
        floor: T::from_f64(case.number("lambda_min")),
        cap: T::MAX,
    };
    case.expect("omega", &[rule.factor()]);
    let lambda = T::from_f64(case.number("lambda0"));
    let ratios: Vec<f64> = list(&case.inputs["rho"]).iter().map(|rho| number(rho).unwrap()).collect();
    let key = "lambda_after_step";

    // The update from a given ratio, every T₁ steps.
    let mut current = LevenbergMarquardt::new(lambda, rule).unwrap();
    let mut lambdas = vec![];
    for (step, &rho) in (1..).zip(&ratios) {
        if step % rule.every == 0 {
            let adapted = current.adapted(T::from_f64(rho));
            current = LevenbergMarquardt::new(adapted, rule).unwrap();
        }
        lambdas.push(current.lambda());
    }
    case.expect(key, &lambdas);

    // The same from losses. From loss 0 with a promise of -1 the ratio is exactly minus the loss; one that is not
    // finite is a rejected step, which is remembered until the next adaptation: the file has no such memory.
    if ratios.iter().all(|rho| rho.is_finite()) {
        let mut judged = LevenbergMarquardt::new(lambda, rule).unwrap();
        let after_step = |&rho: &f64| {
            let verdict = judged.judge(-T::ONE, T::ZERO, T::from_f64(-rho));
            assert_eq!(verdict, Verdict::Accepted { rho: Some(T::from_f64(rho)) }, "{}", case.label);
            judged.lambda()
        };
        case.expect(key, &ratios.iter().map(after_step).collect::<Vec<T>>());
    }
}

fn ratio<T: Scalar>(case: &Case) {
    let [before, after, predicted] =
        ["h_before", "h_after", "predicted"].map(|key| case.input::<T>(key).data);
    let steps = before.iter().zip(&after).zip(&predicted);
    let rho = |((&before, &after), &predicted)| match reduction_ratio(predicted, before, after) {
        Ratio::Is(rho) => rho,
        Ratio::NotFinite => -T::from_f64(f64::INFINITY),
        Ratio::Negligible => panic!("{}: {predicted:e} cannot be judged", case.label),
    };
    case.expect("rho", &steps.map(rho).collect::<Vec<T>>());
    let is_rejected: Vec<Value> = after.iter().map(|after| Value::Bool(!after.is_finite())).collect();
    assert_eq!(list(&case.expected["step_rejected"]), is_rejected, "{}", case.label);
}

/// Ours is the ramp. Two averages that peers use are here to tell them apart.
fn moving_average<T: Scalar, K: Kernel<T>>(kernel: K, case: &Case) {
    let batches: Vec<Array<T>> =
        list(&case.inputs["batches"]).iter().map(|batch| Array::read(batch).unwrap()).collect();
    let decay = T::from_f64(case.number("decay"));
    let averages = match case.inputs["kind"].as_str() {
        Some("ramp") => {
            let epsilons: Vec<T> = (1..=batches.len() as u32).map(|k| ramp(k, decay)).collect();
            case.expect("epsilon", &epsilons);
            averages_of_the_core(kernel, decay, &batches)
        }
        Some("weight_normalised") => peer_average(&batches, decay, Peer::WeightNormalised),
        Some("identity_initialised") => peer_average(&batches, decay, Peer::IdentityInitialised),
        other => panic!("{}: no kind of average {other:?}", case.label),
    };
    for (want, got) in list(&case.expected["average_after_update"]).iter().zip(&averages) {
        case.compare("average_after_update", want, got);
    }
}

/// Every batch as a finished moment on both sides.
///
/// A moment matrix may be no moment of anything in these files (a negative number): only the averages are asked.
fn averages_of_the_core<T: Scalar, K: Kernel<T>>(kernel: K, decay: T, batches: &[Array<T>]) -> Vec<Vec<T>> {
    let size = batches[0].shape[0];
    let net = [LayerShape::dense(size, size).without_bias()];
    let mut room = Room::new::<Factored, K>(&net);
    let (kfac, scratch) = room.precondition(&net, Factored, kernel);
    let mut kfac = kfac.with_decay(decay).unwrap();
    let mut averages = vec![];
    for batch in batches {
        let moment = MatRef::row_major(&batch.data, size, size).unwrap();
        kfac.observe(1).add_moments(0, Moments { a: moment, g: moment, positions: T::ONE }, scratch).unwrap();
        let [a, g] = Side::BOTH.map(|side| factor(&kfac, 0, side));
        assert_eq!(a, g);
        averages.push(a.data.iter().map(|&x| T::from_f64(x)).collect());
    }
    averages
}

#[derive(Clone, Copy)]
enum Peer {
    /// `Σ decay^age batch / Σ decay^age`.
    WeightNormalised,
    /// `decay old + (1 - decay) batch`, beginning with the identity.
    IdentityInitialised,
}

fn peer_average<T: Scalar>(batches: &[Array<T>], decay: T, peer: Peer) -> Vec<Vec<T>> {
    let decay = decay.to_f64();
    let size = batches[0].shape[0];
    let (mut sum, mut weight) = match peer {
        Peer::WeightNormalised => (Matrix::zeros(size, size), 0.0),
        Peer::IdentityInitialised => {
            (Matrix::zeros(size, size).shifted(1.0 / (1.0 - decay)), 1.0 / (1.0 - decay))
        }
    };
    let mut averages = vec![];
    for batch in batches {
        let batch = batch.matrix();
        sum = Matrix::from_fn(size, size, |i, j| decay * sum.at(i, j) + batch.at(i, j));
        weight = decay * weight + 1.0;
        averages.push(sum.data.iter().map(|x| T::from_f64(x / weight)).collect());
    }
    averages
}

/// The model's promise is the change of the quadratic itself, for any step: checked beside the golden numbers on
/// theirs, so that both `predicted` fields are pinned by their definition too.
#[test]
fn the_predicted_change_is_the_model_at_the_step() {
    let fisher = Matrix::new(3, 3, vec![2.0, 0.5, 0.1, 0.5, 1.0, -0.3, 0.1, -0.3, 0.7]);
    let [gradient, delta, previous] = [[1.0, -2.0, 0.5], [-0.7, 0.9, 0.2], [0.3, 0.1, -0.4]];
    let model = QuadraticModel { lambda: 0.3, l2: 0.07 };
    let mut slopes = Slopes::default();
    slopes.add(&gradient, &delta, &previous).unwrap();
    let proposal = model.propose(1.3, -0.6, slopes, products(&fisher, &delta, &previous));
    let step = step(&proposal, &delta, &previous);
    let change = |damping: f64| {
        0.5 * dot(&step, &fisher.times(&step)) + 0.5 * damping * dot(&step, &step) + dot(&gradient, &step)
    };
    let got = [proposal.predicted, proposal.predicted_without_damping, proposal.divergence];
    let want = [change(0.37), change(0.07), 0.5 * dot(&step, &fisher.times(&step))];
    // A dozen additions of numbers of order 1.
    let allowed = 16.0 * f64::EPSILON * largest(&want);
    assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() <= allowed), "{got:?} is not {want:?}");
}
