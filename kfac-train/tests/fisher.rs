//! The Fisher matrix of whole networks, built densely: the products that the quadratic model rests on, and the
//! gradients at drawn targets that the factors rest on.

mod common;

use common::dense::{Matrix, assert_close, dot, largest};
use common::nets::{Net, batch, of_30_weights, weights};
use common::{
    DIFFERENCE, LOSSES, derivative, fisher_matrix, jacobian, moved, output_fisher, outputs, random,
    unit_vectors,
};
use kfac_train::data::{Batch, Targets};
use kfac_train::kfac_core::losses::Loss;
use kfac_train::kfac_linalg::{Fast, Kernel, Reproducible};
use kfac_train::model::Network;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::ops::Range;

/// Sums over at most 200 terms of moderate size, twice: `200 ε` with room for cancellation.
const EXACT: f64 = 1e-12;

struct Case<K> {
    name: String,
    network: Network<f64, K>,
    weights: Vec<f64>,
    batch: Batch<f64>,
}

/// One body over all networks of 30 weights, under every loss.
fn for_each_case<K: Kernel<f64>>(kernel: K, mut body: impl FnMut(&Net<K>, Case<K>)) {
    for (index, net) in of_30_weights::<K>().into_iter().enumerate() {
        for loss in LOSSES {
            let mut network = net.build(loss, kernel);
            let weights = weights(&network, 20 + index as u64);
            assert_eq!(weights.len(), 30, "{}", net.name);
            let batch = batch(&network, &net, net.cases, 40 + index as u64);
            network.forward(&weights, &batch).unwrap();
            let name = format!("{} under {loss:?}", net.name);
            body(&net, Case { name, network, weights, batch });
        }
    }
}

impl<K: Kernel<f64>> Case<K> {
    /// `J` from forward-mode derivatives.
    fn jacobian(&mut self) -> Matrix {
        jacobian(&mut self.network, &self.weights)
    }

    /// `J`, column by column from differences of outputs.
    fn jacobian_from_differences(&mut self) -> Matrix {
        let column = |direction: Vec<f64>| {
            derivative(|t| {
                self.network.forward(&moved(&self.weights, t, &direction), &self.batch).unwrap();
                outputs(&self.network)
            })
        };
        let columns: Vec<_> = unit_vectors(30).map(column).collect();
        self.network.forward(&self.weights, &self.batch).unwrap();
        Matrix::from_columns(&columns)
    }

    fn fisher(&self, jacobian: &Matrix) -> Matrix {
        fisher_matrix(&self.network, jacobian, self.batch.cases)
    }

    fn parts(&self) -> Vec<Range<usize>> {
        self.network.blocks().map(|(_, part)| part).collect()
    }

    /// The gradient of the loss at `targets`, of the last forward pass.
    fn gradient_at(&mut self, targets: &Targets<f64>) -> Vec<f64> {
        let mut gradient = vec![f64::NAN; 30];
        self.network.backward(&self.weights, targets).unwrap();
        self.network.gradient(&mut gradient).unwrap();
        gradient
    }
}

/// `v` but for one block, which is zero elsewhere.
fn only(v: &[f64], part: &Range<usize>) -> Vec<f64> {
    v.iter().enumerate().map(|(i, &v)| if part.contains(&i) { v } else { 0.0 }).collect()
}

fn products_are_dense<K: Kernel<f64>>(kernel: K) {
    for_each_case(kernel, |_, mut case| {
        let [v, w] = [1, 2].map(|seed| random(30, seed));
        let products = case.network.fisher_products(&case.weights, &v, &w).unwrap();
        let found = [products.delta_delta, products.delta_previous, products.previous_previous];
        let jacobians = [case.jacobian(), case.jacobian_from_differences()];
        assert_close(&case.name, &jacobians[0].data, &jacobians[1].data, DIFFERENCE);
        // A product is quadratic in `J`, and its terms cancel: the differences' error counts ten times.
        for (jacobian, tolerance) in jacobians.iter().zip([EXACT, 10.0 * DIFFERENCE]) {
            let f = case.fisher(jacobian);
            let want = [f.product(&v, &v), f.product(&v, &w), f.product(&w, &w)];
            assert_close(&case.name, &found, &want, tolerance);
        }

        // Without any one block off the diagonal, each product is another number.
        let f = case.fisher(&jacobians[0]);
        let parts = case.parts();
        for (i, row) in parts.iter().enumerate() {
            for (j, column) in parts.iter().enumerate().filter(|&(j, _)| i != j) {
                let block = |x: &[f64], y: &[f64]| f.product(&only(x, row), &only(y, column));
                let dropped = [block(&v, &v), block(&v, &w), block(&w, &w)];
                let change = dropped.iter().fold(f64::INFINITY, |least, x| least.min(x.abs()));
                let needed = 1e6 * EXACT * largest(&found);
                assert!(change > needed, "{}: block {i}, {j} only counts {dropped:?}", case.name);
            }
        }
    });
}

