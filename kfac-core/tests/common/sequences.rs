//! Sequences in which steps have something in common, and their moments by plain loops.

use super::chain::{Chain, Chains};
use super::dense::Matrix;
use super::{random, widened};
use kfac_core::evidence::{OutputGradients, Sequence};
use kfac_core::linalg::{Kernel, MatRef, Scalar};
use kfac_core::map::FactorMap;
use kfac_core::shape::Side;
use kfac_core::{LayerShape, Preconditioner};

pub const SHAPE: LayerShape = LayerShape::dense(4, 3);

pub const NET: [LayerShape; 1] = [SHAPE];

pub const LAMBDA: f64 = 0.03;

/// Sequences in which each step takes over half of the last, padded with NaN.
pub struct Batch<T> {
    pub steps: usize,
    pub lengths: Vec<usize>,
    pub inputs: Vec<T>,
    pub gradients: Vec<T>,
}

impl<T: Scalar> Batch<T> {
    pub fn new(lengths: &[usize], seed: u64) -> Self {
        let steps = *lengths.iter().max().unwrap();
        let [inputs, gradients] = [(4, seed), (3, seed + 1)].map(|(width, seed)| {
            let noise: Vec<f64> = random(lengths.len() * steps * width, seed);
            let mut rows = vec![T::from_f64(f64::NAN); noise.len()];
            for (case, &length) in lengths.iter().enumerate() {
                let mut row = vec![0.0; width];
                for at in case * steps..case * steps + length {
                    for (j, x) in row.iter_mut().enumerate() {
                        *x = 0.5 * *x + noise[at * width + j];
                        rows[at * width + j] = T::from_f64(*x);
                    }
                }
            }
            rows
        });
        Self { steps, lengths: lengths.to_vec(), inputs, gradients }
    }

    /// In parts of so many cases; the gradients are those of a mean loss over 7 cases.
    pub fn observe<M: FactorMap<T>, K: Kernel<T>>(
        &self,
        kfac: &mut Preconditioner<'_, T, M, K>,
        parts: &[usize],
        scratch: &mut [T],
    ) {
        let mut observation = kfac.observe(self.lengths.len());
        let mut first = 0;
        for &part in parts {
            let rows = part * self.steps;
            let [a, g] = [(&self.inputs, 4), (&self.gradients, 3)].map(|(x, width)| {
                MatRef::row_major(&x[first * self.steps * width..][..rows * width], rows, width).unwrap()
            });
            let a = Sequence::with_lengths(a, self.steps, &self.lengths[first..][..part]).unwrap();
            observation.add(0, &a, OutputGradients::of_mean_loss(g, 7), scratch).unwrap();
            first += part;
        }
        assert_eq!(first, self.lengths.len());
    }

    /// `ā` or `g` at a position.
    pub fn row(&self, side: Side, at: usize) -> Vec<f64> {
        match side {
            Side::Input => [&widened(&self.inputs[4 * at..][..4])[..], &[1.0]].concat(),
            Side::Output => self.gradients[3 * at..][..3].iter().map(|g| 7.0 * g.to_f64()).collect(),
        }
    }

    /// `Σ x_t x_{t-lag}ᵀ` over the cases.
    pub fn sum(&self, side: Side, lag: usize) -> Matrix {
        let width = SHAPE.side(side);
        let mut sum = Matrix::zeros(width, width);
        for (case, &length) in self.lengths.iter().enumerate() {
            for t in case * self.steps + lag..case * self.steps + length {
                sum.add_outer(1.0, &self.row(side, t), &self.row(side, t - lag));
            }
        }
        sum
    }

    pub fn positions(&self) -> f64 {
        self.lengths.iter().sum::<usize>() as f64
    }
}

/// The sums and weights of a running average over batches: `ε = min(1 - 1/k, decay)`.
pub struct Average {
    pub sums: [[Matrix; 2]; 2],
    pub weights: [f64; 2],
    pub lengths: Vec<(usize, f64)>,
}

impl Average {
    pub fn of<T: Scalar>(batches: &[&Batch<T>], decay: f64) -> Self {
        let mut sums =
            Side::BOTH.map(|side| [(); 2].map(|()| Matrix::zeros(SHAPE.side(side), SHAPE.side(side))));
        let (mut weights, mut lengths) = ([0.0; 2], Vec::<(usize, f64)>::new());
        for (k, batch) in batches.iter().enumerate() {
            let keep = (1.0 - 1.0 / (k + 1) as f64).min(decay);
            let share = (1.0 - keep) / batch.lengths.len() as f64;
            for (side, sums) in Side::BOTH.into_iter().zip(&mut sums) {
                for (lag, sum) in sums.iter_mut().enumerate() {
                    let new = batch.sum(side, lag);
                    *sum = Matrix::from_fn(sum.rows, sum.rows, |i, j| {
                        keep * sum.at(i, j) + share * new.at(i, j)
                    });
                }
            }
            let cases = batch.lengths.iter().filter(|&&length| length > 0).count() as f64;
            for (weight, count) in weights.iter_mut().zip([batch.positions(), cases]) {
                *weight = keep * *weight + share * count;
            }
            lengths.iter_mut().for_each(|(_, weight)| *weight *= keep);
            lengths.extend(batch.lengths.iter().filter(|&&length| length > 0).map(|&length| (length, share)));
        }
        let total = weights[1];
        lengths.iter_mut().for_each(|(_, weight)| *weight /= total);
        Self { sums, weights, lengths }
    }

    /// In the paper's scale: at both sides over the count of positions.
    pub fn chains(&self) -> Chains {
        let [a, g] = self
            .sums
            .each_ref()
            .map(|[zero, one]| Chain { zero: zero.clone(), one: one.clone() }.scaled(1.0 / self.weights[0]));
        Chains { a, g, lengths: self.lengths.clone() }
    }
}

pub fn precondition<T: Scalar, M: FactorMap<T>, K: Kernel<T>>(
    kfac: &mut Preconditioner<'_, T, M, K>,
    scratch: &mut [T],
) -> Vec<f64> {
    let mut u = random(15, 90);
    kfac.precondition_flat(&mut u, scratch).unwrap();
    widened(&u)
}
