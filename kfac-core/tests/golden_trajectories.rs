//! Golden trajectories: the whole optimizer, step after step, on networks that are written out.
//!
//! Factors with the exact (type-2) Fisher, the quadratic model with the exact Fisher of the whole net as a dense
//! matrix, damping by Levenberg-Marquardt.

mod common;

use common::dense::{Matrix, dot};
use common::golden::{Array, Body, Case, list, on_every_kernel};
use common::net::{DenseNet, Layer, Loss, LossTerms, Model, Sharing, layers};
use common::{Room, factor, widened};
use kfac_core::LayerShape;
use kfac_core::damping::adapt::{AdaptationRule, LevenbergMarquardt, Verdict};
use kfac_core::linalg::{Kernel, Scalar};
use kfac_core::map::{Eigenbasis, FactorMap, Factored, Shifted};
use kfac_core::recipe::{AdaptiveStep, PredictedChange};
use kfac_core::shape::Side;
use kfac_core::step::{FisherProducts, Slopes};
use serde_json::Value;

#[test]
fn golden_trajectories_of_the_whole_optimizer() {
    on_every_kernel("trajectories", &Trajectories);
}

struct Trajectories;

impl Body for Trajectories {
    fn run<T: Scalar, K: Kernel<T>>(&self, kernel: K, case: &Case) {
        if case.family != "trajectory" {
            case.unknown_family();
        }
        assert_eq!(case.inputs["fisher"], "exact", "{}", case.label);
        match case.inputs["map"].as_str() {
            Some("factored") => run_trajectory(kernel, Factored, &Problem::<T>::of(case)),
            Some("exact") => {
                run_trajectory(kernel, Eigenbasis::full(), &Problem::<T>::of(case));
                run_trajectory(kernel, Shifted::full(), &Problem::<T>::of(case));
            }
            other => panic!("{}: no map {other:?}", case.label),
        }
        case.assert_compared::<T>();
    }
}

/// A network, its data, and its loss `h`: the mean over cases plus `η |θ|² / 2`.
struct Problem<'c, T> {
    case: &'c Case,
    layers: Vec<Layer<T>>,
    x: Array<T>,
    targets: Vec<T>,
    loss: Loss<T>,
    eta: T,
}

impl<'c, T: Scalar> Problem<'c, T> {
    fn of(case: &'c Case) -> Self {
        Self {
            case,
            layers: layers(&case.inputs["layers"]),
            x: case.input("x"),
            targets: case.input("targets").data,
            loss: Loss::of(case),
            eta: T::from_f64(case.number("eta")),
        }
    }

    fn shapes(&self) -> Vec<LayerShape> {
        self.layers.iter().map(|layer| layer.shape).collect()
    }

    /// All weights, layer by layer.
    fn weights(&self) -> Vec<T> {
        self.layers.iter().flat_map(|layer| layer.w.clone()).collect()
    }

    fn net_at(&self, theta: &[T]) -> DenseNet<T> {
        let mut theta = theta;
        let mut layers = self.layers.clone();
        for layer in &mut layers {
            let (w, rest) = theta.split_at(layer.w.len());
            (layer.w, theta) = (w.to_vec(), rest);
        }
        DenseNet::new(layers, LossTerms::PerPosition, &self.x)
    }

    fn h(&self, theta: &[T]) -> T {
        let squares = theta.iter().fold(T::ZERO, |sum, &w| sum + w * w);
        self.net_at(theta).mean_loss(self.loss, &self.targets) + T::from_f64(0.5) * self.eta * squares
    }

    fn gradient(&self, net: &DenseNet<T>, theta: &[T]) -> Vec<T> {
        let mean = net.mean_gradients(&net.loss_gradients(self.loss, &self.targets)).concat();
        mean.iter().zip(theta).map(|(&v, &w)| v + self.eta * w).collect()
    }

    /// The Fisher matrix of all weights, blocks between layers included: the mean over cases of the sum over the
    /// Hessian's columns of the outer products of whole gradients.
    fn fisher(&self, net: &DenseNet<T>) -> Matrix {
        let weights = self.weights().len();
        let mut fisher = Matrix::zeros(weights, weights);
        for case in 0..net.cases() {
            for column in net.hessian_columns(self.loss, case) {
                let whole = widened(&net.weight_gradients(case, &column).concat());
                fisher.add_outer(1.0 / net.cases() as f64, &whole, &whole);
            }
        }
        fisher
    }
}

