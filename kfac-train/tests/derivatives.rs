//! Every layer's three passes, inside small networks, against finite differences and against each other.

mod common;

use common::dense::{assert_close, dot};
use common::nets::{Net, batch, table, weights};
use common::{DIFFERENCE, LOSSES, Numbers, ROUNDING, bits, derivative, moved, outputs, random, unit_vectors};
use kfac_train::data::{Batch, Targets};
use kfac_train::kfac_core::evidence::Inputs;
use kfac_train::kfac_core::losses::Loss;
use kfac_train::kfac_linalg::{Fast, Kernel, Reproducible};
use kfac_train::model::Network;

/// A network of the table at random weights, with a batch.
struct Case<K> {
    name: String,
    network: Network<f64, K>,
    weights: Vec<f64>,
    batch: Batch<f64>,
}

/// One body over the table: every network under every loss.
fn for_each_case<K: Kernel<f64>>(kernel: K, mut body: impl FnMut(&Net<K>, Case<K>)) {
    for (index, net) in table::<K>().into_iter().enumerate() {
        for loss in LOSSES {
            let network = net.build(loss, kernel);
            let weights = weights(&network, index as u64);
            let batch = batch(&network, &net, net.cases, 100 + index as u64);
            let name = format!("{} under {loss:?}", net.name);
            body(&net, Case { name, network, weights, batch });
        }
    }
}

impl<K: Kernel<f64>> Case<K> {
    fn outputs_at(&mut self, weights: &[f64]) -> Vec<f64> {
        self.network.forward(weights, &self.batch).unwrap();
        outputs(&self.network)
    }

    fn loss_at(&mut self, weights: &[f64]) -> f64 {
        self.network.forward(weights, &self.batch).unwrap();
        self.network.mean_loss(&self.batch.targets).unwrap()
    }

    fn gradient(&mut self) -> Vec<f64> {
        let mut gradient = vec![f64::NAN; self.weights.len()];
        self.network.forward(&self.weights, &self.batch).unwrap();
        self.network.backward(&self.weights, &self.batch.targets).unwrap();
        self.network.gradient(&mut gradient).unwrap();
        gradient
    }

    fn tangent(&mut self, direction: &[f64]) -> Vec<f64> {
        self.network.forward(&self.weights, &self.batch).unwrap();
        let rows = self.network.tangent(&self.weights, direction).unwrap();
        (0..rows.rows()).flat_map(|row| rows.row(row).unwrap().to_vec()).collect()
    }
}

fn gradients_are_derivatives<K: Kernel<f64>>(kernel: K) {
    for_each_case(kernel, |_, mut case| {
        let gradient = case.gradient();
        let w = case.weights.clone();
        let differences: Vec<f64> = unit_vectors(w.len())
            .map(|direction| derivative(|t| vec![case.loss_at(&moved(&w, t, &direction))])[0])
            .collect();
        assert_close(&case.name, &gradient, &differences, DIFFERENCE);
    });
}

#[test]
fn the_gradient_is_the_derivative_of_the_mean_loss_by_every_weight() {
    gradients_are_derivatives(Reproducible);
    gradients_are_derivatives(Fast::detect());
}

fn tangents_are_derivatives<K: Kernel<f64>>(kernel: K) {
    for_each_case(kernel, |_, mut case| {
        let (w, direction) = (case.weights.clone(), random(case.weights.len(), 7));
        let differences = derivative(|t| case.outputs_at(&moved(&w, t, &direction)));
        let tangent = case.tangent(&direction);
        assert_close(&case.name, &tangent, &differences, DIFFERENCE);
    });
}

#[test]
fn the_tangent_is_the_derivative_of_all_outputs_along_a_direction() {
    tangents_are_derivatives(Reproducible);
    tangents_are_derivatives(Fast::detect());
}

/// `⟨J v, u⟩ = ⟨v, Jᵀ u⟩`. Under [`Loss::Square`] the targets `f - u` send any `u` back.
fn passes_are_transposes<K: Kernel<f64>>(kernel: K) {
    for_each_case(kernel, |_, mut case| {
        if case.network.loss_function() != Loss::Square {
            return;
        }
        let w = case.weights.clone();
        let f = case.outputs_at(&w);
        let (u, v) = (random(f.len(), 8), random(w.len(), 9));
        case.batch.targets = Targets::Values(moved(&f, -1.0, &u));
        let cases = case.batch.cases as f64;
        let back: Vec<f64> = case.gradient().iter().map(|g| cases * g).collect();
        let forth = case.tangent(&v);
        let (left, right) = (dot(&forth, &u), dot(&v, &back));
        let size: f64 = forth.iter().zip(&u).map(|(x, y)| (x * y).abs()).sum();
        assert!((left - right).abs() <= ROUNDING * size, "{}: {left:e} is not {right:e}", case.name);
    });
}

