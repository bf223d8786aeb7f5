//! What the tests share: numbers without a generator crate, explicit matrices, a table of small networks.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.

pub mod dense;
pub mod nets;
pub mod oracle;

use dense::Matrix;
use kfac_train::kfac_core::losses::Loss;
use kfac_train::kfac_linalg::Kernel;
use kfac_train::model::Network;

/// A stream of numbers that is the same everywhere: SplitMix64 (Steele, Lea and Flood 2014).
pub struct Numbers(pub u64);

impl Numbers {
    /// The next integer.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Uniform in `[-1, 1)`.
    pub fn next(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// `len` numbers, uniform in `[-1, 1)`.
pub fn random(len: usize, seed: u64) -> Vec<f64> {
    let mut numbers = Numbers(seed);
    (0..len).map(|_| numbers.next()).collect()
}

/// The bits of every number, for comparisons that forgive nothing.
pub fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// Distance of the points of [`derivative`]: a power of two, so that `θ ± h` loses little of `h`.
const H: f64 = 1.0 / 4096.0;

/// What a comparison with [`derivative`] must forgive, as a share of the largest derivative: truncation is
/// `h⁴ f⁽⁵⁾ / 30 = 1e-16 f⁽⁵⁾`, rounding `1.5 ε f / h = 1e-12 f`, and the sums that are differentiated here
/// (mean losses, outputs) are up to a hundred times their derivatives.
pub const DIFFERENCE: f64 = 1e-9;

/// What two orders of the same sums may differ by, as a share of the largest magnitude: they have at most a few
/// hundred terms, so `ε sqrt(300) ~ 4e-15`, and cancel by less than a factor of 30.
pub const ROUNDING: f64 = 1e-13;

/// `df/dt` at 0 by the five-point formula.
pub fn derivative(mut f: impl FnMut(f64) -> Vec<f64>) -> Vec<f64> {
    let [far_left, left, right, far_right] = [-2.0, -1.0, 1.0, 2.0].map(|k| f(k * H));
    let inner = right.iter().zip(&left).map(|(r, l)| r - l);
    let outer = far_right.iter().zip(&far_left).map(|(r, l)| r - l);
    inner.zip(outer).map(|(inner, outer)| (8.0 * inner - outer) / (12.0 * H)).collect()
}

/// `x + t d`.
pub fn moved(x: &[f64], t: f64, d: &[f64]) -> Vec<f64> {
    x.iter().zip(d).map(|(x, d)| x + t * d).collect()
}

/// The unit vectors of `len` dimensions.
pub fn unit_vectors(len: usize) -> impl Iterator<Item = Vec<f64>> {
    (0..len).map(move |i| (0..len).map(|j| if i == j { 1.0 } else { 0.0 }).collect())
}

/// All outputs of the last forward pass, row after row.
pub fn outputs<K: Kernel<f64>>(network: &Network<f64, K>) -> Vec<f64> {
    let rows = network.outputs();
    (0..rows.rows()).flat_map(|row| rows.row(row).unwrap().to_vec()).collect()
}

/// `J` of the last forward pass, column by column from forward-mode derivatives.
pub fn jacobian<K: Kernel<f64>>(network: &mut Network<f64, K>, weights: &[f64]) -> Matrix {
    let column = |direction: Vec<f64>| {
        let rows = network.tangent(weights, &direction).unwrap();
        (0..rows.rows()).flat_map(|row| rows.row(row).unwrap().to_vec()).collect()
    };
    Matrix::from_columns(&unit_vectors(weights.len()).map(column).collect::<Vec<_>>())
}

/// `F = (1/N) Σ Jᵀ H J` over the rows of the loss, `H` from its formula at the outputs of the last forward pass.
pub fn fisher_matrix<K: Kernel<f64>>(network: &Network<f64, K>, jacobian: &Matrix, cases: usize) -> Matrix {
    let (count, width) = (jacobian.cols, network.outputs().cols());
    let mut fisher = Matrix::zeros(count, count);
    for (row, f) in outputs(network).chunks(width).enumerate() {
        let h = output_fisher(network.loss_function(), f);
        for i in 0..width {
            for j in 0..width {
                let [ji, jj] = [i, j].map(|k| &jacobian.data[(row * width + k) * count..][..count]);
                fisher.add_outer(h.at(i, j) / cases as f64, ji, jj);
            }
        }
    }
    fisher
}

/// The Fisher matrix of one row of outputs, from its definition.
pub fn output_fisher(loss: Loss, outputs: &[f64]) -> Matrix {
    let exponentials: Vec<f64> = outputs.iter().map(|f| f.exp()).collect();
    let total: f64 = exponentials.iter().sum();
    let n = outputs.len();
    Matrix::from_fn(n, n, |i, j| {
        let same = if i == j { 1.0 } else { 0.0 };
        match loss {
            Loss::Square => same,
            Loss::Softmax => {
                let [pi, pj] = [i, j].map(|k| exponentials[k] / total);
                same * pi - pi * pj
            }
            Loss::Bernoulli => same * exponentials[i] / (1.0 + exponentials[i]).powi(2),
        }
    })
}

/// All losses.
pub const LOSSES: [Loss; 3] = [Loss::Square, Loss::Softmax, Loss::Bernoulli];