fn run_trajectory<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(kernel: K, map: M, problem: &Problem<'_, T>) {
    let (case, shapes) = (problem.case, problem.shapes());
    let mut room = Room::new::<M, K>(&shapes);
    let (kfac, scratch) = room.precondition(&shapes, map, kernel);
    let mut kfac = kfac.with_decay(T::from_f64(case.number("decay"))).unwrap().with_l2(problem.eta).unwrap();
    let rule = AdaptationRule {
        every: case.count("t1") as u32,
        omega: T::from_f64(case.number("omega_base")),
        floor: T::from_f64(case.number("lambda_min")),
        cap: T::MAX,
    };
    let lambda = T::from_f64(case.number("lambda0"));
    let mut recipe = AdaptiveStep::new(LevenbergMarquardt::new(lambda, rule).unwrap());
    recipe = recipe.with_l2(problem.eta).unwrap();
    recipe.predicted_change = match case.inputs["damping_counts_in_predicted_change"].as_bool() {
        Some(true) => PredictedChange::WithDamping,
        Some(false) => PredictedChange::WithoutDamping,
        None => panic!("{}: which predicted change?", case.label),
    };

    let mut theta = problem.weights();
    let mut previous = vec![T::ZERO; theta.len()];
    for (index, want) in list(&case.expected["steps"]).iter().enumerate() {
        let net = problem.net_at(&theta);
        let v = problem.gradient(&net, &theta);
        case.compare("lambda", &want["lambda"], &[recipe.lambda()]);
        kfac.set_damping(recipe.lambda()).unwrap();
        if index.is_multiple_of(case.count("t_cov")) {
            let (sets, weight) = net.type_2(problem.loss);
            let mut observation = kfac.observe(sets.len() * net.cases());
            sets.iter()
                .for_each(|set| net.observe(&mut observation, set, (weight, Sharing::Expand), scratch));
        }
        if index.is_multiple_of(case.count("t_inv")) {
            kfac.refresh_all(scratch).unwrap();
        }
        let factors = |side| (0..shapes.len()).map(|l| factor(&kfac, l, side).data).collect::<Vec<_>>();
        compare_layers(case, "factors_a", &want["factors_a"], &factors(Side::Input));
        compare_layers(case, "factors_g", &want["factors_g"], &factors(Side::Output));

        let mut u = v.clone();
        kfac.precondition_flat(&mut u, scratch).unwrap();
        compare_layers(case, "u", &want["u"], &by_layer(&shapes, &u));
        let delta: Vec<T> = u.iter().map(|&u| -u).collect();

        let mut slopes = Slopes::default();
        slopes.add(&v, &delta, &previous).unwrap();
        let fisher = problem.fisher(&net);
        let product = |v: &[T], w: &[T]| T::from_f64(dot(&widened(v), &fisher.times(&widened(w))));
        let products = FisherProducts {
            delta_delta: product(&delta, &delta),
            delta_previous: product(&delta, &previous),
            previous_previous: product(&previous, &previous),
        };
        let proposal = recipe.propose(slopes, products).unwrap();
        let before = problem.h(&theta);
        for ((theta, previous), &delta) in theta.iter_mut().zip(&mut previous).zip(&delta) {
            *previous = proposal.alpha * delta + proposal.mu * *previous;
            *theta += *previous;
        }
        let after = problem.h(&theta);
        let verdict = recipe.judge(before, after);
        for (quantity, value) in [
            ("loss_before", before),
            ("loss_after", after),
            ("alpha", proposal.alpha),
            ("mu", proposal.mu),
            ("predicted_with_damping", proposal.predicted),
            ("predicted_without_damping", proposal.predicted_without_damping),
            ("lambda_next", recipe.lambda()),
        ] {
            case.compare(quantity, &want[quantity], &[value]);
        }
        // `None`: the promise was too small to judge by, which the file does not know.
        if let Verdict::Accepted { rho: Some(rho) } = verdict {
            case.compare("rho", &want["rho"], &[rho]);
        }
        compare_layers(case, "weights_after", &want["weights_after"], &by_layer(&shapes, &theta));
    }
}

fn by_layer<T: Scalar>(shapes: &[LayerShape], mut flat: &[T]) -> Vec<Vec<T>> {
    let mut layers = vec![];
    for shape in shapes {
        let (layer, rest) = flat.split_at(shape.weights());
        layers.push(layer.to_vec());
        flat = rest;
    }
    layers
}

/// A list with one array per layer.
fn compare_layers<T: Scalar>(case: &Case, quantity: &str, want: &Value, got: &[Vec<T>]) {
    for (want, got) in list(want).iter().zip(got) {
        case.compare(quantity, want, got);
    }
}