#[test]
fn the_three_fisher_products_equal_v_j_h_j_w_built_densely_with_every_block_off_the_diagonal() {
    products_are_dense(Reproducible);
    products_are_dense(Fast::detect());
}

#[test]
fn directions_along_one_block_see_the_diagonal_block_alone() {
    for_each_case(Reproducible, |_, mut case| {
        let jacobian = case.jacobian();
        let f = case.fisher(&jacobian);
        for part in case.parts() {
            let v = only(&random(30, 5), &part);
            let zero = vec![0.0; 30];
            let products = case.network.fisher_products(&case.weights, &v, &zero).unwrap();
            assert_close(&case.name, &[products.delta_delta], &[f.product(&v, &v)], EXACT);
            assert_eq!((products.delta_previous, products.previous_previous), (0.0, 0.0), "{}", case.name);
        }
    });
}

/// Targets of one row and their weights such that `Σ weight g gᵀ = H` exactly: all that can be drawn, or for the
/// normal distribution the columns of the root of `H`.
fn all_targets(loss: Loss, f: &[f64]) -> Vec<(f64, Targets<f64>)> {
    match loss {
        Loss::Square => {
            unit_vectors(f.len()).map(|unit| (1.0, Targets::Values(moved(f, -1.0, &unit)))).collect()
        }
        Loss::Softmax => {
            let total: f64 = f.iter().map(|f| f.exp()).sum();
            let share = |(class, f): (usize, &f64)| (f.exp() / total, Targets::Classes(vec![class as u32]));
            f.iter().enumerate().map(share).collect()
        }
        Loss::Bernoulli => (0..1 << f.len())
            .map(|drawn: u32| {
                let y = (0..f.len()).map(|i| f64::from(drawn >> i & 1));
                let share = |(y, f): (f64, &f64)| {
                    if y == 1.0 { 1.0 / (1.0 + (-f).exp()) } else { 1.0 / (1.0 + f.exp()) }
                };
                (y.clone().zip(f).map(share).product(), Targets::Values(y.collect()))
            })
            .collect(),
    }
}

/// What makes a second moment of gradients at drawn targets the Fisher matrix, `g gᵀ` scaled by nothing.
#[test]
fn the_expected_square_of_a_cases_gradient_over_all_targets_is_its_fisher_matrix() {
    for_each_case(Reproducible, |net, mut case| {
        case.batch = batch(&case.network, net, 1, 60);
        case.network.forward(&case.weights, &case.batch).unwrap();
        let f = outputs(&case.network);
        if f.len() > net.outputs {
            return; // Several rows are drawn independently: their joint targets are too many.
        }
        let mut mean = Matrix::zeros(30, 30);
        for (weight, targets) in all_targets(case.network.loss_function(), &f) {
            let gradient = case.gradient_at(&targets);
            mean.add_outer(weight, &gradient, &gradient);
        }
        let jacobian = case.jacobian();
        assert_close(&case.name, &mean.data, &case.fisher(&jacobian).data, EXACT);
    });
}

/// Draws of the statistical test.
const DRAWS: usize = 4_000;
/// Standard errors that a mean may be off: of some thousand numbers none should be (chance 1e-4).
const STANDARD_ERRORS: f64 = 5.5;

/// A mean with its standard error.
#[derive(Clone, Default)]
struct Mean {
    sum: f64,
    squares: f64,
}

impl Mean {
    fn add(&mut self, x: f64) {
        self.sum += x;
        self.squares += x * x;
    }

    /// Distance from `want` in standard errors; exact zeros must be met exactly, up to rounding.
    fn distance(&self, want: f64) -> f64 {
        let n = DRAWS as f64;
        let mean = self.sum / n;
        let variance = (self.squares / n - mean * mean).max(0.0);
        (mean - want).abs() / ((variance / n).sqrt() + EXACT)
    }
}

