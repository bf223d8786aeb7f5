//! Inputs, the same in every run, and what results are compared by.

use kfac_linalg::product::{self, Accumulate};
use kfac_linalg::{Fast, MatMut, MatRef};
use std::f64::consts::PI;

/// Orders of symmetric matrices: powers of two, round numbers, and MNIST's 784 inputs with a bias.
pub const ORDERS: [usize; 13] = [16, 24, 32, 48, 64, 100, 128, 200, 256, 400, 512, 785, 1024];

/// Uniform numbers from -1 to 1: the generator splitmix64.
pub fn noise(len: usize, seed: u64) -> Vec<f64> {
    let number = |index: u64| {
        let mut bits = (index + 1 + (seed << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    (0..len as u64).map(number).collect()
}

/// Cases in a batch of [`moving_average`].
const BATCH: usize = 128;

/// The old share of an average that moves with every batch.
const DECAY: f64 = 0.95;

/// What a layer sees.
#[derive(Clone, Copy, Debug)]
pub enum Features {
    /// `max(0, W z)` of signals `z` whose variances fall like `1 / j`, and a bias.
    Relu,
    /// `W z` of signals whose variances fall like `1 / j²`: a spectrum far below the rounding of single precision.
    Gauss,
}

impl Features {
    /// So many cases of `n` features, row by row. The weights `W` depend on `n` alone.
    fn cases(self, n: usize, cases: usize, seed: u64) -> Vec<f64> {
        let (exponent, features) = match self {
            Self::Relu => (0.5, n - 1),
            Self::Gauss => (1.0, n),
        };
        let mut signals = noise(cases * n, 2 * seed);
        signals.chunks_exact_mut(n).for_each(|case| {
            case.iter_mut().enumerate().for_each(|(j, z)| *z /= (j as f64 + 1.0).powf(exponent));
        });
        let sums = multiply([cases, n, features], &signals, &noise(n * features, 1));
        if let Self::Gauss = self {
            return sums;
        }
        let mut rows = vec![1.0; cases * n];
        for (row, sums) in rows.chunks_exact_mut(n).zip(sums.chunks_exact(features)) {
            row.iter_mut().zip(sums).for_each(|(x, &sum)| *x = sum.max(0.0));
        }
        rows
    }
}

/// An input factor as K-FAC meets it: second moment of `2 n` cases.
pub fn relu_factor(n: usize) -> Vec<f64> {
    second_moment(n, &Features::Relu.cases(n, 2 * n, 0))
}

/// The same as an exponential average over batches of 128 cases, after so many of them.
pub fn moving_average(features: Features, n: usize, batches: u64) -> Vec<f64> {
    let mut average = vec![0.0; n * n];
    for batch in 1..=batches {
        let factor = second_moment(n, &features.cases(n, BATCH, batch));
        let decay = if batch == 1 { 0.0 } else { DECAY };
        average.iter_mut().zip(factor).for_each(|(old, new)| *old = decay * *old + (1.0 - decay) * new);
    }
    average
}

/// `XᵀX` over the number of rows of `X`.
fn second_moment(n: usize, rows: &[f64]) -> Vec<f64> {
    let cases = rows.len() / n;
    let mut factor = multiply([n, cases, n], &transposed(rows, n), rows);
    factor.iter_mut().for_each(|x| *x /= cases as f64);
    factor
}

/// `A + (tr A / 10 n) I`: a factor with damping, of condition `5 n` or so.
pub fn damped(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    let trace: f64 = a.iter().step_by(n + 1).sum();
    a.iter_mut().step_by(n + 1).for_each(|x| *x += trace / (10 * n) as f64);
    a
}

/// A dense matrix with the eigenvalues 1, 2, ..., n.
///
/// Its eigenvectors are the columns of `C S C`, where `C` is the orthogonal cosine transform and `S` changes signs.
pub fn flat_spectrum(n: usize) -> Vec<f64> {
    let cosine = |i: usize, j: usize| {
        let scale = if i == 0 { 1.0 } else { 2.0 } / n as f64;
        scale.sqrt() * (PI * ((2 * j + 1) * i) as f64 / (2 * n) as f64).cos()
    };
    let transform: Vec<f64> = (0..n * n).map(|index| cosine(index / n, index % n)).collect();
    let mut changed = transform.clone();
    for (row, sign) in changed.chunks_exact_mut(n).zip(noise(n, 9)) {
        row.iter_mut().for_each(|x| *x *= sign.signum());
    }
    let q = multiply([n; 3], &transform, &changed);
    let d: Vec<f64> = (1..=n).map(|value| value as f64).collect();
    Spectral { q, d }.matrix()
}

/// The lower triangle of an `n x n` matrix, row by row.
pub fn lower(n: usize, at: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))).map(|(i, j)| at(i, j)).collect()
}

/// A decomposition `A = Q diag(d) Qᵀ`.
pub struct Spectral {
    q: Vec<f64>,
    d: Vec<f64>,
}