#[test]
fn forward_mode_and_backward_passes_are_transposes() {
    passes_are_transposes(Reproducible);
    passes_are_transposes(Fast::detect());
}

/// `V = (1/N) Σ g āᵀ` over cases and positions, from the rows that the statistics are fed with, case after case.
#[test]
fn the_gradient_is_the_mean_over_cases_of_what_the_evidence_holds() {
    for_each_case(Reproducible, |_, mut case| {
        let gradient = case.gradient();
        let cases = case.batch.cases;
        let blocks: Vec<_> = case.network.blocks().collect();
        for ((shape, part), (inputs, gradients)) in blocks.into_iter().zip(case.network.evidence().unwrap()) {
            let g = gradients.rows();
            assert_eq!(inputs.cases() * inputs.positions(), g.rows(), "{}", case.name);
            assert_eq!((inputs.cases(), inputs.features()), (cases, shape.features()), "{}", case.name);
            assert_eq!(gradients.factor(), 1.0, "{}", case.name);
            let mut sum = common::dense::Matrix::zeros(shape.outputs(), shape.inputs());
            for row in 0..g.rows() {
                let mut a = vec![1.0; shape.inputs()];
                let position = (row / inputs.positions(), row % inputs.positions());
                inputs.write_row(position.0, position.1, &mut a[..shape.features()]);
                sum.add_outer(1.0 / cases as f64, g.row(row).unwrap(), &a);
            }
            assert_close(&case.name, &gradient[part], &sum.data, ROUNDING);
        }
    });
}

/// Loss, gradient, tangent and Fisher products at once.
fn everything<K: Kernel<f64>>(case: &mut Case<K>) -> Vec<u64> {
    let (v, w) = (random(case.weights.len(), 10), random(case.weights.len(), 11));
    let weights = case.weights.clone();
    let mut all = vec![case.loss_at(&weights)];
    all.extend(case.gradient());
    all.extend(case.tangent(&v));
    let products = case.network.fisher_products(&weights, &v, &w).unwrap();
    all.extend([products.delta_delta, products.delta_previous, products.previous_previous]);
    bits(&all)
}

#[test]
fn buffers_that_held_a_larger_batch_give_the_bits_of_fresh_ones() {
    for_each_case(Reproducible, |net, mut case| {
        let fresh = everything(&mut case);
        let small = case.batch.clone();
        for cases in [net.cases + 3, 1] {
            case.batch = batch(&case.network, net, cases, 200);
            everything(&mut case);
        }
        case.batch = small;
        assert_eq!(everything(&mut case), fresh, "{}", case.name);
    });
}

/// The mean over cases: a batch that is two batches has the mean of their losses and gradients, weighted by cases.
#[test]
fn losses_and_gradients_of_batches_add_up_by_cases() {
    for_each_case(Reproducible, |net, mut case| {
        let all = case.batch.clone();
        let whole: Vec<f64> = [case.gradient(), vec![case.loss_at(&case.weights.clone())]].concat();
        let mut sum = vec![0.0; whole.len()];
        for one in 0..all.cases {
            case.batch = single(&all, one);
            let (gradient, weights) = (case.gradient(), case.weights.clone());
            let part = [gradient, vec![case.loss_at(&weights)]].concat();
            sum = moved(&sum, 1.0 / net.cases as f64, &part);
        }
        assert_close(&case.name, &whole, &sum, ROUNDING);
    });
}

/// Case `index` of a batch.
fn single(batch: &Batch<f64>, index: usize) -> Batch<f64> {
    fn part<X: Copy>(all: &[X], index: usize, cases: usize) -> Vec<X> {
        let len = all.len() / cases;
        all[index * len..][..len].to_vec()
    }
    let targets = match &batch.targets {
        Targets::Values(values) => Targets::Values(part(values, index, batch.cases)),
        Targets::Classes(classes) => Targets::Classes(part(classes, index, batch.cases)),
    };
    Batch { cases: 1, inputs: part(&batch.inputs, index, batch.cases), targets }
}

#[test]
fn the_five_point_formula_differentiates() {
    let mut numbers = Numbers(3);
    let x = numbers.next();
    let found = derivative(|t| vec![(x + t).exp(), (x + t).sin()]);
    assert_close("exp and sin", &found, &[x.exp(), x.cos()], DIFFERENCE / 100.0);
}