#[test]
fn sampled_backward_passes_have_the_fisher_matrix_as_their_mean_square() {
    for_each_case(Reproducible, |net, mut case| {
        let mut generator = ChaCha8Rng::seed_from_u64(11);
        case.batch = batch(&case.network, net, 1, 60);
        case.network.forward(&case.weights, &case.batch).unwrap();
        let f = outputs(&case.network);
        let (mut at_outputs, mut at_weights) =
            (vec![Mean::default(); f.len() * f.len()], vec![Mean::default(); 30 * 30]);
        let mut gradient = vec![0.0; 30];
        for _ in 0..DRAWS {
            case.network.backward_sampled(&case.weights, &mut generator).unwrap();
            case.network.gradient(&mut gradient).unwrap();
            let rows = case.network.evidence().unwrap().last().unwrap().1.rows();
            let g: Vec<f64> = (0..rows.rows()).flat_map(|row| rows.row(row).unwrap().to_vec()).collect();
            for (means, x) in [(&mut at_outputs, &g), (&mut at_weights, &gradient)] {
                for (i, x_i) in x.iter().enumerate() {
                    for (j, x_j) in x.iter().enumerate() {
                        means[i * x.len() + j].add(x_i * x_j);
                    }
                }
            }
        }
        // The last layer is dense: its `g` is the gradient at the outputs. Rows are drawn independently.
        let h = Matrix::from_fn(f.len(), f.len(), |i, j| {
            let row = i / net.outputs;
            let block = output_fisher(case.network.loss_function(), &f[row * net.outputs..][..net.outputs]);
            if row == j / net.outputs { block.at(i % net.outputs, j % net.outputs) } else { 0.0 }
        });
        let jacobian = case.jacobian();
        for (what, means, want) in
            [("outputs", &at_outputs, &h), ("weights", &at_weights, &case.fisher(&jacobian))]
        {
            let distances = means.iter().zip(&want.data).map(|(mean, &want)| mean.distance(want));
            let worst = distances.fold(0.0, f64::max);
            assert!(worst <= STANDARD_ERRORS, "{}, at the {what}: {worst} standard errors", case.name);
        }
    });
}

/// The probability of a condition that holds for `bits = 0` and, once it fails, fails for all larger ones; over all
/// 2^24 numbers that [`Loss::sampled_gradient`] tells apart.
fn probability(holds: impl Fn(u32) -> bool) -> f64 {
    let (mut low, mut high) = (0_u32, 1 << 24);
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle << 8) { low = middle + 1 } else { high = middle }
    }
    f64::from(low) / f64::from(1 << 24)
}

/// Each draw has the share of the integers that the model gives it, up to one integer for each boundary.
#[test]
fn classes_and_bits_are_drawn_with_exactly_the_models_probabilities() {
    let f = [0.7_f64, -1.1, 0.2, 0.4];
    let one_integer = 1.0 / f64::from(1 << 24);
    let drawn = |loss: Loss, bits: &[u32]| {
        let mut g = [0.0; 4];
        loss.sampled_gradient(&f, bits, &mut g).unwrap();
        g.map(|g| g < 0.0)
    };
    let total: f64 = f.iter().map(|f| f.exp()).sum();
    let mut up_to = 0.0;
    for (class, f) in f.iter().enumerate() {
        up_to += f.exp() / total;
        let found = probability(|bits| drawn(Loss::Softmax, &[bits])[..=class].contains(&true));
        assert!((found - up_to).abs() <= one_integer, "up to class {class}: {found} is not {up_to}");
    }
    for (index, f) in f.iter().enumerate() {
        let found = probability(|bits| drawn(Loss::Bernoulli, &[bits; 4])[index]);
        let want = 1.0 / (1.0 + (-f).exp());
        assert!((found - want).abs() <= one_integer, "output {index}: {found} is not {want}");
    }
    // The gradient at a class is that of the loss there.
    let (mut sampled, mut exact) = ([0.0; 4], [0.0; 4]);
    Loss::Softmax.sampled_gradient(&f, &[u32::MAX], &mut sampled).unwrap();
    let last = kfac_train::kfac_core::losses::Target::Class(3);
    Loss::Softmax.gradient(&f, last, &mut exact).unwrap();
    assert!(dot(&sampled, &exact) > 0.0);
    assert_eq!(sampled, exact);
}