impl Spectral {
    /// Eigenvectors are the columns of `q`.
    pub fn new(d: &[f64], q: impl Fn(usize, usize) -> f64) -> Self {
        let n = d.len();
        Self { q: (0..n * n).map(|index| q(index / n, index % n)).collect(), d: d.to_vec() }
    }

    /// `Q diag(d) Qᵀ`.
    fn matrix(&self) -> Vec<f64> {
        let n = self.d.len();
        let scaled: Vec<f64> =
            self.q.chunks_exact(n).flat_map(|row| row.iter().zip(&self.d)).map(|(q, d)| q * d).collect();
        multiply([n; 3], &scaled, &transposed(&self.q, n))
    }

    /// What two right decompositions have in common, whatever their signs and order: `A`, and `QᵀQ` in its units.
    pub fn result(&self) -> Vec<f64> {
        let n = self.d.len();
        let unit = (self.d.iter().map(|d| d * d).sum::<f64>() / n as f64).sqrt();
        let gram = multiply([n; 3], &transposed(&self.q, n), &self.q);
        self.matrix().into_iter().chain(gram.into_iter().map(|x| unit * x)).collect()
    }
}

/// `A B`, row by row: `m x k` times `k x n`.
fn multiply([m, k, n]: [usize; 3], a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    let mut scratch = vec![0.0; product::gemm_scratch_len::<f64>(m, n, k)];
    let fits = "the shapes fit";
    let (a, b) = (MatRef::row_major(a, m, k).expect(fits), MatRef::row_major(b, k, n).expect(fits));
    let target = MatMut::row_major(&mut c, m, n).expect(fits);
    product::gemm(Fast::detect(), target, Accumulate::Replace(1.0), a, b, &mut scratch).expect(fits);
    c
}

/// Rows become columns.
fn transposed(a: &[f64], cols: usize) -> Vec<f64> {
    let rows = a.len() / cols;
    (0..a.len()).map(|index| a[index % rows * cols + index / rows]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(a: &[f64], n: usize) -> f64 {
        a.iter().step_by(n + 1).sum()
    }

    fn squares(a: &[f64]) -> f64 {
        a.iter().map(|x| x * x).sum()
    }

    fn is_symmetric(a: &[f64], n: usize) -> bool {
        a.iter().zip(transposed(a, n)).all(|(x, y)| (x - y).abs() <= 1e-12 * x.abs().max(1.0))
    }

    #[test]
    fn noise_fills_its_range_and_depends_on_the_seed() {
        let numbers = noise(10_000, 1);
        assert!(numbers.iter().all(|x| (-1.0..1.0).contains(x)));
        let variance = squares(&numbers) / 1e4;
        assert!((variance - 1.0 / 3.0).abs() < 0.02, "{variance}");
        assert!(numbers.iter().sum::<f64>().abs() < 200.0);
        assert_ne!(numbers[..3], noise(3, 2));
    }

    #[test]
    fn a_flat_spectrum_has_the_moments_of_one_to_n() {
        let n = 20;
        let a = flat_spectrum(n);
        assert!((trace(&a, n) - 210.0).abs() < 1e-10 && (squares(&a) - 2870.0).abs() < 1e-9);
        assert!(is_symmetric(&a, n) && a.iter().filter(|x| x.abs() < 1e-3).count() < 20, "dense");
    }

    #[test]
    fn a_relu_factor_is_a_second_moment_with_a_bias() {
        let n = 12;
        let a = relu_factor(n);
        assert!(is_symmetric(&a, n) && a.iter().all(|&x| x >= 0.0));
        assert_eq!(a[n * n - 1], 1.0);
        let damping = trace(&damped(a.clone(), n), n) / trace(&a, n);
        assert!((damping - 1.1).abs() < 1e-12, "{damping}");
    }

    #[test]
    fn an_average_moves_by_a_twentieth_of_a_batch() {
        let n = 9;
        for features in [Features::Relu, Features::Gauss] {
            let [first, second] = [1, 2].map(|batches| moving_average(features, n, batches));
            let batch = second_moment(n, &features.cases(n, BATCH, 2));
            for ((first, second), batch) in first.iter().zip(&second).zip(&batch) {
                assert!((0.95 * first + 0.05 * batch - second).abs() < 1e-15);
            }
            assert!(is_symmetric(&second, n));
        }
    }

    #[test]
    fn a_decomposition_is_the_same_in_any_order_and_with_any_signs() {
        let turn = |angle: f64| [angle.cos(), -angle.sin(), angle.sin(), angle.cos()];
        let (q, [a, b]) = (turn(0.3), [1.0, 5.0]);
        let one = Spectral::new(&[a, b], |i, j| q[2 * i + j]).result();
        let other = Spectral::new(&[b, a], |i, j| -q[2 * i + (1 - j)]).result();
        // The Gram matrix of an orthogonal Q is the identity.
        assert!(one.iter().zip(&other).all(|(x, y)| (x - y).abs() < 1e-14), "{one:?} {other:?}");
        assert_eq!(one.len(), 8);
    }
}
